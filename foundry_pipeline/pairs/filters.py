"""The quality filter: named rules, each with a reason and a score, and a place in a fixed order.

    >>> judged = judge_pairs(pairs, filters, character=character, overlaps=overlaps)
    >>> judged.dropped(pairs).select("prompt_id", "rule", "reason").row(0)
    ('q-7', 'loop', "64% of rejected's 4-grams are repeated: it teaches only not to loop")

A dropped pair names the first rule that fires as its reason and lists every rule that does. The rules on meaning and on
duplicates come last and look only at pairs that no other rule dropped, so that a pair is never lost to a bad twin and
nothing is measured in vain. What `apply_filters` keeps depends on the pairs alone, not on the order they come in.

Pairs are read in slices: beyond the texts themselves a million pairs take less than a gigabyte.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from foundry_pipeline import textcolumns
from foundry_pipeline.declarations.assets import Filters
from foundry_pipeline.declarations.generation import Teacher
from foundry_pipeline.declarations.sources import Character
from foundry_pipeline.pairs import Schema
from foundry_pipeline.pairs.batches import Batch, Found
from foundry_pipeline.pairs.duplicates import PERMUTATIONS, Sketches, near_duplicates, sketches
from foundry_pipeline.pairs.likeness import LikenessIndex
from foundry_pipeline.pairs.overlap import OverlapIndex
from foundry_pipeline.pairs.rules import OF_A_CHARACTER, PAIR_RULES
from foundry_pipeline.textcolumns import Lexicon, in_slices, row_hashes

DROPPED: Schema = {
    "pair_id": pl.String,
    "prompt_id": pl.String,
    "origin": pl.String,
    "rule": pl.String,
    "reason": pl.String,
    "score": pl.Float64,
    "all_rules": pl.List(pl.String),
}
OVERLAPS = {"suite_overlap": "the evaluation suite", "held_out_overlap": "a held-out document"}
# Rule → the side that is compared, and with what. Only where a likeness is declared.
PARAPHRASES = {
    "suite_paraphrase": ("prompt", "a question of the evaluation suite"),
    "held_out_paraphrase": ("chosen", "a held-out passage"),
}
RULES: tuple[str, ...] = (*PAIR_RULES, *OVERLAPS, *PARAPHRASES, "exact_duplicate", "near_duplicate")
_PLACE = {rule: place for place, rule in enumerate(RULES)}
_SLICE: int | None = None  # pairs read at once, where it is not to be what is usual

MODULES: tuple[str, ...] = tuple(
    f"foundry_pipeline.pairs.{m}"
    for m in ("filters", "rules", "batches", "language", "duplicates", "overlap", "likeness", "candidates")
) + (*textcolumns.MODULES, "foundry_pipeline.corpus.retrieval", "foundry_pipeline.corpus.minilm")
"""Modules that decide which pairs pass."""


@dataclass(frozen=True)
class Unknown:
    """Texts that no pair may know. What is None cannot be looked for, and its rules do not apply."""

    suite: tuple[str, ...] | None
    held_out: tuple[str, ...] | None


@dataclass
class _Part:
    """What the rules found in one slice, by rule, and what they measured of each of its pairs."""

    found: dict[str, Found]
    measured: pl.DataFrame


@dataclass
class Judged:
    """What the rules say of some pairs, by row number.

    `fired`: every rule of a row that has one, in no order. `first`: the (place of the rule, score, reason) that counts.
    `unsure`: rule → rows that it could not judge and let pass. `applied`: the rules that were asked. `measured`: what
    they measured of every row, in slices (`scores`).
    """

    rows: int
    applied: tuple[str, ...]
    fired: dict[int, list[int]] = field(default_factory=dict)
    first: dict[int, tuple[int, float, str]] = field(default_factory=dict)
    unsure: dict[str, int] = field(default_factory=dict)
    measured: list[pl.DataFrame] = field(default_factory=list)

    @property
    def read(self) -> int:
        """Rows whose slices were appended so far."""
        return sum(part.height for part in self.measured)

    def append(self, part: _Part) -> None:
        """Take down what was found in the next slice of the rows."""
        rows = range(self.read, self.read + part.measured.height)
        for rule, found in part.found.items():
            self.add(rule, found, rows)
        self.measured.append(part.measured)

    def add(self, rule: str, found: Found, rows: Sequence[int]) -> None:
        """Take down a rule's findings; `rows` are the row numbers that its own stand for."""
        place = _PLACE[rule]
        for index, score, reason in zip(found.rows, found.scores, found.reasons, strict=True):
            row = rows[index]
            self.fired.setdefault(row, []).append(place)
            if row not in self.first or place < self.first[row][0]:
                self.first[row] = (place, score, reason)
        if found.unsure:
            self.unsure[rule] = self.unsure.get(rule, 0) + found.unsure

    @property
    def kept(self) -> pl.Series:
        """Boolean, one value a row."""
        kept = np.ones(self.rows, dtype=np.bool_)
        kept[list(self.first)] = False
        return pl.Series("kept", kept)

    def scores(self) -> pl.DataFrame:
        """repetition_rejected of every row; with a character also voice_chosen, voice_rejected and voice_contrast."""
        return pl.concat(self.measured)

    def verdicts(self) -> pl.DataFrame:
        """Columns row, rule, reason, score, all_rules; one row for each dropped pair, in order."""
        columns: dict[str, list[Any]] = {"row": [], "rule": [], "reason": [], "score": [], "all_rules": []}
        for row in sorted(self.first):
            place, score, reason = self.first[row]
            everything = [RULES[p] for p in sorted(self.fired[row])]
            for column, value in zip(columns.values(), (row, RULES[place], reason, score, everything), strict=True):
                column.append(value)
        types = {c: DROPPED.get(c, pl.Int64) for c in columns}
        return pl.DataFrame(columns, schema=types)

    def dropped(self, pairs: pl.DataFrame) -> pl.DataFrame:
        """The dropped ones of `pairs` (pair_id, prompt_id, origin are read): columns DROPPED."""
        verdicts = self.verdicts()
        named = pairs.select("pair_id", "prompt_id", "origin")[verdicts["row"].to_list()]
        return pl.concat([named, verdicts], how="horizontal").select(pl.col(c).cast(t) for c, t in DROPPED.items())

    def first_rules(self) -> list[str | None]:
        """For each row the rule that drops it, None where none does."""
        return [RULES[self.first[i][0]] if i in self.first else None for i in range(self.rows)]


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
    ordered = pairs.sort("prompt_id", "pair_id")
    unknown = Unknown(tuple(suite_texts), tuple(held_out_texts))
    judged = judge_pairs(ordered, filters, character=character, unknown=unknown, names=ordered["prompt_id"])
    return ordered.filter(judged.kept), judged.dropped(ordered)


