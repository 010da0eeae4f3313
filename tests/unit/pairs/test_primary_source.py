"""The offline teacher: what it takes, what it drops, and that every origin takes by its own rule."""

from __future__ import annotations

import itertools

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from foundry_pipeline import textstats
from foundry_pipeline.declarations.sources import TrainingPrompt
from foundry_pipeline.errors import FoundryError
from foundry_pipeline.pairs.teachers import frames
from foundry_pipeline.pairs.teachers import primary_source as t

QUESTION = "What did you say of the harbor, the light and the ships?"

# Four paragraphs on one subject; each is the best by exactly one of the four rules.
SUBJECT = {
    "fits": "You did say much of the harbor, the light and the ships, and the sea that lay before them.",
    "voice": "Upon the harbor, the light and the ships, hitherto so requisite, whilst it was calm, you did say much.",
    "specific": "You did say that of the harbor, the light and the ships, Captain Hull saw 40 at Boston in 1809.",
    "inward": "You did say of the harbor, the light and the ships: I keep my post, and I love my own.",
}
RULE_OF = {"base": "fits", "voice": "voice", "source_enriched": "specific", "introspection": "inward"}


def prompts(*rows: tuple[str, str], category: str = "ground_truth", text: str = QUESTION) -> pl.DataFrame:
    return pl.DataFrame([(i, category, "easy", origin, text) for i, origin in rows], frames.PROMPTS, orient="row")


def test_prompts_frame_holds_the_declared_prompts() -> None:
    declared = TrainingPrompt(id="a", category="ground_truth", difficulty="easy", origin="base", text="Why so much?")
    assert frames.prompts_frame([declared]).rows() == [("a", "ground_truth", "easy", "base", "Why so much?")]


@pytest.mark.parametrize("origin", list(RULE_OF))
def test_each_origin_takes_by_its_own_rule(origin, make_passages, retriever_of, teacher, character) -> None:
    """Were two origins' rules exchanged, both would take the other's paragraph here."""
    passages = make_passages(SUBJECT)
    chosen, drops = t.primary_source_responses(
        prompts(("q", origin)), passages, retriever_of(passages), teacher, character
    )
    assert chosen["passage_ids"].to_list() == [[RULE_OF[origin]]]
    assert drops.is_empty()


def test_each_origins_property_is_highest_in_that_origin(make_passages, retriever_of, teacher, character) -> None:
    passages = make_passages(SUBJECT)
    rows = prompts(*((f"q-{origin}", origin) for origin in RULE_OF))
    chosen, _ = t.primary_source_responses(rows, passages, retriever_of(passages), teacher, character)
    table = {row["origin"]: row for row in t.origin_properties(chosen, character).rows(named=True)}
    own = {"base": "fit", "voice": "voice", "source_enriched": "specifics", "introspection": "first_person"}
    assert [row["rows"] for row in table.values()] == [1, 1, 1, 1]
    for one, other in itertools.permutations(own, 2):
        assert table[one][own[one]] > table[other][own[one]], (one, other)


def test_chosen_is_whole_sentences_of_the_passage_word_for_word(
    make_passages, retriever_of, teacher, character
) -> None:
    text = "The harbor light was lit at dusk by the keeper. It burned until the morning came. " + "And so on. " * 20
    passages = make_passages({"p": text})
    chosen, _ = t.primary_source_responses(
        prompts(("q", "base"), text="And was the harbor light lit at dusk?"),
        passages,
        retriever_of(passages),
        teacher,
        character,
    )
    answer = chosen["chosen"].item()
    assert answer in text
    assert answer.startswith("The harbor light")
    assert answer.endswith(".")
    assert teacher.min_words <= len(textstats.words(answer)) <= teacher.max_words


WORDY = st.lists(
    st.tuples(st.integers(1, 14), st.sampled_from([".", "!", "?", ".”", ";"])), min_size=1, max_size=8
).map(lambda parts: " ".join("Word" + " word" * (n - 1) + mark for n, mark in parts))


