"""What a change of data did to the scores, category by category: pairs that moved beside points that moved.

    joined(store, left_row, right_row, moved)
    → {"how": "paired", "overall": {"difference": 0.36, "low": 0.1, "high": 0.6, "n": 36, "p": 0.01, "verdict": "better", …},
       "categories": [{"category": "private_voice", "pairs": {"left": 12, "right": 40, "difference": 28},
                       "left": 5.4, "right": 6.0, "difference": 0.6, "low": 0.2, "high": 1.1, "n": 6, …}, …]}

Both runs answered the same questions, so they are compared question by question, from the answers' own table of scores,
as `foundry compare` does: "better" is the right side's. Categories are asked at once, and their p values are corrected
for that. Where an evaluation is no longer in the store the ledger's means stand alone, without an interval or a verdict.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import polars as pl

from foundry_pipeline.declarations.common import CATEGORIES
from foundry_pipeline.evaluation.comparison import family, figures, score_rows
from foundry_pipeline.lineage.store import Record, Store
from foundry_pipeline.lineage.trace import read_rows
from foundry_pipeline.lineage.walk import Walker
from foundry_pipeline.statistics.verdict import Comparison, compare

_COLUMNS = ("mode", "prompt_id", "category", "overall")
_NONE = {"left": 0, "right": 0, "difference": 0}
_FIGURES = ("difference", "low", "high", "n", "p", "p_corrected", "verdict")
_UNKNOWN: dict[str, Any] = {**dict.fromkeys(_FIGURES), "n": 0, "verdict": "not compared question by question"}


def joined(
    store: Store, left: Mapping[str, Any], right: Mapping[str, Any], moved: Mapping[str, Mapping[str, int]]
) -> dict[str, Any]:
    """The difference right − left of two rows of the ledger, overall and by category, beside the pairs of each category.

    `moved`: category → pairs shown in an epoch, {"left", "right", "difference"}. Both rows must be of one judge, suite
    and mode. `how` is "paired", or says why there is no interval of the difference.
    """
    walker = Walker(store)
    sides = [_answers(store, walker, row) for row in (left, right)]
    gone = dict.fromkeys(str(row["run"]) for row, side in zip((left, right), sides, strict=True) if side is None)
    found: dict[str, Comparison] = {}
    overall = None
    if not gone:
        overall = _paired(sides, None)
        held = {c: _paired(sides, c) for c in CATEGORIES}
        found = family({c: comparison for c, comparison in held.items() if comparison.difference.n})
    categories = []
    for category in CATEGORIES:
        a, b = (row["categories"].get(category) for row in (left, right))
        if a is None and b is None and category not in moved:
            continue
        told = _told(found.get(category))
        if told["difference"] is None and a is not None and b is not None:
            told["difference"] = b - a
        pairs = dict(moved.get(category, _NONE))
        categories.append({"category": category, "pairs": pairs, "left": a, "right": b, **told})
    how = (
        "paired" if not gone else f"means of the ledger alone: the evaluation of {', '.join(gone)} is not in the store"
    )
    told = _told(overall)
    if told["difference"] is None and left["overall"] is not None and right["overall"] is not None:
        told["difference"] = right["overall"] - left["overall"]
    return {"how": how, "overall": told, "categories": categories}


def _told(found: Comparison | None) -> dict[str, Any]:
    if found is None:
        return dict(_UNKNOWN)
    every = figures(found)
    return {name: every[name] for name in _FIGURES}


_Side = tuple[Record, pl.DataFrame]


def _answers(store: Store, walker: Walker, row: Mapping[str, Any]) -> _Side | None:
    record = walker.of_score(row)
    frame = read_rows(store, record.content_hash, "scores") if record is not None else None
    if record is None or frame is None:
        return None
    return record, frame.filter(pl.col("mode") == row["mode"]).select(_COLUMNS)


def _paired(sides: list[_Side | None], category: str | None) -> Comparison:
    """Right against left, over all questions or those of a category. Both sides must be there."""
    declared: dict[str, Any] = {}
    frames = []
    for side in sides:
        assert side is not None
        declared = declared or side[0].declaration
        frame = side[1]
        frames.append(score_rows(frame if category is None else frame.filter(pl.col("category") == category)))
    left, right = frames
    return compare(
        right,
        left,
        resamples=int(declared.get("resamples", 2000)),
        confidence=float(declared.get("confidence", 0.95)),
    )
