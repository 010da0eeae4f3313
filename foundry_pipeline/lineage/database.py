"""Tables that processes share: in a SQLite file, or in the PostgreSQL database that the setting FOUNDRY_DATABASE names.

    database = open_database(place, what="response cache", version=3, lay_out=create_tables, lost="mv … …   # …")
    with database.connection() as connection, transaction(connection):
        connection.execute("INSERT INTO replies VALUES (?, ?)", [key, text])

`place` is the file, or `<store>/FOUNDRY_DATABASE`, which is no file: it says that the tables stand in the database of the
environment. So a place can be written into the spec of a script, and no password with it. SQL is written once, with `?`
for values, in what both databases understand; `ddl` puts the types of SQLite into PostgreSQL's words.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Protocol

from foundry_pipeline.lineage.sqlite_file import SqliteFile, transaction
from foundry_pipeline.settings import DATABASE

__all__ = ["Connection", "Database", "ddl", "is_postgres", "is_shared", "is_there", "open_database", "transaction"]


class Connection(Protocol):
    """What a connection to either database can do; `sqlite3.Connection` is one as it is."""

    def execute(self, sql: str, values: Any = ..., /) -> Any: ...

    def executemany(self, sql: str, values: Any, /) -> Any: ...


class Database(Protocol):
    """Tables of one kind, wherever they stand. `where` may be shown: it holds no password."""

    @property
    def where(self) -> str: ...

    def connection(self) -> AbstractContextManager[Any]: ...


def open_database(
    place: Path,
    *,
    what: str,
    version: int,
    lay_out: Callable[[Any], None],
    lost: str,
    kept: Mapping[str, str] | None = None,
) -> Database:
    """The tables at a place, made or brought to `version` by `lay_out`. Raises FoundryError where they cannot be used.

    `kept` names tables and their keys of which a file has a second copy; a server has backups of its own.
    """
    if not is_shared(place):
        return SqliteFile(place, what=what, version=version, lay_out=lay_out, lost=lost, kept=kept)
    from foundry_pipeline.lineage.postgres import PostgresTables

    return PostgresTables(what=what, version=version, lay_out=lay_out)


def is_shared(place: Path) -> bool:
    """Whether a place stands for the database that FOUNDRY_DATABASE names."""
    return place.name == DATABASE


def is_there(place: Path) -> bool:
    """Whether there can be anything at a place: without making it."""
    return is_shared(place) or place.exists()


def is_postgres(connection: Connection) -> bool:
    return getattr(connection, "dialect", "sqlite") == "postgresql"


def ddl(connection: Connection, statements: str) -> Sequence[str]:
    """The statements of a schema written for SQLite, in the words of the database that the connection leads to."""
    if is_postgres(connection):
        for ours, theirs in ((" INTEGER", " BIGINT"), (" REAL", " DOUBLE PRECISION"), (" WITHOUT ROWID", "")):
            statements = statements.replace(ours, theirs)
    return [s for s in statements.split(";") if s.strip()]
