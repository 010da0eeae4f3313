"""The artifact store: folders named by the hash of what they hold.

    artifacts/<content hash>/payload/…      the files themselves, never changed once published
    artifacts/<content hash>/manifest.json  what it is and what it was built from
    artifacts/<content hash>/verdict.json   checks of a dataset or of GGUF files, beside them and outside the hash
    artifacts/<content hash>/records/…      the index lines that lead here, so that a lost index is found again
    index/<input hash>.json                 inputs + declaration + code version → content hash
    work/<input hash>/                      unfinished work that a repeated command resumes
    locks/<input hash>.lock                 one writer at a time

An artifact is written under a temporary name on the same file system, synced and renamed, so a folder under
`artifacts/` is whole or absent. Nothing is ever found by age, by link or by name alone. Manifests and index lines are
sealed (`lineage/sealed.py`): one that was edited is named, not believed.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import orjson

from foundry_pipeline.errors import DamagedArtifact, Locked
from foundry_pipeline.lineage.artifact import Artifact, Record
from foundry_pipeline.lineage.files import disk_error, move_folder, write_json
from foundry_pipeline.lineage.hashing import folder_files, folder_hash
from foundry_pipeline.lineage.sealed import sealed, unsealed


def read_record(path: Path, input_hash: str) -> Record:
    """An index line. Raises ValueError or TypeError where it is not what was written under this input hash."""
    line = path.read_bytes()  # of a large store a quarter of a gigabyte in all: hence orjson
    try:
        return record_of(orjson.loads(line), input_hash)
    except ValueError:  # orjson makes a float of an integer beyond 64 bits, which another seal belongs to
        return record_of(json.loads(line), input_hash)


def record_of(found: Any, input_hash: str) -> Record:
    """An index line from its JSON. Raises ValueError or TypeError where it is not what was written under this input hash."""
    record = Record(**unsealed(found, required=False))
    if record.input_hash != input_hash:
        raise ValueError("it is of other inputs than its name says")
    return record


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest in an artifact's folder. Raises OSError or ValueError where it cannot be read or was edited."""
    return unsealed(json.loads((folder / "manifest.json").read_text(encoding="utf-8")), required=False)


