"""Models as they are served, asked for what parity needs besides answers: ends, and the logits of a given text.

    weights = ServedWeights(ref, threads=2, precision="bfloat16")
    weights.prompt_ids(request)              # what the model is fed, by the code that serves it
    weights.ends()                           # (2, [2, 0, 4]): the declared end, and every token at which it stops
    weights.logits([Span(prompt, text)])     # (tokens of the text, vocabulary), float32, each before its token is read
    weights.forced(request, [2, 0, 4])       # answers in which the first token is forced to be an end

Both classes are the serving backends themselves, so what is measured here is what answers a question.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from foundry_pipeline.errors import FoundryError
from foundry_pipeline.models.chat import render
from foundry_pipeline.models.hf_backend import Precision, TransformersBackend
from foundry_pipeline.models.llama_backend import LlamaBackend
from foundry_pipeline.models.requests import ChatRequest, Reply

if TYPE_CHECKING:
    import torch

_FORCED_BOUND = 4  # tokens that an answer may have whose first token is an end
_CERTAIN = 1e9  # logit that leaves no other token a chance


@dataclass(frozen=True)
class Span:
    """Token ids of a rendered prompt and of the text that is read after it; only the text is measured."""

    prompt: tuple[int, ...]
    text: tuple[int, ...]

    @property
    def read(self) -> list[int]:
        """What has to be fed for every token of the text to be foreseen: all but the last."""
        return [*self.prompt, *self.text[:-1]]


class Served(Protocol):
    """A serving mode that can be asked for more than answers."""

    def prompt_ids(self, request: ChatRequest) -> list[int]: ...
    def ends(self) -> tuple[int, list[int]]: ...
    def logits(self, spans: Sequence[Span]) -> torch.Tensor: ...
    def forced(self, request: ChatRequest, ends: Sequence[int]) -> list[Reply]: ...
    def close(self) -> None: ...


class Asked:
    """A model folder of which only tokenizer and declared ends are read: for a mode whose weights are not measured."""

    def __init__(self, folder: Path) -> None:
        from transformers import AutoTokenizer, GenerationConfig

        from foundry_pipeline.models.base import quiet_transformers

        self._folder = folder
        with quiet_transformers():
            self._tokenizer: Any = AutoTokenizer.from_pretrained(folder, local_files_only=True)
            declared = GenerationConfig.from_pretrained(folder, local_files_only=True).eos_token_id
        self._ends = [int(e) for e in (declared if isinstance(declared, list) else [declared]) if e is not None]

    def prompt_ids(self, request: ChatRequest) -> list[int]:
        """Token ids of the rendered conversation, as `TransformersBackend.prompt_ids` gives them."""
        text = render(self._tokenizer.chat_template or "", request, self._tokenizer.special_tokens_map)
        ids: list[int] = self._tokenizer(text, add_special_tokens=False)["input_ids"]
        return ids

    def text_ids(self, text: str) -> list[int]:
        """Token ids of plain text; nothing is added, and no marker in it is read as a special token."""
        ids: list[int] = self._tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]
        return ids

    def markers(self) -> set[int]:
        """Ids of added tokens, which no ordinary text is read as: turn marks, and marks of other uses of the model."""
        return {int(token) for token in self._tokenizer.added_tokens_decoder}

    def ends(self) -> tuple[int, list[int]]:
        """The tokenizer's end token, and every token at which generation stops, in order of id."""
        if self._tokenizer.eos_token_id is None:
            raise FoundryError(
                "the tokenizer names no end token, so an answer would never end",
                where=str(self._folder),
                mend="set `eos_token` in its tokenizer_config.json, or use the chat (instruct) variant of the model",
            )
        declared = int(self._tokenizer.eos_token_id)
        return declared, sorted({declared, *self._ends})


