"""Trainings that collapsed, remembered in two places.

    <store>/collapsed/<input hash>.json     the mark: asking for the same inputs again says so at once
    <ledger>.collapses                      one row for each, append-only, beside the scores and never among them

A mark holds the trainer's own record (figures of every step, what it said last). `set_aside` lifts it for a retry and
keeps it under `<input hash>.1.json`, `.2.json`, …
"""

from __future__ import annotations

import datetime as dt
import json
from typing import Any

from foundry_pipeline.errors import DamagedArtifact
from foundry_pipeline.lineage.hashing import digest
from foundry_pipeline.lineage.ledger import append_rows, read_rows
from foundry_pipeline.lineage.ledger_tables import COLLAPSES
from foundry_pipeline.lineage.sealed import sealed, unsealed
from foundry_pipeline.lineage.store import Store

FOLDER = "collapsed"


def read_mark(store: Store, input_hash: str) -> dict[str, Any] | None:
    """The record of the collapse of these inputs, with `attempt` (1 for the first), or None."""
    text = store.read_note(f"{FOLDER}/{input_hash}.json")
    if text is None:
        return None
    try:
        return unsealed(json.loads(text), required=False)
    except ValueError as error:
        place = store.note_place(f"{FOLDER}/{input_hash}.json")
        raise DamagedArtifact(
            f"the mark of a collapsed training cannot be read ({error})",
            where=place,
            mend=f"rm {place}  # the training is then run again",
        ) from error


def write_mark(store: Store, input_hash: str, record: dict[str, Any]) -> dict[str, Any]:
    """Mark these inputs as collapsed; the record as it is kept."""
    kept = {**record, "input_hash": input_hash, "attempt": 1 + len(_earlier(store, input_hash))}
    store.write_note(f"{FOLDER}/{input_hash}.json", sealed(kept))
    return kept


def set_aside(store: Store, input_hash: str) -> str | None:
    """Lift the mark of these inputs, so that they are tried again; where it is kept, or None where there is none."""
    record = read_mark(store, input_hash)
    if record is None:
        return None
    aside = f"{FOLDER}/{input_hash}.{1 + len(_earlier(store, input_hash))}.json"
    store.write_note(aside, record)
    store.remove_note(f"{FOLDER}/{input_hash}.json")
    return store.note_place(aside)


def _earlier(store: Store, input_hash: str) -> list[str]:
    return [name for name in store.notes(FOLDER) if name.startswith(f"{input_hash}.") and name.count(".") == 2]


def collapse_id(row: dict[str, Any]) -> str:
    return digest({name: row[name] for name in ("input_hash", "run", "attempt")})


def append_collapse(url: str, row: dict[str, Any]) -> bool:
    """Add a row (all columns but `collapse_id` and `recorded_at`), once; whether it was new."""
    now = dt.datetime.now(dt.UTC).isoformat(timespec="seconds")
    return bool(append_rows(url, COLLAPSES, [{"collapse_id": collapse_id(row), "recorded_at": now, **row}]))


def read_collapses(url: str, *, run: str | None = None) -> list[dict[str, Any]]:
    """Collapsed trainings in the order they were recorded."""
    return sorted(read_rows(url, COLLAPSES, {"run": run}), key=lambda row: (row["recorded_at"], row["run"]))
