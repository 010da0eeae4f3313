"""Datasets in the terminal: differences, checks, versions; readable in 80 columns.

Every cell is a `rich.text.Text` made from `plain`: a pair may hold escape sequences or markup, and neither is obeyed.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from foundry_pipeline.plain import plain
from foundry_pipeline.reports.tables import bound, observed
from foundry_pipeline.statistics.stated import measured

WIDTH = 80
_MINUS = "\N{MINUS SIGN}"


def console() -> Console:
    """The terminal's own width, and 80 columns for a pipe; markup, emoji names and highlighting are off."""
    width = None if sys.stdout.isatty() else WIDTH
    return Console(file=sys.stdout, width=width, markup=False, emoji=False, highlight=False)


def number(value: float | int | None, digits: int = 1, *, sign: bool = False) -> str:
    if value is None:
        return "–"
    text = f"{value:,}" if isinstance(value, int) else f"{value:,.{digits}f}"
    if sign:
        text = f"+{text}" if value > 0 else text if value < 0 else "±0"
    return text.replace("-", _MINUS)


def _table(*heads: str, right: Sequence[int] = ()) -> Table:
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    for i, head in enumerate(heads):
        table.add_column(Text(head), justify="right" if i in right else "left", overflow="fold")
    return table


def _row(table: Table, *cells: Any) -> None:
    table.add_row(*(Text(plain(str(cell))) for cell in cells))


# -- diff --------------------------------------------------------------------------------------------------------------


def diff_view(diff: Mapping[str, Any], samples: int) -> None:
    """The difference of two versions, with at most `samples` rows shown of each kind of change."""
    out, left, right = console(), diff["left"], diff["right"]
    out.print(Text(f"{plain(left['name'])} {left['content_hash'][:12]}  →  "), end="")
    out.print(Text(f"{plain(right['name'])} {right['content_hash'][:12]}"))
    rows = diff["rows"]
    out.print(
        Text(
            f"{rows['same']:,} rows the same · {rows['added']:,} added · {rows['removed']:,} removed · "
            f"{rows['changed']:,} changed · {rows['reshown']:,} shown more or less often"
        )
    )
    sides = {side: n for side, n in diff["changed_sides"].items() if n}
    if sides:
        out.print(Text("changed: " + ", ".join(f"{side} in {n:,}" for side, n in sides.items())))
    out.print()
    out.print(_figures(diff))
    if any(sum(d.values()) for d in diff["by"]["origins"].values()):
        for name, title in (("origins", "origin"), ("categories", "category")):
            out.print(_by(diff, name, title))
    _causes(out, diff["causes"])
    _scores(out, diff["scores"])
    for kind in ("added", "removed"):
        _samples(out, kind, diff["details"][kind], samples, _whole)
    _samples(out, "changed", diff["details"]["changed"], samples, _changes)


def _figures(diff: Mapping[str, Any]) -> Table:
    left, right = diff["left"], diff["right"]
    table = _table("", "left", "right", "difference", right=(1, 2, 3))
    _row(table, "built", left["built_at"][:16] or "–", right["built_at"][:16] or "–", "")
    _row(table, "as declared now", *("yes" if v["current"] else "no" for v in (left, right)), "")

    def line(title: str, get: Callable[[Mapping[str, Any]], float | int | None], digits: int = 1) -> None:
        a, b = get(left), get(right)
        moved = None if a is None or b is None else b - a
        if a is not None or b is not None:
            shown = "" if moved is None else number(moved, digits, sign=True)
            _row(table, title, number(a, digits), number(b, digits), shown)

    def mean(group: str, side: str) -> Callable[[Mapping[str, Any]], float | None]:
        return lambda v: ((v[group] or {}).get(side) or {}).get("mean")

    line("rows", lambda v: v["rows"])
    line("shown in an epoch", lambda v: v["shown"])
    for side in ("prompt", "chosen", "rejected"):
        line(f"words, {side}", mean("words", side))
    for side in ("prompt", "chosen", "rejected"):
        line(f"tokens, {side}", mean("tokens", side))
    line("tokens in an epoch", lambda v: (v["tokens"] or {}).get("shown"))
    line("voice contrast", lambda v: (v["voice_contrast"] or {}).get("mean"), 4)
    passages = diff["passages"]
    _row(table, "passages", number(passages["left"]), number(passages["right"]), f"{passages['shared']:,} shared")
    _row(table, "checks", *(_checks(v["checks"]) for v in (left, right)), "")
    _row(table, "pairs kept by filters", *(_sieve(v["filters"]) for v in (left, right)), "")
    if diff["tokenizer"]["reason"]:
        _row(table, "tokens", "–", "–", diff["tokenizer"]["reason"])
    return table


