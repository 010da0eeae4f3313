"""The index written anew from what lies beside the artifacts: `records/<input hash>.json`, or the manifest where there is none."""

from __future__ import annotations

from pathlib import Path

from foundry_pipeline.errors import DamagedArtifact, FoundryError
from foundry_pipeline.lineage.files import write_json
from foundry_pipeline.lineage.sealed import sealed
from foundry_pipeline.lineage.second_copy import Row
from foundry_pipeline.lineage.store import Store, read_manifest, read_record
from foundry_pipeline.settings import Settings

_RECORD = ("name", "kind", "input_hash", "content_hash", "inputs", "declaration", "external", "code_version", "facts")


def index_faults(settings: Settings) -> list[str]:
    """Lines that cannot be believed, and builds that have none."""
    store, out = Store(settings.store), []
    for path in sorted((store.root / "index").glob("*.json")):
        try:
            store.record(path.stem)
        except DamagedArtifact as error:
            out.append(f"{path.name}: {error.what}")
    lost = [line["input_hash"] for line in _kept_lines(store) if not _line(store, line).is_file()]
    return [*out, *([f"{len(lost)} builds in the store have no line in it"] if lost else [])]


def _line(store: Store, line: Row) -> Path:
    return store.root / "index" / f"{line['input_hash']}.json"


def _kept_lines(store: Store) -> list[Row]:
    """Every index line that lies beside an artifact; of one from before they did, the line that its manifest tells."""
    out: list[Row] = []
    for folder in sorted((store.root / "artifacts").glob("[0-9a-f]*")):
        found = []
        for path in sorted((folder / "records").glob("*.json")):
            try:
                record = read_record(path, path.stem)
            except (OSError, ValueError, TypeError):
                continue
            if record.content_hash == folder.name:
                found.append(dict(record.__dict__))
        if not found:
            try:
                manifest = read_manifest(folder)
                found = [{name: manifest[name] for name in _RECORD}]
            except (OSError, ValueError, KeyError, TypeError):
                continue
        out += found
    return out


def mend_index(settings: Settings, aside: Path) -> list[str]:
    """Write the index anew; lines that cannot be believed go to `aside`. Raises FoundryError where nothing is wrong."""
    store, out = Store(settings.store), []
    for path in sorted((store.root / "index").glob("*.json")):
        try:
            store.record(path.stem)
        except DamagedArtifact as error:
            aside.mkdir(parents=True, exist_ok=True)
            path.rename(aside / path.name)
            out.append(f"{path.name}: {error.what}; set aside in {aside}")
    written = 0
    for line in _kept_lines(store):
        if not _line(store, line).is_file():
            write_json(_line(store, line), sealed(line))
            written += 1
    if not out and not written:
        raise whole("the index", store.root / "index")
    return [
        *out,
        f"{written} lines written anew from what lies beside the artifacts; what none tells of is built again",
    ]


def whole(what: str, where: Path) -> FoundryError:
    """The error of a repair that has nothing to do."""
    return FoundryError(f"`{what}` is as it was written; nothing to repair", where=str(where), mend="foundry doctor")
