"""`foundry reported`: figures told elsewhere, recomputed from their parts."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from foundry_pipeline.cli import show
from foundry_pipeline.plain import plain
from foundry_pipeline.settings import load_settings


def reported(
    check: Annotated[
        bool, typer.Option("--check", help="exit code 1 where a figure behaves other than it is declared to")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="print JSON instead of a table")] = False,
) -> None:
    """Each figure under `sources/reported/`: recomputed from its parts, as told, and whether the one follows from the other."""
    from foundry_pipeline.declarations import load
    from foundry_pipeline.evaluation.reported import check_figures

    settings = load_settings()
    d = load(settings.root, settings.profile)
    found = check_figures(d.figures, {name: files.reported_scores for name, files in d.characters.items()})
    show.json_or(as_json, [c.as_dict() for c in found], _view)
    if check and not all(c.as_declared for c in found):
        raise typer.Exit(1)


def _view(rows: list[dict[str, Any]]) -> None:
    table = Table(title="reported elsewhere, recomputed from its parts", title_justify="left")
    for head in ("figure", "of", "recomputed", "as told", "follows", "why not"):
        table.add_column(head, justify="right" if head in ("recomputed", "as told") else "left", overflow="fold")
    for row in rows:
        table.add_row(
            Text(row["figure"], no_wrap=True),
            Text(plain(row["part"])),
            Text(_recomputed(row)),
            Text(f"{row['told']:g}"),
            Text(_follows(row)),
            Text(plain(row["note"]) if not row["holds"] else ""),
        )
    show.console().print(table)
    follow = sum(r["holds"] for r in rows)
    wrong = [r["figure"] for r in rows if not r["as_declared"]]
    show.line(f"{follow} of {len(rows)} figures follow from their parts; {len(rows) - follow} do not")
    if wrong:
        show.line(plain(f"other than declared: {', '.join(dict.fromkeys(wrong))}"))


def _recomputed(row: dict[str, Any]) -> str:
    if row["recomputed"] is None:
        return "–"
    bounds = "" if row["low"] is None else f" [{row['low']:.2f}, {row['high']:.2f}]"
    return f"{row['recomputed']:.4g}{bounds}"


def _follows(row: dict[str, Any]) -> str:
    if row["holds"]:
        return "yes" if row["as_declared"] else "yes, though declared not to"
    return {"differs": "no", "not_reproducible": "not reproducible"}.get(row["expect"], "NO")


def register(app: typer.Typer) -> None:
    app.command()(reported)
