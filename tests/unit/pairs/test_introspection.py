"""Introspection data: which prompts are asked, how dialogues grow, what breaks and how that is counted."""

from __future__ import annotations

import json
from collections.abc import Sequence

import polars as pl
import pytest
from pydantic import ValidationError

from foundry_pipeline.declarations.generation import ClaudeTeacher, Introspection, Prompted
from foundry_pipeline.lineage.hashing import digest
from foundry_pipeline.models.requests import ChatRequest, Reply
from foundry_pipeline.pairs import introspection as i
from foundry_pipeline.pairs.candidates import PAIRS, pair_id
from foundry_pipeline.pairs.overlap import OverlapIndex
from foundry_pipeline.pairs.teachers.generated import teacher_requests, teacher_views

LAW = "He keeps the light."
AS_AI = "As an AI language model I have no winters to remember, and no lamp was ever given into my keeping."
SAID = (
    "I have kept the lamp through winter {n}, and I count it neither merit nor burden; for he who undertakes an office "
    "has already paid the price of it, and may look for nothing besides."
)


@pytest.fixture
def declared() -> Introspection:
    prompted = {
        "templates": [
            {"id": "drive", "category": "character_consistency", "text": "What has driven you in {topic}?"},
            {"id": "doubt", "category": "ground_truth", "text": "What do you doubt concerning {topic}?"},
        ],
        "topics": [{"id": f"topic-{n}", "text": f"matter {n}"} for n in range(4)],
    }
    return Introspection.model_validate(
        {"reflections": prompted, "dialogues": prompted, "interlocutor": "You are the same man in another year."}
    )


@pytest.fixture
def claude() -> ClaudeTeacher:
    serves = {"character_consistency": 1, "ground_truth": 1}
    free = dict.fromkeys(serves, False)
    return ClaudeTeacher(kind="claude", model="m", serves=serves, needs_passage=free, min_words=10, max_words=80)


@pytest.fixture
def sieve(character, filters) -> i.Sieve:
    suite = OverlapIndex(["What would you say to the inspector of the board in the morning, sir?"], 8)
    return i.Sieve(character, filters, suite, OverlapIndex([], 8))


@pytest.fixture
def views_of(make_passages, claude, character):
    none = make_passages({"p": "x"}, date="").clear()
    return lambda chosen: teacher_views(i.prompt_rows(chosen), none, None, claude, character)[0]


class Speaker:
    """Answers requests as a teacher would: by schema where there is one, with a question where there is none."""

    def __init__(self, spoil: dict[str, tuple[str, str]] | None = None) -> None:
        self.spoil, self.rounds = spoil or {}, []

    def __call__(self, requests: Sequence[ChatRequest]) -> list[Reply]:
        self.rounds.append(list(requests))
        replies = []
        for n, request in enumerate(requests):
            text, finish = f"And what of winter {len(self.rounds)}, the {n}th of them?", "stop"
            if request.schema:
                said = SAID.format(n=f"{len(self.rounds)}-{n}")
                text = json.dumps({"answer": said, "passages_used": [], "declined": ""})
            text, finish = self.spoil.get(request.request_id, (text, finish))
            replies.append(Reply(request.request_id, digest(request.asked()), text, finish, 5, 5))  # type: ignore[arg-type]
        return replies


def test_prompts_take_every_template_in_turn_and_a_smaller_choice_is_a_prefix(declared) -> None:
    everything = i.chosen_prompts(declared.reflections, 99, kind="reflection")
    assert len({name for name, _, _ in everything}) == 8
    assert [t.id for _, t, _ in everything] == ["drive", "doubt"] * 4
    for count in range(9):
        assert i.chosen_prompts(declared.reflections, count, kind="reflection") == everything[:count]
    frame = i.prompt_rows(everything)
    assert set(frame["origin"]) == {"introspection"}
    assert frame["prompt"].n_unique() == 8
    assert not frame["prompt"].str.contains("{", literal=True).any()


@pytest.mark.parametrize("text", ["What drives you?", "{topic} and {topic} again", "What of {topic}, {name}?"])
def test_a_template_must_hold_its_topic_once(text: str) -> None:
    template = {"id": "t", "category": "ground_truth", "text": text}
    with pytest.raises(ValidationError):
        Prompted.model_validate({"templates": [template], "topics": [{"id": "x", "text": "matter"}]})


