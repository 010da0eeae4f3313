"""From a store to a page: a small chain of real artifacts, published by the engine, read back by their hashes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from foundry_pipeline.chain.engine import Chain
from foundry_pipeline.chain.gate import write_verdict
from foundry_pipeline.chain.stage import BuildContext, Built, Kind, Stage
from foundry_pipeline.corpus.cleaning import clean_frame
from foundry_pipeline.corpus.connectors import read_source
from foundry_pipeline.corpus.passages import cut_passages
from foundry_pipeline.datasets.content import write_dataset
from foundry_pipeline.declarations import Declarations, load
from foundry_pipeline.errors import DamagedArtifact, FoundryError, MissingArtifact
from foundry_pipeline.evaluation.scoring import Bounds, ModeFacts, scores_frame, summarize
from foundry_pipeline.lineage.store import Store
from foundry_pipeline.pairs.candidates import PAIRS
from foundry_pipeline.pairs.filters import DROPPED
from foundry_pipeline.pairs.teachers.frames import DROPS
from foundry_pipeline.reports.gather import gather
from foundry_pipeline.reports.run_report import write_report
from foundry_pipeline.settings import Settings

KEEPER = Path(__file__).resolve().parents[2] / "characters" / "keeper"
MODES = ("base", "adapter")


def _documents(d: Declarations) -> pl.DataFrame:
    files = d.characters["keeper"]
    rows = [
        {
            "document_id": found.document_id, "source": m.source, "role": m.role, "author": m.author,
            "title": found.title, "date": found.date, "url": found.url, "license": m.license, "raw": found.raw,
            "raw_sha256": found.raw_sha256, "held_out": False,
        }
        for m in files.manifests.values()
        for found in read_source(m, base=files.folder / "manifests")
    ]  # fmt: skip
    return pl.DataFrame(rows)


def _pairs(passage_ids: list[str]) -> pl.DataFrame:
    rows = [
        {
            "pair_id": f"{i:064d}", "prompt": "How?", "chosen": "By oil.", "rejected": "Idk.", "category": category,
            "difficulty": "easy", "origin": "base", "prompt_id": f"base-{i}", "passage_ids": [passage_ids[i % 2]],
            "teacher": "primary_source", "student": "base", "teacher_request_hash": "t", "student_request_hash": "s",
            "fit": 0.5, "voice_chosen": 0.8, "voice_rejected": 0.3, "voice_contrast": 0.5,
            "repetition_rejected": 0.0, "upsample": 2 if i == 0 else 1,
        }
        for i, category in enumerate(["ground_truth", "ground_truth", "verified_response"])
    ]  # fmt: skip
    return pl.DataFrame(rows, PAIRS)


def _scores(d: Declarations) -> pl.DataFrame:
    rows = [
        {
            "mode": mode, "prompt_id": p.id, "category": p.category, "difficulty": p.difficulty,
            "answer": f"{mode} on {p.id} <script>boo()</script>", "overall": value, "raw_overall": None,
            **dict.fromkeys(("voice", "rhetorical", "historical", "position", "integrity"), value),
            "critical_failures": [], "justification": "", "longest_overlap_words": 3, "overlap_passage_id": None,
            "finish_reason": "stop", "request_hash": "r",
        }
        for mode, offset in zip(MODES, (2.0, 3.5), strict=True)
        for i, p in enumerate(d.characters["keeper"].suite.prompts)
        for value in [offset + 0.25 * i * (1 if mode == "base" else 1.5)]
    ]  # fmt: skip
    return scores_frame(rows)


def _stages(d: Declarations) -> list[Stage]:
    """The keeper's chain, cut down to what a report reads; each stage writes what the real one does."""
    cleaned, _ = clean_frame(list(d.characters["keeper"].manifests.values()), _documents(d))
    passages = cut_passages(cleaned)
    own = passages.filter(pl.col("role") == "primary")["passage_id"].to_list()

    def stage(
        name: str, kind: Kind, inputs: tuple[str, ...], write: Callable[[Path], dict[str, Any]], **more: Any
    ) -> Stage:
        def build(ctx: BuildContext) -> Built:
            payload = ctx.work / "payload"
            payload.mkdir(parents=True)
            return Built(payload, write(payload))

        return Stage(name, kind, inputs, {"name": name}, (), build, "keeper", **more)

    def write_sources(to: Path) -> dict[str, Any]:
        _documents(d).write_parquet(to / "documents.parquet")
        return {"documents": 2}

    def write_passages(to: Path) -> dict[str, Any]:
        cleaned.write_parquet(to / "documents.parquet")
        passages.write_parquet(to / "passages.parquet")
        return {"passages": passages.height}

    def write_teacher(to: Path) -> dict[str, Any]:
        drops = [
            ("p1", "base", "ground_truth", "no fitting passage (best fit 0.08)", 0.08),
            ("p2", "base", "ground_truth", "no fitting passage (best fit 0.02)", 0.02),
            ("p3", "base", "private_voice", "category not served: no letters", None),
        ]
        pl.DataFrame(drops, DROPS, orient="row").write_parquet(to / "drops.parquet")
        return {"answered": 4, "prompts": 7}

    def write_filtered(to: Path) -> dict[str, Any]:
        _pairs(own).write_parquet(to / "pairs.parquet")
        dropped = [
            ("x", "p4", "base", "loop", "loops", 0.5, ["loop"]),
            ("y", "p5", "base", "loop", "loops", 0.6, ["loop"]),
        ]
        pl.DataFrame(dropped, DROPPED, orient="row").write_parquet(to / "dropped.parquet")
        return {"kept": 3, "dropped": 2}

    def write_pairs(to: Path) -> dict[str, Any]:
        write_dataset(_pairs(own), to)
        return {"rows": 3, "parts": [{"origin": "base", "wanted": 6, "got": 3, "upsample": 1}]}

    def write_adapter(to: Path) -> dict[str, Any]:
        (to / "adapter_config.json").write_text("{}")
        history = [{"step": s, "loss": 4.0 - s / 10, "nll_loss": 3.9 - s / 10} for s in (1, 2, 3)]
        return {"steps": 3, "history": history, "declared": {"epochs": 9}, "effective": {"epochs": 1}, "seed": 42}

    def write_responses(to: Path) -> dict[str, Any]:
        (to / "responses.txt").write_text("answers")
        return {}

    def write_eval(to: Path) -> dict[str, Any]:
        scores = _scores(d)
        scores.write_parquet(to / "scores.parquet")
        facts = {mode: ModeFacts(mode) for mode in MODES}
        summary = summarize(
            scores, facts, run="", profile="tiny", judge_name="rubric-local", judge_version="1", suite_hash="s" * 64,
            controls={}, bounds=Bounds(resamples=100),
        )  # fmt: skip
        (to / "summary.json").write_text(json.dumps(summary))
        return {"judged": scores.height, "seconds_by_part": {"base": 1.0}}

    dataset, run = "keeper_dataset_v1", "keeper_first"
    return [
        stage("keeper_sources", "sources", (), write_sources),
        stage("keeper_passages", "passages", ("keeper_sources",), write_passages),
        stage("keeper_teacher_responses", "teacher_responses", ("keeper_passages",), write_teacher),
        stage("keeper_filtered_pairs", "filtered_pairs", ("keeper_teacher_responses",), write_filtered),
        stage(dataset, "dataset", ("keeper_filtered_pairs",), write_pairs),
        stage(f"{run}_adapter", "adapter", (dataset,), write_adapter, shown={"declared": {"epochs": 3}}),
        stage(f"{run}_responses", "responses", (f"{run}_adapter",), write_responses),
        stage(f"{run}_eval", "eval", (f"{run}_responses",), write_eval),
    ]


