"""A dataset as a folder that `datasets.load_dataset` reads without a network, with its card and its metadata.

    README.md            the card                      LICENSES.md       terms of sources and models
    provenance.json      everything by its hash        croissant.json    Croissant 1.1
    pairs/train-00000-of-00001.parquet                 prompt, chosen, rejected as strings, and provenance
    conversational/train-00000-of-00001.parquet        the same three as lists of messages

Supervised rows have `prompt` and `completion` instead. Rows stand in order of pair_id, and nothing tells the time, so
one content under one verdict gives the same bytes wherever and whenever it is written.
"""

from __future__ import annotations

import json
from pathlib import Path

import polars as pl

from foundry_pipeline.datasets.card import LICENSES, CardData, provenance, render_card, render_licenses
from foundry_pipeline.datasets.croissant import croissant
from foundry_pipeline.export_folder import write_export
from foundry_pipeline.lineage.hashing import file_hash

SHARD = "train-00000-of-00001.parquet"
MARKER = "provenance.json"
# Of a supervised row there is no other side; columns that speak of one would be empty.
_OTHER_SIDE = ("rejected", "student", "student_request_hash", "voice_rejected", "voice_contrast", "repetition_rejected")


def plain_rows(frame: pl.DataFrame, method: str) -> pl.DataFrame:
    """Rows (columns PAIRS) as TRL's standard format wants them, texts first, then provenance; sorted by pair_id."""
    frame = frame.sort("pair_id", "prompt", "chosen")
    if method == "sft":
        frame = frame.drop(_OTHER_SIDE).rename({"chosen": "completion"})
    texts = ["prompt", "completion"] if method == "sft" else ["prompt", "chosen", "rejected"]
    return frame.select(*texts, *(c for c in frame.columns if c not in texts))


def conversational_rows(frame: pl.DataFrame, method: str) -> pl.DataFrame:
    """The same rows as TRL's conversational format: each side a list of {role, content}."""
    rows = plain_rows(frame, method)

    def said(column: str, role: str) -> pl.Expr:
        return pl.concat_list(pl.struct(role=pl.lit(role), content=pl.col(column))).alias(column)

    answers = [c for c in ("completion", "chosen", "rejected") if c in rows.columns]
    return rows.select(
        said("prompt", "user"), *(said(c, "assistant") for c in answers), "pair_id", "origin", "category", "upsample"
    )


def write_folder(frame: pl.DataFrame, card: CardData, target: Path) -> Path:
    """Write the whole folder, or nothing; an earlier export at `target` is replaced. Returns `target`.

    Raises FoundryError when `target` holds something that no export wrote, or when the disk takes no more.
    """
    return write_export(target, marker=MARKER, fill=lambda folder: _fill(folder, frame, card), what="a dataset")


def _fill(folder: Path, frame: pl.DataFrame, card: CardData) -> None:
    for name, rows in (
        ("pairs", plain_rows(frame, card.method)),
        ("conversational", conversational_rows(frame, card.method)),
    ):
        (folder / name).mkdir()
        rows.write_parquet(folder / name / SHARD, compression="zstd", statistics=False)
    file = folder / "pairs" / SHARD
    schema = dict(pl.read_parquet_schema(file))
    metadata = croissant(card, f"pairs/{SHARD}", schema, sha256=file_hash(file), size=file.stat().st_size)
    texts = {
        "README.md": render_card(card),
        LICENSES: render_licenses(card),
        MARKER: _json(provenance(card)),
        "croissant.json": _json(metadata),
    }
    for name, text in texts.items():
        (folder / name).write_text(text, encoding="utf-8")


def _json(value: object) -> str:
    return json.dumps(value, indent=1, ensure_ascii=True, allow_nan=False) + "\n"
