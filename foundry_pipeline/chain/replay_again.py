"""Answers judged again, and drawn again, from the build that a score was recorded of: past every cache."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl
from pydantic import ValidationError

from foundry_pipeline.chain.recorded import Recorded, open_input, upstream
from foundry_pipeline.chain.stage import BuildContext
from foundry_pipeline.errors import FoundryError
from foundry_pipeline.evaluation.scoring import BASE_MODE, COMPONENTS
from foundry_pipeline.launch import ScriptRunner, read_facts
from foundry_pipeline.lineage.store import Store
from foundry_pipeline.settings import Settings


def judged_again(
    settings: Settings,
    store: Store,
    recorded: Recorded,
    frame: pl.DataFrame,
    work: Path,
    run_script: ScriptRunner,
    notes: list[str],
    *,
    regenerated: bool,
) -> pl.DataFrame:
    """The rows of this mode (and, for the difference, of the base) with judgments made now."""
    modes = [recorded.mode] if regenerated else [recorded.mode, BASE_MODE]
    wanted = frame.filter(pl.col("mode").is_in(modes))
    folder = work / "judge"
    folder.mkdir()
    wanted.write_parquet(folder / "answers.parquet")
    declared, passages = recorded.record.declaration, open_input(store, recorded.record, "_passages")
    run_script(
        "foundry_pipeline.evaluation.rejudge",
        {
            "judge": declared["judge"],
            "judging": _judging(settings, recorded),
            "character": declared["character"],
            "suite": declared["suite"],
            "passages": str(passages.payload),
            "answers": str(folder / "answers.parquet"),
            "threads": declared["threads"],
        },
        folder,
    )
    facts = read_facts(folder)
    judged = pl.read_parquet(folder / "result" / "judgments.parquet")
    notes.append(f"{judged.height} answers were judged anew by {facts['judge']}")
    if facts["judge_version"] != recorded.row["judge_version"]:
        notes.append(
            f"the judge has changed since: version {recorded.row['judge_version']} then, {facts['judge_version']} now"
        )
    again = wanted.with_columns(judged.get_columns())
    if not regenerated:
        columns = ("overall", *COMPONENTS)
        changed = sum(a != b for a, b in zip(wanted.select(columns).rows(), again.select(columns).rows(), strict=True))
        notes.append(f"{changed} of {judged.height} judgments differ from the recorded ones")
    rest = frame.filter(~pl.col("mode").is_in(modes))
    return pl.concat([again, rest])


def _judging(settings: Settings, recorded: Recorded) -> dict[str, Any] | None:
    """How to ask a judge that is a model, under a number that no reply is stored for; None for the rubric."""
    from foundry_pipeline.chain.judging import declared_judge, judging_spec
    from foundry_pipeline.declarations import load
    from foundry_pipeline.declarations.judging import RUBRIC_LOCAL

    name = recorded.record.declaration["judge"]
    if name == RUBRIC_LOCAL:
        return None
    d = load(settings.root, settings.profile)
    if d.profile.judge != name or (judge := declared_judge(d.profile)) is None:
        raise FoundryError(
            f"the score is of the judge `{name}`, the profile `{settings.profile}` has `{d.profile.judge}`",
            where=recorded.record.name,
            mend=f"FOUNDRY_PROFILE={recorded.row['profile']} foundry replay …   # the profile that it was judged under",
        )
    files = d.characters[str(recorded.record.declaration["character"]["character"])]
    return judging_spec(settings, recorded.record.name, judge, files, time.time_ns())


def answers_again(
    settings: Settings,
    store: Store,
    recorded: Recorded,
    work: Path,
    run_script: ScriptRunner,
    log: Callable[[str], None],
    notes: list[str],
) -> pl.DataFrame:
    """The table with the answers of this mode drawn anew from the recorded weights, with the recorded settings."""
    from foundry_pipeline.chain.generation import generate_in_child
    from foundry_pipeline.chain.model_stages import model_refs
    from foundry_pipeline.declarations.common import Sampling
    from foundry_pipeline.declarations.sources import EvaluationSuite
    from foundry_pipeline.models.requests import evaluation_requests

    record = upstream(store, recorded.record, "_responses")
    run = record.name.removesuffix("_responses")
    base = next(name for name in record.inputs if name.startswith("base_model_"))
    start = next((n for n in record.inputs if n.endswith("_merged") and n != f"{run}_merged"), base)
    declared = record.declaration
    try:
        suite = EvaluationSuite.model_validate(recorded.record.declaration["suite"])
        sampling = Sampling.model_validate(declared["sampling"])
    except ValidationError as error:
        raise FoundryError(
            f"the recorded questions cannot be read by this version ({error.error_count()} fields)",
            where=recorded.record.input_hash,
            mend="foundry replay SCORE  # adds the recorded judgments up",
        ) from error
    requests = evaluation_requests(suite.prompts, sampling, max_tokens=int(declared["max_tokens"]))
    inputs = {name: store.open(way["content"], name=name) for name, way in record.inputs.items()}
    model = model_refs(run, start, base, inputs, (recorded.mode,))[recorded.mode]
    log(f"{model.title}: {len(requests)} answers")
    context = BuildContext(
        # Its own store for the caches, so that none is found and none is left.
        replace(settings, store=work / "store"),
        store,
        inputs,
        work / "generate",
        run_script,
        log,
        record.name,
    )
    # As many threads as each process had when several modes were answered at once: sums in another order, other texts.
    lanes = max(1, min(int(declared.get("at_once", 1)), len(declared["modes"])))
    replies, _ = generate_in_child(
        context,
        model,
        requests,
        folder="replay",
        threads=max(1, int(declared["threads"]) // lanes),
        group=int(declared["group"]),
        precision=str(declared["precision"]),
    )
    told = {reply.request_id: reply for reply in replies}
    rows = recorded.scores.with_row_index("_row")
    mine = rows.filter(pl.col("mode") == recorded.mode)
    answers = [told[p].text for p in mine["prompt_id"].to_list()]
    same = sum(a == b for a, b in zip(answers, mine["answer"].to_list(), strict=True))
    notes.append(f"{same} of {len(answers)} answers are the recorded ones, word for word")
    if recorded.mode != BASE_MODE and BASE_MODE in set(rows["mode"].to_list()):
        notes.append("the difference from the untuned base is from that one's recorded answers")
    again = mine.with_columns(
        answer=pl.Series(answers, dtype=pl.String),
        finish_reason=pl.Series([told[p].finish_reason for p in mine["prompt_id"].to_list()], dtype=pl.String),
    )
    return pl.concat([again, rows.filter(pl.col("mode") != recorded.mode)]).sort("_row").drop("_row")
