"""A way to write small datasets for the training tests."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from training_examples import hyperparameters, small_pairs


@pytest.fixture
def make_spec(dense: Path, tmp_path: Path) -> Callable[..., dict[str, Any]]:
    """Writes a dataset and returns a spec for it, without `work`."""

    def make(rows: list[dict[str, Any]] | None = None, **changes: Any) -> dict[str, Any]:
        parquet = tmp_path / "pairs.parquet"
        pl.DataFrame(rows or small_pairs()).write_parquet(parquet)
        values = asdict(hyperparameters(**changes))
        return {
            "run": "small",
            "base_dir": str(dense),
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
