"""Synthetic pairs that pass every rule, as many as a test asks for."""

from __future__ import annotations

import datetime as dt
import hashlib
from collections.abc import Callable, Sequence

import polars as pl
import pytest

from foundry_pipeline.declarations.assets import (
    Dataset,
    DatasetPart,
    Expectations,
    Filters,
    Profile,
    PypiModel,
)
from foundry_pipeline.declarations.common import CATEGORIES
from foundry_pipeline.declarations.generation import PrimarySourceTeacher
from foundry_pipeline.declarations.sources import Character
from foundry_pipeline.pairs.candidates import PAIRS, score_pairs
from foundry_pipeline.pairs.student import ANSWERS

WORDS = ("harbor", "light", "storm", "vessel", "signal", "anchor", "shore", "pilot", "cargo", "lantern", "tide", "rope")


def _sentence(key: str, count: int) -> str:
    """`count` words that only this key has, in an order fixed by its hash."""
    seed = hashlib.sha256(key.encode()).digest()
    return " ".join(f"{WORDS[b % len(WORDS)]}{key.replace('-', '')}{i}" for i, b in enumerate(seed[:count]))


@pytest.fixture
def character() -> Character:
    return Character(
        character="keeper",
        name="A Keeper",
        born=dt.date(1751, 1, 1),
        died=dt.date(1836, 1, 1),
        owners=("team:keeper",),
        period_markers=("upon", "whilst", "hitherto", "requisite"),
        anachronisms=("telephone",),
    )


@pytest.fixture
def make_pairs(character: Character) -> Callable[..., pl.DataFrame]:
    """`count` pairs of one origin, over `categories` in turn."""

    def make(count: int, origin: str = "base", categories: Sequence[str] = CATEGORIES) -> pl.DataFrame:
        keys = [f"{origin}-{i:04d}" for i in range(count)]
        frame = pl.DataFrame(
            {
                "prompt_id": keys,
                "prompt": [f"What of the {_sentence(k, 4)}?" for k in keys],
                "chosen": [f"Upon the {_sentence(k, 24)}, hitherto requisite, I rely." for k in keys],
                "rejected": [f"It's okay. I don't mind the {_sentence(k[::-1], 6)}." for k in keys],
                "category": [categories[i % len(categories)] for i in range(count)],
                "origin": origin,
                "passage_ids": [[f"p-{k}"] for k in keys],
                "student_request_hash": [f"s-{k}" for k in keys],
            },
            {c: t for c, t in PAIRS.items() if c in {"prompt_id", "prompt", "chosen", "rejected", "category", "origin",
                                                     "passage_ids", "student_request_hash"}},
        ).with_columns(
            difficulty=pl.lit("easy"),
            teacher=pl.lit("primary_source"),
            student=pl.lit("base"),
            teacher_request_hash=pl.lit("t"),
            fit=pl.lit(0.5),
            upsample=pl.lit(1, pl.Int64),
        )  # fmt: skip
        return score_pairs(frame, character).select(pl.col(c).cast(t) for c, t in PAIRS.items())

    return make


@pytest.fixture
def make_answers() -> Callable[..., pl.DataFrame]:
    """A student's answers to the prompts of `pairs`; `texts` replaces some of them."""

    def make(pairs: pl.DataFrame, student: str, texts: dict[str, str] | None = None) -> pl.DataFrame:
        rows = []
        for prompt_id in sorted(set(pairs["prompt_id"])):
            plain = f"I'm sure it's okay, you know. We don't mind the {_sentence(prompt_id, 5)} of {student}."
            rows.append((prompt_id, (texts or {}).get(prompt_id, plain), student, f"{student}-{prompt_id}", "stop"))
        return pl.DataFrame(rows, ANSWERS, orient="row")

    return make


@pytest.fixture
def make_profile() -> Callable[..., Profile]:
    def make(size_factor: float = 1.0, **changes: object) -> Profile:
        model = PypiModel(
            kind="pypi_gguf", package="p", version="1", file="f", title="t", license="l", parameters=1, quantization="q"
        )
        fields: dict[str, object] = {
            "profile": "tiny",
            "description": "for tests",
            "models": {"m": model},
            "bases": {"b": "m"},
            "student": "b",
            "size_factor": size_factor,
            "learning_rate_factor": 1.0,
            "precision": "float32",
            "optimizer": "adamw",
            "max_length": 128,
            "save_every_steps": 10,
            "threads": 1,
            "student_sampling": {"temperature": 0.7, "top_k": 40, "top_p": 0.95, "max_tokens": 64},
            "answer_max_tokens": 64,
            "generation_group": 4,
            "teacher": PrimarySourceTeacher(kind="primary_source", serves=dict.fromkeys(CATEGORIES, 3)),
            "filters": Filters(min_chosen_words=10, max_chosen_words=60, min_rejected_words=3, max_rejected_words=60),
            "expectations": Expectations(min_rows_share=0.6, max_category_share=0.5, min_voice_contrast=0.05),
            "judge": "rubric-local",
        }
        return Profile.model_validate(fields | changes)

    return make


@pytest.fixture
def make_dataset() -> Callable[..., Dataset]:
    def make(name: str, *parts: DatasetPart, method: str = "preference") -> Dataset:
        return Dataset(dataset=name, character="keeper", description="for tests", method=method, parts=parts)

    return make
