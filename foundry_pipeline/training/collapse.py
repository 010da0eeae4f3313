"""Where a run would collapse: short trainings over learning rate × LoRA rank, on a part of its own data.

    study = Study(spec, rates=(2e-4, 3.2e-3, 5e-2), ranks=(16, 64), steps=20, guards=run.guards)
    cells = study.run(folder, run_script, say)
    report(study, cells)          → a Markdown table and one sentence a rank:
    "rank 64: holds up to 0.0002, collapses from 0.0032 on"

The question is that of a finding this project was given (300 runs, two of which at 2e-4 × 128 and 5e-5 × 64 said
"10000000" to everything while 5e-6 × 32 learned): collapse is a threshold and no slope, so a few short trainings find
it before a long one is spent. Which figure tells a collapse is the run's own guards' matter; here each of them stops.
"""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from foundry_pipeline.declarations.guards import Guards
from foundry_pipeline.errors import Collapsed
from foundry_pipeline.launch import ScriptRunner, read_facts, read_json, write_json
from foundry_pipeline.lineage.hashing import code_version, digest
from foundry_pipeline.training import machine
from foundry_pipeline.training.plan import CODE, MODULE, fingerprint
from foundry_pipeline.training.watch import RECORD

STRIDE = 4  # from one learning rate to the next: seed 000's three lay a factor of 4 and of 10 apart


@dataclass(frozen=True)
class Cell:
    """One short training. `rule` and `step` are empty where it held; the figures are the last that were measured."""

    learning_rate: float
    lora_rank: int
    rule: str
    step: int | None
    loss: float | str | None
    kl: float | str | None
    distinct_2: float | None
    answer: str
    seconds: float

    @property
    def collapsed(self) -> bool:
        return bool(self.rule)


def rates_around(rate: float, count: int = 5) -> tuple[float, ...]:
    """The run's own learning rate and `count` − 1 higher ones, STRIDE apart."""
    return tuple(float(f"{rate * STRIDE**i:.3g}") for i in range(count))


@dataclass(frozen=True)
class Study:
    """The trainings of a study. `spec` is the run's own (`plan.training_spec`), whose dataset is sampled once."""

    spec: dict[str, Any]
    rates: tuple[float, ...]
    ranks: tuple[int, ...]
    steps: int
    guards: Guards

    def run(self, folder: Path, run_script: ScriptRunner, say: Callable[[str], None]) -> list[Cell]:
        """Every cell, rate by rate within each rank; those that `folder` already holds are not trained again.

        Raises what the trainer raises, but for Collapsed, which is a finding here.
        """
        parquet, dataset_hash = self._sample(folder)
        cells = []
        for spec in self._specs(parquet, dataset_hash):
            values = spec["effective"]
            name = f"learning rate {values['learning_rate']:g}, rank {values['lora_rank']}"
            kept = folder / f"{_key(spec)}.json"
            if not kept.is_file():
                say(f"training {self.steps} steps at {name}")
                write_json(kept, asdict(_train(spec, folder / kept.stem, run_script)))
            cell = Cell(**read_json(kept))
            say(f"{name}: {_said(cell)}")
            cells.append(cell)
        return cells

    def _sample(self, folder: Path) -> tuple[Path, str]:
        """As many rows as the steps take, drawn by the run's seed, each shown once; the file and its hash."""
        import polars as pl

        frame = pl.read_parquet(self.spec["dataset_parquet"]).sort("pair_id")
        values = self.spec["effective"]
        wanted = self.steps * values["batch_size"] * values["gradient_accumulation"]
        places = sorted(random.Random(self.spec["seed"]).sample(range(frame.height), min(wanted, frame.height)))
        drawn = frame[places].with_columns(upsample=pl.lit(1, dtype=frame.schema["upsample"]))
        dataset_hash = digest({"of": self.spec["dataset_hash"], "pairs": drawn["pair_id"].to_list()})
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{dataset_hash}.parquet"
        drawn.write_parquet(path)
        return path, dataset_hash

    def _specs(self, parquet: Path, dataset_hash: str) -> Iterator[dict[str, Any]]:
        stops = {name: rule and {**rule, "action": "stop"} for name, rule in self._rules().items()}
        before, dropped = self.spec["effective"], ("checkpoints", "tensorboard")
        kept = {name: value for name, value in self.spec.items() if name not in dropped}
        for rank in self.ranks:
            for rate in self.rates:
                # The adapter's scale, alpha over rank, stays the run's: otherwise a rank would be a learning rate, too.
                alpha = max(1, round(before["lora_alpha"] * rank / before["lora_rank"]))
                values = {"learning_rate": rate, "lora_rank": rank, "lora_alpha": alpha, "epochs": 1}
                yield {
                    **kept,
                    "dataset_parquet": str(parquet),
                    "dataset_hash": dataset_hash,
                    "effective": {**before, **values, "validation_fraction": 0.0},
                    "guards": {**stops, "roll_back": self.guards.roll_back.model_dump(mode="json")},
                    "save_every_steps": self.steps + 1,  # a cell that is killed is trained again: it is short
                }

    def _rules(self) -> dict[str, Any]:
        return self.guards.model_dump(mode="json", exclude={"roll_back"})


