"""The PostgreSQL database that FOUNDRY_DATABASE names: connections, layouts, and errors that a user can act on.

    export FOUNDRY_DATABASE=postgresql://foundry@db.example/foundry     # the password in it, or in ~/.pgpass

Connections are kept and tested before each use. Where the server is away for a moment (a restart, a fail-over), a
process that has reached it before waits up to WAIT_SECONDS for it; one that never has is told at once. Nothing that is
shown, logged or raised holds the password.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import lru_cache
from typing import Any

import sqlalchemy as sa

from foundry_pipeline.errors import FoundryError
from foundry_pipeline.lineage.sqlite_file import Mode, transaction
from foundry_pipeline.settings import DATABASE

WAIT_SECONDS = 30.0
_NAMES = ("postgresql+psycopg2", "postgresql", "postgres")
_KEPT = 5  # connections that a process keeps open; more are made where more threads ask at once, and closed after
# Any numbers that other users of a shared server are unlikely to lock by.
_LAYOUT_LOCK, _WRITE_LOCK = 0x464F554E4459, 0x464F554E445A
_LAYOUTS = "CREATE TABLE IF NOT EXISTS foundry_layouts (what TEXT PRIMARY KEY, version BIGINT NOT NULL)"
_engines: dict[tuple[int, str, bool], sa.Engine] = {}
_reached: set[tuple[int, str]] = set()
_laid_out: set[tuple[int, str, str]] = set()
_guard = threading.Lock()


def database_url() -> str:
    """The setting, checked. Raises FoundryError where it is absent or names no PostgreSQL database."""
    url = os.environ.get(DATABASE, "").strip()
    if not url:
        raise FoundryError(
            f"{DATABASE} is not set in this process, though what is asked for stands in that database",
            mend=f"export {DATABASE}=postgresql://user@host/database on every machine that works on it",
        )
    return url


def shown(url: str, variable: str = DATABASE) -> str:
    """A URL as it may be shown: without its password. One that cannot be read is not shown at all."""
    try:
        # A password may be a parameter as well (`?password=…`).
        parsed = sa.engine.make_url(url)
        return parsed.difference_update_query(["password", "sslpassword"]).render_as_string(hide_password=True)
    except (sa.exc.ArgumentError, ValueError):
        return variable


def read_url(url: str, variable: str = DATABASE) -> sa.URL:
    """A URL of a PostgreSQL database, with the driver named. Raises FoundryError for any other."""
    mend = f"set {variable} to postgresql://user:password@host:5432/database, or unset it (then SQLite files are used)"
    try:
        parsed = sa.engine.make_url(url)
    except (sa.exc.ArgumentError, ValueError) as error:
        raise FoundryError(f"{variable} is not a URL of a database", where=variable, mend=mend) from error
    if parsed.drivername not in _NAMES:
        what = f"{variable} names a database of the kind `{parsed.drivername}`, and PostgreSQL is expected"
        raise FoundryError(what, where=variable, mend=mend)
    if not parsed.database:
        raise FoundryError(f"{variable} names no database", where=shown(url, variable), mend=mend)
    return parsed.set(drivername="postgresql+psycopg2")


def engine_of(url: str, variable: str = DATABASE, *, autocommit: bool = False) -> sa.Engine:
    """The engine of a URL, one for each process, with a pool of connections that are tested before use."""
    key = (os.getpid(), url, autocommit)
    with _guard:
        if key not in _engines:
            parsed = read_url(url, variable)
            try:
                engine = sa.create_engine(
                    parsed,
                    pool_pre_ping=True,
                    pool_size=_KEPT,
                    max_overflow=256,
                    connect_args={
                        "connect_timeout": 10,
                        "client_encoding": "utf8",
                        "application_name": "foundry",
                        # A cut cable is noticed within a minute instead of hours.
                        **{"keepalives_idle": 20, "keepalives_interval": 10, "keepalives_count": 3},
                    },
                )
            except ModuleNotFoundError as error:
                raise FoundryError(
                    "PostgreSQL is asked through a package that is not installed (psycopg2)",
                    where=shown(url, variable),
                    mend="pip install -c constraints.txt -e '.[postgres]'",
                ) from error
            if autocommit:
                sa.event.listen(engine, "connect", lambda raw, _: setattr(raw, "autocommit", True))
            _engines[key] = engine
        return _engines[key]


def unusable(what: str, error: BaseException, url: str, variable: str = DATABASE) -> FoundryError:
    """What the server, or the way to it, said, as an error with a mend."""
    cause: Any = getattr(error, "orig", None) or error
    said = " ".join(str(cause).split())
    password = _password(url)
    if password:
        said = said.replace(password, "***")
    code = getattr(cause, "pgcode", None) or ""
    lower = said.lower()
    if "password authentication failed" in lower or "no password supplied" in lower or code.startswith("28"):
        mend = f"correct user and password in {variable} (or in ~/.pgpass), then run the same command again"
    elif code == "3D000" or ('database "' in lower and "does not exist" in lower):
        mend = "make the database (createdb -E UTF8 NAME), then run the same command again"
    elif code == "42501" or "permission denied" in lower:
        mend = "let the user of the URL make and write tables: GRANT ALL ON SCHEMA public TO …"
    elif code == "25006" or "read-only transaction" in lower:
        mend = f"let {variable} name the primary server, not a standby, then run the same command again"
    elif code == "53100":
        mend = "make room on the database server, then run the same command again"
    elif code == "53300" or "too many clients" in lower:
        mend = "raise max_connections of the server, or run fewer processes, then run the same command again"
    else:
        mend = (
            f"see that the server runs and that {variable} names it, then run the same command again: what is stored "
            "stays, and what is missing is done then"
        )
    return FoundryError(f"the {what} cannot be used ({said})", where=shown(url, variable), mend=mend)


def _password(url: str) -> str:
    with suppress(sa.exc.ArgumentError, ValueError):
        parsed = sa.engine.make_url(url)
        return str(parsed.password or parsed.query.get("password") or "")
    return ""


@lru_cache(maxsize=256)
def _translated(sql: str) -> str:
    return sql.replace("%", "%%").replace("?", "%s")


class PostgresConnection:
    """A psycopg2 connection with the face of sqlite3's: `?` for values, transactions begun and ended by statements."""

    dialect = "postgresql"

    def __init__(self, raw: Any) -> None:
        self._raw = raw

    def execute(self, sql: str, values: Any = (), /) -> Any:
        """A cursor: rows are tuples; sums of whole numbers are whole numbers where the query says so (CAST)."""
        cursor = self._raw.cursor()
        cursor.execute(_translated(sql), list(values))
        return cursor

    def executemany(self, sql: str, values: Any, /) -> Any:
        from psycopg2.extras import execute_batch

        cursor = self._raw.cursor()
        execute_batch(cursor, _translated(sql), [list(row) for row in values])
        return cursor

    def begin(self, mode: Mode) -> None:
        """Begin a transaction; an EXCLUSIVE one waits until it is the only one of its kind."""
        # One snapshot for all questions of a reader, as in SQLite. Two statements in one go: half the way for both.
        begin = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY" if mode == "DEFERRED" else "BEGIN"
        lock = f"; SELECT pg_advisory_xact_lock({_WRITE_LOCK})" if mode == "EXCLUSIVE" else ""
        self.execute(begin + lock)


