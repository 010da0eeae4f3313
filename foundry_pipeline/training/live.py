"""Figures of a training as they come: `work/metrics.jsonl`, and curves for TensorBoard.

    live = Live(work, "…/tensorboard/madison_r2", mark)
    live.go_on(history)                                # after a start, or back at an earlier step
    live.add({"step": 1, "loss": 4.51, "grad_norm": 0.8})
    live.close()

`tensorboard --logdir .foundry/tensorboard` draws them, one curve for each training: `<run>/<fingerprint, 12 characters>`.
They lie beside the artifact and outside its hash, since event files hold times.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any


class Live:
    """Writes each step's figures once. `board` is a folder for TensorBoard, or None for no curves."""

    def __init__(self, work: Path, board: str | None, mark: str) -> None:
        self._lines = work / "metrics.jsonl"
        self._board = None if board is None else Path(board) / mark[:12]
        self._writer: Any = None

    def go_on(self, history: Sequence[Mapping[str, float]]) -> None:
        """What was written beyond these steps counts no more: the training takes up here and writes it again."""
        self._lines.write_text("".join(json.dumps(figures) + "\n" for figures in history), encoding="utf-8")
        self.close()
        if self._board is not None:
            from torch.utils.tensorboard import SummaryWriter

            writer: Any = SummaryWriter
            self._writer = writer(str(self._board), purge_step=len(history) + 1, flush_secs=10)

    def add(self, figures: Mapping[str, float]) -> None:
        with self._lines.open("a", encoding="utf-8") as file:
            file.write(json.dumps(figures) + "\n")
        for name, value in figures.items() if self._writer is not None else ():
            if name != "step" and math.isfinite(value):
                self._writer.add_scalar(name, value, int(figures["step"]))

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None
