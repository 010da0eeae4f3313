"""Words in a row that a text shares with texts it must not know: the evaluation suite, the held-out documents.

>>> index = OverlapIndex(["What is a faction, and how may its mischiefs be cured?", "Who was Billey?"], ngram=8)
>>> index.longest("Tell me, what is a faction and how may its mischiefs be cured")
11
>>> index.longest("Who was Billey? I should like to know.")
3
>>> index.longest("What is a republic?")
0
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import polars as pl
from numpy.typing import NDArray

from foundry_pipeline import textstats
from foundry_pipeline.textcolumns import Lexicon, Texts, ngram_hashes, read_texts
from foundry_pipeline.textcolumns.lexicon import Ints

_SHORTEST = 3  # words: a shorter text (`And why?`) occurs anywhere by chance
_ROOM = 16  # places in the table for each n-gram: one look-up in 16 goes on to the exact comparison


class OverlapIndex:
    """Word n-grams of some texts. A text with fewer than `ngram` words (but at least 3) is sought as a whole."""

    def __init__(self, texts: Iterable[str], ngram: int) -> None:
        self._grams: dict[int, set[tuple[str, ...]]] = {}
        for text in texts:
            tokens = textstats.words(text)
            n = min(ngram, len(tokens))
            if n >= _SHORTEST:
                self._grams.setdefault(n, set()).update(zip(*(tokens[i:] for i in range(n)), strict=False))
        self._tables = {n: _Table(grams, n) for n, grams in self._grams.items()}

    def longest(self, text: str) -> int:
        """Words in the longest stretch of `text` whose every n-gram is known; 0 when none is."""
        return self._longest(textstats.words(text))

    def column(self, texts: Texts) -> Ints:
        """`longest` of every text: hashes find the few that may share something, words decide."""
        suspects = np.zeros(len(texts), dtype=np.bool_)
        for n, table in self._tables.items():
            hashes, offsets = ngram_hashes(texts, n)
            places = np.flatnonzero(table.holds(hashes))
            suspects[np.searchsorted(offsets, places, side="right") - 1] = True
        longest = np.zeros(len(texts), dtype=np.int64)
        for row in np.flatnonzero(suspects):
            longest[row] = self._longest(texts.row_words(int(row)))
        return longest

    def _longest(self, tokens: list[str]) -> int:
        longest = 0
        for n, grams in self._grams.items():
            run = 0
            for gram in zip(*(tokens[i:] for i in range(n)), strict=False):
                run = run + 1 if gram in grams else 0
                if run:
                    longest = max(longest, run + n - 1)
        return longest


class _Table:
    """Which 64-bit hashes are known: a table of bits that is asked first, and the sorted hashes themselves."""

    def __init__(self, grams: Iterable[tuple[str, ...]], n: int) -> None:
        joined = pl.Series([" ".join(g) for g in grams], dtype=pl.String)
        self._known = np.unique(ngram_hashes(read_texts(joined, Lexicon()), n)[0])
        self._shift = np.uint64(64 - max(12, (len(self._known) * _ROOM).bit_length()))
        self._bits = np.zeros(1 << (64 - int(self._shift)), dtype=np.bool_)
        self._bits[self._known >> self._shift] = True

    def holds(self, hashes: NDArray[np.uint64]) -> NDArray[np.bool_]:
        found = self._bits[hashes >> self._shift]
        at = np.flatnonzero(found)
        found[at] = np.isin(hashes[at], self._known)
        return found