@pytest.fixture(scope="module")
def d() -> Declarations:
    return load(KEEPER, "tiny")


def _chain(d: Declarations, folder: Path) -> Chain:
    settings = Settings(root=KEEPER, store=folder, profile="tiny")
    return Chain({s.name: s for s in _stages(d)}, Store(folder), settings)


@pytest.fixture
def chain(d: Declarations, tmp_path: Path) -> Chain:
    made = _chain(d, tmp_path / "store")

    def no_script(*_: Any) -> None:
        raise AssertionError("none of these stages starts a script")

    for name in made.stages:
        made.materialize(name, run_script=no_script, log=lambda _: None)
    return made


def test_every_part_is_read_from_its_artifact(chain: Chain, d: Declarations) -> None:
    dataset = chain.require("keeper_dataset_v1").artifact
    write_verdict(dataset, {"passed": True, "results": []})
    data = gather(chain, d, "keeper_first")
    assert data.character == "The Keeper of the North Light"
    assert data.base.stand_in
    assert data.modes == ["base", "adapter"]
    assert data.summary["paired"]["adapter"]["difference"] > 1
    assert data.dataset is not None
    assert (data.dataset.rows, data.dataset.effective_rows) == (3, 4)
    assert data.dataset.counts == {"ground_truth": {"base": 2}, "verified_response": {"base": 1}}
    assert data.dataset.content_hash == dataset.content_hash
    assert data.dataset.verdict == {"passed": True, "results": []}
    assert data.dataset.unserved["private_voice"] == "no letters"
    assert data.sieve is not None
    assert (data.sieve.candidates, data.sieve.dropped) == (5, {"loop": 2})
    assert data.sieve.unanswered == {"no fitting passage": 2, "category not served: no letters": 1}
    assert data.training is not None
    assert data.training.declared == {"epochs": 3}, "what this run declares, whoever trained first"
    assert data.training.effective == {"epochs": 1}
    assert [h["step"] for h in data.training.history] == [1, 2, 3]
    log = next(s for s in data.sources if s.document_id == "log_winter")
    assert (log.used, log.pairs, log.role) == (2, 3, "primary")
    board = next(s for s in data.sources if s.role == "control")
    assert (board.used, board.pairs) == (0, 0)
    assert data.reported is None


