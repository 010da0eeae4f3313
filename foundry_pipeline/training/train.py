"""Train one adapter: `python -m foundry_pipeline.training.train SPEC.json` (the spec: `plan.training_spec`).

Writes `work/result/` with adapter_model.safetensors and adapter_config.json, the same bytes for the same spec, on
one machine and however often it was killed and started again; `work/metrics.jsonl` while it works; and in
`work/result.json`:

    {"steps": 24, "tokens": 35212, "seconds": 91.2, "seconds_per_step": 3.8, "final_loss": 3.91,
     "history": [{"step": 1, "loss": 4.51, "learning_rate": 0.0, "nll_loss": …}, …], "resumed_from": [8], …}
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
import warnings
from pathlib import Path
from typing import Any

from foundry_pipeline.launch import ScriptSession, atomic_folder, cannot_write, read_json, script_main, write_json
from foundry_pipeline.training import machine
from foundry_pipeline.training.checkpoints import last_usable
from foundry_pipeline.training.plan import Hyperparameters, fingerprint
from foundry_pipeline.training.tokens import load_examples, split

ADAPTER_FILES = ("adapter_model.safetensors", "adapter_config.json")


def run(spec: dict[str, Any], session: ScriptSession) -> dict[str, Any]:
    """Train, or go on training, and return the facts. Raises FoundryError for unusable data and for a full disk."""
    work = Path(spec["work"])
    values = Hyperparameters(**spec["effective"])
    mark = fingerprint(spec, machine.library_versions())
    if finished := _finished(work, mark):
        session.log("already trained")
        return finished
    machine.keep_freed_memory()
    os.environ["HF_HUB_OFFLINE"] = "1"  # everything is local; a lookup on the network would only delay or fail
    os.environ["TRL_EXPERIMENTAL_SILENCE"] = "1"  # trainers.py says where ORPO comes from; versions are pinned
    warnings.filterwarnings("ignore", category=FutureWarning, module="transformers")
    os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = os.environ["HF_DATASETS_DISABLE_PROGRESS_BARS"] = "1"
    machine.make_repeatable(spec["seed"], spec["threads"])

    from foundry_pipeline.training.trainers import history, load_base, make_trainer, train_quickly

    model, tokenizer = load_base(Path(spec["base_dir"]), values.precision)
    examples, dropped = load_examples(Path(spec["dataset_parquet"]), tokenizer, values.method, values.max_length)
    if dropped:
        session.log(f"{len(dropped)} pairs are longer than {values.max_length} tokens and are left out")
    training, validation = split(examples, values.validation_fraction, spec["seed"])

    checkpoints = work / "checkpoints"
    shutil.rmtree(checkpoints / ".partial", ignore_errors=True)
    checkpoints.mkdir(exist_ok=True)
    last = last_usable(checkpoints, mark, session.log)
    starts = _note_start(work, mark, last.step if last else 0)
    if last:
        session.log(f"resuming from step {last.step}")

    before = last.seconds if last else 0.0
    trainer = make_trainer(
        model,
        tokenizer,
        values,
        training,
        validation,
        seed=spec["seed"],
        save_every_steps=spec["save_every_steps"],
        checkpoints=checkpoints,
        fingerprint=mark,
        seconds_before=before,
        live=work / "metrics.jsonl",
        session=session,
    )
    started = time.monotonic()
    with train_quickly(trainer.model):
        trainer.train(resume_from_checkpoint=str(last.folder) if last else None)
    seconds = time.monotonic() - started
    steps = trainer.state.global_step
    steps_here = steps - (last.step if last else 0)
    validation_loss = trainer.evaluate()["eval_loss"] if validation else None
    _write_adapter(trainer.model, spec["base_hash"], work / "result")

    curve = history(trainer)
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
        "world_size": 1,
        "device": machine.device_name(),
        "libraries": machine.library_versions(),
        "pairs": len(examples),
        "rows_per_epoch": len(training),
        "validation_rows": len(validation),
        "dropped_long": len(dropped),
        "dropped_pairs": dropped,
        "steps": steps,
        "tokens": sum(example.tokens for example in training) * values.epochs,
        "trainable_parameters": sum(p.numel() for p in trainer.model.parameters() if p.requires_grad),
        "final_loss": curve[-1]["loss"],
        "validation_loss": validation_loss,
        "history": curve,
        "seconds": before + seconds,
        "seconds_per_step": seconds / steps_here if steps_here else before / steps,
        "seconds_per_pair": (before + seconds) / (len(training) * values.epochs),
        "peak_memory_bytes": machine.peak_memory_bytes(),
        "resumed_from": starts[1:],
    }
    write_json(work / "result.json", facts)
    shutil.rmtree(checkpoints)  # the result stands; a checkpoint is three times its size
    return facts


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


def _write_adapter(model: Any, base_hash: str, target: Path) -> None:
    """Write the adapter as PEFT reads it, without what differs between equal ones.

    PEFT lists `target_modules` from an unsorted set and names the base by its path; here they are sorted, and the
    base is named by its content hash. So `PeftModel.from_pretrained(base, folder)` works, and loading the adapter
    without giving a base does not, which is meant.
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
    except (OSError, SafetensorError) as error:
        raise cannot_write(error, target) from error


if __name__ == "__main__":
    sys.exit(script_main(run))
