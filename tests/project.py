"""A project folder of its own for a test: the shipped declarations plus the three-passage character, at tiny size."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
KEEPER = ROOT / "tests" / "characters" / "keeper"
BIN = Path(sys.executable).parent
HEAVY_SECONDS = 900
# The test character's assets up to its dataset.
DATA = {
    "base_model_smollm2_135m",
    "keeper_sources",
    "keeper_passages",
    "keeper_teacher_responses",
    "keeper_student_responses",
    "keeper_candidate_pairs",
    "keeper_filtered_pairs",
    "keeper_dataset_v1",
}


@dataclass
class Project:
    """Runs the project's commands as a user would: by name, in the folder, with the environment activated."""

    root: Path
    profile: str = "tiny"
    extra: dict[str, str] = field(default_factory=dict)

    @property
    def store(self) -> Path:
        return self.root / ".foundry"

    @property
    def environment(self) -> dict[str, str]:
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("FOUNDRY_", "DAGSTER_"))}
        path = f"{BIN}{os.pathsep}{kept.get('PATH', '')}"
        return {**kept, "PATH": path, "FOUNDRY_PROFILE": self.profile, "PYTHONUNBUFFERED": "1", **self.extra}

    def run(self, *command: str, timeout: float = HEAVY_SECONDS) -> subprocess.CompletedProcess[str]:
        """The command's exit code and everything it printed (stderr within stdout)."""
        return subprocess.run(
            command,
            cwd=self.root,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            text=True,
            timeout=timeout,
            check=False,
        )

    def start(self, *command: str) -> subprocess.Popen[str]:
        log = (self.root / "started.log").open("a")
        return subprocess.Popen(
            command, cwd=self.root, env=self.environment, stdout=log, stderr=log, stdin=subprocess.DEVNULL, text=True
        )

    def materialize(self, select: str) -> subprocess.CompletedProcess[str]:
        return self.run("dagster", "asset", "materialize", "--select", select)


def make_project(folder: Path, *, keeper: bool = True) -> Project:
    """Copy what a user edits (`sources/`, `assets/`) and what the root needs; no Python is copied or written."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("sources", "assets", "dbt_style_docs"):
        shutil.copytree(ROOT / name, folder / name)
    for name in ("dagster.yaml", "workspace.yaml"):
        shutil.copy(ROOT / name, folder / name)
    if keeper:
        shutil.copytree(KEEPER, folder, dirs_exist_ok=True)
    return Project(folder)


def share_base_model(source: Project, target: Project) -> None:
    """Let a second project start from the first one's base model, which takes a quarter of a minute to make."""
    share(source, target, ("base_model_smollm2_135m",))


def share(source: Project, target: Project, names: Collection[str]) -> None:
    """Put these assets of one project into another's store, as hard links. They are found there only by what they were
    made from: whatever the second project makes otherwise leaves them unused."""
    import json

    for path in (source.store / "index").glob("*.json"):
        record = json.loads(path.read_text())
        if record["name"] in names:
            (target.store / "index").mkdir(parents=True, exist_ok=True)
            shutil.copy(path, target.store / "index" / path.name)
            place = target.store / "artifacts" / record["content_hash"]
            # Without the verdict of its checks: it is no part of what was built, and a test beside this one may be editing it.
            ignored = shutil.ignore_patterns("verdict.json")
            shutil.copytree(
                source.store / "artifacts" / record["content_hash"], place, copy_function=os.link, ignore=ignored
            )


def wait_for(what: Callable[[], bool], seconds: float = 300, every: float = 0.05) -> None:
    """Poll until true; fails the test when it never is."""
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(every)


def children_running(module: str, root: Path) -> list[int]:
    """Process ids of scripts of this project (their spec lies in its store) that are alive."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            command = (entry / "cmdline").read_bytes().decode(errors="replace").split("\0")
            state = (entry / "stat").read_text().rsplit(")", 1)[1].split()[0]
        except OSError:
            continue
        if module in command and any(str(root) in part for part in command) and state != "Z":
            found.append(int(entry.name))
    return found


def kill(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)


def contents(project: Project) -> dict[str, str]:
    """Asset name → content hash of everything built in a project."""
    import json

    out = {}
    for path in (project.store / "index").glob("*.json"):
        record = json.loads(path.read_text())
        out[record["name"]] = record["content_hash"]
    return out
