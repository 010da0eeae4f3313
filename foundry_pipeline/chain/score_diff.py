"""What a change of data did to the scores, category by category: pairs that moved beside points that moved.

    joined(store, left_row, right_row, moved)
    → {"how": "paired", "overall": {"difference": 0.36, "low": 0.1, "high": 0.6, "n": 36},
       "categories": [{"category": "private_voice", "pairs": {"left": 12, "right": 40, "difference": 28},
                       "left": 5.4, "right": 6.0, "difference": 0.6, "low": 0.2, "high": 1.1, "n": 6}, …]}

Both runs answered the same questions, so they are compared question by question, from the answers' own table of scores;
where an evaluation is no longer in the store the ledger's means stand alone, without an interval of their difference.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import polars as pl

from foundry_pipeline.declarations.common import CATEGORIES
from foundry_pipeline.evaluation.scoring import Bounds, paired_difference
from foundry_pipeline.lineage.store import Record, Store
from foundry_pipeline.lineage.trace import read_rows
from foundry_pipeline.lineage.walk import Walker

_COLUMNS = ("mode", "prompt_id", "category", "overall")
_NONE = {"left": 0, "right": 0, "difference": 0}
_UNKNOWN = {"difference": None, "low": None, "high": None, "n": 0}


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
    categories = []
    for category in CATEGORIES:
        a, b = (row["categories"].get(category) for row in (left, right))
        if a is None and b is None and category not in moved:
            continue
        found = _paired(sides, category)
        if found is None:
            found = {**_UNKNOWN, "difference": None if a is None or b is None else b - a}
        pairs = dict(moved.get(category, _NONE))
        categories.append({"category": category, "pairs": pairs, "left": a, "right": b, **found})
    how = (
        "paired" if not gone else f"means of the ledger alone: the evaluation of {', '.join(gone)} is not in the store"
    )
    return {"how": how, "overall": _paired(sides, None) or dict(_UNKNOWN), "categories": categories}


_Side = tuple[Record, pl.DataFrame]


def _answers(store: Store, walker: Walker, row: Mapping[str, Any]) -> _Side | None:
    record = walker.of_score(row)
    frame = read_rows(store, record.content_hash, "scores") if record is not None else None
    if record is None or frame is None:
        return None
    return record, frame.filter(pl.col("mode") == row["mode"]).select(_COLUMNS)


def _paired(sides: list[_Side | None], category: str | None) -> dict[str, Any] | None:
    one, two = sides
    if one is None or two is None:
        return None
    frame = pl.concat(
        [one[1].with_columns(mode=pl.lit("left")), two[1].with_columns(mode=pl.lit("right"))], how="vertical"
    )
    if category is not None:
        frame = frame.filter(pl.col("category") == category)
    declared = one[0].declaration
    bounds = Bounds(int(declared.get("resamples", 2000)), float(declared.get("confidence", 0.95)))
    found = paired_difference(frame, "right", "left", bounds)
    return {name: found[name] for name in ("difference", "low", "high", "n")}
