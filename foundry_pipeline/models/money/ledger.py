"""The ledger of money: what each request may cost is reserved before it is sent, and settled from its usage.

    ledger = MoneyLedger(store / "money.db")
    book = ledger.book(asset="madison_teacher_responses", run="3f2a…", caps=Caps(project=…, run=…))
    entry = book.reserve(request_hash, amount=…, model="claude-sonnet-5-5", …)    # raises BudgetReached
    book.settle(entry, cost=…, usage=…)      # answered: this is what it cost
    book.release(entry)                      # the provider refused it: nothing was billed
    book.doubt(entry, "timeout")             # it may have been billed, and nobody can know

One row for each attempt that was sent. A row is `reserved` while its request is under way, then `settled` (at its cost),
`released` (at nothing) or `uncertain`: sent, and never heard of again, as after a kill or a lost connection. An
uncertain row counts at its full reservation until `foundry costs --release-uncertain` says otherwise: a budget that is
hard must not assume that money was not spent. Reserving is one exclusive transaction over all processes, threads
and machines, so that what is spent and reserved together never exceeds a cap. Which process asks for a request is a matter
of `claims`. In a file every change of a row stands in a second copy as well (`lineage/second_copy.py`), and nothing is
spent before the two have been compared.
"""

from __future__ import annotations

import datetime as dt
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from foundry_pipeline.errors import FoundryError
from foundry_pipeline.lineage.database import Connection, ddl, open_database, transaction
from foundry_pipeline.lineage.second_copy import Row
from foundry_pipeline.lineage.sqlite_file import SqliteFile
from foundry_pipeline.models.money import claims
from foundry_pipeline.models.money.prices import Usage, short_usd
from foundry_pipeline.models.money.processes import process_mark

State = Literal["reserved", "settled", "released", "uncertain"]
_SCHEMA = """
CREATE TABLE IF NOT EXISTS entries (
    entry TEXT PRIMARY KEY, request_hash TEXT NOT NULL, asset TEXT NOT NULL, run TEXT NOT NULL,
    provider TEXT NOT NULL, model TEXT NOT NULL, price_since TEXT NOT NULL, batch TEXT NOT NULL DEFAULT '',
    state TEXT NOT NULL CHECK (state IN ('reserved', 'settled', 'released', 'uncertain')),
    reserved INTEGER NOT NULL CHECK (reserved >= 0), cost INTEGER CHECK (cost >= 0), note TEXT NOT NULL DEFAULT '',
    input_tokens INTEGER NOT NULL DEFAULT 0, output_tokens INTEGER NOT NULL DEFAULT 0,
    cache_write_tokens INTEGER NOT NULL DEFAULT 0, cache_read_tokens INTEGER NOT NULL DEFAULT 0,
    process TEXT NOT NULL, reserved_at TEXT NOT NULL, closed_at TEXT
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS entries_by_run ON entries (run, state);
CREATE INDEX IF NOT EXISTS entries_by_request ON entries (request_hash, state);
CREATE TABLE IF NOT EXISTS batches (
    batch TEXT PRIMARY KEY, service TEXT NOT NULL, provider_id TEXT NOT NULL DEFAULT '',
    state TEXT NOT NULL CHECK (state IN ('creating', 'created', 'collected', 'lost')), requests INTEGER NOT NULL,
    process TEXT NOT NULL, created_at TEXT NOT NULL
) WITHOUT ROWID;
"""
_VERSION = 2
KEPT = {"entries": "entry", "batches": "batch"}
# How far a row has come: it never goes back.
_RANK = {
    "reserved": 0,
    "uncertain": 1,
    "settled": 2,
    "released": 2,
    "creating": 0,
    "created": 1,
    "collected": 2,
    "lost": 2,
}
# What counts against a budget: the cost where it is known, else what was set aside for it.
_COUNTED = "CASE state WHEN 'settled' THEN cost WHEN 'released' THEN 0 ELSE reserved END"


@dataclass(frozen=True)
class Caps:
    """What may be spent, in picodollars: by the project in this store ever, and by one run."""

    project: int
    run: int


