"""A way to write small datasets for the training tests."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from training_examples import spec_for


@pytest.fixture
def make_spec(dense: Path, tmp_path: Path) -> Callable[..., dict[str, Any]]:
    """`spec_for` the real model."""
    return partial(spec_for, dense, tmp_path)
