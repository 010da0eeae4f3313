"""What scores say of their judge: bounds, the audit of its own mark, length, agreement; and the old overall rules."""

from __future__ import annotations

import math
import random

import krippendorff
import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import cohen_kappa_score

from foundry_pipeline.evaluation.judge_checks import (
    agreement,
    krippendorff_alpha,
    length_correlation,
    mark_audit,
    quadratic_kappa,
    self_agreement,
    unscored_bounds,
)
from foundry_pipeline.evaluation.model_judge import RECORDS
from foundry_pipeline.evaluation.phases import arithmetic_overall, overall_under
from foundry_pipeline.evaluation.scoring import COMPONENTS, weighted_overall

REPLY = {"voice": 8.0, "rhetorical": 7.5, "historical": 9.0, "position": 9.0, "integrity": 10.0}


def table(*rows: tuple[str, float | None, float | None, list[str], str, str]) -> pl.DataFrame:
    """prompt, overall, the judge's own mark, critical failures, answer, justification."""
    schema = {
        "prompt_id": pl.String, "overall": pl.Float64, "raw_overall": pl.Float64, "critical_failures": pl.List(pl.String),
        "answer": pl.String, "justification": pl.String,
    }  # fmt: skip
    return pl.DataFrame(list(rows), schema=schema, orient="row")


# -- phases ----------------------------------------------------------------------------------------------------------


def test_a_missing_mark_was_zero_then_the_plain_mean_and_is_now_the_weighted_mean() -> None:
    assert [overall_under(phase, REPLY, None) for phase in (0, 1, 2)] == [0.0, 8.7, 8.6]  # type: ignore[arg-type]


def test_the_judges_mark_counted_until_phase_two() -> None:
    assert [overall_under(phase, REPLY, 8.2) for phase in (0, 1, 2)] == [8.2, 8.2, 8.6]  # type: ignore[arg-type]


@given(st.fixed_dictionaries(dict.fromkeys(COMPONENTS, st.floats(0, 10))), st.one_of(st.none(), st.floats(0, 10)))
def test_the_present_rule_never_looks_at_the_judges_mark(components: dict, mark: float | None) -> None:
    assert overall_under(2, components, mark) == weighted_overall(components)
    mean = arithmetic_overall(components)
    assert min(components.values()) - 1e-8 <= mean <= max(components.values()) + 1e-8


def test_only_the_old_rules_average_four_components_of_five() -> None:
    four = {name: value for name, value in REPLY.items() if name != "integrity"}
    assert overall_under(1, four, None) == pytest.approx(33.5 / 4)
    with pytest.raises(ValueError, match="components"):
        overall_under(2, four, None)


@pytest.mark.parametrize("components", [{}, {"charm": 5.0}, {"voice": math.nan}, {"voice": 11.0}])
def test_no_rule_takes_nonsense(components: dict) -> None:
    with pytest.raises(ValueError, match=r"no component|outside"):
        overall_under(1, components, None)
    with pytest.raises(ValueError, match="mark"):
        overall_under(0, REPLY, math.inf)


# -- bounds, audit, length -------------------------------------------------------------------------------------------


def test_bounds_take_the_unread_for_nothing_and_for_everything() -> None:
    rows = [("a", 6.0, None, [], "", ""), ("a", None, None, [], "", "unscored: cut off"), ("b", 4.0, None, [], "", "")]
    found = unscored_bounds(table(*rows))
    # Prompt a: (6+0)/2 and (6+10)/2; prompt b: 4.
    assert found == {"unscored": 1, "low": 3.5, "high": 6.0, "reasons": {"cut off": 1}}
    assert unscored_bounds(table(rows[0], rows[2])) == {"unscored": 0, "low": 5.0, "high": 5.0, "reasons": {}}
    assert unscored_bounds(table())["low"] is None


def test_the_audit_finds_what_a_judge_docks_for_critical_failures() -> None:
    draw = random.Random(3)
    rows = []
    for i in range(108):
        overall, failing = draw.uniform(5, 9), i % 4 == 0
        mark = overall + draw.gauss(0, 0.05) - (0.3 if failing else 0.0)
        rows.append((f"p{i}", overall, mark, ["x"] if failing else [], "", ""))
    found = mark_audit(table(*rows, ("q", 5.0, None, [], "", ""), ("r", None, None, [], "", "")), resamples=300)
    assert (found["with"]["n"], found["without"]["n"]) == (27, 81)
    assert found["with"]["low"] <= -0.3 <= found["with"]["high"]
    assert found["without"]["low"] <= 0 <= found["without"]["high"]
    assert found["difference"] == pytest.approx(-0.3, abs=0.05)


def test_there_is_no_audit_of_a_judge_without_a_mark_of_its_own_and_no_difference_without_both_kinds() -> None:
    assert mark_audit(table(("a", 6.0, None, [], "", ""))) == {}
    one_kind = mark_audit(table(("a", 6.0, 5.5, [], "", ""), ("b", 6.0, 6.5, [], "", "")))
    assert (one_kind["with"]["n"], one_kind["difference"]) == (0, None)


