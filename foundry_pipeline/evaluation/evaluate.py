"""Judge recorded answers and measure held-out text: `python -m foundry_pipeline.evaluation.evaluate SPEC.json`.

The spec holds the suite, the controls and the character as declared, paths to passages, answers and weights, and how
intervals are drawn. The result folder holds `summary.json`, `scores.parquet`, `controls.parquet`, `style_probe.parquet`
where one is declared, and of a judge that is a model every reply it gave (`judgments.parquet`); times are facts, outside of it, so that judging the same answers
again gives the same bytes.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import polars as pl
from pydantic import TypeAdapter

from foundry_pipeline.corpus.embeddings import KeptVectors
from foundry_pipeline.corpus.passages import own_passages
from foundry_pipeline.declarations.judging import RUBRIC_LOCAL, AnyJudge
from foundry_pipeline.declarations.sources import Character, ControlSet, EvaluationSuite, StyleProbes
from foundry_pipeline.errors import FoundryError
from foundry_pipeline.evaluation.controls import judge_controls, planted
from foundry_pipeline.evaluation.heldout_modes import Measuring
from foundry_pipeline.evaluation.judge_checks import self_agreement
from foundry_pipeline.evaluation.model_judge import ModelJudge, judge_ref
from foundry_pipeline.evaluation.overlap import Overlaps
from foundry_pipeline.evaluation.rubric import RubricLocal
from foundry_pipeline.evaluation.scoring import Bounds, ModeFacts, score_row, scores_frame, summarize
from foundry_pipeline.evaluation.style_probe import dressed, judge_style
from foundry_pipeline.launch import ScriptSession, atomic_folder, leave, script_main
from foundry_pipeline.models.cache import ResponseCache
from foundry_pipeline.models.money.spending import open_spending
from foundry_pipeline.models.requests import ChatRequest, Reply

PORTION = 36  # answers read ahead at once: enough for long products, few enough that progress is seen


def make_judge(
    spec: dict[str, Any],
    character: Character,
    passages: pl.DataFrame,
    embed: Any,
    session: ScriptSession,
    paid: dict[str, Any],
) -> RubricLocal | ModelJudge:
    """The judge of a spec: the rubric, or the model that its `judging` declares, asked through the response cache.

    What a model took (requests, tokens, money) is added up in `paid`. Raises FoundryError for a spec without either.
    """
    if spec["judge"] == RUBRIC_LOCAL:
        return RubricLocal(character, passages, embed)
    judging = spec.get("judging")
    if not judging:
        raise FoundryError(
            f"the judge `{spec['judge']}` is not declared",
            where="assets/profiles/, field `judges`",
            mend="declare it there, or set `judge: rubric-local`",
        )
    declared: AnyJudge = TypeAdapter(AnyJudge).validate_python(judging["declared"])
    model = judge_ref(declared)

    def ask(requests: Sequence[ChatRequest]) -> list[Reply]:
        from foundry_pipeline.models.remote.answering import answer_all

        session.log(f"{model.title}: {len(requests)} answers to be judged")
        facts: dict[str, Any] = {}
        replies = answer_all(
            model,
            requests,
            cache=ResponseCache(Path(judging["cache"])),
            spending=open_spending(judging["money"]),
            run=session.run_id,
            progress=session.progress,
            log=session.log,
            facts=facts,
        )
        for name, value in facts.items():
            if isinstance(value, int | float) and name != "requests_per_second":
                paid[name] = paid.get(name, 0) + value
        return replies

    return ModelJudge(declared, character, judging["constitution"], ask, anew=int(judging["anew"]))


def run(spec: dict[str, Any], session: ScriptSession) -> dict[str, Any]:
    """Judge every answer of the spec; returns the facts (seconds by mode and by part)."""
    character = Character.model_validate(spec["character"])
    suite = EvaluationSuite.model_validate(spec["suite"])
    controls = ControlSet.model_validate(spec["controls"])
    folder = Path(spec["passages"])
    passages = pl.read_parquet(folder / "passages.parquet")
    own = own_passages(passages)
    documents = pl.read_parquet(folder / "documents.parquet")
    held_out = documents.filter(pl.col("document_id").is_in(list(character.held_out_documents)))["text"].to_list()
    # Passage by passage is how the character is asked: no page of his own words stands before an answer. Whole
    # documents are measured as well, because text before the token does part of the tuning's work there.
    # A second copy of them in another source is held out too, and is not measured twice.
    kept = passages.filter(pl.col("document_id").is_in(list(character.held_out_documents)))
    held_out_passages = kept.sort("document_id", "position")["text"].to_list()
    probes = StyleProbes(probes=spec["style_probes"]).probes if spec["style_probes"] else ()
    responses = pl.read_parquet(spec["responses"])
    prompts = {p.id: p for p in suite.prompts}
    threads = int(spec["threads"])
    measuring = Measuring(
        {mode: spec["weights"][mode] for mode in spec["modes"]},
        held_out_passages,
        held_out,
        threads=threads,
        work=Path(spec["work"]) / "held_out",
        log=session.log,
    )
    if threads == 1:
        measuring.result()  # one after the other: no more than one core was given
    encoder = KeptVectors(Path(spec["vectors"]), threads=max(1, threads // 2))
    paid: dict[str, Any] = {}
    judge = make_judge(spec, character, own, encoder.embed, session, paid)
    if isinstance(judge, ModelJudge):
        started = time.monotonic()
        answers = [(prompts[r["prompt_id"]], r["answer"]) for r in responses.iter_rows(named=True)]
        judge.prepare([*answers, *planted(controls, passages), *dressed(probes, prompts)])
        asked = time.monotonic() - started
    overlaps = Overlaps(own["passage_id"].to_list(), own["text"].to_list())

    rows: list[dict[str, Any]] = []
    seconds: dict[str, float] = {"asking the judge": asked} if isinstance(judge, ModelJudge) else {}
    for done, answer in enumerate(responses.iter_rows(named=True)):
        started = time.monotonic()
        if isinstance(judge, RubricLocal) and done % PORTION == 0:
            ahead = responses.slice(done, PORTION).iter_rows(named=True)
            judge.prepare([(prompts[r["prompt_id"]], r["answer"]) for r in ahead])
        prompt = prompts[answer["prompt_id"]]
        rows.append(
            score_row(
                answer["mode"],
                prompt,
                answer["answer"],
                judge.judge(prompt, answer["answer"]),
                overlaps.longest(answer["answer"]),
                finish_reason=answer["finish_reason"],
                request_hash=answer["request_hash"],
            )
        )
        seconds[answer["mode"]] = seconds.get(answer["mode"], 0.0) + time.monotonic() - started
        session.progress(done + 1, responses.height, judged=answer["mode"])
    started = time.monotonic()
    session.log(f"judging {len(controls.controls)} planted controls")
    if isinstance(judge, RubricLocal):
        judge.prepare([*planted(controls, passages), *dressed(probes, prompts)])
    table, judged_controls = judge_controls(controls, passages, judge)
    style, judged_style = judge_style(probes, prompts, judge) if probes else (None, None)
    seconds["controls"] = time.monotonic() - started
    found = measuring.result()
    modes: dict[str, ModeFacts] = {}
    for mode in spec["modes"]:  # as declared: the keys of a JSON object have no order
        if mode in found:
            alone, whole = found[mode]["passages"], found[mode].get("documents", {})
            modes[mode] = ModeFacts(mode, alone["nats_per_token"], alone["tokens"], whole.get("nats_per_token"))
        else:
            session.log(f"{mode}: no held-out text")
            modes[mode] = ModeFacts(mode)
    seconds |= {f"held out, {mode}": taken for mode, taken in measuring.seconds().items()}
    summary = summarize(
        scores_frame(rows),
        modes,
        run="",
        profile=spec["profile"],
        judge_name=judge.name,
        judge_version=judge.version,
        suite_hash=spec["suite_hash"],
        controls=judged_controls,
        bounds=Bounds(int(spec["resamples"]), float(spec["confidence"])),
    )
    if judged_style is not None:
        summary["style_probe"] = judged_style
    if isinstance(judge, ModelJudge) and (repeated := self_agreement(judge.records())):
        summary["judge"]["self_agreement"] = repeated
    with atomic_folder(Path(spec["work"]) / "result") as result:
        scores_frame(rows).write_parquet(result / "scores.parquet")
        table.write_parquet(result / "controls.parquet")
        if style is not None:
            style.write_parquet(result / "style_probe.parquet")
        if isinstance(judge, ModelJudge):
            judge.records().write_parquet(result / "judgments.parquet")
        (result / "summary.json").write_text(
            json.dumps(summary, indent=1, sort_keys=False, ensure_ascii=False) + "\n", encoding="utf-8"
        )
    told = {**paid, **judge.facts()} if isinstance(judge, ModelJudge) else {}
    return {**told, "judged": len(rows), "seconds_by_part": {k: round(v, 3) for k, v in seconds.items()}}


if __name__ == "__main__":
    leave(script_main(run))
