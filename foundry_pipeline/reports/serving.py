"""The serving matrix and the export parity of a run as tables: for the report, the Dagster UI and the terminal.

matrix_cells(rows[0])   → ("adapter on base", "6.23", "6.03 to 6.47", "+3.23 (+2.90 to +3.55), better", "0.0003", "99.4 %", "275.6 MB", …)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from foundry_pipeline.export.parity_verdict import SMALLEST_FIRST
from foundry_pipeline.reports.data import Served, mode_title
from foundry_pipeline.reports.wording import NONE, number, percent, span
from foundry_pipeline.statistics.stated import measured, stated

HEAD = (
    "serving mode",
    "overall",
    "interval",
    "against base",
    "mean KL, nats",
    "same top token",
    "size on disk",
    "tokens/s",
    "breaks of character",
    "critical failures",
    "held-out nats/token",
)
_GAP = {"difference": "difference", "low": "difference_low", "high": "difference_high"}
DELTA_HEAD = ("written as", "delta over step", "below its step", "of the delta kept")


def size(count: int | None) -> str:
    """`105.5 MB`, `64.2 GB`: decimal, as disks are sold and downloads counted."""
    if count is None:
        return NONE
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"


def matrix_cells(row: Mapping[str, Any]) -> tuple[str, ...]:
    """One row of the serving matrix in words, under HEAD."""
    kl = row["mean_kl"]
    gap = {name: row[column] for name, column in _GAP.items()}
    return (
        mode_title(row["mode"]),
        number(row["overall"]),
        span(row["overall_low"], row["overall_high"]) or NONE,
        stated({**gap, "verdict": row["verdict"]}) if row.get("verdict") else measured(gap),
        NONE if kl is None else number(kl, 4 if kl >= 0.0001 or kl == 0 else 7),
        NONE if row["top1"] is None else percent(row["top1"]),
        size(row["bytes"]),
        number(row.get("tokens_per_second"), 0),
        NONE if row["break_rate"] is None else percent(row["break_rate"], 0),
        NONE if row["critical_failures"] is None else str(row["critical_failures"]),
        number(row["nats_per_token"], 3),
    )


def delta_rows(parity: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """The delta report by way of writing, the finest first, under DELTA_HEAD."""
    out: list[tuple[str, ...]] = []
    for mode in (m for m in reversed(SMALLEST_FIRST) if m in parity["deltas"]):
        found = parity["deltas"][mode]
        kept = NONE if found["kept"] is None else percent(found["kept"], 0)
        ratio = "no step" if found["ratio"] is None else number(found["ratio"], 2)
        out.append((mode_title(mode), ratio, f"{found['below']} of {found['tensors']} tensors", kept))
    return out


def as_markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table, figures to the right."""
    lines = [f"| {' | '.join(head)} |", "|---|" + "---:|" * (len(head) - 1)]
    return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in rows)])


def matrix_markdown(rows: Sequence[Mapping[str, Any]]) -> str:
    return as_markdown(HEAD, [matrix_cells(row) for row in rows])


def section(served: Served) -> dict[str, Any]:
    """Everything that the report's section needs, laid out."""
    parity = served.parity or {}
    text = parity.get("text", {})
    return {
        "head": HEAD,
        "rows": [matrix_cells(row) for row in served.rows],
        "precision": parity.get("reference", {}).get("precision"),
        "tokens": text.get("tokens"),
        "source": text.get("from", ""),
        "checks": served.verdict["results"] if served.verdict else [],
        "delta_head": DELTA_HEAD,
        "deltas": delta_rows(parity) if parity else [],
    }
