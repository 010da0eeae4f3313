"""The score ledger: one row for each score that was ever measured, append-only.

    append_scores(url, rows)                        → how many were new
    read_scores(url, run="madison_r2", since="7d")  → rows as dicts, oldest first
    find_score(url, "56cec1d5")                     → the one row whose id begins so

A row carries the hashes that a trace starts from. Rows are keyed by what they are (evaluation inputs, run, serving mode),
so recording the same evaluation twice adds nothing, and an evaluation whose recording was cut off is completed by the
next. The same inputs judged to another content are another finding: it gets a row of its own beside the first. A ledger
that is a file has a second copy (`lineage/second_copy.py`): a row that was edited or lost is told, not shown.
"""

from __future__ import annotations

import datetime as dt
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sa

from foundry_pipeline.errors import DamagedArtifact, FoundryError
from foundry_pipeline.lineage.hashing import digest
from foundry_pipeline.lineage.ledger_database import damaged, reading, second_copy, shown, wait_for_writers, writing
from foundry_pipeline.lineage.ledger_tables import COLLAPSES, METADATA, SCORES
from foundry_pipeline.lineage.second_copy import SecondCopy
from foundry_pipeline.plain import plain

__all__ = ["METADATA", "SCORES", "append_rows", "append_scores", "find_score", "moment", "read_rows", "read_scores"]

