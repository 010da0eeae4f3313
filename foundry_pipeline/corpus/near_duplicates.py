"""Passages that say the same in two documents: linked, counted once, and never on both sides of the held-out line.

    >>> linked = link_duplicates(passages, priority={"messages": 0, "edition": 1})
    >>> linked.passages.filter(pl.col("duplicate_of").is_not_null())["document_id"].unique().to_list()
    ['edition_1811']

Two sources seldom cut a text at the same places, so what is measured is containment (Broder 1997): which share of a
passage's runs of SHINGLE words stands in another passage. MinHash sketches estimate resemblance only and would miss a
paragraph inside a longer one; here an index of rare runs proposes and the exact sets decide, so nothing is linked that is
not alike. Formulas that many documents share are no evidence. Of two passages that hold each other, the one of the preferred source counts; of one inside another, the longer.

A passage that shares LEAK of its runs with a held-out document's passage is held out too, whichever document it is in:
else the text kept for measuring would be trained on through its second edition.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from foundry_pipeline.textstats import words

SHINGLE = 4  # words: in prose of one author, runs of four rarely come back by chance (see tests for the real messages)
SAME = 0.6  # share of its runs that a passage has in another, from which on it is a duplicate of it
LEAK = 0.3  # and from which on it may not be trained on if the other is held out
FORMULA = 16  # documents: a run in more of them is a formula ("i have the honor to be …") and says nothing of copying
COMMON = 64  # passages: a run of words in more of them proposes nothing ("of the united states of …")

LINK_SCHEMA = {
    "passage_id": pl.String,
    "other_id": pl.String,
    "document_id": pl.String,
    "other_document": pl.String,
    "share": pl.Float64,
    "other_share": pl.Float64,
    "jaccard": pl.Float64,
}

Runs = NDArray[np.uint64]


@dataclass(frozen=True)
class Linked:
    """The passages with `duplicate_of` and `held_out` set, and the links that they follow from.

    A link's `share` is the part of the passage's runs that stands in the other, `other_share` the reverse.
    """

    passages: pl.DataFrame
    links: pl.DataFrame
    counts: dict[str, int]


def link_duplicates(passages: pl.DataFrame, *, priority: Mapping[str, int]) -> Linked:
    """Link the passages of different documents that are nearly the same.

    `passages` has the columns of PASSAGE_SCHEMA; `priority` gives each source's rank (lowest first; then by document,
    position). `duplicate_of` becomes the id of the passage that counts, never itself a duplicate. Only passages of one
    role and author are counted as one; whose a passage is that two authors claim is not decided here, but counted.
    """
    rows = passages.select(
        "passage_id", "document_id", "source", "role", "author", "position", "held_out", "words"
    ).to_dicts()
    runs = _runs(passages["text"].to_list())
    documents = passages["document_id"].to_list()
    telling = _telling(runs, documents)
    pairs = [(a, b, _shares(runs, telling, a, b)) for a, b in _candidates(telling, documents)]
    linked = [(a, b, s) for a, b, s in pairs if max(s[0], s[1]) >= LEAK]
    held_out = {i for i, row in enumerate(rows) if row["held_out"]}
    leaked = {y for a, b, s in linked for x, y in ((a, b), (b, a)) if x in held_out and y not in held_out}

    def rank(i: int) -> tuple[bool, int, str, str, int]:
        row = rows[i]
        # What is held out counts, so that nothing that stays is known by the name of something that may be trained on.
        return i not in held_out, priority.get(row["source"], 0), row["source"], row["document_id"], row["position"]

    same = [(a, b, s) for a, b, s in linked if max(s[0], s[1]) >= SAME]
    whose = [(row["role"], row["author"]) for row in rows]
    one_voice = [(a, b, s) for a, b, s in same if whose[a] == whose[b]]
    canonical = _canonical(one_voice, {i: rank(i) for pair in one_voice for i in pair[:2]})
    ids = passages["passage_id"].to_list()
    marked = passages.with_columns(
        pl.Series(
            "duplicate_of", [ids[canonical[i]] if i in canonical else None for i in range(len(ids))], dtype=pl.String
        ),
        pl.Series("held_out", [i in held_out or i in leaked for i in range(len(ids))], dtype=pl.Boolean),
    )
    links = pl.DataFrame(
        [(ids[a], ids[b], rows[a]["document_id"], rows[b]["document_id"], *s) for a, b, s in linked],
        schema=LINK_SCHEMA,
        orient="row",
    )
    counts = {
        "duplicates": len(canonical),
        "held out as near-duplicates": len(leaked),
        "claimed by two authors": len({i for a, b, _ in same if whose[a] != whose[b] for i in (a, b)}),
    }
    return Linked(marked, links.sort("passage_id", "other_id"), counts)


def _canonical(
    same: list[tuple[int, int, tuple[float, float, float]]], rank: Mapping[int, tuple[bool, int, str, str, int]]
) -> dict[int, int]:
    """Duplicate → the passage that counts for it.

    A passage gives way to one that holds it: to a longer one that it does not hold in turn, else to the better ranked.
    Of several, it is known by the best ranked of those that give way to none.
    """
    above: dict[int, set[int]] = {}
    for a, b, (share, other_share, _) in same:
        mutual = share >= SAME and other_share >= SAME
        a_gives_way = rank[b] < rank[a] if mutual else share >= SAME
        # A held-out passage counts whatever its length: the second copy of a kept text must not stand in its place.
        if rank[a][0] != rank[b][0]:
            a_gives_way = rank[a][0]
        lower, upper = (a, b) if a_gives_way else (b, a)
        above.setdefault(lower, set()).add(upper)
    found: dict[int, int] = {}
    for start in above:
        seen, edge = {start}, [start]
        tops: set[int] = set()
        while edge:
            at = edge.pop()
            uppers = above.get(at, set()) - seen
            if not above.get(at):
                tops.add(at)
            seen |= uppers
            edge.extend(uppers)
        # A ring (each a little inside the next) has no top: its best ranked passage then counts.
        top = min(tops or seen, key=lambda i: rank[i])
        if top != start:
            found[start] = top
    return found


def _runs(texts: list[str]) -> list[Runs]:
    """Sorted distinct hashes of each text's runs of SHINGLE words; of a shorter text, none."""
    vocabulary: dict[str, int] = {}
    found = []
    for text in texts:
        ids = np.array([vocabulary.setdefault(w, len(vocabulary)) for w in words(text)], dtype=np.uint64)
        mixed = np.zeros(max(0, len(ids) - SHINGLE + 1), dtype=np.uint64)
        for offset in range(SHINGLE):
            mixed = _mix(mixed + ids[offset : offset + len(mixed)] + np.uint64(1))
        found.append(np.unique(mixed))
    return found


