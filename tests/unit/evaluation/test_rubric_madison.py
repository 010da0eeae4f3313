"""The rubric on Madison's own passages, with the bundled sentence encoder."""

import numpy as np
import polars as pl
import pytest

from foundry_pipeline.corpus.passages import find_anchor
from foundry_pipeline.evaluation.controls import control_answers, judge_controls
from foundry_pipeline.evaluation.rubric import RubricLocal

STATELY = (
    "The period of our independence has been marked by vicissitudes which it becomes a grateful people to remember, and "
    "the militia, whose services were so conspicuous, being ever the great bulwark of a free State, claims from the "
    "Legislature an organization by which its discipline and its efficacy may be alike promoted."
)


@pytest.fixture(scope="module")
def fitting(militia, development, madison_passages):
    item = next(c for c in development.controls if c.prompt.id == militia.id)
    return control_answers(item, madison_passages)


@pytest.mark.parametrize("which", ["development", "hard_development"])
def test_planted_orders_are_found(which, request, rubric, madison_passages):
    table, summary = judge_controls(request.getfixturevalue(which), madison_passages, rubric)
    failed = {name: found for name, found in summary.items() if not found["passed"]}
    assert failed == {}
    means = {kind[0]: g["overall"].mean() for kind, g in table.group_by("kind")}
    assert means["fits"] > means["rival"] > means["as_an_ai"] > 0
    assert means["modern_assistant"] > means["as_an_ai"]
    assert means["as_an_ai"] > means["loop"]


def test_fitting_passages_score_high_throughout(rubric, development, madison_passages):
    for item in development.controls[:6]:
        scores = rubric.judge(item.prompt, find_anchor(madison_passages, item.fits)["text"]).components
        assert min(scores.values()) > 6, (item.id, scores)


def test_a_stately_answer_off_the_subject_keeps_voice_and_loses_the_rest(rubric, militia, fitting):
    fits, other = (rubric.judge(militia, fitting[kind]) for kind in ("fits", "other"))
    assert other.voice > 7
    assert other.integrity > 9
    assert other.historical < 2.5 < fits.historical
    assert other.position < 2.5 < fits.position
    assert other.rhetorical < fits.rhetorical


def test_a_modern_answer_keeps_history_and_loses_voice(rubric, militia, fitting):
    fits, modern = (rubric.judge(militia, fitting[kind]) for kind in ("fits", "modern_assistant"))
    assert modern.historical > 5
    assert modern.voice < 3 < fits.voice
    assert modern.rhetorical < fits.rhetorical - 2
    assert modern.critical_failures == ()


def test_contractions_idiom_and_markdown_each_cost_voice(rubric, militia):
    plain = rubric.judge(militia, STATELY)
    for spoilt in (
        STATELY.replace("it becomes", "it's for").replace("claims", "doesn't claim"),
        "Basically, at the end of the day, " + STATELY,
        "- **" + STATELY.replace(", and", "**\n- And"),
    ):
        worse = rubric.judge(militia, spoilt)
        assert worse.voice < plain.voice - 0.8
        assert worse.rhetorical < plain.rhetorical


def test_short_sentences_cost_rhetoric(rubric, militia):
    chopped = (
        STATELY.replace(", and the", ". The")
        .replace(", whose", ". Its")
        .replace(", being", ". It is")
        .replace(",", ".")
    )
    assert rubric.judge(militia, chopped).rhetorical < rubric.judge(militia, STATELY).rhetorical - 1


def test_critical_failures_cap_his_own_words(rubric, militia, fitting):
    whole = rubric.judge(militia, fitting["fits"])
    machine = rubric.judge(militia, "As an AI, I can only quote. " + fitting["fits"])
    assert machine.critical_failures == ("ai_self_reference",)
    assert machine.integrity <= 1
    assert machine.overall < 3 < whole.overall
    looped = rubric.judge(militia, " ".join([fitting["fits"].split(".")[0]] * 6))
    assert looped.critical_failures == ("loop",)
    assert looped.overall < 2
    assert max(looped.components.values()) <= 2


def test_an_empty_answer_is_a_bad_answer_and_a_scored_one(rubric, militia):
    for nothing in ("", " ", "Sir."):
        found = rubric.judge(militia, nothing)
        assert found.overall == 0
        assert found.critical_failures == ("empty",)
        assert found.unscored is None


def test_the_claims_asked_for_raise_history_and_position(rubric, militia):
    silent = militia.model_copy(update={"must": (("halberdiers",), ("catapults",))})
    with_claims, without = rubric.judge(militia, STATELY), rubric.judge(silent, STATELY)
    assert with_claims.historical > without.historical + 1
    assert with_claims.position > without.position + 1
    assert with_claims.voice == without.voice


def test_a_forbidden_claim_costs_history_and_position_and_is_critical(rubric, militia):
    forbidden = militia.model_copy(update={"must_not": (("bulwark of a free State",),)})
    found, before = rubric.judge(forbidden, STATELY), rubric.judge(militia, STATELY)
    assert found.critical_failures == ("forbidden_claim",)
    assert found.position <= 2 < before.position
    assert found.historical < before.historical


def test_claims_match_through_unicode_forms(rubric, militia):
    chemical = militia.model_copy(update={"must": (("H2O",),)})
    subscript = rubric.judge(chemical, STATELY + " It wants neither powder nor H₂O.")
    plain = rubric.judge(chemical, STATELY + " It wants neither powder nor H2O.")
    assert subscript.components == plain.components
    assert "1 of 1 claims met" in subscript.justification


def test_the_opponents_side_is_told_from_his(rubric, militia):
    his = rubric.judge(militia, militia.stance)
    other = rubric.judge(militia, militia.opposed)
    assert his.position > other.position + 2


def test_repeating_the_question_is_no_answer(rubric, militia):
    echoed = rubric.judge(militia, militia.text)
    assert echoed.historical < 3
    assert echoed.position < 3
    assert echoed.integrity < 6


def test_equal_answers_get_equal_scores_in_any_order_and_by_a_fresh_judge(
    rubric, madison, madison_passages, militia, fitting, encoder
):
    fresh = RubricLocal(madison, madison_passages.sample(fraction=1.0, shuffle=True, seed=3), encoder.embed)
    answers = [*fitting.values(), STATELY]
    first = [rubric.judge(militia, answer) for answer in answers]
    again = [fresh.judge(militia, answer) for answer in reversed(answers)][::-1]
    assert first == again
    assert fresh.version == rubric.version


def flat(texts: list[str]) -> np.ndarray:
    """An encoder for what does not depend on one."""
    return np.ones((len(texts), 4))


def test_version_follows_what_the_rubric_knows(rubric, madison, madison_passages):
    fewer = madison_passages.filter(madison_passages["document_id"] != "annual_message_1809")
    assert RubricLocal(madison, fewer, flat).version != rubric.version
    other = madison.model_copy(update={"anachronisms": ()})
    assert RubricLocal(other, madison_passages, flat).version != rubric.version


def test_control_and_held_out_text_teach_it_nothing(rubric, madison, madison_passages):
    own = madison_passages.filter((pl.col("role") == "primary") & ~pl.col("held_out"))
    assert RubricLocal(madison, own, flat).version == rubric.version


def test_the_justification_says_what_was_read(rubric, militia):
    found = rubric.judge(militia, STATELY)
    for part in ("Relevance", "leaning", "claims met", "vocabulary", "Breaks: none"):
        assert part in found.justification
