"""Replies of a generated teacher: read whole, or refused with the reason; never repaired."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from foundry_pipeline.pairs.teachers.replies import Answer, Fault, parse_question, parse_reply

WORDS = "I kept the lamp burning through the whole of that winter, and no ship was lost."
BOUNDS = (5, 40)


def reply(**changes: object) -> str:
    return json.dumps({"answer": WORDS, "passages_used": [2, 1, 2], "declined": ""} | changes)


def read(text: str, finish: str = "stop", **changes: object) -> Answer | Fault:
    fields = {"shown": 3, "bounds": BOUNDS} | changes
    return parse_reply(text, finish, **fields)  # type: ignore[arg-type]


def test_a_good_reply_gives_its_text_and_each_passage_once() -> None:
    assert read(reply()) == Answer(WORDS, (1, 2))
    assert read(f"\n {reply(answer=f'  {WORDS} ')} \n") == Answer(WORDS, (1, 2))
    assert read(reply(passages_used=[])) == Answer(WORDS, ())
    assert read(reply(declined=None)) == Answer(WORDS, (1, 2))


@pytest.mark.parametrize(
    ("text", "finish", "kind"),
    [
        (reply(), "refusal", "refused"),
        (reply(), "length", "cut"),
        ("", "stop", "empty"),
        (" \n", "stop", "empty"),
        (reply(answer=""), "stop", "empty"),
        (reply(answer="", declined="I was not there."), "stop", "declined"),
        (reply(declined="yes and no"), "stop", "declined"),
        (reply()[:-5], "stop", "malformed"),
        (reply() + reply(), "stop", "malformed"),
        (f"```json\n{reply()}\n```", "stop", "malformed"),
        (f"Here it is: {reply()}", "stop", "malformed"),
        (f"[{reply()}]", "stop", "malformed"),
        ("null", "stop", "malformed"),
        ("12", "stop", "malformed"),
        (reply(mood="calm"), "stop", "malformed"),
        ('{"answer": "a", "declined": ""}', "stop", "malformed"),
        (reply().replace('"declined": ""', '"declined": "", "declined": ""'), "stop", "malformed"),
        (reply(passages_used=[True]), "stop", "malformed"),
        (reply(passages_used=[1.0]), "stop", "malformed"),
        (reply(passages_used="1"), "stop", "malformed"),
        (reply(passages_used=None), "stop", "malformed"),
        (reply(answer=7), "stop", "malformed"),
        (reply(answer=None), "stop", "malformed"),
        (reply(declined=False), "stop", "malformed"),
        (reply(passages_used=[float("nan")]), "stop", "malformed"),
        (reply(passages_used=[]).replace("[]", f"[{'9' * 5000}]"), "stop", "malformed"),
        ("[" * 100_000, "stop", "malformed"),
        ('{"answer": "\\ud800 ' + WORDS + '", "passages_used": [], "declined": ""}', "stop", "malformed"),
        (reply(passages_used=[4]), "stop", "passages"),
        (reply(passages_used=[0]), "stop", "passages"),
        (reply(passages_used=[-1]), "stop", "passages"),
        (reply(answer="Too short."), "stop", "length"),
        (reply(answer="word " * 41), "stop", "length"),
    ],
)
def test_what_cannot_be_used_is_told_apart(text: str, finish: str, kind: str) -> None:
    got = read(text, finish)
    assert isinstance(got, Fault)
    assert got.kind == kind


def test_a_prompt_that_needs_a_passage_takes_no_answer_without() -> None:
    got = read(reply(passages_used=[]), needs_passage=True)
    assert isinstance(got, Fault)
    assert got.kind == "passages"
    assert isinstance(read(reply(), needs_passage=True), Answer)


def test_a_free_text_rests_on_every_passage_in_view() -> None:
    assert read(WORDS, structured=False) == Answer(WORDS, (1, 2, 3))
    assert read(WORDS, structured=False, shown=0) == Answer(WORDS, ())


def test_a_strangers_words_are_shown_short_and_on_one_line() -> None:
    got = read(reply(answer="", declined="No.\n\x1b[31mRED\u202e" + "x" * 5000))
    assert isinstance(got, Fault)
    assert got.reason.isprintable()
    assert len(got.reason) < 200


@given(st.text(max_size=300), st.sampled_from(["stop", "length", "refusal"]), st.booleans())
def test_any_text_is_read_or_refused(text: str, finish: str, structured: bool) -> None:
    got = read(text, finish, structured=structured)
    if isinstance(got, Answer):
        assert finish == "stop"
        assert got.text == got.text.strip()


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(st.sampled_from(["answer", "passages_used", "declined", "x"]), inner, max_size=4)
        ),
        max_leaves=12,
    )
)
def test_any_json_is_read_or_refused(value: object) -> None:
    got = read(json.dumps(value))
    if isinstance(got, Answer):
        assert isinstance(value, dict)
        assert set(got.passages) == set(value["passages_used"])
        assert got.text == value["answer"].strip()


@pytest.mark.parametrize(
    ("text", "finish", "kind"),
    [
        ("And did you fear it?", "length", "cut"),
        ("And did you fear it?", "refusal", "refused"),
        ("", "stop", "empty"),
        ("why " * 90 + "?", "stop", "length"),
    ],
)
def test_a_question_that_cannot_be_put(text: str, finish: str, kind: str) -> None:
    got = parse_question(text, finish, most=80)  # type: ignore[arg-type]
    assert isinstance(got, Fault)
    assert got.kind == kind


def test_a_question_is_taken_as_it_is() -> None:
    assert parse_question(" And did you fear it? \n", "stop", most=80) == "And did you fear it?"
