"""Artifacts on their way out of a shared store into the cache: only what is not there, every file compared with its hash.

    fetcher.fetch(content_hash)                    → the folder in the cache, whole
    fetcher.file(content_hash, "pairs.parquet")    → one file alone, below `parts/` of the cache

May be killed at any moment and repeated: what has arrived, and is what it should be, is not fetched again.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from foundry_pipeline.errors import DamagedArtifact, FoundryError
from foundry_pipeline.lineage.files import disk_error, move_folder
from foundry_pipeline.lineage.hashing import file_hash
from foundry_pipeline.lineage.progress import Meter, each
from foundry_pipeline.lineage.remotes import Remote, Remotes
from foundry_pipeline.lineage.store import Store
from foundry_pipeline.lineage.traffic_log import TrafficLog


class Fetcher:
    """Fetches into a cache. `say` gets lines for people."""

    def __init__(self, cache: Store, remotes: Remotes, log: TrafficLog, say: Callable[[str], None]) -> None:
        self.cache, self.remotes, self.log, self.say = cache, remotes, log, say
        self.bucket = remotes.bucket
        self._right: dict[Path, tuple[int, int]] = {}

    def file(self, content_hash: str, name: str) -> Path | None:
        """One file of a payload, here; None where the artifact has none of that name, or is in neither place."""
        if self.remotes.manifest_bytes(content_hash) is None:
            return None
        remote = self.remotes.open(content_hash)
        if name not in remote.files:
            return None
        path = self._parts(content_hash) / "payload" / name
        if not self._is_right(path, remote.files[name]):
            before, started = self.bucket.traffic(), time.monotonic()
            with self._fetching(content_hash):
                self._room(remote.entries[name].size)
                self._bring(remote, name, path, None)
            self.log.note(
                "fetched",
                str(remote.manifest.get("name", content_hash[:12])),
                content_hash,
                before,
                time.monotonic() - started,
            )
        return path

    def fetch(self, content_hash: str) -> Path:
        """The folder of an artifact in the cache, brought here whole if it was not."""
        target = self.cache.folder(content_hash)
        if (target / "manifest.json").is_file():
            return target
        remote = self.remotes.open(content_hash)
        name = str(remote.manifest.get("name", content_hash[:12]))
        before, started = self.bucket.traffic(), time.monotonic()
        with self._fetching(content_hash):
            if (target / "manifest.json").is_file():
                return target
            parts, files, sizes = self._parts(content_hash), remote.files, remote.sizes()
            lacking = [path for path in files if not self._is_right(parts / "payload" / path, files[path])]
            self.bucket.found(len(files) - len(lacking))
            self._room(sum(sizes[path] for path in lacking))
            meter = Meter(f"{name}: fetching", sum(sizes[path] for path in lacking), self.say)
            each(lacking, lambda path: self._bring(remote, path, parts / "payload" / path, meter.more))
            meter.done()
            self._install(remote, parts, target)
        self.log.note("fetched", name, content_hash, before, time.monotonic() - started)
        return target

    def _install(self, remote: Remote, parts: Path, target: Path) -> None:
        """Make an artifact of its fetched files: manifest beside them, synced, renamed."""
        made = target.with_name(f".{remote.content_hash}.{uuid.uuid4().hex}")
        try:
            for stray in sorted(p for p in (parts / "payload").rglob(".*.part") if p.is_file()):
                stray.unlink()
            made.mkdir(parents=True)
            move_folder(parts / "payload", made / "payload")
            (made / "manifest.json").write_bytes(remote.text)
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
            self.remotes.forget(remote.content_hash)
            owner = str(remote.manifest.get("name", remote.content_hash[:12]))
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
        return self.cache.root / "parts" / content_hash

    def _room(self, size: int) -> None:
        try:
            self.cache.root.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise disk_error(error, self.cache.root) from error
        free = shutil.disk_usage(self.cache.root).free
        if size > free:
            raise FoundryError(
                f"no room in the cache: {size / 1e6:,.0f} MB are to be fetched, {free / 1e6:,.0f} MB are free",
                where=str(self.cache.root),
                mend="foundry store trim  # drops copies that the shared store holds; or set FOUNDRY_CACHE to a larger disk",
            )

    @contextmanager
    def _fetching(self, content_hash: str) -> Iterator[None]:
        """One process of this machine fetches an artifact; the others wait and find it here."""
        path = self.cache.root / "locks" / f"fetch-{content_hash}.lock"
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
