"""Artifacts on their way into a shared store: only what it lacks, proven, and the manifest last.

    Sender(store, remotes, log, say).send(content_hash, "madison_r2_gguf")

May be killed at any moment and repeated. What each took is a line of `traffic.jsonl` in the cache.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from foundry_pipeline.errors import StoreAway
from foundry_pipeline.lineage.objects import Entry
from foundry_pipeline.lineage.progress import Meter, each
from foundry_pipeline.lineage.remotes import Remotes, manifest_key
from foundry_pipeline.lineage.store import Store
from foundry_pipeline.lineage.traffic_log import TrafficLog


class Sender:
    """Sends from a cache. `say` gets lines for people."""

    def __init__(self, cache: Store, remotes: Remotes, log: TrafficLog, say: Callable[[str], None]) -> None:
        self.cache, self.remotes, self.log, self.say = cache, remotes, log, say
        self.bucket = remotes.bucket

    def send(self, content_hash: str, name: str) -> None:
        """Send what the shared store lacks of an artifact that is here, prove it, and publish the manifest last.

        Raises DamagedArtifact where the copy here, or the one there, is not what was built, StoreAway where the store
        is away or what arrived is not what was sent.
        """
        before, started = self.bucket.traffic(), time.monotonic()
        artifact = self.cache.open(content_hash, name=name)
        local = artifact.folder / "payload"
        if self.remotes.manifest_bytes(content_hash) is None:
            manifest = dict(artifact.manifest)
            sent = self._send_files(content_hash, name, manifest, local)
            manifest["objects"] = {path: {"size": e.size, "tag": e.tag} for path, e in sorted(sent.items())}
            text = json.dumps(manifest, ensure_ascii=False, indent=2, sort_keys=True, allow_nan=False) + "\n"
            self.bucket.create(manifest_key(content_hash), text.encode())
            self.remotes.forget(content_hash)
        else:
            self.bucket.found(len(artifact.manifest["files"]))
        self.remotes.open(content_hash, name)
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
        each(lacking, lambda path: self.bucket.upload(local / path, folder + path, meter.more))
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
