"""What a run will do under a profile: effective hyperparameters and step counts. Pure; nothing heavy is loaded.

    run `r2` declares 3 epochs at 2e-5 on 2,048 tokens; the laptop's profile says 1 epoch, factor 10, 512 tokens
    → effective(run, profile): epochs 1, learning_rate 2e-4, max_length 512; declared(run) keeps the first numbers

A run declares how steps are counted. `within_epochs`, as `transformers.Trainer` does: `ceil(rows / 4)` in an epoch, the
last, smaller group being a step of its own. The canonical record's exact counts are of this kind with a tenth of the
rows held out: 1,273 → 1,145 → 287 × 3 = 861, and 1,498 → 1,348 → 337 × 3 = 1,011. `across_epochs` fills steps on into
the next epoch: `rows × epochs / 4`, rounded half up. The record's figures with a tilde are of this kind with nothing held
out: 475 → 356, 1,273 → 955, 510 → 383.
"""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import asdict, dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal

from foundry_pipeline.declarations.assets import Profile, Run
from foundry_pipeline.declarations.common import Accumulation, Order
from foundry_pipeline.declarations.compute import Compute
from foundry_pipeline.declarations.guards import Guards

MODULE = "foundry_pipeline.training.train"
CODE = tuple(
    f"foundry_pipeline.training.{module}"
    for module in (
        "train",
        "adapters",
        "loop",
        "keep",
        "guards",
        "probes",
        "watch",
        "team",
        "shared_sum",
        "tokens",
        "curriculum",
        "plan",
        "machine",
        "sharding",
        "placed",
        "preference.layout",
        "preference.attention",
        "preference.sdpa",
        "preference.vocabulary",
        "preference.losses",
        "preference.lora",
        "preference.step",
    )
)
"""The modules whose code makes an adapter."""


@dataclass(frozen=True)
class Hyperparameters:
    """All that decides the numbers of a training, beside the base, the rows and the seed.

    `max_length` counts tokens of prompt and one answer together; `batch_size` pairs in a forward pass;
    `gradient_accumulation` forward passes in a step.
    """

    method: Literal["orpo", "dpo", "sft"]
    epochs: int
    learning_rate: float
    beta: float
    lora_rank: int
    lora_alpha: int
    lora_targets: Literal["all-linear"]
    batch_size: int
    gradient_accumulation: int
    max_grad_norm: float
    max_length: int
    warmup_fraction: float
    scheduler: Literal["cosine", "linear", "constant"]
    optimizer: Literal["adamw_8bit", "adamw"]
    precision: Literal["bfloat16", "float32"]
    validation_fraction: float
    accumulation: Accumulation = "within_epochs"


def declared(run: Run) -> dict[str, Any]:
    """The hyperparameters as the run's file has them; the precision is a matter of the profile alone."""
    names = [name for name in Hyperparameters.__dataclass_fields__ if name != "precision"]
    return {name: getattr(run, name) for name in names}


def effective(run: Run, profile: Profile) -> Hyperparameters:
    """The hyperparameters that are used: the run's, with the profile's changes applied as to every run."""
    # decimal, so that 2e-5 × 10 is 0.0002 and not a neighbour of it: the number is shown and hashed
    rate = float(Decimal(str(run.learning_rate)) * Decimal(str(profile.learning_rate_factor)))
    return Hyperparameters(
        **declared(run)
        | {
            "learning_rate": rate,
            "epochs": profile.epochs if profile.epochs is not None else run.epochs,
            "max_length": min(run.max_length, profile.max_length),
            "optimizer": profile.optimizer,
            "precision": profile.precision,
        }
    )


def declared_checkpoints(run: Run) -> dict[str, list[int]]:
    """Name → [step, of]: the steps whose adapters a run wants kept, in the steps that its file counts in."""
    return {name: [c.step, c.of] for name, c in run.checkpoints.items()}


def validation_rows(rows: int, fraction: float) -> int:
    """Rows held out of training: `ceil(fraction × rows)`, as `datasets.train_test_split` rounds."""
    return math.ceil(Decimal(str(fraction)) * rows)


def steps_per_epoch(training_rows: int, batch_size: int, gradient_accumulation: int) -> int:
    """Optimizer steps in one epoch over `training_rows` rows, upsampled rows counted as often as they are shown."""
    return math.ceil(math.ceil(training_rows / batch_size) / gradient_accumulation)


def total_steps(rows: int, values: Hyperparameters) -> int:
    """Optimizer steps of a whole training on a dataset that shows `rows` rows in an epoch, validation included."""
    return training_steps(rows - validation_rows(rows, values.validation_fraction), values)


def training_steps(training_rows: int, values: Hyperparameters) -> int:
    """Optimizer steps of a whole training that shows `training_rows` rows in an epoch: as many as `windows` makes."""
    if values.accumulation == "within_epochs":
        return steps_per_epoch(training_rows, values.batch_size, values.gradient_accumulation) * values.epochs
    window, shown = values.batch_size * values.gradient_accumulation, training_rows * values.epochs
    return max(min(shown, 1), (2 * shown + window) // (2 * window))


def warmup_steps(steps: int, fraction: float) -> int:
    """Steps of linear warm-up: `ceil(fraction × steps)`, as the Trainer rounds a ratio."""
    return math.ceil(Decimal(str(fraction)) * steps)


def training_spec(
    run: Run,
    profile: Profile,
    *,
    base_dir: Path,
    base_hash: str,
    dataset_parquet: Path,
    dataset_hash: str,
    order: Order = "shuffle",
) -> dict[str, Any]:
    """The spec of `foundry_pipeline.training.train`, without `work`, which the runner fills in.

    `base_dir` holds dense weights and a tokenizer in the layout of `save_pretrained`; `order` is the dataset's.
    """
    values = effective(run, profile)
    return {
        "run": run.run,
        "base_dir": str(base_dir),
        "base_hash": base_hash,
        "dataset_parquet": str(dataset_parquet),
        "dataset_hash": dataset_hash,
        "method": values.method,
        "declared": declared(run),
        "effective": asdict(values),
        "seed": run.seed,
        "threads": profile.threads,
        "save_every_steps": profile.save_every_steps,
        "order": order,
        "guards": run.guards.model_dump(mode="json"),
        "checkpoints": declared_checkpoints(run),
        **({"compute": told} if (told := profile.compute.model_dump(mode="json", exclude_defaults=True)) else {}),
    }


def guarding(guards: Guards, save_every_steps: int) -> dict[str, Any]:
    """What of a run's guards may change how its training ends."""
    return guards.deciding() | ({"save_every_steps": save_every_steps} if guards.rolls_back else {})


def fingerprint(spec: dict[str, Any], versions: dict[str, str]) -> str:
    """SHA-256 (hex) of all that makes two trainings the same to the bit; a checkpoint is resumed only under it.

    Folders are left out (contents count, by hash), TensorBoard's among them, and so is how often to save, unless guards may roll back to what was
    saved.
    """
    names = ("run", "base_hash", "dataset_hash", "method", "effective", "seed", "threads")
    content = {name: spec[name] for name in names} | {"versions": versions}
    if spec.get("order", "shuffle") != "shuffle":
        content["order"] = spec["order"]
    if spec.get("checkpoints"):
        content["checkpoints"] = spec["checkpoints"]
    if deciding := Compute.model_validate(spec.get("compute", {})).deciding():
        content["compute"] = deciding
    if "guards" in spec:
        content["guards"] = guarding(Guards.model_validate(spec["guards"]), spec["save_every_steps"])
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
