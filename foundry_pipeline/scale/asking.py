"""What a script asks of a cluster, from the declarations of the run it works for.

>>> asked_for(declarations, chain.stages["madison_r2_adapter"], {})      # doctest: +SKIP
Asked(work='training', cpus=2.0, gpus=0.0, memory=0, custom={}, declared='assets/profiles/laptop.yaml')
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from foundry_pipeline.chain.stage import Kind, Stage
from foundry_pipeline.declarations import Declarations
from foundry_pipeline.declarations.assets import Run
from foundry_pipeline.declarations.resources import Resources, Work
from foundry_pipeline.models.requests import REMOTE

_GIB = 1024**3
_WORK: dict[Kind, Work] = {
    "adapter": "training",
    "teacher_responses": "generation",
    "student_responses": "generation",
    "introspection": "generation",
    "responses": "generation",
    "base_model": "export",
    "merged": "export",
    "gguf": "export",
    "parity": "evaluation",
    "eval": "evaluation",
}
_RUN = Resources(memory_gib=1.0)


@dataclass(frozen=True)
class Asked:
    """What one process asks for: processors, GPUs, memory in bytes (0: none set apart), the cluster's own resources.

    `declared` is the file in which it can be changed.
    """

    work: Work
    cpus: float
    gpus: float
    memory: int
    custom: Mapping[str, float] = field(default_factory=dict)
    declared: str = ""

    def amounts(self) -> dict[str, float]:
        """By the names that Ray gives them; what is not asked for is left out."""
        told = {"CPU": self.cpus, "GPU": self.gpus, "memory": float(self.memory), **self.custom}
        return {name: amount for name, amount in told.items() if amount > 0}


def asked_for(d: Declarations, stage: Stage, spec: Mapping[str, Any]) -> Asked:
    """What a script of a stage asks for. One that only talks to a model's server asks for a processor and no more."""
    work = _WORK.get(stage.kind, "export")
    run = d.runs.get(stage.name.removesuffix(f"_{stage.kind}"))
    if isinstance(model := spec.get("model"), Mapping) and model.get("backend") in REMOTE:
        return Asked(work, 1.0, 0.0, 0, {}, _file(d, run))
    declared = d.profile.resources.of(work)
    if run is not None:
        declared = run.resources.of(work).over(declared)
    return _asked(work, declared, cpus=float(d.profile.threads), declared_in=_file(d, run))


def asked_by_run(d: Declarations) -> Asked:
    """What a run of Dagster asks for, beside the scripts that it starts."""
    return _asked("run", d.profile.resources.run.over(_RUN), cpus=0.0, declared_in=_file(d, None))


def _asked(work: Work, declared: Resources, *, cpus: float, declared_in: str) -> Asked:
    return Asked(
        work=work,
        cpus=cpus if declared.cpus is None else declared.cpus,
        gpus=declared.gpus or 0.0,
        memory=int((declared.memory_gib or 0) * _GIB),
        custom=declared.custom,
        declared=declared_in,
    )


def _file(d: Declarations, run: Run | None) -> str:
    """Where the resources of a run stand, or would."""
    profile = f"assets/profiles/{d.profile.profile}.yaml"
    declared = d.run_and_partition(run.run)[0] if run is not None else ""
    if run is None or declared not in d.files or not run.resources.model_fields_set:
        return profile
    return d.files[declared].relative_to(d.root).as_posix()
