"""What the report says of its judge is written from the numbers, and only where there are any."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from foundry_pipeline.reports.judge_notes import judge_notes
from foundry_pipeline.reports.run_report import render_report
from tests.unit.reports.report_sample import sample

PROBE = {
    "voice": {"difference": 6.1, "low": 5.4, "high": 6.8, "n": 14},
    "historical": {"difference": -0.2, "low": -0.4, "high": 0.1, "n": 14},
    "passed": True,
}


def told(**changes: Any) -> list[str]:
    data = sample(("base", "merged"))
    modes = {mode: {**found, **changes.pop(mode, {})} for mode, found in data.summary["modes"].items()}
    judge = {**data.summary["judge"], **changes.pop("judge", {})}
    return judge_notes(replace(data, summary={**data.summary, "modes": modes, "judge": judge, **changes}))


def test_the_style_probe_is_told_with_its_verdict() -> None:
    said = told(style_probe=PROBE)[0]
    assert "14 times" in said
    assert "voice by +6.10 (+5.40 to +6.80)" in said
    assert said.endswith("; it tells dress from matter.")
    assert "does not tell dress from matter" in told(style_probe={**PROBE, "passed": False})[0]


def test_unread_replies_come_with_their_bounds_and_the_audit_with_its_difference() -> None:
    bounds = {"unscored": 2, "low": 5.81, "high": 6.37, "reasons": {"cut off": 2}}
    audit = {"with": {}, "without": {}, "difference": -0.31}
    said = " ".join(told(merged={"unscored_bounds": bounds, "mark_audit": audit}, judge={"self_agreement": {
        "raters": 3, "answers": 36, "alpha": 0.912, "kappa": 0.9, "mean_spread": 0.4}}))  # fmt: skip
    assert "2 answers unscored, cut off (2); had each been worth 0 the overall would be 5.81" in said
    assert "\N{MINUS SIGN}0.31" in said
    assert "alpha of 0.912" in said


def test_an_evaluation_from_before_these_measures_says_nothing_of_them() -> None:
    data = sample(("base", "merged"))
    old = {m: {k: v for k, v in f.items() if k not in ("unscored_bounds", "mark_audit", "length_correlation")}
           for m, f in data.summary["modes"].items()}  # fmt: skip
    plain = replace(data, summary={**data.summary, "modes": old})
    assert judge_notes(plain) == []
    assert 'id="judge"' not in render_report(plain)
    assert 'id="judge"' in render_report(replace(data, summary={**data.summary, "style_probe": PROBE}))
