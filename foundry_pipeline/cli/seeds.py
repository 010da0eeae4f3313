"""`foundry seeds`: a run under each of its seeds, the spread over them, and two such runs compared."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from foundry_pipeline.cli import show
from foundry_pipeline.plain import plain
from foundry_pipeline.settings import load_settings

NONE = "–"


def register(app: typer.Typer) -> None:
    app.command()(seeds)


def seeds(
    run: Annotated[str, typer.Argument(help="a declared run with `seeds`, or whose evaluation has `sampling_seeds`")],
    other: Annotated[
        str | None, typer.Argument(help="a second one, to be compared with it over their trainings")
    ] = None,
    mode: Annotated[str, typer.Option(help="with a second run: the serving mode that is compared")] = "adapter",
    as_json: Annotated[bool, typer.Option("--json", help="print JSON instead of tables")] = False,
) -> None:
    """Scores of a run by partition (training seed, sampling seed, repeat of the judge), and how far they scatter."""
    from foundry_pipeline.chain.graph import load_chain
    from foundry_pipeline.chain.seeds import compare_runs, over_seeds

    d, chain = load_chain(load_settings())
    if other is None:
        show.json_or(as_json, over_seeds(d, chain, run), view)
    else:
        show.json_or(as_json, compare_runs(d, chain, run, other, mode), _view_two)


def view(found: dict[str, Any]) -> None:
    """Each combination, the spread by serving mode, what is not built."""
    title = f"{found['run']}: {found['combinations']} partitions" + (
        f" · judged by {found['judge']}" if found["rows"] else ""
    )
    table = _table(
        title, ("partition", "mode", "training seed", "sampling seed", "repeat", "overall", "interval", "adapter")
    )
    for r in found["rows"]:
        seed = NONE if r["training_seed"] is None else r["training_seed"]
        cells = (r["partition"], r["mode"], seed, r["sampling_seed"], r["judge_repeat"], _number(r["mean"]))
        _row(table, *cells, f"{_number(r['low'])} – {_number(r['high'])}", r["adapter_hash"][:8] or NONE)
    if found["rows"]:
        show.console().print(table)
        share = f"{found['confidence']:.0%} interval"
        spread = _table("over seeds", ("mode", "n", "of", "mean", "sd", share))
        for name, m in found["modes"].items():
            interval = NONE if m["low"] is None else f"{m['low']:.2f} – {m['high']:.2f}"
            _row(spread, name, m["n"], m["unit"], _number(m["mean"]), _number(m["sd"]), interval)
        show.console().print(spread)
    for m in found["missing"]:
        show.line(plain(f"{m['partition']} is not judged: {m['command']}"))


def _view_two(found: dict[str, Any]) -> None:
    view(found["a"])
    view(found["b"])
    w = found["welch"]
    p = NONE if w["p"] is None else f"{w['p']:.4f}"
    effect = "" if found["effect"] is None else f", Hedges' g {found['effect']['g']:.2f}"
    least = "" if found["detectable"] is None else f"; {found['detectable']:.2f} would be found in four of five"
    show.line(
        f"{found['a']['run']} minus {found['b']['run']}, {found['mode']}: {found['difference']:+.2f}, "
        f"Welch p {p}{effect}{least}: {found['verdict']}"
    )


def _number(value: float | None) -> str:
    return NONE if value is None else f"{value:.2f}"


def _table(title: str, heads: tuple[str, ...]) -> Table:
    table = Table(title=plain(title), title_justify="left")
    for head in heads:
        table.add_column(head, no_wrap=True)
    return table


def _row(table: Table, *cells: Any) -> None:
    table.add_row(*(Text(plain(str(cell))) for cell in cells))
