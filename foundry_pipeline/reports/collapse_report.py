"""The report of a run whose training collapsed: which guard, at which step, by which figures, and what it said last.

    write_collapse_report(chain, d, "madison_hot")   → …/reports/madison_hot.html

It stands where the report of an evaluated run would stand, and has no score on it: a collapsed run is not a run that
did badly. One file that loads nothing and runs nothing; sampled text is escaped.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from foundry_pipeline.chain.collapses import collapse_of
from foundry_pipeline.chain.engine import Chain
from foundry_pipeline.declarations import Declarations
from foundry_pipeline.declarations.assets import PypiModel
from foundry_pipeline.errors import FoundryError
from foundry_pipeline.plain import plain
from foundry_pipeline.reports import svg, tables, wording
from foundry_pipeline.reports.data import label
from foundry_pipeline.reports.pages import render_page, write_page

TEMPLATE = "collapse_report.html.jinja"
SHOWN_TEXT = 600  # characters of a sampled answer
PLOTTED = {
    "loss": "Training loss",
    "chosen_logp": "Log-probability of the chosen answers, nats per token",
    "kl": "KL divergence from the base, nats per token",
    "grad_norm": "Norm of the gradient",
}
MOST_ROWS = 40


@dataclass(frozen=True)
class CollapseData:
    """Everything the page says; plain values. `record` is the trainer's own, as the store keeps it."""

    run: str
    description: str
    character: str
    profile: str
    base: str
    stand_in: bool
    dataset: str
    record: dict[str, Any]


def write_collapse_report(chain: Chain, d: Declarations, run: str) -> Path:
    """Write the page of a collapsed run and return where it is. Raises FoundryError where the run is not collapsed."""
    record = collapse_of(chain, run)
    if record is None:
        raise FoundryError(
            f"{run} is not marked as collapsed for the present declarations",
            where=chain.store.place,
            mend=f"foundry report {run}",
        )
    declared = d.runs[run]
    model = d.profile.models[d.base_model(declared.base)]
    data = CollapseData(
        run=run,
        description=" ".join(declared.description.split()),
        character=d.characters[declared.character].character.name,
        profile=d.profile.profile,
        base=model.title,
        stand_in=isinstance(model, PypiModel),
        dataset=declared.dataset,
        record=record,
    )
    path = chain.settings.reports / f"{run}.html"
    return write_page(path, render_collapse(data), what="the report", again=f"foundry report {run}")


def render_collapse(data: CollapseData) -> str:
    """The page as HTML. Pure: equal data give the same bytes."""
    record = data.record
    filters = {"label": label, "plain": tables.plain, "safe_text": lambda text: plain(text, SHOWN_TEXT)}
    values = {
        "d": data,
        "r": record,
        "figures": _figures(record["history"]),
        "columns": _columns(record["history"]),
        "rows": record["history"][-MOST_ROWS:],
        "cell": _cell,
        "values": [(label(name), tables.plain(value)) for name, value in record["effective"].items()],
    }
    return render_page(TEMPLATE, filters, values)


def _figures(history: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """One plot of each figure that was measured at two steps or more."""
    out = []
    for name, title in PLOTTED.items():
        points = tuple((float(row["step"]), float(row[name])) for row in history if _is_number(row.get(name)))
        if len(points) > 1:
            ident = f"fig-{name.replace('_', '-')}"
            line = svg.Line(title, points)
            drawing = svg.line_chart(ident, title, [line], x="optimizer step", y=title)
            out.append({"id": ident, "title": title, "drawing": drawing})
    return out


def _columns(history: list[dict[str, Any]]) -> list[str]:
    """The figures of the table, those of the guards after those of every step."""
    known = [*PLOTTED, "distinct_2", "repetition", "length_share"]
    return [name for name in known if any(name in row for row in history)]


def _cell(value: Any) -> str:
    """A figure with four digits; `nan` and `inf` by their names; nothing where it was not measured."""
    return wording.number(value, 4) if _is_number(value) else str(value if value is not None else "")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
