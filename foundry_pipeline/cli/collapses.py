"""`foundry retry`, `foundry collapse`, and how collapsed trainings stand beside scores."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, TypeVar

import typer
from rich.table import Table

from foundry_pipeline.cli import show
from foundry_pipeline.errors import FoundryError
from foundry_pipeline.plain import plain
from foundry_pipeline.settings import load_settings

Run = Annotated[str, typer.Argument(help="a declared run, such as madison_r2")]


def register(app: typer.Typer) -> None:
    app.command()(retry)
    app.command()(collapse)


def retry(run: Run) -> None:
    """Let a run that collapsed be tried once more with the very same inputs. Its record is kept."""
    from foundry_pipeline.chain.collapses import retry as lift
    from foundry_pipeline.chain.evaluate import known_run
    from foundry_pipeline.chain.graph import load_chain

    d, chain = load_chain(load_settings())
    known_run(d, run)
    show.line(f"the record of the collapse is kept: {lift(chain, run)}")
    show.line(f"now: dagster asset materialize --select {run}_adapter")


def collapse(
    run: Run,
    rates: Annotated[
        str, typer.Option(help="learning rates, by commas; empty: the run's own and four higher ones")
    ] = "",
    ranks: Annotated[str, typer.Option(help="LoRA ranks, by commas; empty: the run's own and a quarter of it")] = "",
    steps: Annotated[int, typer.Option(help="optimizer steps of each short training")] = 20,
    as_json: Annotated[bool, typer.Option("--json", help="print JSON instead of a table")] = False,
) -> None:
    """Find where a run would collapse: short trainings over learning rate and rank, on a part of its own data."""
    import json
    import sys
    from dataclasses import asdict

    from foundry_pipeline.chain.collapse_study import collapse_study, run_study
    from foundry_pipeline.chain.evaluate import known_run
    from foundry_pipeline.chain.graph import load_chain
    from foundry_pipeline.launch import run_script
    from foundry_pipeline.reports.pages import write_page
    from foundry_pipeline.training.collapse import report as study_report

    settings = load_settings()
    d, chain = load_chain(settings)
    known_run(d, run)
    study = collapse_study(
        d, chain, run, rates=_numbers(rates, float, "rates"), ranks=_numbers(ranks, int, "ranks"), steps=steps
    )
    cells = run_study(chain, study, run_script, lambda text: print(text, file=sys.stderr, flush=True))
    page = study_report(study, cells)
    path = write_page(settings.reports / f"collapse-{run}.md", page, what="the study", again=f"foundry collapse {run}")
    if as_json:
        print(json.dumps([{**asdict(cell), "collapsed": cell.collapsed} for cell in cells], indent=1))
    else:
        show.line(page)
        show.line(f"written to {path}")


Number = TypeVar("Number", int, float)


def _numbers(text: str, kind: Callable[[str], Number], option: str) -> list[Number]:
    try:
        return [kind(part) for part in text.split(",") if part.strip()]
    except ValueError:
        raise FoundryError(
            f"`{plain(text)}` is not a list of numbers", where=f"--{option}", mend=f"--{option} 0.0002,0.002"
        ) from None


def collapsed_rows(url: str, run: str | None) -> list[dict[str, Any]]:
    """Collapsed trainings in the shape of the ledger's rows: no mode, no judge, no score, and why under `collapsed`."""
    from foundry_pipeline.lineage.collapses import read_collapses

    about = ("rule", "step", "steps", "told", "roll_backs", "learning_rate", "lora_rank", "attempt")
    return [
        {
            **{name: value for name, value in row.items() if name not in about},
            "mode": None,
            "judge": None,
            "overall": None,
            "collapsed": {name: row[name] for name in about},
        }
        for row in read_collapses(url, run=run)
    ]


def scores_with_collapses(rows: list[dict[str, Any]]) -> None:
    """The ledger as tables: scores, and under them what has none because it collapsed."""
    scored = [row for row in rows if "collapsed" not in row]
    fallen = [row for row in rows if "collapsed" in row]
    if scored or not fallen:
        show.scores_table(scored)
    if not fallen:
        return
    table = Table(title="collapsed while training: no adapter, no score", title_justify="left")
    for head in ("recorded", "run", "profile", "guard", "step", "learning rate", "rank", "attempt", "dataset", "why"):
        table.add_column(head, no_wrap=head != "why")
    for row in fallen:
        why = row["collapsed"]
        table.add_row(
            row["recorded_at"][:16],
            row["run"],
            row["profile"],
            why["rule"],
            f"{why['step']} of {why['steps']}",
            f"{why['learning_rate']:g}",
            str(why["lora_rank"]),
            str(why["attempt"]),
            f"{row['dataset']} {row['dataset_hash'][:8]}",
            plain(why["told"]),
        )
    show.console().print(table)


def report(chain: Any, d: Any, run: str) -> bool:
    """Write the report of a run that is collapsed now, and say so; False where it is not."""
    from foundry_pipeline.chain.collapses import collapse_of
    from foundry_pipeline.reports.collapse_report import write_collapse_report

    record = collapse_of(chain, run)
    if record is None:
        return False
    show.line(
        f"{run} collapsed at step {record['step']} of {record['steps']} (guard {record['rule']}): it has no score"
    )
    show.line(f"  {plain(record['told'])}")
    show.line(f"report: {write_collapse_report(chain, d, run)}")
    return True
