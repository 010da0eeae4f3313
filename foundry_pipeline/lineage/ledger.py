"""The score ledger: one row for each score that was ever measured, append-only.

A row carries the hashes that a trace starts from. Rows are keyed by what they are (evaluation inputs, serving mode), so
recording the same evaluation twice adds nothing, and an evaluation whose recording was cut off is completed by the next.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import sqlalchemy as sa

from foundry_pipeline.errors import FoundryError

METADATA = sa.MetaData()
SCORES = sa.Table(
    "scores",
    METADATA,
    sa.Column("score_id", sa.String(64), primary_key=True),
    sa.Column("recorded_at", sa.String(32), nullable=False),
    sa.Column("run", sa.String, nullable=False),
    sa.Column("mode", sa.String, nullable=False),
    sa.Column("profile", sa.String, nullable=False),
    sa.Column("judge", sa.String, nullable=False),
    sa.Column("judge_version", sa.String, nullable=False),
    sa.Column("suite_hash", sa.String(64), nullable=False),
    sa.Column("dataset", sa.String, nullable=False),
    sa.Column("dataset_hash", sa.String(64), nullable=False),
    sa.Column("adapter_hash", sa.String(64), nullable=False),
    sa.Column("artifact_hash", sa.String(64), nullable=False),
    sa.Column("input_hash", sa.String(64), nullable=False),
    sa.Column("base_model", sa.String, nullable=False),
    sa.Column("base_revision", sa.String, nullable=False),
    sa.Column("raw_overall", sa.Float),
    sa.Column("raw_low", sa.Float),
    sa.Column("raw_high", sa.Float),
    sa.Column("overall", sa.Float),
    sa.Column("overall_low", sa.Float),
    sa.Column("overall_high", sa.Float),
    sa.Column("paired_difference", sa.Float),
    sa.Column("paired_low", sa.Float),
    sa.Column("paired_high", sa.Float),
    sa.Column("categories", sa.JSON, nullable=False),
    sa.Column("difficulties", sa.JSON, nullable=False),
    sa.Column("critical_failures", sa.Integer, nullable=False),
    sa.Column("parse_failures", sa.Integer, nullable=False),
    sa.Column("nats_per_token", sa.Float),
    sa.Column("cost_usd", sa.Float, nullable=False),
    sa.Column("seconds", sa.Float, nullable=False),
    sa.Column("code_version", sa.String, nullable=False),
)


def engine(url: str) -> sa.Engine:
    """An engine with the table in place. SQLite waits for other writers instead of failing."""
    if url.startswith("sqlite:///"):
        Path(url.removeprefix("sqlite:///")).parent.mkdir(parents=True, exist_ok=True)
    made = sa.create_engine(url, connect_args={"timeout": 60} if url.startswith("sqlite") else {})
    try:
        METADATA.create_all(made)
    except sa.exc.DBAPIError as error:
        raise FoundryError(
            f"the score ledger cannot be opened ({error.orig})",
            where=made.url.render_as_string(hide_password=True),
            mend="put its backup in place, or move the damaged file aside: evaluations found again are recorded anew",
        ) from error
    return made


def append_scores(url: str, rows: list[dict[str, Any]]) -> int:
    """Append the rows that the ledger does not hold yet (by `score_id`); how many were added."""
    with engine(url).begin() as connection:
        known = set(
            connection.scalars(sa.select(SCORES.c.score_id).where(SCORES.c.score_id.in_([r["score_id"] for r in rows])))
        )
        new = [r for r in rows if r["score_id"] not in known]
        if new:
            connection.execute(sa.insert(SCORES), new)
    return len(new)


def read_scores(
    url: str, *, run: str | None = None, mode: str | None = None, judge: str | None = None
) -> list[dict[str, Any]]:
    """Rows of the ledger in the order they were recorded, filtered."""
    query = sa.select(SCORES).order_by(SCORES.c.recorded_at, SCORES.c.run, SCORES.c.mode)
    for column, value in ((SCORES.c.run, run), (SCORES.c.mode, mode), (SCORES.c.judge, judge)):
        if value is not None:
            query = query.where(column == value)
    with engine(url).connect() as connection:
        return [dict(row) for row in connection.execute(query).mappings()]
