"""Runs that meet one another or the schedule, and runs whose clock is another."""

from __future__ import annotations

import contextlib
import datetime as dt
import os
import random
import shutil
import signal
import sqlite3
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from benchmarks.faults.judged import Outcome, Story
from benchmarks.faults.nursery import Running
from benchmarks.faults.processes import LONG, ended, kill, start, wait
from benchmarks.faults.world import GOAL, World
from tests.project import Project


def two_runs(world: World, folder: Path, draw: random.Random) -> tuple[str, Outcome]:
    """Two runs of one asset at once, a random moment apart."""
    place, goal = draw.choice((("early", "keeper_dataset_v1"), ("early", "keeper_dataset_v1"), ("ready", GOAL)))
    story = Story(world, world.copy(place, folder / "project"), goal=goal)
    with world.servers(folder / "servers", {"slow": 0.1}) as servers:
        story.servers = list(servers.values())
        apart = draw.uniform(0, 3)
        first = start(story, goal)
        time.sleep(apart)
        second = start(story, goal)
        results = [(run.wait(LONG), run.text()) for run in (first, second)]
        failed = [one for one in results if one[0] != 0]
        if len(failed) == 2:
            story.outcome.found.append("both runs failed")
        story.recover(first=failed[0] if failed else None)
        return f"two runs of {goal}, {apart:.2f} s apart", story.verdict()


def schedule(world: World, folder: Path, draw: random.Random) -> tuple[str, Outcome]:
    """The job of the weekly schedule runs while a run of the chain is on."""
    story = Story(world, world.copy("early", folder / "project"), goal="keeper_dataset_v1")
    with world.servers(folder / "servers", {"slow": 0.2}) as servers:
        story.servers = list(servers.values())
        first = start(story, story.goal)
        moment = draw.uniform(0, 4)
        time.sleep(moment)
        fired = story.world.nursery.start(
            ("dagster", "job", "execute", "-j", "refresh_sources"), story.project.root, world.environment(story.project)
        )
        results = [(run.wait(LONG), run.text()) for run in (first, fired)]
        failed = [one for one in results if one[0] != 0]
        if results[1][0] != 0:
            code, text = story.run(("dagster", "job", "execute", "-j", "refresh_sources"))
            if code != 0:
                story.outcome.found.append(f"the schedule's job fails also alone: {text[-300:]}")
        story.recover(first=failed[0] if failed else None)
        return f"the schedule's job fired {moment:.2f} s into a run", story.verdict()


def fired_by_the_daemon(world: World, folder: Path, draw: random.Random) -> tuple[str, Outcome]:
    """Dagster's own daemon, its clock set to just before Monday 05:00 UTC, fires the schedule while a run is on."""
    story = Story(world, world.copy("early", folder / "project"), goal="keeper_dataset_v1")
    project = story.project
    library = faketime()
    assert library is not None
    with world.servers(folder / "servers", {"slow": 0.6}) as servers:
        story.servers = list(servers.values())
        environment = world.environment(project, DAGSTER_HOME=str(project.root))
        code, text = world.nursery.run(
            ("dagster", "schedule", "start", "weekly_sources", "-w", "workspace.yaml"), project.root, environment
        )
        if code != 0:
            story.outcome.found.append(f"the schedule cannot be started: {text[-300:]}")
        now = dt.datetime.now(dt.UTC)
        monday = dt.datetime.combine(now.date() + dt.timedelta(days=7 - now.weekday()), dt.time(5), dt.UTC)
        ahead = int((monday - now).total_seconds()) - 25
        daemon = world.nursery.start(
            (shutil.which("dagster-daemon") or "dagster-daemon", "run", "-w", "workspace.yaml"),
            project.root,
            environment | moved_clock(library, f"+{ahead}s"),
        )
        try:
            time.sleep(draw.uniform(4, 9))
            first = start(story, story.goal)
            until = time.monotonic() + 150
            fired = False
            while not fired and time.monotonic() < until and daemon.poll() is None:
                fired = _runs_of(project, "refresh_sources", finished=True)
                time.sleep(0.5)
            code = first.wait(LONG)
            if not fired:
                story.outcome.found.append(f"the schedule did not fire: {daemon.text()[-500:]}")
        finally:
            _stop(daemon, project)
        story.recover(first=(code, first.text()) if code else None)
        return "the daemon fired the schedule during a run", story.verdict()


