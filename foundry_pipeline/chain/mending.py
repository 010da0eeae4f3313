"""What `foundry repair` does about an index and about databases that are damaged, edited or gone.

    mend(settings, "responses")    → ["216 rows of replies (3 from the second copy) stand in …", "the damaged file lies in …"]
    faults(settings, "ledger")     → []     (whole)

`index` is written anew from the lines that lie beside the artifacts; `responses`, `money` and `ledger` from every row that
the damaged file still tells as it was written, and from the second copy for the others. Nothing is deleted: what was found
is moved to `quarantine/`. A kill on the way leaves either what was there or what is whole, never neither.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import sqlite3
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import sqlalchemy as sa

from foundry_pipeline.chain.mending_index import index_faults, mend_index, whole
from foundry_pipeline.errors import DamagedArtifact, FoundryError
from foundry_pipeline.lineage.database import is_shared
from foundry_pipeline.lineage.files import disk_error
from foundry_pipeline.lineage.ledger import read_scores
from foundry_pipeline.lineage.ledger_database import KEPT as LEDGER_TABLES
from foundry_pipeline.lineage.ledger_database import sqlite_path, writing
from foundry_pipeline.lineage.ledger_tables import COLLAPSES, SCORES
from foundry_pipeline.lineage.second_copy import Row, SecondCopy
from foundry_pipeline.models.cache import KEPT as REPLY_TABLES
from foundry_pipeline.models.cache import ResponseCache
from foundry_pipeline.models.money.ledger import KEPT as MONEY_TABLES
from foundry_pipeline.models.money.ledger import MoneyLedger, come
from foundry_pipeline.settings import Settings

DATABASES = ("responses", "money", "ledger")
MENDABLE = ("index", *DATABASES)


@dataclass(frozen=True)
class _Database:
    """One file: its second copy, the columns that hold JSON, how it is read, how one that holds given rows is made."""

    path: Path
    copy: SecondCopy
    read: Callable[[], object]
    write: Callable[[Path, dict[str, list[Row]]], None]
    json_columns: dict[str, frozenset[str]]
    newer: Callable[[Row, Row], bool] = lambda row, written: False


def mend(settings: Settings, what: str) -> list[str]:
    """Mend one of MENDABLE; says what was done. Raises FoundryError where it is whole, or is being written."""
    _refuse_writers(settings)
    try:
        return mend_index(settings, _aside(settings, "index")) if what == "index" else _mend_database(settings, what)
    except OSError as error:
        raise disk_error(error, Path(error.filename or settings.store)) from error


def faults(settings: Settings, what: str) -> list[str]:
    """What is wrong with one of DATABASES or with the index; nothing where it is whole, or was never made."""
    if what == "index":
        return index_faults(settings)
    found = _database(settings, what)
    return [] if found is None else _database_faults(found)


# -------------------------------------------------------------------------------------------------------- databases


def _database(settings: Settings, what: str) -> _Database | None:
    """One of DATABASES; None where neither the file nor its copy is there. Raises FoundryError for one on a server."""
    if what == "ledger":
        path = sqlite_path(settings.ledger_url)
        if path is None:
            return None
        columns = {
            t.name: frozenset(c.name for c in t.columns if isinstance(c.type, sa.JSON)) for t in (SCORES, COLLAPSES)
        }
        found = _Database(
            path, SecondCopy(path, LEDGER_TABLES), lambda: read_scores(settings.ledger_url), _write_ledger, columns
        )
    elif what == "responses":
        replies = settings.responses_path
        found = _Database(
            replies, SecondCopy(replies, REPLY_TABLES), lambda: ResponseCache(replies), _write_replies, {}
        )
    else:
        money = settings.money_path
        found = _Database(
            money, SecondCopy(money, MONEY_TABLES), lambda: MoneyLedger(money).compare(), _write_money, {}, _further
        )
    return None if is_shared(found.path) or not (found.path.exists() or found.copy) else found


def _database_faults(database: _Database) -> list[str]:
    out = []
    copy = database.copy
    if not database.path.is_file() or database.path.stat().st_size == 0:
        return [f"{database.path.name} is gone or empty, and its second copy is not"] if copy else []
    told = _integrity(database.path)
    if told != "ok":
        out.append(f"{database.path.name}: {told}")
    for table in copy.tables:
        rows, edited = _salvage(database, table)
        known = copy.keys(table)
        if edited:
            out.append(f"{edited} rows of {table} are not what was written")
        if lost := known - rows.keys():
            out.append(f"{len(lost)} rows of {table} stand in the second copy alone")
        if bare := rows.keys() - known:
            out.append(f"{len(bare)} rows of {table} are not in the second copy")
    try:
        database.read()
    except FoundryError as error:
        # Neither a full disk nor a right that is missing is a fault of the file.
        if not out and (isinstance(error, DamagedArtifact) or "layout" in error.what):
            out.append(error.what)
    if copy.damaged:
        out.append(f"{copy.damaged} lines of {copy.path.name} are torn or edited")
    return out


def _integrity(path: Path) -> str:
    try:
        connection = sqlite3.connect(f"file:{quote(str(path.absolute()))}?mode=rw", uri=True, timeout=60)
        try:
            return str(connection.execute("PRAGMA integrity_check(1)").fetchone()[0])
        finally:
            connection.close()
    except sqlite3.DatabaseError as error:
        return str(error)


def _salvage(database: _Database, table: str) -> tuple[dict[str, Row], int]:
    """Rows that the file tells as they were written, by key, and how many it tells otherwise.

    Read from both ends, since a damaged page stops the reading.
    """
    key = database.copy.tables[table]
    found: dict[str, Row] = {}
    edited: set[str] = set()
    for order in ("ASC", "DESC"):
        try:
            connection = sqlite3.connect(f"file:{quote(str(database.path.absolute()))}?mode=rw", uri=True, timeout=60)
            connection.text_factory = lambda data: data.decode("utf-8", "surrogateescape")
            try:
                cursor = connection.execute(f"SELECT * FROM {table} ORDER BY {key} {order}")
                names = [column[0] for column in cursor.description]
                for values in cursor:
                    row = dict(zip(names, values, strict=True))
                    name = str(row.get(key))
                    if (
                        isinstance(row.get(key), str)
                        and _restore(row, database.json_columns.get(table, frozenset()))
                        and _agrees(database, table, name, row)
                    ):
                        found[name] = row
                    else:
                        edited.add(name)
            finally:
                connection.close()
        except sqlite3.DatabaseError:
            continue
    return found, len(edited - found.keys())


def _restore(row: Row, json_columns: frozenset[str]) -> bool:
    """Turn the texts of JSON columns into what they say; whether the row can be a row at all."""
    try:
        for name in json_columns:
            if row.get(name) is not None:
                row[name] = json.loads(row[name])
        for value in row.values():
            if isinstance(value, str):
                value.encode("utf-8")
        return not any(isinstance(value, bytes) for value in row.values())
    except (TypeError, ValueError):
        return False


def _agrees(database: _Database, table: str, key: str, row: Row) -> bool:
    written = database.copy.row(table, key)
    if written is None or all(row.get(name) == value for name, value in written.items()):
        return True
    return database.newer(row, written)


def _further(row: Row, written: Row) -> bool:
    """A row of money that has come further than a copy that has lost its last lines."""
    return come(row) > come(written)


def _mend_database(settings: Settings, what: str) -> list[str]:
    database = _database(settings, what)
    if database is None or not (troubles := _database_faults(database)):
        path = None if database is None else database.path
        raise whole(what, path or settings.store)
    copy, rows, from_copy = database.copy, {}, 0
    unsound = database.path.is_file() and _integrity(database.path) != "ok"
    for table in copy.tables:
        there, edited = _salvage(database, table)
        written = copy.rows(table)
        if copy and (unsound or edited or written.keys() - there.keys()):
            # What a damaged file alone tells may be a row under a wrong key: it stays where it is set aside.
            there = {key: row for key, row in there.items() if key in written}
        rows[table] = [*there.values(), *(row for key, row in written.items() if key not in there)]
        from_copy += len(rows[table]) - len(there)
    new = database.path.with_name(f".{database.path.name}.{uuid.uuid4().hex}")
    aside = _aside(settings, database.path.name)
    try:
        database.write(new, rows)
        aside.mkdir(parents=True)
        if copy:
            os.link(copy.path, aside / copy.path.name)
        # First the copy, whole; then the file: whatever is killed between, one of the two holds every row.
        copy.write_anew(rows)
        for path in sorted(database.path.parent.glob(f"{database.path.name}*")):
            if path.name in {database.path.name + end for end in ("", "-wal", "-shm", "-journal")}:
                path.rename(aside / path.name)
        new.rename(database.path)
    finally:
        for path in new.parent.glob(f"{new.name}*"):
            path.unlink()
    held = ", ".join(f"{len(rows[table])} of {table}" for table in copy.tables)
    return [
        *troubles,
        f"rows in {database.path.name} now: {held}; {from_copy} of them from its second copy",
        f"what was found lies in {aside}",
    ]


def _write_replies(path: Path, rows: dict[str, list[Row]]) -> None:
    ResponseCache(path)
    _insert(path, rows)


def _write_money(path: Path, rows: dict[str, list[Row]]) -> None:
    MoneyLedger(path)
    _insert(path, rows)


def _insert(path: Path, rows: dict[str, list[Row]]) -> None:
    connection = sqlite3.connect(path, isolation_level=None)
    try:
        connection.execute("BEGIN IMMEDIATE")
        for table, held in rows.items():
            for row in held:
                marks = ", ".join("?" * len(row))
                # A damaged file without a copy may tell rows that are none.
                with contextlib.suppress(sqlite3.IntegrityError):
                    connection.execute(f"INSERT INTO {table} ({', '.join(row)}) VALUES ({marks})", [*row.values()])
        connection.execute("COMMIT")
        # All of it into the one file, which is then renamed.
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        connection.execute("PRAGMA journal_mode=DELETE")
        connection.execute("PRAGMA journal_mode=WAL")
    finally:
        connection.close()


def _write_ledger(path: Path, rows: dict[str, list[Row]]) -> None:
    with writing(f"sqlite:///{path}") as connection:
        for table in (SCORES, COLLAPSES):
            for row in rows[table.name]:
                connection.execute(sa.insert(table), {c.name: row.get(c.name) for c in table.columns})


# ----------------------------------------------------------------------------------------------------------- shared


def _aside(settings: Settings, name: str) -> Path:
    return settings.store / "quarantine" / f"{name}-{uuid.uuid4().hex[:8]}"


def _refuse_writers(settings: Settings) -> None:
    """Nobody may write what is about to be replaced."""
    if held := held_locks(settings.store / "locks"):
        raise FoundryError(
            f"something is being built: {'; '.join(held)}",
            where=str(settings.store),
            mend="wait for it to end, then run the same command again",
        )


def held_locks(folder: Path) -> list[str]:
    """Who builds what in a store, by its locks."""
    held = []
    for path in sorted(folder.glob("*.lock")) if folder.is_dir() else ():
        with path.open("r", encoding="utf-8") as handle:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                held.append(f"{path.stem[:12]} by {handle.read().strip()}")
    return held
