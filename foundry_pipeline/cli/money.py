"""Commands on money: `foundry estimate` before a run, `foundry costs` after it."""

from __future__ import annotations

from decimal import Decimal
from typing import Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from foundry_pipeline.cli import show
from foundry_pipeline.plain import plain
from foundry_pipeline.settings import load_settings

AsJson = Annotated[bool, typer.Option("--json", help="print JSON instead of tables")]


def estimate(
    asset: Annotated[str, typer.Argument(help="an asset, such as madison_dataset_v6")], as_json: AsJson = False
) -> None:
    """What an asset will cost under the present profile: requests not answered yet, tokens and dollars by stage."""
    from foundry_pipeline.chain import costs as money
    from foundry_pipeline.chain.graph import load_chain

    d, chain = load_chain(load_settings())
    show.json_or(as_json, money.estimate(d, chain, asset), estimate_view)


def costs(
    asset: Annotated[str | None, typer.Argument(help="this asset and all it is made from; empty: everything")] = None,
    release_uncertain: Annotated[
        bool,
        typer.Option(
            "--release-uncertain",
            help="count requests at nothing that were sent and never heard of again (look at the provider's account first)",
        ),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """What remote answers cost: by asset, by run and in total, with reported figures beside them."""
    from foundry_pipeline.chain import costs as money
    from foundry_pipeline.chain.graph import load_chain

    d, chain = load_chain(load_settings())
    released = money.release_uncertain(chain) if release_uncertain else None
    found = money.costs(d, chain, asset)
    if released is not None:
        found["released"] = released
    show.json_or(as_json, found, costs_view)


def register(app: typer.Typer) -> None:
    app.command()(estimate)
    app.command()(costs)


def _table(title: str, left: tuple[str, ...], right: tuple[str, ...]) -> Table:
    table = Table(title=title, title_justify="left")
    for head in left:
        table.add_column(head, no_wrap=True)
    for head in right:
        table.add_column(head, justify="right", no_wrap=True)
    return table


def _text(value: object) -> Text:
    return Text(plain(str(value), 80))


def _usd(value: str) -> str:
    """Dollars for people: four digits behind the point, more for what would vanish so."""
    amount = Decimal(value)
    return f"{amount:.4f}" if amount == 0 or amount >= Decimal("0.0001") else f"{amount:.2g}"


def estimate_view(found: dict[str, Any]) -> None:
    table = _table(
        f"{found['asset']} under the profile {found['profile']}: prices of {found['prices_checked']}",
        ("stage", "how"),
        ("requests", "stored", "input tokens", "output tokens", "USD low", "expected", "high"),
    )
    for row in found["stages"]:
        tokens = row["tokens"]
        table.add_row(
            _text(row["stage"]),
            _text(row["how"]),
            str(row["requests"]),
            str(row["stored"]),
            f"{tokens['input']['expected']:,}",
            f"{tokens['output']['expected']:,}",
            *[_usd(row["usd"][name]) if row["requests"] else "0" for name in ("low", "expected", "high")],
        )
    show.console().print(table)
    total, budget = found["usd"], found["budget"]
    show.line(
        f"{found['requests']} requests: {_usd(total['expected'])} USD expected "
        f"({_usd(total['low'])} to at most {_usd(total['high'])}, attempts lost on the way not foreseen)"
    )
    show.line(
        f"budget: {_usd(budget['project_usd'])} USD for the project, of which {_usd(budget['counted_usd'])} are used or "
        f"set aside; {_usd(budget['run_usd'])} for one run"
    )
    if not found["fits_the_budget"]:
        show.line("the expected cost is beyond the budget: the run would stop there cleanly, and could be resumed")


def costs_view(found: dict[str, Any]) -> None:
    if found.get("released"):
        show.line(f"released: {found['released']['rows']} requests, {_usd(found['released']['released_usd'])} USD")
    heads = ("answers", "input", "cache write", "cache read", "output", "USD spent", "reserved", "uncertain")
    for name in ("asset", "run", "model"):
        if not found[f"by_{name}"]:
            continue
        table = _table(f"paid here, by {name}", (name,), heads)
        for row in found[f"by_{name}"]:
            table.add_row(_text(row[name] or "(none)"), *_figures(row))
        table.add_row("total", *_figures(found["total"]))
        show.console().print(table)
    total, budget = found["total"], found["budget"]
    if not total["answers"] and not total["uncertain"]:
        show.line("no remote answer has been paid for in this store")
    show.line(
        f"budget: {_usd(budget['counted_usd'])} of {_usd(budget['project_usd'])} USD are used or set aside in this store; "
        f"{_usd(budget['run_usd'])} for one run"
    )
    if total["counted_at_the_maximum"]:
        show.line(f"{total['counted_at_the_maximum']} answers came without usage and are counted at their reservation")
    if total["uncertain"]:
        show.line(
            f"{total['uncertain']} requests were sent and never heard of again: they may have been billed, and count at "
            "their reservation until `foundry costs --release-uncertain`"
        )
    _reported(found)


def _figures(row: dict[str, Any]) -> list[str]:
    counts = [f"{row[name]:,}" for name in ("answers", "input_tokens", "cache_write_tokens", "cache_read_tokens")]
    return [
        *counts,
        f"{row['output_tokens']:,}",
        _usd(row["spent_usd"]),
        _usd(row["reserved_usd"]),
        _usd(row["uncertain_usd"]),
    ]


def _reported(found: dict[str, Any]) -> None:
    """Measured and reported side by side, never in one column."""
    if not found["reported"]["rows"]:
        return
    here = {row["run"]: row for row in found["trained"]}
    table = _table(
        "reported elsewhere (USD, not measured here), beside what remote answers cost here",
        ("item",),
        ("training", "evaluation", "data", "total", "data, here", "evaluation, here"),
    )
    for row in found["reported"]["rows"]:
        mine = here.get(str(row.get("item")))
        table.add_row(
            _text(row.get("item")),
            *[
                _told(row.get(f"{name}_usd"), row.get("approximate"))
                for name in ("training", "evaluation", "data", "total")
            ],
            _usd(mine["data_usd"]) if mine else "–",
            _usd(mine["evaluation_usd"]) if mine else "–",
        )
    show.console().print(table)


def _told(value: object, approximate: object) -> str:
    return "–" if value is None else f"{'about ' if approximate else ''}{value}"
