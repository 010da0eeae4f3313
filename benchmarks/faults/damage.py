"""Damage at rest: files that a disk, a copy or a hand has changed, and files and folders that are gone."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from benchmarks.faults.judged import Outcome, Story, put_in_place
from benchmarks.faults.world import GOAL, World
from foundry_pipeline.chain.gate import believed
from foundry_pipeline.lineage.sealed import sealed
from tests.project import Project, contents

Fault = Callable[[World, Path, random.Random], tuple[str, Outcome]]
Harm = Callable[[Path, random.Random], str]


def flipped(path: Path, draw: random.Random) -> str:
    data = bytearray(path.read_bytes())
    at, bit = draw.randrange(len(data)), draw.randrange(8)
    data[at] ^= 1 << bit
    put_in_place(path, bytes(data))
    return f"bit {bit} of byte {at} of {len(data)} flipped"


def cut_off(path: Path, draw: random.Random) -> str:
    data = path.read_bytes()
    length = draw.randrange(len(data))
    put_in_place(path, data[:length])
    return f"cut off at {length} of {len(data)} bytes"


def emptied(path: Path, draw: random.Random) -> str:
    put_in_place(path, b"")
    return "emptied"


HARMS: tuple[Harm, ...] = (flipped, flipped, flipped, cut_off, cut_off, emptied)


def _store_files(project: Project, pattern: str, draw: random.Random, kinds: tuple[str, ...] = ()) -> Path:
    """One file of the artifacts that stand for the present declarations, of those kinds of assets where given."""
    names = {content: name for name, content in contents(project).items()}
    found = [
        path
        for content, name in sorted(names.items())
        if not kinds or name.endswith(kinds)
        for path in sorted((project.store / "artifacts" / content).glob(pattern))
        if path.is_file() and path.stat().st_size
    ]
    return draw.choice(found)


@dataclass(frozen=True)
class Where:
    """From which place of the chain's way a fault starts, and what is asked for afterwards; `alone`: that asset only."""

    place: str
    goal: str
    alone: bool = False


DATA = Where("data", "keeper_dataset_v1")
WHOLE = Where("whole", GOAL)
SCORED = Where("whole", GOAL, alone=True)


def in_store(pattern: str, kinds: tuple[str, ...] = (), where: Where = DATA) -> Fault:
    """A fault: one file of an artifact that fits the pattern."""
    return _harmed(lambda project, draw: _store_files(project, pattern, draw, kinds), where)


def named(*patterns: str, where: Where = DATA) -> Fault:
    """A fault: one file of the project that fits one of the patterns."""

    def choose(project: Project, draw: random.Random) -> Path:
        found = sorted(
            p for pattern in patterns for p in project.root.glob(pattern) if p.is_file() and p.stat().st_size
        )
        return draw.choice(found)

    return _harmed(choose, where)


def _harmed(choose: Callable[[Project, random.Random], Path], where: Where) -> Fault:
    def fault(world: World, folder: Path, draw: random.Random) -> tuple[str, Outcome]:
        with world.servers(folder / "servers", {}) as servers:
            # What is stored is read before the harm: a harmed file may not be readable at all.
            story = Story(world, world.copy(where.place, folder / "project"), goal=where.goal, alone=where.alone)
            story.servers = list(servers.values())
            path = choose(story.project, draw)
            told = f"{path.relative_to(story.project.root)}: {draw.choice(HARMS)(path, draw)}"
            story.recover()
            return told, story.verdict()

    return fault


def deleted(*patterns: str, most: int = 99, where: Where = DATA) -> Fault:
    """A fault: what fits the patterns is deleted; `most` of it, drawn."""

    def fault(world: World, folder: Path, draw: random.Random) -> tuple[str, Outcome]:
        with world.servers(folder / "servers", {}) as servers:
            project = world.copy(where.place, folder / "project")
            story = Story(world, project, goal=where.goal, alone=where.alone)
            story.servers = list(servers.values())
            found = sorted(p for pattern in patterns for p in project.root.glob(pattern))
            chosen = sorted(draw.sample(found, min(most, len(found))))
            for path in chosen:
                shutil.rmtree(path) if path.is_dir() else path.unlink()
            story.recover()
            shown = ", ".join(str(p.relative_to(project.root)) for p in chosen[:3])
            return f"deleted: {shown}{' …' if len(chosen) > 3 else ''}", story.verdict()

    return fault


