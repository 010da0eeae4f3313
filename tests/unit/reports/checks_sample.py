"""Verdicts and datasets for the page of the checks, hostile text included."""

from __future__ import annotations

import polars as pl

from foundry_pipeline.pairs.candidates import PAIRS
from foundry_pipeline.reports.checks_page import ChecksData

SCRIPT = "<script>alert('x')</script>"
ESCAPES = "\u202eturned\u202c \x1b[31mred\x00"


def rows(count: int, **changes: object) -> pl.DataFrame:
    if not count:
        return pl.DataFrame(schema=PAIRS)
    made = [
        {
            "pair_id": f"{i:064x}", "prompt": f"What of {i}?", "chosen": f"{SCRIPT} {chr(97) * (i % 3)} " + "and so on " * (i % 7), "rejected": f"No {ESCAPES}" + " never" * (i % 5),
            "category": "ground_truth", "difficulty": "easy", "origin": "base", "prompt_id": f"p-{i}",
            "voice_chosen": 0.5, "voice_rejected": 0.25, "voice_contrast": 0.01 * i, "upsample": 1, **changes,
        }
        for i in range(count)
    ]  # fmt: skip
    known = pl.DataFrame(made, {c: t for c, t in PAIRS.items() if c in made[0]})
    return known.select((pl.col(c) if c in made[0] else pl.lit(None)).cast(t).alias(c) for c, t in PAIRS.items())


def result(name: str, *, passed: bool = True, severity: str = "error", **more: object) -> dict:
    base = {"name": name, "severity": severity, "passed": passed, "observed": 0, "bound": {}, "rows_failed": 0}
    return {**base, "sample": [], **more}


def data(frame: pl.DataFrame, *results: dict, **changes: object) -> ChecksData:
    verdict = {
        "dataset": "keeper_dataset_v1",
        "dataset_hash": "d" * 64,
        "suite_hash": "e" * 64,
        "passed": all(r["passed"] for r in results if r["severity"] == "error"),
        "results": list(results),
    }
    fields = {
        "name": "keeper_dataset_v1", "description": f"For tests {SCRIPT}", "method": "preference", "profile": "tiny",
        "verdict": verdict, "frame": frame, "facts": {"parts": [{"origin": "base", "wanted": 9, "got": 3}]},
        "sieve": {"kept": 3, "dropped": {"loop": 1}},
    }  # fmt: skip
    return ChecksData(**{**fields, **changes})


def failing_data() -> ChecksData:
    """Forty rows of which two fail, and an aggregate that could not be judged."""
    frame = rows(40)
    return data(
        frame,
        result("row_count", observed=40, rows_failed=None, bound={"min_value": 12}),
        result("chosen_length", passed=False, observed=2, rows_failed=2, sample=frame["pair_id"].head(2).to_list()),
        result(
            "category_share", severity="warning", observed=1.0, rows_failed=None, bound={"max_value": 0.5}, passed=False
        ),
    )
