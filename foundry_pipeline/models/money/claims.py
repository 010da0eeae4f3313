"""Claims: of all processes and machines that want the answer to one request, one asks, the others wait for it.

    claims = Claims(ledger)
    claims.take([key], seconds=300)    → [] where it is ours now; [Holder(…)] where another asks
    claims.renew(connection, key, …)   before each attempt, in the transaction that reserves its money; False: it is lost
    claims.drop([key])                 answered, or given up

A claim is dropped after its answer is stored, so that whoever takes it then finds the answer. One whose process has
ended lapses: at once where it ended on this machine; elsewhere when it has not been heard of for LEASE_SECONDS and the
time within which its last request had to end is over, since until then that request may still be answered and paid for.
Times are the database's (PostgreSQL), or those of the one machine that a SQLite file is on, since it was started: no
clock that somebody sets bears on them. A claim for a batch lasts as long as the batch, whoever collects it.
"""

from __future__ import annotations

import contextlib
import threading
import time
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from foundry_pipeline.errors import FoundryError
from foundry_pipeline.lineage.database import Connection, is_postgres, transaction
from foundry_pipeline.models.money.processes import boot_of, process_mark, still_at_work, this_boot

if TYPE_CHECKING:
    from foundry_pipeline.models.money.ledger import MoneyLedger

LEASE_SECONDS, BEAT_SECONDS = 60.0, 10.0
_FORGOTTEN_SECONDS = 7 * 86400.0
_MANY = 500
SCHEMA = """
CREATE TABLE IF NOT EXISTS workers (process TEXT PRIMARY KEY, seen REAL NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS claims (
    request_hash TEXT PRIMARY KEY, owner TEXT NOT NULL, process TEXT NOT NULL, batch TEXT NOT NULL DEFAULT '',
    until REAL NOT NULL
) WITHOUT ROWID;
"""


@dataclass(frozen=True)
class Holder:
    """Who asks for a request: its process, and the batch that the request is in."""

    request_hash: str
    process: str
    batch: str
    at_work: bool


class Elsewhere(Exception):
    """Another process asks for this request; its answer is to be waited for."""

    def __init__(self, holder: Holder | None) -> None:
        self.holder = holder
        super().__init__("asked by another process")


