"""Batches in the ledger of money: what is on disk before, while and after a provider works on one."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass

from foundry_pipeline.lineage.database import transaction
from foundry_pipeline.models.money import claims
from foundry_pipeline.models.money.ledger import Ask, Book, now
from foundry_pipeline.models.money.processes import process_mark


@dataclass(frozen=True)
class OpenBatch:
    """A batch under way. `entries` maps a request's key to its row; `provider_id` is empty while nobody knows it."""

    batch: str
    provider_id: str
    created_at: str
    entries: dict[str, str]


class BatchBook:
    """The batches of one service. A batch is `creating`, then `created` (its id is known), then `collected` or `lost`."""

    def __init__(self, book: Book, *, service: str) -> None:
        self._book, self._ledger, self._service = book, book.ledger, service

    def prepare(self, asks: Sequence[Ask]) -> OpenBatch:
        """Write down that a batch is about to be made, with money reserved for as many requests as the caps allow.

        `entries` of the batch are those requests; their claims become the batch's. Raises BudgetReached where there is
        room for none.
        """
        batch, created = uuid.uuid4().hex, now()
        with self._ledger.connection() as connection, transaction(connection):
            connection.execute(
                "INSERT INTO batches (batch, service, state, requests, process, created_at) "
                "VALUES (?, ?, 'creating', 0, ?, ?)",
                [batch, self._service, process_mark(), created],
            )
            self._ledger.keep(connection, "batches", [batch])
        entries = self._book.reserve_many(asks, batch=batch)
        with self._ledger.connection() as connection:
            with transaction(connection):
                connection.execute("UPDATE batches SET requests = ? WHERE batch = ?", [len(entries), batch])
                self._ledger.keep(connection, "batches", [batch])
            if not entries:
                self._state(batch, "lost")
                raise self._book.reached(connection, asks[0].amount)
        return OpenBatch(batch, "", created, entries)

    def created(self, batch: OpenBatch, provider_id: str) -> None:
        """The provider's id is known: from now on the batch can be had again."""
        with self._ledger.connection() as connection, transaction(connection):
            connection.execute(
                "UPDATE batches SET state = 'created', provider_id = ? WHERE batch = ?", [provider_id, batch.batch]
            )
            self._ledger.keep(connection, "batches", [batch.batch])

    def collected(self, batch: OpenBatch) -> None:
        self._state(batch.batch, "collected")

    def lost(self, batch: OpenBatch, *, billed: bool) -> None:
        """The batch is given up; its open rows are uncertain, or nothing where it was never made."""
        for entry in batch.entries.values():
            if billed:
                self._book.doubt(entry, "its batch was lost")
            else:
                self._book.release(entry, "its batch was never made")
        self._state(batch.batch, "lost")

    def open(self) -> list[OpenBatch]:
        """Batches of this service that are not closed yet, oldest first; not one that a living process is making."""
        with self._ledger.connection() as connection:
            rows = connection.execute(
                "SELECT batch, provider_id, created_at, process FROM batches "
                "WHERE service = ? AND state IN ('creating', 'created') ORDER BY created_at",
                [self._service],
            ).fetchall()
            making = {row[0] for row in rows if not row[1] and claims.at_work(connection, row[3])}
        found = []
        for batch, provider_id, created_at, _ in rows:
            if batch not in making:
                entries = {r["request_hash"]: r["entry"] for r in self._ledger.rows("batch = ?", [batch])}
                found.append(OpenBatch(batch, provider_id, created_at, entries))
        return found

    def provider_ids(self) -> set[str]:
        """Every id that is known here, so that a batch is not taken for another."""
        with self._ledger.connection() as connection:
            return {row[0] for row in connection.execute("SELECT provider_id FROM batches WHERE provider_id != ''")}

    def _state(self, batch: str, state: str) -> None:
        with self._ledger.connection() as connection, transaction(connection):
            connection.execute("UPDATE batches SET state = ? WHERE batch = ?", [state, batch])
            claims.drop_batch(connection, batch)
            self._ledger.keep(connection, "batches", [batch])
