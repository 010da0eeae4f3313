"""Two transcriptions of one text: every difference listed once, in its place and by its kind."""

from __future__ import annotations

import random

import polars as pl
from gutenberg_sample import paragraph
from hypothesis import given, settings
from hypothesis import strategies as st

from foundry_pipeline.corpus.near_duplicates import link_duplicates
from foundry_pipeline.corpus.passages import cut_passages
from foundry_pipeline.corpus.transcriptions import (
    DIFFERENCE_SCHEMA,
    compare,
    compare_documents,
    differences_frame,
    same_texts,
)


def listed(a: str, b: str) -> list[tuple[str, str, str]]:
    return [(d.kind, d.text_a, d.text_b) for d in compare(a, b, a="a", b="b").differences]


def test_kinds_of_differences():
    assert listed("The publick good", "The public good") == [("spelling", "publick", "public")]
    assert listed("go to-morrow, Sir", "go tomorrow, Sir") == [("spelling", "to-morrow", "tomorrow")]
    assert listed("the Union; and", "the union, and") == [("case", "Union", "union"), ("punctuation", ";", ",")]
    assert listed("a safe harbour", "a secure haven") == [("word", "safe", "secure"), ("word", "harbour", "haven")]
    assert listed("the lamp was lit", "the lamp was soon lit") == [("missing", "", "soon")]
    assert listed("lit , and spent", "lit and spent") == [("punctuation", ",", "")]
    assert listed("“It’s  his”\r\n\r\nlamp", '"It\'s his" lamp') == [], (
        "typography and white space alone are no difference"
    )


def test_offsets_are_places_in_the_texts():
    a, b = "Dear Sir,\n\nThe publick good is dear.", "Dear Sir, The public good is not dear."
    found = compare(a, b, a="x", b="y")
    for d in found.differences:
        assert a[d.offset_a : d.offset_a + len(d.text_a)] == d.text_a
        assert b[d.offset_b : d.offset_b + len(d.text_b)] == d.text_b
    assert [d.offset_a for d in found.differences] == [15, 31]
    assert found.counts == {"spelling": 1, "punctuation": 0, "case": 0, "word": 0, "missing": 1}
    assert found.frame().schema == DIFFERENCE_SCHEMA


WORDS = st.lists(
    st.sampled_from(["the", "keeper", "lit", "a", "lamp", "and", ",", ".", "Lamp", "oil", "was", "spent"]), max_size=40
)


@settings(deadline=None)
@given(WORDS, WORDS)
def test_the_differences_turn_one_text_into_the_other(left, right):
    a, b = " ".join(left), " ".join(right)
    found = compare(a, b, a="a", b="b")
    made, at = [], 0
    for d in found.differences:
        made.append(a[at : d.offset_a])
        made.append(f" {d.text_b} ")
        at = d.offset_a + len(d.text_a)
    assert " ".join("".join([*made, a[at:]]).split()).split() == b.split()
    assert 0.0 <= found.equal <= 1.0
    assert (found.differences == ()) == (a.split() == b.split())
    common = {w for w in left if w.isalpha()} & {w for w in right if w.isalpha()}
    if left and right and not {",", "."} & {*left, *right}:
        assert (found.equal > 0) == bool(common)


def test_twenty_thousand_words():
    """Long texts are divided at shared runs; the planted differences, all of them and no others, come out."""
    rng = random.Random(5)
    words = [
        f"{w}{i}"
        for i, w in enumerate(
            " ".join(paragraph(rng, 10) for _ in range(200)).replace(".", "").replace(",", "").split()
        )
    ][:20_000]
    assert len(words) == 20_000
    other = list(words)
    spelt = rng.sample(range(0, 20_000, 3), 200)
    for i in spelt:
        other[i] = "q" + other[i]
    lost = set(rng.sample([i for i in range(1, 20_000, 3) if i - 1 not in spelt], 100))
    found = compare(" ".join(words), " ".join(w for i, w in enumerate(other) if i not in lost), a="a", b="b")
    assert found.counts == {"spelling": 200, "punctuation": 0, "case": 0, "word": 0, "missing": 100}
    assert (found.words_a, found.words_b) == (20_000, 19_900)


def test_documents_that_are_one_text_are_found_and_compared(corpus):
    second = corpus.documents.filter(pl.col("document_id") == "annual_message_1812").with_columns(
        document_id=pl.lit("copy_1812"),
        source=pl.lit("copy"),
        text=pl.col("text").str.replace_all("war", "warre", literal=True),
    )
    documents = pl.concat([corpus.documents, second])
    linked = link_duplicates(cut_passages(documents), priority={"copy": 1})
    assert same_texts(linked.passages, linked.links) == [("annual_message_1812", "copy_1812")]
    variants = pl.DataFrame(
        {"document_id": ["x_v2"], "variant_of": ["annual_message_1809"], "raw": ["Fellow Citizens"]}
    )
    first, variant = compare_documents(documents, variants, linked.passages, linked.links)
    assert first.counts["spelling"] == len(first.differences) > 20
    assert first.equal > 0.98
    assert (variant.document_a, variant.document_b) == ("annual_message_1809", "x_v2")
    assert differences_frame([first, variant]).height == len(first.differences) + len(variant.differences)
    nothing = variants.clear()
    assert compare_documents(corpus.documents, nothing, corpus.passages, linked.links.clear()) == []
