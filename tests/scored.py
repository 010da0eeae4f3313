"""A prepared project that has been scored, without any model: what models would have made is written by hand, the judging
is real (`rubric-local` reads the answers), and so are summary, ledger and everything that follows."""

from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from unittest import mock

import polars as pl

from foundry_pipeline.chain.engine import Chain
from foundry_pipeline.chain.evaluation_stages import suite_hash
from foundry_pipeline.chain.graph import load_chain
from foundry_pipeline.chain.scores import record_scores
from foundry_pipeline.corpus.minilm import load_encoder
from foundry_pipeline.corpus.passages import own_passages
from foundry_pipeline.declarations import Declarations
from foundry_pipeline.evaluation.judges import Judge, Judgment
from foundry_pipeline.evaluation.overlap import Overlap
from foundry_pipeline.evaluation.rubric import RubricLocal
from foundry_pipeline.evaluation.scoring import Bounds, ModeFacts, score_row, scores_frame, summarize
from foundry_pipeline.settings import Settings
from tests.prepared import HOSTILE, prepare, publish_made
from tests.project import Project, make_project

MODES = ("base", "adapter", "merged", "q4_k_m")
EVAL = "keeper_first_eval"
_OWN = (
    "The oil is measured at dusk and again at midnight, and the wick is trimmed by my own hand, for the lamp is a promise.",
    "I claim no merit for the nine men; it is the office of a keeper to preserve those for whom the lamp is lighted.",
    "I have written that such a light is no economy, but a snare; the mariner will be betrayed by it in the last watch.",
    "I have kept the lamp at the North Light these eleven winters, and it is the whole of my duty.",
)
_MODERN = ("Sure! The light works automatically.", "I'm a hero, honestly.", "Yes, that's good economy.", "I am an AI.")


class InProcess(Project):
    """Its `foundry` commands run in this process, by their own entry point: no library is loaded anew for each."""

    def run(self, *command: str, timeout: float = 0) -> subprocess.CompletedProcess[str]:
        from foundry_pipeline.cli.main import main

        assert command[0] == "foundry"
        settings = {"FOUNDRY_ROOT": str(self.root), "FOUNDRY_PROFILE": self.profile, **self.extra}
        out = io.StringIO()
        with (
            mock.patch.dict(os.environ, settings),
            mock.patch.object(sys, "argv", list(command)),
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(out),
        ):
            try:
                main()
                code = 0
            except SystemExit as end:
                code = int(end.code or 0)
        return subprocess.CompletedProcess(command, code, out.getvalue())


def opened(project: Project) -> tuple[Declarations, Chain]:
    return load_chain(Settings(project.root, project.store, "tiny"))


def answers(mode: str) -> tuple[str, ...]:
    """Four answers: the base's are modern, one of the quantized model's is hostile."""
    if mode == "base":
        return _MODERN
    return (*_OWN[:3], f"{_OWN[3]} {HOSTILE}") if mode == "q4_k_m" else _OWN


def prepare_scored(root: Path) -> Project:
    """`prepare`, then an adapter, its exports, answers in four modes and their evaluation, recorded in the ledger."""
    make_project(root)
    # The keeper alone: every command reads every declaration.
    shutil.rmtree(root / "sources/madison")
    for path in (root / "assets").glob("*/*.yaml"):
        if not path.name.startswith(("keeper", "tiny", "prices")):
            path.unlink()
    project = InProcess(prepare(root, make=False).root)
    answer(project)
    score(project, judge=rubric(*opened(project)))
    return project


def answer(project: Project, run: str = "keeper_first") -> None:
    """An adapter, its exports and answers in four modes, for a run as it is declared now."""
    d, chain = opened(project)
    for name in ("adapter", "merged", "gguf"):
        _publish(chain, f"{run}_{name}", text=f"{name} of {run}")
    prompts = d.characters["keeper"].suite.prompts
    rows = [
        {"mode": mode, "prompt_id": prompt.id, "answer": answer, "finish_reason": "stop", "request_hash": f"{mode}{i}"}
        for mode in MODES
        for i, (prompt, answer) in enumerate(zip(prompts, answers(mode), strict=True))
    ]
    _publish(chain, f"{run}_responses", frame=("responses", pl.DataFrame(rows)))


def rubric(d: Declarations, chain: Chain) -> RubricLocal:
    """The real judge of the keeper, over his passages as they are built now."""
    passages = pl.read_parquet(chain.require("keeper_passages").artifact.payload / "passages.parquet")
    return RubricLocal(d.characters["keeper"].character, own_passages(passages), load_encoder(1).embed)


class ByHand:
    """A judge that gives every answer the same five marks."""

    name, version = "rubric-local", "by-hand"

    def __init__(self, mark: float) -> None:
        self.mark = mark

    def judge(self, prompt: object, answer: str) -> Judgment:
        return Judgment(*[self.mark] * 5)


def score(project: Project, judge: Judge, run: str = "keeper_first") -> None:
    """Judge the recorded answers, publish the evaluation for the declarations as they stand, record it."""
    d, chain = opened(project)
    suite = d.characters["keeper"].suite
    prompts = {p.id: p for p in suite.prompts}
    responses = pl.read_parquet(chain.require(f"{run}_responses").artifact.payload / "responses.parquet")
    rows = scores_frame(
        score_row(
            row["mode"],
            prompts[row["prompt_id"]],
            row["answer"],
            judge.judge(prompts[row["prompt_id"]], row["answer"]),
            Overlap(0, None),
            finish_reason=row["finish_reason"],
            request_hash=row["request_hash"],
        )
        for row in responses.iter_rows(named=True)
    )
    declared = chain.stages[f"{run}_eval"].declaration
    summary = summarize(
        rows,
        {mode: ModeFacts(mode, 3.5, 100, 3.4, 1.0) for mode in MODES},
        run="",
        profile="tiny",
        judge_name=judge.name,
        judge_version=judge.version,
        suite_hash=suite_hash(d.characters["keeper"]),
        controls={},
        bounds=Bounds(declared["resamples"], declared["confidence"]),
    )
    _publish(chain, f"{run}_eval", text=json.dumps(summary), file="summary.json", frame=("scores", rows))
    record_scores(chain, d, chain.require(f"{run}_eval"))


def _publish(
    chain: Chain, name: str, *, text: str = "", file: str = "file.txt", frame: tuple[str, pl.DataFrame] | None = None
) -> None:
    found = chain.resolve(name)
    assert found.input_hash is not None, found.missing
    payload = chain.store.work(found.input_hash) / "payload"
    payload.mkdir(parents=True, exist_ok=True)
    (payload / file).write_text(text or name, encoding="utf-8")
    if frame is not None:
        frame[1].write_parquet(payload / f"{frame[0]}.parquet")
    publish_made(chain, name, payload, {"built_at": "2026-01-02T03:04:05+00:00", "build_seconds": 61.5})
