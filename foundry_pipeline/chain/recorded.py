"""The build behind a row of the ledger, as it was recorded: what `chain/replay.py` computes a score from once more."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import polars as pl

from foundry_pipeline.errors import FoundryError
from foundry_pipeline.evaluation.scoring import Bounds
from foundry_pipeline.lineage.ledger import find_score
from foundry_pipeline.lineage.store import Artifact, Record, Store
from foundry_pipeline.lineage.walk import Walker
from foundry_pipeline.plain import plain
from foundry_pipeline.settings import Settings


@dataclass(frozen=True)
class Recorded:
    """The build behind a score: its ledger row, its index line, its verified artifact, its table of answers."""

    row: dict[str, Any]
    record: Record
    artifact: Artifact
    scores: pl.DataFrame

    @property
    def mode(self) -> str:
        return str(self.row["mode"])

    @property
    def bounds(self) -> Bounds:
        declared = self.record.declaration
        return Bounds(int(declared["resamples"]), float(declared["confidence"]))


def find_recorded(settings: Settings, store: Store, score: str) -> Recorded:
    """What stands behind the score whose id begins so. Raises FoundryError where it, or its evaluation, is not there."""
    row = find_score(settings.ledger_url, score)
    if row is None:
        raise FoundryError(
            "no such score is in the ledger", where=plain(score, 80), mend="foundry scores  # lists them, by id"
        )
    record = Walker(store).of_score(row)
    again = f"dagster asset materialize --select '*{row['run']}_eval'"
    if record is None or not store.has(record.content_hash):
        raise FoundryError(
            "the evaluation behind this score is no longer in the store",
            where=str(store.folder(row["artifact_hash"])),
            mend=f"{again}  # builds it anew",
        )
    artifact = store.open(record.content_hash, name=record.name)
    path = artifact.file("scores.parquet")
    if not path.is_file():
        raise FoundryError("the evaluation holds no table of scores", where=str(path), mend=again)
    scores = pl.read_parquet(path)
    if row["mode"] not in set(scores["mode"].to_list()):
        raise FoundryError(f"the evaluation holds no answers of the mode {row['mode']}", where=str(path), mend=again)
    return Recorded(row, record, artifact, scores)


def upstream(store: Store, record: Record, ending: str) -> Record:
    """The build among the inputs whose name ends so, as it was recorded. Raises FoundryError where it is gone."""
    for name, way in record.inputs.items():
        if name.endswith(ending):
            found, _ = Walker(store).find(way["input"], way["content"])
            if found is not None:
                return found
            raise _gone(store, name, way)
    raise FoundryError(
        f"{record.name} names no input {ending.removeprefix('_')}", where=record.input_hash, mend="foundry scores"
    )


def open_input(store: Store, record: Record, ending: str) -> Artifact:
    """That build's artifact, verified."""
    found = upstream(store, record, ending)
    return store.open(found.content_hash, name=found.name)


def _gone(store: Store, name: str, way: Mapping[str, str]) -> FoundryError:
    return FoundryError(
        f"{name}, which this score stands on, is no longer in the store",
        where=str(store.folder(way["content"])),
        mend=f"dagster asset materialize --select '*{name}'  # builds it anew, if nothing has changed since",
    )
