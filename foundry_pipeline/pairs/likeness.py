"""Likeness of meaning with texts a pair must not know: what a paraphrase shares where the words differ.

    >>> index = LikenessIndex(["What is the chief cause of faction?"], threads=2)
    >>> index.column(["Whence do factions chiefly spring?", "Was the embargo wise?"]).tolist()
    [0.71, 0.18]

Cosine of the vectors of the bundled sentence encoder (`corpus.minilm`). It costs some 5 ms for a question and 20 ms
for a paragraph on two cores, two hundred times all other rules together, and so is measured only where a threshold is
declared (`Filters.suite_likeness`, `Filters.held_out_likeness`).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from foundry_pipeline.corpus.minilm import embed
from foundry_pipeline.corpus.retrieval import DIGITS


class LikenessIndex:
    """Vectors of some texts. Without a text nothing is like it: the likeness is then −1."""

    def __init__(self, texts: Iterable[str], *, threads: int = 2) -> None:
        self._threads = threads
        self._known = embed(sorted(set(texts)), threads=threads)

    def column(self, texts: Sequence[str]) -> NDArray[np.float64]:
        """Of each text the greatest cosine with any text of the index, in [−1, 1], to six places."""
        if not len(self._known) or not len(texts):
            return np.full(len(texts), -1.0)
        distinct = {t: i for i, t in enumerate(dict.fromkeys(texts))}
        greatest = (embed(list(distinct), threads=self._threads) @ self._known.T).max(axis=1)
        return np.round(greatest.astype(np.float64), DIGITS)[[distinct[t] for t in texts]]
