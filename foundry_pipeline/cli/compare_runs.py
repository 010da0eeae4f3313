"""`foundry compare A B`: is one model better than another, and may that be said?"""

from __future__ import annotations

from typing import Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from foundry_pipeline.cli import show
from foundry_pipeline.plain import plain
from foundry_pipeline.settings import load_settings
from foundry_pipeline.statistics.stated import NONE, number, span

Side = Annotated[str, typer.Argument(help="a run (its adapter), run:mode such as madison_r2:base, or a score id")]


def compare(
    a: Side,
    b: Side,
    as_json: Annotated[bool, typer.Option("--json", help="print JSON instead of tables")] = False,
) -> None:
    """A minus B, prompt by prompt: overall, categories, components, effect size, and the verdict that may be reported.

    Only scores of one judge version on one suite are compared.
    """
    from foundry_pipeline.chain.comparison import compare_sides, find_side
    from foundry_pipeline.chain.graph import load_chain

    d, chain = load_chain(load_settings())
    found = compare_sides(d, find_side(d, chain, a), find_side(d, chain, b))
    show.json_or(as_json, found, _view)


def _view(found: dict[str, Any]) -> None:
    a, b, overall = found["a"], found["b"], found["overall"]
    for side in (a, b):
        if not side["current"]:
            show.line(plain(f"{side['name']} is not what the declarations call for now; its last evaluation is shown"))
    if found["same_answers"]:
        show.line("both sides are the very same answers")
    share = f"{found['confidence']:.0%} interval"
    table = Table(title=plain(f"{a['name']} against {b['name']} · judged by {a['judge']}"), title_justify="left")
    for head in ("", "A", "B", "difference", share, "n", "p", "p, Holm", "Hedges' g", "detectable", "verdict"):
        table.add_column(head, justify="left" if head in ("", "verdict") else "right", no_wrap=True)
    table.add_row(*_cells("overall", overall), end_section=True)
    for group in ("categories", "components"):
        rows = list(found[group].items())
        for i, (name, figures) in enumerate(rows):
            table.add_row(*_cells(name.replace("_", " "), figures), end_section=i == len(rows) - 1)
    show.console().print(table)
    w = found["wins"]["overall"]
    show.line(
        f"prompts on which A scores above B: {w['wins']} of {w['n']}, level {w['ties']}, below {w['losses']}; "
        f"win rate {_percent(w['rate'])} ({_percent(w['low'])} to {_percent(w['high'])})"
    )
    u = found["unscored"]
    if u["a"] or u["b"]:
        show.line(
            f"unscored answers: A {u['a']}, B {u['b']}; whatever they were worth, the difference lies between "
            f"{number(u['lowest'], sign=True)} and {number(u['highest'], sign=True)}"
        )
    claim = {"better": "A is better than B", "worse": "A is worse than B"}.get(overall["verdict"], overall["verdict"])
    show.line(
        f"verdict: {claim} (permutation p at most {found['alpha']:g} and an interval without zero; "
        f"found four times in five from {number(overall['detectable'])} points)"
    )


def _cells(name: str, f: dict[str, Any]) -> tuple[Text, ...]:
    g = number(f["g"], sign=True)
    if f["g_low"] is not None:
        g += f" ({span(f['g_low'], f['g_high'], sign=True)})"
    cells = (
        name,
        number(f["a"]),
        number(f["b"]),
        number(f["difference"], sign=True),
        span(f["low"], f["high"], sign=True) or NONE,
        str(f["n"]),
        number(f["p"], 4),
        number(f["p_corrected"], 4) if name != "overall" else "–",
        g,
        number(f["detectable"]),
        f["verdict"],
    )
    return tuple(Text(cell) for cell in cells)


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{value:.0%}"


def register(app: typer.Typer) -> None:
    app.command()(compare)
