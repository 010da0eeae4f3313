"""Score tables of two models, compared: from rows to figures and verdicts, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from foundry_pipeline.chain.comparison import compare_sides, find_side
from foundry_pipeline.chain.graph import load_chain
from foundry_pipeline.declarations.common import CATEGORIES
from foundry_pipeline.errors import FoundryError, MissingArtifact
from foundry_pipeline.evaluation.comparison import compare_scores
from foundry_pipeline.evaluation.scoring import COMPONENTS, SCORES_SCHEMA, scores_frame, weighted_overall
from foundry_pipeline.lineage.ledger import SCORES, append_scores
from foundry_pipeline.settings import Settings
from tests.project import Project, make_project

SIZES = dict(zip(CATEGORIES, (5, 4, 8, 6, 5, 8), strict=True))


def table(mode: str, shift: float, seed: int, *, components: dict[str, float] | None = None) -> pl.DataFrame:
    """36 scored answers of one mode around 5 + `shift`; `components` shifts some of them further."""
    rng = np.random.default_rng(seed)
    rows = []
    for category, n in SIZES.items():
        for i in range(n):
            parts = {
                c: float(np.clip(5 + shift + (components or {}).get(c, 0) + rng.normal(0, 0.7), 0, 10))
                for c in COMPONENTS
            }
            empty = dict.fromkeys(SCORES_SCHEMA)
            given = {"mode": mode, "prompt_id": f"{category[:2]}-{i:02d}", "category": category, "difficulty": "hard"}
            rows.append({**empty, **given, **parts, "answer": f"{mode} {seed} {i}", "overall": weighted_overall(parts)})
    return scores_frame(rows)


def compared(a: pl.DataFrame, b: pl.DataFrame, guarded: tuple[str, ...] = ()) -> dict:
    return compare_scores(a, b, guarded=guarded, resamples=150)


def unscored(frame: pl.DataFrame, *prompts: str) -> pl.DataFrame:
    gone = pl.col("prompt_id").is_in(prompts)
    columns = ["overall", *COMPONENTS]
    return frame.with_columns(pl.when(~gone).then(pl.col(c)).otherwise(None).alias(c) for c in columns)


def test_overall_categories_and_components_each_have_a_verdict():
    found = compared(table("adapter", 2, 5, components={"historical": -2}), table("base", 0, 6), guarded=CATEGORIES)
    overall = found["overall"]
    assert overall["verdict"] == "better"
    assert overall["difference"] == pytest.approx(overall["a"] - overall["b"])
    assert overall["low"] < overall["difference"] < overall["high"]
    assert overall["n"] == 36
    assert {c: f["n"] for c, f in found["categories"].items()} == SIZES
    assert found["categories"]["character_consistency"]["verdict"] == "no claim at n=4"
    verdicts = {c: f["verdict"] for c, f in found["components"].items()}
    assert verdicts.pop("historical") == "no claim at n=36"
    assert set(verdicts.values()) == {"better"}
    assert all(f["p_corrected"] >= f["p"] for f in found["components"].values())
    assert found["wins"]["overall"]["wins"] == 36
    assert found["wins"]["categories"]["ground_truth"]["n"] == 8
    json.dumps(found, allow_nan=False)


def test_a_category_that_was_not_asked_is_refused_and_never_a_zero():
    a, b = table("adapter", 2, 1), table("base", 0, 2)
    without = a.filter(pl.col("category") != "position_discrimination")
    for one, other in ((without, b), (b, without)):
        with pytest.raises(FoundryError, match="side has no prompt in the guarded category position_discrimination"):
            compared(one, other)
    lacking = b.filter(pl.col("category") != "position_discrimination")
    compared(without, lacking)
    with pytest.raises(FoundryError, match="position_discrimination"):
        compared(without, lacking, guarded=CATEGORIES)


def test_unscored_answers_are_left_out_counted_and_bounded():
    a, b = table("adapter", 1, 1), table("base", 0, 2)
    whole = compared(a, b)
    found = compared(unscored(a, "gr-00", "gr-01"), unscored(b, "gr-01", "pr-00"))
    assert found["overall"]["n"] == 33
    assert found["categories"]["ground_truth"]["n"] == 6
    assert (found["unscored"]["a"], found["unscored"]["b"]) == (2, 2)
    assert found["unscored"]["lowest"] < whole["overall"]["difference"] < found["unscored"]["highest"]
    assert whole["unscored"]["lowest"] == pytest.approx(whole["unscored"]["highest"])
    with pytest.raises(FoundryError, match="nothing to compare"):
        compared(unscored(a, *a["prompt_id"]), b)


def test_a_table_against_itself_claims_nothing():
    a = table("adapter", 1, 1)
    found = compared(a, a)
    assert found["overall"]["verdict"] == "no claim at n=36"
    assert found["wins"]["overall"] | {"wins": 0, "ties": 36, "losses": 0, "rate": 0.5} == found["wins"]["overall"]


# -- through the store and the command ---------------------------------------------------------------------------------

RUN = "keeper_first"


def publish(
    root: Path, tables: dict[str, pl.DataFrame], *, judge: str = "v1", suite: str = "s1", run: str = RUN
) -> str:
    """An evaluation in the project's store, as one that was built before the present declarations."""
    _, chain = load_chain(Settings(root, root / ".foundry", "tiny"))
    name = f"{run}_eval"
    payload = chain.store.work(f"{run}{judge}{suite}") / "payload"
    payload.mkdir(parents=True)
    pl.concat(list(tables.values())).write_parquet(payload / "scores.parquet")
    summary = {
        "judge": {"name": "rubric-local", "version": judge},
        "suite_hash": suite,
        "modes": dict.fromkeys(tables, {}),
    }
    (payload / "summary.json").write_text(json.dumps(summary))
    key = f"{run}-{judge}-{suite}"
    facts = {"built_at": f"2026-01-0{1 + sum(r.name == name for r in chain.store.records())}"}
    chain.store.publish(
        payload,
        record={"name": name, "kind": "eval", "input_hash": key, "inputs": {}, "declaration": {}, "external": {}}
        | {"code_version": "c", "facts": facts},
    )
    return key


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    made = make_project(tmp_path_factory.mktemp("comparing") / "project")
    modes = {"base": table("base", 0, 2), "adapter": table("adapter", 2, 1), "merged": table("merged", 2, 3)}
    first = publish(made.root, modes)
    publish(made.root, modes, judge="v2")
    row = {c.name: "" for c in SCORES.columns} | {c.name: None for c in SCORES.columns if c.nullable}
    row |= {"score_id": "abcdef0123456789", "run": RUN, "mode": "adapter", "input_hash": first, "categories": {}}
    row |= {"difficulties": {}, "critical_failures": 0, "parse_failures": 0, "cost_usd": 0.0, "seconds": 0.0}
    append_scores(f"sqlite:///{made.store / 'ledger.db'}", [row])
    return made