@dataclass(frozen=True)
class Totals:
    """Picodollars by state. What counts against a budget is `spent + reserved + uncertain`."""

    spent: int = 0
    reserved: int = 0
    uncertain: int = 0

    @property
    def counted(self) -> int:
        return self.spent + self.reserved + self.uncertain


class BudgetReached(FoundryError):
    """The next request could go beyond a cap, so it was not sent."""


def now() -> str:
    return dt.datetime.now(dt.UTC).isoformat(timespec="milliseconds")


class MoneyLedger:
    """Rows of money in one SQLite file, or in the shared database (`lineage.database` says how a place names it).

    Shared by processes and threads. Raises FoundryError where it cannot be used.
    """

    def __init__(self, path: Path) -> None:
        self._database = open_database(
            path,
            what="ledger of money",
            version=_VERSION,
            lay_out=_lay_out,
            lost="foundry repair money   # sets it aside; every row comes back from its second copy",
            kept=KEPT,
        )
        self._file = self._database if isinstance(self._database, SqliteFile) else None
        self.connection = self._database.connection

    @property
    def where(self) -> str:
        """Where the ledger is, as it may be shown."""
        return self._database.where

    def book(self, *, asset: str, run: str, caps: Caps) -> Book:
        """The ledger for one job. Raises FoundryError where a row is not what was written down of it."""
        self.compare()
        return Book(self, asset=asset, run=run, caps=caps)

    def keep(self, connection: Connection, table: str, keys: Sequence[str]) -> None:
        """Write changed rows to the second copy, within the transaction that changes them."""
        if self._file is not None:
            self._file.keep(connection, table, keys)

    def compare(self) -> int:
        """Compare every row with its second copy; how many rows that only the copy knew were put back.

        Those are changes that a kill kept from being committed, or that the file has lost. Raises FoundryError for a row
        that was edited.
        """
        put_back, file = 0, self._file
        if file is None:
            return 0
        with self.connection() as connection, transaction(connection):
            for table, key in KEPT.items():
                held = {str(row[key]): row for row in file.rows(connection, table)}
                written = file.copy.rows(table)
                lost, bare = written.keys() - held.keys(), held.keys() - written.keys()
                if "None" in bare or (lost and bare):
                    raise file.damaged(f"a row of {table} stands under a key that nobody wrote")
                self.keep(connection, table, sorted(bare))
                for name, row in written.items():
                    there = held.get(name)
                    if there == row:
                        continue
                    if there is not None and come(there) >= come(row):
                        # A copy that has lost its last lines is behind; any other difference is an edited row.
                        if come(there) == come(row):
                            raise file.damaged(f"row {name[:16]} of {table} is not what was written")
                        continue
                    columns = ", ".join(row)
                    marks = ", ".join("?" * len(row))
                    connection.execute(f"INSERT OR REPLACE INTO {table} ({columns}) VALUES ({marks})", [*row.values()])
                    put_back += 1
        return put_back

    def totals(self, *, run: str | None = None, asset: str | None = None) -> Totals:
        """Sums over all rows, or over those of a run or an asset."""
        with self.connection() as connection:
            return _totals(connection, run=run, asset=asset)

    def rows(self, where: str = "1 = 1", values: Sequence[Any] = ()) -> list[dict[str, Any]]:
        """Rows as dictionaries, oldest first."""
        with self.connection() as connection:
            found = connection.execute(f"SELECT * FROM entries WHERE {where} ORDER BY reserved_at, entry", list(values))
            names = [column[0] for column in found.description]
            return [dict(zip(names, row, strict=True)) for row in found.fetchall()]

    def ended(self, rows: Sequence[dict[str, Any]]) -> set[str]:
        """Those of the rows' processes that are not at work any more."""
        with self.connection() as connection:
            return {mark for mark in {r["process"] for r in rows} if not claims.at_work(connection, mark)}

    def release_uncertain(self) -> Totals:
        """Count every uncertain row at nothing; what they stood for."""
        with self.connection() as connection, transaction(connection, "EXCLUSIVE"):
            before = _totals(connection)
            freed = connection.execute(
                "UPDATE entries SET state = 'released', closed_at = ?, note = note || ' (released by hand)' "
                "WHERE state = 'uncertain' RETURNING entry",
                [now()],
            ).fetchall()
            self.keep(connection, "entries", [row[0] for row in freed])
        return before


