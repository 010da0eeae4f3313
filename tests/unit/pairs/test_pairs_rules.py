"""What single rules see in hostile, foreign and damaged texts, and how near duplicates are found."""

from __future__ import annotations

import itertools
import random

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from foundry_pipeline import textstats
from foundry_pipeline.declarations.assets import Filters
from foundry_pipeline.errors import DeclarationError
from foundry_pipeline.pairs.duplicates import PERMUTATIONS, bands, jaccard, near_duplicates, shingles
from foundry_pipeline.pairs.filters import Unknown, judge_pairs, pair_faults
from foundry_pipeline.pairs.language import foreign
from foundry_pipeline.pairs.overlap import OverlapIndex
from foundry_pipeline.pairs.rules import _UNUSUAL, wrong_decoding
from foundry_pipeline.textcolumns import Lexicon, read_texts

GOOD = (
    "Upon a view of the whole, it was hitherto deemed requisite that the militia be held in readiness, and that the "
    "seaports be put into a posture of defense suited to the danger with which they were then threatened."
)
PLAIN = "The militia is good to have. It keeps the ports safe. People can count on it in bad times."
GERMAN = "Der Kongress soll eine Bank gründen, damit das Volk davon einen Nutzen habe, denn die Zeit ist kurz."


def fired(filters: Filters, character, **sides: str) -> list[str]:
    row = {"prompt": "What did you think of it?", "chosen": GOOD, "rejected": PLAIN} | sides
    judged = pair_faults(pl.DataFrame([row]), filters, character)
    return [r for rules in judged.verdicts()["all_rules"].to_list() for r in rules]


@pytest.mark.parametrize("side", ["prompt", "chosen", "rejected"])
@pytest.mark.parametrize(
    "text",
    [
        GERMAN,
        "Je pense que le congrès a le droit de le faire, et que les États le veulent ainsi depuis longtemps.",
        "良い議会は国民のためにあります。政府は人々の権利を守らなければなりません。これは大切なことです。",
    ],
)
def test_another_language_is_seen_on_every_side(side: str, text: str, filters, character) -> None:
    assert "wrong_language" in fired(filters, character, **{side: text})


@pytest.mark.parametrize(
    "text",
    [
        "Okay.",
        "Nein, danke.",  # foreign, and too short to say so
        "Montesquieu, Locke, Sidney, Harrington, Hume, Vattel, Grotius, Puffendorf, Blackstone, Coke.",
        "1. Army\n2. Navy\n3. Ports\n4. Roads\n5. Canals\n6. Schools\n7. Banks\n8. Treaties\n9. Tariffs",
        GOOD + " Salus populi suprema lex esto, as the ancients held; and in this I concur with them.",
    ],
)
def test_short_unclear_and_mixed_texts_are_not_called_foreign(text: str, filters, character) -> None:
    assert "wrong_language" not in fired(filters, character, rejected=text)


def test_rows_that_could_not_be_judged_are_counted(filters, character) -> None:
    rows = [
        {"prompt": "Why?", "chosen": GOOD, "rejected": PLAIN},
        {"prompt": GERMAN, "chosen": GOOD, "rejected": "Ok."},
    ]
    judged = pair_faults(pl.DataFrame(rows), filters, character)
    assert judged.unsure == {"wrong_language": 1}
    assert judged.first_rules() == [None, "wrong_language"]


def test_the_language_is_declared(filters, character) -> None:
    german = filters.model_copy(update={"language": "de"})
    assert "wrong_language" not in fired(german, character, prompt=GERMAN, chosen=GERMAN, rejected=GERMAN)
    assert "wrong_language" in fired(german, character)
    with pytest.raises(DeclarationError, match="no language is known as `xx`"):
        foreign([GERMAN], "xx")


@pytest.mark.parametrize(
    "sign", ["\u202e", "\u2066", "\u200b", "\u200f", "\ufeff", "\x00", "\x1b", "\x85", "\ue000", "\r"]
)
@pytest.mark.parametrize("side", ["prompt", "chosen", "rejected"])
def test_invisible_and_controlling_signs_are_seen(sign: str, side: str, filters, character) -> None:
    assert "control_characters" in fired(filters, character, **{side: GOOD.replace("whole", f"wh{sign}ole")})


@pytest.mark.parametrize(
    "text", ["cafÃ©", "donâ€™t", "Â£5", "ï»¿The", "ðŸ˜€", "a \ufffd b", "GÃœNTER", "weâ€", "dâ\u0080\u0099x"]
)
def test_wrong_decoding_is_counted(text: str) -> None:
    assert wrong_decoding(text) > 0


@pytest.mark.parametrize(
    "text", ["naïve café", "£5 of “gold” – so it’s…", "«Oui», dit-il", "Ægis, façade, Brontë", "50° ± 2"]
)
def test_rightly_decoded_accents_are_none(text: str) -> None:
    assert wrong_decoding(text) == 0


def test_no_text_of_plain_letters_and_ordinary_punctuation_can_look_wrongly_decoded() -> None:
    """The quick pattern that spares most texts the count misses nothing."""
    letters = [*"aZ0 .", *"’‘“”–—…"]
    assert not pl.Series(letters).str.contains(_UNUSUAL).any()
    assert not any(wrong_decoding("".join(t)) for n in (1, 2, 3, 4) for t in itertools.product(letters, repeat=n))


