"""`foundry doctor` and `foundry repair`: how the installation and the store stand, and what mends them."""

from __future__ import annotations

import os
import platform
import shutil
import sys
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import Any

from foundry_pipeline.cli.dagster_command import MODULE
from foundry_pipeline.cli.instance import close_dead_runs, enter_project, readable_instance
from foundry_pipeline.errors import DamagedArtifact, FoundryError
from foundry_pipeline.settings import Settings, load_settings


def _packages() -> dict[str, Any]:
    from packaging.requirements import Requirement

    lacking, wrong, held = [], [], 0
    for text in requires("foundry-pipeline") or []:
        requirement = Requirement(text)
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
            continue
        try:
            found = version(requirement.name)
        except PackageNotFoundError:
            lacking.append(requirement.name)
            continue
        held += 1
        if not requirement.specifier.contains(found, prereleases=True):
            wrong.append(f"{requirement.name} {found} (wanted {requirement.specifier})")
    faults = [*(f"{p} is missing" for p in lacking), *wrong]
    return {
        "what": "packages",
        "ok": not faults,
        "found": "; ".join(faults) or f"{held} declared packages at their versions, Python {platform.python_version()}",
        "mend": "make setup" if faults else "",
    }


def _command() -> dict[str, Any]:
    path = Path(sys.executable).with_name("dagster")
    ours = path.is_file() and "foundry_pipeline" in path.read_text(encoding="utf-8", errors="replace")
    return {
        "what": "dagster command",
        "ok": ours,
        "found": f"knows this project ({MODULE})" if ours else "is Dagster's own and wants `-m` for every launch",
        "mend": "" if ours else "pip install --no-deps --force-reinstall -e .",
    }


def _declarations(settings: Settings) -> list[dict[str, Any]]:
    from foundry_pipeline.chain.graph import count_assets, load_chain
    from foundry_pipeline.cli import doctor_training

    try:
        d, chain = load_chain(settings)
    except FoundryError as error:
        return [{"what": "declarations", "ok": False, "found": error.what, "mend": error.mend}]
    found = f"profile {d.profile.profile}, {len(d.declared_runs)} runs, {count_assets(chain)} assets"
    return [
        {"what": "declarations", "ok": True, "found": found},
        *doctor_training.findings(d, chain, settings),
    ]


def _store(settings: Settings) -> list[dict[str, Any]]:
    from foundry_pipeline.lineage.opening import open_store

    store = open_store(settings)
    usage = store.usage()
    free = shutil.disk_usage(settings.store if settings.store.exists() else settings.root).free
    held = ", ".join(f"{name} {size / 1e6:.0f} MB" for name, size in usage.items()) or "empty"
    out = [
        {
            "what": "cache" if settings.url else "store",
            "ok": free > 2e9,
            "found": f"{held}; {free / 1e9:.1f} GB free on its disk",
            "mend": "",
        }
    ]
    if free <= 2e9:
        out[0]["mend"] = f"free some space: a run needs about 2 GB ({settings.store})"
    damaged: dict[str, str] = {}
    count = 0
    try:
        for record in store.records():
            count += 1
            try:
                store.open(record.content_hash, name=record.name)
            except DamagedArtifact as error:
                damaged[record.name] = error.what
    except DamagedArtifact as error:
        damaged["index"] = f"{error.what} ({error.where})"
    out.append(
        {
            "what": "artifacts",
            "ok": not damaged,
            "found": "; ".join(damaged.values()) or f"{count} builds on record, every file as it was built",
            "mend": "; ".join(f"foundry repair {name}" for name in damaged),
        }
    )
    from foundry_pipeline.chain.mending import MENDABLE, faults, held_locks

    for what in MENDABLE:
        if what == "index" and settings.url:
            continue  # what is here is a copy of the shared one's
        wrong = faults(settings, what)
        told: dict[str, Any] = {"ok": not wrong, "found": "; ".join(wrong) or "as it was written"}
        out.append({"what": f"file: {what}", **told, "mend": f"foundry repair {what}" if wrong else ""})
    locked = held_locks(settings.store / "locks")
    out.append({"what": "writers", "ok": True, "found": "; ".join(locked) or "nothing is being built"})
    return out