def come(row: Row) -> tuple[int, int]:
    """How far a row has come; an edited state, which no row ever had, has come nowhere."""
    return _RANK.get(str(row["state"]), -1), int(row.get("requests") or 0)


def _lay_out(connection: Connection) -> None:
    for statement in ddl(connection, _SCHEMA + claims.SCHEMA):
        connection.execute(statement)


def _totals(connection: Connection, *, run: str | None = None, asset: str | None = None) -> Totals:
    query = f"SELECT state, CAST(SUM({_COUNTED}) AS BIGINT) FROM entries"
    given = {name: value for name, value in (("run", run), ("asset", asset)) if value is not None}
    if given:
        query += " WHERE " + " AND ".join(f"{name} = ?" for name in given)
    sums = dict(connection.execute(f"{query} GROUP BY state", list(given.values())).fetchall())
    return Totals(sums.get("settled", 0), sums.get("reserved", 0), sums.get("uncertain", 0))


@dataclass(frozen=True)
class Ask:
    """What is about to be sent: whose answer, of which model, and the most it can cost (picodollars).

    `seconds`: how long the attempt may take, for the claim on the request.
    """

    request_hash: str
    amount: int
    provider: str
    model: str
    price_since: str
    seconds: float = 0.0


class Book:
    """The ledger as one job uses it: rows of one asset in one run, under its caps. Safe for threads."""

    def __init__(self, ledger: MoneyLedger, *, asset: str, run: str, caps: Caps) -> None:
        self.ledger, self.asset, self.run, self.caps = ledger, asset, run, caps
        self._process = process_mark()
        self.claims = claims.Claims(ledger)

    def reserve(self, ask: Ask) -> str:
        """Set the most that a request can cost aside; the row's id.

        Raises BudgetReached where a cap forbids it, and Elsewhere where this book's claim on the request has gone to
        another process.
        """
        entries = self.reserve_many([ask])
        if not entries:
            with self.ledger.connection() as connection:
                if self.claims.holds(ask.request_hash) and not self.claims.still(connection, ask.request_hash):
                    raise claims.Elsewhere(None)
                raise self.reached(connection, ask.amount)
        return entries[ask.request_hash]

    def reserve_many(self, asks: Sequence[Ask], *, batch: str = "") -> dict[str, str]:
        """Reserve for as many of the requests, in their order, as the caps leave room for, in one transaction.

        Rows by request. One whose claim has gone to another process has none.
        """
        entries: dict[str, str] = {}
        with self.ledger.connection() as connection, transaction(connection, "EXCLUSIVE"):
            room = self._room(connection)
            for ask in asks:
                # A free server fits into any budget, also into one that has been used up.
                if ask.amount > room and ask.amount > 0:
                    break
                if self.claims.holds(ask.request_hash) and not self.claims.renew(
                    connection, ask.request_hash, seconds=ask.seconds, batch=batch
                ):
                    continue
                room -= ask.amount
                entries[ask.request_hash] = uuid.uuid4().hex
                connection.execute(
                    "INSERT INTO entries (entry, request_hash, asset, run, provider, model, price_since, batch, state, "
                    "reserved, process, reserved_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, 'reserved', ?, ?, ?)",
                    [
                        entries[ask.request_hash],
                        ask.request_hash,
                        self.asset,
                        self.run,
                        ask.provider,
                        ask.model,
                        ask.price_since,
                        batch,
                        ask.amount,
                        self._process,
                        now(),
                    ],
                )
            self.ledger.keep(connection, "entries", [*entries.values()])
        return entries

    def _room(self, connection: Connection) -> int:
        """What the caps leave, by one reading of all rows."""
        project, run = connection.execute(
            f"SELECT CAST(COALESCE(SUM({_COUNTED}), 0) AS BIGINT), "
            f"CAST(COALESCE(SUM(CASE WHEN run = ? THEN {_COUNTED} ELSE 0 END), 0) AS BIGINT) FROM entries",
            [self.run],
        ).fetchone()
        return min(self.caps.project - int(project), self.caps.run - int(run))

    def settle(self, entry: str, *, cost: int | None, usage: Usage | None, note: str = "") -> None:
        """Close a row at its cost; without one (the provider told no usage) at what was reserved, with a note."""
        tokens = usage or Usage(0, 0)
        with self.ledger.connection() as connection, transaction(connection):
            connection.execute(
                "UPDATE entries SET state = 'settled', cost = coalesce(?, reserved), note = ?, closed_at = ?, "
                "input_tokens = ?, output_tokens = ?, cache_write_tokens = ?, cache_read_tokens = ? "
                "WHERE entry = ? AND state IN ('reserved', 'uncertain')",
                [cost, note, now(), tokens.input, tokens.output, tokens.cache_write, tokens.cache_read, entry],
            )
            self.ledger.keep(connection, "entries", [entry])

    def release(self, entry: str, note: str = "") -> None:
        self._close(entry, "released", note)

    def doubt(self, entry: str, note: str) -> None:
        self._close(entry, "uncertain", note)

    def _close(self, entry: str, state: State, note: str) -> None:
        with self.ledger.connection() as connection, transaction(connection):
            connection.execute(
                "UPDATE entries SET state = ?, note = ?, closed_at = ? WHERE entry = ? AND state = 'reserved'",
                [state, note, now(), entry],
            )
            self.ledger.keep(connection, "entries", [entry])

    def reached(self, connection: Connection, amount: int) -> BudgetReached:
        """The error that tells which cap stands in the way of `amount`, what is spent, and how to go on."""
        project, run = _totals(connection), _totals(connection, run=self.run)
        if self.caps.run - run.counted < amount:
            name, totals, cap = "run", run, self.caps.run
        else:
            name, totals, cap = "project", project, self.caps.project
        field = "run_usd" if name == "run" else "project_usd"
        doubt = (
            f", uncertain {short_usd(totals.uncertain)} (`foundry costs` shows it, --release-uncertain frees it)"
            if totals.uncertain
            else ""
        )
        return BudgetReached(
            f"the {name}'s budget is reached: spent {short_usd(totals.spent)} USD, reserved "
            f"{short_usd(totals.reserved)}{doubt}, cap {short_usd(cap)}; the next request may cost up to "
            f"{short_usd(amount)}. Every answer that arrived is stored and paid for",
            where=self.ledger.where,
            mend=f"raise `budget: {{{field}: …}}` in the profile (or FOUNDRY_BUDGET_USD, which only lowers it), then run "
            "the same command again: it goes on with what is still unanswered",
        )


def reconcile(ledger: MoneyLedger, paid: Callable[[str], tuple[int | None, Usage] | None]) -> int:
    """Close the rows that killed processes left open; how many are uncertain now.

    `paid(request_hash)` gives (cost, usage) of a stored answer, or None: an answer that was stored just before the kill
    is settled at its cost, any other row may have been billed and becomes uncertain. Rows of a batch stay: it is
    resumed by its id.
    """
    left = 0
    open_rows = ledger.rows("state = 'reserved' AND batch = ''")
    ended = ledger.ended(open_rows) if open_rows else set()
    for row in open_rows:
        if row["process"] not in ended:
            continue
        book = Book(ledger, asset=row["asset"], run=row["run"], caps=Caps(0, 0))
        # An answer pays for one attempt: where it has been settled already, this row was another one.
        answered = ledger.rows("request_hash = ? AND state = 'settled'", [row["request_hash"]])
        known = None if answered else paid(row["request_hash"])
        if known is None:
            book.doubt(row["entry"], "its process was killed")
            left += 1
        else:
            cost, usage = known
            book.settle(row["entry"], cost=cost, usage=usage, note="settled from the stored answer after a kill")
    return left
