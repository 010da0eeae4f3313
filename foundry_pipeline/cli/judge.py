"""`foundry judge`: what a judge replied, and what it comes to."""

from __future__ import annotations

import json
import sys
from collections import Counter
from pathlib import Path
from typing import Annotated, BinaryIO

import typer

from foundry_pipeline.errors import FoundryError

app = typer.Typer(no_args_is_help=True, help=__doc__)


@app.callback()
def _group() -> None:
    """What a judge replied, and what it comes to."""


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