def gate(world: World, folder: Path, draw: random.Random) -> tuple[str, Outcome]:
    """A dataset (or exported files) that has failed, is without a verdict, or whose verdict a hand has turned: what reads
    it must refuse, launched alone, before anything mends it."""
    with world.servers(folder / "servers", {}) as servers:
        asset, behind = draw.choice(
            (("keeper_dataset_v1", "keeper_first_adapter"), ("keeper_first_gguf", "keeper_first_responses"))
        )
        project = world.copy("ready" if behind == "keeper_first_adapter" else "whole", folder / "project")
        story = Story(world, project, goal=behind, alone=True)
        story.servers = list(servers.values())
        path = project.store / "artifacts" / contents(project)[asset] / "verdict.json"
        verdict = believed(path.read_bytes() if path.exists() else None)
        assert verdict is not None
        failed = {**verdict, "passed": False}
        how = draw.choice(("failed", "turned by hand", "gone", "of another", "harmed", "seal taken off"))
        if how == "failed":
            put_in_place(path, json.dumps(sealed(failed)).encode())
        elif how == "turned by hand":
            put_in_place(path, json.dumps({**sealed(failed), "passed": True}).encode())
        elif how == "gone":
            path.unlink()
        elif how == "of another":
            put_in_place(
                path, json.dumps(sealed({**verdict, "dataset_hash": "0" * 64, "gguf_hash": "0" * 64})).encode()
            )
        elif how == "seal taken off":
            put_in_place(path, json.dumps(verdict).encode())
        else:
            how = draw.choice(HARMS)(path, draw)
        lost = draw.random() < 0.5
        if lost:
            shutil.rmtree(project.root / ".dagster")
        code, text = story.run(("dagster", "asset", "materialize", "--select", behind))
        still = believed(path.read_bytes() if path.exists() else None)
        if code == 0 and (still is None or still != verdict):
            story.outcome.bypassed += 1
            story.outcome.found.append(f"{behind} was built past the gate")
        if code != 0 and "refused" not in text:
            story.outcome.found.append(f"{behind} failed, but not at the gate: {text.strip()[-300:]}")
        if how == "failed":
            # A verdict that was reached is kept: nobody checks again until the data or the expectations change. What the
            # campaign has written is taken away, as the data that earned it would be.
            path.unlink()
            code, text = story.run(("dagster", "asset", "materialize", "--select", behind))
            if code == 0:
                story.outcome.bypassed += 1
        story.recover(first=(code, text) if code != 0 else None)
        if believed(path.read_bytes() if path.exists() else None) != verdict:
            story.outcome.found.append("the verdict is not what it was")
        return f"verdict of {asset} {how}{', and the instance deleted' if lost else ''}", story.verdict()


def work(world: World, folder: Path, draw: random.Random) -> tuple[str, Outcome]:
    """Unfinished work that was harmed: the training goes on from the last checkpoint that is whole."""
    project = world.copy("data", folder / "project")
    story = Story(world, project, goal="keeper_first_adapter")
    with world.servers(folder / "servers", {}) as servers:
        story.servers = list(servers.values())
        from benchmarks.faults.processes import kill_when_training

        kill_when_training(story, checkpoints=2)
        found = sorted(p for p in (project.store / "work").rglob("*") if p.is_file() and p.stat().st_size)
        found = [p for p in found if "checkpoints" in p.parts] or found
        path = draw.choice(found)
        told = f"{path.relative_to(project.store)}: {draw.choice(HARMS)(path, draw)}"
        story.recover()
        return told, story.verdict()