class ServedWeights(TransformersBackend):
    """A dense model, with or without an adapter, through `transformers`."""

    def ends(self) -> tuple[int, list[int]]:
        """The tokenizer's end token, and every token at which generation stops, in order of id."""
        self.load()
        return int(self._tokenizer.eos_token_id), sorted(set(self._ends))

    def lower(self, precision: Precision) -> None:
        """Put the weights beneath the adapter into another precision, as if they had been loaded in it: `adapter on
        base` as it is served, without reading it a second time. The adapter stays as it is, which is how PEFT serves."""
        import torch

        self.load()
        with torch.inference_mode():
            for name, weight in self._network.named_parameters():
                if ".lora_" not in name:
                    weight.data = weight.data.to(getattr(torch, precision))

    @contextmanager
    def without_adapter(self) -> Iterator[None]:
        """The weights beneath the adapter alone, as long as the block lasts."""
        self.load()
        with self._network.disable_adapter():
            yield

    def logits(self, spans: Sequence[Span]) -> torch.Tensor:
        """(tokens of all spans' texts, vocabulary), float32, in main memory; one span is read at a time."""
        import torch

        self.load()
        rows = []
        with torch.inference_mode():
            for span in spans:
                ids = torch.tensor([span.read], device=self._device)
                found = self._network(input_ids=ids, use_cache=False, logits_to_keep=len(span.text)).logits
                rows.append(found[0, -len(span.text) :].float().cpu())
        return torch.cat(rows)

    def forced(self, request: ChatRequest, ends: Sequence[int]) -> list[Reply]:
        """Answers to one request, the first token of the i-th forced to be the i-th end."""
        self.load()

        def force(module: Any, inputs: Any, logits: torch.Tensor) -> torch.Tensor:
            logits = logits.clone()
            for row, token in enumerate(ends):
                logits[row, -1, token] = _CERTAIN
            return logits

        hook = self._network.get_output_embeddings().register_forward_hook(force)
        try:
            return self.answer([_short(request)] * len(ends), [""] * len(ends))
        finally:
            hook.remove()


class ServedGguf(LlamaBackend):
    """A GGUF file through llama.cpp."""

    _forcing: tuple[int, ...] = ()

    def ends(self) -> tuple[int, list[int]]:
        """The file's end token, and every token at which llama.cpp ends an answer, in order of id."""
        self.load()
        total = self._lib.llama_vocab_n_tokens(self._vocab)
        ends = [token for token in range(total) if self._lib.llama_vocab_is_eog(self._vocab, token)]
        return int(self._lib.llama_vocab_eos(self._vocab)), ends

    def logits(self, spans: Sequence[Span]) -> torch.Tensor:
        """(tokens of all spans' texts, vocabulary), float32; cache and attention as in serving, one sequence at a time."""
        import numpy as np
        import torch

        self.load()
        lib, size = self._lib, int(self._lib.llama_vocab_n_tokens(self._vocab))
        batch = lib.llama_batch_init(self._batch, 0, 1)
        rows = []
        try:
            with self._reading(max(len(s.read) for s in spans)) as context:
                for span in spans:
                    lib.llama_memory_clear(lib.llama_get_memory(context), True)
                    ids, first = span.read, len(span.prompt) - 1
                    for start in range(0, len(ids), self._batch):
                        part = range(start, min(start + self._batch, len(ids)))
                        for i, place in enumerate(part):
                            self._put(batch, i, ids[place], place, 0, place >= first)
                        self._decode(context, batch, len(part))
                        wanted = sum(place >= first for place in part)
                        if wanted:
                            held = np.ctypeslib.as_array(lib.llama_get_logits(context), shape=(wanted, size))
                            rows.append(torch.from_numpy(held.copy()))
        finally:
            lib.llama_batch_free(batch)
        return torch.cat(rows)

    def forced(self, request: ChatRequest, ends: Sequence[int]) -> list[Reply]:
        """Answers to one request, the first token of the i-th forced to be the i-th end."""
        self._forcing = tuple(ends)
        try:
            return self.answer([_short(request)] * len(ends), [""] * len(ends))
        finally:
            self._forcing = ()

    @contextmanager
    def _samplers(self, requests: Sequence[ChatRequest]) -> Iterator[list[Any]]:
        with super()._samplers(requests) as chains:
            for i, token in enumerate(self._forcing):
                chains[i] = self._with_bias(chains[i], token)
            yield chains

    def _with_bias(self, chain: Any, token: int) -> Any:
        lib = self._lib
        outer = lib.llama_sampler_chain_init(lib.llama_sampler_chain_default_params())
        bias = (lib.llama_logit_bias * 1)(lib.llama_logit_bias(token, _CERTAIN))
        size = lib.llama_vocab_n_tokens(self._vocab)
        lib.llama_sampler_chain_add(outer, lib.llama_sampler_init_logit_bias(size, 1, bias))
        lib.llama_sampler_chain_add(outer, chain)  # owned, and freed, by the outer one from here on
        return outer

    @contextmanager
    def _reading(self, longest: int) -> Iterator[Any]:
        lib = self._lib
        params = lib.llama_context_default_params()
        params.n_ctx = -(-longest // 256) * 256
        params.n_seq_max = 1
        params.n_batch = params.n_ubatch = params.n_outputs_max = self._batch
        params.n_threads = params.n_threads_batch = self._threads
        params.flash_attn_type = lib.LLAMA_FLASH_ATTN_TYPE_ENABLED
        mend = "free some memory, then run the same command again"
        with self._opened(params, f"a context of {longest} tokens", mend) as context:
            yield context


def _short(request: ChatRequest) -> ChatRequest:
    return replace(request, max_tokens=_FORCED_BOUND, temperature=0.0, top_k=0, top_p=1.0)
