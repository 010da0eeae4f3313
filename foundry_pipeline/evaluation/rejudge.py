"""Judge answers anew, past every cache: `python -m foundry_pipeline.evaluation.rejudge SPEC.json`.

SPEC.json   {"judge": "rubric-local", "judging": null, "character": {…}, "suite": {…}, "passages": "<folder>",
             "answers": "answers.parquet", "threads": 2, "work": "…"}
answers     columns `prompt_id` and `answer`, any others beside them
→ work/result/judgments.parquet   a row for each answer, in order: overall, raw_overall, the five components,
                                  critical_failures, justification
  work/result.json                {"judge": …, "judge_version": …, "judged": …}
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import polars as pl

from foundry_pipeline.corpus.minilm import load_encoder
from foundry_pipeline.corpus.passages import own_passages
from foundry_pipeline.declarations.sources import Character, EvaluationSuite
from foundry_pipeline.evaluation.evaluate import make_judge
from foundry_pipeline.evaluation.model_judge import ModelJudge
from foundry_pipeline.evaluation.scoring import COMPONENTS, SCORES_SCHEMA
from foundry_pipeline.launch import ScriptSession, atomic_folder, leave, script_main

JUDGED = ("overall", "raw_overall", *COMPONENTS, "critical_failures", "justification")


def run(spec: dict[str, Any], session: ScriptSession) -> dict[str, Any]:
    """Judge every answer of the spec; which judge it was, and how many answers."""
    character = Character.model_validate(spec["character"])
    prompts = {p.id: p for p in EvaluationSuite.model_validate(spec["suite"]).prompts}
    passages = own_passages(pl.read_parquet(Path(spec["passages"]) / "passages.parquet"))
    # As the evaluation does it: an encoder's last digits may hang on how many threads add them up.
    encoder = load_encoder(max(1, int(spec["threads"]) // 2))
    paid: dict[str, Any] = {}
    judge = make_judge(spec, character, passages, encoder.embed, session, paid)
    answers = pl.read_parquet(spec["answers"])
    if isinstance(judge, ModelJudge):
        judge.prepare([(prompts[row["prompt_id"]], row["answer"]) for row in answers.iter_rows(named=True)])
    rows = []
    for done, answer in enumerate(answers.iter_rows(named=True), start=1):
        said = judge.judge(prompts[answer["prompt_id"]], answer["answer"])
        rows.append(
            {
                "overall": said.overall,
                "raw_overall": said.raw_overall,
                **{name: said.components.get(name) for name in COMPONENTS},
                "critical_failures": list(said.critical_failures),
                "justification": said.justification,
            }
        )
        session.progress(done, answers.height)
    with atomic_folder(Path(spec["work"]) / "result") as result:
        frame = pl.DataFrame(rows, schema={name: SCORES_SCHEMA[name] for name in JUDGED}, orient="row")
        frame.write_parquet(result / "judgments.parquet")
    return {"judge": judge.name, "judge_version": judge.version, "judged": len(rows), **paid}


if __name__ == "__main__":
    leave(script_main(run))
