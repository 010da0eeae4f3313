"""Definitions load in a moment: none of the heavy libraries comes with them."""

from __future__ import annotations

import subprocess
import sys

from tests.project import ROOT

HEAVY = ("torch", "transformers", "trl", "peft", "llama_cpp", "great_expectations", "sentence_transformers", "datasets")


def test_importing_the_definitions_loads_no_heavy_library() -> None:
    code = f"import sys, foundry_pipeline.definitions; print([m for m in {HEAVY!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip().splitlines()[-1] == "[]"