def test_tolerated_marks_are_declared(filters, character) -> None:
    for field, text in (
        ("max_chosen_markdown", "**whole**"),
        ("max_chosen_modern_idiom", "whole mindset"),
        ("max_chosen_anachronisms", "whole telephone"),
        ("max_chosen_ai_self_reference", "whole language model"),
        ("max_mojibake", "wholâ€™e"),
    ):
        chosen = GOOD.replace("whole", text)
        assert len(fired(filters, character, chosen=chosen)) == 1, field
        assert fired(filters.model_copy(update={field: 1}), character, chosen=chosen) == []


@settings(deadline=None)
@given(st.lists(st.lists(st.sampled_from("abcdefgh"), max_size=16), max_size=10), st.integers(3, 8))
def test_overlap_of_a_column_is_that_of_its_texts(known: list[list[str]], ngram: int) -> None:
    index = OverlapIndex([" ".join(t) for t in known[:5]], ngram)
    texts = [" ".join(t) for t in known]
    read = read_texts(pl.Series(texts, dtype=pl.String), Lexicon())
    assert index.column(read).tolist() == [index.longest(t) for t in texts]


# -- near duplicates -------------------------------------------------------------------------------------------------


@given(st.floats(0.2, 1.0))
def test_bands_miss_no_more_than_one_pair_in_a_million_at_the_threshold(threshold: float) -> None:
    count, length = bands(threshold)
    assert count * length <= PERMUTATIONS
    assert (1 - threshold**length) ** count <= 1e-6


def reworded(rng: random.Random, text: str, words: int) -> str:
    said = text.split()
    for _ in range(words):
        said[rng.randrange(len(said))] = f"x{rng.randrange(10**6)}"
    return " ".join(said)


def test_of_many_pairs_the_reworded_ones_are_found_and_no_other() -> None:
    rng = random.Random(3)
    vocabulary = [f"w{i}" for i in range(900)]
    first = [" ".join(rng.choice(vocabulary) for _ in range(80)) for _ in range(400)]
    chosen = first + [reworded(rng, t, rng.choice([0, 1, 2, 3, 4])) for t in first]
    prompts = [f"what of {i} then" for i in range(400)] * 2
    sets = [shingles(p) | shingles(c) for p, c in zip(prompts, chosen, strict=True)]
    expected = {400 + i: (i, s) for i in range(400) if (s := jaccard(sets[i], sets[400 + i])) >= 0.85}
    assert 100 < len(expected) < 400
    assert near_duplicates(prompts, chosen, 0.85) == expected


def test_a_thousand_copies_cost_one_comparison_each() -> None:
    found = near_duplicates(["the same question"] * 1000, [GOOD] * 1000, 0.85)
    assert found == dict.fromkeys(range(1, 1000), (0, 1.0))


def test_pairs_without_a_word_are_nobodys_duplicates() -> None:
    assert near_duplicates(["", "", "?"], ["", "…", ""], 0.5) == {}


def test_slices_do_not_show(make_pair, filters, character, monkeypatch) -> None:
    """What a rule says of a row does not depend on the slice it is read in."""
    rng = random.Random(1)
    texts = [GOOD, PLAIN, GERMAN, GOOD.replace("whole", "**whole**"), reworded(rng, GOOD, 1), "", PLAIN * 4]
    rows = [{s: rng.choice(texts) for s in ("prompt", "chosen", "rejected")} for _ in range(120)]
    frame, unknown = pl.DataFrame(rows), Unknown(("Upon a view of the whole it was hitherto deemed",), (PLAIN,))

    def verdicts() -> pl.DataFrame:
        return judge_pairs(frame, filters, character=character, unknown=unknown).verdicts()

    whole = verdicts()
    monkeypatch.setattr("foundry_pipeline.pairs.filters._SLICE", 7)
    assert frame.rechunk().n_chunks() == 1
    for size in (1, 7, 50):
        monkeypatch.setattr("foundry_pipeline.pairs.filters._SLICE", size)
        assert verdicts().equals(whole)
    assert whole["rule"].n_unique() > 5


def test_likeness_of_meaning_is_asked_only_where_declared(filters, character) -> None:
    pairs = pl.DataFrame(
        [
            {"prompt": "Whence, in your opinion, do factions chiefly arise?", "chosen": GOOD, "rejected": PLAIN},
            {"prompt": "Was the embargo wise?", "chosen": GOOD.replace("militia", "navy"), "rejected": PLAIN},
        ]
    )
    unknown = Unknown(("What is the chief cause of faction?",), ("The ports and the militia were made ready.",))
    near = filters.model_copy(update={"near_duplicate": 1.0})
    plain = judge_pairs(pairs, near, character=character, unknown=unknown)
    assert plain.first_rules() == [None, None]
    assert not {"suite_paraphrase", "held_out_paraphrase"} & set(plain.applied)
    asked = near.model_copy(update={"suite_likeness": 0.5, "held_out_likeness": 0.99})
    judged = judge_pairs(pairs, asked, character=character, unknown=unknown)
    assert judged.first_rules() == ["suite_paraphrase", None]
    assert {"suite_paraphrase", "held_out_paraphrase"} <= set(judged.applied)
    score = judged.verdicts()["score"].item()
    assert 0.5 <= score < 1
    assert np.isclose(score, round(score, 6))


def test_a_word_of_each_anachronism_is_enough_to_look_and_not_to_drop(filters, character) -> None:
    assert fired(filters, character, chosen=GOOD.replace("whole", "world at war")) == []
    assert fired(filters, character, chosen=GOOD.replace("whole", "World War’s end")) == ["anachronism_in_chosen"]
    assert textstats.contains_any("the World War’s end", character.anachronisms)
