"""The page of the ladder: every declared run, what was measured here beside what was reported elsewhere, never mixed.

    write_ladder_report(chain, d)   → …/reports/ladder.html

One file like the report of a run: nothing is loaded, nothing runs, light or dark as the reader has it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from foundry_pipeline.chain.engine import Chain
from foundry_pipeline.declarations import Declarations
from foundry_pipeline.evaluation.comparison import figures as as_figures
from foundry_pipeline.reports import tables, wording
from foundry_pipeline.reports.data import label, mode_title
from foundry_pipeline.reports.ladder_data import LadderData, Rung, gather_ladder
from foundry_pipeline.reports.ladder_figures import ladder_figures, series
from foundry_pipeline.reports.ladder_heat import heat_maps
from foundry_pipeline.reports.pages import render_page, write_page
from foundry_pipeline.reports.svg import swatch
from foundry_pipeline.reports.tables import Tile
from foundry_pipeline.reports.wording import NONE, listed, many, number, span
from foundry_pipeline.statistics.stated import stated
from foundry_pipeline.statistics.verdict import BETTER, WORSE

TEMPLATE = "ladder_report.html.jinja"


def ladder_path(reports: Path) -> Path:
    return reports / "ladder.html"


def write_ladder_report(chain: Chain, d: Declarations) -> Path:
    """Write the page and return where it is. Raises what `gather_ladder` raises, FoundryError where it cannot be written."""
    page = render_ladder(gather_ladder(d, chain))
    return write_page(
        ladder_path(chain.settings.reports), page, what="the ladder's page", again="foundry ladder --html"
    )


def render_ladder(data: LadderData) -> str:
    """The page as HTML. Pure: equal data give the same bytes."""
    filters = {"num": number, "label": label, "mode": mode_title, "duration": wording.duration, "plain": tables.plain}
    return render_page(TEMPLATE, filters, _context(data))


def _context(data: LadderData) -> dict[str, Any]:
    return {
        "d": data,
        "rows": [_row(rung) for rung in data.rungs],
        "findings": findings(data),
        "tiles": tiles(data),
        "figures": ladder_figures(data),
        "heats": heat_maps(data),
        "span": span,
        "percent": wording.percent,
        "swatch": swatch,
        "series": series,
    }


def _row(rung: Rung) -> dict[str, Any]:
    """One row of the table, laid out."""
    m = rung.measured
    state = rung.row["state"]
    return {
        "rung": rung,
        "state": "" if m is not None else state,
        "notes": [*rung.row["notes"]],
        "gap": None
        if m is None or m["against_base"] is None
        else stated(
            {
                "difference": m["against_base"],
                "low": m["against_base_low"],
                "high": m["against_base_high"],
                "verdict": m["against_base_verdict"],
            }
        ),
        "highest": _beside_highest(rung),
        "breaks": NONE if not rung.breaks or rung.breaks["rate"] is None else f"{100 * rung.breaks['rate']:.0f} %",
    }


def _beside_highest(rung: Rung) -> str:
    return NONE if rung.against_highest is None else stated(as_figures(rung.against_highest))


def findings(data: LadderData) -> list[str]:
    """What the rows show, written from their verdicts."""
    held = data.measured
    if not held:
        return ["Nothing of this ladder is measured yet: make ladder builds and judges every run."]
    said = [
        f"{many(len(held), 'row')} of {many(len({r.run for r in data.rungs}), 'declared run')} "
        f"{'is' if len(held) == 1 else 'are'} measured, by {listed(list(data.judges))}."
    ]
    against = [(r.measured or {})["against_base_verdict"] for r in held]
    known = [v for v in against if v is not None]
    if known:
        better, worse = known.count(BETTER), known.count(WORSE)
        rest = len(known) - better - worse
        said.append(
            f"Against their own untuned base {better} of {len(known)} are better, {worse} worse, and of {rest} "
            "nothing may be claimed."
        )
    ranked = sorted(data.comparable, key=lambda r: -(r.measured or {})["overall"])
    if len(ranked) > 1:
        top = ranked[0]
        level = [r for r in ranked[1:] if r.against_highest and r.against_highest.verdict not in (BETTER, WORSE)]
        below = [r for r in ranked[1:] if r.against_highest and r.against_highest.verdict == WORSE]
        m = top.measured or {}
        said.append(
            f"The highest score, {number(m['overall'])} ({span(m['low'], m['high'])}), is that of {top.title}; "
            f"{len(below)} of the other {len(ranked) - 1} are shown to be worse, and of {len(level)} that may not be said."
        )
    for rung in held:
        if rung.same:
            said.append(
                f"{rung.run} and {listed(list(rung.same))} stand on one adapter: equal rows are one result, told twice."
            )
            break
    return said


def tiles(data: LadderData) -> list[Tile]:
    held = data.measured
    out = [
        Tile(
            f"{len({r.run for r in held})} of {len({r.run for r in data.rungs})}",
            "runs measured",
            f"profile {data.profile}",
        )
    ]
    if held:
        top = max(held, key=lambda r: (r.measured or {})["overall"])
        m = top.measured or {}
        out.append(Tile(number(m["overall"]), "highest score", f"{top.title}; by {m['judge']}"))
        lowest = min(held, key=lambda r: (r.measured or {}).get("nats_per_token") or float("inf"))
        nats = (lowest.measured or {}).get("nats_per_token")
        if nats is not None:
            out.append(Tile(number(nats, 3), "lowest held-out loss", f"{lowest.title}; nats per token"))
    out.append(Tile(wording.duration(data.build_seconds), "to build all of it", "every stage counted once"))
    return out
