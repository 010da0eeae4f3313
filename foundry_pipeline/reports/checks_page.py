"""The page of one dataset's data checks: what was demanded, what was found, which rows fail, what the data are like.

    write_checks_page(chain, d, "madison_dataset_v6")   → …/reports/madison_dataset_v6_checks.html

Made from the verdict that lies beside the dataset, by this project's own template: one file that loads nothing and runs
nothing (Great Expectations' own pages load from a dozen hosts). Texts of rows are escaped, and what a browser would obey
or hide in them (control characters, marks that turn the direction of reading) is written out.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import polars as pl

from foundry_pipeline.chain.dataset_versions import Version, find_version
from foundry_pipeline.chain.engine import Chain
from foundry_pipeline.chain.verdicts import dataset_verdict
from foundry_pipeline.datasets.shape import lengths
from foundry_pipeline.declarations import Declarations
from foundry_pipeline.plain import plain
from foundry_pipeline.reports import svg, tables, wording
from foundry_pipeline.reports.data import label
from foundry_pipeline.reports.pages import render_page, write_page

TEMPLATE = "checks_page.html.jinja"
SHOWN_TEXT = 600  # characters of a failing row's text; the whole is in the dataset
BINS = 12
# What each expectation demands, for a reader who does not know its name.
MEANS = {
    "row_count": "at least so many rows as the recipe wants at this profile's size",
    "pair_id_unique": "no pair stands in the dataset twice",
    "no_nulls": "nothing that training or the trace needs is missing or blank",
    "chosen_length": "words of the chosen side",
    "rejected_length": "words of the rejected side",
    "category_known": "every category is one of the suite's",
    "difficulty_known": "every difficulty is one of the suite's",
    "origin_known": "every origin is one that recipes know",
    "upsample_positive": "every row is shown at least once in an epoch",
    "no_suite_overlap": "no row shares a run of words with a question of the evaluation suite",
    "no_held_out_overlap": "no row shares a run of words with the held-out documents",
    "id_matches_content": "every id is the hash of what its row says",
    "content_hash_matches": "the rows are those that the dataset was stored with",
    "category_share": "largest share of one category",
    "sides_differ": "chosen and rejected do not say the same words",
    "voice_contrast": "mean of voice(chosen) − voice(rejected)",
    "voice_contrast_by_category": "the same mean, in the category where it is smallest",
}


@dataclass(frozen=True)
class ChecksData:
    """Everything the page says; plain values, no artifact. `rows` are those named in a verdict's samples, by pair_id."""

    name: str
    description: str
    method: str
    profile: str
    verdict: dict[str, Any]
    frame: pl.DataFrame
    facts: dict[str, Any] = field(default_factory=dict)
    sieve: dict[str, Any] | None = None
    order: str = "shuffle"
    unserved: dict[str, str] = field(default_factory=dict)


def checks_path(reports: Path, dataset: str) -> Path:
    return reports / f"{dataset}_checks.html"


def write_checks_page(chain: Chain, d: Declarations, dataset: str) -> Path:
    """Write the page of a built dataset and return where it is; its checks are run first if they have not been.

    Raises MissingArtifact with the command that builds the dataset, FoundryError when the page cannot be written.
    """
    verdict = dataset_verdict(d, chain, dataset)
    page = render_checks(gather_checks(d, find_version(d, chain, dataset), verdict))
    path = checks_path(chain.settings.reports, dataset)
    return write_page(path, page, what="the page of the checks", again=f"foundry checks {dataset}")


def gather_checks(d: Declarations, version: Version, verdict: dict[str, Any]) -> ChecksData:
    """The values of the page of a declared dataset."""
    declared = d.datasets[version.name]
    present = set(version.frame["category"].drop_nulls())
    return ChecksData(
        name=version.name,
        description=" ".join(declared.description.split()),
        method=declared.method,
        profile=d.profile.profile,
        verdict=verdict,
        frame=version.frame,
        facts=version.facts,
        sieve=version.sieve,
        order=declared.order,
        unserved={c: why for c, why in d.profile.teacher.cannot_serve.items() if c not in present},
    )


def render_checks(data: ChecksData) -> str:
    """The page as HTML. Pure: equal data give the same bytes."""
    filters = {
        "num": wording.number,
        "count": wording.count,
        "label": label,
        "bound": tables.bound,
        "observed": tables.observed,
        "safe_text": lambda text: plain(str(text), SHOWN_TEXT),
    }
    results = data.verdict["results"]
    failed = [r for r in results if not r["passed"]]
    values = {
        "d": data,
        "v": data.verdict,
        "means": MEANS,
        "tiles": _tiles(data),
        "failing": [(r, _sample_rows(data.frame, r)) for r in failed],
        "origins": sorted(data.frame["origin"].drop_nulls().unique().to_list()),
        "counts": _counts(data.frame),
        "spreads": _spreads(data),
        "figures": _figures(data),
    }
    return render_page(TEMPLATE, filters, values)


