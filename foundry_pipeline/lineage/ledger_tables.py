"""The tables of the score ledger, as the newest layout has them; `ledger_versions` brings older ones there.

    scores          one row for each score that was ever measured
    collapses       one row for each training that a guard stopped: it has no score
    ledger_version  the layouts that this database has been brought to, and when

The same tables stand in SQLite and in PostgreSQL. Moments are ISO 8601 texts in UTC, hashes 64 hexadecimal characters,
scores points from 0 to 10, costs US dollars, times seconds. Columns that came later are null in rows that are older.
"""

from __future__ import annotations

import sqlalchemy as sa

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
    # Since layout 2.
    sa.Column("prompts", sa.Integer),
    sa.Column("components", sa.JSON(none_as_null=True)),
    sa.Column("intervals", sa.JSON(none_as_null=True)),
    sa.Column("responses_hash", sa.String(64)),
    sa.Column("training_seed", sa.Integer),
    sa.Column("sampling_seed", sa.Integer),
    sa.Column("judge_repeat", sa.Integer),
)

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

VERSIONS = sa.Table(
    "ledger_version",
    METADATA,
    sa.Column("version", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("applied_at", sa.String(32), nullable=False),
    sa.Column("what", sa.String, nullable=False),
)
