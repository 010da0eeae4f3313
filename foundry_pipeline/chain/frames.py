"""What the builders of stages share: where a payload is written, how an input's frame is read, and the texts that no
pair may share words with."""

from __future__ import annotations

from pathlib import Path

import polars as pl

from foundry_pipeline.chain.stage import BuildContext
from foundry_pipeline.declarations import CharacterFiles
from foundry_pipeline.lineage.store import Artifact


def payload_folder(ctx: BuildContext) -> Path:
    """The folder that becomes the artifact."""
    folder = ctx.work / "payload"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def read_frame(artifact: Artifact, name: str) -> pl.DataFrame:
    return pl.read_parquet(artifact.file(f"{name}.parquet"))


def suite_texts(files: CharacterFiles) -> list[str]:
    return [p.text for p in files.suite.prompts]


def held_out_texts(passages: pl.DataFrame) -> list[str]:
    return passages.filter(pl.col("held_out"))["text"].to_list()