def _runs_of(project: Project, job: str, *, finished: bool) -> bool:
    path = project.root / ".dagster" / "history" / "runs.db"
    if not path.is_file():
        return False
    with (
        contextlib.closing(sqlite3.connect(path, timeout=10)) as connection,
        contextlib.suppress(sqlite3.OperationalError),
    ):
        found = connection.execute("SELECT status FROM runs WHERE pipeline_name = ?", [job]).fetchall()
        return any(status in ("SUCCESS", "FAILURE") for (status,) in found) if finished else bool(found)
    return False


def _stop(daemon: Running, project: Project) -> None:
    """End the daemon and whatever it has started in this project's folder."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(daemon.pid, signal.SIGTERM)
    with contextlib.suppress(TimeoutError):
        daemon.wait(20)
    for pid in within(project.root):
        kill(pid)


def within(folder: Path) -> Iterator[int]:
    """Processes whose working directory is a folder or lies in it."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            with contextlib.suppress(OSError):
                if Path(os.readlink(entry / "cwd")).is_relative_to(folder):
                    yield int(entry.name)


def moved_clock(library: str, by: str) -> dict[str, str]:
    """What makes a process's clock another, in libfaketime's words."""
    path = os.pathsep.join([str(Path(__file__).parent / "clock"), os.environ.get("PYTHONPATH", "")])
    return {"LD_PRELOAD": library, "FAKETIME": by, "FAKETIME_DONT_FAKE_MONOTONIC": "1", "PYTHONPATH": path}


def faketime() -> str | None:
    """The library that moves a process's clock (Debian: libfaketime), or None."""
    found = sorted(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))
    return str(found[0]) if found else None


ANY_CLOCK = ("-30d", "+400d", "-2h", "+3h", "+0 x40", "+0 x0.2")
FAR_OFF = ("-30d", "+400d", "-2h")


def clock(jumps: tuple[str, ...]) -> Callable[[World, Path, random.Random], tuple[str, Outcome]]:
    """A fault: a run whose clock is another (behind, ahead, or running fast), killed or not; then the same command as usual."""

    def fault(world: World, folder: Path, draw: random.Random) -> tuple[str, Outcome]:
        library = faketime()
        assert library is not None
        jump = draw.choice(jumps)
        story = Story(world, world.copy("early", folder / "project"), goal="keeper_dataset_v1")
        story.more = moved_clock(library, jump)
        killed = draw.random() < 0.4
        with world.servers(folder / "servers", {"slow": 0.1}) as servers:
            story.servers = list(servers.values())
            run = start(story, story.goal)
            beside = None
            if not killed and draw.random() < 0.6:
                # Another command, by the right clock, must not take the run for dead.
                wait(lambda: any(s.events("received") for s in story.servers), run)
                moved, story.more = story.more, {}
                _, beside = story.run(("foundry", "doctor"))
                story.more = moved
            if killed:
                wait(lambda: any(len(s.events("received")) > 2 for s in story.servers), run)
                kill(run.pid)
                ended(story, run)
                story.killed()
            code, text = run.wait(LONG), run.text()
            if beside is not None and "closed run" in beside:
                story.outcome.found.append("a living run was taken for dead by a command with another clock")
            story.more = {}
            story.recover(first=None if killed or code == 0 else (code, text))
            return (
                f"clock {jump}{', killed' if killed else ''}{', doctor beside it' if beside is not None else ''}",
                story.verdict(),
            )

    return fault
