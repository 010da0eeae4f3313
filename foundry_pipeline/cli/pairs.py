"""`foundry pairs`: the quality filter on a file of pairs, one's own too."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from foundry_pipeline.cli import show
from foundry_pipeline.errors import FoundryError, MissingArtifact
from foundry_pipeline.settings import load_settings

app = typer.Typer(no_args_is_help=True, help=__doc__)
NO_CHARACTER = "none"


@app.callback()
def _group() -> None:
    """The quality filter on a file of pairs, one's own too."""


@app.command()
def check(
    file: Annotated[
        Path, typer.Argument(help="Parquet or JSON lines: prompt, chosen, rejected; texts or conversations")
    ],
    character: Annotated[
        str | None,
        typer.Option(
            help=f"whose vocabulary, suite and held-out texts apply; `{NO_CHARACTER}`: only rules without them"
        ),
    ] = None,
    profile: Annotated[str | None, typer.Option(help="whose thresholds apply (default: the present profile)")] = None,
    out: Annotated[Path | None, typer.Option(help="write the kept rows there, .parquet or .jsonl")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="print one JSON document instead of tables")] = False,
) -> None:
    """Say which pairs the quality filter keeps, which it drops, and why. The file itself is not changed.

    The exit code is 0 when the file could be checked, whatever was found in it.
    """
    from foundry_pipeline.chain.graph import load_chain
    from foundry_pipeline.pairs.check import check_pairs
    from foundry_pipeline.pairs.pair_files import read_pair_file, write_kept

    settings = load_settings()
    d, chain = load_chain(replace(settings, profile=profile or settings.profile))
    name = _character(character, sorted(d.characters))
    files = d.characters[name] if name else None
    unknown, absent = _unknown(chain, files)
    read = read_pair_file(file)
    report, kept = check_pairs(
        read,
        d.profile.filters,
        character=files.character if files else None,
        unknown=unknown,
        absent=absent,
        progress=_progress(read.pairs.height),
    )
    report = {**report, "profile": d.profile.profile}
    if out is not None:
        write_kept(read, kept, out)
        report["out"] = str(out)
    show.json_or(as_json, report, _table)


def _character(asked: str | None, known: list[str]) -> str | None:
    """The character that is asked for; without a question the project's only one."""
    if asked == NO_CHARACTER:
        return None
    if asked is None and len(known) == 1:
        return known[0]
    if asked not in known:
        what = "the project has several characters" if asked is None else f"no character is named `{asked}`"
        raise FoundryError(what, where="--character", mend=f"name one of: {', '.join([*known, NO_CHARACTER])}")
    return asked


def _unknown(chain: Any, files: Any) -> tuple[Any, str]:
    """The texts that no pair may know, and why the held-out ones are not known where they are not."""
    from foundry_pipeline.chain.frames import held_out_texts, read_frame, suite_texts
    from foundry_pipeline.pairs.filters import Unknown

    if files is None:
        return Unknown(None, None), "no character is named"
    suite = tuple(suite_texts(files))
    try:
        passages = chain.require(f"{files.character.character}_passages").artifact
    except MissingArtifact as error:
        return Unknown(suite, None), f"the held-out texts are not built; {error.mend}"
    return Unknown(suite, tuple(held_out_texts(read_frame(passages, "passages")))), ""


def _progress(total: int) -> Any:
    """A line on a terminal's stderr, for files that take a while; nothing anywhere else."""
    if total < 50_000 or not sys.stderr.isatty():
        return lambda rows: None
    return lambda rows: print(f"\r{rows:,} of {total:,} rows", end="\n" if rows == total else "", file=sys.stderr)


def _table(report: dict[str, Any]) -> None:
    who = f"character {report['character']}" if report["character"] else "no character"
    show.line(f"{report['file']} ({report['format']}), {who}, thresholds of the profile {report['profile']}")
    if report["dropped_rows"]:
        show.line("")
        for row in report["dropped_rows"]:
            name = f" {row['prompt_id']}" if row["prompt_id"] else ""
            also = f" (also: {', '.join(row['all_rules'][1:])})" if row["all_rules"][1:] else ""
            show.line(f"{row['place']}{name}: {row['rule']}: {row['reason']}{also}")
    show.line("")
    table = Table()
    for head in ("rule", "dropped by it first", "fired in all"):
        table.add_column(head, justify="left" if head == "rule" else "right", no_wrap=True)
    for rule, counts in report["rules"].items():
        table.add_row(escape(rule), str(counts["dropped"]), str(counts["fired"]))
    show.console(120).print(table)
    for rule, why in report["not_applied"].items():
        show.line(f"not applied: {rule} ({why})")
    for rule, rows in report["unsure"].items():
        show.line(f"passed without a judgment: {rule}, {rows} rows (too short, or not clear)")
    if report["read_as"]:
        changes = ", ".join(f"{what} in {count} texts" for what, count in report["read_as"].items())
        show.line(f"read in normal form: {changes}")
    show.line(f"{report['rows']} rows: {report['kept']} kept, {report['dropped']} dropped")
    if "out" in report:
        show.line(f"kept rows, as they stood: {report['out']}")
