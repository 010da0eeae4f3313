"""WHAT a training is planned with: steps whose adapter is kept, the machine that is foreseen, and how long texts will be.

checkpoints: {checkpoint-150: {step: 150, of: 861}}      # in a run: kept and judged, at any size of the profile
planning:                                               # in a profile: for `foundry plan`, never for a training
  gpu: {name: A100 80GB, memory_gib: 80, peak_tflops: 312, utilisation: 0.3, usd_per_hour: 2.5, source: …}
  tokens: {preference: {prompt: 120, chosen: 700, rejected: 850}, sft: {prompt: 60, chosen: 840}}
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, model_validator

from foundry_pipeline.declarations.common import Declaration

CheckpointName = Annotated[str, Field(pattern=r"^checkpoint-[a-z0-9]+(-[a-z0-9]+)*$", max_length=40)]
"""Also the name of a serving mode and of a folder, hence so plain; no other mode begins like it."""


class NamedCheckpoint(Declaration):
    """A step of a training whose adapter is kept and judged: the same share of the way at any size of a profile."""

    step: int = Field(ge=1, description="optimizer steps taken by then")
    of: int = Field(ge=1, description="optimizer steps of the whole training that `step` was counted in")

    @model_validator(mode="after")
    def _within(self) -> NamedCheckpoint:
        if self.step > self.of:
            raise ValueError(f"`step` {self.step} lies beyond the {self.of} steps of the whole training")
        return self


class Gpu(Declaration):
    """A GPU as its maker and its landlord describe it; `foundry plan` reckons with one of them."""

    name: str
    memory_gib: float = Field(gt=0)
    peak_tflops: float = Field(
        gt=0, description="10¹² floating-point operations a second in dense bfloat16, by its maker"
    )
    utilisation: float = Field(
        gt=0, le=1, description="share of the peak that training is assumed to reach, recomputed activations counted"
    )
    usd_per_hour: float = Field(ge=0)
    source: str = Field(min_length=1, description="where these figures are from, and when they were read")


class PairTokens(Declaration):
    """Mean lengths in tokens of one row of a dataset that has not been built yet; supervised rows have one answer."""

    prompt: int = Field(ge=1)
    chosen: int = Field(ge=1)
    rejected: int = Field(default=0, ge=0)


class FutureTokens(Declaration):
    """Lengths by kind of dataset."""

    preference: PairTokens
    sft: PairTokens

    @model_validator(mode="after")
    def _sides(self) -> FutureTokens:
        if not self.preference.rejected or self.sft.rejected:
            raise ValueError("rows of preferences have a rejected side, supervised ones have none")
        return self


class Planning(Declaration):
    """What a profile foresees; without it a plan goes by what was measured here."""

    gpu: Gpu | None = None
    tokens: FutureTokens | None = None
    tokens_source: str = Field(default="", description="where the lengths are from")
