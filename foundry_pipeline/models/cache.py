"""The response cache: every answer, under the hash of its full request, from the moment it arrives.

A SQLite file in WAL mode, or a table of the shared PostgreSQL database (`lineage.database` says how a place names it):
several processes read and write it at once, and a kill leaves whole transactions only. Answers of a local group are
stored together in one transaction: a group is there whole or not at all. A remote answer is stored alone, with the tokens
and the money it took, before anything else is done with it. In a file every answer stands in a second copy as well
(`lineage/second_copy.py`): what is read is compared with it, and an answer that only the copy knows is taken from there
before anybody is asked again. An answer that the shared database does not take, since it cannot be reached, is kept in a
file beside (`UNSENT`) and carried over by whoever opens the cache next on this machine: it has been paid for.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from foundry_pipeline.errors import FoundryError
from foundry_pipeline.lineage.database import Connection, ddl, is_postgres, is_shared, open_database, transaction
from foundry_pipeline.lineage.sqlite_file import SqliteFile
from foundry_pipeline.models.requests import Reply

UNSENT = "responses.unsent.db"

_SCHEMA = """
CREATE TABLE IF NOT EXISTS replies (
    request_hash TEXT PRIMARY KEY,
    text TEXT NOT NULL,
    finish_reason TEXT NOT NULL,
    prompt_tokens INTEGER NOT NULL,
    completion_tokens INTEGER NOT NULL,
    seconds REAL,
    cache_read_tokens INTEGER NOT NULL DEFAULT 0,
    cache_write_tokens INTEGER NOT NULL DEFAULT 0,
    cost INTEGER
) WITHOUT ROWID
"""
_SINCE_2 = (
    "cache_read_tokens INTEGER NOT NULL DEFAULT 0",
    "cache_write_tokens INTEGER NOT NULL DEFAULT 0",
    "cost INTEGER",
)
_NAMES = (
    "request_hash",
    "text",
    "finish_reason",
    "prompt_tokens",
    "completion_tokens",
    "seconds",
    "cache_read_tokens",
    "cache_write_tokens",
    "cost",
)
_COLUMNS = ", ".join(_NAMES)
_VERSION = 2
_TABLE = "replies"
_MANY = 500  # SQLite takes 32,766 parameters in one statement, older builds 999
KEPT = {_TABLE: "request_hash"}


class ResponseCache:
    """Replies by request hash. Safe for several processes and threads: every call opens its own connection.

    A stored reply is never replaced: the first one stays, since others may have been built on it.
    Raises FoundryError where the file is not such a cache, was written by a newer version, or cannot be written.
    """

    def __init__(self, path: Path, *, copied: bool = True) -> None:
        self.restored = 0
        self._database = open_database(
            path,
            what="response cache",
            version=_VERSION,
            lay_out=_lay_out,
            lost="foundry repair responses   # sets it aside; every answer comes back from its second copy",
            kept=KEPT if copied else None,
        )
        self._file = self._database if copied and isinstance(self._database, SqliteFile) else None
        self._unsent = path.parent / UNSENT if is_shared(path) else None
        if self._unsent is not None and self._unsent.exists():
            self._carry_over(ResponseCache(self._unsent, copied=False))

    @property
    def where(self) -> str:
        """Where the replies are, as it may be shown."""
        return self._database.where

    def get(self, request_hash: str) -> Reply | None:
        """The reply stored under a hash, with an empty request_id, or None."""
        return self.find([request_hash]).get(request_hash)

    def put(self, reply: Reply) -> None:
        """Store one reply durably; returns when it is on disk."""
        self.put_group([reply])

    def get_group(self, request_hashes: Sequence[str]) -> list[Reply] | None:
        """The replies under these hashes, in their order, or None unless every one of them is there."""
        found = self.find(request_hashes)
        return [found[h] for h in request_hashes] if len(found) == len(set(request_hashes)) else None

    def put_group(self, replies: Sequence[Reply]) -> None:
        """Store replies in one transaction: after a kill at any moment all of them are there, or none."""
        try:
            self._insert(replies)
        except FoundryError as error:
            if self._unsent is None:
                raise
            ResponseCache(self._unsent, copied=False).put_group(replies)
            raise FoundryError(
                f"{error.what}; the answers that came meanwhile are kept in {self._unsent}",
                where=error.where,
                mend=f"{error.mend}. They are carried over by the next command on this machine",
            ) from error

    def _insert(self, replies: Sequence[Reply]) -> None:
        marks = ", ".join("?" * len(_NAMES))
        with self._database.connection() as connection, transaction(connection):
            kept = bytes_of if is_postgres(connection) else str
            # In one order everywhere: two that write the same group wait for each other, never both.
            given = sorted(replies, key=lambda r: r.request_hash)
            rows = [[r.request_hash, kept(r.text), *(getattr(r, name) for name in _NAMES[2:])] for r in given]
            # Not INSERT OR IGNORE: that would also pass over a row that breaks another rule, and leave a hole.
            insert = f"INSERT INTO {_TABLE} ({_COLUMNS}) VALUES ({marks}) ON CONFLICT (request_hash) DO NOTHING"
            new = [row[0] for row in rows if connection.execute(insert, row).rowcount]
            if self._file is not None:
                self._file.keep(connection, _TABLE, new)

    def _carry_over(self, beside: ResponseCache) -> None:
        """Take over what could not be stored when it came. Rows are deleted once they are here, whoever brought them."""
        while part := beside.some(_MANY):
            self._insert(part)
            beside.forget([r.request_hash for r in part])

    def some(self, count: int, *, after: str = "") -> list[Reply]:
        """Replies in the order of their hashes, from behind one of them on."""
        query = f"SELECT {_COLUMNS} FROM replies WHERE request_hash > ? ORDER BY request_hash LIMIT ?"
        with self._database.connection() as connection:
            return [_reply(row) for row in connection.execute(query, [after, count]).fetchall()]

    def forget(self, hashes: Sequence[str]) -> None:
        """Delete replies that are stored elsewhere by now."""
        with self._database.connection() as connection, transaction(connection):
            connection.executemany("DELETE FROM replies WHERE request_hash = ?", [[h] for h in hashes])

    def __len__(self) -> int:
        with self._database.connection() as connection:
            return int(connection.execute("SELECT count(*) FROM replies").fetchone()[0])

    def find(self, hashes: Sequence[str]) -> dict[str, Reply]:
        """The replies that are stored under any of these hashes, with empty request_ids."""
        found: dict[str, Reply] = {}
        with self._database.connection() as connection, transaction(connection, "DEFERRED"):
            for start in range(0, len(hashes), _MANY):
                part = hashes[start : start + _MANY]
                marks = ", ".join("?" * len(part))
                query = f"SELECT {_COLUMNS} FROM {_TABLE} WHERE request_hash IN ({marks})"
                rows = connection.execute(query, list(part)).fetchall()
                if self._file is not None:
                    self._file.believed(_TABLE, [dict(zip(_NAMES, row, strict=True)) for row in rows])
                for row in rows:
                    found[row[0]] = _reply(row)
        if self._file is not None and (missing := [h for h in hashes if h not in found]):
            found |= self._from_copy(self._file, missing)
        return found

    def _from_copy(self, file: SqliteFile, hashes: Sequence[str]) -> dict[str, Reply]:
        """Answers that the second copy alone knows, put back: their writer was killed, or the file has lost them."""
        rows = [row for h in hashes if (row := file.copy.row(_TABLE, h)) is not None]
        found = [_reply([row[name] for name in _NAMES]) for row in rows]
        if found:
            self._insert(found)
            self.restored += len(found)
            print(f"{len(found)} stored answers were put back from {file.copy.path.name}", file=sys.stderr)
        return {reply.request_hash: reply for reply in found}


def bytes_of(text: str) -> bytes:
    """PostgreSQL's text holds no zero character, and a model's answer may: there it is kept as bytes of UTF-8."""
    return text.encode("utf-8")


def _reply(row: Sequence[Any]) -> Reply:
    key, text, *rest = row
    return Reply("", key, text if isinstance(text, str) else bytes(text).decode("utf-8"), *rest)


def _lay_out(connection: Connection) -> None:
    if is_postgres(connection):
        for statement in ddl(connection, _SCHEMA.replace("text TEXT", "text BYTEA")):
            connection.execute(statement)
        return
    connection.execute(_SCHEMA)
    held = {row[1] for row in connection.execute("PRAGMA table_info(replies)")}
    for column in _SINCE_2:
        if column.split()[0] not in held:
            connection.execute(f"ALTER TABLE replies ADD COLUMN {column}")


def renamed(replies: Sequence[Reply], request_ids: Sequence[str]) -> list[Reply]:
    """Replies from the cache under the names by which they were asked for."""
    return [replace(reply, request_id=name) for reply, name in zip(replies, request_ids, strict=True)]