class PostgresTables:
    """Tables of one kind in the database of the environment; the counterpart of `SqliteFile`, and used like it.

    Raises FoundryError for a database that cannot be reached, opened or written, or that a later version has laid out;
    IntegrityError goes through, being a fault of the caller.
    """

    def __init__(self, *, what: str, version: int, lay_out: Callable[[Any], None], url: str = "") -> None:
        self._url = url or database_url()
        self._what = what
        engine_of(self._url, autocommit=True)
        key = (os.getpid(), self._url, what)
        if key not in _laid_out:
            with self.connection() as connection:
                self._lay_out(connection, version, lay_out)
            _laid_out.add(key)

    @property
    def where(self) -> str:
        return shown(self._url)

    @contextmanager
    def connection(self) -> Iterator[PostgresConnection]:
        """A connection without a transaction, given back at the end. Waits for a server that is away for a moment."""
        import psycopg2

        try:
            raw = self._checked_out()
            try:
                yield PostgresConnection(raw)
            except FoundryError:
                raise
            except BaseException:
                # Whatever state it is in, nobody is given it again.
                raw.invalidate()
                raise
            finally:
                raw.close()
        except psycopg2.IntegrityError:
            raise
        except (psycopg2.Error, sa.exc.DBAPIError) as error:
            raise unusable(self._what, error, self._url) from error

    def _checked_out(self) -> Any:
        import psycopg2

        give_up = time.monotonic() + WAIT_SECONDS
        while True:
            try:
                raw = engine_of(self._url, autocommit=True).raw_connection()
                _reached.add((os.getpid(), self._url))
                return raw
            except (psycopg2.OperationalError, sa.exc.OperationalError):
                if (os.getpid(), self._url) not in _reached or time.monotonic() > give_up:
                    raise
                time.sleep(0.5)

    def _lay_out(self, connection: PostgresConnection, version: int, lay_out: Callable[[Any], None]) -> None:
        encoding = connection.execute("SHOW server_encoding").fetchone()[0]
        if encoding != "UTF8":
            raise FoundryError(
                f"the database keeps text as {encoding}, which does not hold every letter",
                where=self.where,
                mend="make it with createdb -E UTF8 -T template0 NAME",
            )
        with transaction(connection):
            connection.execute(f"SELECT pg_advisory_xact_lock({_LAYOUT_LOCK})")
            connection.execute(_LAYOUTS)
            row = connection.execute("SELECT version FROM foundry_layouts WHERE what = ?", [self._what]).fetchone()
            found = 0 if row is None else int(row[0])
            if found > version:
                raise FoundryError(
                    f"the {self._what} has layout {found}, this version knows {version}",
                    where=self.where,
                    mend=f"update Foundry on this machine, or set {DATABASE} to another database",
                )
            if found < version:
                lay_out(connection)
                connection.execute(
                    "INSERT INTO foundry_layouts VALUES (?, ?) ON CONFLICT (what) DO UPDATE SET version = excluded.version",
                    [self._what, version],
                )


