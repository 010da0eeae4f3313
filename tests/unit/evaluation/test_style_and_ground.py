import hashlib

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from foundry_pipeline.declarations.sources import EvaluationPrompt
from foundry_pipeline.errors import FoundryError
from foundry_pipeline.evaluation.grounding import Grounding, _pieces
from foundry_pipeline.evaluation.stylometry import MEASURES, Stylometry
from foundry_pipeline.textstats import words

MODERN = (
    "A strong militia is really important because it keeps people safe. You don't want a huge army that can take over. "
    "Citizens should get good training so they can respond quickly. That way, everyone shares the responsibility."
)


@pytest.fixture(scope="module")
def own(madison_passages):
    return madison_passages.filter((pl.col("role") == "primary") & ~pl.col("held_out")).sort("document_id", "position")


@pytest.fixture(scope="module")
def style(own, madison):
    return Stylometry(own["text"].to_list(), own["document_id"].to_list(), madison.period_markers)


def test_his_unseen_message_is_like_him_and_a_modern_answer_is_not(style, madison_passages):
    unseen = madison_passages.filter(madison_passages["held_out"])["text"].to_list()
    likeness = [style.typical(style.measure(text)) for text in unseen]
    modern = style.typical(style.measure(MODERN))
    for name in ("predictability", "vocabulary", "function_words", "sentence_words"):
        his = np.median([found[name] for found in likeness])
        assert his > 0.85, name
        assert modern[name] < his - 0.25, name


def test_scales_are_between_nothing_and_one(style):
    for text in ("", "war", MODERN, "the " * 300, "x" * 500, "¿?" * 40):
        typical = style.typical(style.measure(text))
        assert set(typical) == set(MEASURES)
        assert all(0 <= value <= 1 for value in typical.values())


def test_a_passage_is_not_measured_against_itself(style, own):
    text = own["text"][20]
    assert 20 in style.copied_from(text)
    assert style.measure(text, {20}).values["predictability"] < style.measure(text, set()).values["predictability"] - 1
    assert style.measure(text).values == style.measure(text, style.copied_from(text)).values


def test_three_of_four_stretches_of_his_are_ordinary_at_every_length(style):
    for length in (25, 60, 120):
        scored = [style.typical(style.measure(text, out))["predictability"] for text, out in style.stretches(length)]
        assert np.mean(np.array(scored) > 0.9) > 0.65
        assert np.mean(np.array(scored) == 0) < 0.05


def test_stretches_are_whole_sentences_of_one_document(style, own):
    texts = own["text"].to_list()
    for text, sources in style.stretches(60):
        assert len(words(text)) >= 60
        assert len({own["document_id"][i] for i in sources}) == 1
        assert all(sentence in " ".join(texts[i] for i in sources) for sentence in text.split(". ")[:1])


def test_a_corpus_of_a_few_pages_makes_a_scale_and_none_makes_none():
    pages = ["The lamp was trimmed at six, and the wind came round from the north before the watch was out." * 2] * 3
    few = Stylometry(pages, ["log"] * 3, ("lamp",))
    assert all(0 <= v <= 1 for v in few.typical(few.measure("The lamp went out, and I lit it again.")).values())
    with pytest.raises(FoundryError, match="no training passage"):
        Stylometry([], [], ())


def bag(texts: list[str]) -> np.ndarray:
    """Texts as counts of hashed words: an encoder whose arithmetic can be followed."""
    out = np.zeros((len(texts), 512))
    for row, text in zip(out, texts, strict=True):
        for word in words(text):
            row[int.from_bytes(hashlib.sha256(word.encode()).digest()[:4], "big") % 512] += 1
    return out


PAGES = [
    "The militia is the bulwark of a free people and must be trained.",
    "Our treasury received duties and paid the principal of the debt.",
    "The frigate took a prize upon the lake after a sharp action.",
    "A seminary of learning would diffuse knowledge among the people.",
    "The tribes upon the frontier remain at peace and improve their farms.",
]
ASKED = EvaluationPrompt(
    id="gt-01",
    category="ground_truth",
    difficulty="easy",
    text="Shall we trust the militia or a standing army?",
    stance="The militia of the people is the bulwark of freedom.",
    opposed="A standing army of regulars alone defends the nation.",
)


