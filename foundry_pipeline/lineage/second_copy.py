"""A second copy of rows that cannot be made again: answers that were paid for, money that was spent, scores that stand.

    copy = SecondCopy(store / "responses.db", {"replies": "request_hash"})
    copy.append("replies", rows)     # within the transaction that writes the rows, before it is committed
    copy.row("replies", key)         # the row as it was last written; None where no whole line tells of it

SQLite tells a torn page from a whole one only by chance, and one flipped byte inside a text not at all. So every change of
a row is also a line of a plain file beside the database, `responses.db.jsonl`: a check sum, then the row as JSON. Lines are
appended in one write and synced while the transaction holds the database's lock, so that the last line of a key is the row
that is in the database, or one that a kill kept from being committed. Who reads a row compares; who finds the database
damaged or gone writes it anew from here (`lineage/mending.py`, `foundry repair`).
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import threading
import uuid
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import orjson

Row = dict[str, Any]
_SUM = 16  # characters of the check sum in front of a line


class SecondCopy:
    """The plain file beside a database. `tables` maps each table that is kept to the name of its key.

    Safe for threads and processes. Writing raises OSError; a line that is torn or edited is counted in `damaged` and
    otherwise left out.
    """

    def __init__(self, database: Path, tables: Mapping[str, str]) -> None:
        self.database, self.tables = database, dict(tables)
        self.path = database.with_name(f"{database.name}.jsonl")
        self.damaged = 0
        self._lock = threading.Lock()
        self._forget()

    def __bool__(self) -> bool:
        """Whether there is one that holds anything."""
        try:
            return self.path.stat().st_size > 0
        except OSError:
            return False

    def append(self, table: str, rows: Sequence[Mapping[str, Any]]) -> None:
        """Write rows down; returns when they are on disk. Raises OSError where they cannot be."""
        if not rows:
            return
        # The line break in front ends a line that a kill or a full disk has cut off.
        data = b"\n" + b"".join(_line(table, row) + b"\n" for row in rows)
        handle = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            view = memoryview(data)
            while view:
                view = view[os.write(handle, view) :]
            os.fsync(handle)
        finally:
            os.close(handle)

    def keys(self, table: str) -> set[str]:
        """Keys of that table, as the file stands now; only what is new since the last call is read."""
        with self._lock:
            self._read_on()
            return {key for held, key in self._places if held == table}

    def row(self, table: str, key: str) -> Row | None:
        """The row of a key as it was last written, or None."""
        with self._lock:
            self._read_on()
            place = self._places.get((table, key))
            if place is None:
                return None
            with self.path.open("rb") as handle:
                handle.seek(place[0])
                parsed = _parsed(handle.read(place[1]))
        return None if parsed is None else parsed[1]

    def rows(self, table: str) -> dict[str, Row]:
        """Every row of a table by its key, each as it was last written."""
        found: dict[str, Row] = {}
        for _, line in self._lines(0):
            parsed = _parsed(line)
            if parsed is not None and parsed[0] == table:
                found[str(parsed[1][self.tables[table]])] = parsed[1]
        return found

    def write_anew(self, rows: Mapping[str, Sequence[Mapping[str, Any]]]) -> None:
        """Replace the file by one that holds these rows; a reader sees the old one or the new one."""
        data = b"".join(_line(table, row) + b"\n" for table, held in rows.items() for row in held)
        beside = self.path.with_name(f".{self.path.name}.{uuid.uuid4().hex}")
        try:
            with beside.open("wb") as handle:
                handle.write(data)
                handle.flush()
                os.fsync(handle.fileno())
            beside.replace(self.path)
        finally:
            beside.unlink(missing_ok=True)

    # -- the index: where the last whole line of each key stands ---------------------------------------------------

    def _forget(self) -> None:
        self._file: tuple[int, int] | None = None
        self._read = 0
        self._places: dict[tuple[str, str], tuple[int, int]] = {}
        self.damaged = 0

    def _read_on(self) -> None:
        try:
            now = self.path.stat()
        except OSError:
            self._forget()
            return
        if self._file != (now.st_dev, now.st_ino) or now.st_size < self._read:
            self._forget()
            self._file = (now.st_dev, now.st_ino)
        if now.st_size == self._read:
            return
        for at, line in self._lines(self._read):
            if not line.endswith(b"\n"):
                break  # it is being written, or was cut off: what comes next begins with a line break
            self._read = at + len(line)
            if not line.strip():
                continue
            parsed = _parsed(line)
            if parsed is None or parsed[0] not in self.tables or self.tables[parsed[0]] not in parsed[1]:
                self.damaged += 1
            else:
                self._places[parsed[0], str(parsed[1][self.tables[parsed[0]]])] = (at, len(line))

    def _lines(self, start: int) -> Iterator[tuple[int, bytes]]:
        try:
            handle = self.path.open("rb")
        except FileNotFoundError:
            return
        with handle:
            handle.seek(start)
            at = start
            for line in handle:
                yield at, line
                at += len(line)


def _sum(body: bytes) -> bytes:
    return hashlib.sha256(body).hexdigest()[:_SUM].encode()


def _line(table: str, row: Mapping[str, Any]) -> bytes:
    # str: the names of SQLAlchemy's columns are a kind of their own.
    # In the order of the row: a JSON column comes back as it was written, to the byte.
    body = orjson.dumps([table, {str(name): value for name, value in row.items()}])
    return _sum(body) + b" " + body


def _parsed(line: bytes) -> tuple[str, Row] | None:
    text = line.strip()
    head, body = text[:_SUM], text[_SUM + 1 :]
    if head != _sum(body):
        return None
    table, row = orjson.loads(body)
    return table, row
