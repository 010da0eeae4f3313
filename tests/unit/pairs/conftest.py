"""A small character, his paragraphs, and an honest lexical retriever: no model, the real interface."""

from __future__ import annotations

import datetime as dt
import math
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

import polars as pl
import pytest

from foundry_pipeline import textstats
from foundry_pipeline.declarations.assets import Filters
from foundry_pipeline.declarations.generation import PrimarySourceTeacher
from foundry_pipeline.declarations.sources import Character
from foundry_pipeline.pairs.candidates import CANDIDATES, score_pairs

GOOD = (
    "Upon a view of the whole, it was hitherto deemed requisite that the militia be held in readiness, and that the "
    "seaports be put into a posture of defense suited to the danger with which they were then threatened."
)
PLAIN = "The militia is good to have. It keeps the ports safe. People can count on it in bad times."


@dataclass(frozen=True)
class LexicalHit:
    passage_id: str
    fit: float
    bm25: float
    score: float


class LexicalRetriever:
    """Cosine of word counts; the interface of `corpus.retrieval.Retriever`."""

    def __init__(self, passages: pl.DataFrame) -> None:
        pairs = zip(passages["passage_id"], passages["text"], strict=True)
        self.counts = {p: Counter(textstats.words(t)) for p, t in pairs}

    def search(self, prompt: str, k: int) -> list[LexicalHit]:
        asked = Counter(textstats.words(prompt))
        hits = []
        for passage, counts in self.counts.items():
            dot = sum(n * counts[w] for w, n in asked.items())
            size = math.sqrt(sum(n * n for n in asked.values()) * sum(n * n for n in counts.values()))
            hits.append(LexicalHit(passage, dot / size, float(dot), dot / size))
        return sorted(hits, key=lambda h: (-h.score, h.passage_id))[:k]


@pytest.fixture
def retriever_of() -> Callable[[pl.DataFrame], LexicalRetriever]:
    return LexicalRetriever


@pytest.fixture
def character() -> Character:
    return Character(
        character="keeper",
        name="A Keeper",
        born=dt.date(1751, 1, 1),
        died=dt.date(1836, 1, 1),
        owners=("team:keeper",),
        held_out_documents=("sealed",),
        period_markers=("upon", "whilst", "hitherto", "requisite", "thereof"),
        anachronisms=("telephone", "world war"),
    )


@pytest.fixture
def teacher() -> PrimarySourceTeacher:
    return PrimarySourceTeacher(
        kind="primary_source",
        serves={"ground_truth": 2, "verified_response": 1},
        cannot_serve={"private_voice": "there are no letters"},
        max_words=40,
        min_words=8,
        max_uses_of_a_passage=2,
        candidates=6,
        min_fit=0.2,
    )


@pytest.fixture
def filters() -> Filters:
    return Filters(min_chosen_words=10, max_chosen_words=80, min_rejected_words=5, max_rejected_words=80)


@pytest.fixture
def make_passages() -> Callable[..., pl.DataFrame]:
    def make(texts: dict[str, str], **columns: object) -> pl.DataFrame:
        values = {"document_id": "log", "role": "primary", "held_out": False} | columns
        frame = pl.DataFrame({"passage_id": list(texts), "text": list(texts.values())})
        return frame.with_columns(pl.lit(v).alias(k) for k, v in values.items())

    return make


@pytest.fixture
def make_pair(character: Character) -> Callable[..., pl.DataFrame]:
    """One sound candidate pair, changed where a test says so, with its id and scores."""

    def make(**changes: object) -> pl.DataFrame:
        row = {
            "prompt_id": "base-gt-001",
            "prompt": "What did you think of the militia?",
            "chosen": GOOD,
            "rejected": PLAIN,
            "category": "ground_truth",
            "difficulty": "easy",
            "origin": "base",
            "passage_ids": ["p1"],
            "teacher": "primary_source",
            "student": "base",
            "teacher_request_hash": "t",
            "student_request_hash": "s",
            "fit": 0.5,
            "upsample": 1,
            "finish_reason": "stop",
        } | changes
        frame = pl.DataFrame([row], {c: t for c, t in CANDIDATES.items() if c in row})
        return score_pairs(frame, character).select(*CANDIDATES)

    return make
