"""Trainings that collapsed, remembered in two places.

    <store>/collapsed/<input hash>.json     the mark: asking for the same inputs again says so at once
    <ledger>.collapses                      one row for each, append-only, beside the scores and never among them

A mark holds the trainer's own record (figures of every step, what it said last). `set_aside` lifts it for a retry and
keeps it under `<input hash>.1.json`, `.2.json`, …
"""

from __future__ import annotations

import datetime as dt
import json
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from foundry_pipeline.errors import DamagedArtifact
from foundry_pipeline.lineage.hashing import digest
from foundry_pipeline.lineage.ledger import METADATA, engine
from foundry_pipeline.lineage.store import Store, write_json

COLLAPSES = sa.Table(
    "collapses",
    METADATA,
    sa.Column("collapse_id", sa.String(64), primary_key=True),
    sa.Column("recorded_at", sa.String(32), nullable=False),
    sa.Column("run", sa.String, nullable=False),
    sa.Column("profile", sa.String, nullable=False),
    sa.Column("rule", sa.String, nullable=False),
    sa.Column("step", sa.Integer, nullable=False),
    sa.Column("steps", sa.Integer, nullable=False),
    sa.Column("told", sa.String, nullable=False),
    sa.Column("roll_backs", sa.Integer, nullable=False),
    sa.Column("method", sa.String, nullable=False),
    sa.Column("learning_rate", sa.Float, nullable=False),
    sa.Column("lora_rank", sa.Integer, nullable=False),
    sa.Column("dataset", sa.String, nullable=False),
    sa.Column("dataset_hash", sa.String(64), nullable=False),
    sa.Column("base_model", sa.String, nullable=False),
    sa.Column("input_hash", sa.String(64), nullable=False),
    sa.Column("attempt", sa.Integer, nullable=False),
    sa.Column("seconds", sa.Float, nullable=False),
    sa.Column("code_version", sa.String, nullable=False),
)


def _folder(store: Store) -> Path:
    return store.root / "collapsed"


def read_mark(store: Store, input_hash: str) -> dict[str, Any] | None:
    """The record of the collapse of these inputs, with `attempt` (1 for the first), or None."""
    path = _folder(store) / f"{input_hash}.json"
    try:
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise DamagedArtifact(
            f"the mark of a collapsed training cannot be read ({error})",
            where=str(path),
            mend=f"rm {path}  # the training is then run again",
        ) from error
    return found


def write_mark(store: Store, input_hash: str, record: dict[str, Any]) -> dict[str, Any]:
    """Mark these inputs as collapsed; the record as it is kept."""
    kept = {**record, "input_hash": input_hash, "attempt": 1 + len(_earlier(store, input_hash))}
    write_json(_folder(store) / f"{input_hash}.json", kept)
    return kept


def set_aside(store: Store, input_hash: str) -> Path | None:
    """Lift the mark of these inputs, so that they are tried again; where it is kept, or None where there is none."""
    path = _folder(store) / f"{input_hash}.json"
    if not path.is_file():
        return None
    return path.rename(path.with_name(f"{input_hash}.{1 + len(_earlier(store, input_hash))}.json"))


def _earlier(store: Store, input_hash: str) -> list[Path]:
    return sorted(_folder(store).glob(f"{input_hash}.*.json"))


def collapse_id(row: dict[str, Any]) -> str:
    return digest({name: row[name] for name in ("input_hash", "run", "attempt")})


def append_collapse(url: str, row: dict[str, Any]) -> bool:
    """Add a row (all columns but `collapse_id` and `recorded_at`), once; whether it was new."""
    now = dt.datetime.now(dt.UTC).isoformat(timespec="seconds")
    row = {"collapse_id": collapse_id(row), "recorded_at": now, **row}
    with engine(url).begin() as connection:
        known = sa.select(COLLAPSES.c.collapse_id).where(COLLAPSES.c.collapse_id == row["collapse_id"])
        if connection.scalar(known) is not None:
            return False
        connection.execute(sa.insert(COLLAPSES), [row])
    return True


def read_collapses(url: str, *, run: str | None = None) -> list[dict[str, Any]]:
    """Collapsed trainings in the order they were recorded."""
    query = sa.select(COLLAPSES).order_by(COLLAPSES.c.recorded_at, COLLAPSES.c.run)
    if run is not None:
        query = query.where(COLLAPSES.c.run == run)
    with engine(url).connect() as connection:
        return [dict(row) for row in connection.execute(query).mappings()]
