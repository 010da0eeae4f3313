"""Two versions side by side: every row is accounted for once, and scores meet only where they may."""

from __future__ import annotations

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from foundry_pipeline.datasets.diff import compare, comparisons, differing, moved
from foundry_pipeline.datasets.shape import shape
from foundry_pipeline.pairs.candidates import PAIRS


def row(prompt: str, chosen: str, rejected: str | None = "no", origin: str = "base", **more: object) -> dict:
    return {
        "pair_id": f"{prompt}|{chosen}|{rejected}|{origin}",
        "prompt_id": prompt,
        "prompt": f"What of {prompt}?",
        "chosen": chosen,
        "rejected": rejected,
        "origin": origin,
        "category": "ground_truth",
        "difficulty": "easy",
        "upsample": 1,
        "passage_ids": [],
        **more,
    }


def frame(*rows: dict) -> pl.DataFrame:
    made = pl.DataFrame(list(rows), {c: t for c, t in PAIRS.items() if c in row("p", "c")}) if rows else pl.DataFrame()
    return (
        made.select((pl.col(c) if c in made.columns else pl.lit(None)).cast(t).alias(c) for c, t in PAIRS.items())
        if rows
        else pl.DataFrame(schema=PAIRS)
    )


rows = st.lists(
    st.builds(
        row,
        st.sampled_from("abc"),
        st.sampled_from(["yes", "aye", "well"]),
        st.sampled_from(["no", "nope", None]),
        st.sampled_from(["base", "voice"]),
    ),
    max_size=8,
    unique_by=lambda r: r["pair_id"],
)


@given(rows, rows)
def test_every_row_is_the_same_changed_added_or_removed(left: list[dict], right: list[dict]) -> None:
    diff = compare(frame(*left), frame(*right))
    old, new = {r["pair_id"] for r in left}, {r["pair_id"] for r in right}
    assert diff.same == len(old & new)
    before = [c["left"]["pair_id"] for c in diff.changed]
    after = [c["right"]["pair_id"] for c in diff.changed]
    assert sorted([*before, *diff.removed["pair_id"]]) == sorted(old - new)
    assert sorted([*after, *diff.added["pair_id"]]) == sorted(new - old)
    for change in diff.changed:
        assert change["left"]["prompt_id"] == change["right"]["prompt_id"] == change["prompt_id"]
        assert change["sides"]
    # Nothing is left that could have been put together.
    assert not set(diff.added["prompt_id"]) & set(diff.removed["prompt_id"])


@given(rows, rows)
def test_the_way_back_is_the_way_there_reversed(left: list[dict], right: list[dict]) -> None:
    there, back = compare(frame(*left), frame(*right)), compare(frame(*right), frame(*left))
    assert there.added.equals(back.removed)
    assert there.removed.equals(back.added)
    assert len(there.changed) == len(back.changed)


@given(rows)
def test_a_dataset_differs_in_nothing_from_itself(same: list[dict]) -> None:
    diff = compare(frame(*same), frame(*reversed(same)))
    assert (diff.same, diff.changed, diff.reshown) == (len(same), [], [])
    assert diff.added.is_empty()
    assert diff.removed.is_empty()


def test_a_changed_side_is_named() -> None:
    diff = compare(frame(row("a", "yes"), row("b", "yes")), frame(row("a", "aye"), row("b", "yes", "nope")))
    assert [(c["prompt_id"], c["sides"]) for c in diff.changed] == [("a", ["chosen"]), ("b", ["rejected"])]
    assert diff.sides() == {"origin": 0, "prompt": 0, "chosen": 1, "rejected": 1}


def test_the_rejected_side_drawn_anew_is_a_change_and_no_exchange_of_rows() -> None:
    """v4 → v5: other rejected side, other origin, same prompts."""
    left = frame(*(row(p, "yes") for p in "abc"))
    right = frame(*(row(p, "yes", "on policy", "on_policy") for p in "ab"))
    diff = compare(left, right)
    assert [c["sides"] for c in diff.changed] == [["origin", "rejected"]] * 2
    assert (diff.added.height, diff.removed["prompt_id"].to_list()) == (0, ["c"])


def test_rows_that_share_a_side_are_put_together_before_those_that_share_a_prompt() -> None:
    diff = compare(
        frame(row("a", "yes", "one"), row("a", "aye", "two")), frame(row("a", "aye", "three"), row("a", "well", "one"))
    )
    assert {(c["left"]["chosen"], c["right"]["chosen"]): c["sides"] for c in diff.changed} == {
        ("aye", "aye"): ["rejected"],
        ("yes", "well"): ["chosen"],
    }


def test_how_often_a_row_is_shown_and_which_passages_are_shared() -> None:
    left = frame(row("a", "yes", passage_ids=["p", "q"]))
    right = frame(row("a", "yes", upsample=2, passage_ids=["q", "r", "s"]))
    diff = compare(left, right)
    assert [(r["before"], r["after"]) for r in diff.reshown] == [(1, 2)]
    assert diff.passages == {"left": 2, "right": 3, "shared": 1}


def test_counts_move_by_what_an_epoch_shows() -> None:
    left = shape(frame(row("a", "yes"), row("b", "yes", upsample=3)))["origins"]
    right = shape(frame(row("a", "yes"), row("c", "yes", origin="voice", upsample=2)))["origins"]
    assert moved(left, right) == {
        "base": {"left": 4, "right": 1, "difference": -3},
        "voice": {"left": 0, "right": 2, "difference": 2},
    }


def test_differing_names_the_place() -> None:
    one = {"parts": [{"pairs": 3}], "filters": {"min": 1, "max": 2}}
    two = {"parts": [{"pairs": 4}, {"pairs": 1}], "filters": {"min": 1}}
    assert differing(one, two) == [
        ("parts[0].pairs", 3, 4),
        ("parts[1]", None, {"pairs": 1}),
        ("filters.max", 2, None),
    ]
    assert differing(one, one) == []


def score(**changes: object) -> dict:
    base = {
        "run": "r", "mode": "adapter", "judge": "rubric-local", "judge_version": "1", "suite_hash": "s",
        "profile": "laptop", "base_model": "m", "overall": 5.0, "overall_low": 4.0, "overall_high": 6.0,
        "paired_difference": 1.0, "score_id": "x", "recorded_at": "2026-01-01",
    }  # fmt: skip
    return {**base, **changes}


def test_scores_meet_where_judge_suite_profile_mode_and_base_are_the_same() -> None:
    found = comparisons([score()], [score(run="q", overall=6.5)])
    assert [(c["left"]["run"], c["right"]["run"], c["right"]["overall"]) for c in found] == [("r", "q", 6.5)]


@pytest.mark.parametrize("name", ["judge", "judge_version", "suite_hash", "profile", "mode", "base_model"])
def test_scores_that_differ_in_how_they_were_got_never_meet(name: str) -> None:
    assert comparisons([score()], [score(**{name: "other"})]) == []


def test_the_untuned_base_is_left_out_and_the_latest_score_of_a_run_counts() -> None:
    assert comparisons([score(mode="base")], [score(mode="base")]) == []
    left = [score(overall=1.0, recorded_at="2026-01-02"), score(overall=9.0, recorded_at="2026-01-01")]
    assert [c["right"]["overall"] for c in comparisons(left, [score(overall=None)])] == [None]
    assert [c["left"]["overall"] for c in comparisons(left, [score()])] == [1.0]
