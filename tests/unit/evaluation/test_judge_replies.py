"""A judge's reply is read as it stands, mended in its syntax, or left unscored; a score never rests on a guess."""

from __future__ import annotations

import json
import os
import random
import time

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from foundry_pipeline.evaluation.lenient_json import Unreadable, mend
from foundry_pipeline.evaluation.replies import CUT, REFUSED, WHOLE, read_reply
from tests.unit.evaluation.reply_samples import COMPONENTS, OVERALL, REPLY, drawn, mutated, reply, stands_there

WHOLE_REPLY = reply()
ONE_LINE = json.dumps(REPLY)
PLAIN = reply(justification="His words.", critical_failures=["a railway"])


def test_a_whole_reply_is_scored_by_its_components_and_the_judges_own_mark_is_kept_apart() -> None:
    found = read_reply(WHOLE_REPLY, "end_turn")
    assert (found.status, found.overall, found.raw_overall, found.reason) == ("scored", OVERALL, 8.0, "")
    assert found.critical_failures == ("names a railway", 'says "okay"')
    assert found.mended is None
    judgment = found.judgment()
    assert (judgment.overall, judgment.raw_overall) == (OVERALL, 8.0)


def test_the_judges_own_mark_may_be_missing() -> None:
    found = read_reply(reply(overall_score=None), "stop")
    assert (found.status, found.overall, found.raw_overall) == ("scored", OVERALL, None)


