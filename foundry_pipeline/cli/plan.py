"""`foundry plan`: what the declared runs will take, before any of them is started."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from foundry_pipeline.cli import show
from foundry_pipeline.plain import plain
from foundry_pipeline.settings import load_settings

NONE = "–"
WAYS = {"bfloat16": "bf16 LoRA", "float32": "fp32 LoRA", "nf4": "QLoRA nf4"}


def plan(
    run: Annotated[str | None, typer.Argument(help="a declared run, such as madison_r2; empty: all of them")] = None,
    profile: Annotated[str | None, typer.Option(help="plan under this profile (FOUNDRY_PROFILE otherwise)")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="print JSON instead of tables")] = False,
) -> None:
    """Rows, steps, tokens, memory, FLOPs, time and cost of each declared run. Builds nothing and asks nobody."""
    from foundry_pipeline.chain.evaluate import known_run
    from foundry_pipeline.chain.graph import load_chain
    from foundry_pipeline.chain.planning import plan as planned

    here = load_settings()
    d, chain = load_chain(replace(here, profile=profile or here.profile))
    if run is not None:
        known_run(d, run)
    show.json_or(as_json, planned(d, chain, [run] if run else sorted(d.runs)), view)


def register(app: typer.Typer) -> None:
    app.command()(plan)


def view(found: dict[str, Any]) -> None:
    """Two tables, what is declared and what it takes, and what was assumed, line by line."""
    counts = _table(f"runs under the profile {found['profile']}", ("run", "method", "rows from"))
    for head in ("pairs", "rows an epoch", "validation rows", "epochs", "steps", "reported", "kept on the way"):
        counts.add_column(head, justify="right")
    for r in found["runs"]:
        counts.add_row(
            _text(r["run"]), r["method"], r["rows_source"], f"{r['pairs']:,}", f"{r['rows_per_epoch']:,}",
            f"{r['validation_rows']:,}", str(r["epochs"]), f"{r['steps']:,}", _reported(r["reported_steps"]),
            ", ".join(f"{name}: {step}" for name, step in r["checkpoints"].items()) or NONE,
        )  # fmt: skip
    show.console().print(counts)
    takes = _table("what they take", ("run", "base"))
    gpu, ways = found["gpu"], _ways(found)
    heads = ["LoRA", "tokens", *(f"GiB, {WAYS[way]}" for way in ways)]
    heads += (
        ["PFLOP, planned", "hours, planned", "USD, planned"]
        if gpu
        else ["peak GiB, measured", "as measured of", "minutes"]
    )
    for head in heads:
        takes.add_column(head, justify="right")
    for r in found["runs"]:
        takes.add_row(
            _text(r["run"]),
            _text(r["base_title"]),
            NONE if r["trained_parameters"] is None else f"{r['trained_parameters'] / 1e6:.1f} M",
            NONE if r["tokens"] is None else f"{r['tokens']:,}",
            *(_gib(r["memory"], way) for way in ways),
            *(_planned(r["planned"]) if gpu else _measured(r["measured"])),
        )
    show.console().print(takes)
    for text in _notes(found):
        show.line(plain(text, 400))


def _table(title: str, left: tuple[str, ...]) -> Table:
    table = Table(title=title, title_justify="left")
    for head in left:
        table.add_column(head, no_wrap=head == "run")
    return table


def _text(value: object) -> Text:
    return Text(plain(str(value), 80))


def _reported(told: dict[str, Any] | None) -> str:
    return NONE if told is None else f"{'about ' if told['about'] else ''}{told['steps']:,}"


def _ways(found: dict[str, Any]) -> list[str]:
    return list(dict.fromkeys(w for r in found["runs"] for w, v in (r["memory"] or {}).items() if isinstance(v, dict)))


def _gib(told: dict[str, Any] | None, way: str) -> str:
    if told is None:
        return NONE
    one = told[way]
    return f"{one['total'] / 2**30:.1f}" + ("" if one.get("fits", True) else " (too much)")


def _planned(told: dict[str, Any] | None) -> tuple[str, str, str]:
    if told is None:
        return NONE, NONE, NONE
    return f"{told['flops'] / 1e15:,.0f}", f"{told['seconds'] / 3600:.2f}", f"{told['usd']:.2f}"


def _measured(told: dict[str, Any] | None) -> tuple[str, str, str]:
    if told is None:
        return NONE, NONE, NONE
    peak = told["peak_memory_bytes"]
    return NONE if peak is None else f"{peak / 2**30:.1f}", told["of"], f"{told['seconds'] / 60:.1f}"


def _held(told: dict[str, Any], gpu: dict[str, Any] | None) -> str:
    """How the profile declares that it trains, and whether that fits."""
    way, processes = told["declared"], told["processes"]
    spread = "one process" if processes == 1 else f"{processes} processes"
    if told["sharding"] == "fsdp":
        spread += ", each with its part of the frozen layers"
    said = f"as declared: {WAYS[way]} in {spread}"
    if gpu and not told[way].get("fits", True):
        other = next((w for w in WAYS if w != way and w in told and told[w].get("fits")), None)
        said += f"; this does NOT fit into {gpu['memory_gib']:g} GiB: set `compute` of the profile"
        said += f" (`weights: {other}` fits)" if other == "nf4" else " (`sharding: fsdp` over more `processes`)"
    return said


def _notes(found: dict[str, Any]) -> list[str]:
    runs, gpu, total = found["runs"], found["gpu"], found["total"]
    notes = []
    if gpu:
        notes.append(
            f"planned, not measured: {gpu['name']}, {gpu['peak_tflops']:g} TFLOP/s at {gpu['utilisation']:.0%}, "
            f"{gpu['memory_gib']:g} GiB, {gpu['usd_per_hour']:g} USD an hour ({gpu['source']})"
        )
        if total["planned_seconds"] is not None:
            hours = total["planned_seconds"] / 3600
            notes.append(f"training of all of these: {hours:.1f} hours, {total['planned_usd']:.2f} USD, planned")
    elif total["measured_seconds"] is not None:
        notes.append(
            f"training of those with a time: {total['measured_seconds'] / 60:.1f} minutes, by measured seconds a pair"
        )
    notes += list(dict.fromkeys(_held(r["memory"], gpu) for r in runs if r["memory"]))
    processes = {r["memory"]["processes"] for r in runs if r["memory"]}
    if processes:
        shared = "" if processes == {1} else f", of each of {max(processes)} processes"
        notes.append(
            f"memory is reckoned for rows of the greatest admitted length{shared}; drivers and allocator come on top"
        )
    for source in dict.fromkeys(
        f"{r['base_title']}: architecture from {r['shape_source']}" for r in runs if r["shape"]
    ):
        notes.append(source)
    for r in runs:
        if r["parameters_as_declared"] is False:
            notes.append(
                f"{r['run']}: the architecture has {r['shape']['parameters']:,} parameters, and the profile declares another "
                "number: correct one of them"
            )
    notes += list(dict.fromkeys(r["shape_unknown"] for r in runs if r["shape_unknown"]))
    notes += list(dict.fromkeys(f"tokens {r['lengths_source']}" for r in runs))
    if any(r["stand_in"] for r in runs):
        notes.append("every base is a stand-in here; `foundry plan --profile full` plans the declared ones")
    return notes
