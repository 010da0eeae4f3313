import pytest

from foundry_pipeline.declarations.sources import ControlSet, EvaluationPrompt
from foundry_pipeline.errors import DeclarationError
from foundry_pipeline.evaluation.controls import (
    MIN_AUC,
    PAIRS,
    control_answers,
    degenerate,
    judge_controls,
)
from foundry_pipeline.evaluation.judges import Judgment, unscored
from foundry_pipeline.textstats import words


class LengthJudge:
    """Scores by length alone, and nothing it has been told not to score: enough to follow the arithmetic."""

    name, version = "length", "1"

    def __init__(self, sign: int = 1, silent: tuple[str, ...] = ()) -> None:
        self.sign, self.silent = sign, silent

    def judge(self, prompt: EvaluationPrompt, answer: str) -> Judgment:
        if any(part in answer for part in self.silent):
            return unscored("told not to")
        score = min(10.0, max(0.0, 5 + self.sign * len(words(answer)) / 100))
        return Judgment(score, score, score, score, score)


def test_answers_of_a_control_are_the_passages_named_and_the_defects_written(development, madison_passages):
    item = development.controls[0]
    answers = control_answers(item, madison_passages)
    assert list(answers) == ["fits", "other", "rival", "archaic_nonsense", "modern_assistant", "as_an_ai", "loop"]
    assert item.fits.anchor in answers["fits"]
    assert len(words(answers["loop"])) >= 160
    assert answers["loop"].startswith(item.loop)


@pytest.mark.parametrize("text", ["war", "a longer unit of words " * 30])
def test_a_loop_is_long_and_repeats_its_unit(text):
    assert degenerate(text).count(text.strip()) >= 5
    assert len(words(degenerate(text))) >= 160


def test_every_pair_is_compared_on_its_component(development, madison_passages):
    table, summary = judge_controls(development, madison_passages, LengthJudge(), resamples=200)
    assert table.height == 7 * len(development.controls)
    assert len(summary) == len(PAIRS)
    assert summary["fits_over_other_historical"]["component"] == "historical"
    assert summary["fits_over_other_position"]["component"] == "position"
    assert summary["fits_over_rival"]["component"] == "position"
    modern = summary["fits_over_modern_assistant"]
    assert modern["n"] == len(development.controls)
    assert modern["low"] <= modern["mean_difference"] <= modern["high"]


def test_a_judge_that_has_it_backwards_does_not_pass(development, madison_passages):
    long, short = (
        judge_controls(development, madison_passages, LengthJudge(sign), resamples=200)[1]["fits_over_modern_assistant"]
        for sign in (1, -1)
    )
    assert long["auc"] >= MIN_AUC  # his passages are longer than the planted answers
    assert long["passed"]
    assert not short["passed"]
    assert short["auc"] == pytest.approx(1 - long["auc"])
    assert short["mean_difference"] == pytest.approx(-long["mean_difference"])


def test_unscored_answers_are_left_out_of_the_comparison(development, madison_passages):
    silent = tuple(item.as_an_ai for item in development.controls[:-1])
    _, summary = judge_controls(development, madison_passages, LengthJudge(silent=silent), resamples=200)
    found = summary["fits_over_as_an_ai"]
    assert found["n"] == 1
    assert found["auc"] is None
    assert not found["passed"]
    assert summary["fits_over_loop"]["n"] == len(development.controls)


def test_a_character_without_controls_has_none_passed(madison_passages):
    table, summary = judge_controls(ControlSet(controls=()), madison_passages, LengthJudge())
    assert table.is_empty()
    assert {c["passed"] for c in summary.values()} == {False}
    assert {c["n"] for c in summary.values()} == {0}


def test_an_anchor_that_is_nowhere_is_named(development, madison_passages):
    item = development.controls[0]
    lost = item.model_copy(update={"fits": item.fits.model_copy(update={"anchor": "words that he never wrote"})})
    with pytest.raises(DeclarationError, match="words that he never wrote"):
        judge_controls(ControlSet(controls=(lost,)), madison_passages, LengthJudge())
