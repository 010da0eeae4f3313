"""The graph derived from the declarations: names, inputs, what is shared, what a student is asked."""

from __future__ import annotations

import ast
from collections.abc import Iterable
from pathlib import Path

import polars as pl
import pytest

from foundry_pipeline.chain.graph import build_chain, same_here
from foundry_pipeline.chain.student_stages import student_demand, wanted_responses
from foundry_pipeline.declarations import Declarations, load
from foundry_pipeline.evaluation.rubric import _MODULES
from foundry_pipeline.settings import Settings
from tests.conftest import ROOT


@pytest.fixture(scope="module")
def declared() -> Declarations:
    return load(ROOT, "laptop")


def chain_of(d: Declarations, tmp: Path):
    return build_chain(d, Settings(ROOT, tmp, "laptop"))


def test_datasets_come_from_models_where_the_record_says_so(declared: Declarations, tmp_path: Path) -> None:
    chain = chain_of(declared, tmp_path)

    def above(name: str) -> set[str]:
        inputs = chain.stages[name].inputs
        return set(inputs).union(*(above(i) for i in inputs)) if inputs else set()

    assert "madison_orpo_v3b_adapter" in above("madison_dataset_v4")
    assert "madison_qwen3_v1_adapter" in above("madison_dataset_v5")
    assert "madison_qwen3_v1_adapter" not in above("madison_dataset_v6")
    assert "madison_dataset_v5" in above("madison_qwen3_v2_adapter")
    assert "madison_qwen3_v1_merged" in above("madison_sft_v1_adapter")
    assert not above("madison_dataset_v3b") & {n for n in chain.stages if n.endswith("_adapter")}


def reached(modules: Iterable[str]) -> set[str]:
    """Modules of the project that these import, and those in turn, wherever in a file the import stands."""
    found, todo = set(modules), list(modules)
    while todo:
        path = ROOT / f"{todo.pop().replace('.', '/')}.py"
        nodes = ast.walk(ast.parse(path.read_text())) if path.is_file() else ()
        for name in (n.module for n in nodes if isinstance(n, ast.ImportFrom) and n.module):
            if name.startswith("foundry_pipeline.") and name not in found:
                found.add(name)
                todo.append(name)
    return found


def test_a_score_is_of_the_code_that_judged_it(declared: Declarations, tmp_path: Path) -> None:
    """A judge whose reading of an answer changed anywhere is not taken for the one that gave the recorded scores."""
    judging = {m for m in reached(_MODULES) if m.startswith("foundry_pipeline.evaluation") or m.endswith(".breaks")}
    code = set(chain_of(declared, tmp_path).stages["madison_r2_eval"].code)
    assert judging <= code
    # What adds marks up afterwards belongs to the evaluation, not to the judge's version.
    assert judging - {f"foundry_pipeline.evaluation.{m}" for m in ("scoring", "judge_checks")} <= set(_MODULES)


def test_the_declaration_of_a_stage_does_not_name_its_run(declared: Declarations, tmp_path: Path) -> None:
    """Runs that this profile cannot tell apart have one input hash, and so one training and one merge."""
    twin = declared.runs["madison_orpo_v4"].model_copy(update={"run": "madison_twin", "base": "qwen3_32b"})
    d = Declarations(**{**declared.__dict__, "runs": {**declared.runs, "madison_twin": twin}})
    stages = chain_of(d, tmp_path).stages
    for part in ("adapter", "merged", "gguf", "responses", "eval"):
        one, other = stages[f"madison_orpo_v4_{part}"], stages[f"madison_twin_{part}"]
        # A GGUF file names its run, so the twins' files differ, and in nothing else.
        assert {**one.declaration, "origin": None} == {**other.declaration, "origin": None}, part
        assert (one.declaration == other.declaration) == (part != "gguf")
    assert same_here(d, twin) == ["madison_orpo_v4"]
    assert same_here(declared, declared.runs["madison_r2"]) == []


def test_laptop_values_are_the_declared_ones_changed_alike(declared: Declarations, tmp_path: Path) -> None:
    for run in declared.runs.values():
        shown = chain_of(declared, tmp_path).stages[f"{run.run}_adapter"].shown
        assert shown["effective"]["learning_rate"] == pytest.approx(
            shown["declared"]["learning_rate"] * declared.profile.learning_rate_factor
        )
        assert shown["effective"]["epochs"] == declared.profile.epochs
        assert shown["declared"]["epochs"] == 3


def test_students_are_asked_what_recipes_want_and_the_same_prompts(declared: Declarations) -> None:
    base = student_demand(declared.datasets, "base", size_factor=0.1, overdraw=1.5)
    assert base["base"] == 72
    assert base["voice"] == 60
    tuned = student_demand(declared.datasets, "madison_orpo_v3b", size_factor=0.1, overdraw=1.5)
    assert tuned == {"voice": 60}
    policy = student_demand(declared.datasets, "madison_qwen3_v1", size_factor=0.1, overdraw=1.5)
    assert policy == {"base": 72, "voice": 60}
    rows = [
        {"prompt_id": f"p{i}", "origin": o, "category": "ground_truth", "teacher_request_hash": f"{i * 7919 % 101:04d}"}
        for i, o in enumerate(["base", "voice"] * 100)
    ]
    frame = pl.DataFrame(rows)
    asked = wanted_responses(frame, base, {"ground_truth": 3})
    again = wanted_responses(frame.reverse(), tuned, {"ground_truth": 3})
    assert asked.group_by("origin").len().sort("origin").rows() == [("base", 72), ("voice", 60)]
    assert set(again["prompt_id"]) == set(asked.filter(pl.col("origin") == "voice")["prompt_id"])
