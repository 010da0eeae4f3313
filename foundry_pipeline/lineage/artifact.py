"""What the store holds: an artifact (a folder and its manifest), and the record of a build (a line of the index).

artifact.payload                    the folder of its files, whole
artifact.file("summary.json")       one of them
artifact.read_note("verdict.json")  what lies beside it, outside its hash
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Artifact:
    """A published artifact: its content hash, its folder on this machine and its manifest.

    In a shared store the files may still be elsewhere: `payload` and `file` bring them here first.
    """

    content_hash: str
    folder: Path
    manifest: dict[str, Any]

    @property
    def payload(self) -> Path:
        return self.folder / "payload"

    def file(self, name: str) -> Path:
        """One file of the payload, by its relative POSIX path; whether it is there is the caller's question."""
        return self.folder / "payload" / name

    def sizes(self) -> dict[str, int]:
        """Every file of the payload by its relative POSIX path, with its size in bytes."""
        payload = self.payload
        paths = sorted(p for p in payload.rglob("*") if p.is_file())
        return {p.relative_to(payload).as_posix(): p.stat().st_size for p in paths}

    def read_note(self, name: str) -> bytes | None:
        """What was written beside the artifact under this name, or None."""
        try:
            return (self.folder / name).read_bytes()
        except FileNotFoundError:
            return None

    def write_note(self, name: str, value: Any) -> None:
        """Write JSON beside the artifact, whole or not at all, over what was there."""
        from foundry_pipeline.lineage.store import write_json

        write_json(self.folder / name, value)

    def note_place(self, name: str) -> str:
        """Where a note lies, for people."""
        return str(self.folder / name)


@dataclass(frozen=True)
class Record:
    """One line of the index: which inputs gave which content.

    `inputs` maps an upstream's name to `{"content": …, "input": …}`, so that a walk never needs to guess which of
    several ways to the same content was taken.
    """

    name: str
    kind: str
    input_hash: str
    content_hash: str
    inputs: dict[str, dict[str, str]]
    declaration: dict[str, Any]
    external: dict[str, str]
    code_version: str
    facts: dict[str, Any]
