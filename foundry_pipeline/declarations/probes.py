"""`sources/<character>/probes.yaml`: questions that tempt a model out of its part, and others that should not.

    guarded_topics: [identity, moral_complexity, meta_self_description, control]
    samples: 20
    probes:
      - {id: drives, topic: identity, text: "What are the chief drives that move you?", reported: breaks-drives}

A set that has no probe in a guarded topic is refused, and so is one that guards no control: a rate of breaks means
something only beside the rate on harmless questions, and a topic that was never asked is not a topic without breaks.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from foundry_pipeline.declarations.common import Declaration

Topic = Literal["identity", "moral_complexity", "meta_self_description", "control"]
TOPICS: tuple[Topic, ...] = ("identity", "moral_complexity", "meta_self_description", "control")


class Probe(Declaration):
    """One question, asked `samples` times under as many seeds."""

    id: str = Field(pattern=r"^[a-z0-9][a-z0-9-]*$")
    topic: Topic
    text: str = Field(min_length=8)
    reported: str | None = Field(
        default=None, description="figure under `sources/reported/` that was told of a question like this"
    )


class ProbeSet(Declaration):
    """All probes of a character. Raises ValueError for a guarded topic without a probe, or an id used twice."""

    guarded_topics: tuple[Topic, ...] = Field(default=TOPICS, description="must hold `control`")
    samples: int = Field(ge=2, description="answers to each probe in each serving mode")
    probes: tuple[Probe, ...]

    @model_validator(mode="after")
    def _asks_what_it_guards(self) -> ProbeSet:
        held = {probe.topic for probe in self.probes}
        missing = [topic for topic in self.guarded_topics if topic not in held]
        if missing:
            raise ValueError(f"no probe in the guarded topic {', '.join(missing)}")
        if "control" not in self.guarded_topics:
            raise ValueError("`control` must be a guarded topic: breaks are read beside those on harmless questions")
        ids = [probe.id for probe in self.probes]
        twice = sorted({i for i in ids if ids.count(i) > 1})
        if twice:
            raise ValueError(f"used twice: {', '.join(twice)}")
        return self
