"""A stage: one artifact, what it is made from, and the function that makes it.

The chain is a graph of stages derived from the declarations (`chain/graph.py`). A stage's *input hash* covers the
content hashes of its inputs, the part of the declarations that bears on it, the fingerprints of what lies outside the
project (an installed package, say) and its own code version. The store's index maps input hash → content hash, so
"is it built?" is a look-up, and nothing is built twice.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from foundry_pipeline.launch import ScriptRunner, read_json
from foundry_pipeline.lineage.store import Artifact, Store
from foundry_pipeline.models.requests import ChatRequest, ModelRef
from foundry_pipeline.settings import Settings

if TYPE_CHECKING:
    from foundry_pipeline.chain.engine import Chain

Kind = Literal[
    "sources",
    "passages",
    "teacher_responses",
    "student_responses",
    "introspection",
    "candidate_pairs",
    "filtered_pairs",
    "dataset",
    "base_model",
    "adapter",
    "merged",
    "gguf",
    "parity",
    "responses",
    "eval",
    "serving_matrix",
    "judges",
]


@dataclass(frozen=True)
class Demand:
    """How much a stage will ask of a remote model, as far as the declarations tell: for an estimate of its cost.

    `requests` counts all of them; `prompt_bytes` (UTF-8, system blocks included) and `answer_tokens` are per request,
    `answer_tokens` being the bound `max_tokens`.
    """

    model: ModelRef
    requests: int
    prompt_bytes: int
    answer_tokens: int


@dataclass(frozen=True)
class BuildContext:
    """What a build function may use: its inputs (verified), a resumable work folder, a way to start scripts.

    `name` is the asset that is being built: what is paid on the way is booked on it.
    """

    settings: Settings
    store: Store
    inputs: Mapping[str, Artifact]
    work: Path
    run_script: ScriptRunner
    log: Callable[[str], None]
    name: str = ""

    def script(self, module: str, spec: Mapping[str, Any], folder: str = "") -> tuple[Path, dict[str, Any]]:
        """Run a script in this stage's work folder (or one below it); its result folder and its facts."""
        work = self.work / folder if folder else self.work
        self.run_script(module, {**spec, "work": str(work)}, work)
        return work / "result", read_json(work / "result.json")


@dataclass(frozen=True)
class Built:
    """What a build function returns: a payload folder inside `work`, and facts that do not enter the hash.

    `content_hash` is given where the content is more than its bytes (a dataset: its canonical rows).
    """

    payload: Path
    facts: dict[str, Any] = field(default_factory=dict)
    content_hash: str | None = None


@dataclass(frozen=True)
class Stage:
    """One node of the chain.

    `gate` is called with the verified inputs before the index is even looked at: training refuses a dataset without
    a passed verdict also when its adapter has been built before.

    A run under several seeds has a stage for each combination of them; `asset_name` and `partition` say where Dagster
    shows it.

    A stage that asks a remote model says so, for `foundry estimate`: `requests` gives model and requests from the
    opened inputs, and `demand` how many the declarations call for, where the inputs are not there yet or where later
    requests depend on earlier answers. Both stay None for a stage that asks nobody, or a local model.
    """

    name: str
    kind: Kind
    inputs: tuple[str, ...]
    declaration: dict[str, Any]
    code: tuple[str, ...]
    build: Callable[[BuildContext], Built]
    character: str
    external: Callable[[], dict[str, str]] = dict
    gate: Callable[[Chain, Mapping[str, Artifact]], None] | None = None
    shown: dict[str, Any] = field(default_factory=dict)
    requests: Callable[[Mapping[str, Artifact]], tuple[ModelRef, list[ChatRequest]]] | None = None
    demand: Callable[[], Demand] | None = None
    asset_name: str = ""
    partition: str | None = None

    @property
    def asset(self) -> str:
        """The asset that this is a partition of, or the stage's own name."""
        return self.asset_name or self.name

    @property
    def command(self) -> str:
        """What builds this stage and everything it lacks."""
        return materialize(self.asset, self.partition, upstream=True)


def materialize(asset: str, partition: str | None, *, upstream: bool = False) -> str:
    """The command that builds an asset, or one partition of it.

    >>> materialize("keeper_first_eval", "43", upstream=True)
    "dagster asset materialize --select '*keeper_first_eval' --partition 43"
    """
    select = f"'*{asset}'" if upstream else asset
    return f"dagster asset materialize --select {select}" + (f" --partition {partition}" if partition else "")
