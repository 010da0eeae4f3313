"""A batch of pairs as the rules read it, and how a rule says what it found.

>>> batch = Batch.read(pairs, lexicon, filters, character)
>>> counts = word_counts(batch.chosen)
>>> where(counts > 400, lambda i: counts[i], lambda i: f"chosen is {counts[i]} words long")
Found(rows=[3], scores=[512.0], reasons=['chosen is 512 words long'], unsure=0)
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from foundry_pipeline.declarations.assets import Filters
from foundry_pipeline.declarations.sources import Character
from foundry_pipeline.pairs.candidates import voice_scores
from foundry_pipeline.pairs.conversations import SIDES
from foundry_pipeline.textcolumns import Lexicon, Texts, read_texts, repetition


@dataclass(frozen=True)
class Found:
    """Where a rule fired: row numbers in ascending order, the figure and the reason of each."""

    rows: list[int] = field(default_factory=list)
    scores: list[float] = field(default_factory=list)
    reasons: list[str] = field(default_factory=list)
    unsure: int = 0
    """Rows that the rule could not judge and let pass."""

    @classmethod
    def at(cls, rows: Mapping[int, tuple[float, str]], unsure: int = 0) -> Found:
        """From row number → (figure, reason), in any order."""
        ordered = sorted(rows.items())
        scores, reasons = [s for _, (s, _) in ordered], [r for _, (_, r) in ordered]
        return cls([i for i, _ in ordered], scores, reasons, unsure)


@dataclass(frozen=True)
class Batch:
    """Some pairs, read. `cut`: rows whose rejected side met the token limit. Missing sides are empty texts."""

    prompt: Texts
    chosen: Texts
    rejected: Texts
    cut: NDArray[np.bool_]
    filters: Filters
    character: Character | None

    @classmethod
    def read(cls, pairs: pl.DataFrame, lexicon: Lexicon, filters: Filters, character: Character | None) -> Batch:
        """`pairs` has prompt, chosen and rejected; finish_reason, if it is known."""
        cut = np.zeros(pairs.height, dtype=np.bool_)
        if "finish_reason" in pairs.columns:
            cut = (pairs["finish_reason"] == "length").fill_null(value=False).to_numpy()
        prompt, chosen, rejected = (read_texts(pairs[s], lexicon) for s in SIDES)
        return cls(prompt, chosen, rejected, cut, filters, character)

    def __len__(self) -> int:
        return len(self.prompt)

    @property
    def sides(self) -> list[tuple[str, Texts]]:
        return [(side, getattr(self, side)) for side in SIDES]

    @cached_property
    def voices(self) -> tuple[list[float], list[float]]:
        """Voice scores of chosen and rejected, from the texts: a stored score may belong to other texts."""
        assert self.character is not None
        return voice_scores(self.chosen, self.character), voice_scores(self.rejected, self.character)

    @cached_property
    def contrast(self) -> NDArray[np.float64]:
        """voice(chosen) − voice(rejected)."""
        return np.array([round(c - r, 6) for c, r in zip(*self.voices, strict=True)])

    @cached_property
    def repetitions(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Shares of repeated 4-grams of chosen and rejected."""
        return repetition(self.chosen), repetition(self.rejected)

    def scores(self) -> pl.DataFrame:
        """One row a pair: what the rules measured of every one, dropped or kept; rounded to six places."""
        repeated = [round(r, 6) for r in self.repetitions[1].tolist()]
        columns: dict[str, Any] = {"repetition_rejected": repeated}
        if self.character is not None:
            chosen, rejected = self.voices
            columns |= {"voice_chosen": chosen, "voice_rejected": rejected, "voice_contrast": self.contrast}
        return pl.DataFrame(columns, schema=dict.fromkeys(columns, pl.Float64))


def where(rows: NDArray[Any], score: Callable[[int], float], reason: Callable[[int], str]) -> Found:
    """A rule's verdicts on the rows where `rows` (Boolean) holds."""
    at = np.flatnonzero(rows).tolist()
    return Found(at, [float(score(i)) for i in at], [reason(i) for i in at])


def first_side(per_side: Iterable[tuple[str, NDArray[Any], Callable[[str, Any], str]]]) -> Found:
    """Of several sides' figures (0: nothing) the first that is not 0; the reason is made from side and figure."""
    rows: dict[int, tuple[float, str]] = {}
    for side, figures, reason in per_side:
        for i in np.flatnonzero(figures).tolist():
            rows.setdefault(i, (float(figures[i]), reason(side, figures[i])))
    return Found.at(rows)
