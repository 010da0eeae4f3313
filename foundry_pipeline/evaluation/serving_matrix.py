"""One model, served in several ways, side by side: what each way costs and what it does to the answers.

    serving_matrix(summary, answers, measured, sizes, character)
    → mode     overall  mean_kl  top1  bytes        break_rate
      adapter  6.23     0.0003   0.99  289_000_000  0.03
      q4_k_m   5.93     0.0210   0.91  105_453_952  0.06

Nothing is measured here: scores come from the evaluation, distances from export parity, and breaks of character are read
off the recorded answers by rule. A mode that was not put to the questions has no score. The distance of the untuned base
is how far training has moved it (empty where the run started from another model).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import polars as pl

from foundry_pipeline.breaks import character_breaks
from foundry_pipeline.declarations.sources import Character

MATRIX = {
    "mode": pl.String,
    "answers": pl.Int64,
    "overall": pl.Float64,
    "overall_low": pl.Float64,
    "overall_high": pl.Float64,
    "difference": pl.Float64,
    "difference_low": pl.Float64,
    "difference_high": pl.Float64,
    "critical_failures": pl.Int64,
    "break_rate": pl.Float64,
    "nats_per_token": pl.Float64,
    "mean_kl": pl.Float64,
    "p99_kl": pl.Float64,
    "top1": pl.Float64,
    "bytes": pl.Int64,
}


def serving_matrix(
    summary: Mapping[str, Any],
    answers: pl.DataFrame,
    measured: Mapping[str, Any],
    sizes: Mapping[str, int],
    character: Character,
) -> pl.DataFrame:
    """A row (columns MATRIX) for every mode that was evaluated, measured or has a size, in the order of `sizes`.

    `summary` is the evaluation's summary.json, `answers` the recorded ones (columns mode, answer), `measured` the
    `distance` of parity.json by mode, `sizes` bytes on disk of all that a mode needs.
    """
    modes = dict.fromkeys((*sizes, *summary["modes"], *measured))
    rows = []
    for mode in modes:
        judged = summary["modes"].get(mode, {})
        overall, paired = judged.get("overall", {}), summary["paired"].get(mode) or {}
        said = answers.filter(pl.col("mode") == mode)["answer"].to_list()
        broken = sum(bool(character_breaks(character, answer)) for answer in said)
        near = measured.get(mode, {})
        rows.append(
            {
                "mode": mode,
                "answers": len(said),
                "overall": overall.get("mean"),
                "overall_low": overall.get("low"),
                "overall_high": overall.get("high"),
                "difference": paired.get("difference"),
                "difference_low": paired.get("low"),
                "difference_high": paired.get("high"),
                "critical_failures": judged.get("critical_failures"),
                "break_rate": round(broken / len(said), 6) if said else None,
                "nats_per_token": judged.get("nats_per_token"),
                "mean_kl": near.get("mean_kl"),
                "p99_kl": near.get("p99_kl"),
                "top1": near.get("top1"),
                "bytes": sizes.get(mode),
            }
        )
    return pl.DataFrame(rows, MATRIX, orient="row")
