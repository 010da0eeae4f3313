"""Commands on how a run is served: `foundry matrix`, `foundry parity`."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from foundry_pipeline.cli import show
from foundry_pipeline.settings import load_settings

AsJson = Annotated[bool, typer.Option("--json", help="print JSON instead of tables")]
RunName = Annotated[str, typer.Argument(help="a declared run, such as madison_r2")]


def matrix(run: RunName, as_json: AsJson = False) -> None:
    """Every serving mode of a run: score, distance from what was trained, size, speed, breaks of character."""
    from foundry_pipeline.chain.evaluate import known_run
    from foundry_pipeline.chain.graph import load_chain
    from foundry_pipeline.chain.serving_stages import find_matrix
    from foundry_pipeline.reports.serving import HEAD, matrix_cells

    d, chain = load_chain(load_settings())
    known_run(d, run)
    rows = find_matrix(chain, run)
    show.json_or(as_json, rows, lambda data: _table(f"{run}: serving modes", HEAD, [matrix_cells(r) for r in data]))


def parity(run: RunName, as_json: AsJson = False) -> None:
    """The verdict on a run's exported files, and the delta beside the quantization step. Exit code 1 when it failed."""
    from foundry_pipeline.chain.evaluate import known_run
    from foundry_pipeline.chain.graph import load_chain
    from foundry_pipeline.chain.parity_stages import measured, parity_asset, parity_verdict
    from foundry_pipeline.launch import run_script
    from foundry_pipeline.reports.serving import DELTA_HEAD, delta_rows

    d, chain = load_chain(load_settings())
    known_run(d, run)
    verdict = parity_verdict(d, chain, run, run_script=run_script, log=show.line)
    found = measured(chain.require(parity_asset(run)).artifact)

    def tables(data: dict[str, Any]) -> None:
        head = ("check", "passed", "found", "asked for")
        rows: list[tuple[str, ...]] = [
            (r["name"], _passed(r), r["observed"], r["bound"]) for r in data["verdict"]["results"]
        ]
        _table(f"{run}_gguf: export parity", head, rows)
        _table(
            "the adapter's change of a weight beside what writing it moves", DELTA_HEAD, delta_rows(data["measured"])
        )

    show.json_or(as_json, {"verdict": verdict, "measured": found}, tables)
    if not verdict["passed"]:
        raise typer.Exit(1)


def _passed(result: dict[str, Any]) -> str:
    return "yes" if result["passed"] else "NO" if result["severity"] == "error" else "warns"


def _table(title: str, head: tuple[str, ...], rows: list[tuple[str, ...]]) -> None:
    from rich.markup import escape
    from rich.table import Table

    table = Table(title=title, title_justify="left")
    for i, name in enumerate(head):
        table.add_column(name, justify="left" if i == 0 or len(head) == 4 else "right", overflow="fold")
    for row in rows:
        table.add_row(*(escape(cell) for cell in row))
    show.console().print(table)


def register(app: typer.Typer) -> None:
    app.command()(matrix)
    app.command()(parity)