def _key(spec: dict[str, Any]) -> str:
    return digest({"training": fingerprint(spec, machine.library_versions()), "code": code_version(CODE)})


def _train(spec: dict[str, Any], work: Path, run_script: ScriptRunner) -> Cell:
    try:
        run_script(MODULE, spec, work)
        told: dict[str, Any] = read_facts(work)
        rule, step, samples = "", None, told["guards"]["samples"]
    except Collapsed:
        told = read_json(work / RECORD)
        rule, step, samples = told["rule"], told["step"], told["samples"]
    values = spec["effective"]
    cell = Cell(
        learning_rate=values["learning_rate"],
        lora_rank=values["lora_rank"],
        rule=rule,
        step=step,
        loss=_last(told["history"], "loss"),
        kl=_last(told["history"], "kl"),
        distinct_2=_last(told["history"], "distinct_2"),
        answer=samples[0]["answer"] if samples else "",
        seconds=round(told["seconds"], 1),
    )
    shutil.rmtree(work)  # its adapter is of no use
    return cell


def _last(history: Sequence[dict[str, Any]], name: str) -> Any:
    return next((row[name] for row in reversed(history) if name in row), None)


def _said(cell: Cell) -> str:
    return f"collapsed at step {cell.step} ({cell.rule})" if cell.collapsed else f"held, loss {_figure(cell.loss)}"


def _figure(value: float | str | None, digits: int = 3) -> str:
    return f"{value:.{digits}f}" if isinstance(value, int | float) else str(value or "–")


def thresholds(cells: Sequence[Cell]) -> list[str]:
    """One sentence a rank: up to which learning rate it held and from which on it collapsed."""
    out = []
    for rank in sorted({cell.lora_rank for cell in cells}):
        row = sorted((c for c in cells if c.lora_rank == rank), key=lambda c: c.learning_rate)
        fallen = [c.learning_rate for c in row if c.collapsed]
        held = [c.learning_rate for c in row if not c.collapsed]
        if not fallen:
            said = f"holds at every rate tried, up to {held[-1]:g}"
        elif not held:
            said = f"collapses at every rate tried, from {fallen[0]:g} on"
        elif held[-1] < fallen[0]:
            said = f"holds up to {held[-1]:g}, collapses from {fallen[0]:g} on"
        else:
            between = ", ".join(f"{rate:g}" for rate in fallen if rate < held[-1])
            said = f"no single threshold: collapses at {between} and holds at {held[-1]:g}"
        out.append(f"rank {rank}: {said}")
    return out


def report(study: Study, cells: Sequence[Cell]) -> str:
    """The study as Markdown: what was tried, learning rate × rank, the thresholds, and what each cell said last."""
    spec, found = study.spec, {(c.learning_rate, c.lora_rank): c for c in cells}
    values = spec["effective"]
    lines = [
        f"# Where {spec['run']} would collapse",
        "",
        f"{values['method'].upper()}, at most {study.steps} steps of {values['batch_size'] * values['gradient_accumulation']} "
        f"pairs, scheduler {values['scheduler']}, seed {spec['seed']}, alpha over rank as declared, dataset "
        f"`{spec['dataset_hash'][:12]}`, base `{spec['base_hash'][:12]}`. Guards: "
        f"`{json.dumps(study.guards.deciding(), sort_keys=True)}`, each of them stopping.",
        "",
        "| learning rate | " + " | ".join(f"rank {rank}" for rank in study.ranks) + " |",
        "|---:|" + "---|" * len(study.ranks),
    ]
    for rate in study.rates:
        row = [found[(rate, rank)] for rank in study.ranks]
        lines.append(f"| {rate:g} | " + " | ".join(_in_table(cell) for cell in row) + " |")
    lines += ["", *(f"- {sentence}" for sentence in thresholds(cells)), "", "What each said last (first probe):", ""]
    for cell in cells:
        said = " ".join(cell.answer.split()).replace("`", "'") or "(nothing)"
        lines.append(f"- {cell.learning_rate:g} × {cell.lora_rank}: `{said[:160]}`")
    return "\n".join(lines) + "\n"


def _in_table(cell: Cell) -> str:
    figures = f"loss {_figure(cell.loss)}, KL {_figure(cell.kl)}, distinct-2 {_figure(cell.distinct_2, 2)}"
    return f"**collapsed** at step {cell.step} ({cell.rule}); {figures}" if cell.collapsed else f"held; {figures}"
