"""What the quality filter says of a file of pairs: `foundry pairs check`.

>>> report = check_pairs(read_pair_file(path), filters, character=None, unknown=Unknown(None, None))
>>> report["rows"], report["kept"], report["rules"]["loop"]
(1200, 1102, {'dropped': 31, 'fired': 40})
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import polars as pl

from foundry_pipeline.declarations.assets import Filters
from foundry_pipeline.declarations.sources import Character
from foundry_pipeline.pairs.filters import OVERLAPS, PARAPHRASES, RULES, Judged, Unknown, judge_pairs
from foundry_pipeline.pairs.pair_files import PairFile
from foundry_pipeline.pairs.rules import OF_A_CHARACTER

EXCERPT = 60  # characters of a dropped pair's prompt that are shown


def visible(text: str) -> str:
    """A text as one line that can be shown anywhere: whatever is not printed is spelt out (`\\x1b`, `\\u202e`)."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def check_pairs(
    file: PairFile,
    filters: Filters,
    *,
    character: Character | None,
    unknown: Unknown,
    absent: str = "",
    progress: Callable[[int], None] = lambda rows: None,
) -> tuple[dict[str, Any], pl.Series]:
    """(report, which rows are kept). The report is plain JSON values; texts from the file are spelt out (`visible`).

    absent: why the held-out texts are not known, where they are not.
    """
    names = pl.Series([file.place(i) for i in range(file.pairs.height)], dtype=pl.String)
    judged = judge_pairs(file.pairs, filters, character=character, unknown=unknown, names=names, progress=progress)
    verdicts = judged.verdicts()
    dropped = dict(verdicts["rule"].value_counts().iter_rows())
    fired = dict(verdicts["all_rules"].explode().value_counts().iter_rows())
    rules = {r: {"dropped": dropped.get(r, 0), "fired": fired.get(r, 0)} for r in judged.applied}
    report = {
        "file": visible(str(file.path)),
        "format": file.kind,
        "character": character.character if character else None,
        "rows": judged.rows,
        "kept": judged.rows - len(judged.first),
        "dropped": len(judged.first),
        "rules": rules,
        "not_applied": _not_applied(judged, filters, character, absent),
        "unsure": judged.unsure,
        "read_as": file.changed,
        "thresholds": filters.model_dump(mode="json"),
        "dropped_rows": _rows(file, verdicts),
    }
    return report, judged.kept


def _rows(file: PairFile, verdicts: pl.DataFrame) -> list[dict[str, Any]]:
    prompts = file.pairs["prompt"].gather(verdicts["row"]).str.slice(0, EXCERPT).to_list()
    ids = file.pairs["prompt_id"].gather(verdicts["row"]).to_list()
    return [
        {
            "place": file.place(v["row"]),
            "rule": v["rule"],
            "reason": visible(v["reason"]),
            "score": v["score"],
            "all_rules": v["all_rules"],
            "prompt_id": None if prompt_id is None else visible(prompt_id[:EXCERPT]),
            "prompt": None if prompt is None else visible(prompt),
        }
        for v, prompt, prompt_id in zip(verdicts.iter_rows(named=True), prompts, ids, strict=True)
    ]


def _not_applied(judged: Judged, filters: Filters, character: Character | None, absent: str) -> dict[str, str]:
    """Rules that were not asked, each with why."""
    why = {}
    for rule in RULES:
        if rule in judged.applied:
            continue
        if character is None and rule in (*OF_A_CHARACTER, *OVERLAPS, *PARAPHRASES):
            why[rule] = "no character is named"
        elif rule == "suite_paraphrase" and filters.suite_likeness is None:
            why[rule] = "the profile declares no suite_likeness"
        elif rule == "held_out_paraphrase" and filters.held_out_likeness is None:
            why[rule] = "the profile declares no held_out_likeness"
        else:
            why[rule] = absent
    return why