def _ledger(settings: Settings) -> dict[str, Any]:
    from foundry_pipeline.lineage.ledger import read_scores
    from foundry_pipeline.lineage.ledger_database import shown
    from foundry_pipeline.lineage.opening import open_store

    try:
        rows = read_scores(settings.ledger_url)
    except FoundryError as error:
        return {"what": "score ledger", "ok": False, "found": error.what, "mend": error.mend}
    store = open_store(settings)
    held = {content for content in {r["artifact_hash"] for r in rows} if content and store.has(content)}
    alone = sum(r["artifact_hash"] not in held for r in rows)
    told = f"; {alone} of them without their evaluation in this store: not to be replayed here" if alone else ""
    return {"what": "score ledger", "ok": True, "found": f"{len(rows)} scores in {shown(settings.ledger_url)}{told}"}


def _database(settings: Settings) -> list[dict[str, Any]]:
    """The shared database, where one is set; that it can be reached has been seen before."""
    if not settings.database:
        return []
    from foundry_pipeline.models.cache import ResponseCache
    from foundry_pipeline.models.money.ledger import MoneyLedger

    cache, money = ResponseCache(settings.responses_path), MoneyLedger(settings.money_path)
    found = f"{len(cache)} answers and {len(money.rows())} rows of money in {cache.where}"
    return [{"what": "shared database", "ok": True, "found": found}]


def _instance() -> dict[str, Any]:
    if not os.environ.get("DAGSTER_HOME"):
        return {
            "what": "dagster instance",
            "ok": False,
            "found": "no dagster.yaml here",
            "mend": "run it in the project",
        }
    from dagster import DagsterInstance

    try:
        with readable_instance(Path(os.environ["DAGSTER_HOME"])), DagsterInstance.get() as instance:
            dead = close_dead_runs(instance)
            runs = instance.get_runs_count()
    except FoundryError as error:
        return {"what": "dagster instance", "ok": False, "found": error.what, "mend": error.mend}
    freed = "; ".join(
        f"closed run {x.run_id[:8]}" + (f" and freed its slot in {', '.join(x.slots)}" if x.slots else "") for x in dead
    )
    return {"what": "dagster instance", "ok": True, "found": f"{runs} runs on record" + (f"; {freed}" if freed else "")}


def _browser() -> dict[str, Any]:
    found = shutil.which("chromium") or shutil.which("google-chrome")
    return {
        "what": "browser",
        "ok": True,
        "found": found or "no Chromium: the browser tests will say so and be skipped",
    }


def examine(profile: str | None = None) -> dict[str, Any]:
    """Everything worth knowing before asking for help, under a profile; closes dead runs on the way."""
    enter_project(release=False)
    here = load_settings()
    settings = replace(here, profile=profile or here.profile)
    findings = [_packages(), _command(), *_declarations(settings), *_store(settings), _ledger(settings)]
    findings += [_instance(), *_database(settings), _browser()]
    return {"healthy": all(f["ok"] for f in findings), "profile": settings.profile, "findings": findings}


def set_aside(target: str) -> list[str]:
    """Quarantine the damaged artifact that a name or hash stands for; says what was done.

    Raises FoundryError when nothing damaged is meant by it: a whole artifact is never moved.
    """
    from foundry_pipeline.chain.graph import load_chain
    from foundry_pipeline.chain.mending import MENDABLE, mend

    settings = load_settings()
    if target in MENDABLE:
        return mend(settings, target)
    _, chain = load_chain(settings)
    hashes = {
        r.content_hash
        for r in chain.store.records()
        if target == r.name or (len(target) >= 8 and r.content_hash.startswith(target))
    }
    out = []
    for content_hash in sorted(hashes):
        out += chain.store.repair(content_hash)
    if not hashes:
        raise FoundryError(f"nothing stored is called `{target}`", where=chain.store.place, mend="foundry status")
    if not out:
        raise FoundryError(
            f"`{target}` is as it was built; nothing to repair", where=chain.store.place, mend="foundry doctor"
        )
    name = target if target in chain.stages else ""
    out.append(f"build it anew: dagster asset materialize --select {name or '<its asset>'}")
    return out
