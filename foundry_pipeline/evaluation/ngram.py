"""How well a text is foretold by the character's other writing: an interpolated trigram model of his words.

    model = TrigramModel([words(text) for text in passages])
    model.surprise(words(answer), left_out={3})    → 6.2 (nats a word; his own pages, each left out, lie about 5.8)

Absolute discounting with interpolation (Ney, Essen and Kneser, Computer Speech and Language 8, 1994). Any passages can
be left out of the counts at the cost of reading those passages alone, so that every page of his can be measured as if
the model had never seen it.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Iterable, Sequence

DISCOUNT = 0.75
UNSEEN_WORDS = 20_000  # words of English, among which what is set aside for words he never used is shared out
_START = "\n"  # no word holds one


def _runs(tokens: Sequence[str], size: int) -> list[tuple[str, ...]]:
    padded = [_START] * (size - 1) + list(tokens)
    return list(zip(*(padded[i:] for i in range(size)), strict=False))


class _Table:
    """Counts of runs of one size, and for each context (the run but its last word) its tokens and distinct followers."""

    def __init__(self, passages: Iterable[Sequence[str]], size: int) -> None:
        self.parts = [Counter(_runs(tokens, size)) for tokens in passages]
        self.counts: Counter[tuple[str, ...]] = Counter()
        for part in self.parts:
            self.counts.update(part)
        self.tokens: Counter[tuple[str, ...]] = Counter()
        self.types: Counter[tuple[str, ...]] = Counter()
        for run, count in self.counts.items():
            self.tokens[run[:-1]] += count
            self.types[run[:-1]] += 1

    def without(self, left_out: Collection[int]) -> tuple[Counter[tuple[str, ...]], ...]:
        """What the passages left out take from counts, tokens and types."""
        counts: Counter[tuple[str, ...]] = Counter()
        for i in left_out:
            counts.update(self.parts[i])
        tokens: Counter[tuple[str, ...]] = Counter()
        types: Counter[tuple[str, ...]] = Counter()
        for run, count in counts.items():
            tokens[run[:-1]] += count
            types[run[:-1]] += count == self.counts[run]
        return counts, tokens, types


class TrigramModel:
    """The model of all passages; `passages` are their words."""

    def __init__(self, passages: Sequence[Sequence[str]]) -> None:
        self._tables = [_Table(passages, size) for size in (1, 2, 3)]

    def surprise(self, tokens: Sequence[str], left_out: Collection[int] = ()) -> float:
        """Nats a word of a text under the passages not left out; with none left, every word is equally likely.

        Raises ValueError for a text without words.
        """
        if not tokens:
            raise ValueError("a text without words has no surprise")
        gone = [table.without(left_out) for table in self._tables]
        total = 0.0
        for run in _runs(tokens, 3):
            # From the single word to the trigram: each order's discount is what it leaves to the order below it.
            chance = 1.0 / UNSEEN_WORDS
            for size, (table, (counts, held, kinds)) in enumerate(zip(self._tables, gone, strict=True), 1):
                here = run[3 - size :]
                seen = table.tokens[here[:-1]] - held[here[:-1]]
                if seen:
                    kept = max(table.counts[here] - counts[here] - DISCOUNT, 0.0)
                    chance = (kept + DISCOUNT * (table.types[here[:-1]] - kinds[here[:-1]]) * chance) / seen
            total -= math.log(chance)
        return total / len(tokens)
