"""Builder of the last stage: judged scores, controls, held-out text."""

from __future__ import annotations

from functools import partial
from typing import Any

from foundry_pipeline.chain.model_stages import base_asset, dense_dir
from foundry_pipeline.chain.modes import adapter_of, mode_inputs, serving_modes, uses_adapter
from foundry_pipeline.chain.stage import BuildContext, Built, Stage
from foundry_pipeline.declarations import CharacterFiles, Declarations
from foundry_pipeline.declarations.assets import Evaluation, Run
from foundry_pipeline.lineage.hashing import digest


def suite_hash(files: CharacterFiles) -> str:
    """Hash of the evaluation suite: prompts, claims, stances and guarded categories."""
    return digest(files.suite.model_dump(mode="json"))


def build_eval(
    ctx: BuildContext,
    *,
    run: str,
    start: str,
    base: str,
    passages: str,
    files: CharacterFiles,
    evaluation: Evaluation,
    serving: tuple[str, ...],
    profile: str,
    judge: str,
    threads: int,
    attempt: int,
) -> Built:
    weights: dict[str, dict[str, Any]] = {}
    for mode in serving:
        if mode == "base":
            weights[mode] = {"dense": str(dense_dir(ctx.inputs[base]))}
        elif uses_adapter(mode):
            folder, _ = adapter_of(ctx.inputs[f"{run}_adapter"], mode)
            weights[mode] = {"dense": str(dense_dir(ctx.inputs[start])), "adapter": str(folder)}
        elif mode == "merged":
            weights[mode] = {"dense": str(dense_dir(ctx.inputs[f"{run}_merged"]))}
        else:
            weights[mode] = {"gguf": str(ctx.inputs[f"{run}_gguf"].payload / f"{mode}.gguf")}
    result, facts = ctx.script(
        "foundry_pipeline.evaluation.evaluate",
        {
            "profile": profile,
            "judge": judge,
            "suite": files.suite.model_dump(mode="json"),
            "suite_hash": suite_hash(files),
            "controls": files.controls.model_dump(mode="json"),
            "character": files.character.model_dump(mode="json"),
            "passages": str(ctx.inputs[passages].payload),
            "responses": str(ctx.inputs[f"{run}_responses"].payload / "responses.parquet"),
            "modes": list(serving),
            "weights": weights,
            "resamples": evaluation.bootstrap_resamples,
            "confidence": evaluation.confidence,
            "threads": threads,
        },
    )
    return Built(result, facts)


def eval_stage(d: Declarations, run: Run, *, attempt: int = 0) -> Stage:
    """Scores of one run. `attempt` above 0 judges the same answers anew, past what was judged before."""
    files, evaluation = d.characters[run.character], d.evaluations[run.evaluation]
    base = base_asset(d.base_model(run.base))
    start = f"{run.start_from}_merged" if run.start_from else base
    passages = f"{run.character}_passages"
    serving = serving_modes(run, evaluation)
    inputs = [f"{run.run}_responses", passages, *mode_inputs(run.run, serving, base=base, start=start)]
    return Stage(
        name=f"{run.run}_eval",
        kind="eval",
        inputs=tuple(dict.fromkeys(inputs)),
        declaration={
            "suite": files.suite.model_dump(mode="json"),
            "controls": files.controls.model_dump(mode="json"),
            "character": files.character.model_dump(mode="json"),
            "modes": list(serving),
            "judge": d.profile.judge,
            "resamples": evaluation.bootstrap_resamples,
            "confidence": evaluation.confidence,
            "threads": d.profile.threads,
            "attempt": attempt,
        },
        code=(
            "foundry_pipeline.evaluation.evaluate",
            "foundry_pipeline.evaluation.rubric",
            "foundry_pipeline.evaluation.scoring",
            "foundry_pipeline.evaluation.controls",
            "foundry_pipeline.evaluation.heldout",
            "foundry_pipeline.evaluation.heldout_modes",
            "foundry_pipeline.statistics.intervals",
            "foundry_pipeline.textstats",
        ),
        build=partial(
            build_eval,
            run=run.run,
            start=start,
            base=base,
            passages=passages,
            files=files,
            evaluation=evaluation,
            serving=serving,
            profile=d.profile.profile,
            judge=d.profile.judge,
            threads=d.profile.threads,
            attempt=attempt,
        ),
        character=run.character,
        shown={"judge": d.profile.judge},
    )
