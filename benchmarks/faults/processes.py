"""Processes that are killed."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks.faults.judged import Outcome, Story
from benchmarks.faults.nursery import Running
from benchmarks.faults.world import World, materialize
from tests.project import Project, children_running

TRAINER = "foundry_pipeline.training.train"
GENERATORS = ("foundry_pipeline.models.generate", "foundry_pipeline.models.generate_many")
LONG = 300.0


class NotReached(Exception):
    """The moment that a fault waits for did not come."""


def wait(what: Callable[[], bool], run: Running, seconds: float = LONG, every: float = 0.01) -> None:
    until = time.monotonic() + seconds
    while not what():
        if run.poll() is not None:
            raise NotReached(f"the run ended before: {run.text()[-500:]}")
        if time.monotonic() > until:
            raise NotReached("waited in vain")
        time.sleep(every)


def start(story: Story, goal: str) -> Running:
    return story.world.nursery.start(
        materialize(goal), story.project.root, story.world.environment(story.project, **story.more)
    )


def kill(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def ended(story: Story, run: Running, *, expected: bool = True) -> None:
    """Wait until everything of a killed run is gone."""
    with contextlib.suppress(TimeoutError):
        run.wait(120)
    until = time.monotonic() + 10
    while any(children_running(m, story.project.root) for m in (TRAINER, *GENERATORS)):
        if time.monotonic() > until:
            story.outcome.found.append("a script outlives its run by more than 10 seconds")
            return
        time.sleep(0.05)


def _steps(project: Project) -> int:
    return sum(1 for _ in (project.store / "work").glob("*/checkpoints/step-*/COMPLETE.json"))


def kill_when_training(story: Story, *, checkpoints: int) -> None:
    run = start(story, story.goal)
    wait(lambda: _steps(story.project) >= checkpoints, run)
    kill(run.pid)
    ended(story, run)


def killed_run(place: str, goal: str) -> Callable[[World, Path, random.Random], tuple[str, Outcome]]:
    """A fault: kill -9 of the run at a random moment of its way from a place to a goal, once or twice."""

    def fault(world: World, folder: Path, draw: random.Random) -> tuple[str, Outcome]:
        story = Story(world, world.copy(place, folder / "project"), goal=goal)
        with world.servers(folder / "servers", {"slow": 0.15}) as servers:
            story.servers = list(servers.values())
            moments = []
            for _ in range(draw.choice((1, 1, 2))):
                run = start(story, goal)
                moment = draw.uniform(0.2, 6.0)
                until = time.monotonic() + moment
                while time.monotonic() < until and run.poll() is None:
                    time.sleep(0.01)
                kill(run.pid)
                ended(story, run)
                story.killed()
                moments.append(f"{moment:.2f} s")
            story.recover()
            story.outcome.noticed = "killed"
            return f"run killed after {' and '.join(moments)}", story.verdict()

    return fault


def killed_generator(place: str, goal: str) -> Callable[[World, Path, random.Random], tuple[str, Outcome]]:
    """A fault: kill -9 of the script that asks the servers, in the middle of its answers."""

    def fault(world: World, folder: Path, draw: random.Random) -> tuple[str, Outcome]:
        story = Story(world, world.copy(place, folder / "project"), goal=goal)
        with world.servers(folder / "servers", {"slow": 0.25}) as servers:
            story.servers = list(servers.values())
            before = sum(len(s.events("received")) for s in story.servers)
            run = start(story, goal)
            more = draw.randint(1, 24)
            wait(lambda: sum(len(s.events("received")) for s in story.servers) - before >= more, run)
            time.sleep(draw.uniform(0, 0.3))
            alive = [pid for module in GENERATORS for pid in children_running(module, story.project.root)]
            for pid in alive:
                kill(pid)
            code = run.wait(LONG)
            ended(story, run)
            story.killed()
            if alive and code == 0:
                # It had everything it was to bring: the kill came between its last line and its end.
                story.outcome.noticed = "nothing: its work was done"
            story.recover(first=(code, run.text()))
            return f"generator killed after {more} requests", story.verdict()

    return fault


def killed_trainer(world: World, folder: Path, draw: random.Random) -> tuple[str, Outcome]:
    """kill -9 of the trainer, at a step or while it loads."""
    story = Story(world, world.copy("data", folder / "project"), goal="keeper_first_adapter")
    with world.servers(folder / "servers", {}) as servers:
        story.servers = list(servers.values())
        run = start(story, story.goal)
        step = draw.choice((0, 1, 2))
        wait(lambda: bool(children_running(TRAINER, story.project.root)), run)
        if step:
            wait(lambda: _steps(story.project) >= min(step, 2), run)
        time.sleep(draw.uniform(0, 1.0))
        whole = draw.random() < 0.5
        for pid in children_running(TRAINER, story.project.root):
            kill(pid)
        if whole:
            kill(run.pid)
        code = run.wait(LONG)
        ended(story, run)
        story.recover(first=None if whole else (code, run.text()))
        return f"trainer{' and run' if whole else ''} killed at checkpoint {step}", story.verdict()


def killed_server(world: World, folder: Path, draw: random.Random) -> tuple[str, Outcome]:
    """kill -9 of the teacher's or the student's server in the middle; started again later, at the same address."""
    story = Story(world, world.copy("early", folder / "project"), goal="keeper_dataset_v1")
    kind = draw.choice(("claude", "openai"))
    other = "openai" if kind == "claude" else "claude"
    late = draw.random() < 0.5
    with world.server(other, folder / "servers", {}) as calm:
        with world.server(kind, folder / "servers", {"slow": 0.3}) as server:
            story.servers = [calm, server]
            run = start(story, story.goal)
            more = draw.randint(1, 10)
            wait(lambda: len(server.events("received")) >= more, run)
            kill(server.process.pid)
        first: tuple[int, str] | None = None
        if late:  # away until the run has given up
            first = (run.wait(LONG), run.text())
            story.killed()
        with world.server(kind, folder / "again", {}) as again:
            story.servers = [calm, server, again]
            if not late:
                first = (run.wait(LONG), run.text())
                story.killed()
            story.recover(first=first)
            told = f"server of the {'teacher' if kind == 'claude' else 'student'} killed after {more} requests"
            return f"{told}, {'back when the run had ended' if late else 'back at once'}", story.verdict()
