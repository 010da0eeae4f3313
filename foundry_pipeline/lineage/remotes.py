"""Artifacts as a shared store holds them, examined before anybody relies on them.

remotes.open(content_hash, "madison_dataset_v6")  → Remote, every object of the size and mark that it was sent with
remotes.examine(content_hash, deep=True)   → what is there, and what is wrong with it
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from foundry_pipeline.errors import DamagedArtifact
from foundry_pipeline.lineage.bucket import Bucket
from foundry_pipeline.lineage.hashing import folder_hash
from foundry_pipeline.lineage.objects import Entry

# Seconds for which an artifact of the shared store is not looked at again; what is fetched is hashed all the same.
_BELIEVED = 60.0


@dataclass(frozen=True)
class Remote:
    """An artifact as the shared store holds it: its manifest (as it lies there, and read), and the object behind each file of the payload."""

    content_hash: str
    text: bytes
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


class Remotes:
    """What the shared store holds, looked at once a minute by each process."""

    def __init__(self, bucket: Bucket) -> None:
        self.bucket = bucket
        self._manifests: dict[str, bytes] = {}
        self._remotes: dict[str, tuple[float, Remote]] = {}

    def forget(self, content_hash: str) -> None:
        self._manifests.pop(content_hash, None)
        self._remotes.pop(content_hash, None)

    def manifest_bytes(self, content_hash: str) -> bytes | None:
        """The manifest in the shared store as it lies there, or None. Once there, it does not change."""
        if content_hash not in self._manifests:
            found = self.bucket.read(manifest_key(content_hash))
            if found is None:
                return None
            self._manifests[content_hash] = found
        return self._manifests[content_hash]

    def open(self, content_hash: str, name: str = "") -> Remote:
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
        found = Remote(content_hash, text, manifest, entries)
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


def _inside(name: str) -> bool:
    """Whether a path of a manifest stays in its payload; a foreign one might not."""
    parts = name.split("/")
    return bool(name) and not name.startswith("/") and "\\" not in name and not {"", ".", ".."} & set(parts)
