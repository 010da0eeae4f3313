"""Measured beside reported: whose answers were rejected, and contractions on each side."""

from __future__ import annotations

import polars as pl

from foundry_pipeline.declarations.assets import DatasetPart
from foundry_pipeline.pairs import voice_targeted as v

REPORTED = [
    {"dataset": "v4", "measure": "rejected_from", "of": "base", "pairs": 267, "share": 0.67},
    {"dataset": "v4", "measure": "rejected_from", "of": "base_fallback", "pairs": 41, "share": 0.10},
    {"dataset": "v4", "measure": "contractions_per_pair", "of": "rejected", "value": 5.4},
]


def pairs(*sides: tuple[str, str | None]) -> pl.DataFrame:
    return pl.DataFrame(list(sides), {"chosen": pl.String, "rejected": pl.String}, orient="row")


FRAME = pairs(("It is so.", "It's so, and I don't mind."), ("He did not.", "They'll see that we've gone."))


def test_contractions_are_counted_per_pair_on_each_side() -> None:
    assert v.contractions_per_pair(FRAME) == {"chosen": 0.0, "rejected": 2.0}
    assert v.contractions_per_pair(pairs(("I can't.", None))) == {"chosen": 1.0, "rejected": None}
    assert v.contractions_per_pair(FRAME.clear()) == {"chosen": None, "rejected": None}


def test_measured_and_reported_stand_side_by_side() -> None:
    facts = v.report(FRAME, {"base": 3, "a_run": 1}, REPORTED)
    assert facts["rejected_from"] == {
        "a_run": {"measured": {"pairs": 1, "share": 0.25}, "reported": None},
        "base": {"measured": {"pairs": 3, "share": 0.75}, "reported": {"pairs": 267, "share": 0.67}},
        "base_fallback": {"measured": {"pairs": 0, "share": 0.0}, "reported": {"pairs": 41, "share": 0.10}},
    }
    assert facts["contractions_per_pair"]["rejected"] == {"measured": 2.0, "reported": 5.4}
    assert facts["contractions_per_pair"]["chosen"] == {"measured": 0.0, "reported": None}
    table = v.as_table(facts)
    assert "| rejected side from `base` | 3 (75%) | 267 (67%) |" in table
    assert "| contractions per pair, rejected | 2 | 5.4 |" in table


def test_without_targeted_parts_only_the_contractions_are_told() -> None:
    facts = v.report(FRAME, {}, [])
    assert set(facts) == {"contractions_per_pair"}
    assert "–" in v.as_table(facts)


def test_shares_are_of_the_parts_that_choose_among_students() -> None:
    declared = [
        DatasetPart(dataset="d"),
        DatasetPart(origin="base", pairs=5),
        DatasetPart(origin="voice", pairs=5, students=("base", "a_run")),
    ]
    parts = [{}, {"students": {"base": 5}}, {"students": {"base": 5}}]
    assert v.targeted_shares(declared, parts) == {"a_run": 0, "base": 5}
    parts[2] = {"students": {"base": 1, "a_run": 3, "base_fallback": 1}}
    assert v.targeted_shares(declared, parts) == {"a_run": 3, "base": 1, "base_fallback": 1}
    assert v.targeted_shares(declared[:2], parts[:2]) == {}
