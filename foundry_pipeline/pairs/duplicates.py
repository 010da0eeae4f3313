"""Near duplicates among pairs: MinHash finds who may be alike, the exact Jaccard similarity of word 3-grams decides.

    >>> near_duplicates(["Why?", "Why?"], ["upon the whole i think so", "upon the whole i think so too"], 0.7)
    {1: (0, 0.8333333333333334)}

MinHash (Broder 1997) and its bands (Indyk and Motwani 1998) are taken from 64-bit hashes by `rensa`. The bands are as
long as they can be while two pairs at the threshold meet in none of them with a chance below one in a million; above
the threshold that chance is smaller still. So nothing is dropped that is not alike, and next to nothing alike is kept.
"""

from __future__ import annotations

from array import array
from collections.abc import Hashable, Sequence
from collections.abc import Set as AbstractSet
from functools import lru_cache
from itertools import chain

import numpy as np
import polars as pl
from numpy.typing import NDArray

from foundry_pipeline import textstats
from foundry_pipeline.textcolumns import Texts, ngram_hashes, read_texts, shared_lexicon, word_counts
from foundry_pipeline.textcolumns.lexicon import Ints

SAME_QUESTION = 0.5  # Jaccard of the prompts' words below which two prompts ask different things
SHINGLE = 3
PERMUTATIONS = 96
_SEED = 1
_MISSED = 1e-6  # chance that two pairs at the threshold share no band
# A sketch's estimate has a standard deviation of at most 0.051: this far below the threshold lies no true duplicate.
_DOUBT = 0.25
_SLICE = 16_384
_EMPTY = np.uint32(0xFFFFFFFF)

Sketches = NDArray[np.uint32]
"""One row of PERMUTATIONS figures for each pair."""


def shingles(text: str, n: int = SHINGLE) -> frozenset[tuple[str, ...]]:
    """The word n-grams of a text; of a shorter text, itself."""
    tokens = textstats.words(text)
    if len(tokens) < n:
        return frozenset([tuple(tokens)]) if tokens else frozenset()
    return frozenset(zip(*(tokens[i:] for i in range(n)), strict=False))


def jaccard(a: AbstractSet[Hashable], b: AbstractSet[Hashable]) -> float:
    """|a ∩ b| / |a ∪ b|; 1.0 for two empty sets."""
    return len(a & b) / len(a | b) if a or b else 1.0


def bands(threshold: float) -> tuple[int, int]:
    """(bands, figures in each): the longest bands that miss a pair at `threshold` with a chance below one in a million.

    At a threshold so low that no length does, bands of one figure.
    """
    for length in range(16, 1, -1):
        count = PERMUTATIONS // length
        if (1.0 - threshold**length) ** count <= _MISSED:
            return count, length
    return PERMUTATIONS, 1


def sketches(prompts: Texts, chosen: Texts) -> Sketches:
    """MinHash of each pair's shingles, those of its prompt and those of its chosen answer together."""
    from rensa import RMinHash

    hashes, offsets = _interleaved(_shingle_hashes(prompts), _shingle_hashes(chosen))
    matrix = RMinHash.digest_matrix_from_flat_token_hashes(hashes, offsets.astype(np.uint64), PERMUTATIONS, _SEED)
    figures = chain.from_iterable(matrix.to_rows())
    return np.fromiter(figures, dtype=np.uint32, count=len(prompts) * PERMUTATIONS).reshape(-1, PERMUTATIONS)


def _shingle_hashes(texts: Texts) -> tuple[NDArray[np.uint64], Ints]:
    """Hashes of each text's shingles; a text too short for one is hashed as a whole."""
    hashes, offsets = ngram_hashes(texts, SHINGLE)
    counts = word_counts(texts)
    for n in range(1, SHINGLE):
        if (counts == n).any():
            whole, its = ngram_hashes(texts, n)
            own = np.repeat(counts == n, np.diff(its))
            its = np.concatenate(([0], np.cumsum(np.where(counts == n, 1, 0))))
            hashes, offsets = _interleaved((hashes, offsets), (whole[own], its))
    return hashes, offsets


