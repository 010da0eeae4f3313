"""What a run stands on: servers that fail, disks that are full, stores that may not be written."""

from __future__ import annotations

import random
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

from benchmarks.faults.judged import Outcome, Story
from benchmarks.faults.world import World, materialize

GOAL = "keeper_dataset_v1"


def answered_with(fault: str, *, batch: bool = False) -> Callable[[World, Path, random.Random], tuple[str, Outcome]]:
    """A fault: servers that answer a share of the attempts with it."""

    def run(world: World, folder: Path, draw: random.Random) -> tuple[str, Outcome]:
        story = Story(world, world.copy("early", folder / "project"), goal=GOAL)
        share = draw.uniform(0.2, 0.6)
        often = draw.randint(1, 3)
        script = {"faults": {fault: share}, "seed": draw.randrange(10**6), "most_faults": often, "hang": 1.0}
        profile = story.project.root / "assets/profiles/served.yaml"
        asked = profile.read_text().replace("remote: {concurrency: 4}", "remote: {concurrency: 4, timeout_seconds: 4}")
        if batch:
            asked = asked.replace(
                "{concurrency: 4, timeout_seconds: 4}", "{concurrency: 4, batch: true, poll_seconds: 0.1}", 1
            )
        profile.write_text(asked)
        with world.servers(folder / "servers", script) as servers:
            story.servers = list(servers.values())
            code, text = story.run(materialize(GOAL))
            story.recover(first=(code, text) if code else None)
            met = sum(bool(line.get("fault")) for s in story.servers for line in s.log())
            if code == 0:
                story.outcome.noticed = "asked again by itself"
            return f"{fault} in {share:.0%} of the attempts, {often} times at most ({met} met)", story.verdict()

    return run


def can_mount(folder: Path) -> bool:
    """Whether this process may mount a file system of its own."""
    folder.mkdir(parents=True, exist_ok=True)
    tried = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)], capture_output=True, check=False
    )
    if tried.returncode == 0:
        subprocess.run(["umount", str(folder)], check=True)
    return tried.returncode == 0


def full_disk(world: World, folder: Path, draw: random.Random) -> tuple[str, Outcome]:
    """The store lies on a file system with so many kilobytes of room; then it is made larger, and the command repeated."""
    project = world.copy("early", folder / "project")
    story = Story(world, project, goal=GOAL)
    held = sum(p.stat().st_size for p in project.store.rglob("*") if p.is_file())
    room = draw.randrange(4, 260) * 1024  # the run writes some 300 kB
    aside = project.root / "store-before"
    project.store.rename(aside)
    project.store.mkdir()
    blocks = sum(-(-p.stat().st_size // 4096) * 4096 for p in aside.rglob("*") if p.is_file())
    size = blocks + 4096 * sum(1 for _ in aside.rglob("*")) + room
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(project.store)], check=True)
    try:
        shutil.copytree(aside, project.store, dirs_exist_ok=True)
        shutil.rmtree(aside)

        def larger() -> None:
            subprocess.run(["mount", "-o", "remount,size=512m", str(project.store)], check=True)

        story.undo = larger
        with world.servers(folder / "servers", {}) as servers:
            story.servers = list(servers.values())
            code, text = story.run(materialize(GOAL))
            larger()  # what is stored cannot be looked at before: SQLite needs room to read, too
            story.killed()  # an answer that the disk had no room for was paid for, and is asked for again
            story.recover(first=(code, text) if code else None)
            if code == 0:
                story.outcome.noticed = "nothing: there was room enough"
            return f"{room // 1024} kB of room beside {held // 1024} kB of store", story.verdict()
    finally:
        subprocess.run(["umount", "-l", str(project.store)], check=False)


def read_only(world: World, folder: Path, draw: random.Random) -> tuple[str, Outcome]:
    """The store may not be written; what only reads goes on, what writes says so; then it may be written again."""
    place, goal = draw.choice((("early", GOAL), ("data", "keeper_first_adapter"), ("whole", "keeper_first_eval")))
    project = world.copy(place, folder / "project")
    story = Story(world, project, goal=goal)
    subprocess.run(["mount", "--bind", str(project.store), str(project.store)], check=True)
    subprocess.run(["mount", "-o", "remount,ro,bind", str(project.store)], check=True)
    mounted = True

    def writable() -> None:
        nonlocal mounted
        if mounted:
            subprocess.run(["umount", str(project.store)], check=True)
            mounted = False

    story.undo = writable
    try:
        with world.servers(folder / "servers", {}) as servers:
            story.servers = list(servers.values())
            reading = draw.choice(
                (("foundry", "status"), ("foundry", "scores"), ("foundry", "costs"), ("foundry", "check"))
            )
            code, text = story.run(reading)
            if code != 0 and "mend:" not in text:
                story.outcome.found.append(f"`{' '.join(reading)}` on a read-only store: {text.strip()[-300:]}")
            code, text = story.run(materialize(goal))
            story.recover(first=(code, text) if code else None)
            if code == 0:
                story.outcome.noticed = "nothing: there was nothing to write"
            writable()
            return f"read-only store, {goal}", story.verdict()
    finally:
        if mounted:
            subprocess.run(["umount", "-l", str(project.store)], check=False)
