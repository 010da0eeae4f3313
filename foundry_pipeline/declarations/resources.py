"""WHAT a piece of work asks of a cluster: processors, GPUs, memory, by the kind of work.

resources:                                              # in a profile: for every run; in a run: for its own stages
  training: {cpus: 8, gpus: 1, memory_gib: 96}
  generation: {gpus: 1}
  export: {memory_gib: 160}

A field that nobody declares has its default: as many processors as the profile's `threads`, no GPU, no memory set apart.
They are asked for with FOUNDRY_ENGINE=ray and mean nothing on one machine; no artifact's hash depends on them.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from foundry_pipeline.declarations.common import Declaration

Work = Literal["training", "generation", "export", "evaluation", "run"]


class Resources(Declaration):
    """What one process of a kind of work holds from its start to its end."""

    cpus: float | None = Field(default=None, gt=0, le=4096, description="processors; empty: the profile's `threads`")
    gpus: float | None = Field(default=None, ge=0, le=1024, description="GPUs, or a share of one; empty: none")
    memory_gib: float | None = Field(
        default=None, gt=0, le=65536, description="memory set apart, in GiB; empty: none is, and what is there is used"
    )
    custom: dict[str, Annotated[float, Field(gt=0)]] = Field(
        default={}, description="resources that the cluster's nodes name themselves, such as {a100: 1}"
    )

    def over(self, other: Resources) -> Resources:
        """These fields where they are declared, the other's elsewhere."""
        return Resources(
            cpus=other.cpus if self.cpus is None else self.cpus,
            gpus=other.gpus if self.gpus is None else self.gpus,
            memory_gib=other.memory_gib if self.memory_gib is None else self.memory_gib,
            custom={**other.custom, **self.custom},
        )


class ResourceTable(Declaration):
    """Resources by kind of work."""

    training: Resources = Field(default=Resources(), description="a training")
    generation: Resources = Field(default=Resources(), description="students and runs that answer")
    export: Resources = Field(default=Resources(), description="reading a base model, merging, conversion, quantizing")
    evaluation: Resources = Field(default=Resources(), description="export parity and held-out text")
    run: Resources = Field(
        default=Resources(),
        description="a run of Dagster itself, while the scripts that it starts ask for their own; by default 1 GiB and "
        "no processor: it would keep a script that needs the whole node from ever starting",
    )

    def of(self, work: Work) -> Resources:
        found: Resources = getattr(self, work)
        return found