def _checks(found: Mapping[str, Any] | None) -> str:
    if found is None:
        return "not checked"
    warned = f", {len(found['warnings'])} warnings" if found["warnings"] else ""
    return ("passed" if found["passed"] else f"FAILED: {', '.join(found['failed'])}") + warned


def _sieve(found: Mapping[str, Any] | None) -> str:
    return "not known" if found is None else f"{found['kept']:,} of {found['kept'] + sum(found['dropped'].values()):,}"


def _by(diff: Mapping[str, Any], name: str, title: str) -> Table:
    table = _table(title, "added", "removed", "changed", "shown: left", "right", "diff.", right=(1, 2, 3, 4, 5, 6))
    table.columns[0].min_width = 23  # the longest of the six categories in one line, within 80 columns
    counts, shown = diff["by"][name], diff["shown"][name]
    for value in dict.fromkeys([*shown, *counts["added"], *counts["removed"], *counts["changed"]]):
        of = shown.get(value, {"left": 0, "right": 0, "difference": 0})
        changes = (number(counts[kind].get(value, 0)) for kind in ("added", "removed", "changed"))
        _row(table, value, *changes, number(of["left"]), number(of["right"]), number(of["difference"], sign=True))
    return table


def _causes(out: Console, causes: Mapping[str, Any]) -> None:
    lines = [
        f"declared {c['field']}: {plain(str(c['left']), 60)} → {plain(str(c['right']), 60)}" for c in causes["declared"]
    ]
    for c in causes["inputs"]:
        a, b = (str(c[side])[:12] if c[side] else "none" for side in ("left", "right"))
        lines.append(f"input {c['input']}: {a} → {b}")
    if causes["code"]:
        lines.append("code: another version of the modules that put a dataset together")
    out.print(Text("made differently from:" if lines else "made from the same declarations, inputs and code"))
    for line in lines[:20]:
        out.print(Text(f"  {plain(line)}"))
    if len(lines) > 20:
        out.print(Text(f"  … {len(lines) - 20} more (--json)"))
    out.print()


def _scores(out: Console, scores: Mapping[str, Any]) -> None:
    found = scores["comparisons"]
    if not found:
        runs = ", ".join(sorted({*scores["left_runs"], *scores["right_runs"]}))
        why = (
            f"no two of one judge, suite, mode and base (scored: {plain(runs)})"
            if runs
            else "no run on either is scored"
        )
        out.print(Text(f"scores: {why}\n"))
        return
    table = _table("mode", "judge", "left run", "overall", "right run", "overall", right=(3, 5))
    for c in found:
        a, b = c["left"], c["right"]
        _row(
            table,
            c["mode"],
            f"{c['judge']} {c['judge_version'][:6]}",
            a["run"],
            number(a["overall"], 2),
            b["run"],
            number(b["overall"], 2),
        )
    out.print(Text("scores of runs trained on either (the runs may differ in more than their data)"))
    out.print(table)
    for c in found:
        _joined(out, c)


