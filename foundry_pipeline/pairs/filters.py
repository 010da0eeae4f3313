"""The quality filter: named rules, each with a reason and a score, and a place in a fixed order.

A dropped pair names the first rule that fires as its reason and lists every rule that does. The two rules on
duplicates come last and look only at pairs that no other rule dropped, so that a pair is never lost to a bad twin.
The result depends on the pairs alone, not on the order they come in.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import polars as pl

from foundry_pipeline import textstats
from foundry_pipeline.declarations.assets import Filters, Teacher
from foundry_pipeline.declarations.sources import Character
from foundry_pipeline.pairs import Schema
from foundry_pipeline.pairs.candidates import voice_score
from foundry_pipeline.pairs.duplicates import near_duplicates
from foundry_pipeline.pairs.overlap import OverlapIndex

DROPPED: Schema = {
    "pair_id": pl.String,
    "prompt_id": pl.String,
    "origin": pl.String,
    "rule": pl.String,
    "reason": pl.String,
    "score": pl.Float64,
    "all_rules": pl.List(pl.String),
}


@dataclass(frozen=True)
class Fault:
    """A rule that fired on a pair: why in words, and the figure behind it."""

    rule: str
    reason: str
    score: float


Row = Mapping[str, Any]
Verdict = tuple[float, str] | None  # score and reason, or None where the rule is content
# What UTF-8 looks like when it was read as Windows-1252 or Latin-1 (é → Ã©, ’ → â€™, £ → Â£, a byte order mark → ï»¿),
# and the sign that a decoder leaves for what it could not read.
_MOJIBAKE = re.compile(
    "[ÂÃ][\u0080-\u00bf\u0152\u0160\u017d\u0192\u02c6\u02dc\u2010-\u203a]|â€|â\u0080|ï»¿|ðŸ|ð\u009f|\ufffd"
)
_ENDED = re.compile(r"[.!?…][\"'”’)\]*_]*\s*$")


def _sides(row: Row) -> list[tuple[str, str]]:
    return [(side, row[side] or "") for side in ("prompt", "chosen", "rejected")]


def _empty(row: Row, filters: Filters, character: Character) -> Verdict:
    blank = [side for side, text in _sides(row) if not textstats.words(text)]
    return (len(blank), f"no words in {' and '.join(blank)}") if blank else None


def _length(row: Row, bounds: dict[str, int], too: Callable[[int, int], bool], what: str) -> Verdict:
    for side, bound in bounds.items():
        count = len(textstats.words(row[side] or ""))
        if too(count, bound):
            return count, f"{side} is {count} words long, {what} {bound}"
    return None


def _too_short(row: Row, filters: Filters, character: Character) -> Verdict:
    bounds = {"chosen": filters.min_chosen_words, "rejected": filters.min_rejected_words}
    return _length(row, bounds, lambda count, bound: count < bound, "fewer than")


def _too_long(row: Row, filters: Filters, character: Character) -> Verdict:
    bounds = {"chosen": filters.max_chosen_words, "rejected": filters.max_rejected_words}
    return _length(row, bounds, lambda count, bound: count > bound, "more than")


def _truncated(row: Row, filters: Filters, character: Character) -> Verdict:
    if not _ENDED.search(row["chosen"] or ""):
        return 1.0, "chosen ends inside a sentence"
    if row.get("finish_reason") == "length" and not _ENDED.search(row["rejected"] or ""):
        return 1.0, "rejected was cut by the token limit and has no whole sentence"
    return None


def _loop(row: Row, filters: Filters, character: Character) -> Verdict:
    for side in ("chosen", "rejected"):
        share = textstats.repetition(row[side] or "")
        if share > filters.max_repetition:
            return share, f"{share:.0%} of {side}'s 4-grams are repeated: it teaches only not to loop"
    return None


def _contractions_in_chosen(row: Row, filters: Filters, character: Character) -> Verdict:
    count = textstats.contractions(row["chosen"] or "")
    return (count, f"contractions in chosen: {count}") if count > filters.max_chosen_contractions else None


def _listed(found: list[str], what: str) -> Verdict:
    return (len(found), f"chosen has {what}: {', '.join(sorted(set(found))[:3])}") if found else None


def _modern_idiom_in_chosen(row: Row, filters: Filters, character: Character) -> Verdict:
    return _listed(textstats.modern_idiom(row["chosen"] or ""), "modern idiom")


def _markdown_in_chosen(row: Row, filters: Filters, character: Character) -> Verdict:
    count = textstats.markdown_marks(row["chosen"] or "")
    return (count, f"Markdown marks in chosen: {count}") if count else None


def _ai_self_reference_in_chosen(row: Row, filters: Filters, character: Character) -> Verdict:
    return _listed(textstats.ai_self_reference(row["chosen"] or ""), "a machine speaking of itself")


def _anachronism_in_chosen(row: Row, filters: Filters, character: Character) -> Verdict:
    chosen = row["chosen"] or ""
    if not textstats.contains_any(chosen, character.anachronisms):
        return None
    return _listed([w for w in character.anachronisms if textstats.contains_any(chosen, [w])], "an anachronism")


def _sides_equal(row: Row, filters: Filters, character: Character) -> Verdict:
    same = textstats.words(row["chosen"] or "") == textstats.words(row["rejected"] or "")
    return (1.0, "chosen and rejected say the same words") if same else None


def _contrast(row: Row, character: Character) -> float:
    """voice(chosen) − voice(rejected), from the texts: a stored score may belong to other texts."""
    chosen, rejected = (voice_score(row[side] or "", character.period_markers) for side in ("chosen", "rejected"))
    return round(chosen - rejected, 6)


def _swapped_sides(row: Row, filters: Filters, character: Character) -> Verdict:
    contrast = _contrast(row, character)
    return (contrast, f"rejected reads more like the character by {-contrast:.3f}") if contrast < 0 else None


def _weak_voice_contrast(row: Row, filters: Filters, character: Character) -> Verdict:
    contrast = _contrast(row, character)
    if contrast >= filters.min_voice_contrast:
        return None
    return contrast, f"voice contrast {contrast:.3f} is below {filters.min_voice_contrast:g}"


def _mojibake(row: Row, filters: Filters, character: Character) -> Verdict:
    for side, text in _sides(row):
        count = len(_MOJIBAKE.findall(text))
        if count:
            return count, f"signs of wrong decoding in {side}: {count}"
    return None


def _control_characters(row: Row, filters: Filters, character: Character) -> Verdict:
    for side, text in _sides(row):
        odd = sorted({c for c in text if c not in "\n\t" and unicodedata.category(c) in {"Cc", "Cf", "Cn", "Co", "Cs"}})
        if odd:
            names = ", ".join(f"U+{ord(c):04X}" for c in odd[:3])
            return len(odd), f"{side} has control or invisible characters: {names}"
    return None


_PAIR_RULES: dict[str, Callable[[Row, Filters, Character], Verdict]] = {
    "empty": _empty,
    "mojibake": _mojibake,
    "control_characters": _control_characters,
    "too_short": _too_short,
    "too_long": _too_long,
    "truncated": _truncated,
    "loop": _loop,
    "ai_self_reference_in_chosen": _ai_self_reference_in_chosen,
    "markdown_in_chosen": _markdown_in_chosen,
    "contractions_in_chosen": _contractions_in_chosen,
    "modern_idiom_in_chosen": _modern_idiom_in_chosen,
    "anachronism_in_chosen": _anachronism_in_chosen,
    "sides_equal": _sides_equal,
    "swapped_sides": _swapped_sides,
    "weak_voice_contrast": _weak_voice_contrast,
}
RULES: tuple[str, ...] = (*_PAIR_RULES, "suite_overlap", "held_out_overlap", "exact_duplicate", "near_duplicate")


def pair_faults(row: Row, filters: Filters, character: Character) -> list[Fault]:
    """Every rule on a single pair that fires, in order. `row` has prompt, chosen, rejected; finish_reason if known."""
    faults = []
    for rule, judge in _PAIR_RULES.items():
        verdict = judge(row, filters, character)
        if verdict is not None:
            faults.append(Fault(rule, verdict[1], float(verdict[0])))
    return faults


def _overlap_faults(row: Row, indices: Mapping[str, tuple[OverlapIndex, str]]) -> list[Fault]:
    faults = []
    for rule, (index, what) in indices.items():
        shared = {side: index.longest(row[side]) for side in ("prompt", "chosen")}
        side = max(shared, key=lambda s: shared[s])
        if shared[side]:
            faults.append(Fault(rule, f"{side} shares {shared[side]} words in a row with {what}", float(shared[side])))
    return faults


def apply_filters(
    pairs: pl.DataFrame,
    filters: Filters,
    *,
    suite_texts: Iterable[str],
    held_out_texts: Iterable[str],
    character: Character,
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Split candidate pairs into (kept, dropped), both sorted by prompt_id, then pair_id.

    `kept` has the columns of `pairs`; `dropped` has columns DROPPED. Duplicates are sought over all `pairs` together,
    and the first in that order is kept, so hand over one student's candidates at a time.
    """
    indices = {
        "suite_overlap": (OverlapIndex(suite_texts, filters.suite_overlap_ngram), "the evaluation suite"),
        "held_out_overlap": (OverlapIndex(held_out_texts, filters.suite_overlap_ngram), "a held-out document"),
    }
    ordered = pairs.sort("prompt_id", "pair_id")
    rows = ordered.rows(named=True)
    faults = [pair_faults(row, filters, character) + _overlap_faults(row, indices) for row in rows]

    sound: list[int] = []
    seen: dict[tuple[tuple[str, ...], tuple[str, ...]], str] = {}
    for i, row in enumerate(rows):
        if faults[i]:
            continue
        said = (tuple(textstats.words(row["prompt"])), tuple(textstats.words(row["chosen"])))
        if said in seen:
            faults[i].append(Fault("exact_duplicate", f"says the same as the pair of {seen[said]}", 1.0))
        else:
            seen[said] = row["prompt_id"]
            sound.append(i)
    prompts, chosen = ([rows[i][side] for i in sound] for side in ("prompt", "chosen"))
    for at, (earlier, similarity) in near_duplicates(prompts, chosen, filters.near_duplicate).items():
        reason = f"almost says the pair of {rows[sound[earlier]]['prompt_id']} again"
        faults[sound[at]].append(Fault("near_duplicate", reason, round(similarity, 6)))

    dropped = [
        (row["pair_id"], row["prompt_id"], row["origin"], f[0].rule, f[0].reason, f[0].score, [g.rule for g in f])
        for row, f in zip(rows, faults, strict=True)
        if f
    ]
    kept = ordered.filter(pl.Series([not f for f in faults], dtype=pl.Boolean))
    return kept, pl.DataFrame(dropped, DROPPED, orient="row")


def below_floor(pairs: pl.DataFrame, teacher: Teacher) -> dict[str, dict[str, int]]:
    """Categories that yield fewer pairs than the teacher's floor: category → {"floor", "got"}."""
    got = dict(pairs.group_by("category").len().iter_rows())
    short = {c: {"floor": floor, "got": got.get(c, 0)} for c, floor in teacher.serves.items() if got.get(c, 0) < floor}
    return dict(sorted(short.items()))
