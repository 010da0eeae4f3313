"""A recorded score computed once more, from what was recorded: is it the same number?

    replay(settings, "f91762fc")                    the recorded judgments, added up again
    replay(settings, "f91762fc", rejudge=True)      the recorded answers, judged again
    replay(settings, "f91762fc", regenerate=True)   the recorded model, asked and judged again

Everything is taken from the build that the ledger names: its answers, its suite, its rubric's declarations, its passages,
its weights, by hash. What is declared now plays no part; the code that is installed now does the work, and where it is
another version than the recorded one the result says so. Nothing is read from a cache or written into one, and neither
store nor ledger is changed.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import polars as pl

from foundry_pipeline.chain.stage import BuildContext
from foundry_pipeline.errors import FoundryError
from foundry_pipeline.evaluation.scoring import (
    BASE_MODE,
    COMPONENTS,
    Bounds,
    ModeFacts,
    paired_difference,
    summarize_mode,
    weighted_overall,
)
from foundry_pipeline.launch import ScriptRunner, read_facts
from foundry_pipeline.lineage.ledger import find_score
from foundry_pipeline.lineage.store import Artifact, Record, Store
from foundry_pipeline.lineage.walk import Walker
from foundry_pipeline.plain import plain
from foundry_pipeline.settings import Settings

# A sum in another order, or a database's last digit: no other number.
TOLERANCE = 1e-9


@dataclass(frozen=True)
class Figure:
    """One figure of a score: what the ledger holds and what came out now (both None where there is none)."""

    name: str
    recorded: float | None
    found: float | None

    @property
    def same(self) -> bool:
        if self.recorded is None or self.found is None:
            return self.recorded is None and self.found is None
        return math.isclose(self.recorded, self.found, rel_tol=0.0, abs_tol=TOLERANCE)


@dataclass
class Replay:
    """What came out. `figures[0]` is the overall score; `notes` say what was as it was and what was not."""

    score: dict[str, Any]
    how: str
    figures: list[Figure]
    notes: list[str] = field(default_factory=list)

    @property
    def same(self) -> bool:
        return all(figure.same for figure in self.figures)

    def to_json(self) -> dict[str, Any]:
        figures = [{**asdict(figure), "same": figure.same} for figure in self.figures]
        kept = ("score_id", "run", "mode", "judge", "judge_version", "profile", "recorded_at")
        about = {name: self.score[name] for name in kept}
        return {**about, "how": self.how, "same": self.same, "figures": figures, "notes": self.notes}


@dataclass(frozen=True)
class _Recorded:
    """The build behind a score: its ledger row, its index line, its verified artifact, its table of answers."""

    row: dict[str, Any]
    record: Record
    artifact: Artifact
    scores: pl.DataFrame

    @property
    def mode(self) -> str:
        return str(self.row["mode"])

    @property
    def bounds(self) -> Bounds:
        declared = self.record.declaration
        return Bounds(int(declared["resamples"]), float(declared["confidence"]))


def replay(
    settings: Settings,
    score: str,
    *,
    run_script: ScriptRunner,
    rejudge: bool = False,
    regenerate: bool = False,
    log: Callable[[str], None] = lambda text: None,
) -> Replay:
    """Compute a score of the ledger once more.

    `score` is the beginning of its id. Raises FoundryError where it cannot be computed: no such score, its evaluation or
    what that needs no longer in the store, or damaged.
    """
    store = Store(settings.store)
    recorded = _recorded(settings, store, score)
    notes: list[str] = []
    frame = recorded.scores
    if regenerate or rejudge:
        with tempfile.TemporaryDirectory(prefix="foundry-replay-") as folder:
            work = Path(folder)
            if regenerate:
                frame = _answers_again(settings, store, recorded, work, run_script, log, notes)
            frame = _judged_again(store, recorded, frame, work, run_script, notes, regenerated=regenerate)
    how = "regenerated" if regenerate else "rejudged" if rejudge else "recomputed"
    return Replay(recorded.row, how, _figures(recorded, _weighed(frame)), notes)


def _recorded(settings: Settings, store: Store, score: str) -> _Recorded:
    row = find_score(settings.ledger_url, score)
    if row is None:
        raise FoundryError(
            "no such score is in the ledger", where=plain(score, 80), mend="foundry scores  # lists them, by id"
        )
    record = Walker(store).of_score(row)
    again = f"dagster asset materialize --select '*{row['run']}_eval'"
    if record is None:
        raise FoundryError(
            "the evaluation behind this score is no longer in the store",
            where=str(store.folder(row["artifact_hash"])),
            mend=f"{again}  # builds it anew",
        )
    artifact = store.open(record.content_hash, name=record.name)
    path = artifact.payload / "scores.parquet"
    if not path.is_file():
        raise FoundryError("the evaluation holds no table of scores", where=str(path), mend=again)
    scores = pl.read_parquet(path)
    if row["mode"] not in set(scores["mode"].to_list()):
        raise FoundryError(f"the evaluation holds no answers of the mode {row['mode']}", where=str(path), mend=again)
    return _Recorded(row, record, artifact, scores)


def _weighed(scores: pl.DataFrame) -> pl.DataFrame:
    """The table with every overall score made anew from its five components; what is unscored stays so."""
    rows = scores.select("overall", *COMPONENTS).iter_rows(named=True)
    overall = [
        None if row["overall"] is None else weighted_overall({name: row[name] for name in COMPONENTS}) for row in rows
    ]
    return scores.with_columns(overall=pl.Series(overall, dtype=pl.Float64))


def _figures(recorded: _Recorded, scores: pl.DataFrame) -> list[Figure]:
    row, mode, bounds = recorded.row, recorded.mode, recorded.bounds
    mine = summarize_mode(scores.filter(pl.col("mode") == mode), ModeFacts(mode), bounds)
    out = [
        Figure("overall", row["overall"], mine["overall"]["mean"]),
        Figure("overall, low", row["overall_low"], mine["overall"]["low"]),
        Figure("overall, high", row["overall_high"], mine["overall"]["high"]),
        Figure("raw overall", row["raw_overall"], mine["raw_overall"]["mean"]),
    ]
    if mode != BASE_MODE and BASE_MODE in set(scores["mode"].to_list()):
        paired = paired_difference(scores, mode, BASE_MODE, bounds)
        out += [
            Figure("against base", row["paired_difference"], paired["difference"]),
            Figure("against base, low", row["paired_low"], paired["low"]),
            Figure("against base, high", row["paired_high"], paired["high"]),
        ]
    for column in ("categories", "difficulties", "components"):
        if row[column] is not None:  # rows from before layout 2 hold no components
            names = dict.fromkeys([*row[column], *mine[column]])
            out += [Figure(n, row[column].get(n), (mine[column].get(n) or {}).get("mean")) for n in names]
    return [
        *out,
        Figure("critical failures", row["critical_failures"], mine["critical_failures"]),
        Figure("unscored", row["parse_failures"], mine["unscored"]),
    ]


# -- judging and generating again ----------------------------------------------------------------------------------


def _judged_again(
    store: Store,
    recorded: _Recorded,
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
    declared, passages = recorded.record.declaration, _input(store, recorded.record, "_passages")
    run_script(
        "foundry_pipeline.evaluation.rejudge",
        {
            "judge": declared["judge"],
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


def _answers_again(
    settings: Settings,
    store: Store,
    recorded: _Recorded,
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

    record = _upstream(store, recorded.record, "_responses")
    run = record.name.removesuffix("_responses")
    base = next(name for name in record.inputs if name.startswith("base_model_"))
    start = next((n for n in record.inputs if n.endswith("_merged") and n != f"{run}_merged"), base)
    declared = record.declaration
    suite = EvaluationSuite.model_validate(recorded.record.declaration["suite"])
    requests = evaluation_requests(
        suite.prompts, Sampling.model_validate(declared["sampling"]), max_tokens=int(declared["max_tokens"])
    )
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
    replies, _ = generate_in_child(
        context,
        model,
        requests,
        folder="replay",
        threads=int(declared["threads"]),
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


def _upstream(store: Store, record: Record, ending: str) -> Record:
    """The build among the inputs whose name ends so, as it was recorded."""
    for name, way in record.inputs.items():
        if name.endswith(ending):
            found, _ = Walker(store).find(way["input"], way["content"])
            if found is not None:
                return found
            raise _gone(store, name, way)
    raise FoundryError(
        f"{record.name} names no input {ending.removeprefix('_')}", where=record.input_hash, mend="foundry scores"
    )


def _input(store: Store, record: Record, ending: str) -> Artifact:
    found = _upstream(store, record, ending)
    return store.open(found.content_hash, name=found.name)


def _gone(store: Store, name: str, way: Mapping[str, str]) -> FoundryError:
    return FoundryError(
        f"{name}, which this score stands on, is no longer in the store",
        where=str(store.folder(way["content"])),
        mend=f"dagster asset materialize --select '*{name}'  # builds it anew, if nothing has changed since",
    )
