"""Pairs laid end to end in one row of tokens, each prompt once.

    two pairs   → S P₁ C₁ R₁ P₂ C₂ R₂          one sequence, no padding; S: what all prompts begin with
    positions     0…s-1 | s…p-1 | p…p+c-1 | p…p+r-1     the rejected branch starts again where the prompt ended
    sees          C: S, P and C; R: S, P and R; nothing of another pair

A chat template begins every prompt with the same words (a system prompt, marks of the turn), often half of a short one:
they are computed once for all pairs. The last token of an answer is only ever a label: no row of it is computed. The last
prompt row predicts the first token of both answers, so it stands twice among the predictions.
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
    """Where one pair lies in the row: `start`, then `prompt`, `chosen` and `rejected` rows, in this order.

    `shared` rows at the very beginning are the first of its prompt; `prompt` counts those that are its own. What is shared
    is a span by itself, the first one, without answers.
    """

    start: int
    prompt: int
    chosen: int
    rejected: int
    shared: int = 0

    @property
    def end(self) -> int:
        return self.start + self.prompt + self.chosen + self.rejected


@dataclass(frozen=True)
class Packed:
    """A window of pairs as one sequence.

    `ids`, `positions`: one entry a token (T of them). `rows`, `labels`: one entry a prediction (N): the row it is made at and
    the token that comes next. `places`, `part`: one entry for each time that a prediction counts: which one, and what for,
    `3 × pair + PROMPT | CHOSEN | REJECTED`.
    """

    ids: list[int]
    positions: list[int]
    spans: tuple[Span, ...]
    rows: list[int]
    labels: list[int]
    places: list[int]
    part: list[int]
    pairs: int


PROMPT, CHOSEN, REJECTED = 0, 1, 2


_FEWEST_SHARED = 4  # rows; fewer are not worth a sequence of their own


def pack(pairs: Sequence[PairTokens], *, score_prompt: bool) -> Packed:
    """Lay pairs out. `score_prompt` scores the prompt's own tokens too, as ORPO's NLL wants (the first has none)."""
    common = _common([pair.prompt for pair in pairs])
    ids, positions = list(pairs[0].prompt[:common]) if common else [], list(range(common))
    spans = [Span(0, common, 0, 0)] if common else []
    made = _Predictions()
    for number, pair in enumerate(pairs):
        prompt, chosen, rejected = list(pair.prompt), list(pair.chosen), list(pair.rejected)
        if not prompt or not chosen:
            raise ValueError("a pair needs a prompt and a chosen answer of one token at least")
        start, own, whole = len(ids), len(prompt) - common, len(prompt)
        last = start + own - 1
        spans.append(Span(start, own, len(chosen) - 1, max(0, len(rejected) - 1), common))
        ids += prompt[common:] + chosen[:-1] + rejected[:-1]
        positions += [*range(common, whole + len(chosen) - 1), *range(whole, whole + len(rejected) - 1)]
        if score_prompt:
            made.score([*range(common), *range(start, last)], prompt[1:], 3 * number + PROMPT)
        made.score(range(last, last + len(chosen)), chosen, 3 * number + CHOSEN)
        branch = start + own + len(chosen) - 1
        if rejected:
            made.score([last, *range(branch, branch + len(rejected) - 1)], rejected, 3 * number + REJECTED)
    return Packed(ids, positions, tuple(spans), made.rows, made.labels, made.places, made.part, len(pairs))


def _common(prompts: Sequence[Sequence[int]]) -> int:
    """How many tokens all prompts begin with; each keeps one at least that is its own, and one prompt shares nothing."""
    if len(prompts) < 2 or not all(prompts):
        return 0
    first, last = min(map(tuple, prompts)), max(map(tuple, prompts))
    room = min(map(len, prompts)) - 1
    same = next((i for i in range(room) if first[i] != last[i]), room)
    return same if same >= _FEWEST_SHARED else 0


class _Predictions:
    """Predictions as they are asked for; one that is asked for again (same row, same token) is made once."""

    def __init__(self) -> None:
        self.rows: list[int] = []
        self.labels: list[int] = []
        self.places: list[int] = []
        self.part: list[int] = []
        self._known: dict[tuple[int, int], int] = {}

    def score(self, at: Sequence[int], tokens: Sequence[int], kind: int) -> None:
        for asked in zip(at, tokens, strict=True):
            if asked not in self._known:
                self._known[asked] = len(self.rows)
                self.rows.append(asked[0])
                self.labels.append(asked[1])
            self.places.append(self._known[asked])
        self.part += [kind] * len(tokens)


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
