"""Dialogues made of the character's own passages: pairs whose passages follow each other in one document.

pairs on passages 4, 5, 6 of a letter  →  three rows; each prompt but the first opens with the exchange before it
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import polars as pl

from foundry_pipeline.pairs.candidates import PAIRS, pair_id


def placed_pairs(pairs: pl.DataFrame, passages: pl.DataFrame) -> pl.DataFrame:
    """`pairs` (columns PAIRS) with the document and position of their passage, in reading order; one a passage.

    passages: passage_id, document_id, position. A pair whose passage is not among them is left out.
    """
    return (
        pairs.with_columns(passage_id=pl.col("passage_ids").list.first())
        .join(passages.select("passage_id", "document_id", "position"), on="passage_id", how="inner")
        .unique("passage_id", keep="first", maintain_order=True)
        .sort("document_id", "position")
    )


def led_by_passages(placed: pl.DataFrame, *, turns: int, items: int) -> list[dict[str, Any]]:
    """Rows of at most `items` whole dialogues of `turns` rows; `source_pair` names the pair that a row was made from."""
    found: list[dict[str, Any]] = []
    for document in placed.partition_by("document_id", maintain_order=True):
        pairs = document.rows(named=True)
        for first in range(0, len(pairs) - turns + 1, turns):
            if len(found) < items * turns:
                found += _dialogue(pairs[first : first + turns])
    return found


def _dialogue(pairs: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The turns of one dialogue: every prompt but the first opens with the exchange before it."""
    rows = []
    for turn, pair in enumerate(pairs):
        before = f"{pairs[turn - 1]['prompt']}\n\n{pairs[turn - 1]['chosen']}\n\n" if turn else ""
        prompt = before + pair["prompt"]
        row = {c: pair[c] for c in PAIRS} | {"prompt": prompt, "source_pair": pair["pair_id"]}
        rows.append(row | {"pair_id": pair_id(prompt, pair["chosen"], None, pair["origin"])})
    return rows