_AGO = re.compile(r"(\d{1,6})([mhdw])")
_UNITS = {"m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
_AT_ONCE = 500  # well under the variables that one statement may hold in either database


def append_scores(url: str, rows: Sequence[Mapping[str, Any]]) -> int:
    """Append the rows that the ledger does not hold yet (by `score_id`); how many were added.

    Columns that a row does not name are null. Raises FoundryError for a ledger that cannot be written and for a number
    that is not finite.
    """
    return append_rows(url, SCORES, rows)


def append_rows(url: str, table: sa.Table, rows: Sequence[Mapping[str, Any]]) -> int:
    """`append_scores` for any table of the ledger; its first column is the key."""
    if not rows:
        return 0
    made = [{c.name: _storable(row.get(c.name), c.name) for c in table.columns} for row in rows]
    key = next(iter(table.primary_key.columns)).name
    copy = second_copy(url)
    with writing(url) as connection:
        if copy is not None:
            agree(connection, copy, url)
        known = _known(connection, table, key, [r[key] for r in made])
        if table is SCORES:
            made = [_beside(r, known) for r in made]
            known |= _known(connection, table, key, [r[key] for r in made])
        new = list({r[key]: r for r in made if r[key] not in known}.values())
        if not new:
            return 0
        if connection.dialect.name == "postgresql":
            from sqlalchemy.dialects.postgresql import insert

            # Another process may have added a row since; in SQLite this one holds the lock.
            statement = insert(table).on_conflict_do_nothing().returning(table.c[key])
            return len(connection.execute(statement, new).all())
        connection.execute(sa.insert(table), new)
        if copy is not None:
            copy.append(table.name, new)
        return len(new)


def agree(connection: sa.Connection, copy: SecondCopy, url: str) -> None:
    """Within a writing transaction: what only the ledger or only its copy holds, both hold afterwards.

    A copy is ahead where its writer was killed before the transaction was committed, and begins empty beside a ledger
    from before there were copies. Keys are compared, not rows: every writer waits for this one, and a row that was edited
    is told to whoever reads it. Raises FoundryError where a row that the copy lacks cannot be read.
    """
    for table in (SCORES, COLLAPSES):
        key = next(iter(table.primary_key.columns))
        held, written = set(connection.scalars(sa.select(key))), copy.keys(table.name)
        copy.append(table.name, _believed(url, table, _rows(connection, table, held - written, url), {}))
        lost = [row for row in (copy.row(table.name, k) for k in sorted(written - held)) if row is not None]
        if lost:
            connection.execute(sa.insert(table), [{c.name: row.get(c.name) for c in table.columns} for row in lost])


def _rows(connection: sa.Connection, table: sa.Table, keys: set[Any], url: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    key, wanted = next(iter(table.primary_key.columns)), sorted(keys, key=str)
    try:
        for at in range(0, len(wanted), _AT_ONCE):
            query = sa.select(table).where(key.in_(wanted[at : at + _AT_ONCE]))
            found += [dict(row) for row in connection.execute(query).mappings()]
    except ValueError as error:  # what stands in a JSON column is none
        raise damaged(url, f"a row cannot be read ({error})") from error
    return found


def _key(table: sa.Table, row: Mapping[str, Any]) -> str:
    return str(row[next(iter(table.primary_key.columns)).name])


def _believed(
    url: str, table: sa.Table, rows: list[dict[str, Any]], written: Mapping[str, Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """The rows as they are. Raises FoundryError where one is not what the second copy says of it (`written`: key → columns
    and what was recorded of them; empty where only the shape is to be looked at)."""
    texts = [c for c in table.columns if isinstance(c.type, sa.String) and not c.nullable]
    for row in rows:
        if not all(isinstance(row.get(c.name), str) for c in texts):
            raise damaged(url, f"a row of {table.name} is none")
        key = _key(table, row)
        if any(row.get(name) != value for name, value in written.get(key, {}).items()):
            raise damaged(url, f"row {plain(key, 16)} of {table.name} is not what was recorded")
    return rows


def _known(connection: sa.Connection, table: sa.Table, key: str, ids: Sequence[str]) -> dict[str, str]:
    """Those of the ids that are there, each with the content it stands for ("" outside the scores)."""
    content = table.c.artifact_hash if "artifact_hash" in table.c else sa.literal("")
    found: dict[str, str] = {}
    for at in range(0, len(ids), _AT_ONCE):
        query = sa.select(table.c[key], content).where(table.c[key].in_(ids[at : at + _AT_ONCE]))
        found |= {str(i): str(c) for i, c in connection.execute(query)}
    return found


def _beside(row: dict[str, Any], known: Mapping[str, str]) -> dict[str, Any]:
    there = known.get(row["score_id"])
    if there is None or there == row["artifact_hash"]:
        return row
    return {**row, "score_id": digest({"score": row["score_id"], "content": row["artifact_hash"]})}


def _storable(value: Any, column: str) -> Any:
    """A value that both databases keep and give back as it was; text that no database holds is written out."""
    if isinstance(value, float) and not math.isfinite(value):
        raise FoundryError(
            f"`{column}` is {value}, which is no score; nothing was recorded",
            where="the score ledger",
            mend="foundry doctor  # looks for damaged artifacts",
        )
    if isinstance(value, str):
        return value.replace("\0", "\\x00").encode("utf-8", "backslashreplace").decode("utf-8")
    if isinstance(value, Mapping):
        return {_storable(str(k), column): _storable(v, column) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_storable(v, column) for v in value]
    return value


def read_scores(
    url: str,
    *,
    run: str | None = None,
    mode: str | None = None,
    judge: str | None = None,
    suite: str | None = None,
    dataset: str | None = None,
    profile: str | None = None,
    since: str | None = None,
    until: str | None = None,
) -> list[dict[str, Any]]:
    """Rows of the ledger in the order they were recorded, filtered. Nothing is created or changed by reading.

    `suite` is the beginning of a hash; `dataset` a name, or the beginning of a hash (8 characters or more); `judge` a
    name or the beginning of a version; `since` and `until` what `moment` reads, the first included, the second not.
    """
    rows = read_rows(url, SCORES, {"run": run, "mode": mode, "profile": profile})
    first, last = (moment(text) if text is not None else None for text in (since, until))
    wanted = [
        r
        for r in rows
        if (suite is None or r["suite_hash"].startswith(suite))
        and (dataset is None or r["dataset"] == dataset or _hash_begins(r["dataset_hash"], dataset))
        and (judge is None or r["judge"] == judge or _hash_begins(r["judge_version"], judge))
        and (first is None or r["recorded_at"] >= first)
        and (last is None or r["recorded_at"] < last)
    ]
    return sorted(wanted, key=lambda r: (r["recorded_at"], r["run"], r["mode"], r["score_id"]))


def _hash_begins(value: str, text: str) -> bool:
    return len(text) >= 8 and value.startswith(text)


def read_rows(url: str, table: sa.Table, equal: Mapping[str, str | None]) -> list[dict[str, Any]]:
    """Rows of a table of the ledger whose columns equal what is given (None: any); columns that came later are None."""
    try:
        return _read(url, table, equal)
    except DamagedArtifact:
        wait_for_writers(url)  # a row that is being recorded is in the second copy first
        return _read(url, table, equal)


def _read(url: str, table: sa.Table, equal: Mapping[str, str | None]) -> list[dict[str, Any]]:
    copy = second_copy(url)
    with reading(url) as connection:
        if connection is None or not sa.inspect(connection).has_table(table.name):
            if copy is not None and copy.keys(table.name):
                raise damaged(url, f"its table `{table.name}` is gone")
            return []
        present = {c["name"] for c in sa.inspect(connection).get_columns(table.name)}
        first = next(iter(table.columns)).name
        if first not in present:
            raise FoundryError(
                f"the database has a table `{table.name}` that is not the ledger's",
                where=shown(url),
                mend="set FOUNDRY_LEDGER_URL to a database of its own",
            )
        query = sa.select(*(c for c in table.columns if c.name in present))
        for name, value in equal.items():
            if value is not None:
                query = query.where(table.c[name] == _storable(value, name))
        try:
            found = connection.execute(query).mappings().all()
            keys = {str(key) for key in connection.scalars(sa.select(table.c[first]))}
        except ValueError as error:  # what stands in a JSON column is none
            raise damaged(url, f"a row cannot be read ({error})") from error
    rows = [{c.name: row.get(c.name) for c in table.columns} for row in found]
    if copy is None:
        return rows
    written = copy.rows(table.name)
    if lost := written.keys() - keys:
        raise damaged(url, f"{len(lost)} rows of {table.name} that were recorded are not in it")
    return _believed(url, table, rows, written)


def find_score(url: str, score: str) -> dict[str, Any] | None:
    """The row whose id begins with `score`, or None. Raises FoundryError where several do."""
    found = [r for r in read_rows(url, SCORES, {}) if score and r["score_id"].startswith(score)]
    if len(found) > 1 and score not in {r["score_id"] for r in found}:
        raise FoundryError(
            f"`{plain(score, 80)}` is the beginning of {len(found)} scores",
            where=shown(url),
            mend=f"name one of: {', '.join(sorted(r['score_id'][:16] for r in found)[:8])}",
        )
    return next((r for r in found if r["score_id"] == score), found[0]) if found else None


def moment(text: str) -> str:
    """A date, a date with a time (UTC where no zone is given), or an age (`90m`, `12h`, `7d`, `2w`), as the ledger's text.

    Raises FoundryError for anything else.
    """
    try:
        if ago := _AGO.fullmatch(text.strip()):
            when = dt.datetime.now(dt.UTC) - dt.timedelta(**{_UNITS[ago[2]]: int(ago[1])})
        else:
            when = dt.datetime.fromisoformat(text.strip())
            when = when.replace(tzinfo=dt.UTC) if when.tzinfo is None else when.astimezone(dt.UTC)
        return when.isoformat(timespec="seconds")
    except (ValueError, OverflowError):
        raise FoundryError(
            f"`{plain(text, 80)}` is no moment in time",
            where="--since, --until",
            mend="give a date (2026-11-21), a time (2026-11-21T20:14), or an age (90m, 12h, 7d)",
        ) from None
