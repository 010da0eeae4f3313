"""Tables and trees for the terminal."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from foundry_pipeline.errors import FoundryError
from foundry_pipeline.plain import plain
from foundry_pipeline.statistics.stated import stated


class SafeConsole(Console):
    """A console that obeys nothing in what it shows: text that is not yet a `Text` is made plain, line by line."""

    def render_str(self, text: str, **options: Any) -> Text:
        return super().render_str(_harmless(text), **options)


def console(width_of_pipe: int = 220) -> Console:
    # A pipe has no width of its own: tables must not be cut to 80 columns there.
    width = None if sys.stdout.isatty() else width_of_pipe
    return SafeConsole(file=sys.stdout, width=width, highlight=False, soft_wrap=False)


def line(text: str) -> None:
    """One or more lines for people; whatever they quote, the terminal obeys none of it."""
    print(_harmless(text), flush=True)


def _harmless(text: str) -> str:
    return "\n".join(map(plain, text.split("\n")))


def told(error: FoundryError) -> str:
    """An error as it is printed: it may quote a name or a text, which a terminal must not obey."""
    return f"error: {_harmless(str(error))}"


def json_or(as_json: bool, data: Any, table: Callable[[Any], None]) -> None:
    """Print data as JSON, or through its table."""
    if as_json:
        # ASCII alone: names and texts may hold characters that a terminal would obey.
        print(json.dumps(data, indent=1, ensure_ascii=True, sort_keys=False, default=str))
    else:
        table(data)


def _number(value: float | None, digits: int = 2) -> str:
    return "–" if value is None else f"{value:.{digits}f}"


def summary_table(summary: dict[str, Any]) -> None:
    """Serving modes of one run: overall with interval, six categories, failures, held-out text, overlap."""
    judge = summary["judge"]["name"]
    modes = summary["modes"]
    categories = sorted({c for m in modes.values() for c in m["categories"]})
    table = Table(title=f"{summary['run']} · judged by {judge} · {summary['prompts']} prompts", title_justify="left")
    for head in ("mode", "overall", "95 % interval", "against base"):
        table.add_column(head, justify="left" if head == "mode" else "right", no_wrap=True)
    for category in categories:
        table.add_column(category.replace("_", " "), justify="right")
    for head in ("critical failures", "held-out nats/token", "in whole documents", "longest overlap, words"):
        table.add_column(head, justify="right")
    for mode, m in modes.items():
        paired = summary["paired"].get(mode)
        versus = "–" if paired is None else stated(paired)
        table.add_row(
            mode,
            _number(m["overall"]["mean"]),
            f"{_number(m['overall']['low'])} – {_number(m['overall']['high'])}",
            versus,
            *[_number(m["categories"].get(c, {}).get("mean")) for c in categories],
            str(m["critical_failures"]),
            _number(m.get("nats_per_token"), 3),
            _number(m.get("nats_per_token_in_context"), 3),
            str(m["longest_overlap"]["max_words"]),
        )
    console().print(table)
    for mode, m in modes.items():
        if m["unscored"] and (bounds := m.get("unscored_bounds")):
            line(
                f"{mode}: {m['unscored']} answers unscored; the overall lies between {_number(bounds['low'])} "
                f"(were each worth 0) and {_number(bounds['high'])} (were each worth 10)"
            )


def scores_table(rows: list[dict[str, Any]]) -> None:
    """Rows of the ledger; measured ones only, the judge in a column of its own."""
    if not rows:
        line("the ledger holds no score yet; make madison builds and judges the first run")
        return
    heads = ("score", "recorded", "run", "mode", "seeds", "profile", "judge", "overall", "interval", "against base")
    table = _table("measured scores", (*heads, "critical", "unscored", "nats/token", "dataset"))
    for r in rows:
        versus = "–" if r["paired_difference"] is None else f"{r['paired_difference']:+.2f}"
        _cells(
            table,
            r["score_id"][:10],
            r["recorded_at"][:16],
            r["run"],
            r["mode"],
            _seeds(r),
            r["profile"],
            r["judge"],
            _number(r["overall"]),
            f"{_number(r['overall_low'])} – {_number(r['overall_high'])}",
            versus,
            r["critical_failures"],
            r["parse_failures"],
            _number(r["nats_per_token"], 3),
            f"{r['dataset']} {r['dataset_hash'][:8]}",
        )
    console().print(table)


def _seeds(row: dict[str, Any]) -> str:
    """Training seed, sampling seed and, where there was more than one, the repeat of the judge."""
    told = ["–" if row[name] is None else str(row[name]) for name in ("training_seed", "sampling_seed")]
    return " · ".join((*told, *([f"j{row['judge_repeat']}"] if row["judge_repeat"] else [])))


def reported_table(rows: list[dict[str, Any]]) -> None:
    """Figures published elsewhere, said to be so."""
    heads = ("row", "run", "serving", "base", "dataset", "raw", "corrected", "date")
    table = _table("reported elsewhere, not measured here", heads)
    for r in rows:
        told = (r["row"], r["run"], r["serving"], r["base"], r["dataset"])
        _cells(table, *told, _number(r["raw"]), _number(r["corrected"]), r["date"])
    console().print(table)


def _table(title: str, heads: tuple[str, ...]) -> Table:
    table = Table(title=title, title_justify="left")
    for head in heads:
        table.add_column(head, no_wrap=True)
    return table


def _cells(table: Table, *cells: Any) -> None:
    # A ledger may be shared: what stands in it is shown, never read as markup or obeyed by the terminal.
    table.add_row(*(Text(plain(str(cell))) for cell in cells))


def status_table(rows: list[dict[str, Any]]) -> None:
    table = Table()
    for head in ("asset", "kind", "content hash"):
        table.add_column(head, no_wrap=True)
    for r in rows:
        missing = f"waits for {', '.join(r['missing'][:3])}" if r["missing"] else "not built"
        if r["missing"] == [r["asset"]]:
            missing = "waits for `foundry sources refresh`"
        if r.get("collapsed"):
            missing = f"collapsed at step {r['collapsed']['step']} ({r['collapsed']['rule']})"
        table.add_row(r["asset"], r["kind"], r["content"][:16] if r["built"] else missing)
    console().print(table)


def doctor_table(found: dict[str, Any]) -> None:
    table = Table(show_header=False)
    table.add_column("what", no_wrap=True)
    table.add_column("found")
    for item in found["findings"]:
        table.add_row(
            ("ok  " if item["ok"] else "MEND") + f"  {item['what']}",
            escape(item["found"] + (f"\nmend: {item['mend']}" if item.get("mend") else "")),
        )
    console().print(table)
