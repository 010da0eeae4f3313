"""What each declared run will take, before it is started: `foundry plan`.

Counts come from the declarations, or from the dataset where it is built for them; sizes from the model's configuration on
the meta device; time and money from the GPU that the profile declares, or from what earlier trainings of this store took
for a pair. Every figure says which it is: planned and measured never share a field.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

import polars as pl

from foundry_pipeline.chain.engine import Chain
from foundry_pipeline.chain.model_stages import base_asset, dense_dir
from foundry_pipeline.datasets.mixture import recipe_size
from foundry_pipeline.declarations import Declarations
from foundry_pipeline.declarations.assets import HubModel, Profile, PypiModel, Run
from foundry_pipeline.declarations.planning import Gpu
from foundry_pipeline.errors import FoundryError
from foundry_pipeline.lineage.store import Record
from foundry_pipeline.models.base import pypi_file
from foundry_pipeline.training import size
from foundry_pipeline.training.effort import Lengths, Memory, memory, operations, reference_operations
from foundry_pipeline.training.keep import kept_steps
from foundry_pipeline.training.loop import TOKENS_AT_ONCE
from foundry_pipeline.training.plan import Hyperparameters, effective, training_steps, validation_rows
from foundry_pipeline.training.team import team_size
from foundry_pipeline.training.tokens import Example, split

GIB = 2**30


@dataclass(frozen=True)
class Rows:
    """Rows of a run's dataset: distinct `pairs`, `shown` of them in an epoch, held out or trained on; `source` says how
    they are known."""

    pairs: int
    shown: int
    validation: int
    source: str

    @property
    def training(self) -> int:
        return self.shown - self.validation


def plan(d: Declarations, chain: Chain, runs: Iterable[str]) -> dict[str, Any]:
    """The plan of these runs under the present profile, as plain data. Raises FoundryError for a faulty architecture."""
    gpu = d.profile.planning.gpu
    adapters = [r for r in chain.store.records() if r.kind == "adapter"]
    rows = [plan_run(d, chain, d.runs[name], adapters) for name in runs]
    planned = [r["planned"] for r in rows if r["planned"]]
    return {
        "profile": d.profile.profile,
        "gpu": None if gpu is None else gpu.model_dump(mode="json"),
        "runs": rows,
        "total": {
            "steps": sum(r["steps"] for r in rows),
            "planned_seconds": math.fsum(p["seconds"] for p in planned) if planned else None,
            "planned_usd": math.fsum(p["usd"] for p in planned) if planned else None,
            "measured_seconds": _sum_or_none([r["measured"] for r in rows]),
            "without_time": [r["run"] for r in rows if not r["planned"] and not r["measured"]],
        },
    }


def _sum_or_none(found: list[dict[str, Any] | None]) -> float | None:
    told = [m["seconds"] for m in found if m]
    return math.fsum(told) if told else None


def plan_run(d: Declarations, chain: Chain, run: Run, adapters: list[Record]) -> dict[str, Any]:
    """One run's row of the plan."""
    values, gpu, model = effective(run, d.profile), d.profile.planning.gpu, d.profile.models[d.base_model(run.base)]
    rows = count_rows(d, chain, run)
    steps = training_steps(rows.training, values)
    shape, unknown, shape_source = _shape(chain, d, run)
    adapters = [r for r in adapters if shape is None or _same_model(r, shape)]
    lengths, mean, lengths_source = _lengths(d, run, adapters)
    fitted = None if shape is None else _memory(shape, values, gpu, d.profile)
    planned = None
    if shape and gpu and lengths:
        flops = _flops(shape, lengths, values, rows)
        processes = d.profile.compute.world_size or 1
        # A step's pairs are shared out whole: what goes beyond them waits.
        busy = min(processes, values.batch_size * values.gradient_accumulation)
        seconds = flops / (gpu.peak_tflops * 1e12 * gpu.utilisation) / busy
        usd = seconds / 3600 * gpu.usd_per_hour * processes
        planned = {"flops": flops, "seconds": seconds, "usd": usd, "on": gpu.name, "gpus": processes}
    return {
        "run": run.run,
        "method": run.method,
        "dataset": run.dataset,
        "base": run.base,
        "base_title": model.title,
        "stand_in": isinstance(model, PypiModel),
        "lora_rank": run.lora_rank,
        "pairs": rows.pairs,
        "rows_per_epoch": rows.training,
        "validation_rows": rows.validation,
        "rows_source": rows.source,
        "epochs": values.epochs,
        "steps": steps,
        "checkpoints": kept_steps(run.checkpoints, steps),
        "reported_steps": _reported_steps(d, run),
        "lengths": None if lengths is None else asdict(lengths),
        "lengths_source": lengths_source,
        "tokens": None if mean is None else round(mean * rows.training * values.epochs),
        "shape": None if shape is None else asdict(shape),
        "shape_source": shape_source,
        "shape_unknown": unknown,
        "parameters_as_declared": None if shape is None else shape.parameters == model.parameters,
        "trained_parameters": None if shape is None else run.lora_rank * shape.lora_per_rank,
        "memory": fitted,
        "planned": planned,
        "measured": None if gpu else _measured(run, rows, values, adapters),
    }


