"""The full-size benchmark where there is no GPU: it says so, and its rehearsal runs both sides to the end."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from benchmarks.gpu import shape_of
from foundry_pipeline.training.size import measure

ROOT = Path(__file__).resolve().parents[3]


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, "-m", "benchmarks.gpu", *arguments]
    return subprocess.run(line, cwd=ROOT, capture_output=True, text=True, timeout=600, check=False)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here: run the benchmark itself")
def test_without_a_gpu_it_says_so_and_measures_nothing() -> None:
    done = run("--layers", "4")
    assert done.returncode == 1
    assert "no CUDA GPU here" in done.stderr
    assert not done.stdout
    assert not list((ROOT / "benchmarks" / "results").glob("gpu-cpu*"))


def test_the_shape_is_the_declared_ones_and_fewer_layers_are_fewer() -> None:
    whole = measure(shape_of(None, rehearse=False))
    assert (whole.parameters, whole.layers) == (32_762_123_264, 64)
    assert measure(shape_of(2, rehearse=False)).linear == whole.linear // 32


def test_its_rehearsal_measures_both_sides() -> None:
    done = run("--rehearse", "--length", "64", "--steps", "1")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "REHEARSAL" in done.stdout
    rows = [line.split("|")[1:-1] for line in done.stdout.splitlines() if line.startswith(("| ours", "| TRL"))]
    assert {row[0].strip() for row in rows} == {"ours", "TRL (liger-kernel missing)"}
    assert all(float(row[1]) > 0 for row in rows)
