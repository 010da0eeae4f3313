"""Artifacts on their way between this machine and a shared store: whole, proven, and only what is not there yet.

    transfer.send(content_hash, "madison_r2_gguf")     files that the store lacks, then the manifest
    transfer.fetch(content_hash)                       → the folder in the cache, every file compared with its hash
    transfer.file(content_hash, "pairs.parquet")       → one file alone, below parts/ of the cache

Both may be killed at any moment and repeated: what has arrived, and is what it should be, is not moved again.
What each took (requests, files, bytes, seconds) is a line of `traffic.jsonl` in the cache.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from foundry_pipeline.errors import DamagedArtifact, FoundryError, StoreAway
from foundry_pipeline.lineage.artifact import Artifact
from foundry_pipeline.lineage.bucket import Bucket
from foundry_pipeline.lineage.files import disk_error, move_folder
from foundry_pipeline.lineage.hashing import file_hash, folder_hash
from foundry_pipeline.lineage.objects import Entry
from foundry_pipeline.lineage.progress import Meter
from foundry_pipeline.lineage.traffic_log import TrafficLog

if TYPE_CHECKING:
    from foundry_pipeline.lineage.shared_store import SharedStore

_AT_ONCE = 4
# Seconds for which an artifact of the shared store is not looked at again; what is fetched is hashed all the same.
_BELIEVED = 60.0


def quietly(text: str) -> None:
    """Say nothing."""


@dataclass(frozen=True)
class Remote:
    """An artifact as the shared store holds it: its manifest, and the object behind each file of the payload."""

    content_hash: str
    manifest: dict[str, Any]
    entries: dict[str, Entry]

    @property
    def files(self) -> dict[str, str]:
        return dict(self.manifest["files"])

    def sizes(self) -> dict[str, int]:
        return {name: self.entries[name].size for name in sorted(self.files)}

    def key(self, name: str) -> str:
        return payload_key(self.content_hash, self.manifest["payload_hash"], name)


def payload_key(content_hash: str, payload_hash: str, name: str) -> str:
    return f"artifacts/{content_hash}/{payload_hash}/{name}"


def manifest_key(content_hash: str) -> str:
    return f"artifacts/{content_hash}/manifest.json"


class Transfer:
    """Moves artifacts between a shared store's bucket and its cache. `say` gets lines for people."""

    def __init__(self, store: SharedStore, bucket: Bucket, say: Callable[[str], None]) -> None:
        self.store, self.bucket, self.say = store, bucket, say
        self.log = TrafficLog(store.root / "traffic.jsonl", bucket)
        self._manifests: dict[str, bytes] = {}
        self._remotes: dict[str, tuple[float, Remote]] = {}
        self._right: dict[Path, tuple[int, int]] = {}

    def forget(self, content_hash: str) -> None:
        self._manifests.pop(content_hash, None)
        self._remotes.pop(content_hash, None)

    # -- what the shared store holds -----------------------------------------------------------------------------

    def manifest_bytes(self, content_hash: str) -> bytes | None:
        """The manifest in the shared store as it lies there, or None. Once there, it does not change."""
        if content_hash not in self._manifests:
            found = self.bucket.read(manifest_key(content_hash))
            if found is None:
                return None
            self._manifests[content_hash] = found
        return self._manifests[content_hash]

    def remote(self, content_hash: str, name: str = "") -> Remote:
        """The artifact in the shared store, its objects compared with what was sent by size and mark.

        An object whose mark has changed is read back and hashed. Raises DamagedArtifact where something is missing,
        cut off or another thing.
        """
        seen = self._remotes.get(content_hash)
        if seen is not None and time.monotonic() - seen[0] < _BELIEVED:
            return seen[1]
        found, wrong = self.examine(content_hash)
        if found is None or wrong:
            raise DamagedArtifact(
                f"{name + ' ' if name else ''}artifact is damaged in the shared store: {'; '.join(wrong[:3])}",
                where=self.bucket.place(f"artifacts/{content_hash}"),
                mend=f"foundry repair {name or content_hash}",
            )
        self._remotes[content_hash] = (time.monotonic(), found)
        return found

    def examine(
        self, content_hash: str, *, local: Path | None = None, deep: bool = False
    ) -> tuple[Remote | None, list[str]]:
        """What the shared store holds of an artifact and what is wrong with it. None where its manifest is of no use.

        An object whose mark is not the one it had when it was sent is read back and hashed, unless it is proven to be
        the file in `local`, a whole copy of the payload. A store without marks is believed by size; with `deep` its
        objects are all read back.
        """
        self.forget(content_hash)
        text = self.manifest_bytes(content_hash)
        if text is None:
            return None, ["it has no manifest"]
        try:
            manifest = json.loads(text)
            files = {str(name): str(sha) for name, sha in manifest["files"].items()}
            sent: Mapping[str, Any] = manifest["objects"]
            whole = manifest["content_hash"] == content_hash and folder_hash(files) == manifest["payload_hash"]
            told = {name: Entry(int(sent[name]["size"]), str(sent[name]["tag"])) for name in files}
        except (ValueError, KeyError, TypeError, AttributeError):
            whole = False
        if not whole or any(not _inside(name) for name in files):
            self.forget(content_hash)
            return None, ["its manifest was changed"]
        entries = self.bucket.entries(f"artifacts/{content_hash}/{manifest['payload_hash']}/")
        found = Remote(content_hash, manifest, entries)
        wrong = []
        for name, sha in sorted(files.items()):
            entry = entries.get(name)
            if entry is None:
                wrong.append(f"{name} is not there")
            elif entry.size != told[name].size:
                wrong.append(f"{name} has {entry.size} bytes and not {told[name].size}")
            elif (entry == told[name] and (entry.tag or not deep)) or (
                local is not None and self.bucket.holds(entry, local / name)
            ):
                continue
            elif self.bucket.sha256(found.key(name)) != sha:
                wrong.append(f"{name} is not what was built")
        return found, wrong

    # -- to the shared store -------------------------------------------------------------------------------------

    def send(self, content_hash: str, name: str) -> None:
        """Send what the shared store lacks of an artifact that is here, prove it, and publish the manifest last.

        Raises DamagedArtifact where the copy here, or the one there, is not what was built, StoreAway where the store
        is away or what arrived is not what was sent.
        """
        before, started = self.bucket.traffic(), time.monotonic()
        artifact = _copy_here(self.store, content_hash, name)
        local = artifact.folder / "payload"
        if self.manifest_bytes(content_hash) is None:
            manifest = dict(artifact.manifest)
            sent = self._send_files(content_hash, name, manifest, local)
            manifest["objects"] = {path: {"size": e.size, "tag": e.tag} for path, e in sorted(sent.items())}
            text = json.dumps(manifest, ensure_ascii=False, indent=2, sort_keys=True, allow_nan=False) + "\n"
            self.bucket.create(manifest_key(content_hash), text.encode())
            self.forget(content_hash)
        else:
            self.bucket.found(len(artifact.manifest["files"]))
        self.remote(content_hash, name)
        self._send_notes(content_hash, artifact.folder)
        self.log.note("sent", name, content_hash, before, time.monotonic() - started)

    def _send_files(self, content_hash: str, name: str, manifest: dict[str, Any], local: Path) -> dict[str, Entry]:
        files, payload_hash = dict(manifest["files"]), manifest["payload_hash"]
        folder = f"artifacts/{content_hash}/{payload_hash}/"
        there = self.bucket.entries(folder)
        lacking = [path for path in files if not self.proven(there.get(path), local / path, folder + path, files[path])]
        self.bucket.found(len(files) - len(lacking))
        if not lacking:
            return {path: there[path] for path in files}
        meter = Meter(f"{name}: sending", sum((local / path).stat().st_size for path in lacking), self.say)
        _each(lacking, lambda path: self.bucket.upload(local / path, folder + path, meter.more))
        there = self.bucket.entries(folder)
        wrong = [path for path in lacking if not self.proven(there.get(path), local / path, folder + path, files[path])]
        if wrong:
            raise StoreAway(
                f"what arrived of {name} is not what was sent ({', '.join(sorted(wrong)[:3])}); it was not published",
                where=self.bucket.place(folder),
                mend="repeat the same command: what arrived whole is not sent again",
            )
        meter.done()
        return {path: there[path] for path in files}

    def proven(self, entry: Entry | None, path: Path, key: str, sha: str) -> bool:
        """Whether an object is this file: by size and mark, or by reading it back where these cannot tell."""
        if entry is None:
            return False
        same = self.bucket.holds(entry, path)
        return self.bucket.sha256(key) == sha if same is None else same

    def _send_notes(self, content_hash: str, folder: Path) -> None:
        """What lies beside an artifact here and not there (its verdict, where it was built without the shared store)."""
        for path in sorted(folder.glob("*.json")):
            if path.name != "manifest.json":
                self.bucket.create(f"artifacts/{content_hash}/{path.name}", path.read_bytes())

    # -- from the shared store -----------------------------------------------------------------------------------

    def file(self, content_hash: str, name: str) -> Path | None:
        """One file of a payload, here; None where the artifact has none of that name, or is in neither place."""
        if self.manifest_bytes(content_hash) is None:
            return None
        remote = self.remote(content_hash)
        if name not in remote.files:
            return None
        path = self._parts(content_hash) / "payload" / name
        if not self._is_right(path, remote.files[name]):
            before, started = self.bucket.traffic(), time.monotonic()
            with self._fetching(content_hash):
                self._room(remote.entries[name].size)
                self._bring(remote, name, path, None)
            self.log.note("fetched", str(remote.manifest["name"]), content_hash, before, time.monotonic() - started)
        return path

    def fetch(self, content_hash: str) -> Path:
        """The folder of an artifact in the cache, brought here whole if it was not."""
        target = self.store.folder(content_hash)
        if (target / "manifest.json").is_file():
            return target
        remote = self.remote(content_hash)
        name = str(remote.manifest["name"])
        before, started = self.bucket.traffic(), time.monotonic()
        with self._fetching(content_hash):
            if (target / "manifest.json").is_file():
                return target
            parts, files, sizes = self._parts(content_hash), remote.files, remote.sizes()
            lacking = [path for path in files if not self._is_right(parts / "payload" / path, files[path])]
            self.bucket.found(len(files) - len(lacking))
            self._room(sum(sizes[path] for path in lacking))
            meter = Meter(f"{name}: fetching", sum(sizes[path] for path in lacking), self.say)
            _each(lacking, lambda path: self._bring(remote, path, parts / "payload" / path, meter.more))
            meter.done()
            self._install(content_hash, parts, target)
        self.log.note("fetched", name, content_hash, before, time.monotonic() - started)
        return target

    def _install(self, content_hash: str, parts: Path, target: Path) -> None:
        """Make an artifact of its fetched files: manifest beside them, synced, renamed."""
        made = target.with_name(f".{content_hash}.{uuid.uuid4().hex}")
        try:
            for stray in sorted(p for p in (parts / "payload").rglob(".*.part") if p.is_file()):
                stray.unlink()
            made.mkdir(parents=True)
            move_folder(parts / "payload", made / "payload")
            (made / "manifest.json").write_bytes(self._manifests[content_hash])
            made.rename(target)
        except OSError as error:
            raise disk_error(error, target) from error
        finally:
            shutil.rmtree(made, ignore_errors=True)
        shutil.rmtree(parts, ignore_errors=True)

    def _bring(self, remote: Remote, name: str, path: Path, progress: Callable[[int], None] | None) -> None:
        beside = path.with_name(f".{path.name}.part")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self.bucket.download(remote.key(name), beside, progress)
            if file_hash(beside) != remote.files[name]:
                raise FileNotFoundError(name)
            beside.replace(path)
        except FileNotFoundError as error:
            self.forget(remote.content_hash)
            owner = str(remote.manifest["name"])
            raise DamagedArtifact(
                f"{owner} artifact is damaged in the shared store: {name} is not what was built",
                where=self.bucket.place(remote.key(name)),
                mend=f"foundry repair {owner}",
            ) from error
        except OSError as error:
            raise disk_error(error, path) from error
        finally:
            beside.unlink(missing_ok=True)
        stat = path.stat()
        self._right[path] = (stat.st_size, stat.st_mtime_ns)

    def _is_right(self, path: Path, sha: str) -> bool:
        """Whether a fetched file is there and has that hash; hashed once in this process while it stays as it is."""
        try:
            stat = path.stat()
            now = (stat.st_size, stat.st_mtime_ns)
            if self._right.get(path) != now and file_hash(path) != sha:
                return False
        except OSError:
            return False
        self._right[path] = now
        return True

    def _parts(self, content_hash: str) -> Path:
        return self.store.root / "parts" / content_hash

    def _room(self, size: int) -> None:
        try:
            self.store.root.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise disk_error(error, self.store.root) from error
        free = shutil.disk_usage(self.store.root).free
        if size > free:
            raise FoundryError(
                f"no room in the cache: {size / 1e6:,.0f} MB are to be fetched, {free / 1e6:,.0f} MB are free",
                where=str(self.store.root),
                mend="foundry store trim  # drops copies that the shared store holds; or set FOUNDRY_CACHE to a larger disk",
            )

    @contextmanager
    def _fetching(self, content_hash: str) -> Iterator[None]:
        """One process of this machine fetches an artifact; the others wait and find it here."""
        path = self.store.root / "locks" / f"fetch-{content_hash}.lock"
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            handle = path.open("a+", encoding="utf-8")
        except OSError as error:
            raise disk_error(error, path) from error
        with handle:
            fcntl.flock(handle, fcntl.LOCK_EX)
            handle.truncate(0)
            handle.write(f"process {os.getpid()}")
            handle.flush()
            yield


def _copy_here(store: SharedStore, content_hash: str, name: str) -> Artifact:
    """The copy on this machine, verified; never the one in the shared store."""
    from foundry_pipeline.lineage.store import Store

    return Store.open(store, content_hash, name=name)


def _each(items: list[str], do: Callable[[str], None]) -> None:
    """Do it for every item, some at once; the first failure ends what has not begun, and is raised."""
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        waiting = [pool.submit(do, item) for item in items]
        try:
            for one in waiting:
                one.result()
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def _inside(name: str) -> bool:
    """Whether a path of a manifest stays in its payload; a foreign one might not."""
    parts = name.split("/")
    return bool(name) and not name.startswith("/") and "\\" not in name and not {"", ".", ".."} & set(parts)
