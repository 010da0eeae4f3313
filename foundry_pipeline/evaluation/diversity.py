"""How unlike a model's answers are to each other, and how often one of several is good.

    distinct_n(["the great bulwark", "the great republic"], 1)   → 0.667     unique words over all words
    self_bleu(texts)                                             → 0.31      high: the answers repeat each other
    pass_at_k(n=10, c=3, k=5)                                    → 0.917     chance that one of five is good
    semantic_diversity(texts, encoder)                           → 0.44      1 − mean cosine of any two answers

A figure of diversity compares two models only where both say as much: distinct-n falls with the length of the text by
itself, so that `words_each` cuts every answer to one length. Sources: distinct-n (Li et al. 2016, arXiv 1510.03055),
self-BLEU (Zhu et al. 2018, arXiv 1802.01886) by `sacrebleu`, pass@k without bias (Chen et al. 2021, arXiv 2107.03374).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from statistics import NormalDist
from typing import Any

import numpy as np

from foundry_pipeline.corpus.retrieval import Encoder
from foundry_pipeline.textstats import words

BATCH = 256  # texts encoded at once; memory does not grow with the number of texts
SELF_BLEU_TEXTS = 100  # every text is compared with every other: the cost grows with the square


def distinct_n(texts: Iterable[str], n: int, *, words_each: int | None = None) -> float | None:
    """Share of n-grams of words that are unlike all others, in (0, 1]; None where no text has n words.

    Raises ValueError for n or `words_each` below 1.
    """
    if n < 1 or (words_each is not None and words_each < 1):
        raise ValueError(f"n-grams of {n} words, {words_each} words of each text")
    total = 0
    unlike: set[tuple[str, ...]] = set()
    for text in texts:
        tokens = words(text)[:words_each]
        total += max(0, len(tokens) - n + 1)
        unlike.update(zip(*(tokens[i:] for i in range(n)), strict=False))
    return len(unlike) / total if total else None


def distinct_interval(
    texts: Sequence[str], n: int, *, words_each: int | None = None, confidence: float = 0.95
) -> dict[str, float | int | None]:
    """{mean, low, high, n}: distinct-n and its interval by the jackknife over texts (Efron and Tibshirani 1993, ch. 11).

    A bootstrap will not do: a text drawn twice brings nothing unlike. Bounds are None for fewer than three texts with n
    words. Raises ValueError as `distinct_n` does.
    """
    value = distinct_n(texts, n, words_each=words_each)
    grams = [Counter(zip(*(words(t)[:words_each][i:] for i in range(n)), strict=False)) for t in texts]
    grams = [g for g in grams if g]
    if value is None or len(grams) < 3:
        return {"mean": value, "low": None, "high": None, "n": len(grams)}
    held = Counter(gram for g in grams for gram in g)
    total = sum(g.total() for g in grams)
    left = []
    for g in grams:
        unlike = len(held) - sum(held[gram] == 1 for gram in g)
        left.append(unlike / (total - g.total()))
    mean, k = math.fsum(left) / len(left), len(left)
    error = math.sqrt((k - 1) / k * math.fsum((x - mean) ** 2 for x in left))
    reach = NormalDist().inv_cdf((1 + confidence) / 2) * error
    return {"mean": value, "low": max(0.0, value - reach), "high": min(1.0, value + reach), "n": k}


def self_bleu(texts: Sequence[str], *, most: int = SELF_BLEU_TEXTS, seed: int = 0) -> float | None:
    """Mean sentence BLEU of each text against all others, in [0, 1]: 1 where all are the same. None for fewer than two.

    Of more than `most` texts a draw of that many is measured, the same for any order of the texts. Empty ones are left
    out. Raises ValueError for `most` below 2.
    """
    from sacrebleu.metrics import BLEU

    if most < 2:
        raise ValueError(f"a draw of {most} texts has no two to compare")
    held = sorted(text for text in texts if text.strip())
    if len(held) > most:
        chosen = np.random.default_rng(seed).choice(len(held), most, replace=False)
        held = [held[i] for i in sorted(chosen)]
    if len(held) < 2:
        return None
    bleu = BLEU(effective_order=True)  # short texts have no 4-grams
    found = [bleu.sentence_score(text, held[:i] + held[i + 1 :]).score for i, text in enumerate(held)]
    return math.fsum(found) / len(found) / 100


def pass_at_k(n: int, c: int, k: int) -> float:
    """Chance that at least one of k draws without replacement from n answers is among the c good ones.

    1 − C(n−c, k) / C(n, k), by a product that stays in range. Raises ValueError unless 0 ≤ c ≤ n and 1 ≤ k ≤ n: from
    fewer than k answers it cannot be estimated without bias.
    """
    if not 0 <= c <= n or not 1 <= k <= n:
        raise ValueError(f"pass@{k} of {c} good in {n}")
    if n - c < k:
        return 1.0
    return 1.0 - math.prod((n - c - i) / (n - i) for i in range(k))


def mean_pass_at_k(counts: Iterable[tuple[int, int]], k: int) -> float | None:
    """Mean over prompts of (answers, good ones); None where there is no prompt. Raises ValueError as `pass_at_k` does."""
    found = [pass_at_k(n, c, k) for n, c in counts]
    return math.fsum(found) / len(found) if found else None


def semantic_diversity(texts: Iterable[str], encoder: Encoder, *, batch: int = BATCH) -> float | None:
    """1 − mean cosine over all pairs of different texts, in [0, 2]; None for fewer than two texts.

    No pair is ever formed: of unit vectors the sum over all pairs is the squared length of their sum, less their number.
    Texts are taken from the iterable `batch` at a time, so that memory is bounded by a batch.
    """
    if batch < 1:
        raise ValueError(f"a batch of {batch}")
    total: np.ndarray | None = None
    squares, n = 0.0, 0
    for some in _batches(texts, batch):
        vectors = np.asarray(encoder.embed(some), dtype=np.float64)
        lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
        vectors /= np.where(lengths > 0, lengths, 1.0)
        squares += float((vectors * vectors).sum())
        total = vectors.sum(axis=0) if total is None else total + vectors.sum(axis=0)
        n += len(some)
    if total is None or n < 2:
        return None
    return 1.0 - (float(total @ total) - squares) / (n * (n - 1))


def _batches(texts: Iterable[str], size: int) -> Iterator[list[str]]:
    some: list[str] = []
    for text in texts:
        some.append(text)
        if len(some) == size:
            yield some
            some = []
    if some:
        yield some


def diversity(
    answers: Mapping[str, Sequence[str]], encoder: Encoder | None = None, *, words_each: int | None = None
) -> dict[str, Any]:
    """All figures of one model: prompt → its answers. `within` is the mean over prompts with two answers or more.

    `across` takes one answer a prompt (the first), which says how alike answers to different prompts are.
    """
    across = [texts[0] for texts in answers.values() if texts]
    repeated = [texts for texts in answers.values() if len(texts) > 1]
    within = [_figures(texts, encoder, words_each) for texts in repeated]
    return {
        "prompts": len(answers),
        "answers": sum(map(len, answers.values())),
        "words_each": words_each,
        "across": _figures(across, encoder, words_each),
        "within": {name: _mean(f[name] for f in within) for name in within[0]} if within else None,
    }


def _figures(texts: Sequence[str], encoder: Encoder | None, words_each: int | None) -> dict[str, float | None]:
    return {
        "distinct_1": distinct_n(texts, 1, words_each=words_each),
        "distinct_2": distinct_n(texts, 2, words_each=words_each),
        "distinct_3": distinct_n(texts, 3, words_each=words_each),
        "self_bleu": self_bleu(texts),
        "semantic_diversity": semantic_diversity(texts, encoder) if encoder else None,
    }


def _mean(values: Iterable[float | None]) -> float | None:
    known = [v for v in values if v is not None]
    return math.fsum(known) / len(known) if known else None