@given(WORDY, st.integers(1, 12), st.integers(12, 40))
def test_trimming_gives_a_substring_of_whole_sentences_within_bounds_or_nothing(
    text: str, least: int, most: int
) -> None:
    got = t.trim_to_sentences(text, min_words=least, max_words=most)
    sentences = textstats.sentences(text)
    ended = [not s.endswith(";") for s in sentences]
    counts = [len(textstats.words(s)) for s in sentences]
    possible = any(
        ended[j] and least <= sum(counts[i : j + 1]) <= most
        for i in range(len(sentences))
        for j in range(i, len(sentences))
    )
    assert (got is not None) == possible
    if got is not None:
        assert got in text
        assert least <= len(textstats.words(got)) <= most
        assert set(textstats.sentences(got)) <= set(sentences)


def test_reasons_of_dropped_prompts(make_passages, retriever_of, teacher, character) -> None:
    passages = make_passages({"p": "The harbor was full of ships and men that year."})
    rows = pl.concat(
        [
            prompts(("letter", "base"), category="private_voice"),
            prompts(("unserved", "base"), category="anachronism_trap"),
            prompts(("far", "base"), text="Why do taxes rise?"),
            prompts(("cold", "introspection"), text="The harbor was full of ships and men?"),
            prompts(("bare", "source_enriched"), text="The harbor was full of ships and men?"),
        ]
    )
    chosen, drops = t.primary_source_responses(rows, passages, retriever_of(passages), teacher, character)
    assert chosen.is_empty()
    assert dict(drops.select("prompt_id", "reason").rows()) == {
        "letter": "category not served: there are no letters",
        "unserved": "category not served: not among the categories that the teacher serves",
        "far": "no fitting passage (best fit 0.00)",
        "cold": "no fitting passage reaches the floor of 0.8 first-person words per 100 (best 0.00)",
        "bare": "no fitting passage reaches the floor of 2 specifics per 100 words (best 0.00)",
    }


def test_a_passage_that_cannot_be_cut_is_its_own_reason(make_passages, retriever_of, teacher, character) -> None:
    passages = make_passages({"p": "The harbor and the ships. " + "ships and harbors and " * 30 + "end."})
    _, drops = t.primary_source_responses(
        prompts(("q", "base"), text="harbor and ships?"), passages, retriever_of(passages), teacher, character
    )
    assert drops["reason"].to_list() == ["no fitting passage can be cut to whole sentences of 8 to 40 words"]


def test_the_cap_holds_over_all_origins_and_the_best_fit_is_served_first(
    make_passages, retriever_of, teacher, character
) -> None:
    passages = make_passages({"p": "The harbor had 40 ships, and the light was lit for the first time in 1809."})
    near, far = "The harbor had 40 ships, and the light was lit", "Tell me about the light of the harbor, if you will"
    rows = pl.concat(
        [prompts(("z-1", "base"), ("z-2", "voice"), text=near), prompts(("a-1", "source_enriched"), text=far)]
    )
    chosen, drops = t.primary_source_responses(rows, passages, retriever_of(passages), teacher, character)
    assert chosen["prompt_id"].to_list() == ["z-1", "z-2"]
    assert chosen["uses_of_passage"].to_list() == [2, 2]
    assert drops["reason"].to_list() == ["every fitting passage is already used 2 times"]


def test_a_property_is_sought_only_among_the_first_candidates(make_passages, retriever_of, teacher, character) -> None:
    texts = {
        "first": "The harbor, the light and the ships were spoken of at length.",
        "second": "The harbor, the light and the ships: upon these we spoke, hitherto.",
    }
    passages = make_passages(texts)
    rows = prompts(("q", "voice"), text="the harbor, the light and the ships were")

    def taken(candidates: int) -> list[str]:
        settings = teacher.model_copy(update={"candidates": candidates})
        return t.primary_source_responses(rows, passages, retriever_of(passages), settings, character)[0][
            "passage_ids"
        ][0]

    assert list(taken(1)) == ["first"]
    assert list(taken(2)) == ["second"]


def test_a_property_is_no_reason_to_answer_another_question(make_passages, retriever_of, teacher, character) -> None:
    question = "the harbor, the light and the ships"
    texts = {
        "near": "The harbor, the light and the ships, as we saw.",
        "off": "Upon the ships, hitherto requisite, whilst thereof the light was spoken, upon our word.",
    }
    passages = make_passages(texts)
    near, off = retriever_of(passages).search(question, 2)
    assert (near.passage_id, off.passage_id) == ("near", "off")
    assert off.fit >= teacher.min_fit
    assert near.fit - off.fit > t.NEARNESS
    rows = prompts(("q", "voice"), text=question)
    chosen, _ = t.primary_source_responses(rows, passages, retriever_of(passages), teacher, character)
    assert chosen["passage_ids"].to_list() == [["near"]]


