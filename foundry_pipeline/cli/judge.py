"""`foundry judge`: what judges replied, what it comes to, and how far they agree."""

from __future__ import annotations

import json
import sys
from collections import Counter
from pathlib import Path
from typing import Annotated, Any, BinaryIO

import typer

from foundry_pipeline.errors import FoundryError

app = typer.Typer(no_args_is_help=True, help=__doc__)


@app.callback()
def _group() -> None:
    """What judges replied, what it comes to, and how far they agree."""


@app.command()
def parse(
    file: Annotated[str, typer.Argument(help="JSON lines with id, stop_reason and text; - reads them from stdin")],
    details: Annotated[
        bool, typer.Option("--details", help="print components, the judge's own mark and the mended JSON as well")
    ] = False,
) -> None:
    """Read judges' replies: each is scored, repaired (its syntax was mended) or unscored, with the reason.

    Prints one JSON line for each line of the file, in their order: id, status, overall (the weighted mean of the five
    components) and reason. A line that is no reply is unscored under the id null, with its number, and costs no other
    line. The exit code is 0 when the file could be read through, whatever was found in it; stderr has the counts.
    """
    if file == "-":
        _print(sys.stdin.buffer, details)
        return
    path = Path(file)
    try:
        handle = path.open("rb")
    except OSError as error:
        raise FoundryError(
            f"cannot be read: {error.strerror}", where=file, mend="name a file of JSON lines, or - for stdin"
        ) from error
    with handle:
        _print(handle, details)


@app.command()
def agreement(
    run: Annotated[str, typer.Argument(help="a declared run, such as madison_r2")],
    as_json: Annotated[bool, typer.Option("--json", help="print JSON instead of a table")] = False,
) -> None:
    """How far the judges agree that have judged the same answers of a run: Krippendorff's alpha and quadratic kappa."""
    from foundry_pipeline.chain.evaluate import known_run
    from foundry_pipeline.chain.graph import load_chain
    from foundry_pipeline.chain.judge_views import agreement_of
    from foundry_pipeline.cli import show
    from foundry_pipeline.settings import load_settings

    d, chain = load_chain(load_settings())
    known_run(d, run)
    show.json_or(as_json, agreement_of(chain, run), _agreement_table)


@app.command()
def audit(
    runs: Annotated[list[str] | None, typer.Argument(help="declared runs; none: every run")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="print JSON instead of sentences")] = False,
) -> None:
    """What a judge takes off its own overall mark for critical failures, beyond its components: raw minus weighted."""
    from foundry_pipeline.chain.evaluate import known_run
    from foundry_pipeline.chain.graph import load_chain
    from foundry_pipeline.chain.judge_views import audit_of
    from foundry_pipeline.cli import show
    from foundry_pipeline.settings import load_settings

    d, chain = load_chain(load_settings())
    for run in runs or []:
        known_run(d, run)
    show.json_or(as_json, audit_of(chain, runs or sorted(d.runs)), _audit_lines)


def _audit_lines(found: dict[str, Any]) -> None:
    from foundry_pipeline.cli import show

    for judge, audit in found.items():
        show.line(f"{judge}, {audit['answers']} answers of {', '.join(audit['runs'])}: raw minus weighted overall")
        for kind in ("with", "without"):
            part = audit[kind]
            mean = "–" if part["mean"] is None else f"{part['mean']:+.3f}"
            bounds = "" if part["low"] is None else f" [{part['low']:+.3f}, {part['high']:+.3f}]"
            show.line(f"  {kind} a critical failure: {mean}{bounds}, {part['n']} questions")
        if audit["difference"] is not None:
            show.line(f"  difference: {audit['difference']:+.3f}")


def _agreement_table(found: dict[str, Any]) -> None:
    from rich.table import Table

    from foundry_pipeline.cli import show

    table = Table(title=f"{found['run']}: {' and '.join(found['judges'])} on {found['answers']} answers")
    for head in ("score", "answers", "alpha", "kappa", "mean spread"):
        table.add_column(head, justify="left" if head == "score" else "right")
    for name, figures in found.items():
        if isinstance(figures, dict):
            shown = ["–" if figures[k] is None else f"{figures[k]:.3f}" for k in ("alpha", "kappa", "mean_spread")]
            table.add_row(name, str(figures["answers"]), *shown)
    show.console().print(table)


def _print(lines: BinaryIO, details: bool) -> None:
    from foundry_pipeline.evaluation.reply_files import read_lines

    counts: Counter[str] = Counter()
    bad = 0
    for row in read_lines(lines, details=details):
        # ASCII alone: half a character in a reply could not be printed otherwise.
        sys.stdout.write(json.dumps(row, ensure_ascii=True, allow_nan=False) + "\n")
        counts[row["status"]] += 1
        bad += "line" in row
    sys.stdout.flush()
    told = ", ".join(f"{counts[name]} {name}" for name in ("scored", "repaired", "unscored"))
    print(f"{told}" + (f"; {bad} lines of the file are no replies" if bad else ""), file=sys.stderr)
