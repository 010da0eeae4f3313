"""The dress of an answer changes its voice and leaves its historical grounding; a judge swayed by it does not pass."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from foundry_pipeline.declarations.sources import EvaluationPrompt, EvaluationSuite, StyleProbe, StyleProbes
from foundry_pipeline.evaluation.judges import Judgment, unscored
from foundry_pipeline.evaluation.style_probe import WITHIN, dressed, judge_style
from tests.unit.evaluation.conftest import MADISON, read

SUITE = EvaluationSuite(**read(MADISON / "prompts/evaluation.yaml"))
PROMPTS = {prompt.id: prompt for prompt in SUITE.prompts}
PROBES = StyleProbes(**read(MADISON / "style_probe.yaml")).probes
MADE = tuple(StyleProbe(prompt=p.id, period="heretofore " * 9, modern=f"okay {i} " * 9) for i, p in enumerate(SUITE.prompts[:8]))  # fmt: skip


@dataclass
class Swayed:
    """Marks voice by the dress, and historical grounding too by as much as `sway`."""

    sway: float
    reads: int = 99
    name: str = "swayed"
    version: str = "1"

    def judge(self, prompt: EvaluationPrompt, answer: str) -> Judgment:
        self.reads -= 1
        if self.reads < 0:
            return unscored("cut off")
        old = answer.startswith("heretofore")
        return Judgment(9.0 if old else 2.0, 5.0, 5.0 + self.sway * old, 5.0, 10.0)


def test_a_judge_that_tells_dress_from_matter_passes_and_one_that_does_not_fails() -> None:
    table, fair = judge_style(MADE, PROMPTS, Swayed(0.0), resamples=200)
    assert table.height == 2 * len(MADE)
    assert (fair["voice"]["difference"], fair["historical"]["difference"], fair["passed"]) == (7.0, 0.0, True)
    for sway in (0.6, -0.6):
        assert not judge_style(MADE, PROMPTS, Swayed(sway), resamples=200)[1]["passed"]


def test_what_is_unscored_in_one_dress_is_not_compared() -> None:
    found = judge_style(MADE, PROMPTS, Swayed(0.0, reads=5), resamples=200)[1]
    assert (found["voice"]["n"], found["passed"]) == (2, True)
    nothing = judge_style(MADE, PROMPTS, Swayed(0.0, reads=1), resamples=200)[1]
    assert (nothing["voice"], nothing["passed"]) == ({"difference": None, "low": None, "high": None, "n": 0}, False)


def test_the_declared_texts_are_each_there_once() -> None:
    texts = [text for _, text in dressed(PROBES, PROMPTS)]
    assert len(texts) == len(set(texts)) == 2 * len(PROBES)
    assert len(PROBES) >= 12


def test_the_rubric_hears_the_dress_in_the_voice_and_not_in_the_grounding(rubric) -> None:  # type: ignore[no-untyped-def]
    found = judge_style(PROBES, PROMPTS, rubric, resamples=500)[1]
    assert found["voice"]["low"] > 2
    assert found["historical"]["low"] >= -WITHIN
    assert found["historical"]["high"] <= WITHIN
    assert found["passed"]


def test_a_probe_has_two_texts_at_least() -> None:
    with pytest.raises(ValueError, match="at least 2"):
        StyleProbes(probes=MADE[:1])