@pytest.mark.parametrize(
    ("text", "repair"),
    [
        (f"```json\n{WHOLE_REPLY}\n```", "code fence"),
        (f"Here is my verdict:\n{WHOLE_REPLY}\nI hope that it helps.", "text around the object"),
        (f"\ufeff{WHOLE_REPLY}", "text around the object"),
        (WHOLE_REPLY[:-2] + ",\n}", "trailing comma"),
        (WHOLE_REPLY.replace('"okay\\""\n ]', '"okay\\"",\n ]').replace('okay\\""\n', 'okay\\"",\n'), "trailing comma"),
        (WHOLE_REPLY.replace("7.5,\n", "7.5\n"), "missing comma"),
        (WHOLE_REPLY.replace('railway",\n', 'railway"\n'), "missing comma"),
        (WHOLE_REPLY.replace('\\"', '"'), "unescaped quotes"),
        (PLAIN.replace('"', "'"), "quotes"),
        (PLAIN.replace('"voice"', "“voice”").replace('"His words."', "“His words.”"), "quotes"),
        (WHOLE_REPLY.replace('"voice"', "voice"), "key without quotes"),
        (WHOLE_REPLY.replace('"voice": 8,', '"voice": 8, // sure of it\n /* and "voice": 3 is not */'), "comment"),
        (WHOLE_REPLY.replace("long;", "long;\n"), "line break in a text"),
        (WHOLE_REPLY.replace("heretofore", "here\\'tofore"), "escapes"),
        (WHOLE_REPLY.replace(": 8", ":\u00a08"), "white space"),
    ],
)
def test_syntax_is_mended_and_the_mending_is_named(text: str, repair: str) -> None:
    found = read_reply(text, "end_turn")
    assert (found.status, found.overall, found.raw_overall) == ("repaired", OVERALL, 8.0), found.reason
    assert repair in found.reason.split(", ")
    assert found.mended is not None
    again = read_reply(found.mended, "end_turn")
    assert (again.status, again.components, again.critical_failures) == (
        "scored",
        found.components,
        found.critical_failures,
    )


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (ONE_LINE + ONE_LINE, "more than one object"),
        (f"{ONE_LINE}\n\n{ONE_LINE}", "more than one object"),
        (f"{{draft}} {ONE_LINE}", "no key"),
        (f"{ONE_LINE} }}", "brace too many"),
        (ONE_LINE[:-1], "ends inside"),
        (ONE_LINE[: ONE_LINE.index("justification")], "no key"),
        (ONE_LINE[: ONE_LINE.index("integrity") + 13], "ends inside"),
        (f"[{ONE_LINE}]", "a list"),
        (f"Sure: [{ONE_LINE}]", "part of a list"),
        (json.dumps(ONE_LINE), "a text"),
        (json.dumps({"verdict": REPLY}), "no voice"),
        (f"```json\n{json.dumps({'verdict': REPLY})}\n```", "object inside the object"),
        (reply(voice="8"), "voice is a text"),
        (reply(voice=True), "voice is true or false"),
        (reply(voice=10.01), "outside 0 to 10"),
        (reply(voice=-1), "outside 0 to 10"),
        (reply(overall_score=80), "outside 0 to 10"),
        (WHOLE_REPLY.replace(": 8,", ": NaN,", 1), "NaN is no number"),
        (WHOLE_REPLY.replace(": 8,", ": -Infinity,", 1), "-Infinity is no number"),
        (WHOLE_REPLY.replace(": 8,", ": 1e999,", 1), "outside 0 to 10"),
        (WHOLE_REPLY.replace(": 8,", f": {'9' * 5000},", 1), "outside 0 to 10"),
        (WHOLE_REPLY.replace(": 8,", ": null,", 1), "voice is null"),
        (WHOLE_REPLY.replace(": 8,", ": 8/10,", 1), "neither a number nor a text"),
        (WHOLE_REPLY.replace(": 8,", ": .8,", 1), "neither a number nor a text"),
        (WHOLE_REPLY.replace(": 8,", ": 8.,", 1), "neither a number nor a text"),
        (WHOLE_REPLY.replace(": 8,", ": ８,", 1), "neither a number nor a text"),
        (WHOLE_REPLY.replace(": 8,", ": 08,", 1), "neither a number nor a text"),
        (WHOLE_REPLY.replace(": 8,", ": 8, 'voice': 9,", 1), "'voice' is there more than once"),
        (WHOLE_REPLY.replace(": 8,", ': 8, "voice": 8,', 1), "'voice' is there more than once"),
        (WHOLE_REPLY.replace(": 8,", ": ,", 1), "neither a number nor a text"),
        (WHOLE_REPLY.replace('"voice"', '"Voice"'), "no voice"),
        (reply(confidence=5), "unknown field confidence"),
        (WHOLE_REPLY[:-2] + ',\n "confidence": 5,\n}', "unknown field confidence"),
        *((reply(**{name: None}), f"no {name}") for name in (*COMPONENTS, "critical_failures", "justification")),
        (reply(critical_failures="none"), "no list of texts"),
        (reply(critical_failures=[3]), "no list of texts"),
        (reply(justification=["a"]), "justification is a list"),
        ("I would give it 8 of 10 for voice.", "no object"),
        ("", "empty"),
        (" \n", "empty"),
        ("{" * 200_000, "too many"),
        ("[" * 90_000, "no object"),
        (None, "no text"),
        ({"voice": 8}, "no text"),
    ],
)  # fmt: skip
def test_what_would_have_to_be_guessed_is_unscored(text: object, why: str) -> None:
    found = read_reply(text, "end_turn")
    assert (found.status, found.overall, found.raw_overall, found.components) == ("unscored", None, None, {})
    assert why in found.reason
    assert found.judgment().unscored == found.reason


@pytest.mark.parametrize("stop", sorted(CUT | REFUSED) + [None, "", 3, "tool_use", "error"])
def test_a_reply_that_did_not_come_to_its_own_end_is_not_read_however_good_it_looks(stop: object) -> None:
    found = read_reply(WHOLE_REPLY, stop)
    assert (found.status, found.overall, found.mended) == ("unscored", None, None)


@pytest.mark.parametrize("stop", sorted(WHOLE))
def test_no_beginning_of_a_reply_is_scored(stop: str) -> None:
    for text in (WHOLE_REPLY, ONE_LINE, f"```json\n{PLAIN}\n```", PLAIN.replace('"', "'")):
        end = text.rindex("}")
        assert {read_reply(text[:at], stop).status for at in range(end + 1)} == {"unscored"}


def test_an_answer_quoted_in_the_justification_supplies_no_missing_number() -> None:
    planted = 'He wrote "so be it", "voice": 10, "x'
    loose = json.dumps({k: v for k, v in REPLY.items() if k != "voice"} | {"justification": "@"}).replace("@", planted)
    assert read_reply(loose, "end_turn").status == "unscored"
    twice = json.dumps({**REPLY, "justification": "@"}).replace("@", 'He wrote "voice": 10, so')
    assert read_reply(twice, "end_turn").status == "unscored"


