"""Pairs laid end to end in one row of tokens, each prompt once.

    two pairs   → P₁ C₁ R₁ P₂ C₂ R₂            one sequence, no padding
    positions     0…p-1 | p…p+c-1 | p…p+r-1     the rejected branch starts again where the prompt ended
    sees          C: P and C; R: P and R; nothing of another pair

The last token of an answer is only ever a label: no row of it is computed. The last prompt row predicts the first
token of both answers, so it stands twice among the scored rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol


class PairTokens(Protocol):
    """One pair in token ids; `rejected` is empty for supervised fine-tuning."""

    @property
    def prompt(self) -> Sequence[int]: ...
    @property
    def chosen(self) -> Sequence[int]: ...
    @property
    def rejected(self) -> Sequence[int]: ...


@dataclass(frozen=True)
class Span:
    """Where one pair lies in the row: `start`, then `prompt`, `chosen` and `rejected` rows, in this order."""

    start: int
    prompt: int
    chosen: int
    rejected: int

    @property
    def end(self) -> int:
        return self.start + self.prompt + self.chosen + self.rejected


@dataclass(frozen=True)
class Packed:
    """A window of pairs as one sequence.

    `ids`, `positions`: one entry a token (T of them). `rows`, `labels`, `part`: one entry a scored prediction (N): the
    row it is made at, the token that comes next, and what it counts for, `3 × pair + PROMPT | CHOSEN | REJECTED`.
    """

    ids: list[int]
    positions: list[int]
    spans: tuple[Span, ...]
    rows: list[int]
    labels: list[int]
    part: list[int]

    @property
    def pairs(self) -> int:
        return len(self.spans)


PROMPT, CHOSEN, REJECTED = 0, 1, 2


def pack(pairs: Sequence[PairTokens], *, score_prompt: bool) -> Packed:
    """Lay pairs out. `score_prompt` scores the prompt's own tokens too, as ORPO's NLL wants (the first has none)."""
    ids: list[int] = []
    positions: list[int] = []
    spans: list[Span] = []
    rows: list[int] = []
    labels: list[int] = []
    part: list[int] = []
    for number, pair in enumerate(pairs):
        prompt, chosen, rejected = list(pair.prompt), list(pair.chosen), list(pair.rejected)
        if not prompt or not chosen:
            raise ValueError("a pair needs a prompt and a chosen answer of one token at least")
        start, shared = len(ids), len(prompt)
        last = start + shared - 1
        spans.append(Span(start, shared, len(chosen) - 1, max(0, len(rejected) - 1)))
        ids += prompt + chosen[:-1] + rejected[:-1]
        positions += [*range(shared + len(chosen) - 1), *range(shared, shared + len(rejected) - 1)]
        if score_prompt:
            _score(rows, labels, part, range(start, last), prompt[1:], 3 * number + PROMPT)
        _score(rows, labels, part, range(last, last + len(chosen)), chosen, 3 * number + CHOSEN)
        branch = start + shared + len(chosen) - 1
        if rejected:
            places = [last, *range(branch, branch + len(rejected) - 1)]
            _score(rows, labels, part, places, rejected, 3 * number + REJECTED)
    return Packed(ids, positions, tuple(spans), rows, labels, part)


def _score(
    rows: list[int], labels: list[int], part: list[int], at: Sequence[int], tokens: Sequence[int], kind: int
) -> None:
    rows += at
    labels += tokens
    part += [kind] * len(tokens)


def shares(lengths: Sequence[int], processes: int) -> list[list[int]]:
    """Which pairs of a window each process takes: longest first to the least loaded, indices ascending.

    Depends on the lengths alone; a process may get none where a window is smaller than the number of processes.
    """
    load = [0] * processes
    taken: list[list[int]] = [[] for _ in range(processes)]
    for index in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        least = min(range(processes), key=lambda p: (load[p], p))
        taken[least].append(index)
        load[least] += lengths[index]
    return [sorted(one) for one in taken]
