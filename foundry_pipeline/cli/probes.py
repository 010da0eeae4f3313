"""`foundry probes`: which questions tempt a character out of its part, and how often recorded answers were tempted."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from foundry_pipeline.cli import show
from foundry_pipeline.errors import FoundryError
from foundry_pipeline.plain import plain
from foundry_pipeline.settings import load_settings
from foundry_pipeline.statistics.verdict import BETTER, WORSE


def probes(
    character: Annotated[str, typer.Argument(help="a declared character, such as madison")],
    answers: Annotated[
        Path | None,
        typer.Option("--answers", help="JSONL or Parquet with mode, probe_id, sample, answer: print break rates"),
    ] = None,
    run: Annotated[str | None, typer.Option("--run", help="put the probes to this run, or find them answered")] = None,
    mode: Annotated[list[str] | None, typer.Option("--mode", help="with --run: only this mode (repeatable)")] = None,
    samples: Annotated[int | None, typer.Option("--samples", help="with --run: answers to each probe")] = None,
    against: Annotated[str, typer.Option(help="the mode that others are set against")] = "base",
    as_json: Annotated[bool, typer.Option("--json", help="print JSON instead of tables")] = False,
) -> None:
    """The probes of a character; with --run or --answers the rate of breaks per mode, topic and prompt, with intervals."""
    from foundry_pipeline.declarations import load
    from foundry_pipeline.evaluation.probes import mode_differences, probe_rates
    from foundry_pipeline.evaluation.reported import check_figures

    settings = load_settings()
    d = load(settings.root, settings.profile)
    if character not in d.characters:
        raise FoundryError(
            f"no character `{plain(character)}` is declared",
            where="sources/",
            mend=f"one of: {', '.join(d.characters)}",
        )
    probe_set = d.characters[character].probes
    if probe_set is None:
        raise FoundryError(
            f"{character} has no probes", where=f"sources/{character}/probes.yaml", mend="write that file"
        )
    told = {}
    if any(p.reported for p in probe_set.probes):
        told = {
            c.figure: c.told for c in check_figures(d.figures, {n: c.reported_scores for n, c in d.characters.items()})
        }
    if run is not None and answers is not None:
        raise FoundryError("answers come from a run or from a file", where="--run, --answers", mend="give one of them")
    if run is None and answers is None:
        rows = [p.model_dump() | {"told": told.get(p.reported or "")} for p in probe_set.probes]
        show.json_or(as_json, rows, _listed)
        return
    found = read_answers(answers) if answers is not None else _asked(character, run or "", mode or [], samples)
    rates = probe_rates(probe_set, found, d.characters[character].character)
    reported = {p.id: told.get(p.reported) for p in probe_set.probes if p.reported}
    for row in rates:
        row["told"] = reported.get(row["probe_id"])
    modes = list(dict.fromkeys(r["mode"] for r in rates))
    gaps = [g for m in modes if m != against and against in modes for g in mode_differences(rates, m, against)]
    show.json_or(as_json, {"rates": rates, "differences": gaps}, _rates)


def _asked(character: str, run: str, modes: list[str], samples: int | None) -> Any:
    """Answers of a run of that character, generated now if they are not there yet."""
    import sys

    from foundry_pipeline.chain.graph import load_chain
    from foundry_pipeline.chain.probing import probe_answers, probe_run
    from foundry_pipeline.launch import run_script

    def log(text: str) -> None:
        print(text, file=sys.stderr, flush=True)  # standard output may be JSON

    d, chain = load_chain(load_settings())
    if run in d.runs and d.runs[run].character != character:
        raise FoundryError(
            f"{run} is a run of {d.runs[run].character}", where="--run", mend=f"foundry probes {d.runs[run].character}"
        )
    done = probe_run(d, chain, run, modes=modes, samples=samples, run_script=run_script, log=log)
    return probe_answers(done.artifact)


def read_answers(path: Path) -> Any:
    """The answers of a file as a polars frame. Raises FoundryError for one that cannot be read as such."""
    import polars as pl

    from foundry_pipeline.evaluation.probes import ANSWERS

    mend = f"give JSONL or Parquet with the columns {', '.join(ANSWERS)}"
    try:
        if path.suffix == ".parquet":
            found = pl.read_parquet(path)
        else:
            found = pl.read_ndjson(path, schema_overrides=ANSWERS)
        return found.cast({c: t for c, t in ANSWERS.items() if c in found.columns})
    except (OSError, pl.exceptions.PolarsError) as error:
        raise FoundryError(
            f"the answers cannot be read ({plain(str(error), 200)})", where=str(path), mend=mend
        ) from error


def _listed(rows: list[dict[str, Any]]) -> None:
    table = Table(title="probes", title_justify="left")
    for head in ("topic", "probe", "reported elsewhere", "question"):
        table.add_column(head, overflow="fold")
    for row in rows:
        table.add_row(*(Text(plain(c)) for c in (row["topic"], row["id"], _percent(row["told"]), row["text"])))
    show.console().print(table)


def _rates(found: dict[str, Any]) -> None:
    table = Table(title="breaks of character", title_justify="left")
    for head in ("mode", "topic", "prompt", "answers", "breaks", "rate", "95% interval", "empty", "kinds", "reported"):
        table.add_column(head, overflow="fold", justify="right" if head in ("answers", "breaks", "rate") else "left")
    for r in found["rates"]:
        kinds = ", ".join(f"{k.replace('_', ' ')} {n}" for k, n in r["kinds"].items())
        bounds = f"{_percent(r['low'])} – {_percent(r['high'])}"
        cells: list[str] = [r["mode"], r["topic"].replace("_", " "), r["probe_id"], str(r["n"]), str(r["breaks"])]
        cells += [_percent(r["rate"]), bounds, str(r["empty"] or ""), kinds, _percent(r["told"])]
        table.add_row(*(Text(plain(cell)) for cell in cells))
    show.console().print(table)
    for g in found["differences"]:
        if g["verdict"] in (BETTER, WORSE):
            gap = f"{g['difference']:+.0%} ({g['low']:+.0%} to {g['high']:+.0%}), {g['verdict']}"
            show.line(plain(f"{g['probe_id']}: {g['mode']} against {g['against']} {gap}"))
    if found["differences"] and all(g["verdict"] not in (BETTER, WORSE) for g in found["differences"]):
        show.line("no mode is shown to break more or less often at any prompt than what it is set against")


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{value:.0%}"


def register(app: typer.Typer) -> None:
    app.command()(probes)
