"""Train one adapter: `python -m foundry_pipeline.training.train SPEC.json` (the spec: `plan.training_spec`).

Writes `work/result/` with adapter_model.safetensors and adapter_config.json (and those of named steps below
`checkpoints/`), the same bytes for the same spec, on
one machine and however often it was killed and started again; `work/metrics.jsonl` while it works; and in
`work/result.json`:

    {"steps": 24, "tokens": 35212, "seconds": 91.2, "seconds_per_step": 3.8, "final_loss": 3.91,
     "history": [{"step": 1, "loss": 4.51, "learning_rate": 0.0, "nll": …}, …], "resumed_from": [8], …}
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from foundry_pipeline.launch import (
    ScriptSession,
    atomic_folder,
    cannot_write,
    leave,
    read_json,
    script_main,
    write_json,
)
from foundry_pipeline.training import machine
from foundry_pipeline.training.checkpoints import Checkpoint, last_usable, seal
from foundry_pipeline.training.curriculum import windows
from foundry_pipeline.training.distributed import compute_of, launch_if_declared, place, require_declared
from foundry_pipeline.training.keep import Keeper, kept_step
from foundry_pipeline.training.live import Live
from foundry_pipeline.training.loop import State, mean_loss, references, take_step
from foundry_pipeline.training.placed import load_placed, what_it_came_to
from foundry_pipeline.training.plan import MODULE, Hyperparameters, fingerprint
from foundry_pipeline.training.team import Team, team_size
from foundry_pipeline.training.tokens import Example, load_examples, split
from foundry_pipeline.training.watch import Watch, error_of, known_collapse

ADAPTER_FILES = ("adapter_model.safetensors", "adapter_config.json")
_SHOWN = ("loss", "nll", "margin", "accuracy")  # of a step, beside the progress


@dataclass(frozen=True)
class Trained:
    """What `work_through` leaves behind: the state after the last step, and what was counted on the way."""

    state: State
    team_size: int
    rows: int
    training: list[Example]
    validation: list[Example]
    dropped: list[dict[str, Any]]
    validation_loss: float | None
    starts: list[int]
    seconds_before: float
    seconds: float
    steps_here: int
    step_seconds: list[float]
    guarded: dict[str, Any]
    keeper: Keeper
    peak_memory_bytes: int
    peak_gpu_bytes: int
    compute: dict[str, Any]


def run(spec: dict[str, Any], session: ScriptSession) -> dict[str, Any]:
    """Train, or go on training, and return the facts.

    Raises FoundryError for unusable data and for a full disk, Collapsed where a guard stops it or has stopped it before.
    """
    work = Path(spec["work"])
    values = Hyperparameters(**spec["effective"])
    mark = fingerprint(spec, machine.library_versions())
    if finished := _finished(work, mark):
        session.log("already trained")
        return finished
    if record := known_collapse(work, mark):
        raise error_of(record)
    compute, here = compute_of(spec), place()
    require_declared(compute, here)
    on_gpu = machine.training_device(compute.device, here.local_rank if here else 0) != "cpu"
    size = team_size(spec["threads"], values.batch_size * values.gradient_accumulation, on_gpu=on_gpu)
    if compute.world_size == 1:
        size = 1

    def make_team() -> Team:
        return Team.launched(here, on_gpu=on_gpu) if here else Team.start(work / "spec.json", size=size, work=work)

    trained = work_through(spec, make_team, session)
    _write_adapter(trained.state.model, spec["base_hash"], work / "result", trained.keeper)

    curve, before, seconds = trained.state.history, trained.seconds_before, trained.seconds
    steps = trained.state.step
    facts = {
        "fingerprint": mark,
        "run": spec["run"],
        "method": values.method,
        "declared": spec["declared"],
        "effective": spec["effective"],
        "base_hash": spec["base_hash"],
        "dataset_hash": spec["dataset_hash"],
        "seed": spec["seed"],
        "threads": spec["threads"],
        "order": spec.get("order", "shuffle"),
        "world_size": trained.team_size,
        "device": machine.device_name("auto" if on_gpu else "cpu"),
        **({"compute": told} if (told := trained.compute) else {}),
        "libraries": machine.library_versions(),
        "pairs": trained.rows,
        "rows_per_epoch": len(trained.training),
        "validation_rows": len(trained.validation),
        "dropped_long": len(trained.dropped),
        "dropped_pairs": trained.dropped,
        "steps": steps,
        "tokens": sum(example.tokens for example in trained.training) * values.epochs,
        "trainable_parameters": trained.state.buffer.numel(),
        "final_loss": curve[-1]["loss"],
        "validation_loss": trained.validation_loss,
        "history": curve,
        "seconds": before + seconds,
        "seconds_per_step": seconds / trained.steps_here if trained.steps_here else before / steps,
        "seconds_per_pair": (before + seconds) / (len(trained.training) * values.epochs),
        "step_seconds": trained.step_seconds,
        "peak_memory_bytes": trained.peak_memory_bytes,
        **({"peak_gpu_memory_bytes": trained.peak_gpu_bytes} if trained.peak_gpu_bytes else {}),
        "resumed_from": trained.starts[1:],
        **trained.guarded,
        **trained.keeper.facts(),
    }
    write_json(work / "result.json", facts)
    shutil.rmtree(work / "checkpoints")  # the result stands; a checkpoint is three times its size
    shutil.rmtree(work / "kept", ignore_errors=True)
    return facts


def work_through(spec: dict[str, Any], make_team: Callable[[], Team], session: ScriptSession | None) -> Trained:
    """Every step of the training from the last checkpoint on, as one process of a team.

    Rank 0 (the one with a session) reports, writes figures and checkpoints, and says where to begin. Raises Collapsed.
    """
    work = Path(spec["work"])
    values = Hyperparameters(**spec["effective"])
    mark = fingerprint(spec, machine.library_versions())
    machine.keep_freed_memory()
    os.environ["HF_HUB_OFFLINE"] = "1"  # everything is local; a lookup on the network would only delay or fail
    warnings.filterwarnings("ignore", category=FutureWarning, module="transformers")
    os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"
    compute, here = compute_of(spec), place()
    local = here.local_rank if here else 0
    device = machine.training_device(compute.device, local)
    team = make_team()
    live = Live(work, spec.get("tensorboard"), mark)
    try:
        machine.make_repeatable(spec["seed"], max(1, spec["threads"] // team.here))
        model, tokenizer = load_placed(spec, values, compute, device, team, local)
        order = spec.get("order", "shuffle")
        parquet = Path(spec["dataset_parquet"])
        examples, dropped = load_examples(parquet, tokenizer, values.method, values.max_length, order)
        if dropped and session:
            session.log(f"{len(dropped)} pairs are longer than {values.max_length} tokens and are left out")
        training, validation = split(examples, values.validation_fraction, spec["seed"])
        size = values.batch_size * values.gradient_accumulation
        origins = [example.origin for example in training]
        steps = windows(
            order, origins, seed=spec["seed"], epochs=values.epochs, size=size, accumulation=values.accumulation
        )
        kept = {name: kept_step(step, of, len(steps)) for name, (step, of) in spec.get("checkpoints", {}).items()}
        keeper = Keeper(work, mark, kept)

        state = State.fresh(model, values, len(steps), team)
        checkpoints = work / "checkpoints"
        last = _last_checkpoint(checkpoints, mark, keeper, session) if session else None
        begin = summable(last.step if last else 0)
        team.add(begin)
        if int(begin):
            state.restore(checkpoints / f"step-{int(begin)}")
        starts = _note_start(work, mark, state.step) if session else []
        reference = references(model, training, values, team) if values.method == "dpo" else None
        watch = Watch(spec, mark, state, training, tokenizer, team, session, len(steps))
        before, started = last.seconds if last else 0.0, time.monotonic()
        if session:
            live.go_on(state.history)
            if watch.guards.rolls_back and last is None:
                _checkpoint(state, checkpoints, mark, 0.0)
        taken: list[float] = []
        while state.step < len(steps):
            began = time.monotonic()
            figures = take_step(state, training, steps[state.step], values, team, reference)
            taken.append(round(time.monotonic() - began, 3))
            wrong = watch.look(state, last=state.step == len(steps))
            if session:
                _report(figures, live, len(steps), session)
            if wrong:
                watch.heed(wrong, state, before + time.monotonic() - started)
                if session:
                    live.go_on(state.history)
                continue
            if session:
                keeper.keep(state.step, lambda folder: _write_adapter(model, spec["base_hash"], folder))
                if state.step % spec["save_every_steps"] == 0 or state.step == len(steps):
                    _checkpoint(state, checkpoints, mark, before + time.monotonic() - started)
        seconds = time.monotonic() - started
        validation_loss = None
        if validation:
            reference = references(model, validation, values, team) if values.method == "dpo" else None
            validation_loss = mean_loss(state, validation, values, team, reference, size)
        peak = summable(machine.peak_memory_bytes())
        team.add(peak)  # of all processes together: each holds the model
        peak_gpu = summable(machine.peak_gpu_bytes(device))
        team.add(peak_gpu)
    finally:
        live.close()
        team.end()
    rows = len(examples)
    return Trained(
        state, team.size, rows, training, validation, dropped, validation_loss, starts, before, seconds,
        len(taken), taken, watch.facts(state), keeper, int(peak), int(peak_gpu), what_it_came_to(compute, device),
    )  # fmt: skip


def summable(number: int) -> Any:
    """A whole number as what a team can add up."""
    import torch

    return torch.tensor(number, dtype=torch.int64)


def _last_checkpoint(checkpoints: Path, mark: str, keeper: Keeper, session: ScriptSession) -> Checkpoint | None:
    shutil.rmtree(checkpoints / ".partial", ignore_errors=True)
    checkpoints.mkdir(exist_ok=True)
    while (last := last_usable(checkpoints, mark, session.log)) and (lost := keeper.lost(last.step)):
        session.log(f"checkpoint {last.folder.name} is skipped: the adapter kept as {lost} is missing or damaged")
        shutil.rmtree(last.folder)
    if last:
        session.log(f"resuming from step {last.step}")
    return last


def _checkpoint(state: State, checkpoints: Path, mark: str, seconds: float) -> None:
    from safetensors import SafetensorError

    partial = checkpoints / ".partial"
    try:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir()
        state.save(partial)
        seal(partial, checkpoints, state.step, mark, seconds)
    except (OSError, RuntimeError, SafetensorError) as error:  # torch says RuntimeError for a full disk
        raise cannot_write(f"checkpoint at step {state.step}: {error}", checkpoints) from error


def _report(figures: dict[str, float], live: Live, steps: int, session: ScriptSession) -> None:
    """Write a step's figures down and show them."""
    live.add(figures)
    session.progress(int(figures["step"]), steps, **{name: figures[name] for name in _SHOWN if name in figures})


