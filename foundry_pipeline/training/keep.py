"""Adapters of named steps, kept while a training goes on and handed over with its result.

    result/adapter_model.safetensors, adapter_config.json            the adapter after the last step
    result/checkpoints/checkpoint-150/adapter_model.safetensors, …   the same of the step that was named so

A run declares where on its way a checkpoint lies (150 of 861 steps); at another size the step at the same share of the
way is kept. A kept adapter is written before the training's own checkpoint of that step, sealed with the hashes of its
files: a training is never taken up beyond a step whose adapter is gone or torn.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any

from foundry_pipeline.declarations.planning import NamedCheckpoint
from foundry_pipeline.launch import write_json
from foundry_pipeline.lineage.hashing import folder_files

FOLDER = "checkpoints"  # in the result


def kept_step(step: int, of: int, steps: int) -> int:
    """The step, of `steps`, at the share `step` / `of` of the way: rounded half up, at least the first."""
    return max(1, int(Fraction(step * steps, of) + Fraction(1, 2)))


def kept_steps(checkpoints: Mapping[str, NamedCheckpoint], steps: int) -> dict[str, int]:
    """Name → step of a training of `steps` steps whose adapter is kept under that name."""
    return {name: kept_step(c.step, c.of, steps) for name, c in checkpoints.items()}


class Keeper:
    """Keeps adapters of named steps below `work/kept`; `mark` is the training's fingerprint.

    `write` puts the adapter as it is now into a folder, whole or not at all.
    """

    def __init__(self, work: Path, mark: str, steps: Mapping[str, int]) -> None:
        self._folder, self._mark, self._steps = work / "kept", mark, dict(steps)

    def keep(self, step: int, write: Callable[[Path], None]) -> None:
        """Write the adapter down under every name that this step has."""
        for name in (n for n, s in self._steps.items() if s == step):
            write(self._folder / name)
            seal = {"fingerprint": self._mark, "step": step, "files": folder_files(self._folder / name)}
            write_json(self._folder / f"{name}.json", seal)

    def lost(self, step: int) -> str | None:
        """A name whose adapter should be there after `step` steps, and is not, or is not whole."""
        return next((n for n, s in sorted(self._steps.items()) if s <= step and not self._whole(n)), None)

    def hand_over(self, result: Path) -> None:
        """Copy what was kept into the folder of the result."""
        for name in self._steps:
            shutil.copytree(self._folder / name, result / FOLDER / name)

    def facts(self) -> dict[str, Any]:
        return {"checkpoints": dict(self._steps)} if self._steps else {}

    def _whole(self, name: str) -> bool:
        try:
            seal = json.loads((self._folder / f"{name}.json").read_text(encoding="utf-8"))
        except (FileNotFoundError, json.JSONDecodeError, UnicodeDecodeError):
            return False
        known = isinstance(seal, dict) and seal.get("fingerprint") == self._mark
        return (
            known and seal.get("step") == self._steps[name] and seal.get("files") == folder_files(self._folder / name)
        )
