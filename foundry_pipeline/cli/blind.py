"""`foundry ab`: recorded answers of runs against each other, blind and in both orders."""

from __future__ import annotations

import sys
from itertools import combinations
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from foundry_pipeline.cli import show
from foundry_pipeline.errors import FoundryError
from foundry_pipeline.plain import plain
from foundry_pipeline.settings import load_settings


def ab(
    sides: Annotated[
        list[str], typer.Argument(help="two runs or more, as run, run:mode (run:checkpoint-150) or score id")
    ],
    judge: Annotated[
        list[str] | None,
        typer.Option("--judge", help="rubric-local, or a name under `judges` of the profile (repeatable)"),
    ] = None,
    votes: Annotated[
        list[str] | None,
        typer.Option("--votes", help="NAME=FILE: a person's votes on the sheet, as JSON lines with id and choice"),
    ] = None,
    margin: Annotated[
        float, typer.Option(min=0, max=10, help="points of rubric-local within which neither answer is preferred")
    ] = 0.0,
    as_json: Annotated[bool, typer.Option("--json", help="print JSON instead of tables")] = False,
) -> None:
    """Blind A/B of recorded answers, every two of the sides: win rates with Wilson intervals, by suite and category.

    Each judge sees both orders; where they disagree it is a tie. Nothing is generated. The sheet without names is for
    people; its key lies apart.
    """
    from foundry_pipeline.chain.blind import meet
    from foundry_pipeline.chain.comparison import find_side
    from foundry_pipeline.chain.graph import load_chain

    if len(sides) < 2:
        raise FoundryError(
            "one side has nobody to meet", where="foundry ab", mend="foundry ab madison_r2 madison_r2:base"
        )
    given = dict(_vote(text) for text in votes or [])
    if given and len(sides) > 2:
        raise FoundryError("votes are on one sheet, of two sides", where="--votes", mend="name two sides")
    d, chain = load_chain(load_settings())
    found = [find_side(d, chain, side) for side in sides]
    named = list(judge or ([] if given else ["rubric-local"]))
    told = [
        meet(d, chain, a, b, judges=named, votes=given, margin=margin, log=lambda text: print(text, file=sys.stderr))
        for a, b in combinations(found, 2)
    ]
    show.json_or(as_json, told, _view)


def _vote(text: str) -> tuple[str, Path]:
    name, found, path = text.partition("=")
    if not found or not name.strip() or not path:
        raise FoundryError(f"`{plain(text, 80)}` names no votes", where="--votes", mend="--votes anna=votes.jsonl")
    return name.strip(), Path(path)


def _view(told: list[dict[str, Any]]) -> None:
    for found in told:
        _meeting(found)


def _meeting(found: dict[str, Any]) -> None:
    a, b = found["a"], found["b"]
    for side in (a, b):
        if not side["current"]:
            show.line(plain(f"{side['name']} is not what the declarations call for now; its last answers are taken"))
    table = Table(
        title=Text(plain(f"{a['name']} against {b['name']} · {found['duels']} blind duels, each in both orders")),
        title_justify="left",
        caption=Text(plain(f"win rate of {a['name']}, a tie counted for half; verdict: is it the better one?")),
    )
    share = f"{found['confidence']:.0%} interval"
    for head in ("judge", "questions", "win", "tie", "by place", "loss", "unscored", "win rate", share, "verdict"):
        table.add_column(head, no_wrap=True, justify="left" if head in ("judge", "questions", "verdict") else "right")
    for judge, groups in found["rates"].items():
        names = sorted(groups, key=lambda name: ("all", "suite", "category").index(name.split(":")[0]))
        for i, name in enumerate(names):
            cells = (judge if not i else "", *_cells(name, groups[name]))
            table.add_row(*(Text(plain(cell)) for cell in cells), end_section=i == len(names) - 1)
    show.console().print(table)
    for pair in found["agreement"]:
        same = "–" if pair["same"] is None else f"{pair['same']:.0%}"
        kappa = "not defined" if pair["kappa"] is None else f"{pair['kappa']:.2f}"
        show.line(
            plain(f"{' and '.join(pair['judges'])}: the same outcome in {same} of {pair['n']} duels, kappa {kappa}")
        )
    if found["same_text"]:
        show.line(f"{found['same_text']} duels are of one and the same text, and a tie that nobody was asked about")
    show.line(f"verdicts: {found['verdicts']}")
    show.line(f"sheet for people, without names: {found['sheet']}")


def _cells(name: str, rate: dict[str, Any]) -> tuple[str, ...]:
    kind, _, of = name.partition(":")
    title = "all" if kind == "all" else of.replace("_", " ")
    shown = "–" if rate["rate"] is None else f"{rate['rate']:.0%}"
    bounds = "–" if rate["low"] is None else f"{rate['low']:.0%} to {rate['high']:.0%}"
    counts = (str(rate[key]) for key in ("wins", "ties", "swayed", "losses", "unscored"))
    return (title, *counts, shown, bounds, rate["verdict"])


def register(app: typer.Typer) -> None:
    app.command()(ab)