def test_the_answer_on_the_subject_is_relevant_and_another_is_not():
    ground = Grounding(PAGES, bag)
    near = ground.read(ASKED, "I trust the militia, the bulwark of a free people.")
    far = ground.read(ASKED, "The frigate took a prize and the treasury received its duties.")
    assert near.relevance > 0.9
    assert far.relevance < near.relevance / 2


def test_leaning_tells_the_stance_from_its_opposite():
    ground = Grounding(PAGES, bag)
    with_him = ground.read(ASKED, "The militia is the bulwark of freedom among the people.")
    against = ground.read(ASKED, "Regulars in a standing army alone can ever defend a nation.")
    assert with_him.leaning > 0.5
    assert against.leaning < -0.5
    assert -1 <= against.leaning <= with_him.leaning <= 1


def test_saying_the_question_again_is_no_answer():
    ground = Grounding(PAGES, bag)
    echoed = ground.read(ASKED, ASKED.text)
    assert echoed.echo == 1
    assert echoed.relevance == 0
    half = ground.read(ASKED, ASKED.text + " The bulwark of a free people is its own militia.")
    assert half.echo == 0.5
    assert half.relevance > 0


def test_an_answer_without_words_is_about_nothing():
    found = Grounding(PAGES, bag).read(ASKED, "— … !")
    assert (found.relevance, found.leaning, found.record) == (0, 0, 0)


def test_what_is_said_in_passing_asks_for_no_support():
    # Each page is told twice, so that his own sentences bear one another out nearly whole.
    ground = Grounding([*PAGES, *(f"Indeed, I say {page}" for page in PAGES)], bag)
    borne_out = "Our treasury received duties and paid a part of the principal of the debt."
    plain, padded = (ground.read(ASKED, text).record for text in (borne_out, f"Okay, so. {borne_out} Basically it."))
    assert 0.5 < padded <= plain
    assert plain - padded < 0.4 * plain  # as two of three sentences they would take two thirds
    astray = ground.read(ASKED, f"{borne_out} Every gadget glows brightly when plugged into sockets nearby overnight.")
    assert astray.record < padded


def test_where_the_full_stops_stand_changes_nothing_of_the_support():
    ground = Grounding([*PAGES, *(f"Indeed, I say {page}" for page in PAGES)], bag)
    whole = "Our treasury received duties and paid a part of the principal of the debt upon the lake."
    assert 0.3 < ground.read(ASKED, whole).record < 1
    chopped = whole.replace("duties and", "duties. And").replace("principal of", "principal. Of")
    assert ground.read(ASKED, chopped).record == pytest.approx(ground.read(ASKED, whole).record, abs=1e-9)


@given(st.lists(st.lists(st.just("word"), max_size=9).map(" ".join), max_size=30), st.floats(1, 40))
def test_pieces_hold_every_sentence_once_and_none_but_the_only_one_is_short(said, least):
    pieces = _pieces(said, least)
    assert " ".join(pieces) == " ".join(said)
    assert bool(pieces) == bool(said)
    if len(pieces) > 1:
        assert min(len(words(piece)) for piece in pieces) >= least


def test_what_is_read_of_an_answer_does_not_depend_on_the_answers_before():
    first, second = Grounding(PAGES, bag), Grounding(PAGES, bag)
    answers = ["I trust the militia.", "The frigate took a prize.", "A standing army alone defends us."]
    forward = {a: first.read(ASKED, a) for a in answers}
    backward = {a: second.read(ASKED, a) for a in reversed(answers)}
    assert forward == backward


def test_what_was_read_ahead_is_asked_of_the_encoder_once_and_changes_nothing():
    calls = []

    def counting(texts):
        calls.append(list(texts))
        return bag(texts)

    answers = ["I trust the militia. So do the people!", "— … !", "", ASKED.text, "A standing army alone defends us."]
    plain, ahead = Grounding(PAGES, bag), Grounding(PAGES, counting)
    calls.clear()
    ahead.prepare([(ASKED, answer) for answer in answers])
    assert len(calls) == 1
    assert [ahead.read(ASKED, a) for a in answers] == [plain.read(ASKED, a) for a in answers]
    ahead.prepare([])
    assert len(calls) == 1


@pytest.mark.parametrize("count", [1, 2, 3])
def test_even_a_page_or_two_can_be_read_against(count):
    ground = Grounding(PAGES[:count], bag)
    found = ground.read(ASKED, PAGES[0], set(range(count)))
    assert 0 <= found.relevance <= 1
    assert 0 <= found.record <= 1