def _finished(work: Path, mark: str) -> dict[str, Any] | None:
    """The facts of an earlier, complete run of this very training in this folder; clears away anything else's."""
    facts_file, result = work / "result.json", work / "result"
    if facts_file.is_file() and all((result / name).is_file() for name in ADAPTER_FILES):
        facts: dict[str, Any] = read_json(facts_file)
        if facts.get("fingerprint") == mark:
            return facts
    facts_file.unlink(missing_ok=True)
    shutil.rmtree(result, ignore_errors=True)
    return None


def _note_start(work: Path, mark: str, step: int) -> list[int]:
    """Remember that this training was started at `step`; returns the steps of all its starts, the first included."""
    file = work / "starts.json"
    known = read_json(file) if file.is_file() else {}
    starts = [*known["starts"], step] if known.get("fingerprint") == mark else [step]
    write_json(file, {"fingerprint": mark, "starts": starts})
    return starts


def _write_adapter(model: Any, base_hash: str, target: Path, keeper: Keeper | None = None) -> None:
    """Write the adapter as PEFT reads it, without what differs between equal ones.

    PEFT lists `target_modules` from an unsorted set and names the base by its path; here they are sorted, and the
    base is named by its content hash. So `PeftModel.from_pretrained(base, folder)` works, and loading the adapter
    without giving a base does not, which is meant. The keeper's adapters go with the last one of a training.
    """
    from safetensors import SafetensorError

    try:
        with atomic_folder(target) as folder:
            model.save_pretrained(folder, save_embedding_layers=False)
            config = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
            config["base_model_name_or_path"] = base_hash
            config["target_modules"] = sorted(config["target_modules"])
            write_json(folder / "adapter_config.json", config)
            for path in folder.iterdir():
                if path.name not in ADAPTER_FILES:
                    path.unlink()  # PEFT's draft of a model card
            if keeper is not None:
                keeper.hand_over(folder)
    except (OSError, SafetensorError) as error:
        raise cannot_write(error, target) from error


def main() -> int:
    """The script: one process, torch's launcher of several, or one of those that it has started."""
    here = place()
    if here is None:
        launch_if_declared(MODULE, sys.argv[1:])
    elif here.rank:
        from foundry_pipeline.training.peer import launched

        return launched(sys.argv[1], here)
    return script_main(run)


if __name__ == "__main__":
    leave(main())
