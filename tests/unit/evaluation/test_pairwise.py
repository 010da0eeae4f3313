"""Blind A/B: whoever stood first, the right model wins."""

from __future__ import annotations

import json
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from foundry_pipeline.declarations.sources import EvaluationPrompt
from foundry_pipeline.evaluation.judges import Judgment, unscored
from foundry_pipeline.evaluation.pairwise import (
    CONSENSUS,
    ByOverall,
    Duel,
    PairwiseJudge,
    Preference,
    agreement,
    consensus,
    judge_duel,
    judge_duels,
    owner,
    settle,
    win_rates,
)
from foundry_pipeline.evaluation.pairwise_model import AskedPreference, read_reply, request

choices = st.sampled_from(["first", "second", "tie", None])
texts = st.text(min_size=1, max_size=30)


def asked(number: int = 1, category: str = "ground_truth") -> EvaluationPrompt:
    return EvaluationPrompt(
        id=f"gt-{number:02d}",
        category=category,
        difficulty="easy",
        text="What of the militia?",
        stance="For it.",
        opposed="Against it.",
    )


@dataclass
class Reader:
    """Prefers by what it reads: the longer text, or always one place."""

    name: str = "reader"
    place: str | None = None
    version: str = "1"
    seen: list[tuple[str, str]] = field(default_factory=list)

    def prefer(self, prompt: EvaluationPrompt, first: str, second: str) -> Preference:
        self.seen.append((first, second))
        if self.place:
            return Preference(self.place)
        if len(first) == len(second):
            return Preference("tie")
        return Preference("first" if len(first) > len(second) else "second")


@given(texts, texts)
def test_the_preferred_text_wins_from_either_place_and_either_side(a, b):
    found, mirrored = judge_duel(Reader(), Duel(asked(), a, b)), judge_duel(Reader(), Duel(asked(), b, a))
    longer = {1: "win", 0: "tie", -1: "loss"}[(len(a) > len(b)) - (len(a) < len(b))]
    if a.strip() == b.strip():
        longer = "tie"
    assert found.outcome == longer
    assert mirrored.outcome == {"win": "loss", "tie": "tie", "loss": "win"}[longer]
    assert not found.swayed


@given(choices, choices)
def test_orders_are_undone(forward, backward):
    outcome = settle(Preference(forward), Preference(backward))
    # Seen from the other side the same two showings change their names and nothing else.
    mirrored = settle(Preference(backward), Preference(forward))
    assert mirrored == {"win": "loss", "loss": "win"}.get(outcome, outcome)
    assert (outcome == "unscored") == (forward is None or backward is None)
    assert (outcome == "win") == ((forward, backward) == ("first", "second"))
    assert (outcome == "loss") == ((forward, backward) == ("second", "first"))


@given(choices, st.booleans())
def test_an_owner_changes_with_the_place_and_a_tie_with_nothing(choice, ours_first):
    one, other = owner(choice, ours_first=ours_first), owner(choice, ours_first=not ours_first)
    assert {one, other} == ({"ours", "theirs"} if choice in ("first", "second") else {choice})


@pytest.mark.parametrize("place", ["first", "second"])
def test_a_judge_that_goes_by_the_place_decides_nothing(place):
    judge = Reader(place=place)
    verdicts = judge_duels([judge], [Duel(asked(i), f"ours {i}", f"theirs number {i}") for i in range(1, 9)])
    figures = win_rates(verdicts)["reader"]["all"]
    assert (figures["wins"], figures["ties"], figures["losses"], figures["swayed"]) == (0, 8, 0, 8)
    assert figures["rate"] == 0.5
    assert judge.seen[:2] == [("ours 1", "theirs number 1"), ("theirs number 1", "ours 1")]


def test_the_same_text_twice_is_a_tie_that_nobody_is_asked_about():
    judge = Reader()
    assert judge_duel(judge, Duel(asked(), "the same", " the same\n")).outcome == "tie"
    assert judge.seen == []


def test_rates_by_suite_and_category_count_prompts_and_not_answers():
    duels = [Duel(asked(1), "long text", "short")] * 5 + [Duel(asked(2, "private_voice"), "s", "long text", "out")]
    figures = win_rates(judge_duels([Reader()], duels))["reader"]
    assert figures["all"] | {"wins": 5, "losses": 1, "n": 2, "rate": 0.5} == figures["all"]
    assert figures["suite:in_domain"]["rate"] == 1.0
    assert figures["suite:out"]["rate"] == 0.0
    assert figures["category:private_voice"] | {"n": 1, "losses": 1} == figures["category:private_voice"]
    assert figures["all"]["low"] < 0.5 < figures["all"]["high"]


