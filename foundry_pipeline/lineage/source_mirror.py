"""Fetched source texts in a shared store, so that a second machine need not ask their servers again.

    sources/<character>/<source>/content/<sha256>, documents/<key>.json, and snapshot.json last

The same files as in the folder of a snapshot (`corpus/snapshot.py`). Of two whole refreshes the later one counts, by the
time in `snapshot.json`; a document's bytes are named by their hash and are never replaced.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING

from foundry_pipeline.errors import DamagedArtifact, Locked
from foundry_pipeline.lineage.files import disk_error
from foundry_pipeline.lineage.hashing import file_hash
from foundry_pipeline.lineage.objects import Entry

if TYPE_CHECKING:
    from foundry_pipeline.lineage.shared_store import SharedStore

SNAPSHOT = "snapshot.json"
_BELIEVED = 10.0


class SourceMirror:
    """Sources of one shared store. Raises StoreAway, and DamagedArtifact for bytes that are not what they are called."""

    def __init__(self, store: SharedStore) -> None:
        self.store, self.bucket = store, store.bucket
        self._brought: dict[str, float] = {}

    def bring(self, character: str) -> None:
        """Fetch what other machines have refreshed later than this one. Asked once in ten seconds."""
        if time.monotonic() - self._brought.get(character, float("-inf")) < _BELIEVED:
            return
        for source, entries in self._there(character).items():
            self._one(character, source, entries, send=False)
        self._brought[character] = time.monotonic()

    def sync(self, character: str) -> None:
        """`bring`, and send what this machine has refreshed later than the others."""
        there = self._there(character)
        folder = self.store.root / "sources" / character
        here = {path.parent.name for path in folder.glob(f"*/{SNAPSHOT}")}
        for source in sorted(there.keys() | here):
            self._one(character, source, there.get(source, {}), send=True)
        self._brought[character] = time.monotonic()

    def _there(self, character: str) -> dict[str, dict[str, Entry]]:
        found: dict[str, dict[str, Entry]] = {}
        for path, entry in self.bucket.entries(f"sources/{character}/").items():
            source, _, rest = path.partition("/")
            if rest and _known(rest):
                found.setdefault(source, {})[rest] = entry
        return found

    def _one(self, character: str, source: str, entries: dict[str, Entry], *, send: bool) -> None:
        key, folder = f"sources/{character}/{source}", self.store.root / "sources" / character / source
        mine = _completed(_text(folder / SNAPSHOT))
        other = ""
        if SNAPSHOT in entries:
            if (folder / SNAPSHOT).is_file() and self.bucket.holds(entries[SNAPSHOT], folder / SNAPSHOT):
                return
            other = _completed(self.bucket.read(f"{key}/{SNAPSHOT}"))
        if mine == other or (mine > other and not send):
            return
        try:
            with self.store.lock(f"sources-{character}-{source}", name=f"the source `{source}`"):
                if other > mine:
                    self._fetch(key, folder, entries)
                else:
                    self._send(key, folder, entries)
        except Locked:  # it is being refreshed on this machine; what that gives is sent then
            return

    def _fetch(self, key: str, folder: Path, entries: dict[str, Entry]) -> None:
        for name in sorted(entries, key=_order):
            path = folder / name
            if path.is_file() and (name.startswith("content/") or self.bucket.holds(entries[name], path)):
                continue
            beside = path.with_name(f".{path.name}.part")
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                self.bucket.download(f"{key}/{name}", beside)
                if name.startswith("content/") and file_hash(beside) != path.name:
                    raise DamagedArtifact(
                        "a source text in the shared store is not what was fetched",
                        where=self.bucket.place(f"{key}/{name}"),
                        mend=f"remove it and {self.bucket.place(f'{key}/{SNAPSHOT}')}, then foundry sources refresh",
                    )
                beside.replace(path)
            except OSError as error:
                raise disk_error(error, path) from error
            finally:
                beside.unlink(missing_ok=True)

    def _send(self, key: str, folder: Path, entries: dict[str, Entry]) -> None:
        names = [p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()]
        for name in sorted((n for n in names if _known(n)), key=_order):
            there = entries.get(name)
            if there is None or self.bucket.holds(there, folder / name) is not True:
                self.bucket.upload(folder / name, f"{key}/{name}")


def _known(name: str) -> bool:
    """A file that makes up a snapshot: nothing unfinished, nothing foreign, nothing outside of the folder."""
    parts = name.split("/")
    if name == SNAPSHOT:
        return True
    return len(parts) == 2 and parts[0] in ("content", "documents") and bool(parts[1]) and not parts[1].startswith(".")


def _order(name: str) -> int:
    return ("content/", "documents/", SNAPSHOT).index(
        next(p for p in ("content/", "documents/", SNAPSHOT) if name.startswith(p))
    )


def _text(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except OSError:
        return None


def _completed(text: bytes | None) -> str:
    """When a snapshot was completed (ISO 8601, UTC: compared as text); empty for none, or one that cannot be read."""
    try:
        found = json.loads(text or b"")
        return str(found["completed_at"])
    except (ValueError, KeyError, TypeError):
        return ""
