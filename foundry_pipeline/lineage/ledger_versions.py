"""Layouts of the score ledger, one numbered step after the other, for SQLite and PostgreSQL alike.

    migrate(connection)   a ledger of any earlier layout, or an empty database, becomes one of the newest
    found_version(c)      0: nothing, or a ledger from before layouts were numbered

All steps that are missing run in one transaction (both databases roll changes of tables back), under a lock, so that of
several processes that open an old ledger at once one migrates and the others find it done; a kill leaves it as it was.

Numbered functions rather than Alembic: the ledger is migrated by whichever command records first, from inside a package,
in either database, and never back; Alembic's folder of scripts and its configuration would have to be found and shipped
for three steps, and its way with SQLite (copy a table, drop the old one) goes against a table that nothing may be
deleted from.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable

import sqlalchemy as sa

from foundry_pipeline.errors import FoundryError
from foundry_pipeline.lineage.ledger_tables import VERSIONS

# Any number that other users of a shared PostgreSQL are unlikely to lock by.
_ADVISORY_LOCK = 0x464F554E4452

_SCORES_1 = """
score_id VARCHAR(64) NOT NULL, recorded_at VARCHAR(32) NOT NULL, run VARCHAR NOT NULL, mode VARCHAR NOT NULL,
profile VARCHAR NOT NULL, judge VARCHAR NOT NULL, judge_version VARCHAR NOT NULL, suite_hash VARCHAR(64) NOT NULL,
dataset VARCHAR NOT NULL, dataset_hash VARCHAR(64) NOT NULL, adapter_hash VARCHAR(64) NOT NULL,
artifact_hash VARCHAR(64) NOT NULL, input_hash VARCHAR(64) NOT NULL, base_model VARCHAR NOT NULL,
base_revision VARCHAR NOT NULL, raw_overall FLOAT, raw_low FLOAT, raw_high FLOAT, overall FLOAT, overall_low FLOAT,
overall_high FLOAT, paired_difference FLOAT, paired_low FLOAT, paired_high FLOAT, categories JSON NOT NULL,
difficulties JSON NOT NULL, critical_failures INTEGER NOT NULL, parse_failures INTEGER NOT NULL, nats_per_token FLOAT,
cost_usd FLOAT NOT NULL, seconds FLOAT NOT NULL, code_version VARCHAR NOT NULL, PRIMARY KEY (score_id)
"""
_COLLAPSES_1 = """
collapse_id VARCHAR(64) NOT NULL, recorded_at VARCHAR(32) NOT NULL, run VARCHAR NOT NULL, profile VARCHAR NOT NULL,
rule VARCHAR NOT NULL, step INTEGER NOT NULL, steps INTEGER NOT NULL, told VARCHAR NOT NULL,
roll_backs INTEGER NOT NULL, method VARCHAR NOT NULL, learning_rate FLOAT NOT NULL, lora_rank INTEGER NOT NULL,
dataset VARCHAR NOT NULL, dataset_hash VARCHAR(64) NOT NULL, base_model VARCHAR NOT NULL,
input_hash VARCHAR(64) NOT NULL, attempt INTEGER NOT NULL, seconds FLOAT NOT NULL, code_version VARCHAR NOT NULL,
PRIMARY KEY (collapse_id)
"""
_LAYOUT_1 = {"scores": _SCORES_1, "collapses": _COLLAPSES_1}
_KEYS = {"scores": "score_id", "collapses": "collapse_id"}
_REFUSED = "rows of the ledger are never changed or deleted"


def _tables(connection: sa.Connection) -> None:
    present = set(sa.inspect(connection).get_table_names())
    for table, columns in _LAYOUT_1.items():
        if table not in present:
            connection.exec_driver_sql(f"CREATE TABLE {table} ({columns})")
            continue
        wanted = {part.split()[0] for part in columns.split(",") if part.split()[0] != "PRIMARY"}
        if lacking := wanted - {c["name"] for c in sa.inspect(connection).get_columns(table)}:
            raise FoundryError(
                f"the database has a table `{table}` that is not the ledger's: it lacks {', '.join(sorted(lacking))}",
                where=connection.engine.url.render_as_string(hide_password=True),
                mend="set FOUNDRY_LEDGER_URL to a database of its own",
            )


def _seeds_and_intervals(connection: sa.Connection) -> None:
    for column in (
        "prompts INTEGER",
        "components JSON",
        "intervals JSON",
        "responses_hash VARCHAR(64)",
        "training_seed INTEGER",
        "sampling_seed INTEGER",
        "judge_repeat INTEGER",
    ):
        connection.exec_driver_sql(f"ALTER TABLE scores ADD COLUMN {column}")


def _append_only(connection: sa.Connection) -> None:
    postgres = connection.dialect.name == "postgresql"
    if postgres:
        connection.exec_driver_sql(
            "CREATE OR REPLACE FUNCTION ledger_append_only() RETURNS trigger LANGUAGE plpgsql AS "
            f"$$ BEGIN RAISE EXCEPTION '{_REFUSED}'; END $$"
        )
    for table in _LAYOUT_1:
        if postgres:
            connection.exec_driver_sql(
                f"CREATE TRIGGER {table}_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON {table} "
                "FOR EACH STATEMENT EXECUTE FUNCTION ledger_append_only()"
            )
            continue
        abort = f"BEGIN SELECT RAISE(ABORT, '{_REFUSED}'); END"
        for change in ("UPDATE", "DELETE"):
            connection.exec_driver_sql(f"CREATE TRIGGER {table}_no_{change.lower()} BEFORE {change} ON {table} {abort}")
        # INSERT OR REPLACE deletes the old row without firing the trigger for deletion.
        key = _KEYS[table]
        connection.exec_driver_sql(
            f"CREATE TRIGGER {table}_no_replace BEFORE INSERT ON {table} "
            f"WHEN EXISTS (SELECT 1 FROM {table} WHERE {key} = NEW.{key}) {abort}"
        )


MIGRATIONS: tuple[tuple[str, Callable[[sa.Connection], None]], ...] = (
    ("scores and collapses", _tables),
    ("intervals by group, components, seeds, and what was answered", _seeds_and_intervals),
    ("the database itself refuses to change or delete a row", _append_only),
)
NEWEST = len(MIGRATIONS)


def found_version(connection: sa.Connection) -> int:
    """The layout of a ledger; 0 where none is noted. Raises FoundryError for one that a later version has made."""
    if not sa.inspect(connection).has_table(VERSIONS.name):
        return 0
    found = int(connection.scalar(sa.select(sa.func.max(VERSIONS.c.version))) or 0)
    if found > NEWEST:
        raise FoundryError(
            f"the score ledger has layout {found}, this version knows {NEWEST}",
            where=connection.engine.url.render_as_string(hide_password=True),
            mend="update Foundry, or set FOUNDRY_LEDGER_URL to another ledger; where no later version was ever at work, "
            "foundry repair ledger",
        )
    return found


def migrate(connection: sa.Connection) -> int:
    """Bring the ledger to the newest layout within the transaction that the connection is in; the layout it had.

    In SQLite that transaction has to be an immediate one: it is the lock.
    """
    if (found := found_version(connection)) == NEWEST:
        return found
    if connection.dialect.name == "postgresql":
        connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_ADVISORY_LOCK})")
        # Another process may have done it while this one waited.
        found = found_version(connection)
    VERSIONS.create(connection, checkfirst=True)
    for number, (what, step) in enumerate(MIGRATIONS, start=1):
        if number > found:
            step(connection)
            now = dt.datetime.now(dt.UTC).isoformat(timespec="seconds")
            connection.execute(sa.insert(VERSIONS).values(version=number, applied_at=now, what=what))
    return found