def test_what_cannot_be_read_is_counted_and_in_no_rate():
    class Mute(Reader):
        def prefer(self, prompt, first, second):
            return Preference(None, "cut off") if first.startswith("ours") else Preference("first")

    figures = win_rates(judge_duels([Mute()], [Duel(asked(), "ours", "theirs")]))["reader"]["all"]
    assert (figures["unscored"], figures["n"], figures["rate"]) == (1, 0, None)


def test_several_judges_stand_side_by_side_and_most_of_them_decide():
    judges = [Reader("a"), Reader("b"), Reader("c", place="first")]
    duels = [Duel(asked(1), "long text", "short"), Duel(asked(2), "s", "long text")]
    verdicts = judge_duels(judges, duels)
    assert {j: f["all"]["ties"] for j, f in win_rates(verdicts).items()} == {"a": 0, "b": 0, "c": 2}
    assert [v.outcome for v in consensus(verdicts)] == ["win", "loss"]
    assert consensus(verdicts)[0].judge == CONSENSUS
    found = agreement(verdicts)
    assert found["a", "b"] == {"n": 2, "same": 1.0, "kappa": 1.0}
    assert found["a", "c"] == {"n": 2, "same": 0.0, "kappa": None}
    split = [*judge_duels([Reader("a")], duels), *judge_duels([Reader("c", place="second")], duels)]
    assert [v.outcome for v in consensus(split)] == ["tie", "tie"]
    with pytest.raises(ValueError, match="names of their own"):
        judge_duels([Reader("a"), Reader("a")], duels)
    with pytest.raises(ValueError, match="names of their own"):
        judge_duels([], duels)


@dataclass
class Scorer:
    """Scores an answer by the number in it; "none" is unscored."""

    name: str = "rubric-local"
    version: str = "v"
    calls: int = 0

    def judge(self, prompt: EvaluationPrompt, answer: str) -> Judgment:
        self.calls += 1
        if answer == "none":
            return unscored("nothing to read")
        return Judgment(*[float(answer)] * 5)


def test_a_judge_of_single_answers_prefers_the_higher_overall():
    scorer = Scorer()
    judge = ByOverall(scorer)
    assert isinstance(judge, PairwiseJudge)
    said = [
        judge_duel(judge, Duel(asked(), a, b)).outcome for a, b in (("7", "3"), ("3", "7"), ("4", "4.0"), ("none", "3"))
    ]
    assert said == ["win", "loss", "tie", "unscored"]
    assert scorer.calls == 5, "each answer is read once"
    assert judge_duel(ByOverall(Scorer(), margin=1.0), Duel(asked(), "7", "6.5")).outcome == "tie"
    with pytest.raises(ValueError, match="margin"):
        ByOverall(scorer, margin=-1)


# -- a model as judge --------------------------------------------------------------------------------------------------


def test_a_model_is_shown_both_answers_and_no_name():
    sent: list[str] = []

    def ask(text: str) -> str:
        sent.append(text)
        body = text.split("-1>\n", 1)[1]
        return json.dumps({"preferred": "first" if body.startswith("mine") else "second", "reason": "nearer"})

    judge = AskedPreference("claude", "claude-sonnet-5-5", ask)
    assert judge_duel(judge, Duel(asked(), "mine", "not his")).outcome == "win"
    assert len(sent) == 2
    assert "claude" not in " ".join(sent).lower()
    assert sent[0].index("mine") < sent[0].index("not his")
    assert sent[1].index("mine") > sent[1].index("not his")
    assert judge.version != AskedPreference("claude", "another", ask).version


@given(texts, texts)
def test_no_answer_holds_the_mark_that_encloses_it(first, second):
    text = request(asked(), first, second)
    mark = text.split("marks <", 1)[1].split("-1>", 1)[0]
    assert mark not in first + second
    assert text.count(f"</{mark}-1>") == text.count(f"</{mark}-2>") == 2


@pytest.mark.parametrize(
    "reply",
    [
        "",
        "first",
        '{"preferred": "first"}',
        '{"preferred": "First", "reason": "x"}',
        '{"preferred": "first", "reason": "x", "note": 1}',
        '{"preferred": "first", "preferred": "second", "reason": "x"}',
        '{"preferred": true, "reason": "x"}',
        '{"preferred": "first", "reason": "x"} {"preferred": "second", "reason": "y"}',
        '{"preferred": "first", "reason": "cut o',
        "[" * 15_000,
        '["first"]',
        "null",
        "x" * 30_000,
    ],
)
def test_a_reply_that_is_not_what_was_asked_for_is_unread(reply):
    found = read_reply(reply)
    assert found.choice is None
    assert found.reason


def test_a_plain_and_a_fenced_reply_are_read():
    plain = '{"preferred": "tie", "reason": "alike"}'
    assert read_reply(plain) == read_reply(f"```json\n{plain}\n```") == Preference("tie", "alike")


@given(st.text(max_size=200))
def test_no_reply_is_ever_an_exception(reply):
    read_reply(reply)
