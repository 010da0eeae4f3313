"""`foundry ladder`: every declared run, measured here beside what was reported elsewhere."""

from __future__ import annotations

import sys
from typing import Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from foundry_pipeline.cli import show
from foundry_pipeline.plain import plain
from foundry_pipeline.settings import load_settings
from foundry_pipeline.statistics.stated import NONE, number


def ladder(
    select: Annotated[
        bool, typer.Option("--select", help="print what `dagster asset materialize --select` takes")
    ] = False,
    complete: Annotated[bool, typer.Option("--complete", help="exit code 1 where a row is not built")] = False,
    html: Annotated[bool, typer.Option("--html", help="write the page as well: plots, heat maps, cost")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="print JSON instead of a table")] = False,
) -> None:
    """Score rows of all declared runs, measured beside reported, from what is built. `make ladder` builds them first."""
    from foundry_pipeline.chain.graph import load_chain
    from foundry_pipeline.chain.ladder import ladder as rungs
    from foundry_pipeline.chain.ladder import selection

    d, chain = load_chain(load_settings())
    if select:
        show.line(selection(d.declared_runs))
        return
    found = rungs(d, chain)
    show.json_or(as_json, found, view)
    if html:
        from foundry_pipeline.reports.ladder_report import write_ladder_report

        print(f"page: {write_ladder_report(chain, d)}", file=sys.stderr if as_json else sys.stdout, flush=True)
    if complete and not found["complete"]:
        raise typer.Exit(1)


def register(app: typer.Typer) -> None:
    app.command()(ladder)


def view(found: dict[str, Any]) -> None:
    """One table, the measured columns before the reported ones, and what has to be said of them."""
    title = f"{found['runs']} runs, {len(found['rows'])} score rows · profile {found['profile']}"
    table = Table(title=title, title_justify="left", caption="left: measured here; right: reported elsewhere")
    for head in ("run", "serving", "measured\non base"):
        table.add_column(head, no_wrap=True)
    for head in ("overall", "95 %\ninterval", "against\nbase", "critical", "nats/\ntoken"):
        table.add_column(f"measured\n{head}", justify="right", no_wrap=True)
    for head in ("on base", "serving"):
        table.add_column(f"reported\n{head}", no_wrap=True)
    for head in ("raw", "corrected", "critical"):
        table.add_column(f"reported\n{head}", justify="right", no_wrap=True)
    for row in found["rows"]:
        table.add_row(Text(row["run"]), _mode(row), _base(row), *_measured(row), *_reported(row["reported"]))
    show.console().print(table)
    for text in notes(found):
        show.line(plain(text, 400))


def notes(found: dict[str, Any]) -> list[str]:
    """Judges, stand-ins, rows on one adapter, and the commands for what is not built."""
    rows = found["rows"]
    out = [f"measured: judged by {found['judge']}"]
    if found["reported_judges"]:
        out[0] += (
            f"; reported: by {', '.join(found['reported_judges'])}, on other hardware and models: not to be compared"
        )
    if any(r["stand_in"] for r in rows):
        titles = ", ".join(dict.fromkeys(r["base_title"] for r in rows if r["stand_in"]))
        out.append(f"* a stand-in for the declared base: {titles}")
    shared = dict.fromkeys(f"{r['run']} ({r['mode']}): {note}" for r in rows for note in r["notes"])
    out += list(shared)
    if found["build_seconds"]:
        out.append(f"building what is measured here took {found['build_seconds'] / 60:.1f} minutes in all")
    missing = list(dict.fromkeys(r["run"] for r in rows if r["state"] == "not built"))
    if missing:
        out.append(f"not built: {', '.join(missing)}: make ladder builds all, {rows_mend(rows)} one")
    return out


def rows_mend(rows: list[dict[str, Any]]) -> str:
    return next(str(r["mend"]) for r in rows if r["state"] == "not built")


def _text(value: object) -> Text:
    return Text(plain(str(value), 60))


def _base(row: dict[str, Any]) -> Text:
    """The model's name without what stands in brackets behind it, which the notes give whole."""
    return _text(row["base_title"].split(" (")[0] + (" *" if row["stand_in"] else ""))


def _mode(row: dict[str, Any]) -> Text:
    step = (row["measured"] or {}).get("at_step")
    return Text(row["mode"] + (f" (step {step} of {row['measured']['steps']})" if step else ""))


def _measured(row: dict[str, Any]) -> tuple[str, ...]:
    m = row["measured"]
    if m is None:
        return (row["state"], NONE, NONE, NONE, NONE)
    interval = NONE if m["low"] is None else f"{m['low']:.2f} – {m['high']:.2f}"
    return (
        _number(m["overall"]),
        interval,
        _against(m),
        str(m["critical_failures"]),
        _number(m["nats_per_token"], 3),
    )


def _against(m: dict[str, Any]) -> str:
    """The difference to the base and, below it, what may be said of it."""
    if m["against_base"] is None:
        return NONE
    return f"{number(m['against_base'], sign=True)}\n{m['against_base_verdict']}"


def _reported(told: dict[str, Any] | None) -> tuple[Text, Text, str, str, str]:
    if told is None:
        return Text(NONE), Text(NONE), NONE, NONE, NONE
    failures = told["critical_failures"]
    return (
        _text(told["base"]),
        _text(told["serving"] or "not told"),
        _number(told["raw"]),
        _number(told["corrected"]),
        NONE if failures is None else str(failures),
    )


def _number(value: float | None, digits: int = 2) -> str:
    return NONE if value is None else f"{value:.{digits}f}"
