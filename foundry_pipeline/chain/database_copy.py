"""The files of one machine into the shared database: scores, collapses, answers, money. Nothing is taken from the files.

    copy(settings, say=print)
    → [{"what": "answers", "in_files": 225, "added": 225, "in_database": 225, "other": 0, "digest": "9f2c…"}, …]

May be repeated, also after it was cut off: what is there is left as it is, what is new is added. Every row is read back
and compared; `digest` is over the rows of the files as both sides hold them. A row that the database holds otherwise
(another machine asked the same request before) stays as it is there, and is counted in `other`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from foundry_pipeline.errors import FoundryError
from foundry_pipeline.lineage.database import transaction
from foundry_pipeline.lineage.hashing import digest
from foundry_pipeline.lineage.ledger import append_rows, read_rows
from foundry_pipeline.lineage.ledger_tables import COLLAPSES, SCORES
from foundry_pipeline.models.cache import ResponseCache
from foundry_pipeline.models.money.ledger import MoneyLedger
from foundry_pipeline.settings import DATABASE, Settings

_PAGE = 500
_ENTRY = (
    *("entry", "request_hash", "asset", "run", "provider", "model", "price_since", "batch", "state", "reserved"),
    *("cost", "note", "input_tokens", "output_tokens", "cache_write_tokens", "cache_read_tokens"),
    *("process", "reserved_at", "closed_at"),
)
_BATCH = ("batch", "service", "provider_id", "state", "requests", "process", "created_at")
# A row may have been closed in the file since it was copied while it was open.
_CLOSED = {"entries": "entries.state = 'reserved'", "batches": "batches.state IN ('creating', 'created')"}


def copy(settings: Settings, *, say: Callable[[str], None] = lambda text: None) -> list[dict[str, Any]]:
    """Copy every table; what was done. Raises FoundryError where the database cannot be used, where no database is set,
    and where something still works on the files."""
    if not settings.database:
        raise FoundryError(
            "there is no shared database to copy to",
            where=DATABASE,
            mend=f"export {DATABASE}=postgresql://user:password@host/database, then run the same command again",
        )
    done: list[dict[str, Any]] = []
    money = settings.store / "money.db"
    if money.is_file():
        _refuse_work(MoneyLedger(money), money)
    ledger = settings.store / "ledger.db"
    if ledger.is_file():
        for table in (SCORES, COLLAPSES):
            say(f"copying {table.name}")
            done.append(_ledger(f"sqlite:///{ledger}", settings.ledger_url, table))
    answers = settings.store / "responses.db"
    if answers.is_file():
        say("copying answers")
        done.append(_answers(ResponseCache(answers), ResponseCache(settings.responses_path), say))
    if money.is_file():
        say("copying money")
        for name, columns in (("entries", _ENTRY), ("batches", _BATCH)):
            done.append(_money(MoneyLedger(money), MoneyLedger(settings.money_path), name, columns))
    return done


def _refuse_work(ledger: MoneyLedger, path: Path) -> None:
    open_rows = ledger.rows("state = 'reserved' AND batch = ''")
    alive = {r["process"] for r in open_rows} - ledger.ended(open_rows)
    if alive:
        raise FoundryError(
            f"{len(alive)} process(es) are asking for answers and write into the files that are to be copied",
            where=str(path),
            mend="wait for them to end (or stop them), then run the same command again",
        )


def _ledger(source: str, target: str, table: Any) -> dict[str, Any]:
    key = next(iter(table.primary_key.columns)).name
    rows = read_rows(source, table, {})
    added = append_rows(target, table, rows)
    there = {r[key]: r for r in read_rows(target, table, {})}
    # The same inputs with another outcome are recorded beside the first, under an id of their own.
    beside = [{**r, key: digest({"score": r[key], "content": r.get("artifact_hash")})} for r in rows]
    same = [r for r, b in zip(rows, beside, strict=True) if there.get(r[key]) == r or there.get(b[key]) == b]
    return _told(table.name, rows, added, len(there), same)


def _answers(source: ResponseCache, target: ResponseCache, say: Callable[[str], None]) -> dict[str, Any]:
    rows, same, before, total, after = [], [], len(target), len(source), ""
    while part := source.some(_PAGE, after=after):
        target.put_group(part)
        found = target.find([r.request_hash for r in part])
        for reply in part:
            line = digest(asdict(reply))
            rows.append(line)
            if found.get(reply.request_hash) == reply:
                same.append(line)
        after = part[-1].request_hash
        say(f"  {len(rows)} of {total} answers")
    return _told("answers", rows, len(target) - before, len(target), same)


def _money(source: MoneyLedger, target: MoneyLedger, table: str, columns: Sequence[str]) -> dict[str, Any]:
    names, marks = ", ".join(columns), ", ".join("?" * len(columns))
    change = ", ".join(f"{c} = excluded.{c}" for c in columns[1:])
    rows = list(_read(source, table, columns))
    before = sum(1 for _ in _read(target, table, columns))
    with target.connection() as connection, transaction(connection, "EXCLUSIVE"):
        connection.executemany(
            f"INSERT INTO {table} ({names}) VALUES ({marks}) "
            f"ON CONFLICT ({columns[0]}) DO UPDATE SET {change} WHERE {_CLOSED[table]}",
            [[row[c] for c in columns] for row in rows],
        )
    there = {row[columns[0]]: row for row in _read(target, table, columns)}
    same = [row for row in rows if there.get(row[columns[0]]) == row]
    return _told(f"money: {table}", rows, len(there) - before, len(there), same)


def _read(ledger: MoneyLedger, table: str, columns: Sequence[str]) -> Iterator[Mapping[str, Any]]:
    with ledger.connection() as connection:
        for row in connection.execute(f"SELECT {', '.join(columns)} FROM {table} ORDER BY 1").fetchall():
            yield dict(zip(columns, row, strict=True))


def _told(what: str, rows: Sequence[Any], added: int, there: int, same: Sequence[Any]) -> dict[str, Any]:
    return {
        "what": what,
        "in_files": len(rows),
        "added": added,
        "in_database": there,
        "other": len(rows) - len(same),
        "digest": digest([dict(r) if isinstance(r, Mapping) else r for r in same]),
    }