def pair_faults(pairs: pl.DataFrame, filters: Filters, character: Character) -> Judged:
    """The rules on single pairs alone; `pairs` has prompt, chosen, rejected, and finish_reason if it is known."""
    judged = Judged(pairs.height, tuple(PAIR_RULES))
    for part in in_slices(lambda part, lexicon: _read(Batch.read(part, lexicon, filters, character)), pairs, _SLICE):
        judged.append(part)
    return judged


def judge_pairs(
    pairs: pl.DataFrame,
    filters: Filters,
    *,
    character: Character | None,
    unknown: Unknown,
    names: pl.Series | None = None,
    progress: Callable[[int], None] = lambda rows: None,
) -> Judged:
    """Every rule on every pair, in the order of the rows: of duplicates the first is kept.

    pairs: columns prompt, chosen, rejected; finish_reason if it is known. character: None leaves out the rules that read
    a character's vocabulary. names: what a pair is called in the reason of its duplicate (its row number, if None).
    progress is called with the rows read so far.
    """
    overlaps = {
        rule: OverlapIndex(texts, filters.suite_overlap_ngram)
        for rule, texts in zip(OVERLAPS, (unknown.suite, unknown.held_out), strict=True)
        if texts is not None
    }
    likenesses = {
        rule: (threshold, texts)
        for rule, threshold, texts in (
            ("suite_paraphrase", filters.suite_likeness, unknown.suite),
            ("held_out_paraphrase", filters.held_out_likeness, unknown.held_out),
        )
        if threshold is not None and texts is not None
    }
    left_out = {*OVERLAPS, *PARAPHRASES} - {*overlaps, *likenesses} | (set() if character else set(OF_A_CHARACTER))
    judged = Judged(pairs.height, tuple(r for r in RULES if r not in left_out))

    def read(part: pl.DataFrame, lexicon: Lexicon) -> tuple[_Part, Sketches, NDArray[np.uint64]]:
        batch = Batch.read(part, lexicon, filters, character)
        read = _read(batch)
        read.found.update({rule: _overlapping(batch, index, OVERLAPS[rule]) for rule, index in overlaps.items()})
        said = np.stack((row_hashes(batch.prompt), row_hashes(batch.chosen)), axis=1)
        return read, sketches(batch.prompt, batch.chosen), said

    known = [np.empty((0, PERMUTATIONS), dtype=np.uint32)]
    said = [np.empty((0, 2), dtype=np.uint64)]
    for part, sketched, hashes in in_slices(read, pairs, _SLICE):
        judged.append(part)
        known.append(sketched)
        said.append(hashes)
        progress(judged.read)

    for rule, (threshold, texts) in likenesses.items():
        sound = np.flatnonzero(judged.kept.to_numpy()).tolist()
        judged.add(rule, _paraphrasing(pairs, sound, rule, threshold, texts), sound)
    sound = np.flatnonzero(judged.kept.to_numpy()).tolist()
    called = [f"row {i + 1}" for i in range(pairs.height)] if names is None else names.to_list()
    judged.add("exact_duplicate", _exact(np.concatenate(said), pairs, sound, called), sound)
    sound = [i for i in sound if i not in judged.first]
    columns = [pairs[side].gather(sound) for side in ("prompt", "chosen")]
    if sound:
        found = near_duplicates(
            columns[0],
            columns[1],
            filters.near_duplicate,
            same_question=filters.same_question,
            known=np.concatenate(known)[sound],
        )
        reasons = [f"almost says the pair of {called[sound[j]]} again" for j, _ in found.values()]
        scores = [round(similarity, 6) for _, similarity in found.values()]
        judged.add("near_duplicate", Found(list(found), scores, reasons), sound)
    return judged


