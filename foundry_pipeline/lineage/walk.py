"""The way from one build to everything that it was made from, by hash, in a store that has been built on since.

    walker = Walker(store)
    for step in walker.walk(record):
        step.record.name, step.record.content_hash, step.note

An index line says which content an input hash gives *now*. Where that stage was built again since to another content (a
damaged copy was set aside, say), the content that was really used is found by the hash the build below it recorded: its
own manifest stands in for the index line. So a walk never slides over to what was built later.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from typing import Any

from foundry_pipeline.errors import DamagedArtifact
from foundry_pipeline.lineage.store import Record, Store, read_record

_FIELDS = tuple(f.name for f in fields(Record))


@dataclass(frozen=True)
class Step:
    """One build on the way. `note` says what is odd about it: rebuilt since, gone, or damaged."""

    record: Record
    note: str = ""


class Walker:
    """Reads each index line and manifest of a store once. Follows no recursion: a chain may be of any length."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self._found: dict[tuple[str, str], tuple[Record | None, str]] = {}

    def find(self, input_hash: str, content_hash: str) -> tuple[Record | None, str]:
        """The build of these inputs that gave this content, or None, and what is odd about it."""
        key = (input_hash, content_hash)
        if key not in self._found:
            self._found[key] = self._find(input_hash, content_hash)
        return self._found[key]

    def _find(self, input_hash: str, content_hash: str) -> tuple[Record | None, str]:
        damaged = ""
        try:
            record = self.store.record(input_hash)
        except DamagedArtifact as error:
            record, damaged = None, error.what
        if record is not None and record.content_hash == content_hash:
            return record, ""
        own = self._beside(input_hash, content_hash) or self._manifest(content_hash)
        since = (
            f"built again since, then as {record.content_hash[:12]}"
            if record is not None
            else damaged or "no longer in the index, found by its content"
        )
        return own, since if own is not None else ""

    def _beside(self, input_hash: str, content_hash: str) -> Record | None:
        """The line of these inputs that is kept beside the content."""
        try:
            return read_record(self.store.folder(content_hash) / "records" / f"{input_hash}.json", input_hash)
        except (OSError, ValueError, TypeError):
            return None

    def _manifest(self, content_hash: str) -> Record | None:
        """The build that first gave a content, from the manifest beside it."""
        try:
            found = self.store.read_manifest(content_hash)
            return Record(**{name: found[name] for name in _FIELDS})
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def walk(self, record: Record, *, verify: bool = False) -> Iterator[Step]:
        """The build itself, then what it was made from, each once, nearest branch first.

        With `verify` every file is read and compared with its manifest (as long as reading the store takes); without,
        an artifact only has to be there.
        """
        waiting: list[tuple[Record, str]] = [(record, "")]
        seen: set[tuple[str, str]] = set()
        while waiting:
            build, note = waiting.pop()
            if (build.input_hash, build.content_hash) in seen:
                continue
            seen.add((build.input_hash, build.content_hash))
            notes = [note] if note else []
            if trouble := self._trouble(build, verify):
                notes.append(trouble)
            upstream: list[tuple[Record, str]] = []
            for name, way in build.inputs.items():
                found, odd = self.find(way["input"], way["content"])
                if found is None:
                    notes.append(f"{name} ({way['content'][:12]}) is no longer in the store")
                else:
                    upstream.append((found, odd))
            yield Step(build, "; ".join(notes))
            waiting += reversed(upstream)

    def _trouble(self, record: Record, verify: bool) -> str:
        if verify:
            try:
                self.store.open(record.content_hash, name=record.name)
            except DamagedArtifact as error:
                return error.what
        elif not self.store.has(record.content_hash):
            return f"{record.name} artifact is no longer in the store"
        return ""

    def nearest(self, record: Record, kind: str) -> Record | None:
        """The build of that kind which the fewest steps lead to; of an adapter its own dataset before another's."""
        queue, seen = [record], set()
        for step in queue:  # grows while it is read
            if step.input_hash in seen:
                continue
            seen.add(step.input_hash)
            if step.kind == kind:
                return step
            ways = sorted(step.inputs.items(), key=_dataset_then_adapter)
            queue += [r for _, way in ways if (r := self.find(way["input"], way["content"])[0]) is not None]
        return None

    def of_score(self, score: Mapping[str, Any]) -> Record | None:
        """The evaluation behind a row of the ledger; an old row may name a content that the store has lost."""
        found, _ = self.find(score["input_hash"], score["artifact_hash"])
        return found


def _dataset_then_adapter(item: tuple[str, Any]) -> tuple[bool, bool]:
    return "_dataset" not in item[0], "_adapter" not in item[0]