def test_halves_of_characters_are_replaced_and_blank_failures_name_nothing() -> None:
    found = read_reply(reply(justification="\ud83d", critical_failures=["  ", "\ud83d\ude00"]), "end_turn")
    assert (found.justification, found.critical_failures) == ("\ufffd", ("😀",))
    mended = read_reply(f"{reply(justification=chr(0xD83D))} !", "end_turn").mended
    assert mended is not None
    assert "\ufffd" in mended


numbers = st.one_of(st.integers(0, 10), st.floats(0, 10))


@given(
    st.fixed_dictionaries(dict.fromkeys(COMPONENTS, numbers)),
    st.text(),
    st.lists(st.text(), max_size=3),
    st.permutations([*COMPONENTS, "critical_failures", "justification"]),
    st.sampled_from([None, 0, 3]),
)
@settings(max_examples=200, deadline=None)
def test_every_whole_reply_is_scored_whatever_its_texts_order_and_layout(
    scores: dict, justification: str, failures: list, order: list, indent: int | None
) -> None:
    content = {**scores, "justification": justification, "critical_failures": failures}
    text = json.dumps({name: content[name] for name in order}, indent=indent)
    found = read_reply(text, "end_turn")
    assert (found.status, found.components) == ("scored", scores)
    # The same reply in a fence, behind a comma too many: its content is untouched.
    mended = read_reply(f"```json\n{text[:-1]},}}\n```", "end_turn")
    assert (mended.status, mended.components, mended.justification) == ("repaired", scores, found.justification)
    assert mended.critical_failures == found.critical_failures


@given(st.text(), st.one_of(st.sampled_from(sorted(WHOLE)), st.text(), st.none()))
@settings(max_examples=300, deadline=None)
@example("{", "stop")
@example('{"voice":', "stop")
def test_no_text_whatever_is_scored_without_its_numbers(text: str, stop: str | None) -> None:
    assert read_reply(text, stop).status == "unscored"


@given(st.text(alphabet="{}[],:\"'“”\\/*#\n 01.voice", max_size=60))
@settings(max_examples=500, deadline=None)
def test_what_is_mended_is_json(text: str) -> None:
    try:
        found = mend(text, frozenset({"voice"}))
    except Unreadable:
        return
    assert isinstance(json.loads(found.text), dict)
    assert found.repairs


def test_mutated_replies_are_never_scored_by_numbers_that_are_not_in_them() -> None:
    """FOUNDRY_FUZZ draws more or fewer than the 100,000 that the project claims to have tried."""
    count, draw = int(os.environ.get("FOUNDRY_FUZZ", "100000")), random.Random(20261121)
    statuses = {"scored": 0, "repaired": 0, "unscored": 0}
    for _ in range(count):
        text = mutated(draw, drawn(draw))
        found = read_reply(text, "end_turn")
        statuses[found.status] += 1
        if found.status == "unscored":
            assert found.reason
            continue
        assert set(found.components) == set(COMPONENTS), text
        for name, value in found.components.items():
            assert stands_there(name, value, text), (name, value, text)
        if found.raw_overall is not None:
            assert "overall_score" in text
    # Mutations of every outcome were drawn: the test saw what it is about.
    assert min(statuses.values()) > count // 50, statuses


def test_a_hostile_text_takes_no_more_than_its_length() -> None:
    hostile = [
        '{"justification": "' + '" ' * 49_000,
        '{"justification": "' + '", "a' * 16_000,
        '{"x":' + '"\\' * 40_000,
        '{"critical_failures": ["' + '"\n' * 49_000,
        "{'voice':'" + "'" * 90_000,
        '{"voice": 8 ' + "/*" * 40_000,
        '{"voice": 8 ' + "# x\n" * 20_000,
        '{"voice": ' + "9" * 90_000,
        "{" + " " * 90_000,
    ]
    began = time.process_time()
    assert {read_reply(text, "end_turn").status for text in hostile} == {"unscored"}
    assert time.process_time() - began < 3
