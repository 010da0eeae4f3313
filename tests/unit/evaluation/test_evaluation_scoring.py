import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from foundry_pipeline.declarations.sources import EvaluationPrompt
from foundry_pipeline.evaluation.judges import Judge, Judgment, unscored
from foundry_pipeline.evaluation.overlap import Overlap
from foundry_pipeline.evaluation.scoring import (
    COMPONENTS,
    SCORES_SCHEMA,
    WEIGHTS,
    Bounds,
    ModeFacts,
    paired_difference,
    score_row,
    scores_frame,
    summarize,
    weighted_overall,
)

ten = st.floats(min_value=0, max_value=10, allow_nan=False)
five = st.fixed_dictionaries(dict.fromkeys(COMPONENTS, ten))
BOUNDS = Bounds(resamples=200)


def prompt(number: int, category: str = "ground_truth", difficulty: str = "easy") -> EvaluationPrompt:
    return EvaluationPrompt(
        id=f"gt-{number:02d}",
        category=category,
        difficulty=difficulty,
        text="What of it, Sir?",
        stance="a",
        opposed="b",
    )


def judged(score: float, raw: float | None = None, failures: tuple[str, ...] = ()) -> Judgment:
    return Judgment(score, score, score, score, score, raw_overall=raw, critical_failures=failures)


def row(mode: str, number: int, judgment: Judgment, *, words: int = 3, finish: str = "stop", **kind: str) -> dict:
    return score_row(
        mode,
        prompt(number, **kind),
        "one two three four",
        judgment,
        Overlap(words, f"p{words}"),
        finish_reason=finish,
        request_hash=f"{mode}{number}",
    )


def test_weights_are_the_declared_ones_and_sum_to_one():
    assert WEIGHTS == {"voice": 0.25, "rhetorical": 0.20, "historical": 0.20, "position": 0.20, "integrity": 0.15}
    assert math.fsum(WEIGHTS.values()) == pytest.approx(1)


def test_each_component_weighs_what_it_is_said_to():
    for name, weight in WEIGHTS.items():
        assert weighted_overall({c: 10.0 * (c == name) for c in COMPONENTS}) == pytest.approx(10 * weight)


@given(five)
def test_overall_lies_within_its_components(components):
    overall = weighted_overall(components)
    assert min(components.values()) - 1e-8 <= overall <= max(components.values()) + 1e-8


@given(five, st.sampled_from(COMPONENTS), ten)
def test_overall_never_falls_when_a_component_rises(components, name, other):
    low, high = sorted((components[name], other))
    assert weighted_overall({**components, name: low}) <= weighted_overall({**components, name: high})


@pytest.mark.parametrize(
    "components",
    [
        {},
        {c: 5.0 for c in COMPONENTS if c != "voice"},
        {**dict.fromkeys(COMPONENTS, 5.0), "charm": 5.0},
        {**dict.fromkeys(COMPONENTS, 5.0), "voice": math.nan},
        {**dict.fromkeys(COMPONENTS, 5.0), "voice": 10.5},
        {**dict.fromkeys(COMPONENTS, 5.0), "voice": -0.1},
    ],
)
def test_a_gap_or_a_wild_value_is_never_averaged(components):
    with pytest.raises(ValueError, match="components|outside"):
        weighted_overall(components)


def test_overall_ignores_the_judges_own_mark():
    assert judged(8.0, raw=2.0).overall == 8.0
    assert judged(8.0, raw=2.0).raw_overall == 2.0


def test_unscored_is_not_zero():
    found = unscored("the reply held no JSON")
    assert found.overall is None
    assert found.components == {}
    assert "no JSON" in found.justification


@pytest.mark.parametrize(
    "values",
    [(None, 1.0, 1.0, 1.0, 1.0), (11.0, 1.0, 1.0, 1.0, 1.0), (math.nan, 1.0, 1.0, 1.0, 1.0)],
)
def test_a_judgment_has_five_scores_or_a_reason(values):
    with pytest.raises(ValueError, match="five components"):
        Judgment(*values)


def test_an_unscored_judgment_carries_no_scores():
    with pytest.raises(ValueError, match="no scores"):
        Judgment(1.0, 1.0, 1.0, 1.0, 1.0, unscored="why")


def test_the_table_has_its_columns_and_types_even_when_empty():
    assert dict(scores_frame([]).schema) == SCORES_SCHEMA
    full = scores_frame([row("base", 1, judged(5.0)), row("base", 2, unscored("cut"))])
    assert dict(full.schema) == SCORES_SCHEMA
    assert full["overall"].to_list() == [5.0, None]