def test_one_origin_does_not_say_the_same_twice_while_it_can_say_something_else(
    make_passages, retriever_of, teacher, character
) -> None:
    passages = make_passages(
        {"p1": "The harbor was full of ships that year.", "p2": "The harbor was so full of ships in that year."}
    )
    chosen, _ = t.primary_source_responses(
        prompts(("a", "base"), ("b", "base"), text="harbor full of ships"),
        passages, retriever_of(passages), teacher, character,
    )  # fmt: skip
    assert chosen["chosen"].n_unique() == 2
    chosen, _ = t.primary_source_responses(
        prompts(("a", "base"), ("b", "voice"), text="harbor full of ships"),
        passages, retriever_of(passages), teacher, character,
    )  # fmt: skip
    assert chosen["chosen"].n_unique() == 1


def test_the_result_does_not_depend_on_the_order_of_prompts_or_passages(
    make_passages, retriever_of, teacher, character
) -> None:
    passages = make_passages(SUBJECT)
    rows = prompts(*((f"{origin}-{i}", origin) for origin in RULE_OF for i in range(3)))
    first = t.primary_source_responses(rows, passages, retriever_of(passages), teacher, character)
    turned = passages.reverse()
    second = t.primary_source_responses(rows.reverse(), turned, retriever_of(turned), teacher, character)
    assert first[0].equals(second[0])
    assert first[1].equals(second[1])


def test_the_request_hash_covers_what_was_asked(make_passages, retriever_of, teacher, character) -> None:
    passages = make_passages(SUBJECT)

    def hash_of(question: str, settings=teacher) -> str:
        rows = prompts(("q", "base"), text=question)
        frame, _ = t.primary_source_responses(rows, passages, retriever_of(passages), settings, character)
        return frame["teacher_request_hash"].item()

    assert hash_of(QUESTION) == hash_of(QUESTION)
    assert hash_of(QUESTION) != hash_of(QUESTION + " Pray tell.")
    assert hash_of(QUESTION) != hash_of(QUESTION, teacher.model_copy(update={"max_words": 39}))


@pytest.mark.parametrize("columns", [{"held_out": True}, {"role": "control"}, {"document_id": "sealed"}])
def test_passages_that_may_not_be_trained_on_are_refused(
    columns, make_passages, retriever_of, teacher, character
) -> None:
    passages = make_passages(SUBJECT, **columns)
    with pytest.raises(FoundryError, match="none may become an answer"):
        t.primary_source_responses(prompts(("q", "base")), passages, retriever_of(passages), teacher, character)


def test_a_retriever_over_other_passages_is_refused(make_passages, retriever_of, teacher, character) -> None:
    passages = make_passages(SUBJECT)
    with pytest.raises(FoundryError, match="not among the training passages"):
        t.primary_source_responses(prompts(("q", "base")), passages.head(1), retriever_of(passages), teacher, character)


def test_prompts_without_a_rule_or_with_one_id_twice_are_refused(
    make_passages, retriever_of, teacher, character
) -> None:
    passages = make_passages(SUBJECT)
    for rows, what in ((prompts(("q", "on_policy")), "no rule"), (prompts(("q", "base"), ("q", "voice")), "twice")):
        with pytest.raises(FoundryError, match=what):
            t.primary_source_responses(rows, passages, retriever_of(passages), teacher, character)


def test_the_real_retriever_serves_the_teacher(make_passages, teacher, character) -> None:
    from foundry_pipeline.corpus.retrieval import Retriever

    passages = make_passages(
        {
            "bank": "The Bank of the United States was chartered to restore the currency and public credit.",
            "navy": "The frigates of the navy were fitted out and sent against the enemy's ships upon the seas.",
        }
    )
    rows = prompts(("q", "base"), text="What became of the national bank and its money?")
    chosen, _ = t.primary_source_responses(rows, passages, Retriever(passages), teacher, character)
    assert chosen["passage_ids"].to_list() == [["bank"]]
    assert chosen["fit"].item() > teacher.min_fit
