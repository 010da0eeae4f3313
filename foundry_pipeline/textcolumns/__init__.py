"""The measures of `textstats` over whole columns: the same numbers, about thirty times as fast.

    >>> texts = read_texts(pl.Series(["Don't go. I said so.", "Upon the whole, no."]), Lexicon())
    >>> contractions(texts).tolist(), word_counts(texts).tolist(), sentence_counts(texts).tolist()
    ([1, 0], [5, 4], [2, 1])

`textstats` says what a word, a sentence or a contraction is, one text at a time; nothing here says it again. A column
is cut at its spaces, every distinct piece is read once by `textstats`, and the rest is arithmetic on numbers (`lexicon`).
What cannot be told from a piece alone is sought by a quick pattern that misses nothing, and only the texts it finds are
read in full (`patterns`). The tests hold each measure equal to its definition on arbitrary text.
"""

from __future__ import annotations

from foundry_pipeline.textcolumns.lexicon import Lexicon, Texts, read_texts, row_sums, shared_lexicon
from foundry_pipeline.textcolumns.measures import (
    contractions,
    modern_idiom,
    ngram_hashes,
    repetition,
    row_hashes,
    sentence_counts,
    voice,
    word_counts,
)
from foundry_pipeline.textcolumns.phrases import Phrases
from foundry_pipeline.textcolumns.slices import in_slices

__all__ = [
    "MODULES",
    "Lexicon",
    "Phrases",
    "Texts",
    "contractions",
    "in_slices",
    "modern_idiom",
    "ngram_hashes",
    "read_texts",
    "repetition",
    "row_hashes",
    "row_sums",
    "sentence_counts",
    "shared_lexicon",
    "voice",
    "word_counts",
]

MODULES: tuple[str, ...] = (
    "foundry_pipeline.textstats",
    *(f"foundry_pipeline.textcolumns.{name}" for name in ("lexicon", "measures", "patterns", "phrases")),
)
"""Modules that decide what a column's measures are."""
