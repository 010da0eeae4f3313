"""Dagster's SQLite storage with its files held open, and one flush of the disk for many events instead of several for each.

Dagster opens and closes a database for every event and every question. Whoever closes a database last has SQLite write
its log (WAL) into the file, flush both, and delete the log, only to begin another with the next event: a step without
any work took a third of a second, and a run of 24 steps with 72 checks 20 s of waiting for the disk. Here an engine keeps
one connection to a file; Dagster's own locks still let one thread at a time use it.

A commit does not flush the disk either (`synchronous = NORMAL`, https://www.sqlite.org/pragma.html#pragma_synchronous):
what a killed process has committed is kept, and after a power cut the files are whole and may lack the last events.
That is history; what was built, paid and judged is kept by stores of their own, which do flush.
"""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from dagster import EventLogEntry
from dagster._core.storage.event_log.sqlite.sqlite_event_log import INDEX_SHARD_NAME, SqliteEventLogStorage
from dagster._core.storage.runs import SqliteRunStorage
from dagster._core.storage.schedules import SqliteScheduleStorage
from dagster._core.storage.sqlite import SQLITE_BUSY_TIMEOUT_SECONDS
from dagster._core.storage.sqlite_storage import (
    DagsterSqliteStorage,
    _event_logs_directory,
    _runs_directory,
    _schedule_directory,
)
from dagster._serdes import ConfigurableClassData
from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.pool import QueuePool

_RUNS = 4  # files of single runs that are held; a web server reads hundreds of them


def held_engine(url: str) -> Engine:
    """An engine that keeps one connection to a SQLite file, for whichever thread asks next."""
    engine = create_engine(
        url,
        poolclass=QueuePool,
        pool_size=1,
        max_overflow=-1,
        connect_args={"timeout": SQLITE_BUSY_TIMEOUT_SECONDS, "check_same_thread": False},
    )

    @event.listens_for(engine, "connect")
    def _(connection: Any, _record: Any) -> None:
        connection.execute("PRAGMA synchronous = NORMAL")

    return engine


class HeldEvents(SqliteEventLogStorage):
    """Dagster's event log: a file for each run and an index of them all."""

    def __init__(self, base_dir: str) -> None:
        self._engines: OrderedDict[str, Engine] = OrderedDict()
        super().__init__(base_dir)

    @contextmanager
    def _connect(self, shard: str) -> Iterator[Connection]:
        with self._db_lock:
            engine = self._held(shard)
            if shard not in self._initialized_dbs:
                self._initdb(engine)
                self._initialized_dbs.add(shard)
            with engine.connect() as connection, connection.begin():
                yield connection

    def store_event(self, event: EventLogEntry) -> None:
        super().store_event(event)
        # The web server is told of a run's events by a change of its file; they stand in the log beside it at first.
        with suppress(FileNotFoundError):
            os.utime(self.path_for_shard(event.run_id))

    def _held(self, shard: str) -> Engine:
        if shard not in self._engines:
            self._engines[shard] = held_engine(self.conn_string_for_shard(shard))
        self._engines.move_to_end(shard)
        runs = [name for name in self._engines if name != INDEX_SHARD_NAME]
        for oldest in runs[:-_RUNS]:
            self._engines.pop(oldest).dispose()
        return self._engines[shard]

    def _release(self) -> None:
        with self._db_lock:
            while self._engines:
                self._engines.popitem()[1].dispose()

    def wipe(self) -> None:
        self._release()
        super().wipe()

    def dispose(self) -> None:
        self._release()
        super().dispose()


class HeldRuns(SqliteRunStorage):
    """Dagster's table of runs."""

    _engine: Engine | None = None

    @contextmanager
    def connect(self) -> Iterator[Connection]:
        if self._engine is None:
            self._engine = held_engine(self._conn_string)
        with self._engine.connect() as connection, connection.begin():
            yield connection

    def dispose(self) -> None:
        if self._engine is not None:
            self._engine.dispose()
        super().dispose()


class HeldSqliteStorage(DagsterSqliteStorage):
    """Both of them, in the folders where Dagster has them, with its schedules as they are."""

    def __init__(self, base_dir: str, inst_data: ConfigurableClassData | None = None) -> None:
        self.base_dir = base_dir
        self._run_storage = HeldRuns.from_local(_runs_directory(base_dir))
        self._event_log_storage = HeldEvents(_event_logs_directory(base_dir))
        self._schedule_storage = SqliteScheduleStorage.from_local(_schedule_directory(base_dir))
        self._inst_data = inst_data
        super(DagsterSqliteStorage, self).__init__()  # the one between would open the files a second time
