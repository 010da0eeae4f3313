"""Passages of two sources that say the same: linked exactly, counted once, and never on both sides of the line."""

from __future__ import annotations

import random

import polars as pl
import pytest
from gutenberg_sample import paragraph
from hypothesis import given, settings
from hypothesis import strategies as st

from foundry_pipeline.corpus.near_duplicates import LEAK, SAME, SHINGLE, link_duplicates
from foundry_pipeline.corpus.passages import PASSAGE_SCHEMA, own_passages
from foundry_pipeline.textstats import words


def passages(
    *rows: tuple[str, str, str], held_out: str = "", author: str = "A", roles: dict[str, str] | None = None
) -> pl.DataFrame:
    """(document, source, text) of each passage; ids are p0, p1, …"""
    made = []
    for index, (document, source, text) in enumerate(rows):
        role = (roles or {}).get(document, "primary")
        made.append(
            {"passage_id": f"p{index}", "document_id": document, "source": source, "role": role, "author": author if role == "primary" else role,
             "position": index, "date": "1788", "year": 1788, "text": text, "words": len(words(text)),
             "held_out": document == held_out, "start": 0, "end": len(text), "duplicate_of": None}
        )  # fmt: skip
    return pl.DataFrame(made, schema=PASSAGE_SCHEMA)


def marked(linked) -> dict[str, str | None]:
    return dict(linked.passages.select("passage_id", "duplicate_of").iter_rows())


TEXTS = [paragraph(random.Random(i), 5) for i in range(12)]
ONE, TWO, THREE = TEXTS[:3]


def test_the_preferred_source_counts():
    table = passages(("b_1", "b", ONE), ("a_1", "a", ONE.replace("the ", "ye ", 1)), ("a_2", "a", TWO))
    assert marked(link_duplicates(table, priority={})) == {"p0": "p1", "p1": None, "p2": None}
    linked = link_duplicates(table, priority={"a": 9, "b": 1})
    assert marked(linked) == {"p0": None, "p1": "p0", "p2": None}
    assert linked.counts == {"duplicates": 1, "held out as near-duplicates": 0, "claimed by two authors": 0}
    assert own_passages(linked.passages)["passage_id"].to_list() == ["p0", "p2"]


def test_a_paragraph_inside_a_longer_one():
    """Two sources cut one text at different places: the shorter passage is in the longer one, whatever the order."""
    table = passages(("a_1", "a", ONE), ("a_1", "a", TWO), ("b_1", "b", f"{ONE} {TWO} {THREE}"))
    linked = link_duplicates(table, priority={})
    assert marked(linked) == {"p0": "p2", "p1": "p2", "p2": None}
    assert linked.links.filter(pl.col("passage_id") == "p0").select("share", "jaccard").row(0)[0] == 1.0


