"""A SQLite file that several processes write at once and that a kill or a power cut leaves whole.

file = SqliteFile(path, what="response cache", version=2, lay_out=create_tables, lost="mv … …   # …")
with file.connection() as connection, transaction(connection):
    connection.execute(…)
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Literal

from foundry_pipeline.errors import FoundryError

_WAIT_SECONDS = 60.0
Mode = Literal["DEFERRED", "IMMEDIATE", "EXCLUSIVE"]


class SqliteFile:
    """One file in WAL mode; every use opens a connection of its own, so threads and processes may share it.

    `lay_out` makes or extends the tables where the file is older than `version`. `lost` is what to do about a file that
    cannot be read. Raises FoundryError for a file of a later version, one that is no database, and one that cannot be
    written; sqlite3.IntegrityError goes through, being a fault of the caller and not of the file.
    """

    def __init__(
        self, path: Path, *, what: str, version: int, lay_out: Callable[[sqlite3.Connection], None], lost: str
    ) -> None:
        self.path, self._what, self._lost = path, what, lost
        path.parent.mkdir(parents=True, exist_ok=True)
        with self.connection() as connection:
            found = int(connection.execute("PRAGMA user_version").fetchone()[0])
            if found > version:
                raise FoundryError(
                    f"the {what} has layout {found}, this version knows {version}",
                    where=str(path),
                    mend="update Foundry, or set FOUNDRY_STORE to another folder",
                )
            if found < version:
                _to_wal(connection)
                with transaction(connection):
                    lay_out(connection)
                    connection.execute(f"PRAGMA user_version={version}")

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
        except sqlite3.OperationalError as error:
            raise FoundryError(
                f"the {self._what} cannot be used: {error}",
                where=str(self.path),
                mend="free disk space, or make the file writable, and run the same command again",
            ) from error
        except sqlite3.DatabaseError as error:
            raise FoundryError(
                f"the {self._what} cannot be read: {error}", where=str(self.path), mend=self._lost
            ) from error


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