def test_a_judge_that_pays_for_length_is_found_out() -> None:
    draw = random.Random(1)
    paying = [(f"p{i}", min(10, 2 + i / 6), None, [], "word " * (i + 1), "") for i in range(36)]
    draw.shuffle(paying)
    assert length_correlation(table(*paying))["spearman"] == pytest.approx(1.0)
    covered = 0
    for _ in range(100):  # a judge that does not: its interval holds 0 as often as it says
        fair = [(f"p{i}", draw.uniform(3, 8), None, [], "word " * draw.randint(5, 90), "") for i in range(36)]
        found = length_correlation(table(*fair))
        covered += found["low"] <= 0 <= found["high"]
    assert 88 <= covered <= 100
    assert found["n"] == 36
    assert length_correlation(table(*paying[:4]))["spearman"] is None
    assert length_correlation(table(*[("p", 5.0, None, [], "one length", "")] * 9))["spearman"] is None


# -- agreement -------------------------------------------------------------------------------------------------------

marks = st.lists(st.tuples(st.integers(0, 10), st.integers(0, 10)), min_size=2, max_size=40)


@given(marks)
@settings(deadline=None)
def test_kappa_is_that_of_the_library(pairs: list[tuple[int, int]]) -> None:
    first, second = [a for a, _ in pairs], [b for _, b in pairs]
    found = quadratic_kappa(first, second)
    if found is None:
        assert len({*first, *second}) == 1
    else:
        library = cohen_kappa_score(first, second, labels=list(range(11)), weights="quadratic")
        assert found == pytest.approx(library, abs=1e-9)
        assert found == quadratic_kappa(second, first)


def test_kappa_rounds_to_whole_marks_and_refuses_others() -> None:
    assert quadratic_kappa([7.5, 2.4, 0.0], [8, 2, 0]) == 1.0
    assert quadratic_kappa([], []) is None
    for first, second in (([1.0], [1.0, 2.0]), ([11.0], [1.0]), ([math.nan], [1.0])):
        with pytest.raises(ValueError, match=r"pair up|outside"):
            quadratic_kappa(first, second)


def test_alpha_is_that_of_the_library_and_none_where_there_is_none() -> None:
    # Hayes and Krippendorff (2007), four observers and twelve units, interval metric: 0.849.
    rows = [
        [1, 2, 3, 3, 2, 1, 4, 1, 2, None, None, None],
        [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, None, 3],
        [None, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, None],
        [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, None],
    ]
    found = krippendorff_alpha(rows)
    assert found == pytest.approx(0.849, abs=5e-4)
    table_ = np.array([[np.nan if v is None else v for v in row] for row in rows], dtype=float)
    assert found == krippendorff.alpha(reliability_data=table_, level_of_measurement="interval")
    nothing: list[list[list[float | None]]] = [[], [[]], [[5.0, 5.0], [5.0, 5.0]], [[1.0, None], [None, 2.0]]]
    assert [krippendorff_alpha(rows) for rows in nothing] == [None] * 4


def test_agreement_of_judges_that_agree_and_of_such_that_draw_lots() -> None:
    draw = random.Random(7)
    truth = [draw.uniform(0, 10) for _ in range(60)]
    near = [[min(10, max(0, v + draw.gauss(0, 0.3))) for v in truth] for _ in range(3)]
    close = agreement(near)
    assert close["raters"] == 3
    assert close["alpha"] > 0.97
    assert close["kappa"] > 0.95
    lots = agreement([[draw.uniform(0, 10) for _ in truth] for _ in range(3)])
    assert abs(lots["alpha"]) < 0.2
    assert agreement([[1.0, None, 3.0]]) == {
        "raters": 1,
        "answers": 0,
        "alpha": None,
        "kappa": None,
        "mean_spread": None,
    }
    with pytest.raises(ValueError, match="one place"):
        agreement([[1.0], [1.0, 2.0]])


def test_a_judge_is_compared_with_itself_by_its_last_attempts() -> None:
    def record(prompt: str, repeat: int, attempt: int, overall: float | None) -> dict:
        known = {"prompt_id": prompt, "answer_hash": "h", "repeat": repeat, "attempt": attempt, "overall": overall}
        return {name: known.get(name) for name in RECORDS}

    rows = [record(f"p{i}", r, 0, float(i)) for i in range(6) for r in range(2)]
    rows += [record("p7", 0, 0, None), record("p7", 0, 1, 8.0), record("p7", 1, 0, 6.0), record("p8", 0, 0, None)]
    found = self_agreement(pl.DataFrame(rows, schema=RECORDS))
    assert (found["raters"], found["answers"], found["mean_spread"]) == (2, 7, pytest.approx(2 / 7))
    assert 0.8 < found["alpha"] < 1
    assert self_agreement(pl.DataFrame(rows[:1], schema=RECORDS)) == {}
