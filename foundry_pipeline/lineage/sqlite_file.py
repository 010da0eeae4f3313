"""A SQLite file that several processes write at once and that a kill or a power cut leaves whole.

file = SqliteFile(path, what="response cache", version=2, lay_out=create_tables, lost="foundry repair …",
                  kept={"replies": "request_hash"})
with file.connection() as connection, transaction(connection):
    connection.execute(…)
    file.keep(connection, "replies", keys)       # rows that have changed, into the second copy
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Literal

from foundry_pipeline.errors import DamagedArtifact, FoundryError
from foundry_pipeline.lineage.second_copy import Row, SecondCopy

_WAIT_SECONDS = 60.0
Mode = Literal["DEFERRED", "IMMEDIATE", "EXCLUSIVE"]
_MANY = 500  # SQLite takes 32,766 parameters in one statement, older builds 999
# What a disk or a right stands behind; any other failure of a statement that was right is a damaged file.
_UNWRITABLE = {
    sqlite3.SQLITE_PERM,
    sqlite3.SQLITE_BUSY,
    sqlite3.SQLITE_LOCKED,
    sqlite3.SQLITE_NOMEM,
    sqlite3.SQLITE_READONLY,
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_CANTOPEN,
}


class SqliteFile:
    """One file in WAL mode; every use opens a connection of its own, so threads and processes may share it.

    `lay_out` makes or extends the tables where the file is older than `version`. `lost` is what to do about a file that
    cannot be read. `kept` names the tables (and their keys) of which every change is written to a second copy as well:
    by `keep`, within the transaction. Raises FoundryError for a file of a later version, one that is no database, and one that cannot be
    written; sqlite3.IntegrityError goes through, being a fault of the caller and not of the file.
    """

    def __init__(
        self,
        path: Path,
        *,
        what: str,
        version: int,
        lay_out: Callable[[sqlite3.Connection], None],
        lost: str,
        kept: Mapping[str, str] | None = None,
    ) -> None:
        self.path, self._what, self._lost = path, what, lost
        self.copy = SecondCopy(path, kept or {})
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise self._unwritable(error) from error
        with self.connection() as connection:
            found = int(connection.execute("PRAGMA user_version").fetchone()[0])
            if found > version:
                raise FoundryError(
                    f"the {what} has layout {found}, this version knows {version}",
                    where=str(path),
                    mend=f"update Foundry; or, where no later version was ever at work, {lost}",
                )
            if found == 0 and self.copy:
                raise self.damaged(f"it is empty, and its second copy {self.copy.path.name} is not")
            if found < version:
                _to_wal(connection)
                with transaction(connection):
                    lay_out(connection)
                    connection.execute(f"PRAGMA user_version={version}")
            if kept and not self.copy:
                self._copy_all(connection)

    def keep(self, connection: Any, table: str, keys: Sequence[str]) -> None:
        """Write the rows of these keys, as the transaction leaves them, to the second copy."""
        try:
            self.copy.append(table, self.rows(connection, table, keys))
        except OSError as error:
            raise self._unwritable(error) from error

    def rows(self, connection: Any, table: str, keys: Sequence[str] | None = None) -> list[Row]:
        """Rows of a kept table in the order of their keys: all of them, or those of these keys."""
        key = self.copy.tables[table]
        if keys is None:
            cursor = connection.execute(f"SELECT * FROM {table} ORDER BY {key}")
            return [_named(cursor, row) for row in cursor]
        found = []
        for start in range(0, len(keys), _MANY):
            part = list(keys[start : start + _MANY])
            marks = ", ".join("?" * len(part))
            cursor = connection.execute(f"SELECT * FROM {table} WHERE {key} IN ({marks}) ORDER BY {key}", part)
            found += [_named(cursor, row) for row in cursor]
        return found

    def believed(self, table: str, rows: Sequence[Row]) -> Sequence[Row]:
        """The rows as they are. Raises FoundryError where one differs from what was written down of it."""
        for row in rows:
            written = self.copy.row(table, str(row[self.copy.tables[table]]))
            if written is not None and any(row.get(name) != value for name, value in written.items()):
                raise self.damaged(f"row {str(row[self.copy.tables[table]])[:16]} of {table} is not what was written")
        return rows

    def damaged(self, how: str) -> DamagedArtifact:
        return DamagedArtifact(f"the {self._what} is damaged: {how}", where=str(self.path), mend=self._lost)

    def _copy_all(self, connection: sqlite3.Connection) -> None:
        """Begin the second copy of a file that has none yet."""
        with transaction(connection):
            if not self.copy:
                for table in self.copy.tables:
                    try:
                        self.copy.append(table, self.rows(connection, table))
                    except OSError as error:
                        raise self._unwritable(error) from error

    def _unwritable(self, error: OSError) -> FoundryError:
        return FoundryError(
            f"the {self._what} cannot be used: {error.strerror or error}",
            where=str(self.path),
            mend="free disk space, or make the file writable, and run the same command again",
        )

    @property
    def where(self) -> str:
        return str(self.path)

    @contextmanager
    def connection(self) -> Iterator[sqlite3.Connection]:
        """An open connection without a transaction; closed at the end."""
        try:
            connection = sqlite3.connect(self.path, timeout=_WAIT_SECONDS, isolation_level=None)
            try:
                # FULL syncs the log at each commit: what was paid for survives a power cut, too.
                connection.execute("PRAGMA synchronous=FULL")
                yield connection
            finally:
                connection.close()
        except sqlite3.IntegrityError:
            raise
        except sqlite3.DatabaseError as error:
            if not unwritable(error):
                raise self.damaged(str(error)) from error
            raise FoundryError(
                f"the {self._what} cannot be used: {error}",
                where=str(self.path),
                mend="free disk space, or make the file writable, and run the same command again",
            ) from error


def unwritable(error: BaseException) -> bool:
    """Whether a disk or a right stands behind an error of SQLite, and not what is in the file."""
    # The low byte; what is above it says more of the same.
    return (getattr(error, "sqlite_errorcode", None) or 0) & 0xFF in _UNWRITABLE


def _named(cursor: sqlite3.Cursor, row: tuple[object, ...]) -> Row:
    return {column[0]: value for column, value in zip(cursor.description, row, strict=True)}


def _to_wal(connection: sqlite3.Connection) -> None:
    """Switch to the write-ahead log. SQLite does not wait for others here, so two that open a new file at once collide."""
    give_up = time.monotonic() + _WAIT_SECONDS
    while True:
        try:
            connection.execute("PRAGMA journal_mode=WAL")
            return
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or time.monotonic() > give_up:
                raise
            time.sleep(0.02)


@contextmanager
def transaction(connection: Any, mode: Mode = "IMMEDIATE") -> Iterator[None]:
    """All of the block or nothing of it.

    IMMEDIATE: writers of one SQLite file wait for each other; in PostgreSQL they do where they touch the same rows.
    EXCLUSIVE: one at a time in both, for what is decided by a sum over many rows. DEFERRED: for readers.
    """
    begin: Callable[[Mode], None] | None = getattr(connection, "begin", None)
    if begin is not None:
        begin(mode)
    else:
        connection.execute(f"BEGIN {mode}")
    try:
        yield
    except BaseException:
        # Where the connection itself is gone it is rolled back already, and the first error is the one to tell.
        with suppress(Exception):
            connection.execute("ROLLBACK")
        raise
    connection.execute("COMMIT")
