"""How much of an answer is word for word somebody's passage.

    >>> Overlaps(["p1"], ["the great bulwark of our security"]).longest("militia, the great bulwark of liberty")
    Overlap(words=4, passage_id='p1')

A score does not say whether an answer was composed or remembered; this number does.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from foundry_pipeline.textstats import words


@dataclass(frozen=True)
class Overlap:
    """The longest run of words that an answer shares with any passage, and the first passage that holds it."""

    words: int
    passage_id: str | None


class Overlaps:
    """Passages, read once, that answers are compared with.

    Every pair of neighbouring words is looked up where it stands in the passages, and followed from there: an answer is
    compared with what it shares, not with all that there is.
    """

    def __init__(self, passage_ids: Sequence[str], texts: Sequence[str]) -> None:
        self._ids = list(passage_ids)
        self._words = [words(text) for text in texts]
        self._first: dict[str, int] = {}
        self._pairs: dict[tuple[str, str], list[tuple[int, int]]] = {}
        for passage, tokens in enumerate(self._words):
            for token in tokens:
                self._first.setdefault(token, passage)
            for at, pair in enumerate(pairwise(tokens)):
                self._pairs.setdefault(pair, []).append((passage, at))

    def sharing(self, answer: str, size: int) -> frozenset[int]:
        """Passages (by position) that share a run of `size` words or more with the answer; `size` is 2 at the least."""
        if size < 2:
            raise ValueError(f"a run of {size} words")
        return frozenset(passage for passage, run in self._shared(words(answer)) if run >= size)

    def longest(self, answer: str) -> Overlap:
        tokens = words(answer)
        found = [(-run, passage) for passage, run in self._shared(tokens)]
        found = found or [(-1, self._first[token]) for token in tokens if token in self._first]
        if not found:
            return Overlap(0, None)
        run, passage = min(found)
        return Overlap(-run, self._ids[passage])

    def _shared(self, tokens: Sequence[str]) -> Iterator[tuple[int, int]]:
        """Passage and length of every shared run of two words or more that goes on neither before nor behind."""
        for here, pair in enumerate(pairwise(tokens)):
            for passage, there in self._pairs.get(pair, ()):
                other = self._words[passage]
                if here and there and tokens[here - 1] == other[there - 1]:
                    continue  # the middle of a run that was found before
                most = min(len(tokens) - here, len(other) - there)
                yield passage, next((n for n in range(2, most) if tokens[here + n] != other[there + n]), most)