def test_the_lineage_runs_from_the_score_to_the_sources(chain: Chain, d: Declarations) -> None:
    steps = gather(chain, d, "keeper_first").lineage
    assert [s.name for s in steps if s.spine] == [
        "keeper_first_eval", "keeper_first_responses", "keeper_first_adapter", "keeper_dataset_v1",
        "keeper_filtered_pairs", "keeper_passages", "keeper_sources",
    ]  # fmt: skip
    assert [s.name for s in steps if not s.spine] == ["keeper_teacher_responses"]
    for step in steps:
        assert step.content_hash == chain.require(step.name).artifact.content_hash
    assert steps[0].holds == "8 answers judged"
    assert steps[4].holds == "3 pairs kept, 2 dropped"


def test_the_page_is_written_whole_and_once(chain: Chain, d: Declarations) -> None:
    path = write_report(chain, d, "keeper_first")
    assert path == chain.settings.store / "reports" / "keeper_first.html"
    page = path.read_text(encoding="utf-8")
    for step in gather(chain, d, "keeper_first").lineage:
        assert step.content_hash in page
    assert "keeper_first" in page
    assert "<script" not in page
    assert write_report(chain, d, "keeper_first").read_text(encoding="utf-8") == page
    assert [p.name for p in path.parent.iterdir()] == ["keeper_first.html"]


def test_a_run_that_was_not_evaluated_names_the_command(d: Declarations, tmp_path: Path) -> None:
    with pytest.raises(MissingArtifact) as caught:
        write_report(_chain(d, tmp_path), d, "keeper_first")
    assert caught.value.mend == "dagster asset materialize --select '*keeper_first_eval'"
    assert not (tmp_path / "reports").exists()


def test_an_undeclared_run_names_the_declared_ones(chain: Chain, d: Declarations) -> None:
    with pytest.raises(FoundryError) as caught:
        write_report(chain, d, "keeper_frist")
    assert "keeper_first" in caught.value.mend


def test_a_damaged_score_table_is_not_reported(chain: Chain, d: Declarations) -> None:
    path = chain.require("keeper_first_eval").artifact.payload / "summary.json"
    path.write_text(path.read_text().replace("3.5", "9.5"))
    with pytest.raises(DamagedArtifact):
        write_report(chain, d, "keeper_first")


def test_a_folder_that_cannot_be_written_is_named(chain: Chain, d: Declarations) -> None:
    chain.settings.reports.write_text("a file where the folder should be")
    with pytest.raises(FoundryError) as caught:
        write_report(chain, d, "keeper_first")
    assert "keeper_first.html" in caught.value.where
    assert "foundry report keeper_first" in caught.value.mend
