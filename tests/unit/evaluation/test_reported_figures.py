"""Golden figures: what was told elsewhere follows from its parts, or is known not to."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from typer.testing import CliRunner

from foundry_pipeline.cli.main import app
from foundry_pipeline.declarations import load
from foundry_pipeline.declarations.reported import ReportedFigures
from foundry_pipeline.errors import DeclarationError
from foundry_pipeline.evaluation.reported import Checked, check_figures
from foundry_pipeline.statistics.formulas import (
    change_rate,
    meta_learning_score,
    population_variance,
    weighted_mean,
)
from tests.project import ROOT, make_project

rates = st.floats(0, 1, allow_nan=False)


@pytest.fixture(scope="module")
def checked() -> list[Checked]:
    d = load(ROOT)
    return check_figures(d.figures, {name: files.reported_scores for name, files in d.characters.items()})


def of(checked: list[Checked], figure: str, part: str = "") -> list[Checked]:
    return [c for c in checked if c.figure == figure and c.part.endswith(part)]


def test_every_figure_behaves_as_declared(checked):
    assert [c.figure for c in checked if not c.as_declared] == []


def test_the_noisy_student(checked):
    t, p, g = (of(checked, "noisy-student", part)[0] for part in ("Student's t", ": p", "Hedges' g"))
    assert t.recomputed == pytest.approx(3.660, abs=0.005)
    assert p.recomputed == pytest.approx(0.0018, abs=0.00005)
    assert g.recomputed == pytest.approx(1.568, abs=0.005)
    assert g.low == pytest.approx(0.594, abs=0.001)
    assert g.high == pytest.approx(2.643, abs=0.001)


def test_twelve_raw_three_corrected_and_eleven_by_difficulty(checked):
    raw = [c for c in checked if c.part == "raw overall from categories"]
    difficulty = [c for c in checked if c.part == "raw overall from difficulties"]
    corrected = [c for c in checked if c.part == "corrected overall from categories"]
    assert (len(raw), len(difficulty), len(corrected)) == (12, 11, 3)
    assert {c.figure for c in corrected} == {"qwen3-v1", "qwen3-v2", "qwen3-r2"}
    assert all(abs(c.recomputed - c.told) <= 0.01 for c in (*raw, *difficulty, *corrected))


def test_what_cannot_be_reproduced_is_named_with_its_reason(checked):
    missing = {(c.figure, c.told): c for c in checked if c.expect == "not_reproducible"}
    assert set(missing) == {("orpo-v3b", 4.10), ("orpo-v4-merged", 8.52), ("meta-learning-456", -0.052)}
    assert all(c.note and not c.holds for c in missing.values())
    assert missing["orpo-v3b", 4.10].recomputed is None
    assert missing["orpo-v4-merged", 8.52].recomputed == pytest.approx(8.29, abs=0.005)


def test_the_return_of_switching_models_by_its_column_and_as_told(checked):
    column, gains = of(checked, "roi-ratio")[0], of(checked, "roi-ratio-of-gains")[0]
    assert column.recomputed == pytest.approx(19)
    assert column.told == gains.told == 38
    assert not column.holds
    assert "leaves the minutes out" in column.note
    assert gains.recomputed == pytest.approx(38)


@given(rates, rates, rates, rates)
def test_the_meta_learning_score_is_acceleration(ei, li, ef, lf):
    score = meta_learning_score(ei, li, ef, lf)
    assert -2 <= score <= 2
    assert score == pytest.approx((li - ef * 0 - ei) + (ef - lf))
    assert meta_learning_score(li, ei, lf, ef) == pytest.approx(-score)
    assert meta_learning_score(ei, ei, ef, ef) == 0


@given(st.lists(st.tuples(st.floats(0, 10), st.integers(1, 30)), min_size=1, max_size=8))
def test_the_weighted_mean_is_the_mean_over_all_prompts(groups):
    parts = {str(i): mean for i, (mean, _) in enumerate(groups)}
    sizes = {str(i): n for i, (_, n) in enumerate(groups)}
    spelled = [mean for mean, n in groups for _ in range(n)]
    assert weighted_mean(parts, sizes) == pytest.approx(sum(spelled) / len(spelled))


def test_formulas_refuse_what_they_are_not_for():
    with pytest.raises(ValueError, match="sizes of"):
        weighted_mean({"easy": 1.0}, {"easy": 1, "hard": 2})
    with pytest.raises(ValueError, match="no rate"):
        change_rate(1, 2, 0)
    with pytest.raises(ValueError, match="no values"):
        population_variance([])


def one(**figure) -> ReportedFigures:
    return ReportedFigures.model_validate({"status": "reported", "source": "x", "figures": [figure]})


RATIO = {"kind": "ratio", "figure": "x", "of": "x", "numerator": 6, "denominator": 2, "told": 3, "tolerance": 0.1}


def test_a_figure_that_is_declared_wrongly_is_caught():
    [found] = check_figures([one(**RATIO | {"told": 4})], {})
    assert not found.holds
    assert not found.as_declared
    [found] = check_figures([one(**RATIO | {"expect": "differs", "because": "so I thought"})], {})
    assert found.holds
    assert not found.as_declared
    with pytest.raises(DeclarationError, match="declared twice"):
        check_figures([one(**RATIO), one(**RATIO)], {})
    suite = {"kind": "suite_scores", "figure": "s", "of": "s", "character": "nobody", "tolerance": 0.01}
    sizes = {"categories": {"ground_truth": 2}, "difficulties": {"easy": 2}}
    with pytest.raises(DeclarationError, match="`nobody`, which there is none of"):
        check_figures([one(**suite, **sizes)], {"madison": []})
    with pytest.raises(DeclarationError, match="names the row `gone`"):
        check_figures([one(**suite | {"character": "madison"}, **sizes, as_raw={"gone": 0.1})], {"madison": []})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"denominator": 0}, "denominator other than zero"),
        ({"expect": "differs"}, "`because` is given where"),
        ({"because": "no reason"}, "`because` is given where"),
        ({"kind": "guess"}, "does not match any of the expected tags"),
        ({"told": "much"}, "valid number"),
    ],
)
def test_a_bad_figure_is_refused(change, message):
    with pytest.raises(ValidationError, match=message):
        one(**RATIO | change)


def test_a_bad_file_is_named_by_file_and_field(tmp_path: Path):
    project = make_project(tmp_path / "project")
    path = project.root / "sources" / "reported" / "bad.yaml"
    path.write_text(yaml.safe_dump({"status": "reported", "source": "x", "figures": [RATIO | {"denominator": 0}]}))
    with pytest.raises(DeclarationError, match="denominator other than zero") as error:
        load(project.root, "tiny")
    assert "sources/reported/bad.yaml" in str(error.value)


def test_the_command_fails_where_a_figure_is_not_as_declared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    project = make_project(tmp_path / "project")
    monkeypatch.setenv("FOUNDRY_ROOT", str(project.root))
    monkeypatch.setenv("FOUNDRY_PROFILE", project.profile)
    whole = CliRunner().invoke(app, ["reported", "--check", "--json"])
    assert whole.exit_code == 0, whole.output
    rows = json.loads(whole.output)
    assert [r["figure"] for r in rows if not r["holds"]][:3] == ["brie-all-domains", "orpo-v3b", "orpo-v4-merged"]
    wrong = {"status": "reported", "source": "x", "figures": [RATIO | {"told": 4}]}
    (project.root / "sources" / "reported" / "wrong.yaml").write_text(yaml.safe_dump(wrong))
    assert CliRunner().invoke(app, ["reported"]).exit_code == 0
    found = CliRunner().invoke(app, ["reported", "--check"])
    assert found.exit_code == 1
    assert "other than declared: x" in found.output
