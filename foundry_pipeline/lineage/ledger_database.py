"""Where the score ledger lies, by one URL: a SQLite file, or a PostgreSQL database that several machines share.

sqlite:////srv/foundry/ledger.db
postgresql://user:password@host/database      (postgres:// and postgresql+psycopg2:// are the same)

with writing(url) as connection: …            one transaction, in the newest layout
with reading(url) as connection: …            changes nothing; None where there is no ledger yet
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import quote

import sqlalchemy as sa

from foundry_pipeline.errors import DamagedArtifact, FoundryError
from foundry_pipeline.lineage import postgres
from foundry_pipeline.lineage.ledger_versions import found_version, migrate
from foundry_pipeline.lineage.second_copy import SecondCopy
from foundry_pipeline.lineage.sqlite_file import unwritable
from foundry_pipeline.settings import DATABASE

_SQLITE = "sqlite:///"
_WAIT_SECONDS = 60.0
KEPT = {"scores": "score_id", "collapses": "collapse_id"}
REPAIR = "foundry repair ledger   # sets it aside; every row comes back from its second copy"


def shown(url: str) -> str:
    """The URL as it may be shown: without its password."""
    return url if url.startswith(_SQLITE) else postgres.shown(url, _variable(url))


def _variable(url: str) -> str:
    """The setting that a URL came from."""
    return DATABASE if url == os.environ.get(DATABASE, "").strip() else "FOUNDRY_LEDGER_URL"


def second_copy(url: str) -> SecondCopy | None:
    """The second copy of a ledger that is a file; a server has its own."""
    path = sqlite_path(url)
    return None if path is None else SecondCopy(path, KEPT)


def damaged(url: str, how: str) -> DamagedArtifact:
    return DamagedArtifact(f"the score ledger is damaged: {how}", where=shown(url), mend=REPAIR)


def sqlite_path(url: str) -> Path | None:
    """The file of a SQLite URL: whatever follows the scheme, so that a `?` or `%` in a folder's name stays itself."""
    return Path(url.removeprefix(_SQLITE)) if url.startswith(_SQLITE) and url != _SQLITE else None


def _sqlite(path: Path, *, write: bool) -> sa.Engine:
    def connect() -> sqlite3.Connection:
        # Not `mode=ro`: a reader has to roll a killed writer's half transaction back. `query_only` forbids the rest.
        mode = "rwc" if write else "rw"
        made = sqlite3.connect(
            f"file:{quote(str(path.absolute()))}?mode={mode}", uri=True, timeout=_WAIT_SECONDS, isolation_level=None
        )
        if not write:
            made.execute("PRAGMA query_only=ON")
        return made

    engine = sa.create_engine("sqlite://", creator=connect, poolclass=sa.pool.NullPool)
    # Its own transactions begin late: two that read before they write would then fail instead of waiting.
    begin = "BEGIN IMMEDIATE" if write else "BEGIN"
    sa.event.listen(engine, "begin", lambda connection: connection.exec_driver_sql(begin))
    engine.url = sa.engine.make_url("sqlite://").set(database=str(path))
    return engine


@contextmanager
def writing(url: str) -> Iterator[sa.Connection]:
    """A connection within one transaction, the ledger made or migrated first. Waits for other writers.

    Raises FoundryError for a ledger that cannot be opened, written or read, or that a later version has made.
    """
    path = sqlite_path(url)
    _refuse_empty(url, path)
    with _told(url):
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
        engine = _sqlite(path, write=True) if path is not None else postgres.engine_of(url, _variable(url))
        with engine.begin() as connection:
            migrate(connection)
            yield connection


@contextmanager
def reading(url: str) -> Iterator[sa.Connection | None]:
    """A connection that changes nothing, not even the layout of an old ledger; None where there is none yet.

    Raises FoundryError as `writing` does.
    """
    path = sqlite_path(url)
    _refuse_empty(url, path)
    if path is not None and (not path.is_file() or path.stat().st_size == 0):
        yield None
        return
    with _told(url):
        engine = _sqlite(path, write=False) if path is not None else postgres.engine_of(url, _variable(url))
        with engine.connect() as connection:
            if path is None:
                connection = connection.execution_options(postgresql_readonly=True)
            found_version(connection)
            yield connection


def _refuse_empty(url: str, path: Path | None) -> None:
    if path is not None and (not path.is_file() or path.stat().st_size == 0):
        copy = second_copy(url)
        if not copy:
            return
        wait_for_writers(url)  # the very first row stands in the copy before the file is more than a name
        if not path.is_file() or path.stat().st_size == 0:
            raise damaged(url, f"it is gone or empty, and its second copy {copy.path.name} is not")


def wait_for_writers(url: str) -> None:
    """Return when whoever writes a ledger that is a file has ended: a row is in the second copy before it is committed."""
    path = sqlite_path(url)
    if path is None:
        return
    with suppress(sqlite3.Error):  # what is wrong with the file is told by who reads it
        connection = sqlite3.connect(
            f"file:{quote(str(path.absolute()))}?mode=rw", uri=True, timeout=_WAIT_SECONDS, isolation_level=None
        )
        try:
            connection.execute("BEGIN IMMEDIATE")
            connection.execute("ROLLBACK")
        finally:
            connection.close()


@contextmanager
def _told(url: str) -> Iterator[None]:
    try:
        yield
    except sa.exc.IntegrityError:
        raise
    except sa.exc.DBAPIError as error:
        if not url.startswith(_SQLITE):
            raise postgres.unusable("score ledger", error, url, _variable(url)) from error
        said = " ".join(str(error.orig).split())
        if error.orig is not None and not unwritable(error.orig):
            raise damaged(url, said) from error
        mend = "free disk space, or make the file and its folder writable, and run the same command again"
        raise FoundryError(f"the score ledger cannot be used ({said})", where=shown(url), mend=mend) from error
    except OSError as error:
        raise FoundryError(
            f"the score ledger cannot be used ({error.strerror or error})",
            where=shown(url),
            mend="free disk space, or make its folder writable (or set FOUNDRY_LEDGER_URL to another place), and run the "
            "same command again",
        ) from error
