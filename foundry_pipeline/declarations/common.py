"""Names shared by every declaration."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict

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
Mode = Literal["base", "adapter", "merged", "f16", "q8_0", "q5_k_m", "q4_k_m"]


class Declaration(BaseModel):
    """A typed, closed and immutable piece of YAML: an unknown field is an error, not a comment."""

    model_config = ConfigDict(extra="forbid", frozen=True)
