"""Two versions of a dataset side by side: which rows came, which went, which say something else now.

    diff = compare(v4, v6)
    diff.same, diff.added.height, diff.removed.height, diff.changed.height   → 874, 225, 0, 0

Rows with one pair_id are the same row: the id is the hash of what a pair says. Of the others, rows of one prompt_id and
origin are one row changed; what is left is matched by prompt_id alone (v5 is v4 with every rejected side drawn anew, under
another origin: 874 changed, none added). Where several rows share a prompt, those that share a side are put together.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl

TEXTS = ("prompt", "chosen", "rejected")
SHOWN = ("pair_id", "prompt_id", "origin", "category", "difficulty", "upsample", "student", *TEXTS)
_Row = dict[str, Any]


@dataclass(frozen=True)
class Diff:
    """What two frames (columns PAIRS) have in common and what not.

    same: rows with the same pair_id; `reshown` are those among them that an epoch shows another number of times.
    added, removed: rows of one side alone (columns PAIRS). changed: one dict a row, {"prompt_id", "sides", "left",
    "right"}; `sides` names what differs: origin, prompt, chosen, rejected. left, right: the rows, columns SHOWN.
    """

    same: int
    reshown: list[dict[str, Any]]
    added: pl.DataFrame
    removed: pl.DataFrame
    changed: list[dict[str, Any]]
    passages: dict[str, int]

    def sides(self) -> dict[str, int]:
        """Which sides changed in how many rows; a row with two changed sides counts under both."""
        return {side: sum(side in row["sides"] for row in self.changed) for side in ("origin", *TEXTS)}


def compare(left: pl.DataFrame, right: pl.DataFrame) -> Diff:
    """Compare two datasets. Pure; neither the order of rows nor that of the columns matters."""
    left, right = (_ordered(frame) for frame in (left, right))
    gone = left.join(right.select("pair_id"), on="pair_id", how="anti", nulls_equal=True)
    come = right.join(left.select("pair_id"), on="pair_id", how="anti", nulls_equal=True)
    both = left.select("pair_id", "prompt_id", before="upsample").join(
        right.select("pair_id", after="upsample"), on="pair_id", how="inner", maintain_order="left"
    )
    changed = _matched(gone.select(SHOWN).rows(named=True), come.select(SHOWN).rows(named=True))
    old = [row["left"]["pair_id"] for row in changed]
    new = [row["right"]["pair_id"] for row in changed]
    return Diff(
        same=both.height,
        reshown=both.filter(pl.col("before") != pl.col("after")).to_dicts(),
        added=come.filter(~pl.col("pair_id").is_in(new)),
        removed=gone.filter(~pl.col("pair_id").is_in(old)),
        changed=changed,
        passages=_passages(left, right),
    )


def _ordered(frame: pl.DataFrame) -> pl.DataFrame:
    # A defective dataset may hold a pair twice; it is one pair here.
    return frame.unique("pair_id", keep="first", maintain_order=True).sort("pair_id")


def _matched(gone: Sequence[_Row], come: Sequence[_Row]) -> list[dict[str, Any]]:
    """Rows of both sides that are one row changed, ordered by prompt_id."""
    found: list[tuple[_Row, _Row]] = []
    for key in (("prompt_id", "origin"), ("prompt_id",)):
        taken = _pairs(gone, come, key)
        found += taken
        used_left, used_right = {id(a) for a, _ in taken}, {id(b) for _, b in taken}
        gone = [row for row in gone if id(row) not in used_left]
        come = [row for row in come if id(row) not in used_right]
    changes = [
        {
            "prompt_id": a["prompt_id"],
            "sides": [side for side in ("origin", *TEXTS) if a[side] != b[side]],
            "left": a,
            "right": b,
        }
        for a, b in found
    ]
    return sorted(changes, key=lambda row: (str(row["prompt_id"]), str(row["left"]["pair_id"])))


def _pairs(gone: Iterable[_Row], come: Iterable[_Row], key: tuple[str, ...]) -> list[tuple[_Row, _Row]]:
    lefts, rights = _grouped(gone, key), _grouped(come, key)
    out: list[tuple[_Row, _Row]] = []
    for value, left in lefts.items():
        right = rights.get(value, [])
        # Rows that still share a side belong together before rows that merely share a prompt.
        for side in ("chosen", "rejected", None):
            waiting: dict[Any, list[_Row]] = defaultdict(list)
            for row in reversed(right):
                waiting[row[side] if side else None].append(row)
            rest, used = [], set()
            for row in left:
                same = waiting.get(row[side] if side else None)
                if same:
                    used.add(id(same[-1]))
                    out.append((row, same.pop()))
                else:
                    rest.append(row)
            left, right = rest, [row for row in right if id(row) not in used]
            if not (left and right):
                break
    return out


def _grouped(rows: Iterable[_Row], key: tuple[str, ...]) -> dict[tuple[Any, ...], list[_Row]]:
    out: dict[tuple[Any, ...], list[_Row]] = defaultdict(list)
    for row in rows:
        if row["prompt_id"] is not None:
            out[tuple(row[name] for name in key)].append(row)
    return dict(out)


def _passages(left: pl.DataFrame, right: pl.DataFrame) -> dict[str, int]:
    one, two = (set(f["passage_ids"].drop_nulls().explode().drop_nulls()) for f in (left, right))
    return {"left": len(one), "right": len(two), "shared": len(one & two)}


def moved(left: Mapping[str, Mapping[str, int]], right: Mapping[str, Mapping[str, int]]) -> dict[str, dict[str, int]]:
    """Counts of two shapes by value: {value: {"left", "right", "difference"}} in rows shown, the left's order first."""
    out = {}
    for value in [*left, *(v for v in right if v not in left)]:
        before, after = left.get(value, {}).get("shown", 0), right.get(value, {}).get("shown", 0)
        out[value] = {"left": before, "right": after, "difference": after - before}
    return out


