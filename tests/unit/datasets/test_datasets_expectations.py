"""Data checks: a sound dataset passes, and each planted defect trips its own expectation and no other."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable

import polars as pl
import pytest

from foundry_pipeline import textstats
from foundry_pipeline.datasets.content import dataset_hash
from foundry_pipeline.datasets.expectations import Expectation, Verdict, _raised, build_suite, check_dataset, judge
from foundry_pipeline.declarations.assets import DatasetPart, Expectations
from foundry_pipeline.pairs.candidates import score_pairs

SUITE = ["What is the chief cause of faction in a republic of many interests?", "Describe your drives."]
SEALED = ["The treaty of peace was received with joy upon the shores of every State that year."]
ROWS = 30


@pytest.fixture
def check(make_pairs, make_profile, make_dataset, character) -> Callable[..., Verdict]:
    def run(frame: pl.DataFrame, *, method: str = "preference", profile=None, **given) -> Verdict:
        dataset = make_dataset("keeper_dataset_v1", DatasetPart(origin="base", pairs=ROWS), method=method)
        return check_dataset(
            frame,
            dataset=dataset,
            profile=profile or make_profile(),
            character=character,
            suite_texts=given.pop("suite_texts", SUITE),
            held_out_texts=SEALED,
            declared={},
            **given,
        )

    return run


@pytest.fixture
def sealed(character) -> Callable[[pl.DataFrame], pl.DataFrame]:
    """Ids and scores made anew, so that a planted defect is all that is wrong."""
    return lambda frame: score_pairs(frame, character)


def voice_score(text: str, markers: tuple[str, ...]) -> float:
    return round(textstats.voice(text, markers), 6)


def put(column: str, value: object, row: int = 7) -> Callable[[pl.DataFrame], pl.DataFrame]:
    def plant(frame: pl.DataFrame) -> pl.DataFrame:
        first = pl.int_range(pl.len()) == row
        return frame.with_columns(
            pl.when(first).then(pl.lit(value, frame.schema[column])).otherwise(pl.col(column)).alias(column)
        )

    return plant


def swapped(frame: pl.DataFrame) -> pl.DataFrame:
    return frame.with_columns(chosen=pl.col("rejected") + " So it is, and so be it.", rejected=pl.col("chosen"))


def swapped_in(category: str) -> Callable[[pl.DataFrame], pl.DataFrame]:
    def plant(frame: pl.DataFrame) -> pl.DataFrame:
        here = pl.col("category") == category
        return frame.with_columns(
            chosen=pl.when(here).then(swapped(frame)["chosen"]).otherwise("chosen"),
            rejected=pl.when(here).then(swapped(frame)["rejected"]).otherwise("rejected"),
        )

    return plant


LONG = "upon the shore " * 40
DEFECTS: dict[str, tuple[Callable[[pl.DataFrame], pl.DataFrame], int | None]] = {
    "row_count": (lambda f: f.head(17), None),
    "no_nulls": (put("prompt_id", None), 1),
    "chosen_length": (put("chosen", "Upon this I rely."), 1),
    "rejected_length": (put("rejected", "It's okay. " + LONG), 1),
    "category_known": (put("category", "gossip"), 1),
    "difficulty_known": (put("difficulty", "brutal"), 1),
    "origin_known": (put("origin", "nowhere"), 1),
    "upsample_positive": (put("upsample", 0), 1),
    "no_suite_overlap": (put("prompt", "Pray, what is the chief cause of faction in a republic?"), 1),
    "no_held_out_overlap": (
        put("chosen", "Upon that day the treaty of peace was received with joy upon the shores, hitherto dark."), 1),
    "voice_contrast": (swapped, None),
    "category_share": (lambda f: f.with_columns(category=pl.lit("ground_truth")), None),
    "voice_contrast_by_category": (swapped_in("private_voice"), None),
}  # fmt: skip
ALSO = {"voice_contrast": {"voice_contrast_by_category"}}  # if the mean is short, so is some category


def test_a_sound_dataset_passes(check, make_pairs) -> None:
    frame = make_pairs(ROWS)
    verdict = check(frame, expected_hash=dataset_hash(frame))
    assert verdict.passed
    assert all(r.passed for r in verdict.results), [r for r in verdict.results if not r.passed]
    assert verdict.dataset_hash == dataset_hash(frame)
    assert len(verdict.results) == 17


@pytest.mark.parametrize("name", list(DEFECTS))
def test_each_planted_defect_trips_its_own_expectation_only(name, check, sealed, make_pairs) -> None:
    plant, failing = DEFECTS[name]
    frame = sealed(plant(make_pairs(ROWS)))
    verdict = check(frame)
    tripped = {r.name for r in verdict.results if not r.passed}
    assert tripped == {name} | ALSO.get(name, set())
    result = next(r for r in verdict.results if r.name == name)
    assert verdict.passed == (result.severity == "warning")
    if failing is not None:
        assert (result.observed, result.rows_failed) == (failing, failing)
        assert result.sample == (frame["pair_id"][7],)


def test_a_pair_twice_is_not_unique(check, make_pairs) -> None:
    frame = make_pairs(ROWS)
    verdict = check(pl.concat([frame, frame.head(1)]))
    assert verdict.failed("error") == ("pair_id_unique",)
    assert verdict.results[1].rows_failed == 2


def test_two_equal_sides_trip_only_their_rule(check, sealed, make_pairs) -> None:
    frame = make_pairs(ROWS)
    chosen = frame["chosen"][7].upper()
    assert check(sealed(put("rejected", chosen)(frame))).failed("error") == ("sides_differ",)


def test_a_text_changed_under_its_id_is_noticed(check, make_pairs) -> None:
    frame = make_pairs(ROWS)
    changed = put("prompt", "What of something else altogether?")(frame)
    assert check(changed).failed("error") == ("id_matches_content",)
    both = check(changed, expected_hash=dataset_hash(frame)).failed("error")
    assert both == ("id_matches_content", "content_hash_matches")


def test_a_missing_side_is_one_fault_and_not_passed_over(check, sealed, make_pairs) -> None:
    for column in ("chosen", "rejected", "category", "origin", "teacher", "student"):
        frame = put(column, None)(make_pairs(ROWS))
        if column != "chosen":
            frame = sealed(frame)
        failed = set(check(frame).failed("error"))
        assert failed - {"id_matches_content"} == {"no_nulls"}, column
    blank = sealed(put("rejected", "  ")(make_pairs(ROWS)))
    assert check(blank).failed("error") == ("no_nulls",)
    nowhere = make_pairs(ROWS).with_columns(passage_ids=pl.lit([], pl.List(pl.String)))
    assert check(nowhere).failed("error") == ("no_nulls",)


def test_an_empty_dataset_fails(check, make_pairs) -> None:
    verdict = check(make_pairs(0))
    assert not verdict.passed
    assert "row_count" in verdict.failed("error")


def test_bounds_come_from_the_profile(check, make_pairs, make_profile, character) -> None:
    frame = make_pairs(ROWS)
    mean = next(r.observed for r in check(frame).results if r.name == "voice_contrast")

    def failed(**bounds: float) -> set[str]:
        verdict = check(frame, profile=make_profile(expectations=Expectations(**bounds)))
        return {r.name for r in verdict.results if not r.passed}

    assert failed(min_voice_contrast=mean - 0.01) <= {"voice_contrast_by_category"}
    assert "voice_contrast" in failed(min_voice_contrast=mean + 0.001)
    one = frame.head(1)
    exact = one["voice_chosen"].item() - one["voice_rejected"].item()
    at_bound = check(one, profile=make_profile(expectations=Expectations(min_voice_contrast=exact)))
    assert "voice_contrast" in at_bound.failed("error")  # the mean must lie above its bound, not at it
    assert failed(max_category_share=0.1) == {"category_share"}
    assert check(frame.head(17), profile=make_profile(expectations=Expectations(min_rows_share=0.5))).passed
    assert check(frame.head(3), profile=make_profile(size_factor=0.1)).passed
    assert check(frame.head(1), profile=make_profile(size_factor=0.1)).failed("error") == ("row_count",)
    own = make_profile(size_factors={"keeper_dataset_v1": 0.1})
    assert check(frame.head(3), profile=own).passed
    assert check(frame.head(1), profile=own).failed("error") == ("row_count",)


def test_supervised_rows_are_not_asked_for_a_rejected_side(check, sealed, make_pairs) -> None:
    empty = [pl.lit(None, pl.String).alias(c) for c in ("rejected", "student", "student_request_hash")]
    frame = sealed(make_pairs(ROWS).with_columns(empty))
    verdict = check(frame, method="sft")
    assert verdict.passed
    assert not {"voice_contrast", "rejected_length", "sides_differ"} & {r.name for r in verdict.results}
    assert check(frame).failed("error")[0] == "no_nulls"


def test_a_rule_that_cannot_be_judged_is_an_error_in_both_shapes(make_pairs) -> None:
    narrow = pl.DataFrame({"pair_id": ["a"], "category": ["x"]})
    suite = [
        Expectation("share", "warning", "ExpectColumnMaxToBeBetween", "not_there", {"max_value": 1}),
        Expectation("mean", "warning", "ExpectColumnMeanToBeBetween", "category", {"min_value": 0}),
        Expectation("category", "error", "ExpectColumnValuesToBeInSet", "category", {"value_set": ["x"]}),
    ]
    results = judge(narrow, suite)
    assert [(r.name, r.severity, r.passed) for r in results] == [
        ("share", "error", False),
        ("mean", "error", False),
        ("category", "error", True),
    ]
    assert all("could not be judged" in r.observed for r in results[:2])


@pytest.mark.parametrize(
    "info",
    [
        {"raised_exception": True, "exception_message": "no such column", "exception_traceback": "…"},
        {"('column.max', 'a', ())": {"raised_exception": True, "exception_message": "no such column"}},
        {
            "first": {"raised_exception": False},
            "second": {"raised_exception": True, "exception_message": "no such column"},
        },
    ],
)
def test_an_exception_is_found_in_either_shape(info: dict) -> None:
    assert _raised(info) == "no such column"


@pytest.mark.parametrize(
    "info", [{"raised_exception": False, "exception_message": None}, {}, {"a": {"raised_exception": False}}]
)
def test_no_exception_is_none(info: dict) -> None:
    assert _raised(info) is None


def test_the_suite_hash_follows_bounds_and_texts_and_nothing_else(check, make_pairs, make_profile) -> None:
    frame = make_pairs(ROWS)
    first = check(frame).suite_hash
    assert check(frame.head(20)).suite_hash == first
    assert check(frame, suite_texts=reversed(SUITE)).suite_hash == first
    assert check(frame, suite_texts=SUITE[:1]).suite_hash != first
    bounds = make_profile(expectations=Expectations(min_rows_share=0.61))
    assert check(frame, profile=bounds).suite_hash != first


def test_the_verdict_is_json_with_every_field(check, make_pairs) -> None:
    verdict = check(make_pairs(3))
    again = json.loads(json.dumps(verdict.as_dict(), allow_nan=False))
    assert again == verdict.as_dict()
    assert set(again) == {"dataset", "dataset_hash", "suite_hash", "passed", "results"}
    for result in again["results"]:
        assert set(result) == {"name", "severity", "passed", "observed", "bound", "rows_failed", "sample"}


def test_nothing_is_shown_or_sent(check, make_pairs, capfd, monkeypatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("a connection was tried")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    check(make_pairs(ROWS))
    shown = capfd.readouterr()
    assert (shown.out, shown.err) == ("", "")
    assert os.environ["GX_ANALYTICS_ENABLED"] == "false"


def test_a_declared_dataset_bounds_its_rows_by_what_it_takes_over(make_dataset, make_profile) -> None:
    inner = make_dataset("inner", DatasetPart(origin="base", pairs=100))
    outer = make_dataset("outer", DatasetPart(dataset="inner"), DatasetPart(origin="voice", pairs=50, upsample=2))
    suite = build_suite(outer, profile=make_profile(), declared={"inner": inner})
    assert suite[0].bound == {"min_value": 90}
    assert next(e for e in suite if e.name == "category_share").bound == {"max_value": 0.5}


def test_great_expectations_comes_without_what_it_does_not_need() -> None:
    code = """
import sys
from foundry_pipeline.datasets.expectations import _without_address_grammars
with _without_address_grammars():
    import great_expectations
assert "lark" not in sys.modules and "rfc3987_syntax" not in sys.modules
import jsonschema
jsonschema.validate({"a": 1}, {"properties": {"a": {"type": "integer"}}}, format_checker=jsonschema.FormatChecker())
"""
    subprocess.run([sys.executable, "-c", code], check=True)