def _mix(values: Runs) -> Runs:
    """SplitMix64 (Steele, Lea and Flood, 2014): every bit of the input moves about half of the output's."""
    values = values + np.uint64(0x9E3779B97F4A7C15)
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def _table(runs: list[Runs], documents: list[str]) -> pl.DataFrame:
    """One row a run of a passage: run, passage, document, the latter two as numbers."""
    number = {name: i for i, name in enumerate(dict.fromkeys(documents))}
    sizes = [len(r) for r in runs]
    return pl.DataFrame(
        {
            "run": np.concatenate(runs) if runs else np.array([], dtype=np.uint64),
            "passage": np.repeat(np.arange(len(runs), dtype=np.uint32), sizes),
            "document": np.repeat(np.array([number[d] for d in documents], dtype=np.uint32), sizes),
        }
    )


def _telling(runs: list[Runs], documents: list[str]) -> list[Runs]:
    """Each passage's runs that are no formulas; all of them where little else is left, since it is a formula then."""
    often = (
        _table(runs, documents).group_by("run").agg(pl.col("document").n_unique()).filter(pl.col("document") > FORMULA)
    )
    formulas = np.sort(often["run"].to_numpy())
    kept = [np.setdiff1d(r, formulas, assume_unique=True) for r in runs]
    return [k if len(k) >= 0.25 * len(r) else r for k, r in zip(kept, runs, strict=True)]


def _candidates(runs: list[Runs], documents: list[str]) -> list[tuple[int, int]]:
    """Pairs (a < b) of passages of different documents that share enough runs which are not common, in order."""
    rare = _table(runs, documents).filter(pl.len().over("run").is_between(2, COMMON))
    met = (
        rare.join(rare, on="run", suffix="_other")
        .filter((pl.col("passage") < pl.col("passage_other")) & (pl.col("document") != pl.col("document_other")))
        .group_by("passage", "passage_other")
        .len()
        .sort("passage", "passage_other")
    )
    sizes = np.array([len(r) for r in runs], dtype=np.int64)
    least = np.minimum(sizes[met["passage"].to_numpy()], sizes[met["passage_other"].to_numpy()])
    # Common runs may be missing from the count, so half of what is needed proposes.
    near = met.filter(pl.Series(met["len"].to_numpy() >= 0.5 * LEAK * least))
    return list(zip(near["passage"].to_list(), near["passage_other"].to_list(), strict=True))


def _shares(runs: list[Runs], telling: list[Runs], a: int, b: int) -> tuple[float, float, float]:
    """(share of a in b, share of b in a, Jaccard similarity), exact, over the runs that tell."""
    in_b = len(np.intersect1d(telling[a], runs[b], assume_unique=True))
    in_a = len(np.intersect1d(telling[b], runs[a], assume_unique=True))
    shared = len(np.intersect1d(telling[a], telling[b], assume_unique=True))
    either = len(telling[a]) + len(telling[b]) - shared
    return round(in_b / len(telling[a]), 6), round(in_a / len(telling[b]), 6), round(shared / either, 6)
