"""Phrases in columns of texts: `textstats.find_phrases`, counted for every row at once.

>>> lexicon = Lexicon()
>>> texts = read_texts(pl.Series(["a lot of war, a lot of it", "no lots"]), lexicon)
>>> Phrases(("a lot of", "war"), lexicon).counts(texts).tolist()
[3, 0]
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from foundry_pipeline import textstats
from foundry_pipeline.textcolumns.lexicon import Ints, Lexicon, Texts


class Phrases:
    """Phrases (whole words in a row, any case, any Unicode form) to be sought in texts of one lexicon.

    Each is looked for at its longest word, which is rarely a common one. `bare`: an inflectional apostrophe makes no
    difference on either side, as in `textstats.contains_any`.
    """

    def __init__(self, phrases: Iterable[str], lexicon: Lexicon, *, bare: bool = False) -> None:
        self._lexicon, self._bare = lexicon, bare
        self._by_anchor: dict[int, list[tuple[int, list[int]]]] = {}
        for words in sorted({tuple(textstats.words(p)) for p in phrases} - {()}):
            numbers = lexicon.number(list(words))
            if bare:
                numbers = lexicon.bare[numbers].tolist()
            at = max(range(len(words)), key=lambda i: len(words[i]))
            self._by_anchor.setdefault(numbers[at], []).append((at, numbers))

    def counts(self, texts: Texts) -> Ints:
        """How often each row says one of the phrases: the longest first, none overlapping another."""
        starts, lengths = self._matches(texts)
        order = np.lexsort((-lengths, starts))
        starts, lengths = starts[order], lengths[order]
        if len(starts) > 1 and (starts[1:] < (starts + lengths)[:-1]).any():
            starts = _apart(starts, lengths)
        return np.bincount(texts.word_rows[starts], minlength=len(texts)).astype(np.int64)

    def _matches(self, texts: Texts) -> tuple[Ints, Ints]:
        """(first word, words) of every place where a phrase stands, overlapping ones too."""
        words = self._lexicon.bare[texts.words] if self._bare else texts.words
        size = len(words)
        sought = np.zeros(len(self._lexicon.words), dtype=np.bool_)
        sought[list(self._by_anchor)] = True
        places = np.flatnonzero(sought[words])
        anchors = words[places]
        order = np.argsort(anchors, kind="stable")
        places, anchors = places[order], anchors[order]
        found: list[tuple[Ints, int]] = []
        for anchor, phrases in self._by_anchor.items():
            low, high = np.searchsorted(anchors, [anchor, anchor + 1])
            for at, numbers in phrases if high > low else ():
                first = places[low:high] - at
                first = first[(first >= 0) & (first + len(numbers) <= size)]
                for i, number in enumerate(numbers):
                    first = first[words[first + i] == number]
                first = first[texts.word_rows[first] == texts.word_rows[first + len(numbers) - 1]]
                found.append((first, len(numbers)))
        if not found:
            return np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64)
        starts = np.concatenate([f for f, _ in found])
        return starts, np.concatenate([np.full(len(f), n, dtype=np.int64) for f, n in found])


def _apart(starts: Ints, lengths: Ints) -> NDArray[np.int64]:
    """Left to right, what does not overlap what was taken before; sorted by start, then longest first."""
    taken, end = [], 0
    for start, length in zip(starts.tolist(), lengths.tolist(), strict=True):
        if start >= end:
            taken.append(start)
            end = start + length
    return np.array(taken, dtype=np.int64)
