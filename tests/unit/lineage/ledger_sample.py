"""Rows of a ledger for tests, and a ledger as the first layout had it."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from foundry_pipeline.lineage.postgres import engine_of

HOSTILE = "\x1b[31mred\x1b[0m [bold]loud[/bold] \u202eback\u202c =1+1 '; DROP TABLE scores; -- %s ?"


def row(number: int = 0, **changes: Any) -> dict[str, Any]:
    """A whole score row; `number` makes it another one."""
    made: dict[str, Any] = {
        "score_id": f"{number:064x}",
        "recorded_at": f"2026-11-{1 + number % 28:02d}T10:00:00+00:00",
        "run": "keeper_first",
        "mode": "adapter",
        "profile": "tiny",
        "judge": "rubric-local",
        "judge_version": "0123456789abcdef",
        "suite_hash": "5" * 64,
        "dataset": "keeper_dataset_v1",
        "dataset_hash": "d" * 64,
        "adapter_hash": "a" * 64,
        "artifact_hash": "e" * 64,
        "input_hash": "1" * 64,
        "base_model": "Small",
        "base_revision": "small 0.1",
        "raw_overall": None,
        "raw_low": None,
        "raw_high": None,
        "overall": 6.156220694444443,
        "overall_low": 0.1 + 0.2,
        "overall_high": 7.0,
        "paired_difference": -1.5,
        "paired_low": None,
        "paired_high": None,
        "categories": {"ground_truth": 6.777472, "private_voice": None},
        "difficulties": {"easy": 5.0},
        "critical_failures": 2,
        "parse_failures": 1,
        "nats_per_token": 3.61,
        "cost_usd": 0.0,
        "seconds": 12.25,
        "code_version": "bad353ab6b41",
        "prompts": 36,
        "components": {"voice": 9.4},
        "intervals": {"categories": {"ground_truth": {"mean": 6.777472, "low": 6.0, "high": 7.0, "n": 6}}},
        "responses_hash": "b" * 64,
        "training_seed": 42,
        "sampling_seed": 0,
        "judge_repeat": 0,
    }
    return made | changes


FIRST_LAYOUT = """
CREATE TABLE scores (
    score_id VARCHAR(64) NOT NULL PRIMARY KEY, recorded_at VARCHAR(32) NOT NULL, run VARCHAR NOT NULL,
    mode VARCHAR NOT NULL, profile VARCHAR NOT NULL, judge VARCHAR NOT NULL, judge_version VARCHAR NOT NULL,
    suite_hash VARCHAR(64) NOT NULL, dataset VARCHAR NOT NULL, dataset_hash VARCHAR(64) NOT NULL,
    adapter_hash VARCHAR(64) NOT NULL, artifact_hash VARCHAR(64) NOT NULL, input_hash VARCHAR(64) NOT NULL,
    base_model VARCHAR NOT NULL, base_revision VARCHAR NOT NULL, raw_overall FLOAT, raw_low FLOAT, raw_high FLOAT,
    overall FLOAT, overall_low FLOAT, overall_high FLOAT, paired_difference FLOAT, paired_low FLOAT,
    paired_high FLOAT, categories JSON NOT NULL, difficulties JSON NOT NULL, critical_failures INTEGER NOT NULL,
    parse_failures INTEGER NOT NULL, nats_per_token FLOAT, cost_usd FLOAT NOT NULL, seconds FLOAT NOT NULL,
    code_version VARCHAR NOT NULL)
"""
LATER = ("prompts", "components", "intervals", "responses_hash", "training_seed", "sampling_seed", "judge_repeat")


def old_ledger(url: str, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """A ledger from before layouts were numbered, without the table of collapses; the rows as they stand in it."""
    old = [{k: v for k, v in r.items() if k not in LATER} for r in rows]
    names = list(old[0])
    with raw(url) as execute:
        execute(FIRST_LAYOUT)
        for r in old:
            values = [json.dumps(v) if isinstance(v, dict) else v for v in r.values()]
            execute(f"INSERT INTO scores ({', '.join(names)}) VALUES ({', '.join('?' * len(names))})", values)
    return old


class raw:
    """The database of a ledger by its own driver, past everything of ours: `execute(sql, values)`, committed at the end."""

    def __init__(self, url: str) -> None:
        self.url = url

    def __enter__(self) -> Any:
        if self.url.startswith("sqlite:///"):
            self.connection: Any = sqlite3.connect(Path(self.url.removeprefix("sqlite:///")))
            return lambda sql, values=(): self.connection.execute(sql, values).fetchall()
        self.connection = engine_of(self.url).raw_connection()

        def execute(sql: str, values: Any = ()) -> Any:
            cursor = self.connection.cursor()
            if values:
                cursor.execute(sql.replace("?", "%s"), values)
            else:
                cursor.execute(sql)
            return cursor.fetchall() if cursor.description else []

        return execute

    def __exit__(self, kind: Any, *_: Any) -> None:
        if kind is None:
            self.connection.commit()
        self.connection.close()


def columns(url: str, table: str) -> dict[str, bool]:
    """Column → whether it may be null, as the database has it."""
    if url.startswith("sqlite:///"):
        with raw(url) as execute:
            return {r[1]: not r[3] for r in execute(f"PRAGMA table_info({table})")}
    engine = engine_of(url)
    found = {c["name"]: bool(c["nullable"]) for c in sa.inspect(engine).get_columns(table)}
    engine.dispose()
    return found
