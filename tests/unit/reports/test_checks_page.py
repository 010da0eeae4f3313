"""The page of a dataset's checks: everything the verdict says is on it, and no text on it is obeyed."""

from __future__ import annotations

import html
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from foundry_pipeline.reports.checks_page import MEANS, bins, render_checks
from tests.unit.reports.checks_sample import SCRIPT, data, result, rows


def text_of(page: str) -> str:
    return html.unescape(re.sub(r"<[^>]+>", " ", page))


def test_every_expectation_stands_there_with_bound_finding_and_severity() -> None:
    page = text_of(
        render_checks(
            data(
                rows(3),
                result("row_count", observed=3, bound={"min_value": 2}, rows_failed=None),
                result(
                    "chosen_length", observed=1, rows_failed=1, passed=False, bound={"min_value": 5, "max_value": 9}
                ),
                result("category_share", severity="warning", observed=0.75, rows_failed=None, bound={"max_value": 0.8}),
            )
        )
    )
    for told in ("row count", "at least 2", "1 row fails", "5 to 9", "0.750", "at most 0.8", "warning", "1 of 2"):
        assert told in page
    assert "training is refused" in page
    assert "loop" in page


def test_rows_that_fail_are_shown_escaped_and_without_hidden_marks() -> None:
    frame = rows(3)
    failing = result(
        "chosen_length", passed=False, observed=2, rows_failed=2, sample=[frame["pair_id"][2], frame["pair_id"][0]]
    )
    page = render_checks(data(frame, failing))
    assert "<script" not in page
    assert html.escape(SCRIPT, quote=False).split("(")[0] in page
    assert not {"\u202e", "\x1b", "\x00"} & set(page)
    shown = text_of(page)
    assert shown.index("p-2") < shown.index("p-0"), "in the verdict's order"
    assert "p-1" not in shown
    assert "\\u202eturned" in shown


def test_what_could_not_be_judged_is_told_and_is_no_pass() -> None:
    broken = result("voice_contrast", passed=False, observed=f"could not be judged: {SCRIPT}", rows_failed=None)
    page = render_checks(data(rows(2), broken))
    assert "<script" not in page
    assert "could not be judged" in text_of(page)
    assert "training is refused" in text_of(page)


def test_an_empty_dataset_and_missing_values_have_a_page() -> None:
    short = result("row_count", passed=False, observed=0, rows_failed=None, bound={"min_value": 2})
    page = text_of(render_checks(data(rows(0), short)))
    assert "holds no row" in page
    nulls = rows(2, rejected=None, category=None, voice_contrast=None, voice_rejected=None, pair_id=None)
    lost = result("no_nulls", passed=False, observed=2, rows_failed=2, sample=["None", "None"])
    page = text_of(render_checks(data(nulls, lost)))
    assert "missing" in page
    assert "p-0" in page


def test_the_page_loads_and_runs_nothing_and_is_the_same_twice() -> None:
    made = data(rows(30), result("row_count", observed=30, rows_failed=None))
    page = render_checks(made)
    assert page == render_checks(made)
    assert "default-src 'none'" in page
    assert not re.search(r"(?:src|href)=\"(?!data:,|#)", page)
    assert page.count("<svg viewBox") == 3


def test_a_supervised_dataset_has_no_plot_of_the_other_side() -> None:
    frame = rows(4, rejected=None, voice_rejected=None, voice_contrast=None)
    page = render_checks(data(frame, result("row_count", observed=4, rows_failed=None), method="sft"))
    assert page.count("<svg viewBox") == 1
    assert "supervised fine-tuning" in page


def test_every_expectation_of_the_suite_is_explained() -> None:
    from foundry_pipeline.datasets.expectations import build_suite
    from foundry_pipeline.declarations import load
    from tests.project import ROOT

    d = load(ROOT, "laptop")
    names = {e.name for s in d.datasets.values() for e in build_suite(s, profile=d.profile, declared=d.datasets)}
    assert names == set(MEANS)


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=50))
def test_bins_hold_every_value_once(values: list[float]) -> None:
    edges, counts = bins(values)
    assert sum(counts) == len(values)
    assert len(edges) == len(counts) + 1 <= 40
    assert edges == sorted(edges)
    nothing_to_speak_of = 1e-8 * (edges[1] - edges[0])
    assert edges[0] <= min(values) + nothing_to_speak_of
    assert edges[-1] >= max(values) - nothing_to_speak_of


def test_no_values_make_no_bins() -> None:
    with pytest.raises(ValueError, match="no values"):
        bins([])
