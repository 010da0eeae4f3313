"""Builder of the last stage: judged scores, controls, held-out text."""

from __future__ import annotations

from functools import partial
from typing import Any

from foundry_pipeline.chain.judging import (
    JUDGE_CODE,
    asked_how,
    declared_judge,
    judge_asks,
    judge_demand,
    judging_spec,
    outside,
)
from foundry_pipeline.chain.model_stages import base_asset, dense_dir
from foundry_pipeline.chain.modes import adapter_of, mode_inputs, serving_modes, uses_adapter
from foundry_pipeline.chain.stage import BuildContext, Built, Stage
from foundry_pipeline.declarations import CharacterFiles, Declarations
from foundry_pipeline.declarations.assets import Evaluation, Run
from foundry_pipeline.declarations.judging import AnyJudge
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
    judging: AnyJudge | None,
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
            "judging": judging_spec(ctx.settings, ctx.name, judging, files, attempt),
            "suite": files.suite.model_dump(mode="json"),
            "suite_hash": suite_hash(files),
            "controls": files.controls.model_dump(mode="json"),
            "style_probes": [probe.model_dump(mode="json") for probe in files.style_probes],
            "character": files.character.model_dump(mode="json"),
            "passages": str(ctx.inputs[passages].payload),
            "responses": str(ctx.inputs[f"{run}_responses"].payload / "responses.parquet"),
            "modes": list(serving),
            "weights": weights,
            "resamples": evaluation.bootstrap_resamples,
            "confidence": evaluation.confidence,
            "threads": threads,
            "vectors": str(ctx.settings.vectors_path),
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
    judging = declared_judge(d.profile)
    inputs = [f"{run.run}_responses", passages, *mode_inputs(run.run, serving, base=base, start=start)]
    return Stage(
        name=f"{run.run}_eval",
        kind="eval",
        inputs=tuple(dict.fromkeys(inputs)),
        declaration={
            "suite": files.suite.model_dump(mode="json"),
            "controls": files.controls.model_dump(mode="json"),
            "style_probes": [probe.model_dump(mode="json") for probe in files.style_probes],
            "character": files.character.model_dump(mode="json"),
            "modes": list(serving),
            "judge": d.profile.judge,
            **(asked_how(judging, files) if judging else {}),
            "resamples": evaluation.bootstrap_resamples,
            "confidence": evaluation.confidence,
            "threads": d.profile.threads,
            "attempt": attempt,
        },
        code=(
            "foundry_pipeline.evaluation.evaluate",
            "foundry_pipeline.evaluation.rubric",
            "foundry_pipeline.evaluation.grounding",
            "foundry_pipeline.evaluation.integrity",
            "foundry_pipeline.evaluation.judges",
            "foundry_pipeline.evaluation.ngram",
            "foundry_pipeline.evaluation.overlap",
            "foundry_pipeline.evaluation.stylometry",
            "foundry_pipeline.breaks",
            "foundry_pipeline.evaluation.scoring",
            "foundry_pipeline.evaluation.controls",
            "foundry_pipeline.evaluation.judge_checks",
            "foundry_pipeline.evaluation.style_probe",
            "foundry_pipeline.evaluation.heldout",
            "foundry_pipeline.evaluation.heldout_modes",
            "foundry_pipeline.models.cpu_products",
            "foundry_pipeline.statistics.intervals",
            "foundry_pipeline.textstats",
            *(JUDGE_CODE if judging else ()),
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
            judging=judging,
            threads=d.profile.threads,
            attempt=attempt,
        ),
        character=run.character,
        shown={"judge": d.profile.judge},
        **(_remote(d, run, files, judging, passages, len(serving), attempt) if judging else {}),
    )


def _remote(
    d: Declarations, run: Run, files: CharacterFiles, judge: AnyJudge, passages: str, modes: int, attempt: int
) -> dict[str, Any]:
    """What a stage says besides whose judge is a model."""
    given: dict[str, Any] = {"passages": passages, "files": files, "judge": judge, "anew": attempt}
    return {
        "external": partial(outside, judge),
        "requests": partial(judge_asks, responses=f"{run.run}_responses", **given),
        "demand": partial(judge_demand, files, d.profile, judge, modes),
    }
