"""How well a model foresees text it never saw: mean negative log-likelihood in nats per token.

    found = nats_per_token(base_dir, None, [message_1815], threads=2)
    found.nats_per_token   → 4.12 over found.tokens tokens

Each document is cut into chunks of CHUNK tokens, each chunk is read after the model's beginning-of-text token, and
every token is scored exactly once. Weights and GGUF files go through the same chunks, so their figures compare; a
model's own tokenizer decides what a token is, so figures of different tokenizers do not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from foundry_pipeline.errors import FoundryError

if TYPE_CHECKING:
    import torch

CHUNK = 511  # tokens scored in one pass; with the token before them 512
_ROWS = 8  # rows of logits made into probabilities at once: few enough to stay in a processor's cache


@dataclass(frozen=True)
class HeldOut:
    """Mean negative log-likelihood (nats) over `tokens` tokens."""

    nats_per_token: float
    tokens: int


@dataclass(frozen=True)
class Reading:
    """A model at hand: chunks of its own tokens by kind of text, and what reads one.

    `nats` gives the negative log-likelihood of all tokens of a chunk but the first.
    """

    parts: Mapping[str, list[list[int]]]
    nats: Callable[[list[int]], float]

    def whole(self) -> dict[str, HeldOut]:
        """Every chunk read, one after the other."""
        return {kind: mean([(self.nats(p), len(p) - 1) for p in parts]) for kind, parts in self.parts.items()}


def chunks(tokens: Sequence[int], beginning: int) -> Iterator[list[int]]:
    """Lists of at most CHUNK tokens with `beginning` in front of each; every token stands in exactly one."""
    for start in range(0, len(tokens), CHUNK):
        yield [beginning, *tokens[start : start + CHUNK]]


def mean(read: Sequence[tuple[float, int]]) -> HeldOut:
    """Of (nats, tokens) of each chunk, in order. Raises FoundryError where there is no token."""
    total, count = sum(nats for nats, _ in read), sum(tokens for _, tokens in read)
    if count == 0:
        raise FoundryError("there is no held-out text to measure on", mend="name a document in `held_out_documents`")
    return HeldOut(round(total / count, 6), count)


def nats_per_token(
    model_dir: Path, adapter_dir: Path | None, texts: Sequence[str], *, threads: int, precision: str = "float32"
) -> HeldOut:
    """Of a model folder, with a LoRA adapter applied at run time if one is given."""
    with reading_weights(model_dir, adapter_dir, {"": texts}, threads=threads, precision=precision) as reading:
        return reading.whole()[""]


@contextmanager
def reading_weights(
    model_dir: Path,
    adapter_dir: Path | None,
    kinds: Mapping[str, Sequence[str]],
    *,
    threads: int,
    precision: str = "float32",
) -> Iterator[Reading]:
    """A model folder in memory, with a LoRA adapter over it if one is given, and the texts in its tokens."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from foundry_pipeline.models.base import quiet_transformers
    from foundry_pipeline.models.cpu_products import fast_products

    torch.set_num_threads(threads)
    with quiet_transformers():
        tokenizer = AutoTokenizer.from_pretrained(model_dir, local_files_only=True)
        network: Any = AutoModelForCausalLM.from_pretrained(
            model_dir, dtype=getattr(torch, precision), local_files_only=True
        )
        if adapter_dir is not None:
            from peft import PeftModel

            network = PeftModel.from_pretrained(network, str(adapter_dir))
    network.eval()
    beginning = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.eos_token_id
    parts = _parts(kinds, lambda text: tokenizer(text, add_special_tokens=False)["input_ids"], beginning)

    def nats(part: list[int]) -> float:
        return _surprise(network(input_ids=torch.tensor([part])).logits[0, :-1], part[1:])

    wanted = sum(len(part) for each in parts.values() for part in each)
    with torch.inference_mode(), fast_products(network, wanted=wanted):
        yield Reading(parts, nats)


def _parts(
    kinds: Mapping[str, Sequence[str]], tokenize: Callable[[str], list[int]], beginning: int
) -> dict[str, list[list[int]]]:
    """The chunks of every text, by kind."""
    return {
        kind: [part for text in texts for part in chunks(tokenize(text), beginning)] for kind, texts in kinds.items()
    }


def _surprise(logits: torch.Tensor, labels: Sequence[int]) -> float:
    """Nats of the labels (N) under logits (N, vocabulary), added up.

    A few rows at a time: of all at once, widening and the sum over the vocabulary go through memory again and again.
    """
    import torch

    rows = zip(logits.split(_ROWS), torch.tensor(labels).split(_ROWS), strict=True)
    each = [torch.nn.functional.cross_entropy(some.float(), these, reduction="none") for some, these in rows]
    return float(torch.cat(each).sum())


def nats_per_token_gguf(path: Path, texts: Sequence[str], *, threads: int) -> HeldOut:
    """Of a GGUF file, by llama.cpp."""
    with reading_gguf(path, {"": texts}, threads=threads) as reading:
        return reading.whole()[""]


@contextmanager
def reading_gguf(path: Path, kinds: Mapping[str, Sequence[str]], *, threads: int) -> Iterator[Reading]:
    """A GGUF file in memory, and the texts in its tokens.

    Chunks are read one by one: several in a pass take llama.cpp as long, whatever the quantization.
    """
    import llama_cpp
    import numpy as np
    import torch

    from foundry_pipeline.models.llama_log import silence

    silence()
    torch.set_num_threads(threads)
    model = llama_cpp.Llama(
        str(path), n_ctx=CHUNK + 1, n_batch=CHUNK + 1, n_threads=threads, n_threads_batch=threads, logits_all=True,
        verbose=False,
    )  # fmt: skip

    def nats(part: list[int]) -> float:
        model.reset()
        model.eval(part)
        return _surprise(torch.from_numpy(np.asarray(model.scores[: len(part) - 1])), part[1:])

    def tokenize(text: str) -> list[int]:
        found: list[int] = model.tokenize(text.encode(), add_bos=False, special=False)
        return found

    try:
        beginning = model.token_bos() if model.token_bos() >= 0 else model.token_eos()
        yield Reading(_parts(kinds, tokenize, beginning), nats)
    finally:
        model.close()
