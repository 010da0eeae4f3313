"""A store that several machines share: objects below a URL, and on each machine a folder as a cache of it.

    artifacts/<content hash>/<payload hash>/…    the files, sent first
    artifacts/<content hash>/manifest.json       sent last, once every file is there and proven to be what was built
    artifacts/<content hash>/verdict.json        and other notes, written anew as they change
    index/<input hash>.json                      created once: of two writers the first wins
    quarantine/<content hash>-<8 hex>/…          what was found damaged, set aside by `foundry repair`

The files of an artifact lie below the hash of all of them, so that two writers of one content (a dataset, whose hash is
over its rows, in Parquet files of two versions) never mix theirs. A reader goes by the manifest, which is there when all
is there; it compares what it fetches with the hashes in it.

The cache is an ordinary store (`lineage/store.py`): with FOUNDRY_STORE set to its folder it is one. What was built while
the shared store was away lies in it and is sent by the next build that finds it, or by `foundry store push`.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from foundry_pipeline.errors import DamagedArtifact, StoreAway
from foundry_pipeline.lineage.artifact import Artifact, Record
from foundry_pipeline.lineage.bucket import Bucket
from foundry_pipeline.lineage.fetching import Fetcher
from foundry_pipeline.lineage.files import write_json
from foundry_pipeline.lineage.objects import Entry
from foundry_pipeline.lineage.remotes import Remotes
from foundry_pipeline.lineage.sending import Sender
from foundry_pipeline.lineage.source_mirror import SourceMirror
from foundry_pipeline.lineage.store import Store, record_of
from foundry_pipeline.lineage.traffic_log import TrafficLog

# Seconds that a listing of the index is believed: many look-ups of one command, and no old news for the next.
_BELIEVED = 10.0
_AT_ONCE = 8


class SharedArtifact(Artifact):
    """An artifact of a shared store: its files come here when they are asked for, and only those."""

    store: SharedStore

    @classmethod
    def of(cls, store: SharedStore, content_hash: str, manifest: dict[str, Any]) -> SharedArtifact:
        made = cls(content_hash, store.folder(content_hash), manifest)
        object.__setattr__(made, "store", store)
        return made

    @property
    def payload(self) -> Path:
        return self.store.fetcher.fetch(self.content_hash) / "payload"

    def file(self, name: str) -> Path:
        found = self.store.file(self.content_hash, name)
        return found if found is not None else self.folder / "payload" / name

    def sizes(self) -> dict[str, int]:
        return self.store.sizes(self.content_hash)

    def read_note(self, name: str) -> bytes | None:
        return self.store.read_note(f"artifacts/{self.content_hash}/{name}")

    def write_note(self, name: str, value: Any) -> None:
        self.store.write_note(f"artifacts/{self.content_hash}/{name}", value)

    def note_place(self, name: str) -> str:
        return self.store.note_place(f"artifacts/{self.content_hash}/{name}")


class SharedStore(Store):
    """A store behind a URL with a cache in a folder. Raises StoreAway besides what `Store` raises."""

    def __init__(self, root: Path, bucket: Bucket, say: Callable[[str], None] = lambda text: None) -> None:
        super().__init__(root)
        self.bucket, self.remotes, self.say = bucket, Remotes(bucket), say
        # The copies here, as a store that knows of no other.
        self.cache, log = Store(root), TrafficLog(root / "traffic.jsonl", bucket)
        self.cache._verified = self._verified  # what one of them has hashed, the other need not
        self.sender = Sender(self.cache, self.remotes, log, say)
        self.fetcher = Fetcher(self.cache, self.remotes, log, say)
        self.sources = SourceMirror(self)
        self._index: dict[str, Entry] = {}
        self._listed = float("-inf")
        self._lines: dict[str, tuple[Entry, Record]] = {}

    @property
    def place(self) -> str:
        return self.bucket.shown

    # -- reading -------------------------------------------------------------------------------------------------

    def _cached(self, content_hash: str) -> bool:
        return super().has(content_hash)

    def has(self, content_hash: str) -> bool:
        return self._cached(content_hash) or self.remotes.manifest_bytes(content_hash) is not None

    def contents(self, prefix: str) -> list[str]:
        there = {key.split("/", 1)[0] for key in self.bucket.entries("artifacts/") if key.endswith("/manifest.json")}
        return sorted({c for c in there if c.startswith(prefix)} | set(super().contents(prefix)))

    def read_manifest(self, content_hash: str) -> dict[str, Any]:
        if self._cached(content_hash):
            return super().read_manifest(content_hash)
        text = self.remotes.manifest_bytes(content_hash)
        if text is None:
            raise FileNotFoundError(2, f"{self.bucket.place(f'artifacts/{content_hash}')} holds no manifest")
        found: dict[str, Any] = json.loads(text)
        return found

    def sizes(self, content_hash: str) -> dict[str, int]:
        if self._cached(content_hash):
            return super().sizes(content_hash)
        return self.remotes.open(content_hash).sizes()

    def file(self, content_hash: str, name: str) -> Path | None:
        """One payload file, brought here and compared with its hash if it was not here; None where it is not in it."""
        if self._cached(content_hash):
            return super().file(content_hash, name)
        return self.fetcher.file(content_hash, name)

    def open(self, content_hash: str, *, name: str = "") -> Artifact:
        """The artifact of that hash: every file compared with the manifest if they are here, else every object's size
        and mark compared with what was sent."""
        if self._cached(content_hash):
            return SharedArtifact.of(self, content_hash, super().open(content_hash, name=name).manifest)
        return SharedArtifact.of(self, content_hash, self.remotes.open(content_hash, name).manifest)

    def record(self, input_hash: str, *, fresh: bool = False) -> Record | None:
        if fresh or time.monotonic() - self._listed > _BELIEVED:
            self._list()
        entry = self._index.get(input_hash)
        if entry is not None:
            return self._line(input_hash, entry)
        kept = super().record(input_hash)
        # A line that only this machine has counts while its artifact is here: it was not sent yet.
        return kept if kept is not None and self._cached(kept.content_hash) else None

    def records(self) -> Iterator[Record]:
        self._list()
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            list(pool.map(lambda item: self._line(*item), self._index.items()))
        kept = {path.stem for path in (self.root / "index").glob("*.json")}
        for input_hash in sorted(kept | self._index.keys()):
            record = self.record(input_hash)
            if record is not None:
                yield record

    def _list(self) -> None:
        found = self.bucket.entries("index/")
        self._index = {key.removesuffix(".json"): e for key, e in found.items() if key.endswith(".json")}
        self._listed = time.monotonic()

    def _line(self, input_hash: str, entry: Entry) -> Record:
        """The index line of the shared store; its copy here is kept where it is the same."""
        known = self._lines.get(input_hash)
        if known is not None and known[0] == entry:
            return known[1]
        path = self.root / "index" / f"{input_hash}.json"
        if not (path.is_file() and self.bucket.holds(entry, path)):
            text = self.bucket.read(f"index/{input_hash}.json") or b""
            try:
                found = json.loads(text)
                record_of(found, input_hash)
            except (ValueError, TypeError) as error:
                raise DamagedArtifact(
                    f"the index line cannot be read ({type(error).__name__})",
                    where=self.bucket.place(f"index/{input_hash}.json"),
                    mend=f"remove it (`aws s3 rm {self.bucket.place(f'index/{input_hash}.json')}`): the artifact is then "
                    "found again or rebuilt",
                ) from error
            write_json(path, found)
        record = super().record(input_hash)
        assert record is not None
        self._lines[input_hash] = (entry, record)
        return record

    # -- writing -------------------------------------------------------------------------------------------------

    def publish(
        self,
        payload: Path,
        *,
        record: dict[str, Any],
        content_hash: str | None = None,
        manifest: dict[str, Any] | None = None,
    ) -> Artifact:
        """Publish here, then send: files, manifest, index line, in this order.

        Where another machine was first with the same inputs, its content is what is returned; of equal inputs it is
        the same. What could not be sent stays here and is sent by the next build that finds it.
        """
        super().publish(payload, record=record, content_hash=content_hash, manifest=manifest)
        kept = super().record(record["input_hash"])
        assert kept is not None
        known = self.share(kept)
        return self.open(known.content_hash, name=known.name)

    def reuse(self, record: Record) -> Artifact:
        """The artifact of a found build, sent first if only this machine has it."""
        if record.input_hash not in self._index:
            record = self.share(record)
        return self.open(record.content_hash, name=record.name)

    def share(self, record: Record) -> Record:
        """Send a build that only this machine has; the build that the shared store then knows for these inputs."""
        key = f"index/{record.input_hash}.json"
        if self._cached(record.content_hash):
            self.sender.send(record.content_hash, record.name)
        self.bucket.create(key, (self.root / key).read_bytes())
        entry = self.bucket.entry_of(key)
        if entry is None:  # an index line is removed by `foundry repair` alone
            raise StoreAway(
                f"the index line of {record.name} has vanished again", where=self.bucket.place(key), mend="repeat it"
            )
        self._index[record.input_hash] = entry
        known = self._line(record.input_hash, entry)
        if known.content_hash != record.content_hash:
            self.say(
                f"{record.name}: another machine was first with {known.content_hash[:12]}, which is used; "
                f"{record.content_hash[:12]} was built here from the same inputs"
            )
        return known

    def pending(self) -> list[Record]:
        """Builds that only this machine has."""
        self._list()
        names = sorted(path.stem for path in (self.root / "index").glob("*.json"))
        lines = [Store.record(self, name) for name in names if name not in self._index]
        return [r for r in lines if r is not None and self._cached(r.content_hash)]

    # -- notes ---------------------------------------------------------------------------------------------------

    def read_note(self, key: str) -> bytes | None:
        found = self.bucket.read(key)
        return found if found is not None else super().read_note(key)

    def notes(self, folder: str) -> list[str]:
        there = {key for key in self.bucket.entries(f"{folder}/") if "/" not in key and key.endswith(".json")}
        return sorted(there | set(super().notes(folder)))

    def write_note(self, key: str, value: Any) -> None:
        super().write_note(key, value)
        self.bucket.write(key, (self.root / key).read_bytes())

    def remove_note(self, key: str) -> None:
        self.bucket.remove(key)
        super().remove_note(key)

    def note_place(self, key: str) -> str:
        return self.bucket.place(key)

    # -- fetched sources -----------------------------------------------------------------------------------------

    def bring_sources(self, character: str) -> None:
        self.sources.bring(character)

    def sync_sources(self, character: str) -> None:
        self.sources.sync(character)

    # -- mending -------------------------------------------------------------------------------------------------

    def repair(self, content_hash: str) -> list[str]:
        """Set damaged copies aside, here and in the shared store, and mend one from the other where that can be done.

        Reads every object back whose content its mark does not prove.
        """
        from foundry_pipeline.lineage.mending import mend

        return mend(self, content_hash)

    def forget(self, content_hash: str) -> None:
        """Drop what is known of an artifact in this process, and its copy here that is not whole."""
        self._verified.pop(content_hash, None)
        self.remotes.forget(content_hash)
        self._listed = float("-inf")

    def quarantine(self, content_hash: str) -> Path | None:
        """Set the copy on this machine aside; the index lines stay while the shared store has them."""
        folder = self.folder(content_hash)
        self.forget(content_hash)
        if not folder.exists():
            return None
        aside = self.root / "quarantine" / f"{content_hash}-{os.urandom(4).hex()}"
        aside.parent.mkdir(parents=True, exist_ok=True)
        return folder.rename(aside)