def _joined(out: Console, comparison: Mapping[str, Any]) -> None:
    """One comparison by category: the pairs of a category beside its points."""
    found = comparison["joined"]
    names = (
        comparison["left"]["run"],
        comparison["right"]["run"],
        comparison["mode"],
        f"{comparison['judge']} {comparison['judge_version'][:6]}",
    )
    one, two, mode, judge = (plain(str(name)) for name in names)
    asked = found["overall"]["n"]
    out.print(Text(f"{one} → {two} · {mode} · {judge}" + (f", {asked} questions one by one" if asked else "")))
    table = _table("category", "pairs", "left", "right", "difference", right=(1, 2, 3))
    table.columns[0].min_width = 23  # the longest of the six categories in one line, within 80 columns
    for c in found["categories"]:
        pairs = c["pairs"]
        moved = f"{number(pairs['left'])} → {number(pairs['right'])}"
        _row(table, c["category"], moved, number(c["left"], 2), number(c["right"], 2), _said(c))
    a, b = (comparison[side]["overall"] for side in ("left", "right"))
    _row(table, "overall", "", number(a, 2), number(b, 2), _said(found["overall"]))
    out.print(table)
    if found["how"] != "paired":
        out.print(Text(plain(found["how"])))


def _said(found: Mapping[str, Any]) -> str:
    return measured(found) + (f"\n{found['verdict']}" if found["difference"] is not None else "")


def _samples(
    out: Console, kind: str, rows: Sequence[Mapping[str, Any]], samples: int, show: Callable[..., None]
) -> None:
    if not rows or samples < 1:
        return
    out.print(Text(f"{kind}: {min(samples, len(rows))} of {len(rows):,}", style="bold"))
    for row in rows[:samples]:
        show(out, row)
    out.print()


def _whole(out: Console, row: Mapping[str, Any]) -> None:
    _head(out, row)
    for side in ("prompt", "chosen", "rejected"):
        if row[side] is not None:
            out.print(Text(f"    {side:<9}{plain(row[side], 150)}"))


def _changes(out: Console, change: Mapping[str, Any]) -> None:
    left, right = change["left"], change["right"]
    _head(out, right)
    for side in change["sides"]:
        for sign, row in ((_MINUS, left), ("+", right)):
            out.print(Text(f"  {sign} {side:<9}{plain(str(row[side]), 150)}"))


def _head(out: Console, row: Mapping[str, Any]) -> None:
    about = " · ".join(plain(str(row[name]), 40) for name in ("prompt_id", "origin", "category"))
    out.print(Text(f"  {str(row['pair_id'])[:12]}  {about}"))


# -- checks, versions --------------------------------------------------------------------------------------------------


def checks_view(verdict: Mapping[str, Any], page: str) -> None:
    """Every expectation of a verdict with its bound and what was observed, and where its page is."""
    out = console()
    state = "passed" if verdict["passed"] else "FAILED: training on it is refused"
    out.print(Text(f"{plain(verdict['dataset'])} {verdict['dataset_hash'][:12]}: {state}"))
    table = _table("expectation", "severity", "", "observed", "bound", right=(3,))
    for r in verdict["results"]:
        mark = "ok" if r["passed"] else "FAILED" if r["severity"] == "error" else "warning"
        _row(table, r["name"], r["severity"], mark, observed(r), bound(r["bound"]))
    out.print(table)
    for r in verdict["results"]:
        if not r["passed"] and r["sample"]:
            shown = ", ".join(str(i)[:12] for i in r["sample"])
            out.print(Text(f"{r['name']}: {plain(shown)}"))
    print(f"page: {page}", flush=True)


def versions_view(rows: Sequence[Mapping[str, Any]]) -> None:
    """Every content of a dataset that the store holds, oldest first."""
    if not rows:
        print("no version of it is in this store", flush=True)
        return
    table = _table("content hash", "built", "rows", "shown", "size", "", right=(2, 3, 4))
    for r in rows:
        _row(
            table,
            r["content_hash"][:16],
            r["built_at"][:16],
            number(r["rows"]),
            number(r["shown"]),
            "–" if r["size_factor"] is None else f"{r['size_factor']:g}",
            "as declared now" if r["current"] else "",
        )
    console().print(table)
