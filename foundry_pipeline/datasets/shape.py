"""The figures of one dataset: how many rows of what kind, how long, how far apart the two sides are.

    shape(frame)  → {"rows": 1099, "shown": 1498, "origins": {"base": {"rows": 475, "shown": 475}, …},
                     "words": {"chosen": {"mean": 91.2, "median": 88.0, "p90": 110.0, "max": 112}, …}, …}

`shown` counts a row as often as an epoch shows it. Lengths and contrasts count each row once: they describe the data.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import polars as pl

from foundry_pipeline.errors import FoundryError
from foundry_pipeline.textcolumns import read_texts, shared_lexicon, word_counts

TEXTS = ("prompt", "chosen", "rejected")
CLASSES = {
    "origins": "origin",
    "categories": "category",
    "difficulties": "difficulty",
    "students": "student",
    "teachers": "teacher",
}
TokenCounter = Callable[[Sequence[str]], list[int]]


def shape(frame: pl.DataFrame, count_tokens: TokenCounter | None = None) -> dict[str, Any]:
    """The figures of a dataset (columns PAIRS). `tokens` is None without a counter; `shown` tokens are of one epoch.

    voice_contrast: voice(chosen) − voice(rejected), None where no row has two sides.
    """
    passages = frame["passage_ids"].drop_nulls().explode().drop_nulls()
    return {
        "rows": frame.height,
        "shown": int(frame["upsample"].sum() or 0),
        **{name: counts(frame, column) for name, column in CLASSES.items()},
        "shown_times": counts(frame, "upsample"),
        "words": {side: spread(lengths(frame[side])) for side in TEXTS},
        "tokens": tokens(frame, count_tokens) if count_tokens is not None else None,
        "voice_contrast": spread(frame["voice_contrast"], digits=4),
        "passages": passages.n_unique(),
        "rows_without_passage": int((frame["passage_ids"].list.len().fill_null(0) == 0).sum()),
    }


def counts(frame: pl.DataFrame, column: str) -> dict[str, dict[str, int]]:
    """Value of a column → {"rows", "shown"}, the most frequent first; rows without a value are left out."""
    grouped = (
        frame.select(pl.col(column).cast(pl.String).alias("value"), pl.col("upsample").alias("times"))
        .drop_nulls("value")
        .group_by("value")
        .agg(pl.len().alias("rows"), pl.col("times").sum().alias("shown"))
        .sort(["rows", "value"], descending=[True, False])
    )
    return {value: {"rows": rows, "shown": shown} for value, rows, shown in grouped.iter_rows()}


def lengths(texts: pl.Series) -> pl.Series:
    """Words of each text, null where there is none."""
    lexicon = shared_lexicon()
    frame = texts.to_frame("text")
    parts = [pl.Series(word_counts(read_texts(part["text"], lexicon)), dtype=pl.Int64) for part in frame.iter_slices()]
    counted = frame.with_columns(words=pl.concat([pl.Series(dtype=pl.Int64), *parts]))
    return counted.select(pl.when(pl.col("text").is_not_null()).then("words"))["words"]


def spread(values: pl.Series, digits: int = 1) -> dict[str, float] | None:
    """{mean, median, p10, p90, min, max} of the values that are there; None without one."""
    found = values.drop_nulls()
    if found.is_empty():
        return None
    measured = {
        "mean": found.mean(),
        "median": found.median(),
        "p10": found.quantile(0.1, "linear"),
        "p90": found.quantile(0.9, "linear"),
        "min": found.min(),
        "max": found.max(),
    }
    return {name: round(float(value), digits) for name, value in measured.items() if isinstance(value, int | float)}


def tokens(frame: pl.DataFrame, count_tokens: TokenCounter) -> dict[str, Any]:
    """Tokens of each side (spread), and in all: once a row, and as an epoch shows them (each side with its prompt)."""
    counted: dict[str, pl.Series] = {}
    for side in TEXTS:
        unique = frame[side].drop_nulls().unique(maintain_order=True).to_list()
        known = dict(zip(unique, count_tokens(unique), strict=True))
        counted[side] = pl.Series([None if text is None else known[text] for text in frame[side]], dtype=pl.Int64)
    prompt, chosen = counted["prompt"].fill_null(0), counted["chosen"].fill_null(0)
    has_rejected = frame["rejected"].is_not_null().cast(pl.Int64)
    row = prompt + chosen + has_rejected * prompt + counted["rejected"].fill_null(0)
    return {
        **{side: spread(series) for side, series in counted.items()},
        "rows": int(row.sum() or 0),
        "shown": int((row * frame["upsample"].fill_null(0)).sum() or 0),
    }


@lru_cache(maxsize=4)
def token_counter(tokenizer_json: Path) -> TokenCounter:
    """Counts tokens of plain texts with a model's own `tokenizer.json`, read once; no chat template, no torch.

    Raises FoundryError when the file cannot be read as a tokenizer.
    """
    from tokenizers import Tokenizer

    try:
        tokenizer = Tokenizer.from_file(str(tokenizer_json))
    except Exception as error:  # the library raises bare Exception for whatever is wrong with the file
        raise FoundryError(
            f"the tokenizer cannot be read ({str(error).splitlines()[0]})",
            where=str(tokenizer_json),
            mend="foundry doctor  # finds damaged artifacts and says how to mend them",
        ) from error
    tokenizer.no_truncation()
    tokenizer.no_padding()

    def count(texts: Sequence[str]) -> list[int]:
        return [len(e.ids) for e in tokenizer.encode_batch(list(texts), add_special_tokens=False)]

    return count