def table():
    kinds = [
        {"category": "ground_truth", "difficulty": "easy"},
        {"category": "ground_truth", "difficulty": "hard"},
        {"category": "private_voice", "difficulty": "hard"},
        {"category": "private_voice", "difficulty": "hard"},
    ]
    rows = []
    for number, kind in enumerate(kinds, 1):
        rows.append(row("base", number, judged(2.0 + number), words=number, **kind))
        failures = ("loop", "empty") if number == 1 else ()
        better = judged(4.0 + number, raw=1.0 * number, failures=failures)
        rows.append(row("q4_k_m", number, better, finish="length", **kind))
    rows.append(row("base", 5, unscored("unreadable"), category="verified_response", difficulty="medium"))
    return scores_frame(rows)


def summary(scores=None):
    return summarize(
        table() if scores is None else scores,
        {
            "base": ModeFacts("Small", nats_per_token=4.1, heldout_tokens=900, seconds=12.5),
            "q4_k_m": ModeFacts("Small, trained", nats_per_token=3.6, heldout_tokens=900, seconds=11.0),
        },
        run="r",
        profile="laptop",
        judge_name="rubric-local",
        judge_version="v",
        suite_hash="s",
        controls={},
        bounds=BOUNDS,
    )


def test_summary_has_the_agreed_shape():
    found = summary()
    assert list(found) == ["run", "profile", "judge", "suite_hash", "prompts", "modes", "paired", "controls"]
    assert found["judge"] == {"name": "rubric-local", "version": "v"}
    assert found["prompts"] == 5
    mode = found["modes"]["base"]
    assert set(mode) >= {
        *("model", "overall", "raw_overall", "categories", "difficulties", "components", "critical_failures"),
        *("unscored", "nats_per_token", "heldout_tokens", "longest_overlap", "answers", "seconds"),
    }
    assert set(mode["components"]) == set(COMPONENTS)
    assert set(mode["overall"]) == {"mean", "low", "high", "n"}
    assert mode["longest_overlap"] == {"max_words": 4, "median_words": 3.0, "answer": "gt-04", "passage_id": "p4"}
    assert json.loads(json.dumps(found, allow_nan=False)) == found


def test_summary_counts_the_unscored_and_leaves_them_out_of_every_mean():
    mode = summary()["modes"]["base"]
    assert mode["unscored"] == 1
    assert mode["overall"]["mean"] == 4.5
    assert mode["overall"]["n"] == 4
    assert mode["categories"]["verified_response"] == {"mean": None, "low": None, "high": None, "n": 0}
    assert mode["raw_overall"]["mean"] is None


def test_summary_groups_and_counts():
    mode = summary()["modes"]["q4_k_m"]
    assert mode["categories"]["ground_truth"]["mean"] == 5.5
    assert mode["categories"]["private_voice"]["n"] == 2
    assert mode["difficulties"]["hard"]["mean"] == 7.0
    assert mode["raw_overall"]["mean"] == 2.5
    assert mode["critical_failures"] == 1  # answers that fail, however often each does
    assert mode["answers"] == {"truncated": 4, "mean_words": 4.0}


def test_paired_difference_is_prompt_by_prompt_and_skips_what_one_side_lacks():
    found = summary()["paired"]
    assert list(found) == ["q4_k_m"]
    assert found["q4_k_m"] == {"difference": 2.0, "low": 2.0, "high": 2.0, "n": 4, "against": "base"}


def test_repeats_are_averaged_before_they_are_paired():
    rows = [row("base", n, judged(s)) for n, s in ((1, 2.0), (1, 4.0), (2, 5.0))]
    rows += [row("f16", n, judged(s)) for n, s in ((1, 6.0), (2, 5.0), (2, 9.0))]
    found = paired_difference(scores_frame(rows), "f16", "base", BOUNDS)
    assert found["n"] == 2
    assert found["difference"] == pytest.approx(((6 - 3) + (7 - 5)) / 2)


def test_a_mode_without_facts_is_not_dropped_in_silence():
    with pytest.raises(ValueError, match="q4_k_m"):
        summarize(
            table(),
            {"base": ModeFacts("Small")},
            run="r",
            profile="p",
            judge_name="j",
            judge_version="v",
            suite_hash="s",
            controls={},
            bounds=BOUNDS,
        )


def test_without_a_base_nothing_is_paired():
    scores = table()
    only = scores.filter(scores["mode"] == "q4_k_m")
    found = summarize(
        only,
        {"q4_k_m": ModeFacts("Small")},
        run="r",
        profile="p",
        judge_name="j",
        judge_version="v",
        suite_hash="s",
        controls={},
        bounds=BOUNDS,
    )
    assert found["paired"] == {}


def test_the_rubric_is_a_judge(rubric):
    assert isinstance(rubric, Judge)
    assert rubric.name == "rubric-local"