def _interleaved(
    first: tuple[NDArray[np.uint64], Ints], second: tuple[NDArray[np.uint64], Ints]
) -> tuple[NDArray[np.uint64], Ints]:
    """Row by row, the first's stretch and then the second's."""
    offsets = first[1] + second[1]
    out = np.empty(int(offsets[-1]), dtype=np.uint64)
    for values, own, shift in ((*first, second[1][:-1]), (*second, first[1][1:])):
        out[np.arange(len(values)) + np.repeat(shift, np.diff(own))] = values
    return out, offsets


def near_duplicates(
    prompts: Sequence[str] | pl.Series,
    chosen: Sequence[str] | pl.Series,
    threshold: float,
    *,
    same_question: float = SAME_QUESTION,
    known: Sketches | None = None,
) -> dict[int, tuple[int, float]]:
    """Which pairs say again what an earlier kept one says: index → (index of the earlier one, similarity).

    Two pairs are near duplicates when the 3-grams of prompt and chosen together reach `threshold` (0 to 1) and the
    prompts ask much the same (Jaccard of their words at least `same_question`). The second condition spares a passage
    that rightly answers two different questions. Earlier pairs win; a pair is compared with kept ones only.
    `known`: their `sketches`, if there are any already.
    """
    asked, answered = pl.Series(prompts, dtype=pl.String), pl.Series(chosen, dtype=pl.String)
    if known is None:
        lexicon, columns = shared_lexicon(), range(0, len(asked), _SLICE)
        known = np.concatenate(
            [np.empty((0, PERMUTATIONS), dtype=np.uint32)]
            + [sketches(*(read_texts(c.slice(at, _SLICE), lexicon) for c in (asked, answered))) for at in columns]
        )

    @lru_cache(maxsize=20_000)
    def questions(row: int) -> frozenset[str]:
        return frozenset(textstats.words(asked[row]))

    @lru_cache(maxsize=20_000)
    def said(row: int) -> frozenset[tuple[str, ...]]:
        return shingles(asked[row]) | shingles(answered[row])

    keys, shared = _band_keys(known, *bands(threshold))
    buckets: list[dict[int, array[int]]] = [{} for _ in range(keys.shape[1])]
    found: dict[int, tuple[int, float]] = {}
    for row in np.flatnonzero(shared.any(axis=1)).tolist():
        own = [(b, int(keys[row, b])) for b in np.flatnonzero(shared[row]).tolist()]
        met = [np.frombuffer(buckets[b][key], dtype=np.int32) for b, key in own if key in buckets[b]]
        for other in _likely(known, row, met, threshold):
            if jaccard(questions(row), questions(other)) < same_question:
                continue
            similarity = jaccard(said(row), said(other))
            if similarity >= threshold:
                found[row] = (other, similarity)
                break
        else:
            del met  # an array whose bytes are looked at cannot grow
            for b, key in own:
                buckets[b].setdefault(key, array("i")).append(row)
    return found


def _likely(known: Sketches, row: int, met: list[NDArray[np.int32]], threshold: float) -> list[int]:
    """Earlier rows that share a band with this one and whose sketch does not rule them out, in order."""
    if not met:
        return []
    others = np.unique(np.concatenate(met))
    alike = (known[others] == known[row]).mean(axis=1) >= threshold - _DOUBT
    return [int(i) for i in others[alike]]


def _band_keys(known: Sketches, count: int, length: int) -> tuple[NDArray[np.uint64], NDArray[np.bool_]]:
    """(key of each row in each band, whether another row has the same key there). A pair without a word has no key."""
    keys = np.zeros((len(known), count), dtype=np.uint64)
    for i in range(length):
        keys = keys * np.uint64(0x9E3779B97F4A7C15) + known[:, i : count * length : length] + np.uint64(1)
    shared = np.zeros(keys.shape, dtype=np.bool_)
    for band in range(count):
        order = np.argsort(keys[:, band], kind="stable")
        equal = np.diff(keys[order, band]) == 0
        shared[order[1:][equal], band] = True
        shared[order[:-1][equal], band] = True
    shared[(known == _EMPTY).all(axis=1)] = False
    return keys, shared