def reflect(declared, views_of, claude, sieve, character, spoil=None) -> i.Outcome:
    chosen = i.chosen_prompts(declared.reflections, 8, kind="reflection")
    views, outcome = views_of(chosen), i.Outcome()
    replies = Speaker(spoil)(teacher_requests(views, claude, character, LAW))
    i.reflections(chosen, views, replies, claude, sieve, outcome)
    return outcome


def test_reflections_are_counted_by_the_prompt_they_were_asked_with(
    declared, views_of, claude, sieve, character
) -> None:
    def body(text: str) -> tuple[str, str]:
        return json.dumps({"answer": text, "passages_used": [], "declined": ""}), "stop"

    spoil = {
        "reflection-drive-topic-0": body(AS_AI),
        "reflection-drive-topic-1": body("I hope this helps! " + SAID.format(n=8)),
        "reflection-drive-topic-2": ("{", "stop"),
        "reflection-doubt-topic-0": body(SAID.format(n=9) + " The telephone was of use to me in it."),
        "reflection-doubt-topic-1": body(SAID.format(n=9).replace("neither", "**neither**")),
        "reflection-doubt-topic-2": body(
            SAID.format(n=9) + " And what would you say to the inspector of the board in the morning?"
        ),
    }
    outcome = reflect(declared, views_of, claude, sieve, character, spoil)
    rows, dropped = outcome.frames()
    assert sorted(rows["prompt_id"]) == ["reflection-doubt-topic-3", "reflection-drive-topic-3"]
    assert dict(dropped.select("prompt_id", "kind").rows()) == {
        "reflection-drive-topic-0": "broke_character:ai_self_reference",
        "reflection-drive-topic-1": "broke_character:assistant_phrase",
        "reflection-drive-topic-2": "malformed",
        "reflection-doubt-topic-0": "broke_character:anachronism",
        "reflection-doubt-topic-1": "markdown",
        "reflection-doubt-topic-2": "suite_overlap",
    }
    assert outcome.by_prompt() == {
        "reflection/doubt": {"asked": 4, "kept": 1, "broke_character": 1, "share_broken": 0.25},
        "reflection/drive": {"asked": 4, "kept": 1, "broke_character": 2, "share_broken": 0.5},
    }


def test_the_same_reflection_twice_is_kept_once(declared, views_of, claude, sieve, character) -> None:
    same = json.dumps({"answer": SAID.format(n="one"), "passages_used": [], "declined": ""}), "stop"
    spoil = {"reflection-drive-topic-0": same, "reflection-doubt-topic-0": same}
    outcome = reflect(declared, views_of, claude, sieve, character, spoil)
    assert [row[4] for row in outcome.dropped] == ["exact_duplicate"]


def talk(declared, views_of, claude, sieve, character, speaker: Speaker, count: int = 3) -> i.Outcome:
    chosen = i.chosen_prompts(declared.dialogues, count, kind="dialogue")
    outcome = i.Outcome()
    i.dialogues(chosen, views_of(chosen), speaker, claude, character, LAW, declared, sieve, outcome)
    return outcome


def test_a_dialogue_grows_in_rounds_and_gives_five_rows_with_their_context(
    declared, views_of, claude, sieve, character
) -> None:
    speaker = Speaker()
    rows, dropped = talk(declared, views_of, claude, sieve, character, speaker).frames()
    assert dropped.is_empty()
    assert [len(r) for r in speaker.rounds] == [3] * 9
    assert [bool(r[0].schema) for r in speaker.rounds] == [True] + [False, True] * 4
    last_question, last_answer = speaker.rounds[7][0], speaker.rounds[8][0]
    assert [role for role, _ in last_question.messages] == ["user", "assistant"] * 4 + ["user"]
    assert [role for role, _ in last_answer.messages] == ["user", "assistant"] * 4 + ["user"]
    assert all(cached for request in speaker.rounds[8] for _, cached in request.system)
    one = rows.filter(pl.col("dialogue") == rows["dialogue"].item(0)).sort("turn").rows(named=True)
    assert [row["turn"] for row in one] == [0, 1, 2, 3, 4]
    asked = [message for role, message in last_answer.messages if role == "user"]
    assert sorted(rows["dialogue"].unique()) == sorted(v.prompt_id for v in views_of(i.chosen_prompts(declared.dialogues, 3, kind="dialogue")))  # fmt: skip
    mine = next(d for d in rows.partition_by("dialogue") if d.sort("turn")["prompt"].item(0) == asked[0]).sort("turn")
    before = None
    for question, row in zip(asked, mine.rows(named=True), strict=True):
        assert row["prompt"] == (i.with_context(*before, question) if before else question)
        before = (question, row["chosen"])


