"""Requests to students and what becomes of their replies."""

from __future__ import annotations

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from foundry_pipeline.declarations.assets import Sampling
from foundry_pipeline.errors import FoundryError
from foundry_pipeline.models.requests import Reply
from foundry_pipeline.pairs.candidates import CANDIDATES, candidate_pairs, pair_id
from foundry_pipeline.pairs.student import last_whole_sentence, student_answers, student_requests

SAMPLING = Sampling(temperature=0.7, top_k=40, top_p=0.95, max_tokens=200, seed=3)


def responses(*prompt_ids: str) -> pl.DataFrame:
    return pl.DataFrame(
        {
            "prompt_id": prompt_ids,
            "origin": "base",
            "category": "ground_truth",
            "difficulty": "easy",
            "prompt": [f"What of {p}?" for p in prompt_ids],
            "chosen": "Upon this it was hitherto deemed best to say nothing, and nothing was said.",
            "passage_ids": [["x"]] * len(prompt_ids),
            "fit": 0.5,
            "teacher": "primary_source",
            "teacher_request_hash": "t",
            "uses_of_passage": 1,
        }
    )


def reply(prompt_id: str, text: str, finish: str = "stop") -> Reply:
    return Reply(prompt_id, f"hash-{prompt_id}", text, finish, 5, 5)


def test_requests_are_one_a_prompt_in_order_with_a_seed_each() -> None:
    made = student_requests(responses("b", "a"), SAMPLING, max_tokens=96)
    assert [r.request_id for r in made] == ["a", "b"]
    assert made[0].messages == (("user", "What of a?"),)
    assert {r.max_tokens for r in made} == {96}
    assert made[0].seed != made[1].seed
    assert made == student_requests(responses("a", "b"), SAMPLING, max_tokens=96)
    other = student_requests(responses("a", "b"), SAMPLING.model_copy(update={"seed": 4}), max_tokens=96)
    assert [r.seed for r in other] != [r.seed for r in made]


def test_a_profile_lowers_the_bound_and_never_raises_it() -> None:
    assert student_requests(responses("a"), SAMPLING, max_tokens=900)[0].max_tokens == 200
    assert student_requests(responses("a"), SAMPLING)[0].max_tokens == 200


def test_a_prompt_in_several_rows_is_asked_once() -> None:
    assert len(student_requests(pl.concat([responses("a"), responses("a")]), SAMPLING)) == 1


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("It was so. And then the", "It was so."),
        ("It was so. “Was it?” He", "It was so. “Was it?”"),
        ("1. **First.** 2. Sec", "1. **First.**"),
        ("Here are some points:", None),
        ("no end at all", None),
        ("Mr. Madison of", None),
        ("", None),
    ],
)
def test_last_whole_sentence(text: str, expected: str | None) -> None:
    assert last_whole_sentence(text) == expected


@given(st.text(alphabet=st.sampled_from(list("aB .!?\n\"'")), max_size=60))
def test_last_whole_sentence_is_a_prefix_that_ends(text: str) -> None:
    whole = last_whole_sentence(text)
    assert whole is None or (text.startswith(whole) and set(whole) & set(".!?"))


def test_answers_cut_by_the_limit_are_trimmed_and_counted() -> None:
    frame, facts = student_answers(
        [
            reply("c", "  Whole. ", "stop"),
            reply("a", "One sentence. And a", "length"),
            reply("b", "never ends", "length"),
        ],
        student="base",
    )
    assert facts == {"student": "base", "answers": 3, "cut_by_limit": 2, "trimmed": 1}
    assert frame.select("prompt_id", "rejected", "finish_reason").rows() == [
        ("a", "One sentence.", "trimmed"),
        ("b", "never ends", "length"),
        ("c", "Whole.", "stop"),
    ]
    assert frame["student_request_hash"].to_list() == ["hash-a", "hash-b", "hash-c"]


def test_candidates_join_both_sides_and_are_named_by_what_they_say(character) -> None:
    answers, _ = student_answers(
        [reply("b", "Don't ask."), reply("a", "Sure! Okay."), reply("z", "Mine.")], student="base"
    )
    frame = candidate_pairs(responses("a", "b"), answers, character)
    assert dict(frame.schema) == CANDIDATES
    assert frame["prompt_id"].to_list() == ["a", "b"]
    for row in frame.rows(named=True):
        assert row["pair_id"] == pair_id(row["prompt"], row["chosen"], row["rejected"], "base")
        assert row["voice_contrast"] == pytest.approx(row["voice_chosen"] - row["voice_rejected"], abs=1e-6)
        assert row["voice_contrast"] > 0
        assert (row["student"], row["upsample"], row["student_request_hash"]) == ("base", 1, f"hash-{row['prompt_id']}")


def test_every_part_of_what_a_pair_says_is_in_its_id() -> None:
    ids = {
        pair_id("p", "c", "r", "base"),
        pair_id("q", "c", "r", "base"),
        pair_id("p", "d", "r", "base"),
        pair_id("p", "c", "s", "base"),
        pair_id("p", "c", None, "base"),
        pair_id("p", "c", "r", "voice"),
    }
    assert len(ids) == 6


def test_a_missing_or_double_answer_is_refused(character) -> None:
    answers, _ = student_answers([reply("a", "One.")], student="base")
    with pytest.raises(FoundryError, match="1 prompts have no student answer"):
        candidate_pairs(responses("a", "b"), answers, character)
    with pytest.raises(FoundryError, match="two student answers"):
        candidate_pairs(responses("a"), pl.concat([answers, answers]), character)
