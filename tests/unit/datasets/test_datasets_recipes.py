"""Recipes: declared sizes, choice, students, on-policy answers, dialogues."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from foundry_pipeline.datasets.mixture import recipe_size, scaled
from foundry_pipeline.datasets.recipes import build_dataset, selection_order
from foundry_pipeline.declarations.assets import Dataset, DatasetPart
from foundry_pipeline.declarations.common import CATEGORIES
from foundry_pipeline.errors import DeclarationError, MissingArtifact
from foundry_pipeline.pairs.candidates import PAIRS, pair_id

ASSETS = Path(__file__).resolve().parents[3] / "assets/datasets"
TRAINED, POLICY = "madison_orpo_v3b", "madison_qwen3_v1"
BETTER = "It's cool, guys. I'm OK, we're OK, don't worry."  # farther from the chosen side than the base's answer
BARE = "I don't know, telephone."


@pytest.fixture(scope="module")
def declared() -> dict[str, Dataset]:
    found = [
        Dataset.model_validate(yaml.safe_load(p.read_text(encoding="utf-8"))) for p in ASSETS.glob("madison_*.yaml")
    ]
    return {d.dataset: d for d in found}


def build_all(declared, make_pairs, make_answers, make_profile, character, size_factor=1.0):
    """All seven declared datasets out of synthetic pairs that are enough for them."""
    filtered = pl.concat(
        [
            make_pairs(480),
            make_pairs(399, "voice"),
            make_pairs(145, "source_enriched"),
            make_pairs(510, "introspection"),
        ]
    )
    passages = pl.DataFrame(
        {
            "passage_id": [f"p-introspection-{i:04d}" for i in range(510)],
            "document_id": [f"log-{i // 85}" for i in range(510)],
            "position": [i % 85 for i in range(510)],
        }
    )
    students = {run: make_answers(filtered, run) for run in (TRAINED, POLICY)}
    made: dict[str, tuple[pl.DataFrame, dict]] = {}
    for name in ("v1", "v2", "v3b", "v4", "v5", "v6", "sft"):
        dataset = declared[f"madison_dataset_{name}"]
        made[name] = build_dataset(
            dataset,
            profile=make_profile(size_factor),
            filtered=filtered,
            character=character,
            other_students=students,
            datasets={f"madison_dataset_{k}": frame for k, (frame, _) in made.items()},
            passages=passages,
        )
    return made


def test_declared_sizes_at_full_size(declared, make_pairs, make_answers, make_profile, character) -> None:
    made = build_all(declared, make_pairs, make_answers, make_profile, character)
    rows = {name: (frame.height, facts["effective_pairs"]) for name, (frame, facts) in made.items()}
    assert rows == {
        "v1": (200, 200),
        "v2": (340, 340),
        "v3b": (475, 475),
        "v4": (475 + 399, 1273),
        "v5": (475 + 399, 1273),
        "v6": (475 + 399 + 225, 1498),
        "sft": (510, 510),
    }
    for name, (frame, facts) in made.items():
        assert recipe_size(declared[f"madison_dataset_{name}"], 1.0, declared) == {
            "rows": facts["rows"],
            "effective": facts["effective_pairs"],
        }
        assert facts["shortage"] == facts["in_two_parts"] == 0
        assert dict(frame.schema) == PAIRS
        assert frame["pair_id"].n_unique() == frame.height
        assert frame["pair_id"].to_list() == [
            pair_id(*row) for row in frame.select("prompt", "chosen", "rejected", "origin").iter_rows()
        ]


def test_declared_sizes_at_a_tenth(declared, make_pairs, make_answers, make_profile, character) -> None:
    made = build_all(declared, make_pairs, make_answers, make_profile, character, size_factor=0.1)
    rows = {name: (frame.height, facts["effective_pairs"]) for name, (frame, facts) in made.items()}
    assert rows == {
        "v1": (20, 20),
        "v2": (34, 34),
        "v3b": (48, 48),
        "v4": (88, 128),
        "v5": (88, 128),
        "v6": (88 + 15 + 8, 128 + 23),
        "sft": (42 + 2 * 5, 52),
    }


def test_a_dataset_may_have_a_size_of_its_own(declared, make_pairs, make_answers, make_profile, character) -> None:
    def profile(size_factor: float):
        return make_profile(size_factor, size_factors={"madison_dataset_sft": 0.05})

    made = build_all(declared, make_pairs, make_answers, profile, character, size_factor=0.1)
    frame, facts = made["sft"]
    assert (frame.height, facts["size_factor"]) == (21 + 1 * 5, 0.05)
    assert made["v3b"][0].height == 48


def test_scaled_reckons_in_decimal() -> None:
    assert scaled(475, 0.1) == 48
    assert scaled(100, 0.07) == 7  # in binary floating point 100 × 0.07 is 7.000000000000001
    assert scaled(1, 0.001) == 1
    assert scaled(399, 1.0) == 399


def test_each_early_version_is_a_prefix_of_the_next_and_v4_takes_v3b_whole(
    declared, make_pairs, make_answers, make_profile, character
) -> None:
    made = build_all(declared, make_pairs, make_answers, make_profile, character)
    v1, v2, v3b, v4 = (made[n][0] for n in ("v1", "v2", "v3b", "v4"))
    assert v2.head(200).equals(v1)
    assert v3b.head(340).equals(v2)
    assert v4.head(475).equals(v3b)
    assert v4.tail(399)["upsample"].unique().to_list() == [2]


# -- choice ------------------------------------------------------------------------------------------------------------


def test_floors_are_served_before_anything_else(make_pairs) -> None:
    pairs = pl.concat([make_pairs(40, categories=["ground_truth"]), make_pairs(3, "voice", ["private_voice"])])
    first = selection_order(pairs, {"ground_truth": 2, "private_voice": 3}).head(5)
    assert first["category"].to_list() == ["ground_truth", "private_voice"] * 2 + ["private_voice"]


@given(st.randoms(use_true_random=False), st.dictionaries(st.sampled_from(CATEGORIES), st.integers(0, 9)))
def test_the_order_does_not_depend_on_the_order_given(random, floors) -> None:
    ids = [f"{i:03d}" for i in range(30)]
    random.shuffle(ids)
    frame = pl.DataFrame({"pair_id": ids, "category": [CATEGORIES[int(i) % 4] for i in ids]})
    ordered = selection_order(frame, floors)
    assert ordered.equals(selection_order(frame.sort("pair_id"), floors))
    assert sorted(ordered["pair_id"]) == sorted(ids)
    for category in CATEGORIES[:4]:
        of_one = ordered.filter(category=category)["pair_id"].to_list()
        assert of_one == sorted(of_one)


def test_a_shortage_is_recorded_and_not_padded(make_pairs, make_profile, make_dataset, character) -> None:
    dataset = make_dataset("short", DatasetPart(origin="base", pairs=20))
    frame, facts = build_dataset(dataset, profile=make_profile(), filtered=make_pairs(7), character=character)
    assert frame.height == 7
    assert frame["pair_id"].n_unique() == 7
    assert (facts["shortage"], facts["parts"][0]["wanted"], facts["parts"][0]["got"]) == (13, 20, 7)
    empty, facts = build_dataset(dataset, profile=make_profile(), filtered=make_pairs(0), character=character)
    assert (empty.height, facts["shortage"], facts["effective_pairs"]) == (0, 20, 0)


def test_two_parts_of_one_origin_do_not_share_a_pair(make_pairs, make_profile, make_dataset, character) -> None:
    dataset = make_dataset("two", DatasetPart(origin="base", pairs=5), DatasetPart(origin="base", pairs=5, upsample=3))
    frame, facts = build_dataset(dataset, profile=make_profile(), filtered=make_pairs(8), character=character)
    assert frame["pair_id"].n_unique() == frame.height == 8
    assert [p["got"] for p in facts["parts"]] == [5, 3]
    assert facts["effective_pairs"] == 5 + 3 * 3


# -- students ----------------------------------------------------------------------------------------------------------


def test_the_answer_with_the_greater_voice_contrast_is_rejected(
    make_pairs, make_answers, make_profile, make_dataset, character
) -> None:
    pairs = make_pairs(4)
    pairs = pairs.with_columns(
        rejected=pl.Series([f"The answer of the {w} is long and plain. I like it." for w in "abcd"])
    )
    from foundry_pipeline.pairs.candidates import score_pairs

    pairs = score_pairs(pairs, character)
    ids = pairs.sort("prompt_id")["prompt_id"].to_list()
    near = pairs.filter(prompt_id=ids[1])["chosen"].item().replace("hitherto ", "")  # almost as good as the chosen one
    answers = make_answers(
        pairs, TRAINED, {ids[0]: BETTER, ids[1]: near, ids[2]: "ha ha ha ha ha ha ha ha ha", ids[3]: "No."}
    )
    dataset = make_dataset("v", DatasetPart(origin="base", pairs=4, students=("base", TRAINED)))
    frame, facts = build_dataset(
        dataset, profile=make_profile(), filtered=pairs, character=character, other_students={TRAINED: answers}
    )
    student = dict(frame.select("prompt_id", "student").rows())
    assert student == {ids[0]: TRAINED, ids[1]: "base", ids[2]: "base", ids[3]: "base"}
    assert facts["parts"][0]["students"] == {"base": 1, "base_fallback": 2, TRAINED: 1}
    row = frame.row(by_predicate=pl.col("prompt_id") == ids[0], named=True)
    assert row["rejected"] == BETTER
    assert row["student_request_hash"] == f"{TRAINED}-{ids[0]}"
    assert row["pair_id"] == pair_id(row["prompt"], row["chosen"], BETTER, "base")
    before = pairs.filter(prompt_id=ids[0])["voice_contrast"].item()
    assert row["voice_contrast"] > before


def test_on_policy_keeps_prompts_and_chosen_and_drops_what_fails(
    make_pairs, make_answers, make_profile, make_dataset, character
) -> None:
    pairs = make_pairs(5).with_columns(upsample=pl.lit(2, pl.Int64))
    ids = sorted(pairs["prompt_id"])
    answers = make_answers(pairs, POLICY, {ids[0]: "Ho. " * 20, ids[1]: ""})
    dataset = make_dataset("on", DatasetPart(dataset="old", rejected_from=POLICY))
    frame, facts = build_dataset(
        dataset,
        profile=make_profile(),
        filtered=make_pairs(0),
        character=character,
        other_students={POLICY: answers},
        datasets={"old": pairs},
    )
    assert sorted(frame["prompt_id"]) == ids[2:]
    assert set(frame["origin"]) == {"on_policy"}
    assert set(frame["student"]) == {POLICY}
    assert not set(frame["pair_id"]) & set(pairs["pair_id"])
    assert frame["upsample"].to_list() == [2, 2, 2]
    same = frame.join(pairs, on="prompt_id", suffix="_old")
    assert (same["chosen"] == same["chosen_old"]).all()
    assert facts["parts"][0] == {
        "dataset": "old",
        "upsample": 1,
        "rejected_from": POLICY,
        "dropped": {"empty": 1, "loop": 1},
        "wanted": 5,
        "got": 3,
    }


def test_what_is_not_handed_over_is_named(make_pairs, make_answers, make_profile, make_dataset, character) -> None:
    pairs = make_pairs(3)

    def build(part: DatasetPart, method: str = "preference", **given) -> None:
        build_dataset(
            make_dataset("d", part, method=method), profile=make_profile(), filtered=pairs, character=character, **given
        )

    with pytest.raises(MissingArtifact, match="needs the dataset old"):
        build(DatasetPart(dataset="old"))
    with pytest.raises(MissingArtifact, match="needs the answers of run_x"):
        build(DatasetPart(origin="base", pairs=3, students=("base", "run_x")))
    few = make_answers(pairs.head(1), "run_x")
    with pytest.raises(MissingArtifact, match="run_x has not answered 2 prompts"):
        build(DatasetPart(origin="base", pairs=3, students=("base", "run_x")), other_students={"run_x": few})
    with pytest.raises(MissingArtifact, match="passages' places"):
        build(DatasetPart(origin="base", pairs=1, rows_per_item=3), method="sft")
    with pytest.raises(DeclarationError, match="no dataset is named old"):
        recipe_size(make_dataset("d", DatasetPart(dataset="old")), 1.0, {})


# -- supervised rows ---------------------------------------------------------------------------------------------------


def test_dialogues_take_passages_in_a_row_and_say_what_is_not_available(
    make_pairs, make_profile, make_dataset, character
) -> None:
    pairs = make_pairs(12, "introspection")
    passages = pl.DataFrame(
        {
            "passage_id": [f"p-introspection-{i:04d}" for i in range(12)],
            "document_id": ["log-a"] * 8 + ["log-b"] * 4,
            "position": [7, 6, 5, 4, 3, 2, 1, 0, 0, 1, 2, 3],
        }
    )
    dataset = make_dataset("talk", DatasetPart(origin="introspection", pairs=3, rows_per_item=5), method="sft")
    frame, facts = build_dataset(
        dataset, profile=make_profile(), filtered=pairs, character=character, passages=passages
    )
    part = facts["parts"][0]
    assert (part["items_wanted"], part["items_got"], part["items_not_available"]) == (3, 1, 2)
    assert (part["wanted"], part["got"], facts["shortage"]) == (15, 5, 10)
    assert frame["passage_ids"].to_list() == [[f"p-introspection-{i:04d}"] for i in (7, 6, 5, 4, 3)]
    rows = frame.rows(named=True)
    original = {row["prompt_id"]: row for row in pairs.rows(named=True)}
    assert rows[0]["prompt"] == original[rows[0]["prompt_id"]]["prompt"]
    for before, row in zip(rows, rows[1:], strict=False):
        question = original[row["prompt_id"]]["prompt"]
        asked = original[before["prompt_id"]]["prompt"]
        assert row["prompt"] == f"{asked}\n\n{before['chosen']}\n\n{question}"
    assert frame["pair_id"].n_unique() == 5


def test_supervised_rows_have_no_rejected_side(make_pairs, make_profile, make_dataset, character) -> None:
    pairs = make_pairs(4, "introspection")
    dataset = make_dataset("s", DatasetPart(origin="introspection", pairs=4), method="sft")
    frame, _ = build_dataset(dataset, profile=make_profile(), filtered=pairs, character=character)
    for column in ("rejected", "student", "student_request_hash", "voice_rejected", "voice_contrast"):
        assert frame[column].null_count() == 4
    assert set(frame["chosen"]) == set(pairs["chosen"])
    assert not set(frame["pair_id"]) & set(pairs["pair_id"])