def test_each_round_depends_on_the_answers_before_it(declared, views_of, claude, sieve, character) -> None:
    plain, other = Speaker(), Speaker()
    talk(declared, views_of, claude, sieve, character, plain)
    name = plain.rounds[0][0].request_id
    changed = json.dumps({"answer": SAID.format(n="changed"), "passages_used": [], "declined": ""}), "stop"
    other = Speaker({name: changed})
    talk(declared, views_of, claude, sieve, character, other)
    assert other.rounds[0] == plain.rounds[0]
    assert [a == b for a, b in zip(plain.rounds[1], other.rounds[1], strict=True)] == [False, True, True]


@pytest.mark.parametrize(
    ("place", "spoilt", "kind", "told"),
    [
        ("a0", ("", "refusal"), "refused", "turn 1"),
        ("q2", ("why " * 90 + "?", "stop"), "length", "turn 3"),
        ("q1", ("As an AI, may I ask?", "stop"), "broke_character:ai_self_reference", "turn 2"),
        ("a4", (json.dumps({"answer": AS_AI, "passages_used": [], "declined": ""}), "stop"),
         "broke_character:ai_self_reference", "turn 5"),
    ],
)  # fmt: skip
def test_a_dialogue_that_goes_wrong_gives_no_row_and_asks_no_more(
    place, spoilt, kind, told, declared, views_of, claude, sieve, character
) -> None:
    name = i.chosen_prompts(declared.dialogues, 3, kind="dialogue")[0][0]
    speaker = Speaker({f"{name}-{place}": spoilt})
    outcome = talk(declared, views_of, claude, sieve, character, speaker)
    rows, dropped = outcome.frames()
    assert rows["dialogue"].n_unique() == 2
    assert name not in set(rows["dialogue"])
    assert dropped.select("prompt_id", "kind").rows() == [(name, kind)]
    assert dropped["reason"].item().startswith(told)
    spoilt_at = next(n for n, r in enumerate(speaker.rounds) if any(q.request_id == f"{name}-{place}" for q in r))
    assert all(name not in q.request_id for later in speaker.rounds[spoilt_at + 1 :] for q in later)
    assert sum(p["asked"] for p in outcome.by_prompt().values()) == 3


def test_rows_become_supervised_pairs_and_only_whole_dialogues_count(
    declared, views_of, claude, sieve, character
) -> None:
    rows, _ = talk(declared, views_of, claude, sieve, character, Speaker()).frames()
    pairs = i.as_pairs(rows, character)
    assert pairs.columns == [*PAIRS, "dialogue", "turn"]
    assert pairs["rejected"].null_count() == pairs.height == 15
    assert pairs["pair_id"].to_list() == [
        pair_id(r["prompt"], r["chosen"], None, "introspection") for r in pairs.rows(named=True)
    ]
    assert len(i.whole_dialogues(pairs, 5)) == 3
    torn = pairs.filter(~((pl.col("dialogue") == pairs["dialogue"].item(0)) & (pl.col("turn") == 2)))
    assert len(i.whole_dialogues(torn, 5)) == 2
    assert [d["turn"].to_list() for d in i.whole_dialogues(torn.reverse(), 5)] == [[0, 1, 2, 3, 4]] * 2
    assert [d["dialogue"].item(0) for d in i.whole_dialogues(pairs.reverse(), 5)] == [
        d["dialogue"].item(0) for d in i.whole_dialogues(pairs, 5)
    ]
