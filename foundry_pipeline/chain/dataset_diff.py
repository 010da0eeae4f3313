"""Two versions of a dataset, everything that is known of their difference: rows, figures, causes, and scores beside it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

import polars as pl

from foundry_pipeline.chain.dataset_versions import Version, find_version, tokenizer_file
from foundry_pipeline.chain.engine import Chain
from foundry_pipeline.chain.score_diff import joined
from foundry_pipeline.datasets.diff import SHOWN, compare, comparisons, differing, moved
from foundry_pipeline.datasets.shape import CLASSES, shape, token_counter
from foundry_pipeline.declarations import Declarations
from foundry_pipeline.lineage.ledger import read_scores


def diff_versions(d: Declarations, chain: Chain, left: str, right: str) -> dict[str, Any]:
    """The difference of two versions (names or content hashes) as plain values, ready for JSON.

    Raises what `find_version` raises. Tokens are counted by the tokenizer of the base that the right one is trained
    into; `tokenizer.reason` says why there are none where there are none.
    """
    one, two = find_version(d, chain, left), find_version(d, chain, right)
    title, path = tokenizer_file(d, chain, two.name)
    counter = token_counter(path) if path else None
    diff = compare(one.frame, two.frame)
    shapes = [shape(version.frame, counter) for version in (one, two)]
    rows: dict[str, Any] = {
        "same": diff.same,
        "added": diff.added.height,
        "removed": diff.removed.height,
        "changed": len(diff.changed),
        "reshown": len(diff.reshown),
    }
    shown = {name: moved(shapes[0][name], shapes[1][name]) for name in CLASSES}
    return {
        "left": _side(one, shapes[0]),
        "right": _side(two, shapes[1]),
        "tokenizer": {
            "model": title,
            "reason": None if counter else "the base model is not built; its tokenizer comes with it",
        },
        "rows": rows,
        "changed_sides": diff.sides(),
        "by": {
            name: {
                "added": _tally(diff.added[column]),
                "removed": _tally(diff.removed[column]),
                "changed": _tally(pl.Series([row["right"][column] for row in diff.changed], dtype=pl.String)),
            }
            for name, column in CLASSES.items()
            if name in ("origins", "categories", "difficulties")
        },
        "shown": shown,
        "passages": diff.passages,
        "causes": _causes(one, two),
        "scores": _scores(chain, one, two, shown["categories"]),
        "details": {
            "added": diff.added.select(SHOWN).to_dicts(),
            "removed": diff.removed.select(SHOWN).to_dicts(),
            "changed": diff.changed,
            "reshown": diff.reshown,
        },
    }


def _side(version: Version, figures: dict[str, Any]) -> dict[str, Any]:
    verdict = version.verdict
    if verdict is not None and verdict.get("dataset_hash") != version.content_hash:
        verdict = None  # of other rows
    results = verdict.get("results", []) if verdict else []
    return {
        "name": version.name,
        "content_hash": version.content_hash,
        "built_at": str(version.facts.get("built_at", ""))[:19],
        "current": version.current,
        "checks": None
        if verdict is None
        else {
            "passed": verdict.get("passed") is True,
            "failed": [r["name"] for r in results if not r.get("passed") and r.get("severity") == "error"],
            "warnings": [r["name"] for r in results if not r.get("passed") and r.get("severity") == "warning"],
            "expectations": len(results),
        },
        "filters": version.sieve,
        **figures,
    }


def _tally(values: pl.Series) -> dict[str, int]:
    return dict(sorted(Counter(str(v) for v in values.to_list()).items(), key=lambda item: (-item[1], item[0])))


def _causes(one: Version, two: Version) -> dict[str, Any]:
    """What the two were made from differently: declared values, inputs by hash, code."""
    declared = [
        {"field": path, "left": a, "right": b} for path, a, b in differing(one.declaration, two.declaration) if path
    ]
    names = sorted(one.inputs.keys() | two.inputs.keys())
    return {
        "declared": declared,
        "inputs": [
            {"input": name, "left": one.inputs.get(name), "right": two.inputs.get(name)}
            for name in names
            if one.inputs.get(name) != two.inputs.get(name)
        ],
        "code": one.code_version != two.code_version,
    }


def _scores(chain: Chain, one: Version, two: Version, shown: Mapping[str, Mapping[str, int]]) -> dict[str, Any]:
    """Scores of runs trained on either version, beside each other only where judge, suite and base are the same.

    Each with what it did by category, beside the pairs of that category (`joined`).
    """
    rows = {r["score_id"]: r for r in read_scores(chain.settings.ledger_url)}
    mine = [[r for r in rows.values() if r["dataset_hash"] == v.content_hash] for v in (one, two)]
    found = comparisons(*mine) if one.content_hash != two.content_hash else []
    for c in found:
        left, right = (rows[c[side]["score_id"]] for side in ("left", "right"))
        c["joined"] = joined(chain.store, left, right, shown)
    return {
        "left_runs": sorted({r["run"] for r in mine[0]}),
        "right_runs": sorted({r["run"] for r in mine[1]}),
        "comparisons": found,
    }