def test_what_is_held_out_is_held_out_in_every_source():
    half = " ".join(ONE.split()[: len(ONE.split()) // 2]) + " " + THREE
    table = passages(
        ("a_1", "a", ONE), ("b_1", "b", ONE + " with a word"), ("c_1", "c", half), ("c_1", "c", TWO), held_out="b_1"
    )
    linked = link_duplicates(table, priority={"b": 9})
    assert linked.passages.select("passage_id", "held_out").rows() == [
        ("p0", True),
        ("p1", True),
        ("p2", True),
        ("p3", False),
    ]
    assert marked(linked)["p0"] == "p1", "the held-out document's own passage is the one that counts"
    assert linked.counts["held out as near-duplicates"] == 2
    assert own_passages(linked.passages)["passage_id"].to_list() == ["p3"]


def test_two_authors_are_not_made_one():
    table = passages(("a_1", "a", ONE), ("b_1", "b", ONE), roles={"b_1": "joint"})
    linked = link_duplicates(table, priority={})
    assert marked(linked) == {"p0": None, "p1": None}
    assert linked.counts["claimed by two authors"] == 2
    assert linked.links.height == 1


def test_one_document_may_repeat_itself():
    table = passages(("a_1", "a", ONE), ("a_1", "a", ONE + " again"))
    assert marked(link_duplicates(table, priority={})) == {"p0": None, "p1": None}


def test_a_formula_is_no_evidence():
    """Letters that share only their closing: neither duplicates, nor held out with the one that is."""
    closing = (
        "I have the honor to be, Sir, with sentiments of the most perfect respect, your obedient and humble servant"
    )
    rows = [(f"l_{i}", "a", f"{paragraph(random.Random(100 + i), 1)} {closing}") for i in range(20)]
    linked = link_duplicates(passages(*rows, held_out="l_3"), priority={})
    assert linked.links.height == 0
    few = link_duplicates(passages(*rows[:5], held_out="l_3"), priority={})
    assert few.counts["held out as near-duplicates"] == 4, "in five documents it is not known for a formula"
    alone = [(f"l_{i}", "a", closing) for i in range(20)]
    assert link_duplicates(passages(*alone), priority={}).counts["duplicates"] == 19, "a formula alone is one passage"


def test_nothing_and_next_to_nothing():
    assert link_duplicates(passages(), priority={}).passages.height == 0
    assert link_duplicates(passages(("a", "a", "Sir"), ("b", "b", "Sir")), priority={}).links.height == 0


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000), st.integers(2, 12))
def test_links_agree_with_counting_by_hand(seed, count):
    """Against sets of word runs compared pair by pair: no false link, none missed, and no duplicate of a duplicate."""
    rng = random.Random(seed)
    pool = [rng.choice(TEXTS).split() for _ in range(4)]
    rows = []
    for index in range(count):
        text = [w for w in rng.choice(pool) if rng.random() > 0.05]
        rows.append((f"{rng.choice('ab')}_{rng.randint(1, 3)}", f"s{index % 3}", " ".join(text[rng.randint(0, 20) :])))
    table = passages(*rows)
    linked = link_duplicates(table, priority={"s1": -1})
    runs = [set(zip(*(words(t)[k:] for k in range(SHINGLE)), strict=False)) for t in table["text"]]
    expected = {}
    for a in range(count):
        for b in range(a + 1, count):
            shared = len(runs[a] & runs[b])
            if rows[a][0] != rows[b][0] and runs[a] and runs[b] and shared / min(len(runs[a]), len(runs[b])) >= LEAK:
                expected[f"p{a}", f"p{b}"] = (round(shared / len(runs[a]), 6), round(shared / len(runs[b]), 6))
    found = {
        (r["passage_id"], r["other_id"]): (r["share"], r["other_share"]) for r in linked.links.iter_rows(named=True)
    }
    assert found == expected
    known = marked(linked)
    for passage, other in known.items():
        assert other is None or known[other] is None
        assert (other is not None) <= any(passage in pair and max(s) >= SAME for pair, s in found.items())
    again = link_duplicates(
        table.sample(fraction=1.0, shuffle=True, seed=seed).with_columns(pl.lit(None, pl.String).alias("duplicate_of")),
        priority={"s1": -1},
    )
    assert marked(again) == known, "the order of the table is not part of the answer"


def test_the_real_messages_have_no_duplicates(corpus):
    linked = link_duplicates(corpus.passages, priority={})
    assert linked.counts == {"duplicates": 0, "held out as near-duplicates": 0, "claimed by two authors": 0}
    assert linked.passages.equals(corpus.passages)


@pytest.mark.parametrize("slips", [0.02, 0.06])
def test_a_second_transcription_of_the_real_messages(corpus, slips):
    """Old spellings, lost words and other paragraph ends: nearly every passage is still found."""
    from foundry_pipeline.corpus.passages import cut_passages

    rng = random.Random(1)
    own = corpus.documents.filter(pl.col("role") == "primary")

    def copied(text: str) -> str:
        said = [
            w.replace("or", "our") if rng.random() < slips else w for w in text.split(" ") if rng.random() > slips / 4
        ]
        return " ".join(said).replace("\n\n", "\n", 3)

    second = own.with_columns(
        pl.format("copy_{}", "document_id").alias("document_id"),
        pl.lit("copy").alias("source"),
        pl.lit(False).alias("held_out"),
        pl.Series("text", [copied(t) for t in own["text"]]),
    )
    both = cut_passages(pl.concat([corpus.documents, second]))
    linked = link_duplicates(both, priority={"copy": 1})
    copies = linked.passages.filter(pl.col("source") == "copy")
    assert copies["duplicate_of"].is_not_null().mean() > 0.95
    assert linked.passages.filter(pl.col("source") != "copy")["duplicate_of"].is_not_null().sum() < 20
    leaked = copies.filter((pl.col("document_id") == "copy_annual_message_1815") & ~pl.col("held_out"))
    assert leaked.height == 0, "the held-out message may not be trained on through its copy"