def _tiles(data: ChecksData) -> list[tables.Tile]:
    results = data.verdict["results"]
    errors = [r for r in results if r["severity"] == "error"]
    warnings = [r for r in results if r["severity"] == "warning"]
    met, calm = (sum(bool(r["passed"]) for r in group) for group in (errors, warnings))
    shown = int(data.frame["upsample"].sum() or 0)
    tiles = [
        tables.Tile(
            f"{met} of {len(errors)}",
            "demands met that training waits for",
            "training is allowed" if data.verdict["passed"] else "training is refused",
            "good" if data.verdict["passed"] else "bad",
        ),
        tables.Tile(f"{calm} of {len(warnings)}", "wishes met", "a failed wish is shown and stops nothing"),
        tables.Tile(
            wording.count(data.frame.height), "rows", f"{shown:,} as an epoch shows them, order {label(data.order)}"
        ),
    ]
    contrast = data.frame["voice_contrast"].mean()
    if isinstance(contrast, int | float):
        tiles.append(
            tables.Tile(
                wording.number(contrast, 3, sign=True),
                "voice contrast, mean",
                "chosen less rejected, each from 0 to 1",
                "good" if contrast > 0 else "bad",
            )
        )
    return tiles


def _sample_rows(frame: pl.DataFrame, result: dict[str, Any]) -> list[dict[str, Any]]:
    """The rows that a failed expectation names, in its order; an id that several rows share gives them all."""
    wanted = list(dict.fromkeys(result["sample"]))
    columns = ["pair_id", "prompt_id", "origin", "category", "difficulty", "prompt", "chosen", "rejected"]
    known = pl.col("pair_id").fill_null("None")  # as the verdict writes a missing id
    rows = frame.filter(known.is_in(wanted)).select(columns).to_dicts()
    return sorted(rows, key=lambda r: wanted.index(str(r["pair_id"])))[:10]


def _counts(frame: pl.DataFrame) -> dict[str, dict[str, int]]:
    """Category → origin → rows; what is missing is named so."""
    named = [pl.col(c).fill_null("(missing)") for c in ("category", "origin")]
    grouped = frame.select(named).group_by("category", "origin").len().sort("category", "origin")
    out: dict[str, dict[str, int]] = {}
    for category, origin, rows in grouped.iter_rows():
        out.setdefault(category, {})[origin] = rows
    return out


def _measures(data: ChecksData) -> dict[str, pl.Series]:
    frame = data.frame
    return {
        "words of the prompt": lengths(frame["prompt"]),
        "words, chosen": lengths(frame["chosen"]),
        "words, rejected": lengths(frame["rejected"]),
        "voice, chosen": frame["voice_chosen"],
        "voice, rejected": frame["voice_rejected"],
        "voice contrast": frame["voice_contrast"],
    }


def _spreads(data: ChecksData) -> list[tuple[str, list[str]]]:
    """(measure, [mean, 10 %, median, 90 %, least, most]) of everything that was measured."""
    out = []
    for name, values in _measures(data).items():
        found = values.drop_nulls()
        if found.is_empty():
            continue
        digits = 3 if "voice" in name else 0
        cells = [found.mean(), *(found.quantile(q, "linear") for q in (0.1, 0.5, 0.9)), found.min(), found.max()]
        numbers = [float(c) for c in cells if isinstance(c, int | float)]
        out.append((name, [wording.number(c, 1 if i == 0 and not digits else digits) for i, c in enumerate(numbers)]))
    return out


def _figures(data: ChecksData) -> list[dict[str, Any]]:
    measures = _measures(data)
    wanted = [
        (
            "voice contrast",
            "adapter",
            "voice(chosen) − voice(rejected)",
            "Above 0 the chosen side is nearer to the voice.",
        ),
        ("words, chosen", "merged", "words", "Length of the chosen side."),
        ("words, rejected", "base", "words", "Length of the rejected side."),
    ]
    out = []
    for name, series, axis, caption in wanted:
        values = [float(v) for v in measures[name].drop_nulls()]
        if not values:
            continue
        edges, heights = bins(values)
        ident = "fig-" + name.replace(", ", "-").replace(" ", "-")
        drawing = svg.histogram(ident, f"{name}: rows", edges, heights, axis=axis, series=series)
        out.append({"id": ident, "title": name, "drawing": drawing, "caption": f"{caption} {len(values):,} rows."})
    return out


def bins(values: list[float]) -> tuple[list[float], list[int]]:
    """(edges, counts) of about `BINS` equally wide bins with round edges that cover all values.

    A value on an edge belongs to the bin above it, the last edge to the last bin. Raises ValueError without values.
    """
    if not values:
        raise ValueError("no values to put into bins")
    edges = svg.nice_ticks(min(values), max(values), BINS)
    counts = [0] * (len(edges) - 1)
    width = edges[1] - edges[0]
    for value in values:
        counts[min(len(counts) - 1, max(0, int((value - edges[0]) / width + 1e-9)))] += 1
    return edges, counts
