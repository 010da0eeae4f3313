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

from foundry_pipeline import textstats

_SHORTEST = 3  # words: a shorter text (`And why?`) occurs anywhere by chance


class OverlapIndex:
    """Word n-grams of some texts. A text with fewer than `ngram` words (but at least 3) is sought as a whole."""

    def __init__(self, texts: Iterable[str], ngram: int) -> None:
        self._grams: dict[int, set[tuple[str, ...]]] = {}
        for text in texts:
            tokens = textstats.words(text)
            n = min(ngram, len(tokens))
            if n >= _SHORTEST:
                self._grams.setdefault(n, set()).update(zip(*(tokens[i:] for i in range(n)), strict=False))

    def longest(self, text: str) -> int:
        """Words in the longest stretch of `text` whose every n-gram is known; 0 when none is."""
        tokens = textstats.words(text)
        longest = 0
        for n, grams in self._grams.items():
            run = 0
            for gram in zip(*(tokens[i:] for i in range(n)), strict=False):
                run = run + 1 if gram in grams else 0
                if run:
                    longest = max(longest, run + n - 1)
        return longest
