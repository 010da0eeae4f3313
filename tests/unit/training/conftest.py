"""A way to write small datasets for the training tests."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from small_base import write_small_base
from training_examples import hyperparameters, small_pairs


def spec_for(base: Path, folder: Path, rows: list[dict[str, Any]] | None = None, **changes: Any) -> dict[str, Any]:
    """Writes a dataset into `folder` and returns a spec for it, without `work`."""
    parquet = folder / "pairs.parquet"
    pl.DataFrame(rows or small_pairs()).write_parquet(parquet)
    values = asdict(hyperparameters(**changes))
    return {
        "run": "small",
        "base_dir": str(base),
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


@pytest.fixture
def make_spec(dense: Path, tmp_path: Path) -> Callable[..., dict[str, Any]]:
    """`spec_for` the real model."""
    return partial(spec_for, dense, tmp_path)


@pytest.fixture
def make_small_spec(tmp_path: Path) -> Callable[..., dict[str, Any]]:
    """`spec_for` a model of two small layers, which takes a fraction of a second to load."""
    return partial(spec_for, write_small_base(tmp_path / "base"), tmp_path)