def test_the_command_compares_two_modes(project: Project):
    done = project.run("foundry", "compare", RUN, f"{RUN}:base")
    assert done.returncode == 0, done.stdout
    assert f"{RUN}:adapter against {RUN}:base" in done.stdout
    assert "verdict: A is better than B" in done.stdout
    assert "is not what the declarations call for now" in done.stdout
    assert "ground truth" in done.stdout


def test_sides_are_found_by_run_mode_and_score(project: Project):
    d, chain = load_chain(Settings(project.root, project.store, "tiny"))
    run, mode, score = (find_side(d, chain, name) for name in (RUN, f"{RUN}:merged", "abcdef01"))
    assert (run.mode, mode.mode, score.mode) == ("adapter", "merged", "adapter")
    assert (run.judge_version, score.judge_version) == ("v2", "v1"), "a score id names the build it was made from"
    assert not run.current
    found = compare_sides(d, run, mode)
    assert found["overall"]["verdict"] == "no claim at n=36"
    assert found["same_answers"] is False
    assert compare_sides(d, run, run)["same_answers"] is True


def test_what_does_not_stand_in_one_column_is_refused_with_a_command(project: Project):
    d, chain = load_chain(Settings(project.root, project.store, "tiny"))
    with pytest.raises(FoundryError, match=r"differ in judge version \(v2 and v1\)") as error:
        compare_sides(d, find_side(d, chain, RUN), find_side(d, chain, "abcdef01"))
    assert error.value.mend == f"dagster asset materialize --select '*{RUN}_eval'"
    with pytest.raises(FoundryError, match="was not judged in the mode `f16`") as error:
        find_side(d, chain, f"{RUN}:f16")
    assert f"{RUN}:merged" in error.value.mend
    with pytest.raises(FoundryError, match="no run `nobody` is declared"):
        find_side(d, chain, "nobody:base")
    with pytest.raises(FoundryError, match="no run `fedcba9876543210`"):
        find_side(d, chain, "fedcba9876543210")
    with pytest.raises(MissingArtifact) as missing:
        find_side(d, chain, "madison_r2")
    assert "madison_r2_eval" in missing.value.mend
