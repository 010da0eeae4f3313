"""Counts, shares and the voice score of every text of a column. Each equals its namesake in `textstats`."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from foundry_pipeline import textstats
from foundry_pipeline.textcolumns.lexicon import Ints, Texts, once, row_sums
from foundry_pipeline.textcolumns.patterns import machine_and_opening_marks, markdown_marks
from foundry_pipeline.textcolumns.phrases import Phrases

Floats = NDArray[np.float64]
_PRIME = np.uint64(0x9E3779B97F4A7C15)  # odd, so that multiplying by it loses nothing
# Rows and grams share 64 bits when repetitions are counted: 2^20 rows, 44 bits of a gram. Among the 4-grams of 4,096
# words two different ones meet with a chance below one in two million; longer texts are read word by word.
_ROW_BITS, _EXACT_WORDS = 20, 4096


def word_counts(texts: Texts) -> Ints:
    """Words in each text."""
    return np.diff(texts.word_offsets)


@once
def contractions(texts: Texts) -> Ints:
    """Modern contractions in each text."""
    return row_sums(texts.lexicon.contracted[texts.words], texts.word_offsets)


@once
def modern_idiom(texts: Texts) -> Ints:
    """Turns of phrase of our own day and opening words of a chat assistant in each text."""
    _, opening = machine_and_opening_marks(texts)
    return Phrases(textstats.MODERN_IDIOM, texts.lexicon).counts(texts) + opening


def sentence_counts(texts: Texts) -> Ints:
    """Sentences in each text."""
    counts = texts.sentence_counts.copy()
    rest = np.flatnonzero(counts < 0)
    if len(rest):
        counts[rest] = [len(textstats.sentence_spans(t)) for t in texts.series.gather(rest).to_list()]
    return counts


def ngram_hashes(texts: Texts, n: int) -> tuple[NDArray[np.uint64], Ints]:
    """(64-bit hashes of every n words in a row, offsets of each text's); a text of fewer words has none.

    The same words have the same hash in every process and every lexicon.
    """
    words = texts.word_hashes
    size = len(words) - n + 1
    if size <= 0:
        return np.zeros(0, dtype=np.uint64), np.zeros(len(texts) + 1, dtype=np.int64)
    hashes = words[:size].copy()
    for i in range(1, n):
        hashes *= _PRIME
        hashes += words[i : size + i]
    inside = texts.word_rows[:size] == texts.word_rows[n - 1 :]
    counts = np.maximum(word_counts(texts) - n + 1, 0)
    return hashes[inside], np.concatenate(([0], np.cumsum(counts)))


def row_hashes(texts: Texts) -> NDArray[np.uint64]:
    """A 64-bit hash of each text's words in their order; equal words, equal hash, however they are set."""
    counts = word_counts(texts)
    place = np.arange(len(texts.words)) - np.repeat(texts.word_offsets[:-1], counts)
    powers = np.cumprod(np.full(int(counts.max(initial=0)) + 1, _PRIME))
    total = np.concatenate(([np.uint64(0)], np.cumsum(texts.word_hashes * powers[place])))
    return np.asarray(total[texts.word_offsets[1:]] - total[texts.word_offsets[:-1]] + counts.astype(np.uint64))


def repetition(texts: Texts, n: int = 4) -> Floats:
    """Share of word n-grams that each text has said before, in [0, 1); 0.0 with fewer than n words."""
    if len(texts) >= 1 << _ROW_BITS:
        raise ValueError(f"{len(texts)} rows at once; hand over fewer than {1 << _ROW_BITS}")
    hashes, offsets = ngram_hashes(texts, n)
    totals = np.diff(offsets)
    rows = np.repeat(np.arange(len(texts), dtype=np.uint64), totals)
    keys = (rows << np.uint64(64 - _ROW_BITS)) | (hashes >> np.uint64(_ROW_BITS))
    keys.sort()
    again = keys[1:][keys[1:] == keys[:-1]] >> np.uint64(64 - _ROW_BITS)
    twice = np.bincount(again.astype(np.int64), minlength=len(texts))
    share = np.where(totals > 0, 1.0 - (totals - twice) / np.maximum(totals, 1), 0.0)
    for row in np.flatnonzero(totals > _EXACT_WORDS):
        share[row] = textstats.repetition(texts.series[int(row)], n)
    return share


def voice(texts: Texts, period_markers: Sequence[str]) -> Floats:
    """How far each text reads like its period, in [0, 1]: `textstats.voice`, to the last bit.

    The operations and their order are those of the definition, because floating-point sums depend on it.
    """
    words = word_counts(texts)
    hundred = 100.0 / np.maximum(words, 1)
    machine, _ = machine_and_opening_marks(texts)
    modern = modern_idiom(texts) + machine
    markers = Phrases(period_markers, texts.lexicon).counts(texts)
    mean_sentence = words / np.maximum(1, sentence_counts(texts))
    length = (mean_sentence - textstats.SHORT_SENTENCE) / (textstats.LONG_SENTENCE - textstats.SHORT_SENTENCE)

    def tolerated(marks: Ints) -> Floats:
        return np.maximum(0.0, 1.0 - marks * hundred / textstats.TOLERATED)

    parts: dict[str, Floats] = {
        "period_markers": np.minimum(1.0, markers * hundred / textstats.FULL_MARKERS),
        "sentence_length": np.minimum(1.0, np.maximum(0.0, length)),
        "contractions": tolerated(contractions(texts)),
        "idiom": tolerated(modern),
        "markdown": tolerated(markdown_marks(texts)),
    }
    score = np.zeros(len(texts))
    for name, value in parts.items():
        score += textstats.VOICE_WEIGHTS[name] * value
    return np.where(words > 0, score, 0.0)
