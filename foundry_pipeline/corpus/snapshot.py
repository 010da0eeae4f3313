"""What was fetched for a source, kept so that it can be read without the network and is never lost.

    sources/<character>/<source>/snapshot.json         which documents make up the source, since the last whole refresh
    sources/<character>/<source>/documents/<key>.json  one record a document: where from, when, ETag, hash
    sources/<character>/<source>/content/<sha256>      its bytes

    >>> snapshot = Snapshot(Path(".foundry/sources/madison/letters"), command="foundry sources refresh madison")
    >>> [(r.key, r.status, r.fetched_at) for r in snapshot.documents(asked)]
    [('Madison/01-10-02-0178', 'present', '2026-11-21T09:30:00+00:00')]

Every file is written under another name, synced and renamed: a kill or a full disk leaves the last good content as it was.
A document's content is never deleted or overwritten here; one that has vanished is marked and stays readable.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from pydantic import TypeAdapter

from foundry_pipeline.errors import DamagedArtifact, MissingArtifact
from foundry_pipeline.lineage.hashing import digest, file_hash
from foundry_pipeline.lineage.store import disk_error, write_json


def snapshot_folder(store: Path, character: str) -> Path:
    """Where the documents lie that were fetched for a character, one folder a source."""
    return store / "sources" / character


class NotFetched(MissingArtifact):
    """A source of which nothing, or something other than is declared now, has been fetched."""


_SHA256 = re.compile(r"(?:[0-9a-f]{64})?")


@dataclass(frozen=True)
class Fetched:
    """One fetched document or list.

    `key` names it within the source; `kind` tells texts from the lists that led to them. `sha256` is of the bytes as
    sent (after undoing a transfer's compression), empty for one that never answered with content. `facts` are what the
    connector noted for reading it. Times are ISO 8601 in UTC; `fetched_at` is when these bytes came, `checked_at` when
    the server was last asked.
    """

    key: str
    url: str
    kind: Literal["text", "list"]
    status: Literal["present", "vanished"]
    checked_at: str
    fetched_at: str = ""
    vanished_at: str = ""
    final_url: str = ""
    sha256: str = ""
    bytes: int = 0
    content_type: str = ""
    etag: str = ""
    last_modified: str = ""
    facts: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Contents:
    """`snapshot.json`: the texts that a whole refresh found, in their order, and what it left out and why."""

    asked: str
    completed_at: str
    requests: int
    keys: list[str]
    left_out: dict[str, str]


class Snapshot:
    """The folder of one source. `command` is the one that fetches it, named in every error raised here."""

    def __init__(self, folder: Path, *, command: str) -> None:
        self.folder, self.command = folder, command

    # -- reading -------------------------------------------------------------------------------------------------

    def contents(self) -> Contents | None:
        """What the last whole refresh found; None before the first one."""
        found = self._json(self.folder / "snapshot.json")
        return None if found is None else self._typed(Contents, found, "snapshot.json")

    def record(self, key: str) -> Fetched | None:
        found = self._json(self._record_path(key))
        return None if found is None else self._typed(Fetched, found, key)

    def documents(self, asked: str) -> list[Fetched]:
        """Records of the source's texts, in order.

        `asked` is the digest of what the manifest asks for. Raises NotFetched if nothing was fetched or something else
        was asked for then, DamagedArtifact if a record is gone or unreadable.
        """
        contents = self.contents()
        if contents is None:
            raise NotFetched("the source has not been fetched yet", where=str(self.folder), mend=self.command)
        if contents.asked != asked:
            raise NotFetched(
                "the manifest asks for other documents than were fetched", where=str(self.folder), mend=self.command
            )
        records = [(key, self.record(key)) for key in contents.keys]
        lost = [key for key, record in records if record is None or not record.sha256]
        if lost:
            raise self._damaged(f"the record of `{lost[0]}` is gone", self._record_path(lost[0]))
        return [record for _, record in records if record is not None]

    def data(self, record: Fetched) -> bytes:
        """A document's bytes, compared with their hash."""
        path = self.content_path(record.sha256)
        try:
            data = path.read_bytes()
        except OSError as error:
            raise self._damaged(f"the content of `{record.key}` cannot be read ({error.strerror})", path) from error
        if hashlib.sha256(data).hexdigest() != record.sha256:
            raise self._damaged(f"the content of `{record.key}` is not what was fetched", path)
        return data

    def intact(self, record: Fetched) -> bool:
        """Whether a document's bytes are there and as they were fetched."""
        path = self.content_path(record.sha256)
        return bool(record.sha256) and path.is_file() and file_hash(path) == record.sha256

    def content_path(self, sha256: str) -> Path:
        return self.folder / "content" / sha256

    def _record_path(self, key: str) -> Path:
        return self.folder / "documents" / f"{digest(key)[:40]}.json"

    def _json(self, path: Path) -> Any:
        try:
            return json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        except (OSError, ValueError, RecursionError) as error:
            raise self._damaged(f"a record cannot be read ({error})", path) from error

    def _typed(self, kind: Any, value: Any, what: str) -> Any:
        try:
            kind(**value)  # a field that is not known
            read = TypeAdapter(kind).validate_python(value)
            if not _SHA256.fullmatch(getattr(read, "sha256", "")):
                raise ValueError("a hash that is none")  # it names a file
            return read
        except (TypeError, ValueError) as error:
            raise self._damaged(f"the record of `{what}` is not one ({error})", self.folder) from error

    def _damaged(self, what: str, path: Path) -> DamagedArtifact:
        # A damaged record may be removed: the document is then fetched anew. Its content stays where it is.
        mend = f"rm -f '{path}'; {self.command}"
        return DamagedArtifact(f"{what}; it may have been changed by hand", where=str(path), mend=mend)

    # -- writing -------------------------------------------------------------------------------------------------

    def temporary(self) -> Path:
        """An empty folder for what is being fetched; what a killed refresh left in it is dropped."""
        folder = self.folder / "incoming"
        shutil.rmtree(folder, ignore_errors=True)
        try:
            folder.mkdir(parents=True)
            (self.folder / "documents").mkdir(exist_ok=True)
            (self.folder / "content").mkdir(exist_ok=True)
        except OSError as error:
            raise disk_error(error, folder) from error
        return folder

    def keep(self, record: Fetched, incoming: Path | None = None) -> Fetched:
        """Store a record, after its new bytes (a synced file of that hash) if there are any."""
        if incoming is not None:
            target = self.content_path(record.sha256)
            try:
                os.replace(incoming, target)
            except OSError as error:
                raise disk_error(error, target) from error
        write_json(self._record_path(record.key), asdict(record))
        return record

    def vanish(self, record: Fetched, now: str) -> Fetched:
        """Mark a document as gone from its server; its content stays."""
        return self.keep(replace(record, status="vanished", checked_at=now, vanished_at=record.vanished_at or now))

    def complete(
        self, *, asked: str, keys: Iterable[str], left_out: Mapping[str, str], requests: int, now: str
    ) -> None:
        """Say which documents make up the source now. Only a refresh in which nothing failed gets here."""
        contents = Contents(asked, now, requests, list(keys), dict(left_out))
        write_json(self.folder / "snapshot.json", asdict(contents))
