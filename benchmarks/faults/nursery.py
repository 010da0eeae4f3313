"""Commands of the project as processes of their own, without the seconds of imports before each.

    nursery = Nursery()
    code, text = nursery.run(("foundry", "status"), root, environment)
    run = nursery.start(("dagster", "asset", "materialize", "--select", "x"), root, environment)     # run.pid may be killed

A server process has the libraries loaded and forks itself for each command; what runs then is the entry point that the
installed script calls, under its own environment and working directory. Another command is started as usual.
"""

from __future__ import annotations

import multiprocessing
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

LOADED = [
    "foundry_pipeline.cli.main",
    "foundry_pipeline.cli.dagster_command",
    "foundry_pipeline.cli.doctor",
    "foundry_pipeline.chain.graph",
    "foundry_pipeline.chain.mending",
    "foundry_pipeline.defs.gathered",
    "foundry_pipeline.reports.run_report",
    "foundry_pipeline.chain.dataset_exports",
    "foundry_pipeline.reports.checks_page",
    "dagster._cli",
    "dagster._core.storage.event_log",
    "dagster._core.storage.runs",
    "dagster._core.storage.schedules",
    "great_expectations",
    "polars",
    "sqlalchemy.dialects.sqlite",
]


def become(command: Sequence[str], root: str, environment: Mapping[str, str], log: str) -> None:
    """What the forked process does: it becomes the command."""
    handle = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    nothing = os.open(os.devnull, os.O_RDONLY)
    for target, source in ((0, nothing), (1, handle), (2, handle)):
        os.dup2(source, target)
    sys.stdout = os.fdopen(1, "w", buffering=1, encoding="utf-8", closefd=False)
    sys.stderr = os.fdopen(2, "w", buffering=1, encoding="utf-8", closefd=False)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(root)
    sys.argv = list(command)
    if command[0] == "foundry":
        from foundry_pipeline.cli.main import main
    else:
        from foundry_pipeline.cli.dagster_command import main
    main()


@dataclass
class Running:
    """A command under way; `process` is a multiprocessing or a subprocess one."""

    process: Any
    log: Path

    @property
    def pid(self) -> int:
        return int(self.process.pid)

    def poll(self) -> int | None:
        if isinstance(self.process, subprocess.Popen):
            return self.process.poll()
        return None if self.process.is_alive() else self.process.exitcode

    def wait(self, seconds: float) -> int:
        """The exit code. Raises TimeoutError."""
        until = time.monotonic() + seconds
        while self.poll() is None:
            if time.monotonic() > until:
                raise TimeoutError(f"{self.pid} is still at work after {seconds:.0f} s")
            time.sleep(0.02)
        code = self.poll()
        assert code is not None
        return code

    def text(self) -> str:
        return self.log.read_text(encoding="utf-8", errors="replace") if self.log.exists() else ""


class Nursery:
    """Starts commands. One for a campaign."""

    def __init__(self) -> None:
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload(LOADED)
        self._count = 0

    def start(self, command: Sequence[str], root: Path, environment: Mapping[str, str]) -> Running:
        self._count += 1
        log = root / f"said-{os.getpid()}-{self._count}.log"
        if command[0] in ("foundry", "dagster") and "LD_PRELOAD" not in environment:
            process = self._context.Process(target=become, args=(list(command), str(root), dict(environment), str(log)))
            process.start()
            return Running(process, log)
        with log.open("a") as handle:
            started = subprocess.Popen(
                list(command), cwd=root, env=dict(environment), stdout=handle, stderr=handle, stdin=subprocess.DEVNULL
            )
        return Running(started, log)

    def run(
        self, command: Sequence[str] | str, root: Path, environment: Mapping[str, str], seconds: float = 600
    ) -> tuple[int, str]:
        """Exit code and everything that was printed."""
        given = shlex.split(command) if isinstance(command, str) else command
        running = self.start(given, root, environment)
        return running.wait(seconds), running.text()
