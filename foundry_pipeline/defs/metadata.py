"""What the Dagster UI shows of an asset: what was declared, what was built, counts, shares, tables and plots."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import dagster as dg
import polars as pl

from foundry_pipeline.chain.engine import Materialized
from foundry_pipeline.chain.graph import same_here
from foundry_pipeline.chain.parity_stages import measured
from foundry_pipeline.chain.stage import Stage
from foundry_pipeline.declarations import Declarations
from foundry_pipeline.docs.descriptions import Descriptions
from foundry_pipeline.pairs.voice_targeted import as_table
from foundry_pipeline.reports.inline import line_plot
from foundry_pipeline.reports.markdown import cell
from foundry_pipeline.reports.serving import DELTA_HEAD, as_markdown, delta_rows

SHARES = (
    "role",
    "source",
    "document_id",
    "origin",
    "category",
    "difficulty",
    "student",
    "finish_reason",
    "rule",
    "mode",
)
PREVIEW_ROWS = 5


def declared_metadata(d: Declarations, stage: Stage) -> dict[str, Any]:
    """Metadata of the definition: what the declarations say of this asset."""
    out: dict[str, Any] = {"profile": d.profile.profile}
    shown = stage.shown
    if "declared" in shown:
        out["declared"] = dg.MetadataValue.json(shown["declared"])
        out["effective in this profile"] = dg.MetadataValue.json(shown["effective"])
        out["base"] = f"{shown['base']}, here: {shown['base_title']}"
    for name in ("title", "license", "judge", "declared_max_tokens", "effective_max_tokens", "stand_in"):
        if name in shown:
            out[name] = shown[name]
    if "recipe" in shown:
        out["recipe"] = dg.MetadataValue.json(shown["recipe"])
    run = next((r for n, r in d.runs.items() if stage.name.removesuffix(f"_{stage.kind}") == n), None)
    if run is not None and (twins := same_here(d, run)):
        out["same as"] = f"{', '.join(twins)}: in this profile they differ in nothing but their name"
    return out


def describe(done: Materialized, described: Descriptions) -> dict[str, Any]:
    """Metadata of a materialization, read from the artifact itself."""
    # File by file: of a shared store only the tables come to this machine, not gigabytes of weights.
    sizes = done.artifact.sizes()
    out: dict[str, Any] = {
        "content hash": done.artifact.content_hash,
        "input hash": done.record.input_hash,
        "reused": done.reused,
        "folder": dg.MetadataValue.path(str(done.artifact.folder / "payload")),
        "bytes": sum(sizes.values()),
    }
    frames = [done.artifact.file(name) for name in sizes if name.endswith(".parquet") and "/" not in name]
    main = next((f for f in frames if f.stem in MAIN_FRAMES), None)
    for path in frames:
        frame = pl.read_parquet(path)
        out[f"{path.stem}: rows"] = frame.height
        if path == main:
            out["dagster/row_count"] = frame.height
            out["dagster/column_schema"] = column_schema(done.stage.kind, path.stem, frame.schema, described)
        for column in SHARES:
            if column in frame.columns and frame.height and column != "document_id":
                out[f"{path.stem}: by {column}"] = dg.MetadataValue.md(_shares(frame, column))
        out[f"{path.stem}: first rows"] = dg.MetadataValue.md(_preview(frame))
    for name, value in done.record.facts.items():
        if name == "history":
            steps = [(h["step"], h["loss"]) for h in value if "loss" in h]
            if steps:
                plot = line_plot(steps, title="training loss", x="step", y="loss")
                out["loss curve"] = dg.MetadataValue.md(f"![training loss]({plot})")
            if distance := [(h["step"], h["kl"]) for h in value if "kl" in h]:
                plot = line_plot(distance, title="KL divergence from the base, nats per token", x="step", y="kl")
                out["KL curve"] = dg.MetadataValue.md(f"![KL divergence from the base]({plot})")
        elif name == "voice_targeting":
            out["voice targeting"] = dg.MetadataValue.md(as_table(value))
        elif isinstance(value, bool | int | float | str):
            out[name.replace("_", " ")] = value
        else:
            out[name.replace("_", " ")] = dg.MetadataValue.json(value)
    if done.stage.kind == "parity":
        deltas = delta_rows(measured(done.artifact))
        out["delta beside the quantization step"] = dg.MetadataValue.md(as_markdown(DELTA_HEAD, deltas))
    if "summary.json" in sizes:
        summary = json.loads(done.artifact.file("summary.json").read_text(encoding="utf-8"))
        out["scores"] = dg.MetadataValue.md(score_table(summary))
    return out


MAIN_FRAMES = {"documents", "passages", "responses", "pairs", "scores", "tensors", "matrix", "agreement"}


def column_schema(kind: str, table: str, schema: Mapping[str, Any], described: Descriptions) -> dg.TableSchema:
    """Columns with their types and the description of their docs block."""
    return dg.TableSchema(
        [
            dg.TableColumn(name, str(dtype), description=described.column(kind, table, name))
            for name, dtype in schema.items()
        ]
    )


def declared_columns(kind: str, described: Descriptions) -> dict[str, Any]:
    """Metadata of the definition: the columns of the tables that assets of this kind hold, built or not."""
    tables = described.tables.get(kind, {})
    schemas = {name: column_schema(kind, name, table.columns, described) for name, table in tables.items()}
    main = next((name for name in schemas if name in MAIN_FRAMES), None)
    out: dict[str, Any] = {f"columns of {n}": dg.MetadataValue.table_schema(s) for n, s in schemas.items() if n != main}
    return out if main is None else {"dagster/column_schema": schemas[main], **out}


def _shares(frame: pl.DataFrame, column: str) -> str:
    counts = frame.group_by(column).len().sort(["len", column], descending=[True, False])
    lines = [f"| {cell(column)} | rows | share |", "|---|---:|---:|"]
    lines += [f"| {cell(k)} | {n} | {n / frame.height:.0%} |" for k, n in counts.iter_rows()]
    return "\n".join(lines)


def _preview(frame: pl.DataFrame) -> str:
    columns = [c for c in frame.columns if not c.endswith(("_hash", "sha256"))][:9]
    lines = ["| " + " | ".join(map(cell, columns)) + " |", "|" + "---|" * len(columns)]
    for row in frame.select(columns).head(PREVIEW_ROWS).iter_rows():
        lines.append("| " + " | ".join(cell(v) for v in row) + " |")
    return "\n".join(lines)


def score_table(summary: dict[str, Any]) -> str:
    """Serving modes × scores as Markdown, the judge named."""
    judge = summary["judge"]["name"]
    modes = summary["modes"]
    categories = sorted({c for m in modes.values() for c in m["categories"]})
    short = {c: "".join(w[0] for w in c.split("_")).upper() for c in categories}
    head = ["mode", f"overall ({cell(judge)})", "95 % interval", *map(cell, short.values()), "critical", "nats/token"]
    lines = ["| " + " | ".join(head) + " |", "|---|" + "---:|" * (len(head) - 1)]
    for mode, m in modes.items():
        overall = m["overall"]
        cells = [_figure(m["categories"].get(c, {}).get("mean"), 2) for c in categories]
        interval = f"{_figure(overall['low'], 2)} – {_figure(overall['high'], 2)}"
        lines.append(
            f"| {cell(mode)} | {_figure(overall['mean'], 2)} | {interval} | {' | '.join(cells)} | {m['critical_failures']} "
            f"| {_figure(m['nats_per_token'], 3)} |"
        )
    return "\n".join(lines)


def _figure(value: float | None, digits: int) -> str:
    return "–" if value is None else f"{value:.{digits}f}"
