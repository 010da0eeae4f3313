"""How large recipes are and how often each pair is shown, whatever the weights."""

from __future__ import annotations

import math
from fractions import Fraction

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from foundry_pipeline.datasets.mixture import recipe_size, weigh
from foundry_pipeline.datasets.recipes import build_dataset
from foundry_pipeline.declarations import load
from foundry_pipeline.declarations.assets import Dataset, DatasetPart
from tests.project import ROOT

FULL = {
    "madison_dataset_v1": (200, 200),
    "madison_dataset_v2": (340, 340),
    "madison_dataset_v3b": (475, 475),
    "madison_dataset_v4": (475 + 399, 475 + 2 * 399),
    "madison_dataset_v5": (475 + 399, 475 + 2 * 399),
    "madison_dataset_v6": (475 + 399 + 225, 475 + 2 * 399 + 225),
    "madison_dataset_sft": (415 + 19 * 5, 510),
}
LAPTOP = {
    "madison_dataset_v1": (54, 54),
    "madison_dataset_v2": (92, 92),
    "madison_dataset_v3b": (129, 129),
    "madison_dataset_v4": (129 + 108, 129 + 216),
    "madison_dataset_v5": (129 + 108, 129 + 216),
    "madison_dataset_v6": (129 + 108 + 40 + 22, 129 + 216 + 40 + 22),
    "madison_dataset_sft": (113 + 6 * 5, 143),
}
part = st.builds(
    DatasetPart,
    origin=st.just("base"),
    pairs=st.integers(1, 60),
    upsample=st.integers(1, 3),
    weight=st.sampled_from([0.25, 0.5, 0.9, 1.0, 1.5, 2.0, 2.75]),
)


@pytest.mark.parametrize(("profile", "sizes"), [("full", FULL), ("laptop", LAPTOP)])
def test_all_seven_recipes_in_both_profiles(profile: str, sizes: dict[str, tuple[int, int]]) -> None:
    d = load(ROOT, profile)
    found = {n: recipe_size(s, d.profile.size_factor, d.datasets) for n, s in d.datasets.items()}
    assert {n: (size["rows"], size["effective"]) for n, size in found.items()} == sizes
    assert sizes is LAPTOP or (sizes["madison_dataset_v4"][1], sizes["madison_dataset_v6"][1]) == (1273, 1498)


def frame_of(shows: list[int]) -> pl.DataFrame:
    return pl.DataFrame(
        {"pair_id": [f"{(i * 7919) % 10007:05d}" for i in range(len(shows))], "upsample": shows},
        {"pair_id": pl.String, "upsample": pl.Int64},
    )


@given(st.lists(st.integers(1, 4), max_size=50), part)
def test_shows_come_to_the_weight_and_no_pair_strays_by_one(shows: list[int], taken: DatasetPart) -> None:
    frame = frame_of(shows)
    by = taken.upsample * Fraction(str(taken.weight))
    weighed = weigh(frame, taken)
    assert weighed["upsample"].sum() == math.ceil(sum(shows) * by)
    before = dict(frame.iter_rows())
    for pair, times in weighed.iter_rows():
        assert times > 0
        assert abs(times - before[pair] * by) < 1
    left_out = set(before) - set(weighed["pair_id"])
    assert all(before[pair] * by < 1 for pair in left_out)
    kept = [p for p in frame["pair_id"] if p in set(weighed["pair_id"])]
    assert weighed["pair_id"].to_list() == kept, "the order of rows stays"


@given(st.lists(st.integers(1, 4), min_size=1, max_size=30), part, st.randoms(use_true_random=False))
def test_which_pairs_are_shown_once_more_does_not_depend_on_their_order(shows, taken, random) -> None:
    frame = frame_of(shows)
    mixed = frame.sample(fraction=1, shuffle=True, seed=random.randint(0, 999))
    assert weigh(frame, taken).sort("pair_id").equals(weigh(mixed, taken).sort("pair_id"))


@given(st.lists(part, min_size=1, max_size=3), part)
def test_the_declared_size_is_the_size_that_comes_out(inner: list[DatasetPart], outer: DatasetPart) -> None:
    """Through a dataset that is taken over with a weight of its own, too."""
    declared = {"in": Dataset(dataset="in", character="c", description="d", parts=tuple(inner))}
    whole = Dataset(
        dataset="out",
        character="c",
        description="d",
        parts=(DatasetPart(dataset="in", upsample=outer.upsample, weight=outer.weight), outer),
    )
    rows: list[int] = []
    for p in inner:
        rows += weigh(frame_of([1] * (p.pairs or 0)), p)["upsample"].to_list()
    taken = weigh(frame_of(rows), outer)["upsample"].to_list()
    taken += weigh(frame_of([1] * (outer.pairs or 0)), outer)["upsample"].to_list()
    assert recipe_size(whole, 1.0, declared) == {"rows": len(taken), "effective": sum(taken)}


def test_a_weighed_dataset_builds_and_counts_what_it_left_out(
    make_pairs, make_profile, make_dataset, character
) -> None:
    parts = (
        DatasetPart(origin="base", pairs=9, weight=0.5),
        DatasetPart(origin="voice", pairs=4, upsample=2, weight=1.25),
    )
    dataset = make_dataset("mixed", *parts)
    filtered = pl.concat([make_pairs(9), make_pairs(4, "voice")])
    frame, facts = build_dataset(dataset, profile=make_profile(), filtered=filtered, character=character)
    assert (frame.height, facts["effective_pairs"], facts["shortage"]) == (5 + 4, 5 + 10, 0)
    assert [p["left_out"] for p in facts["parts"]] == [4, 0]
    assert recipe_size(dataset, 1.0, {}) == {"rows": 9, "effective": 15}


def test_a_whole_weight_changes_nothing(make_pairs, make_profile, make_dataset, character) -> None:
    """The same rows in the same order, so that a recipe without weights keeps its hash."""
    given_parts = [DatasetPart(origin="base", pairs=5, upsample=2), DatasetPart(origin="base", pairs=5, weight=2.0)]
    built = [
        build_dataset(make_dataset("d", p), profile=make_profile(), filtered=make_pairs(5), character=character)[0]
        for p in given_parts
    ]
    assert built[0].equals(built[1])