def _read(batch: Batch) -> _Part:
    asked = {n: rule for n, rule in PAIR_RULES.items() if batch.character is not None or n not in OF_A_CHARACTER}
    return _Part({name: rule(batch) for name, rule in asked.items()}, batch.scores())


def _overlapping(batch: Batch, index: OverlapIndex, what: str) -> Found:
    prompt, chosen = index.column(batch.prompt), index.column(batch.chosen)
    rows = np.flatnonzero(np.maximum(prompt, chosen)).tolist()
    shared = [("prompt", int(prompt[i])) if prompt[i] >= chosen[i] else ("chosen", int(chosen[i])) for i in rows]
    reasons = [f"{side} shares {words} words in a row with {what}" for side, words in shared]
    return Found(rows, [float(words) for _, words in shared], reasons)


def _paraphrasing(pairs: pl.DataFrame, rows: Sequence[int], rule: str, threshold: float, texts: Sequence[str]) -> Found:
    side, what = PARAPHRASES[rule]
    likeness = LikenessIndex(texts).column(pairs[side].gather(list(rows)).to_list())
    at = np.flatnonzero(likeness >= threshold).tolist()
    reasons = [f"{side} says much the same as {what} (cosine {likeness[i]:.3f})" for i in at]
    return Found(at, [float(likeness[i]) for i in at], reasons)


def _exact(said: np.ndarray[Any, np.dtype[np.uint64]], pairs: pl.DataFrame, rows: list[int], names: list[str]) -> Found:
    """Pairs whose prompt and chosen answer say, word for word, what an earlier pair's say."""
    first: dict[bytes, int] = {}
    found = Found()
    for index, row in enumerate(rows):
        earlier = first.setdefault(said[row].tobytes(), row)
        if earlier != row:
            found.rows.append(index)
            found.scores.append(1.0)
            found.reasons.append(f"says the same as the pair of {names[earlier]}")
    return found


def below_floor(pairs: pl.DataFrame, teacher: Teacher) -> dict[str, dict[str, int]]:
    """Categories that yield fewer pairs than the teacher's floor: category → {"floor", "got"}."""
    got = dict(pairs.group_by("category").len().iter_rows())
    short = {c: {"floor": floor, "got": got.get(c, 0)} for c, floor in teacher.serves.items() if got.get(c, 0) < floor}
    return dict(sorted(short.items()))
