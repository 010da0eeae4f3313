"""How much of an answer is word for word somebody's passage.

    >>> Overlaps(["p1"], ["the great bulwark of our security"]).longest("militia, the great bulwark of liberty")
    Overlap(words=4, passage_id='p1')

A score does not say whether an answer was composed or remembered; this number does.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from foundry_pipeline.textstats import Runs, words


@dataclass(frozen=True)
class Overlap:
    """The longest run of words that an answer shares with any passage, and the first passage that holds it."""

    words: int
    passage_id: str | None


class Overlaps:
    """Passages, read once, that answers are compared with. One comparison is linear in the passages' words."""

    def __init__(self, passage_ids: Sequence[str], texts: Sequence[str]) -> None:
        self._ids = list(passage_ids)
        self._words = [words(text) for text in texts]

    def runs(self, answer: str) -> list[int]:
        """Length in words of the longest run shared with each passage, in the order of the passages."""
        automaton = Runs(words(answer))
        return [automaton.longest_in(tokens)[0] for tokens in self._words]

    def longest(self, answer: str) -> Overlap:
        runs = self.runs(answer)
        best = max(runs, default=0)
        return Overlap(best, self._ids[runs.index(best)] if best else None)
