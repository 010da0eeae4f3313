"""The recorded replies of a judge that is a model, read once more: what its scores were made from.

    frame, notes = read_again(recorded)     the table of scores with every judgment made anew from the replies

A judge that is no model leaves no replies; its judgments are taken as they were recorded.
"""

from __future__ import annotations

import polars as pl

from foundry_pipeline.chain.recorded import Recorded
from foundry_pipeline.errors import FoundryError
from foundry_pipeline.evaluation.judges import Judgment
from foundry_pipeline.evaluation.model_judge import RECORDS, combined, degenerate
from foundry_pipeline.evaluation.replies import JudgeReply, read_reply
from foundry_pipeline.evaluation.scoring import COMPONENTS, SCORES_SCHEMA
from foundry_pipeline.lineage.hashing import digest

_JUDGED = ("overall", "raw_overall", *COMPONENTS, "critical_failures", "justification")


def read_again(recorded: Recorded) -> tuple[pl.DataFrame, list[str]]:
    """The table of scores as the recorded replies give it under the reading of this version, and what is to be said of it.

    Raises FoundryError where an answer that was judged has no reply on record.
    """
    path = recorded.artifact.file("judgments.parquet")
    if not path.is_file():
        return recorded.scores, []
    replies = pl.read_parquet(path).select(list(RECORDS))
    last: dict[tuple[str, str], dict[int, JudgeReply]] = {}
    for row in replies.sort("attempt").iter_rows(named=True):
        heard = last.setdefault((row["prompt_id"], row["answer_hash"]), {})
        heard[row["repeat"]] = read_reply(row["reply"], row["stop_reason"])
    rows = []
    for row in recorded.scores.iter_rows(named=True):
        said = last.get((row["prompt_id"], digest(row["answer"])))
        if said is None and degenerate(row["answer"]):
            rows.append({name: row[name] for name in _JUDGED})  # scored by rule, nobody was asked
            continue
        if said is None:
            raise FoundryError(
                f"no reply is on record to the answer to {row['prompt_id']} ({row['mode']})",
                where=str(path),
                mend="foundry replay SCORE --rejudge  # asks the judge anew",
            )
        rows.append(_row(combined([said[repeat] for repeat in sorted(said)])))
    again = pl.DataFrame(rows, schema={name: SCORES_SCHEMA[name] for name in _JUDGED}, orient="row")
    return recorded.scores.with_columns(again.get_columns()), [f"{replies.height} recorded replies were read again"]


def _row(judgment: Judgment) -> dict[str, object]:
    return {
        "overall": judgment.overall,
        "raw_overall": judgment.raw_overall,
        **{name: judgment.components.get(name) for name in COMPONENTS},
        "critical_failures": list(judgment.critical_failures),
        "justification": judgment.justification,
    }
