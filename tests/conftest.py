"""Fixtures shared by all tests."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings as hypothesis_settings

from foundry_pipeline.models.base import make_dense
from foundry_pipeline.settings import DATABASE
from tests.once import SMOLLM, made_once
from tests.project import Project, make_project
from tests.servers.postgres import Postgres, postgres_server

ROOT = Path(__file__).resolve().parents[1]

# Tests start some hundred processes: compiled once, not in each of them.
sys.dont_write_bytecode = False
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
# Two processes of tests share two cores: a thread that waits sleeps, as `launch.limit_threads` has it in every script.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

# A shell starts its jobs in the background with SIGINT ignored, and every process that a test would interrupt inherits that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# No example has a time limit: how long one takes says more of what else the machine does than of the code.
hypothesis_settings.register_profile("foundry", deadline=None)
hypothesis_settings.load_profile("foundry")

# The files that take minutes, so that none of them is begun last, beside a second process that has nothing left to do.
# One process builds the chain in the first, the other has work for as long that does not wait for it.
LONGEST = (
    "pipeline/test_chain.py",
    "unit/training/test_training_resume.py",
    "faults/test_kill.py",
    "unit/export/test_export_gguf.py",
    "cli/test_gate_and_bad_input.py",
    "unit/models/test_models_hf.py",
    "cli/test_money_commands.py",
    "unit/models/test_models_base.py",
    "cli/test_diff.py",
    "unit/evaluation/test_heldout_text.py",
    "unit/corpus/test_corpus_retrieval.py",
    "pipeline/test_claude_teacher.py",
    "unit/training/test_guarded_training.py",
    "unit/models/test_models_generate_many.py",
    "unit/models/test_remote_budget.py",
    "unit/export/test_parity_gate.py",
    "unit/export/test_parity.py",
    "unit/models/test_models_generate.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Long files first, in the order above; the others as they were found."""
    place = {ROOT / "tests" / name: number for number, name in enumerate(LONGEST)}
    items.sort(key=lambda item: place.get(item.path, len(place)))


@pytest.fixture(scope="module", autouse=True)
def _collector_passes_over_what_is_loaded() -> None:
    """What is alive when a file of tests begins is left out of the collector's rounds: with the libraries of all tests
    loaded a round takes most of a second, and some code (statsmodels' `multipletests`) asks for one at every call."""
    gc.collect()
    gc.freeze()


@pytest.fixture
def full_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system with 2 MB of room, in memory; needs the right to mount."""
    place = tmp_path / "small"
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(place)], capture_output=True, text=True, check=False
    )
    if mounted.returncode != 0:
        pytest.skip(f"no right to mount a small file system here: {mounted.stderr.strip()}")
    try:
        yield place
    finally:
        subprocess.run(["umount", str(place)], check=False)


@pytest.fixture(autouse=True)
def _no_outside_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """A developer's own settings must not reach a test."""
    for name in list(os.environ):
        if name.startswith(("FOUNDRY_", "DAGSTER_")):
            monkeypatch.delenv(name)


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """A PostgreSQL server of this test process."""
    with postgres_server() as server:
        yield server


@pytest.fixture(params=["sqlite", "postgresql"])
def place(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where tables can be: a file that is not there yet, then a new database that the setting names."""
    if request.param == "sqlite":
        return tmp_path / "deep" / "tables.db"
    monkeypatch.setenv(DATABASE, request.getfixturevalue("postgres").database())
    return tmp_path / "deep" / DATABASE


@pytest.fixture(scope="session")
def dense(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The packaged 135M model as dense weights, alone in its folder. Nobody may change what lies in it."""

    def make(folder: Path) -> None:
        folder.mkdir()
        make_dense(SMOLLM, folder / "model")

    return made_once(tmp_path_factory, "dense", make) / "model"


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """The whole chain of the three-passage character, built once by the bare command on an empty store.

    Tests that use it may look and run commands that change nothing; one that damages things copies it first.
    """

    def make(folder: Path) -> None:
        done = make_project(folder).materialize("*keeper_first_serving_matrix")
        assert done.returncode == 0, done.stdout[-6000:]

    return Project(made_once(tmp_path_factory, "built", make))


@pytest.fixture(scope="session")
def scored(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """The three-passage character with answers in four modes, written by hand and judged for real; see tests/scored.py.

    Tests that use it may look and run commands that change nothing of it; one that changes things copies it first.
    """
    from tests.scored import InProcess, prepare_scored

    def make(folder: Path) -> None:
        prepare_scored(folder)

    return InProcess(made_once(tmp_path_factory, "scored", make))