# -- rows ------------------------------------------------------------------------------------------------------------


def count_rows(d: Declarations, chain: Chain, run: Run) -> Rows:
    """Rows of the dataset as built for the present declarations, split as training splits them; else as declared."""
    found = chain.resolve(run.dataset).record
    if found is None:
        told = recipe_size(d.datasets[run.dataset], d.profile.size_of(run.dataset), d.datasets)
        held = validation_rows(told["effective"], run.validation_fraction)
        return Rows(told["rows"], told["effective"], held, "declared")
    payload = chain.store.open(found.content_hash, name=run.dataset).payload
    frame = pl.read_parquet(payload / "pairs.parquet", columns=["pair_id", "prompt_id", "upsample"]).sort("pair_id")
    examples = [Example(pair, prompt, shows, (), (), ()) for pair, prompt, shows in frame.iter_rows()]
    training, validation = split(examples, run.validation_fraction, run.seed)
    return Rows(len(examples), len(training) + len(validation), len(validation), "built dataset")


def _reported_steps(d: Declarations, run: Run) -> dict[str, Any] | None:
    for document in d.characters[run.character].reported:
        for told in document.configurations:
            if told.get("run") == run.run and told.get("steps") is not None:
                return {"steps": told["steps"], "about": bool(told.get("steps_approximate"))}
    return None


# -- sizes -----------------------------------------------------------------------------------------------------------


def _shape(chain: Chain, d: Declarations, run: Run) -> tuple[size.Shape | None, str, str]:
    """The model's shape, why it is unknown where it is, and where its configuration is from."""
    name = d.base_model(run.base)
    model, asset = d.profile.models[name], base_asset(d.base_model(run.base))
    config, source = None, ""
    if (found := chain.resolve(asset).record) is not None:
        config = size.folder_config(dense_dir(chain.store.open(found.content_hash, name=asset)))
        source = f"{asset}, as built"
    if config is None and isinstance(model, HubModel):
        config, source = size.cached_config(model.repo, model.revision), "the hub cache of this machine"
        if config is None:
            config, source = model.architecture, f"`models.{name}.architecture` of the profile {d.profile.profile}"
    if config is None and isinstance(model, PypiModel):
        try:
            config, source = size.gguf_config(pypi_file(model)), f"the header of {model.file}"
        except FoundryError as error:
            return None, f"{error.what}; {error.mend}", ""
    if config is None:
        mend = f"dagster asset materialize --select {asset}  # or declare `models.{name}.architecture` in the profile"
        return None, f"nothing here knows the architecture of {model.title}: {mend}", ""
    return size.measure(config), "", source


def _lengths(d: Declarations, run: Run, adapters: list[Record]) -> tuple[Lengths | None, float | None, str]:
    """Mean lengths of a row where the profile foresees them, mean tokens of a row, and where either is from."""
    planning, sft = d.profile.planning, run.method == "sft"
    if planning.tokens is not None:
        told = planning.tokens.sft if sft else planning.tokens.preference
        lengths = Lengths(told.prompt, told.chosen, told.rejected)
        return lengths, lengths.prompt + lengths.chosen + lengths.rejected, f"foreseen: {planning.tokens_source}"
    for record in _closest(run, adapters):
        facts = record.facts
        mean = facts["tokens"] / (facts["rows_per_epoch"] * facts["effective"]["epochs"])
        counted = "" if sft else ", a prompt counted with each of its answers"
        return None, mean, f"as measured in the training of {record.name.removesuffix('_adapter')}{counted}"
    mend = f"dagster asset materialize --select '*{run.run}_adapter'"
    return None, None, f"unknown until a {run.method} run is trained: {mend}"


