"""How near every serving mode has to stay to what was trained: the block `parity` of a profile.

parity:
  tokens: 512
  bounds:
    q4_k_m: {max_kl: 0.1, min_top1: 0.8}     # modes that are not named keep their default bounds
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator

from foundry_pipeline.declarations.common import Declaration

ExportMode = Literal["adapter", "merged", "f16", "q8_0", "q5_k_m", "q4_k_m"]


class Agreement(Declaration):
    """What a serving mode's predictions must keep of those of the adapter on its base in full precision."""

    max_kl: float = Field(gt=0, description="mean Kullback-Leibler divergence, nats per token")
    min_top1: float = Field(ge=0, le=1, description="share of tokens with the same likeliest next token")


# Wide enough for a small model, narrow enough for a template, a tensor or a type that went wrong.
_DEFAULTS = {
    "adapter": Agreement(max_kl=0.01, min_top1=0.95),
    "merged": Agreement(max_kl=0.02, min_top1=0.93),
    "f16": Agreement(max_kl=0.02, min_top1=0.93),
    "q8_0": Agreement(max_kl=0.03, min_top1=0.90),
    "q5_k_m": Agreement(max_kl=0.30, min_top1=0.65),
    "q4_k_m": Agreement(max_kl=0.30, min_top1=0.65),
}


class Parity(Declaration):
    """The export parity of every run in a profile: what is measured, and what blocks."""

    tokens: int = Field(default=512, ge=32, le=100_000, description="tokens of text on which predictions are compared")
    tokens_per_prompt: int = Field(default=64, ge=8, le=2048, description="of these, after one prompt")
    rows_per_tensor: int = Field(
        default=64, ge=1, description="rows of each adapted tensor on which delta and quantization step are measured"
    )
    reference: Literal["float32", "bfloat16"] = Field(
        default="float32", description="precision of the adapter on its base that all modes are compared with"
    )
    bounds: dict[ExportMode, Agreement] = Field(default={}, validate_default=True)

    @field_validator("bounds")
    @classmethod
    def _every_mode(cls, given: dict[ExportMode, Agreement]) -> dict[ExportMode, Agreement]:
        return {**_DEFAULTS, **given}  # type: ignore[dict-item]


class Imatrix(Declaration):
    """An importance matrix for the GGUF types of fewer than eight bits, made from the run's own training text."""

    tokens: int = Field(
        default=16_384,
        ge=256,
        le=10_000_000,
        description="tokens of prompts and chosen answers that the model reads for it",
    )
