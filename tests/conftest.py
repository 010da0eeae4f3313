"""Fixtures shared by all tests."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.once import made_once
from tests.project import Project, make_project

ROOT = Path(__file__).resolve().parents[1]


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
def built(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """The whole chain of the three-passage character, built once by the bare command on an empty store.

    Tests that use it may look and run commands that change nothing; one that damages things copies it first.
    """

    def make(folder: Path) -> None:
        done = make_project(folder).materialize("*keeper_first_serving_matrix")
        assert done.returncode == 0, done.stdout[-6000:]

    return Project(made_once(tmp_path_factory, "built", make))