def _same_model(record: Record, shape: size.Shape) -> bool:
    """Whether an earlier training was of a model of this shape: told by the size of its adapter."""
    rank = record.facts.get("effective", {}).get("lora_rank", 0)
    return bool(record.facts.get("trainable_parameters") == rank * shape.lora_per_rank)


def _closest(run: Run, adapters: list[Record]) -> list[Record]:
    """Earlier trainings whose figures bear on this run, the closest first: itself, its dataset, its method.

    Figures of supervised rows say nothing of pairs, nor the other way round.
    """

    def near(record: Record) -> tuple[bool, bool, bool, bool, str]:
        values = record.facts.get("effective", {})
        return (
            record.name != f"{run.run}_adapter",
            run.dataset not in record.inputs,
            values.get("method") != run.method,
            values.get("lora_rank") != run.lora_rank,
            record.input_hash,
        )

    usable = [r for r in adapters if r.facts.get("rows_per_epoch") and r.facts.get("seconds_per_pair")]
    alike = [r for r in usable if (r.facts.get("method") == "sft") == (run.method == "sft")]
    return sorted(alike, key=near)


def _memory(shape: size.Shape, values: Hyperparameters, gpu: Gpu | None, profile: Profile) -> dict[str, Any]:
    """Memory of one process at the longest rows that are admitted, for each way to hold the frozen weights; on a GPU,
    whether it fits. `declared` names the way that the profile declares."""
    compute = profile.compute
    answers = 1 if values.method == "sft" else 2
    window = values.batch_size * values.gradient_accumulation
    processes = compute.world_size or team_size(profile.threads, window, on_gpu=gpu is not None)
    recompute = gpu is not None if compute.gradient_checkpointing is None else compute.gradient_checkpointing
    declared = "nf4" if compute.weights == "nf4" else values.precision
    longest = answers * values.max_length
    # A process packs as many pairs of its share as go into TOKENS_AT_ONCE, and one in any case.
    tokens = max(longest, min(TOKENS_AT_ONCE, math.ceil(window / processes) * longest))
    out: dict[str, Any] = {"processes": processes, "tokens_at_once": tokens, "declared": declared}
    out["sharding"] = compute.sharding
    for weights in ("bfloat16", "nf4") if gpu else (declared,):
        found: Memory = memory(
            shape,
            rank=values.lora_rank,
            optimizer=values.optimizer,
            weights=weights,
            tokens=tokens,
            context=values.max_length / 2,
            recompute=recompute,
            shards=processes if compute.sharding == "fsdp" and weights != "nf4" else 1,
        )
        out[weights] = found.rounded()
        if gpu is not None:
            out[weights]["fits"] = found.total <= gpu.memory_gib * GIB
    return out


def _flops(shape: size.Shape, lengths: Lengths, values: Hyperparameters, rows: Rows) -> float:
    """Of the whole training: every row forward and backward in each epoch, DPO's reference once, validation once."""
    each = operations(shape, lengths, method=values.method, rank=values.lora_rank, recompute=True)
    read = reference_operations(shape, lengths)
    total = each * rows.training * values.epochs + read * rows.validation
    return total + (read * rows.shown if values.method == "dpo" else 0)


def _measured(run: Run, rows: Rows, values: Hyperparameters, adapters: list[Record]) -> dict[str, Any] | None:
    """Time from what earlier trainings of this store took for a pair; None where there was none of this kind."""
    found = _closest(run, adapters)
    if not found:
        return None
    facts = found[0].facts
    return {
        "seconds": facts["seconds_per_pair"] * rows.training * values.epochs,
        "seconds_per_pair": facts["seconds_per_pair"],
        "of": found[0].name.removesuffix("_adapter"),
        "method": facts.get("method", ""),
        "device": facts.get("device", ""),
        "peak_memory_bytes": facts.get("peak_memory_bytes"),
    }
