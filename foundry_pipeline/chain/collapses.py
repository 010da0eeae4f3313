"""Collapsed trainings in the chain: marked when they happen, refused when asked for again, told to whoever waits.

    foundry status                → madison_hot_adapter   collapsed at step 5 (kl)
    dagster asset materialize …   → error: madison_hot collapsed at step 5 of 85: …   (at once, nothing is trained)
    foundry retry madison_hot     → the same inputs are tried once more

A run of other inputs (another learning rate, other data, other guards) has no mark.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from foundry_pipeline.chain.stage import Stage
from foundry_pipeline.errors import Collapsed, FoundryError
from foundry_pipeline.launch import read_json
from foundry_pipeline.lineage.collapses import append_collapse, read_mark, set_aside, write_mark
from foundry_pipeline.lineage.store import Record, Store
from foundry_pipeline.settings import Settings
from foundry_pipeline.training.watch import RECORD, error_of

if TYPE_CHECKING:
    from foundry_pipeline.chain.engine import Chain, Resolved


def run_of(stage: Stage) -> str:
    return stage.name.removesuffix(f"_{stage.kind}")


def mark(
    settings: Settings,
    store: Store,
    stage: Stage,
    input_hash: str,
    work: Path,
    inputs: Mapping[str, Record | None],
    code_version: str,
) -> None:
    """Remember the collapse that the trainer has left in `work`, in the store and in the ledger; clears `work`."""
    record = write_mark(store, input_hash, read_json(work / RECORD))
    _into_ledger(settings, stage, record, inputs, code_version)
    store.discard_work(input_hash)


def refuse(
    settings: Settings,
    store: Store,
    stage: Stage,
    input_hash: str,
    inputs: Mapping[str, Record | None],
    code_version: str,
) -> None:
    """Raise Collapsed where these very inputs have collapsed before."""
    record = read_mark(store, input_hash)
    if record is None:
        return
    # Another run of equal inputs collapsed with it; and a row that could not be written then is written now.
    _into_ledger(settings, stage, record, inputs, code_version)
    raise again(stage, record)


def again(stage: Stage, record: dict[str, Any]) -> Collapsed:
    """The error of a training that is known to collapse, told of the run that was asked for."""
    run = run_of(stage)
    error = error_of({**record, "run": run})
    return Collapsed(
        error.what,
        where=error.where,
        mend=f"{error.mend}; `foundry retry {run}` tries the same once more",
    )


def refuse_waiting(store: Store, stages: Mapping[str, Stage], missing: tuple[str, ...], memo: Any) -> None:
    """Raise Collapsed where something is missing because its training collapsed."""
    for name in missing:
        found: Resolved | None = memo.get(name)
        if found is None or found.input_hash is None:
            continue
        record = read_mark(store, found.input_hash)
        if record is not None:
            raise again(stages[name], record)


def collapse_of(chain: Chain, run: str) -> dict[str, Any] | None:
    """The record of a run that is collapsed for the declarations as they stand, or None."""
    found = chain.resolve(f"{run}_adapter")
    if found.record is not None or found.input_hash is None:
        return None
    return read_mark(chain.store, found.input_hash)


def collapsed_stage(chain: Chain, found: Resolved) -> dict[str, Any] | None:
    """Guard and step of a stage that is not there because it collapsed, or None."""
    if found.record is not None or found.input_hash is None or found.stage.kind != "adapter":
        return None
    record = read_mark(chain.store, found.input_hash)
    return None if record is None else {name: record[name] for name in ("rule", "step", "steps", "told", "attempt")}


def retry(chain: Chain, run: str) -> str:
    """Lift the mark of a run; where its record is kept. Raises FoundryError where it is not marked."""
    found = chain.resolve(f"{run}_adapter")
    kept = set_aside(chain.store, found.input_hash) if found.input_hash else None
    if kept is None:
        raise FoundryError(
            f"{run} is not marked as collapsed for the present declarations",
            where=chain.store.place,
            mend=f"dagster asset materialize --select {run}_adapter",
        )
    assert found.input_hash is not None
    # A kill while it was marked leaves the trainer's own record, which would end the new attempt before its first step.
    chain.store.discard_work(found.input_hash)
    return kept


def _into_ledger(
    settings: Settings, stage: Stage, record: dict[str, Any], inputs: Mapping[str, Record | None], code_version: str
) -> None:
    dataset = next(((name, r) for name, r in inputs.items() if r is not None and r.kind == "dataset"), None)
    values = record["effective"]
    append_collapse(
        settings.ledger_url,
        {
            "run": run_of(stage),
            "profile": settings.profile,
            "rule": record["rule"],
            "step": record["step"],
            "steps": record["steps"],
            "told": record["told"],
            "roll_backs": sum(event["done"] == "rolled back" for event in record["events"]),
            "method": values["method"],
            "learning_rate": values["learning_rate"],
            "lora_rank": values["lora_rank"],
            "dataset": dataset[0] if dataset else "",
            "dataset_hash": dataset[1].content_hash if dataset else "",
            "base_model": stage.shown.get("base_title", ""),
            "input_hash": record["input_hash"],
            "attempt": record["attempt"],
            "seconds": record["seconds"],
            "code_version": code_version,
        },
    )
