"""What is watched while an adapter trains, and what follows when it goes wrong: the block `guards` of a run.

    guards:                                  # in a run, or in a block it inherits; what is left out keeps its default
      chosen_logp: {fall: 2.5, action: roll_back}
      kl: {every_steps: 5, max_jump: 1.0}
      probes: null                           # this guard is off

A guard that fires warns, stops the training (the run is then marked collapsed and never scored), or rolls it back to
the last good checkpoint, from where it goes on at a lower learning rate.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from foundry_pipeline.declarations.common import Declaration

Action = Literal["warn", "stop", "roll_back"]


class NotFinite(Declaration):
    """A loss or a gradient that is no number any more; there is nothing to go on with."""

    action: Literal["stop", "roll_back"] = "stop"


class ChosenFall(Declaration):
    """The chosen answers become unlikely: read off every step, at no cost."""

    action: Action = "stop"
    fall: float = Field(
        default=2.5,
        gt=0,
        description="nats per token by which the chosen answers' log-probability may lie below the best it has been",
    )
    window: int = Field(default=3, ge=1, description="steps whose mean is compared, since each shows other pairs")


class KlRise(Declaration):
    """The distance to the model it started from, over the whole vocabulary, on a few fixed training pairs."""

    action: Action = "stop"
    every_steps: int = Field(default=10, ge=1, description="measured after so many steps, and after the last one")
    pairs: int = Field(default=4, ge=1, le=256, description="training pairs it is measured on, always the same ones")
    tokens: int = Field(default=24, ge=1, description="of each chosen answer, from its first on")
    max_jump: float = Field(default=2.0, gt=0, description="nats per token that it may rise between two measurements")
    max_nats: float = Field(default=6.0, gt=0, description="nats per token that it may reach")


class Probes(Declaration):
    """Sampled answers to a few training prompts: loops, one answer to everything, silence.

    They are cut at `max_tokens`, so that an answer without an end does not show here; the evaluation counts those.
    """

    action: Action = "stop"
    every_steps: int = Field(default=50, ge=1, description="sampled after so many steps, and after the last one")
    prompts: int = Field(default=4, ge=1, le=256, description="training prompts, always the same ones")
    max_tokens: int = Field(default=20, ge=8, description="of each sampled answer")
    temperature: float = Field(default=0.7, ge=0, description="0 takes the likeliest token; the seeds are fixed")
    min_distinct: float = Field(
        default=0.3, ge=0, le=1, description="different pairs of neighbouring tokens, as a share of all (distinct-2)"
    )
    max_repetition: float = Field(
        default=0.75, ge=0, le=1, description="share of an answer's runs of four tokens that stood in it before"
    )
    min_length: float = Field(
        default=0.15, ge=0, description="mean length of the samples, as a share of the chosen answers' own"
    )


class RollBack(Declaration):
    """How a training goes on from the last good checkpoint."""

    times: int = Field(default=2, ge=1, le=10, description="roll-backs of a training before it is given up")
    rate_factor: float = Field(default=0.5, gt=0, lt=1, description="of the learning rate, at each roll-back")


class Guards(Declaration):
    """Everything that is watched; `null` turns a guard off, all but the first."""

    not_finite: NotFinite = NotFinite()
    chosen_logp: ChosenFall | None = ChosenFall()
    kl: KlRise | None = KlRise()
    probes: Probes | None = Probes()
    roll_back: RollBack = RollBack()

    @property
    def rolls_back(self) -> bool:
        return any(rule is not None and rule.action == "roll_back" for rule in self.rules)

    @property
    def rules(self) -> tuple[NotFinite | ChosenFall | KlRise | Probes | None, ...]:
        return (self.not_finite, self.chosen_logp, self.kl, self.probes)

    def deciding(self) -> dict[str, Any]:
        """What may change how a training ends: a rule that only warns does not, and may be changed without a rebuild."""
        told = self.model_dump(mode="json")
        kept = {name: rule for name, rule in told.items() if rule is not None and rule.get("action", "warn") != "warn"}
        return kept | ({"roll_back": told["roll_back"]} if self.rolls_back else {})


UNGUARDED = Guards(chosen_logp=None, kl=None, probes=None)
"""Only numbers that are finite are asked for."""
