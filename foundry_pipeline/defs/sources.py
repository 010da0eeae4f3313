"""Sources in Dagster: asking remote ones before they are read, and watching the folders of local ones.

The asset `<character>_sources` asks first, so the weekly schedule needs nothing of its own. The sensor `drop_folder` looks
at the files that manifests name and requests one run of that asset when their content has changed; it is stopped until a
user starts it.
"""

# Dagster reads the annotations of a sensor's function as objects: no `from __future__ import annotations` here.

import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import dagster as dg

from foundry_pipeline.chain.engine import Chain
from foundry_pipeline.chain.stage import Stage
from foundry_pipeline.corpus.connectors.base import Place
from foundry_pipeline.corpus.refresh import limits_of, refresh_character
from foundry_pipeline.corpus.session import Report
from foundry_pipeline.corpus.snapshot import snapshot_folder
from foundry_pipeline.declarations import CharacterFiles, Declarations
from foundry_pipeline.errors import FoundryError
from foundry_pipeline.lineage.hashing import digest, file_hash

ANSWERED = "sources_answered"
INTERVAL = 30  # seconds between two looks at the drop folders
SETTLE = 5  # seconds: a file changed more recently than this may still be being written


# -- remote sources ------------------------------------------------------------------------------------------------


def is_fetched(files: CharacterFiles) -> bool:
    """Whether any source of a character comes over the network."""
    base = files.folder / "manifests"
    return any(limits_of(Place(manifest, base)) is not None for manifest in files.manifests.values())


def source_checks(d: Declarations, stage: Stage) -> list[dg.AssetCheckSpec]:
    """The check that says whether every remote document could be had; it warns and never blocks."""
    if stage.kind != "sources" or not is_fetched(d.characters[stage.character]):
        return []
    about = "Every document of every remote source answered. If not, the texts are those of the last time it did."
    return [dg.AssetCheckSpec(ANSWERED, asset=dg.AssetKey(stage.name), description=about)]


def ask_sources(
    d: Declarations, chain: Chain, stage: Stage, *, log: Callable[[str], None], warn: Callable[[str], None]
) -> list[dg.AssetCheckResult]:
    """Refresh what is due before the stage is looked up; with `FOUNDRY_OFFLINE` set nothing is asked.

    A source that could not be refreshed is built from what was fetched before, with a warning and a failed check; one
    of which nothing was ever fetched stops the build.
    """
    if stage.kind != "sources":
        return []
    chain.forget(stage.name)  # its files may have changed since this process began
    if not source_checks(d, stage):
        return []
    files = d.characters[stage.character]
    if os.environ.get("FOUNDRY_OFFLINE"):
        log("FOUNDRY_OFFLINE is set: nothing is asked for, the sources are read as they were fetched before")
        return [_answered(stage, [])]
    base = files.folder / "manifests"
    reports = refresh_character(
        files.manifests, character=stage.character, base=base, store=chain.store, if_due=True, say=log
    )
    failed = [r for r in reports if r.failed]
    for report in failed:
        fetched = Place(
            files.manifests[report.source], base, snapshot_folder(chain.store.root, stage.character)
        ).snapshot
        if report.error is not None and fetched.contents() is None:
            raise report.error
        told = [f"{o.key}: {o.note}" for o in report.outcomes if o.state == "failed"]
        whole = str(report.error) if report.error is not None else "; ".join(told[:5])
        warn(f"the source `{report.source}` was not refreshed whole, what was fetched before is used: {whole}")
    return [_answered(stage, reports)]


def _answered(stage: Stage, reports: list[Report]) -> dg.AssetCheckResult:
    told: dict[str, Any] = {}
    for report in reports:
        counts = ", ".join(f"{n} {state}" for state, n in report.counts.items() if n)
        told[report.source] = f"{counts or 'nothing'}; {report.requests} requests"
        worth = [o for o in report.outcomes if o.state in ("failed", "vanished", "left out")]
        if worth:
            told[f"{report.source}: not as usual"] = dg.MetadataValue.json(
                [{"document": o.key, "state": o.state, "note": o.note} for o in worth[:200]]
            )
        if report.error is not None:
            told[f"{report.source}: stopped by"] = str(report.error)
    return dg.AssetCheckResult(
        check_name=ANSWERED,
        asset_key=dg.AssetKey(stage.name),
        passed=not any(r.failed for r in reports),
        severity=dg.AssetCheckSeverity.WARN,
        description=None if reports else "nothing was due to be asked for",
        metadata=told,
    )


# -- local sources -------------------------------------------------------------------------------------------------


def drop_folders(files: CharacterFiles) -> list[Path]:
    """Folders and files that a character's manifests read texts from on this machine."""
    found = []
    for manifest in files.manifests.values():
        # `path` of a local or Gutenberg source, `answers` of a Founders Online one.
        told = getattr(manifest.connector, "path", "") or getattr(manifest.connector, "answers", "")
        if told:
            found.append(files.folder / "manifests" / told)
    return sorted(set(found))


def drop_folder_sensor(d: Declarations, chain: Chain) -> dg.SensorDefinition | None:
    """One sensor over the drop folders of all characters; None where no source is read from files."""
    watched = {name: places for name, files in d.characters.items() if (places := drop_folders(files))}
    if not watched:
        return None

    @dg.sensor(
        name="drop_folder",
        asset_selection=dg.AssetSelection.assets(*[f"{name}_sources" for name in watched]),
        minimum_interval_seconds=INTERVAL,
        default_status=dg.DefaultSensorStatus.STOPPED,
        description="Reads a character's sources again when a file in one of its folders has changed.",
    )
    def drop_folder(context: dg.SensorEvaluationContext) -> dg.SensorResult | dg.SkipReason:
        cursor = json.loads(context.cursor or "{}")
        requests, waiting = [], []
        for name, places in watched.items():
            stats = list(_stats(places))
            if any(time.time() - stat[2] / 1e9 < SETTLE for stat in stats):
                waiting.append(name)
                continue
            seen = digest([(str(path), size, changed) for path, size, changed in stats])
            before = cursor.get(name, {})
            if before.get("seen") == seen:
                continue
            content = digest([(str(path), file_hash(path)) for path, _, _ in stats])
            cursor[name] = {"seen": seen, "content": content}
            if before.get("content") == content or (not before and _is_built(chain, f"{name}_sources")):
                continue
            # Texts may return to what they once were, and are then to be read again: the key holds the moment, too.
            key = f"{name}-{content[:24]}-{seen[:8]}"
            requests.append(dg.RunRequest(run_key=key, asset_selection=[dg.AssetKey(f"{name}_sources")]))
        if not requests:
            why = f"files of {', '.join(waiting)} are still being written" if waiting else "no file has changed"
            context.update_cursor(json.dumps(cursor, sort_keys=True))
            return dg.SkipReason(why)
        return dg.SensorResult(run_requests=requests, cursor=json.dumps(cursor, sort_keys=True))

    return drop_folder


def _stats(places: list[Path]) -> Iterator[tuple[Path, int, int]]:
    """(path, bytes, time of change in ns) of every file below the places, hidden ones and links left out."""
    for place in places:
        paths = sorted(place.rglob("*")) if place.is_dir() else [place]
        for path in paths:
            if path.is_symlink() or not path.is_file() or path.name.startswith("."):
                continue
            stat = path.stat()
            yield path, stat.st_size, stat.st_mtime_ns


def _is_built(chain: Chain, name: str) -> bool:
    """Whether the sources have been read as they lie there now."""
    chain.forget(name)
    try:
        return chain.resolve(name).record is not None
    except FoundryError:
        return False  # the run that is then requested says what is wrong with them
