"""`foundry replay`: is a recorded score the same number when it is computed once more?"""

from __future__ import annotations

import json
import sys
from typing import Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from foundry_pipeline.cli import show
from foundry_pipeline.errors import FoundryError
from foundry_pipeline.plain import plain
from foundry_pipeline.settings import load_settings

SAME, OTHER, CANNOT = 0, 1, 2


def register(app: typer.Typer) -> None:
    app.command()(replay)


def replay(
    score: Annotated[str, typer.Argument(help="a score of the ledger: the beginning of its id, as `scores` shows it")],
    rejudge: Annotated[
        bool, typer.Option("--rejudge", help="judge the recorded answers anew, past what was judged before")
    ] = False,
    regenerate: Annotated[
        bool, typer.Option("--regenerate", help="have the recorded model answer anew, too (minutes; past the cache)")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="print JSON instead of a table")] = False,
) -> None:
    """Compute a recorded score once more from what was recorded. Exit code 0: the same; 1: another; 2: it cannot be."""
    from foundry_pipeline.chain.replay import replay as compute
    from foundry_pipeline.launch import run_script

    try:
        found = compute(
            load_settings(),
            score,
            run_script=run_script,
            rejudge=rejudge,
            regenerate=regenerate,
            log=lambda text: print(text, file=sys.stderr, flush=True),
        )
    except FoundryError as error:
        if as_json:
            told = {"score_id": score, "same": None, "what": error.what, "where": error.where, "mend": error.mend}
            print(json.dumps(told, indent=1))
        print(show.told(error), file=sys.stderr)
        raise typer.Exit(CANNOT) from None
    if as_json:
        print(json.dumps(found.to_json(), indent=1, ensure_ascii=True))
    else:
        _show(found)
    raise typer.Exit(SAME if found.same else OTHER)


def _show(found: Any) -> None:
    row = found.score
    table = Table(
        title=Text(
            plain(f"{row['run']} · {row['mode']} · {row['judge']} · score {row['score_id'][:12]} · {found.how}")
        ),
        title_justify="left",
    )
    for head in ("figure", "recorded", found.how, ""):
        table.add_column(head, justify="left" if head in ("figure", "") else "right", no_wrap=True)
    for figure in found.figures:
        mark = "same" if figure.same else "OTHER"
        table.add_row(*(Text(plain(c)) for c in (figure.name, _exact(figure.recorded), _exact(figure.found), mark)))
    show.console().print(table)
    for note in found.notes:
        show.line(plain(note))
    other = sum(not figure.same for figure in found.figures)
    show.line(
        "the same score, to the ninth decimal"
        if found.same
        else f"ANOTHER score: {other} of {len(found.figures)} figures differ"
    )


def _exact(value: float | None) -> str:
    return "–" if value is None else str(value) if isinstance(value, int) else f"{value:.6f}"
