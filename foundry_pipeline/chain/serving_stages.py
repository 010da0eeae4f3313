"""The last table of a run, `<run>_serving_matrix`: every serving mode with its score, distance, size, speed and breaks."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import polars as pl

from foundry_pipeline.chain.engine import Chain, Materialized
from foundry_pipeline.chain.frames import payload_folder, read_frame
from foundry_pipeline.chain.model_stages import GGUF_TYPES, base_asset
from foundry_pipeline.chain.parity_stages import measured, parity_asset
from foundry_pipeline.chain.stage import BuildContext, Built, Stage
from foundry_pipeline.declarations import Declarations
from foundry_pipeline.declarations.assets import Run
from foundry_pipeline.declarations.sources import Character
from foundry_pipeline.evaluation.comparison import read_summary
from foundry_pipeline.evaluation.serving_matrix import serving_matrix
from foundry_pipeline.launch import read_json
from foundry_pipeline.lineage.store import Artifact, Store

SPEED = "tokens_per_second"


def matrix_asset(run: str) -> str:
    return f"{run}_serving_matrix"


def build_matrix(ctx: BuildContext, *, run: str, start: str, base: str, character: Character) -> Built:
    responses = ctx.inputs[f"{run}_responses"]
    frame = serving_matrix(
        read_json(ctx.inputs[f"{run}_eval"].payload / "summary.json"),
        read_frame(responses, "responses"),
        measured(ctx.inputs[parity_asset(run)])["distance"],
        _sizes(ctx.inputs, run, start, base),
        character,
    )
    payload = payload_folder(ctx)
    frame.write_parquet(payload / "matrix.parquet")
    # Speed is a circumstance of the day, not content: a repeated table is the same table.
    told = responses.manifest.get("facts", {}).get("modes", {})
    speed = {mode: facts.get(SPEED) for mode, facts in told.items() if facts.get(SPEED) is not None}
    return Built(payload, {SPEED: speed, "served": frame.filter(pl.col("answers") > 0)["mode"].to_list()})


def _sizes(inputs: Mapping[str, Artifact], run: str, start: str, base: str) -> dict[str, int]:
    """Bytes on disk of everything that a serving mode reads."""

    def folder(artifact: Artifact) -> int:
        # Not what lies deeper: checkpoints of an adapter are not read by it.
        sizes = artifact.sizes()
        dense = "dense/" if any(name.startswith("dense/") for name in sizes) else ""
        return sum(n for name, n in sizes.items() if name.startswith(dense) and "/" not in name.removeprefix(dense))

    gguf = inputs[f"{run}_gguf"].sizes()
    return {
        "base": folder(inputs[base]),
        "adapter": folder(inputs[start]) + folder(inputs[f"{run}_adapter"]),
        "merged": folder(inputs[f"{run}_merged"]),
        **{kind: gguf[f"{kind}.gguf"] for kind in GGUF_TYPES},
    }


def matrix_stage(d: Declarations, run: Run) -> Stage:
    base = base_asset(d.base_model(run.base))
    start = f"{run.start_from}_merged" if run.start_from else base
    name, character = run.run, d.characters[run.character].character
    inputs = (
        f"{name}_eval",
        f"{name}_responses",
        parity_asset(name),
        f"{name}_gguf",
        f"{name}_merged",
        f"{name}_adapter",
        start,
        base,
    )
    return Stage(
        name=matrix_asset(name),
        kind="serving_matrix",
        inputs=tuple(dict.fromkeys(inputs)),
        declaration={"character": character.model_dump(mode="json")},
        code=(
            "foundry_pipeline.evaluation.serving_matrix",
            "foundry_pipeline.breaks",
            "foundry_pipeline.textstats",
        ),
        build=partial(build_matrix, run=name, start=start, base=base, character=character),
        character=run.character,
        shown={"judge": d.profile.judge},
    )


def matrix_rows(done: Materialized, store: Store) -> list[dict[str, Any]]:
    """The rows of a finished matrix, with the speed at which its answers were drawn (None where they were not) and the
    verdict on each difference (None where the evaluation behind the matrix is no longer in the store)."""
    speed = done.record.facts.get(SPEED) or {}
    behind = next((way["content"] for name, way in done.record.inputs.items() if name.endswith("_eval")), None)
    there = behind is not None and store.has(behind)
    paired = read_summary(store.open(behind).payload)["paired"] if behind is not None and there else {}
    frame = pl.read_parquet(done.artifact.file("matrix.parquet"))
    return [
        {**row, "verdict": (paired.get(row["mode"]) or {}).get("verdict"), SPEED: speed.get(row["mode"])}
        for row in frame.iter_rows(named=True)
    ]


def find_matrix(chain: Chain, run: str) -> list[dict[str, Any]]:
    """The rows of a run's matrix as built for the present declarations; raises MissingArtifact with the command."""
    return matrix_rows(chain.require(matrix_asset(run)), chain.store)
