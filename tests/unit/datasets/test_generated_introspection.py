"""Supervised datasets from generated rows: sizes at full size, whole dialogues, and the same rows in any order."""

from __future__ import annotations

from collections.abc import Callable

import polars as pl
import pytest

from foundry_pipeline.datasets.recipes import build_dataset
from foundry_pipeline.declarations import load
from foundry_pipeline.declarations.assets import DatasetPart
from foundry_pipeline.pairs.introspection import TURNS, as_pairs
from tests.conftest import ROOT


@pytest.fixture
def make_rows(make_pairs, character) -> Callable[[int, int], pl.DataFrame]:
    """Generated rows: so many reflections, and so many dialogues of five turns."""

    def make(reflections: int, dialogues: int) -> pl.DataFrame:
        rows = make_pairs(reflections + TURNS * dialogues, "introspection").with_row_index("n")
        talk = pl.col("n") >= reflections
        place = pl.col("n").cast(pl.Int64) - reflections
        return as_pairs(
            rows.with_columns(
                dialogue=pl.when(talk).then(pl.format("dialogue-{}", place // TURNS)),
                turn=pl.when(talk).then(place % TURNS),
            ),
            character,
        )

    return make


def build(make_pairs, make_profile, character, rows: pl.DataFrame, size_factor: float = 1.0):
    dataset = load(ROOT, "full").datasets["madison_dataset_sft"]
    return build_dataset(
        dataset,
        profile=make_profile(size_factor),
        filtered=make_pairs(60, "introspection"),
        character=character,
        introspection=rows,
    )


def test_415_reflections_and_19_dialogues_of_five_rows_are_510(make_rows, make_pairs, make_profile, character) -> None:
    rows = make_rows(430, 24)
    frame, facts = build(make_pairs, make_profile, character, rows)
    assert (frame.height, facts["rows"], facts["effective_pairs"], facts["shortage"]) == (510, 510, 510, 0)
    spoken = frame.head(95).join(rows.select("pair_id", "dialogue", "turn"), on="pair_id", maintain_order="left")
    assert spoken["turn"].to_list() == [0, 1, 2, 3, 4] * 19
    assert spoken["dialogue"].n_unique() == 19
    alone = frame.tail(415).join(rows, on="pair_id", suffix="_row")
    assert alone.height == alone["dialogue"].null_count() == 415
    assert frame["rejected"].null_count() == 510
    # The filtered pairs of the same origin are the character's own words; none of them is among the generated rows.
    assert not set(frame["chosen"]) - set(rows["chosen"])


def test_the_order_of_the_rows_makes_no_difference(make_rows, make_pairs, make_profile, character) -> None:
    rows = make_rows(45, 6)
    first, _ = build(make_pairs, make_profile, character, rows, 0.1)
    second, _ = build(make_pairs, make_profile, character, rows.sample(fraction=1.0, shuffle=True, seed=5), 0.1)
    assert first.equals(second)
    assert first.height == 42 + 2 * 5


def test_too_few_dialogues_are_a_shortage_and_never_torn(make_rows, make_pairs, make_profile, character) -> None:
    rows = make_rows(415, 10)
    torn = rows.filter(~(pl.col("dialogue").eq_missing("dialogue-3") & pl.col("turn").eq_missing(4)))
    frame, facts = build(make_pairs, make_profile, character, torn)
    assert frame.height == 415 + 45
    assert facts["shortage"] == 50
    assert facts["parts"][0]["items_not_available"] == 10


def test_preference_datasets_never_take_generated_rows(
    make_rows, make_pairs, make_profile, make_dataset, character
) -> None:
    dataset = make_dataset("pairs", DatasetPart(origin="introspection", pairs=20))
    pairs = make_pairs(30, "introspection")
    given = {"profile": make_profile(), "filtered": pairs, "character": character}
    frame, _ = build_dataset(dataset, **given, introspection=make_rows(30, 2))
    assert frame.equals(build_dataset(dataset, **given)[0])
    assert frame["rejected"].null_count() == 0
