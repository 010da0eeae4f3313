"""From filtered pairs to a dataset, by its declaration.

    v3b   475 pairs of origin base                                   at size_factor 0.1:  48 rows
    v4    v3b + 399 of origin voice, shown twice                                          48 + 40 rows, 128 effective
    v5    v4, the rejected side drawn anew from a trained run                             as many as survive the filter
    sft   19 dialogues of 5 rows + 415 reflections                                        2 × 5 + 42 rows

Sizes: ⌈declared pairs × size_factor⌉ (how often each is shown: `mixture.py`). A shortage is recorded as wanted and got,
and never padded.

Choice: the pairs of an origin stand in one fixed order, and a part takes the first so many. The order serves the
teacher's category floors first (one pair of each category in turn until its floor is met) and goes on by pair_id,
which is a hash; so of two datasets that take different numbers of the same origin, the smaller is a prefix of the
larger.

Dialogues: an item of `rows_per_item` turns takes pairs whose passages follow each other in one document and that no
earlier part has used. Each turn's prompt repeats the exchange before it, and its answer is the next passage. Where a
document has too few pairs left, the item is not available and is counted as missing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import polars as pl

from foundry_pipeline.datasets.dialogues import led_by_passages, placed_pairs
from foundry_pipeline.datasets.mixture import scaled, weigh
from foundry_pipeline.declarations.assets import Dataset, DatasetPart, Profile
from foundry_pipeline.declarations.sources import Character
from foundry_pipeline.errors import MissingArtifact
from foundry_pipeline.pairs.candidates import PAIRS, missing_answers, score_pairs
from foundry_pipeline.pairs.filters import pair_faults
from foundry_pipeline.pairs.introspection import whole_dialogues

BASE = "base"
FALLBACK = "base_fallback"


def selection_order(pairs: pl.DataFrame, floors: Mapping[str, int]) -> pl.DataFrame:
    """`pairs` in the order in which a recipe takes them; it does not depend on the order they come in."""
    ordered = pairs.sort("pair_id").with_columns(turn=pl.int_range(pl.len()).over("category"))
    floor = pl.Series([floors.get(c, 0) for c in ordered["category"]], dtype=pl.Int64)
    met = pl.col("turn") >= floor
    return (
        ordered.with_columns(met=met)
        .sort(
            "met",
            pl.when("met").then(pl.lit(0)).otherwise(pl.col("turn")),
            pl.when("met").then(pl.lit("")).otherwise(pl.col("category")),
            "pair_id",
        )
        .drop("turn", "met")
    )


def build_dataset(
    dataset: Dataset,
    *,
    profile: Profile,
    filtered: pl.DataFrame,
    character: Character,
    other_students: Mapping[str, pl.DataFrame] | None = None,
    datasets: Mapping[str, pl.DataFrame] | None = None,
    passages: pl.DataFrame | None = None,
    introspection: pl.DataFrame | None = None,
) -> tuple[pl.DataFrame, dict[str, Any]]:
    """Put a dataset together: (rows with columns PAIRS in the order of the recipe, facts).

    filtered: pairs of every origin that passed the filter, answered by the base student.
    other_students: run → its answers (columns ANSWERS) to the prompts that the recipe names it for.
    datasets: name → rows of every dataset that the recipe takes over.
    passages: passage_id, document_id, position; needed for parts with more than one row an item.
    introspection: generated rows (`pairs.introspection.as_pairs`). A supervised dataset takes its introspection from
        these where they are given, whole dialogues as they were led, and from the character's own passages otherwise.

    facts: rows, effective_pairs, shortage (wanted − got, rows), categories, origins, students (row counts) and one
    entry for each part, with what it wanted, got and dropped.

    Raises MissingArtifact when a dataset, a student's answers, or passages named by the recipe are not handed over.
    """
    work = _Recipe(dataset, profile, filtered, character, other_students or {}, datasets or {}, passages)
    if introspection is not None and dataset.method == "sft":
        work.use_generated(introspection)
    frames, parts = [], []
    for part in dataset.parts:
        frame, facts = work.take(part)
        frames.append(frame)
        parts.append(facts)
    frame = pl.concat(frames).select(pl.col(c).cast(t) for c, t in PAIRS.items())
    twice = frame.height - frame["pair_id"].n_unique()
    frame = frame.unique("pair_id", keep="first", maintain_order=True)
    return frame, {
        "dataset": dataset.dataset,
        "method": dataset.method,
        "size_factor": profile.size_of(dataset.dataset),
        "rows": frame.height,
        "effective_pairs": int(frame["upsample"].sum()),
        "shortage": sum(p["wanted"] - p["got"] for p in parts),
        "in_two_parts": twice,
        "categories": _counts(frame, "category"),
        "origins": _counts(frame, "origin"),
        "students": _counts(frame, "student"),
        "parts": parts,
    }


def _dialogue_facts(part: DatasetPart, frame: pl.DataFrame, items: int, *, available: int) -> dict[str, Any]:
    """Of `items` dialogues that a part wants, what `frame` holds; `available` counts rows."""
    turns = part.rows_per_item
    return {
        "origin": part.origin,
        "upsample": part.upsample,
        "rows_per_item": turns,
        "items_wanted": items,
        "items_got": frame.height // turns,
        "items_not_available": items - frame.height // turns,
        "wanted": items * turns,
        "got": frame.height,
        "available": available,
        "categories": _counts(frame, "category"),
    }


def _counts(frame: pl.DataFrame, column: str) -> dict[str, int]:
    return dict(sorted((str(k), n) for k, n in frame.drop_nulls(column).group_by(column).len().iter_rows()))


class _Recipe:
    """One dataset being put together; remembers which pairs earlier parts have used."""

    def __init__(
        self,
        dataset: Dataset,
        profile: Profile,
        filtered: pl.DataFrame,
        character: Character,
        other_students: Mapping[str, pl.DataFrame],
        datasets: Mapping[str, pl.DataFrame],
        passages: pl.DataFrame | None,
    ) -> None:
        self.dataset, self.profile, self.filtered, self.character = dataset, profile, filtered, character
        self.other_students, self.datasets, self.passages = other_students, datasets, passages
        self.used: set[str] = set()
        self.generated: pl.DataFrame | None = None

    def use_generated(self, introspection: pl.DataFrame) -> None:
        """Take introspection from these rows instead of the filtered pairs."""
        self.generated = introspection
        reflections = introspection.filter(pl.col("dialogue").is_null())
        others = self.filtered.filter(pl.col("origin") != "introspection")
        columns = [pl.col(c).cast(t) for c, t in PAIRS.items()]
        self.filtered = pl.concat([others.select(columns), reflections.select(columns)])

    def take(self, part: DatasetPart) -> tuple[pl.DataFrame, dict[str, Any]]:
        if part.dataset is not None:
            return self._take_dataset(part, part.dataset)
        if part.rows_per_item > 1 and part.origin == "introspection" and self.generated is not None:
            return self._take_generated_dialogues(part, self.generated)
        if part.rows_per_item > 1:
            return self._take_dialogues(part)
        return self._take_origin(part)

    # -- parts ---------------------------------------------------------------------------------------------------------

    def _take_dataset(self, part: DatasetPart, name: str) -> tuple[pl.DataFrame, dict[str, Any]]:
        frame = self._needed(self.datasets, name, "the dataset")
        wanted = frame.height
        facts: dict[str, Any] = {"dataset": name, "upsample": part.upsample}
        if part.rejected_from is not None:
            frame, dropped = self._on_policy(frame, part.rejected_from)
            facts |= {"rejected_from": part.rejected_from, "dropped": dict(sorted(dropped.items()))}
        return self._weighed(frame, part, {**facts, "wanted": wanted, "got": frame.height})

    def _take_origin(self, part: DatasetPart) -> tuple[pl.DataFrame, dict[str, Any]]:
        wanted = scaled(part.pairs or 0, self.profile.size_of(self.dataset.dataset))
        available = self._available(part)
        frame = available.head(wanted)
        self.used |= set(frame["pair_id"])
        frame, shares = self._choose_students(frame, part.students)
        facts = {
            "origin": part.origin,
            "upsample": part.upsample,
            "wanted": wanted,
            "got": frame.height,
            "available": available.height,
            "categories": _counts(frame, "category"),
            "students": shares,
        }
        return self._weighed(self._finish(frame.with_columns(upsample=pl.lit(1, pl.Int64))), part, facts)

    def _take_dialogues(self, part: DatasetPart) -> tuple[pl.DataFrame, dict[str, Any]]:
        """Items of several turns on one document; see the module's docstring."""
        if self.passages is None:
            raise MissingArtifact(
                f"{self.dataset.dataset} has dialogues and needs the passages' places in their documents",
                where=f"assets/datasets/{self.dataset.dataset}.yaml",
                mend=f"build {self.character.character}_passages first",
            )
        turns, items = part.rows_per_item, scaled(part.pairs or 0, self.profile.size_of(self.dataset.dataset))
        placed = placed_pairs(self._available(part), self.passages)
        found = led_by_passages(placed, turns=turns, items=items)
        self.used |= {row.pop("source_pair") for row in found}
        frame = pl.DataFrame(found, {c: t for c, t in placed.schema.items() if c in PAIRS})
        frame = self._finish(score_pairs(frame, self.character).with_columns(upsample=pl.lit(1, pl.Int64)))
        return self._weighed(frame, part, _dialogue_facts(part, frame, items, available=placed.height))

    def _take_generated_dialogues(self, part: DatasetPart, rows: pl.DataFrame) -> tuple[pl.DataFrame, dict[str, Any]]:
        """Dialogues that a teacher led with itself, whole."""
        turns, items = part.rows_per_item, scaled(part.pairs or 0, self.profile.size_of(self.dataset.dataset))
        whole = [d for d in whole_dialogues(rows, turns) if self.used.isdisjoint(d["pair_id"])]
        frame = pl.concat([rows.clear(), *whole[:items]])
        self.used |= set(frame["pair_id"])
        facts = {
            **_dialogue_facts(part, frame, items, available=len(whole) * turns),
            "rows_from": "generated dialogues",
        }
        return self._weighed(self._finish(frame.with_columns(upsample=pl.lit(1, pl.Int64))), part, facts)

    @staticmethod
    def _weighed(frame: pl.DataFrame, part: DatasetPart, facts: dict[str, Any]) -> tuple[pl.DataFrame, dict[str, Any]]:
        """Each pair as often as the part's weight in the mixture has it; what is left out thereby is counted."""
        shown = weigh(frame, part)
        if part.weight != 1:
            facts |= {"weight": part.weight, "left_out": frame.height - shown.height}
        return shown, facts

    # -- pieces --------------------------------------------------------------------------------------------------------

    def _available(self, part: DatasetPart) -> pl.DataFrame:
        free = self.filtered.filter((pl.col("origin") == part.origin) & ~pl.col("pair_id").is_in(list(self.used)))
        floors = {str(category): floor for category, floor in self.profile.teacher.serves.items()}
        return selection_order(free, floors).select(pl.col(c).cast(t) for c, t in PAIRS.items())

    def _finish(self, frame: pl.DataFrame) -> pl.DataFrame:
        """Supervised rows have an answer and no other side; their ids and scores say so."""
        frame = frame.select(pl.col(c).cast(t) for c, t in PAIRS.items())
        if self.dataset.method != "sft":
            return frame
        empty = [pl.lit(None, PAIRS[c]).alias(c) for c in ("rejected", "student", "student_request_hash")]
        return score_pairs(frame.with_columns(empty), self.character)

    def _needed(self, given: Mapping[str, pl.DataFrame], name: str, what: str) -> pl.DataFrame:
        if name not in given:
            raise MissingArtifact(
                f"{self.dataset.dataset} needs {what} {name}, which was not handed over",
                where=f"assets/datasets/{self.dataset.dataset}.yaml",
                mend=f"build {name} first",
            )
        return given[name]

    def _answers(self, run: str, prompt_ids: Sequence[str]) -> pl.DataFrame:
        answers = self._needed(self.other_students, run, "the answers of")
        if missing := missing_answers(prompt_ids, answers):
            raise MissingArtifact(
                f"{run} has not answered {len(missing)} prompts of {self.dataset.dataset}",
                where=", ".join(missing[:5]),
                mend=f"have {run} answer every prompt of that dataset",
            )
        return answers.select("prompt_id", "rejected", "student", "student_request_hash", "finish_reason")

    def _with_rejected(self, frame: pl.DataFrame, run: str) -> pl.DataFrame:
        """`frame`, in its order, with the rejected side of `run`, scored anew; column finish_reason is added."""
        answers = self._answers(run, frame["prompt_id"].to_list())
        other = frame.drop("rejected", "student", "student_request_hash")
        return score_pairs(other.join(answers, on="prompt_id", how="left", maintain_order="left"), self.character)

    def _first_faults(self, frame: pl.DataFrame) -> list[str | None]:
        """For each pair the first rule that drops it, None where it may stay."""
        return pair_faults(frame, self.profile.filters, self.character).first_rules()

    def _choose_students(self, frame: pl.DataFrame, students: Sequence[str]) -> tuple[pl.DataFrame, dict[str, int]]:
        """For each pair the student whose answer is farthest from the chosen one in voice, and how often each was.

        `base_fallback` counts pairs that a trained student could not better because its answer failed the filter.
        """
        runs = [s for s in students if s != BASE]
        only_runs = BASE not in students
        best = frame.rows(named=True)
        share = [BASE] * len(best)
        failed = [False] * len(best)
        for run in runs:
            answered = self._with_rejected(frame, run)
            faults = self._first_faults(answered)
            for i, row in enumerate(answered.rows(named=True)):
                if faults[i] is not None:
                    failed[i] = True
                elif only_runs and share[i] == BASE or row["voice_contrast"] > best[i]["voice_contrast"]:
                    best[i], share[i] = {c: row[c] for c in PAIRS}, run
        shares = Counter(FALLBACK if s == BASE and f else s for s, f in zip(share, failed, strict=True))
        return pl.DataFrame(best, PAIRS), dict(sorted(shares.items()))

    def _on_policy(self, frame: pl.DataFrame, run: str) -> tuple[pl.DataFrame, Counter[str]]:
        """The same prompts and chosen sides against `run`'s own answers; what fails the filter goes, and is counted."""
        renewed = self._with_rejected(frame.with_columns(origin=pl.lit("on_policy")), run)
        rules = self._first_faults(renewed)
        kept = renewed.filter(pl.Series([r is None for r in rules], dtype=pl.Boolean))
        return kept.select(*PAIRS), Counter(r for r in rules if r is not None)
