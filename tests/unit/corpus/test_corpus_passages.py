from __future__ import annotations

import hashlib

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from foundry_pipeline.corpus.passages import LONGEST, SHORTEST, cut_counts, cut_passages, cut_text, find_anchor
from foundry_pipeline.declarations.sources import PassageAnchor
from foundry_pipeline.errors import DeclarationError
from foundry_pipeline.textstats import sentence_spans, words


def sentence(size: int, name: str = "word") -> str:
    return "The " + " ".join(f"{name}{i}" for i in range(size - 1)) + "."


def cut(text: str) -> list[str]:
    return [text[a:b] for a, b in cut_text(text).spans]


def table(**texts: str) -> pl.DataFrame:
    rows = [
        {
            "document_id": k,
            "source": "s",
            "role": "primary",
            "author": "a",
            "date": "1810-12-05",
            "text": t,
            "held_out": False,
        }
        for k, t in texts.items()
    ]
    return pl.DataFrame(rows)


def test_paragraphs_are_kept_and_the_salutation_is_not():
    first, second = sentence(40, "a"), sentence(60, "b")
    text = f"Fellow-Citizens of the Senate:\n\n{first}\n \n{second}\r\n\r\n"
    assert cut(text) == [first, second]
    assert cut_text(text).salutations == 1
    long_opening = sentence(40)[:-1] + ":"
    assert cut(f"{long_opening}\n\n{first}") == [long_opening, first]


def test_a_long_paragraph_is_divided_evenly_at_sentence_ends():
    parts = [sentence(50, name) for name in "abcd"]
    assert cut(" ".join(parts)) == [" ".join(parts[:2]), " ".join(parts[2:])]
    assert cut_text(" ".join(parts)).divided == 1


def test_no_division_at_an_abbreviation():
    text = f"{sentence(100)[:-1]} on the St. Lawrence {sentence(90, 'x')}"
    assert cut(text) == [text]


def test_a_sentence_is_never_divided():
    assert cut(sentence(300)) == [sentence(300)]
    assert cut(sentence(300) + " " + sentence(30, "x")) == [sentence(300), sentence(30, "x")]


def test_a_short_paragraph_joins_its_shorter_neighbour():
    a, short, b = sentence(60, "a"), sentence(10, "s"), sentence(50, "b")
    assert cut(f"{a}\n\n{short}\n\n{b}") == [a, f"{short}\n\n{b}"]
    assert cut(f"{a}\n\n{short}\n\n{sentence(70, 'b')}") == [f"{a}\n\n{short}", sentence(70, "b")]
    assert cut(f"{a}\n\n{short}") == [f"{a}\n\n{short}"]
    assert cut(short) == [short]
    assert cut(f"{sentence(8, 'p')}\n\n{sentence(9, 'q')}\n\n{sentence(9, 'r')}\n\n{a}")[0].count("\n\n") == 2


def test_a_repetition_is_kept_once():
    same = sentence(40)
    assert cut(f"{same}\n\n{sentence(41, 'x')}\n\n{same}") == [same, sentence(41, "x")]


@given(
    st.lists(st.lists(st.integers(1, 200), min_size=1, max_size=6), max_size=6),
    st.sampled_from(["\n\n", "\r\n\r\n", "\n \n\n"]),
)
def test_any_document(paragraphs, gap):
    number = iter(range(10_000))
    text = gap.join(" ".join(sentence(size, f"w{next(number)}_") for size in sizes) for sizes in paragraphs)
    spans = cut_text(text).spans
    assert spans == sorted(spans)
    assert all(a[1] <= b[0] for a, b in zip(spans, spans[1:], strict=False))
    assert " ".join(text[a:b] for a, b in spans).split() == text.split()  # nothing lost, nothing twice
    if len(spans) > 1:
        assert all(len(words(text[a:b])) >= SHORTEST for a, b in spans)


def test_the_table(corpus):
    passages = corpus.passages
    texts = dict(corpus.documents.select("document_id", "text").iter_rows())
    for row in passages.iter_rows(named=True):
        text = texts[row["document_id"]]
        assert text[row["start"] : row["end"]] == row["text"] == row["text"].strip()
        assert row["passage_id"] == hashlib.sha256((row["document_id"] + row["text"]).encode()).hexdigest()
        assert row["words"] == len(words(row["text"]))
        assert row["year"] == int(row["document_id"][-4:])
    assert passages["passage_id"].is_unique().all()
    for (_,), group in passages.group_by("document_id"):
        assert group["position"].to_list() == list(range(group.height))
    counts = cut_counts(corpus.documents)
    assert counts["passages"] == passages.height
    assert counts["salutations"] == 16


def test_the_sizes_of_the_real_passages(corpus):
    """All but the two that are one sentence lie between the bounds; every word outside the salutations is in a passage."""
    assert corpus.passages["words"].min() >= SHORTEST
    long = corpus.passages.filter(pl.col("words") > LONGEST + SHORTEST)
    assert long.height >= 1
    assert all(len(sentence_spans(text)) == 1 for text in long["text"])
    for row in corpus.documents.iter_rows(named=True):
        own = corpus.passages.filter(document_id=row["document_id"])
        salutation = row["text"].split("\n\n")[0]
        assert own["words"].sum() == len(words(row["text"])) - len(words(salutation))


def test_order_and_outcome_do_not_depend_on_the_order_of_the_documents(corpus):
    assert_frame_equal(cut_passages(corpus.documents.reverse()), corpus.passages)
    assert corpus.passages.filter("held_out")["document_id"].unique().to_list() == ["annual_message_1815"]


def test_an_empty_document_is_refused():
    with pytest.raises(DeclarationError, match="`blank`"):
        cut_passages(table(blank="To whom it may concern:\n\n", full=sentence(30)))


def test_an_anchor_finds_its_passage(corpus):
    anchor = PassageAnchor(document="annual_message_1810", anchor="a well-instructed people\nalone  can be")
    found = find_anchor(corpus.passages, anchor)
    assert found["document_id"] == "annual_message_1810"
    assert "seminary of learning" in found["text"]


def test_an_anchor_must_be_in_the_cleaned_text_of_its_document(corpus):
    for document, words_ in [
        ("annual_message_1810", "united councils and flexible exertions"),  # as transcribed
        ("annual_message_1811", "a well-instructed people alone"),  # of another year
    ]:
        with pytest.raises(DeclarationError, match="in no passage"):
            find_anchor(corpus.passages, PassageAnchor(document=document, anchor=words_))


def test_an_anchor_that_is_ambiguous_or_misnamed_is_refused(corpus):
    with pytest.raises(DeclarationError, match="occur .* times"):
        find_anchor(corpus.passages, PassageAnchor(document="annual_message_1810", anchor="the United States"))
    with pytest.raises(DeclarationError, match="did you mean `annual_message_1810`"):
        find_anchor(corpus.passages, PassageAnchor(document="anual_message_1810", anchor="well-instructed people"))
    twice = table(d=f"{sentence(30)} upon my word I say. {sentence(30, 'x')} upon my word I say.")
    with pytest.raises(DeclarationError, match="occur 2 times"):
        find_anchor(cut_passages(twice), PassageAnchor(document="d", anchor="upon my word I say"))