def check_database() -> None:
    """Reach the database of the setting. Raises FoundryError where that cannot be done."""
    url = database_url()
    try:
        with engine_of(url).connect() as connection:
            connection.exec_driver_sql("SELECT 1")
    except sa.exc.DBAPIError as error:
        raise unusable("shared database", error, url) from error


@contextmanager
def alone(url: str, what: str) -> Iterator[None]:
    """Be the only process that lays anything out in a database. Raises FoundryError where it cannot be used."""
    try:
        with engine_of(url).begin() as connection:
            connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_LAYOUT_LOCK})")
            yield
    except sa.exc.DBAPIError as error:
        raise unusable(what, error, url) from error


def columns_of(connection: PostgresConnection, table: str) -> set[str]:
    """Names of a table's columns; empty where there is no such table."""
    query = (
        "SELECT column_name FROM information_schema.columns WHERE table_name = ? AND table_schema = current_schema()"
    )
    return {row[0] for row in connection.execute(query, [table])}


def sweep(urls: Sequence[str] = ()) -> None:
    """Close the kept connections of this process (to these URLs, or all), as before a database is dropped."""
    with _guard:
        for key in [k for k in _engines if k[0] == os.getpid() and (not urls or k[1] in urls)]:
            _engines.pop(key).dispose()