class Claims:
    """The claims of one job. Safe for threads; two jobs of one process do not share theirs."""

    def __init__(self, ledger: MoneyLedger) -> None:
        self._ledger, self._process = ledger, process_mark()
        self._owner = f"{self._process}#{uuid.uuid4().hex[:12]}"
        self._taken: set[str] = set()

    def take(self, keys: Sequence[str], *, seconds: float) -> list[Holder]:
        """Claim requests; those that stay with others. `seconds`: how long an attempt may take that is paid for."""
        held: list[Holder] = []
        with self._ledger.connection() as connection, _soon(connection):
            now = beat(connection, self._process)
            for at in range(0, len(keys), _MANY):
                part = sorted(keys[at : at + _MANY])
                rows = [[k, self._owner, self._process, now + seconds] for k in part]
                connection.executemany(
                    "INSERT INTO claims (request_hash, owner, process, until) VALUES (?, ?, ?, ?) "
                    "ON CONFLICT (request_hash) DO NOTHING",
                    rows,
                )
                for holder, lapsed in self._holders(connection, part, now):
                    if not lapsed:
                        held.append(holder)
                        continue
                    # The condition on the holder: of several that see it lapse one takes it over.
                    took = connection.execute(
                        "UPDATE claims SET owner = ?, process = ?, batch = '', until = ? "
                        "WHERE request_hash = ? AND process = ?",
                        [self._owner, self._process, now + seconds, holder.request_hash, holder.process],
                    )
                    if took.rowcount != 1:
                        held.append(holder)
        away = {holder.request_hash for holder in held}
        self._taken.update(k for k in keys if k not in away)
        return held

    def holds(self, key: str) -> bool:
        return key in self._taken

    def renew(self, connection: Connection, key: str, *, seconds: float, batch: str = "") -> bool:
        """Keep a claim for another attempt, or hand it to a batch; False where it is another's by now.

        Within the caller's transaction.
        """
        now = beat(connection, self._process)
        done = connection.execute(
            "UPDATE claims SET until = ?, batch = ? WHERE request_hash = ? AND owner = ?",
            [now + seconds, batch, key, self._owner],
        )
        return bool(done.rowcount == 1)

    def still(self, connection: Connection, key: str) -> bool:
        """Whether a claim is still this job's."""
        query = "SELECT 1 FROM claims WHERE request_hash = ? AND owner = ?"
        return connection.execute(query, [key, self._owner]).fetchone() is not None

    def drop(self, keys: Sequence[str]) -> None:
        """Give claims up; a key that is not ours, or is with a batch, stays as it is."""
        with self._ledger.connection() as connection, _soon(connection):
            connection.executemany(
                "DELETE FROM claims WHERE request_hash = ? AND owner = ? AND batch = ''",
                [[k, self._owner] for k in sorted(keys)],
            )
        self._taken.difference_update(keys)

    def drop_all(self) -> None:
        if self._taken:
            self.drop(list(self._taken))

    def held(self, keys: Sequence[str]) -> list[Holder]:
        """Who holds these requests now: claims of others that have not lapsed."""
        found: list[Holder] = []
        with self._ledger.connection() as connection:
            now = clock(connection)
            for at in range(0, len(keys), _MANY):
                part = keys[at : at + _MANY]
                found += [holder for holder, lapsed in self._holders(connection, part, now) if not lapsed]
        return found

    def _holders(self, connection: Connection, keys: Sequence[str], now: float) -> Iterator[tuple[Holder, bool]]:
        marks = ", ".join("?" * len(keys))
        rows = connection.execute(
            "SELECT c.request_hash, c.process, c.batch, c.until, w.seen FROM claims c "
            f"LEFT JOIN workers w ON w.process = c.process WHERE c.request_hash IN ({marks}) AND c.owner != ? "
            "ORDER BY c.request_hash",
            [*keys, self._owner],
        ).fetchall()
        for key, process, batch, until, seen in rows:
            known = here(connection, process)
            at_work = known if known is not None else seen is not None and seen + LEASE_SECONDS >= now
            ended = known is False or (not at_work and until < now)
            yield Holder(key, process, batch, at_work), ended and not batch

    @contextlib.contextmanager
    def kept(self) -> Iterator[None]:
        """Be heard of as long as the block lasts; afterwards nothing is claimed any more."""
        stop = threading.Event()

        def go_on() -> None:
            while not stop.wait(BEAT_SECONDS):
                # A database that is away is told by whoever needs an answer from it.
                with contextlib.suppress(FoundryError), self._ledger.connection() as connection, _soon(connection):
                    beat(connection, self._process)

        with self._ledger.connection() as connection, _soon(connection):
            now = beat(connection, self._process)
            connection.execute("DELETE FROM workers WHERE seen < ?", [now - _FORGOTTEN_SECONDS])
        threading.Thread(target=go_on, name="heartbeat", daemon=True).start()
        try:
            yield
        finally:
            stop.set()
            # What stays claimed where the database is away lapses with this process.
            with contextlib.suppress(FoundryError):
                self.drop_all()


def drop_batch(connection: Connection, batch: str) -> None:
    """Its claims end with a batch."""
    connection.execute("DELETE FROM claims WHERE batch = ?", [batch])


def at_work(connection: Connection, mark: str) -> bool:
    """Whether the process of a mark may still be at work."""
    known = here(connection, mark)
    if known is not None:
        return known
    row = connection.execute("SELECT seen FROM workers WHERE process = ?", [mark]).fetchone()
    return row is not None and float(row[0]) + LEASE_SECONDS >= clock(connection)


def here(connection: Connection, mark: str) -> bool | None:
    """What this machine knows of a process: at work, ended, or nothing (None)."""
    known = still_at_work(mark)
    if known is None and not is_postgres(connection) and boot_of(mark) not in ("", this_boot()):
        # All who use a SQLite file at once do so under one kernel: this one was stopped since.
        return False
    return known


def clock(connection: Connection) -> float:
    """Seconds on the clock that claims go by."""
    if is_postgres(connection):
        return float(connection.execute("SELECT extract(epoch FROM clock_timestamp())").fetchone()[0])
    return time.monotonic()


def beat(connection: Connection, mark: str) -> float:
    """Be heard of now; the time on the claims' clock."""
    time_of, values = (
        ("extract(epoch FROM clock_timestamp())", [mark])
        if is_postgres(connection)
        else ("?", [mark, time.monotonic()])
    )
    row = connection.execute(
        f"INSERT INTO workers VALUES (?, {time_of}) ON CONFLICT (process) DO UPDATE SET seen = excluded.seen "
        "RETURNING seen",
        values,
    ).fetchall()[0]
    return float(row[0])


@contextlib.contextmanager
def _soon(connection: Any) -> Iterator[None]:
    """A transaction that need not survive a power cut: neither do the processes whose claims it is about."""
    if is_postgres(connection):
        with transaction(connection):
            connection.execute("SET LOCAL synchronous_commit = off")
            yield
        return
    connection.execute("PRAGMA synchronous=NORMAL")
    with transaction(connection):
        yield
