"""The page of one run: what was measured, from which data, and what it looked like.

    write_report(chain, d, "madison_r2")   → …/reports/madison_r2.html

One file that loads nothing and runs nothing: style and plots are inline, there is no script, and its content security
policy refuses any, so that an answer that holds markup is text whatever happens.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from foundry_pipeline.chain.engine import Chain
from foundry_pipeline.declarations import Declarations
from foundry_pipeline.reports import tables, wording
from foundry_pipeline.reports.data import ReportData, label, mode_title
from foundry_pipeline.reports.figures import figures
from foundry_pipeline.reports.gather import gather
from foundry_pipeline.reports.judge_notes import judge_notes
from foundry_pipeline.reports.pages import render_page, write_page
from foundry_pipeline.reports.part import diversity_rows, probes_section
from foundry_pipeline.reports.serving import section
from foundry_pipeline.reports.svg import swatch

TEMPLATE = "run_report.html.jinja"


def report_path(reports: Path, run: str) -> Path:
    return reports / f"{run}.html"


def write_report(chain: Chain, d: Declarations, run: str) -> Path:
    """Write the page of an evaluated run and return where it is. A reader sees the old page or the new one.

    Raises what `gather` raises, and FoundryError when the page cannot be written.
    """
    page = render_report(gather(chain, d, run))
    return write_page(report_path(chain.settings.reports, run), page, what="the report", again=f"foundry report {run}")


def render_report(data: ReportData) -> str:
    """The page as HTML. Pure: equal data give the same bytes."""
    filters = {
        "num": wording.number,
        "count": wording.count,
        "label": label,
        "mode": mode_title,
        "duration": wording.duration,
        "plain": tables.plain,
        "bound": tables.bound,
        "observed": tables.observed,
        "web": tables.web_link,
    }
    return render_page(TEMPLATE, filters, _context(data))


def _context(data: ReportData) -> dict[str, Any]:
    return {
        "d": data,
        "findings": wording.findings(data),
        "tiles": tables.tiles(data),
        "categories": tables.categories(data),
        "figures": figures(data),
        "licenses": list(dict.fromkeys(source.license.rstrip(".") for source in data.sources)),
        "samples": tables.samples(data),
        "origins": tables.origins(data.dataset) if data.dataset else [],
        "hyperparameters": tables.hyperparameters(data.training) if data.training else [],
        "training_facts": tables.training_facts(data.training) if data.training else [],
        "serving": section(data.served) if data.served else None,
        "probes": probes_section(data) if data.probed else None,
        "diversity": diversity_rows(data),
        "span": wording.span,
        "percent": wording.percent,
        "comparison": wording.comparison,
        "judge_notes": judge_notes(data),
        "swatch": swatch,
    }
