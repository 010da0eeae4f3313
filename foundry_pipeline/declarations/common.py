"""Names shared by every declaration."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

Category = Literal[
    "anachronism_trap",
    "character_consistency",
    "ground_truth",
    "position_discrimination",
    "private_voice",
    "verified_response",
]
CATEGORIES: tuple[Category, ...] = (
    "anachronism_trap",
    "character_consistency",
    "ground_truth",
    "position_discrimination",
    "private_voice",
    "verified_response",
)
Difficulty = Literal["easy", "medium", "hard"]
DIFFICULTIES: tuple[Difficulty, ...] = ("easy", "medium", "hard")
Origin = Literal["base", "voice", "on_policy", "source_enriched", "introspection"]
# `primary` is the character's own; `control` another person's, to measure against; `joint` is written by the character
# with another or of disputed authorship: kept and shown, never trained on and never a control.
Role = Literal["primary", "control", "joint"]
Order = Literal["shuffle", "source_first"]
Accumulation = Literal["within_epochs", "across_epochs"]
Mode = Literal["base", "adapter", "merged", "f16", "q8_0", "q5_k_m", "q4_k_m"]


class Declaration(BaseModel):
    """A typed, closed and immutable piece of YAML: an unknown field is an error, not a comment."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Sampling(Declaration):
    """How answers are drawn; `max_tokens` is the declared bound, a profile may lower it."""

    temperature: float = Field(ge=0)
    top_k: int = Field(ge=0)
    top_p: float = Field(gt=0, le=1)
    max_tokens: int = Field(ge=1)
    seed: int = 0