def differing(left: Any, right: Any, path: str = "") -> list[tuple[str, Any, Any]]:
    """Places in which two declarations differ: (dotted path, left, right); None where one has no such place."""
    if isinstance(left, Mapping) and isinstance(right, Mapping):
        out = []
        for name in dict.fromkeys([*left, *right]):
            out += differing(left.get(name), right.get(name), f"{path}.{name}" if path else str(name))
        return out
    if isinstance(left, list) and isinstance(right, list):
        out = []
        for i in range(max(len(left), len(right))):
            pair = (left[i] if i < len(left) else None, right[i] if i < len(right) else None)
            out += differing(*pair, f"{path}[{i}]")
        return out
    return [] if left == right else [(path, left, right)]


def comparisons(left: Sequence[Mapping[str, Any]], right: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Ledger rows of runs trained on either side, put side by side where they may be: one entry a pair of rows.

    Only rows of the same judge (and version), suite, profile, serving mode and base model meet; the untuned base has
    trained on nothing and is left out. Of a run scored more than once the latest row counts. What may be said of
    their difference takes the answers behind them (`chain/score_diff.py`).
    """
    same = ("judge", "judge_version", "suite_hash", "profile", "mode", "base_model")
    out = []
    for a in _latest(left):
        for b in _latest(right):
            if a["mode"] != "base" and all(a[name] == b[name] for name in same):
                out.append({**{name: a[name] for name in same}, "left": _score(a), "right": _score(b)})
    return out


def _latest(rows: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    last = {
        tuple(r[n] for n in ("run", "mode", "judge", "judge_version", "suite_hash", "profile", "base_model")): r
        for r in sorted(rows, key=lambda r: str(r["recorded_at"]))
    }
    return sorted(last.values(), key=lambda r: (r["run"], r["mode"]))


def _score(row: Mapping[str, Any]) -> dict[str, Any]:
    names = ("run", "overall", "overall_low", "overall_high", "paired_difference", "score_id")
    return {name: row[name] for name in names}