class Store:
    """A local artifact store below one folder.

    Assumes one file system (renames are atomic) and `flock`. Raises DamagedArtifact when content does not match its
    name, Locked when another process writes the same artifact, FoundryError when the disk is full or read-only.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._verified: dict[str, tuple[tuple[str, int, int], ...]] = {}

    # -- reading -------------------------------------------------------------------------------------------------

    def folder(self, content_hash: str) -> Path:
        return self.root / "artifacts" / content_hash

    @property
    def place(self) -> str:
        """Where the store is, for people."""
        return str(self.root)

    def has(self, content_hash: str) -> bool:
        """Whether an artifact of that hash is there, its files not looked at."""
        return (self.folder(content_hash) / "manifest.json").is_file()

    def contents(self, prefix: str) -> list[str]:
        """Content hashes that begin so, sorted."""
        return sorted(p.name for p in (self.root / "artifacts").glob(f"{prefix}*") if p.is_dir())

    def read_manifest(self, content_hash: str) -> dict[str, Any]:
        """The manifest of an artifact. Raises OSError where there is none, ValueError where it cannot be read."""
        return read_manifest(self.folder(content_hash))

    def file(self, content_hash: str, name: str) -> Path | None:
        """One payload file of an artifact, not compared with its manifest; None where it is not there."""
        path = self.folder(content_hash) / "payload" / name
        return path if path.is_file() else None

    def sizes(self, content_hash: str) -> dict[str, int]:
        """Every payload file with its size in bytes, not compared with the manifest. Raises OSError where it is gone."""
        if not (self.folder(content_hash) / "payload").is_dir():
            raise FileNotFoundError(errno.ENOENT, "the folder is not there")
        return Artifact(content_hash, self.folder(content_hash), {}).sizes()

    def record(self, input_hash: str, *, fresh: bool = False) -> Record | None:
        """The index line of an input hash, or None. `fresh` asks anew where others write as well.

        Raises DamagedArtifact where it was torn or edited.
        """
        path = self.root / "index" / f"{input_hash}.json"
        if not path.is_file():
            return None
        try:
            return read_record(path, input_hash)
        except (ValueError, TypeError, RecursionError) as error:
            raise DamagedArtifact(
                f"the index line cannot be believed ({error})",
                where=str(path),
                mend="foundry repair index  # sets it aside and writes it anew from beside its artifact",
            ) from error

    def records(self) -> Iterator[Record]:
        for path in sorted((self.root / "index").glob("*.json")):
            record = self.record(path.stem)
            if record is not None:
                yield record

    def open(self, content_hash: str, *, name: str = "") -> Artifact:
        """The artifact of that hash, after comparing every payload file with the manifest.

        A folder verified once in this process is compared by size and time afterwards.
        """
        folder = self.folder(content_hash)
        mend = f"foundry repair {name or content_hash}"
        label = f"{name} " if name else ""
        try:
            manifest = self.read_manifest(content_hash)
            declared = dict(manifest["files"])
        except (OSError, KeyError, TypeError, ValueError, RecursionError) as error:
            raise DamagedArtifact(
                f"{label}artifact has no readable manifest ({error})", where=str(folder), mend=mend
            ) from error
        stats = self._stats(folder / "payload")
        if self._verified.get(content_hash) != stats:
            found = folder_files(folder / "payload")
            wrong = sorted(p for p in declared.keys() | found.keys() if declared.get(p) != found.get(p))
            sealed = manifest.get("payload_hash")
            if wrong or folder_hash(declared) != sealed or manifest.get("content_hash") != content_hash:
                what = f"{', '.join(wrong[:3])} differs from what was built" if wrong else "its manifest was changed"
                raise DamagedArtifact(f"{label}artifact is damaged: {what}", where=str(folder / "payload"), mend=mend)
            self._verified[content_hash] = stats
        return Artifact(content_hash, folder, manifest)

    def reuse(self, record: Record) -> Artifact:
        """The artifact of a build that is found instead of made; verified as by `open`."""
        return self.open(record.content_hash, name=record.name)

    def read_note(self, key: str) -> bytes | None:
        """A small file of the store that may be written anew (the mark of a collapse, say), or None."""
        try:
            return (self.root / key).read_bytes()
        except FileNotFoundError:
            return None

    def bring_sources(self, character: str) -> None:
        """Fetch the source texts that other machines have asked for since; nothing where nobody else writes here."""

    def sync_sources(self, character: str) -> None:
        """`bring_sources`, and let the others have what this machine has asked for since."""

    def notes(self, folder: str) -> list[str]:
        """Names of the notes in a folder of the store, sorted."""
        return sorted(p.name for p in (self.root / folder).glob("*.json"))

    @staticmethod
    def _stats(payload: Path) -> tuple[tuple[str, int, int], ...]:
        files = sorted(p for p in payload.rglob("*") if p.is_file())
        return tuple((str(p), p.stat().st_size, p.stat().st_mtime_ns) for p in files)

    # -- writing -------------------------------------------------------------------------------------------------

    def work(self, input_hash: str) -> Path:
        folder = self.root / "work" / input_hash
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise disk_error(error, folder) from error
        return folder

    def write_note(self, key: str, value: Any) -> None:
        """Write a note as JSON, whole or not at all, over what was there."""
        write_json(self.root / key, value)

    def remove_note(self, key: str) -> None:
        (self.root / key).unlink(missing_ok=True)

    def note_place(self, key: str) -> str:
        """Where a note lies, for people."""
        return str(self.root / key)

    @contextmanager
    def lock(self, input_hash: str, *, name: str) -> Iterator[None]:
        """Hold the right to build one artifact; a second writer is refused, naming the holder.

        The kernel releases the lock when the process dies, however it dies.
        """
        path = self.root / "locks" / f"{input_hash}.lock"
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            handle = path.open("a+", encoding="utf-8")
        except OSError as error:
            raise disk_error(error, path) from error
        with handle:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                handle.seek(0)
                holder = handle.read().strip() or "another process"
                raise Locked(
                    f"{name} is being built by {holder}",
                    where=str(path),
                    mend="wait for it to end, or stop it; then run the same command again",
                ) from error
            handle.seek(0)
            handle.truncate()
            handle.write(f"process {os.getpid()}")
            handle.flush()
            yield

    def publish(
        self,
        payload: Path,
        *,
        record: dict[str, Any],
        content_hash: str | None = None,
        manifest: dict[str, Any] | None = None,
    ) -> Artifact:
        """Move a finished payload folder into the store and index it.

        `record` holds every field of `Record` but `content_hash`. `content_hash` overrides the folder's own (datasets
        are hashed over their canonical rows). First writer wins: content that is already there is kept, the new copy
        is dropped. Returns the artifact as stored.
        """
        files = folder_files(payload)
        payload_hash = folder_hash(files)
        content_hash = content_hash or payload_hash
        target = self.folder(content_hash)
        temporary: Path | None = None
        try:
            if not (target / "manifest.json").is_file():
                temporary = self.root / "artifacts" / f".{content_hash}.{uuid.uuid4().hex}"
                temporary.mkdir(parents=True)
                move_folder(payload, temporary / "payload")
                facts = record.get("facts", {})
                told = {
                    **(manifest or {}),
                    **{k: v for k, v in record.items() if k != "facts"},
                    "facts": facts,
                    "content_hash": content_hash,
                    "payload_hash": payload_hash,
                    "files": files,
                }
                write_json(temporary / "manifest.json", sealed(told))
                try:
                    temporary.rename(target)
                except OSError as error:
                    if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                        raise
            artifact = self.open(content_hash, name=record["name"])
            line = sealed({**record, "content_hash": content_hash})
            write_json(target / "records" / f"{record['input_hash']}.json", line)
            write_json(self.root / "index" / f"{record['input_hash']}.json", line)
        except OSError as error:
            raise disk_error(error, target) from error
        finally:
            if temporary is not None:
                shutil.rmtree(temporary, ignore_errors=True)
        return artifact

    def discard_work(self, input_hash: str) -> None:
        shutil.rmtree(self.root / "work" / input_hash, ignore_errors=True)

    def quarantine(self, content_hash: str) -> Path | None:
        """Set a damaged artifact aside (never deleted) so that the next build makes it anew; its index lines go too."""
        folder = self.folder(content_hash)
        aside = None
        if folder.exists():
            aside = self.root / "quarantine" / f"{content_hash}-{uuid.uuid4().hex[:8]}"
            aside.parent.mkdir(parents=True, exist_ok=True)
            folder.rename(aside)
        self._verified.pop(content_hash, None)
        for path in (self.root / "index").glob("*.json"):
            try:
                record = self.record(path.stem)
            except DamagedArtifact:
                continue  # another fault, with a command of its own
            if record is not None and record.content_hash == content_hash:
                path.unlink()
        return aside

    def repair(self, content_hash: str) -> list[str]:
        """Set an artifact aside where it is damaged; what was done, and nothing where it is whole."""
        try:
            self.open(content_hash)
        except DamagedArtifact as error:
            return [f"{error.what}; set aside as {self.quarantine(content_hash)}"]
        return []

    def usage(self) -> dict[str, int]:
        """Bytes held, by top folder of the store."""
        out: dict[str, int] = {}
        for folder in sorted(p for p in self.root.iterdir() if p.is_dir()) if self.root.is_dir() else []:
            out[folder.name] = sum(p.stat().st_size for p in folder.rglob("*") if p.is_file())
        return out
