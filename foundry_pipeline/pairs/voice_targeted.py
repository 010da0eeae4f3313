"""What voice-targeted pairs came to, measured here and beside what was reported elsewhere.

    report(frame, {"base": 20, "madison_orpo_v3b": 19, "base_fallback": 1}, reported)
    → {"rejected_from": {"base": {"measured": {"pairs": 20, "share": 0.5}, "reported": {"pairs": 267, "share": 0.67}}, …},
       "contractions_per_pair": {"chosen": {"measured": 0.0, "reported": 0}, "rejected": {"measured": 0.4, …}}}

The rejected side of such a pair is the answer of the untrained student or of a trained one, whichever is farther from
the chosen one in voice (`datasets/recipes.py` chooses; `base_fallback` counts pairs whose trained answer failed the
filter). Measured and reported figures stand side by side and are never mixed: model, teacher and size differ.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import polars as pl

from foundry_pipeline import textstats
from foundry_pipeline.declarations.assets import DatasetPart

SIDES = ("chosen", "rejected")
ReportedRow = Mapping[str, str | float | int | None]


def contractions_per_pair(frame: pl.DataFrame) -> dict[str, float | None]:
    """Mean number of modern contractions in each side of the pairs; None for a side that no pair has."""
    out: dict[str, float | None] = {}
    for side in SIDES:
        texts = frame[side].drop_nulls().to_list()
        out[side] = round(sum(map(textstats.contractions, texts)) / len(texts), 4) if texts else None
    return out


def report(frame: pl.DataFrame, rejected_from: Mapping[str, int], reported: Iterable[ReportedRow]) -> dict[str, Any]:
    """Facts of a dataset (columns PAIRS): measured, and reported where the record has the figure.

    rejected_from: student → pairs of the voice-targeted parts whose rejected side it gave; empty where there are none.
    reported: rows of this dataset with `measure`, `of` and the figure (`pairs` and `share`, or `value`).
    """
    known = {(row.get("measure"), row.get("of")): row for row in reported}
    total = sum(rejected_from.values())
    students = [
        *rejected_from,
        *(of for measure, of in known if measure == "rejected_from" and of not in rejected_from),
    ]
    shares: dict[str, Any] = {}
    for student in sorted(str(s) for s in students):
        count, row = rejected_from.get(student, 0), known.get(("rejected_from", student))
        shares[student] = {
            "measured": {"pairs": count, "share": round(count / total, 4)} if total else None,
            "reported": {"pairs": row.get("pairs"), "share": row.get("share")} if row else None,
        }
    contractions = {
        side: {"measured": value, "reported": (known.get(("contractions_per_pair", side)) or {}).get("value")}
        for side, value in contractions_per_pair(frame).items()
    }
    return {**({"rejected_from": shares} if shares else {}), "contractions_per_pair": contractions}


def targeted_shares(declared: Iterable[DatasetPart], parts: Iterable[Mapping[str, Any]]) -> dict[str, int]:
    """Student → pairs, over the declared parts that choose among several students; `parts` are their facts."""
    shares: dict[str, int] = {}
    for part, facts in zip(declared, parts, strict=True):
        if len(part.students) > 1:
            for student in (*part.students, *facts["students"]):
                shares[student] = shares.get(student, 0)
            for student, count in facts["students"].items():
                shares[student] += count
    return dict(sorted(shares.items()))


def as_table(facts: Mapping[str, Any]) -> str:
    """The facts as a Markdown table: what, measured here, reported elsewhere."""

    def share(value: Mapping[str, Any] | None) -> str:
        return "–" if not value or value["share"] is None else f"{value['pairs']} ({value['share']:.0%})"

    lines = ["| | measured here | reported of the original |", "|---|---:|---:|"]
    for student, row in facts.get("rejected_from", {}).items():
        lines.append(f"| rejected side from `{student}` | {share(row['measured'])} | {share(row['reported'])} |")
    for side, row in facts["contractions_per_pair"].items():
        measured, reported = ("–" if v is None else f"{v:g}" for v in (row["measured"], row["reported"]))
        lines.append(f"| contractions per pair, {side} | {measured} | {reported} |")
    return "\n".join(lines)
