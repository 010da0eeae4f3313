"""The response cache: every answer, under the hash of its full request, from the moment it arrives.

A SQLite file in WAL mode, so that several processes read and write it at once and a kill leaves whole transactions
only. Answers of a local group are stored together in one transaction: a group is there whole or not at all. A remote
answer is stored alone, with the tokens and the money it took, before anything else is done with it.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from foundry_pipeline.lineage.sqlite_file import SqliteFile, transaction
from foundry_pipeline.models.requests import Reply

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
_MANY = 500  # SQLite takes 32,766 parameters in one statement, older builds 999


class ResponseCache:
    """Replies by request hash. Safe for several processes and threads: every call opens its own connection.

    A stored reply is never replaced: the first one stays, since others may have been built on it.
    Raises FoundryError where the file is not such a cache, was written by a newer version, or cannot be written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = SqliteFile(
            path,
            what="response cache",
            version=_VERSION,
            lay_out=_lay_out,
            lost=f"mv {path} {path}.damaged   # answers will be generated again",
        )

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
        rows = [[getattr(r, name) for name in _NAMES] for r in replies]
        marks = ", ".join("?" * len(_NAMES))
        with self._file.connection() as connection, transaction(connection):
            # Not INSERT OR IGNORE: that would also pass over a row that breaks another rule, and leave a hole.
            connection.executemany(
                f"INSERT INTO replies ({_COLUMNS}) VALUES ({marks}) ON CONFLICT (request_hash) DO NOTHING",
                rows,
            )

    def __len__(self) -> int:
        with self._file.connection() as connection:
            return int(connection.execute("SELECT count(*) FROM replies").fetchone()[0])

    def find(self, hashes: Sequence[str]) -> dict[str, Reply]:
        """The replies that are stored under any of these hashes, with empty request_ids."""
        found: dict[str, Reply] = {}
        with self._file.connection() as connection, transaction(connection, "DEFERRED"):
            for start in range(0, len(hashes), _MANY):
                part = hashes[start : start + _MANY]
                marks = ", ".join("?" * len(part))
                query = f"SELECT {_COLUMNS} FROM replies WHERE request_hash IN ({marks})"
                for row in connection.execute(query, list(part)):
                    found[row[0]] = Reply("", *row)
        return found


def _lay_out(connection: sqlite3.Connection) -> None:
    connection.execute(_SCHEMA)
    held = {row[1] for row in connection.execute("PRAGMA table_info(replies)")}
    for column in _SINCE_2:
        if column.split()[0] not in held:
            connection.execute(f"ALTER TABLE replies ADD COLUMN {column}")


def renamed(replies: Sequence[Reply], request_ids: Sequence[str]) -> list[Reply]:
    """Replies from the cache under the names by which they were asked for."""
    return [replace(reply, request_id=name) for reply, name in zip(replies, request_ids, strict=True)]
