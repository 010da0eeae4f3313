"""How well a model foresees text it never saw: mean negative log-likelihood in nats per token.

    found = nats_per_token(base_dir, None, [message_1815], threads=2)
    found.nats_per_token   → 4.12 over found.tokens tokens

Each document is cut into chunks of CHUNK tokens, each chunk is read after the model's beginning-of-text token, and
every token is scored exactly once. Weights and GGUF files go through the same chunks, so their figures compare; a
model's own tokenizer decides what a token is, so figures of different tokenizers do not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from foundry_pipeline.errors import FoundryError

CHUNK = 511  # tokens scored in one pass; with the token before them 512


@dataclass(frozen=True)
class HeldOut:
    """Mean negative log-likelihood (nats) over `tokens` tokens."""

    nats_per_token: float
    tokens: int


def chunks(tokens: Sequence[int], beginning: int) -> Iterator[list[int]]:
    """Lists of at most CHUNK tokens with `beginning` in front of each; every token stands in exactly one."""
    for start in range(0, len(tokens), CHUNK):
        yield [beginning, *tokens[start : start + CHUNK]]


def _mean(total: float, count: int) -> HeldOut:
    if count == 0:
        raise FoundryError("there is no held-out text to measure on", mend="name a document in `held_out_documents`")
    return HeldOut(round(total / count, 6), count)


def nats_per_token(
    model_dir: Path, adapter_dir: Path | None, texts: Sequence[str], *, threads: int, precision: str = "float32"
) -> HeldOut:
    """Of a model folder, with a LoRA adapter applied at run time if one is given."""
    return nats_by_kind(model_dir, adapter_dir, {"": texts}, threads=threads, precision=precision)[""]


def nats_by_kind(
    model_dir: Path,
    adapter_dir: Path | None,
    kinds: Mapping[str, Sequence[str]],
    *,
    threads: int,
    precision: str = "float32",
) -> dict[str, HeldOut]:
    """The same for several kinds of texts, the weights read once."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from foundry_pipeline.models.base import quiet_transformers

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

    def nats(part: list[int]) -> float:
        ids = torch.tensor([part])
        logits = network(input_ids=ids).logits[0, :-1].float()
        return float(torch.nn.functional.cross_entropy(logits, ids[0, 1:], reduction="sum"))

    with torch.inference_mode():
        return {
            kind: _over(texts, lambda text: tokenizer(text, add_special_tokens=False)["input_ids"], beginning, nats)
            for kind, texts in kinds.items()
        }


def _over(
    texts: Sequence[str],
    tokenize: Callable[[str], list[int]],
    beginning: int,
    nats: Callable[[list[int]], float],
) -> HeldOut:
    """`nats` of every chunk of every text, over all tokens that were scored."""
    total, count = 0.0, 0
    for text in texts:
        for part in chunks(tokenize(text), beginning):
            total += nats(part)
            count += len(part) - 1
    return _mean(total, count)


def nats_per_token_gguf(path: Path, texts: Sequence[str], *, threads: int) -> HeldOut:
    """Of a GGUF file, by llama.cpp."""
    return nats_by_kind_gguf(path, {"": texts}, threads=threads)[""]


def nats_by_kind_gguf(path: Path, kinds: Mapping[str, Sequence[str]], *, threads: int) -> dict[str, HeldOut]:
    """The same for several kinds of texts, the file read once."""
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
        logits = torch.from_numpy(np.asarray(model.scores[: len(part) - 1]))
        return float(torch.nn.functional.cross_entropy(logits, torch.tensor(part[1:]), reduction="sum"))

    def tokenize(text: str) -> list[int]:
        found: list[int] = model.tokenize(text.encode(), add_bos=False, special=False)
        return found

    try:
        beginning = model.token_bos() if model.token_bos() >= 0 else model.token_eos()
        return {kind: _over(texts, tokenize, beginning, nats) for kind, texts in kinds.items()}
    finally:
        model.close()
