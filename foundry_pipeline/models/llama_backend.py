"""Batched generation from a GGUF file by llama.cpp, through its low-level batch interface.

The sequences of a group go in as many lanes as there are threads, each lane with a context and a thread of its own over
the same weights: two threads on one small product mostly wait for each other. Within a lane all sequences start together
and share each decoding step; one that has ended leaves the batch, so the steps get cheaper towards the end. What all
prompts have in common is read once a lane. Every sequence has a key-value cache of its own (`kv_unified=False`), which
keeps the step's cost from growing with the square of the group and Q8_0 free of influence between sequences. Other types
still round differently in batches of different shape, which is why replies are stored by group (see
`requests.group_hashes`).

Sampling is llama.cpp's own chain, seeded per request: top-k, top-p, temperature, draw. A request with a schema draws only
tokens that keep its answer within the schema (a grammar that llama.cpp derives from it).
"""

from __future__ import annotations

import ctypes
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

from foundry_pipeline.errors import FoundryError
from foundry_pipeline.lineage.hashing import code_version
from foundry_pipeline.models.chat import check_lengths, render
from foundry_pipeline.models.llama_sampling import sampler_chain
from foundry_pipeline.models.requests import BACKEND_CODE, ChatRequest, FinishReason, ModelRef, Reply
from foundry_pipeline.models.vocabulary import metadata, tokenize

BATCH = 512  # tokens in one pass; llama.cpp's default, and part of the numerics
_PAD = 256  # llama.cpp rounds the cells of a sequence up to this


@dataclass
class _Sequence:
    """One request while it is being answered. `slot` is its sequence number in the context."""

    request: ChatRequest
    prompt: list[int]
    sampler: Any
    slot: int = 0
    tokens: list[int] = field(default_factory=list)
    finish_reason: FinishReason | None = None
    seconds: float = 0.0


class LlamaBackend:
    """A GGUF model in memory, with a LoRA over it where the reference names one (a GGUF adapter: `lora.gguf`).

    Supports chat models whose template is in the file. Raises FoundryError for a file that is no model, one without a
    chat template, an adapter that is no GGUF or of another model, and a prompt longer than the context.
    """

    def __init__(self, model: ModelRef, *, threads: int, batch: int = BATCH) -> None:
        import llama_cpp

        from foundry_pipeline.models.llama_log import silence

        if model.adapter_path is not None and not model.adapter_path.endswith(".gguf"):
            raise FoundryError(
                "llama.cpp lays a GGUF adapter over a model, and this one is of another format",
                where=model.adapter_path,
                mend="name the `lora.gguf` of the run's GGUF files, or use the transformers backend",
            )
        if not Path(model.path).is_file():
            raise FoundryError("model file not found", where=model.path, mend="build the model's artifact again")
        silence()
        self._lib = llama_cpp
        self._path, self._title, self._threads = Path(model.path), model.title, threads
        self._batch, self._lora_path = batch, model.adapter_path
        self._model: Any = None
        self._lora: Any = None

    def load(self) -> None:
        lib = self._lib
        if self._model:
            return
        loaded = lib.llama_model_load_from_file(str(self._path).encode(), lib.llama_model_default_params())
        if not loaded:
            raise FoundryError(
                "llama.cpp cannot read this file as a model",
                where=str(self._path),
                mend="check that it is a whole GGUF file of an architecture that llama.cpp knows",
            )
        template = metadata(loaded, "tokenizer.chat_template")
        if template is None:
            lib.llama_model_free(loaded)
            raise FoundryError(
                "the GGUF file carries no chat template, so nobody can say how the model wants to be asked",
                where=str(self._path),
                mend="export it again from a folder whose tokenizer has a chat template",
            )
        if self._lora_path is not None:
            # Freed with the model.
            self._lora = lib.llama_adapter_lora_init(loaded, self._lora_path.encode())
            if not self._lora:
                lib.llama_model_free(loaded)
                raise FoundryError(
                    "llama.cpp cannot lay this adapter over the model: it is of another one, or damaged",
                    where=self._lora_path,
                    mend="lay it over a GGUF of the weights that it was trained on, whatever its quantization",
                )
        self._model, self._template = loaded, template
        self._vocab = lib.llama_model_get_vocab(loaded)
        self._context_length = int(lib.llama_model_n_ctx_train(loaded))
        self._special = {
            f"{name}_token": lib.llama_vocab_get_text(self._vocab, token).decode()
            for name in ("bos", "eos", "pad")
            if (token := getattr(lib, f"llama_vocab_{name}")(self._vocab)) >= 0
        }

    def close(self) -> None:
        if self._model:
            self._lib.llama_model_free(self._model)
            self._model = self._lora = None

    def environment(self) -> dict[str, Any]:
        return {
            "library": f"llama-cpp-python {version('llama-cpp-python')}",
            "code": code_version(BACKEND_CODE["llama_cpp"]),
            "processor": self._lib.llama_print_system_info().decode().strip(" |"),
            "gpu": bool(self._lib.llama_supports_gpu_offload()),
            "threads": self._threads,
            "cache": "per sequence, f16, flash attention, a lane for each thread",
            "batch": self._batch,
        }

    def prompt_ids(self, request: ChatRequest) -> list[int]:
        """Token ids of the rendered conversation, special tokens parsed."""
        self.load()
        return tokenize(self._vocab, render(self._template, request, self._special))

    def answer(self, requests: Sequence[ChatRequest], hashes: Sequence[str]) -> list[Reply]:
        """Decode one group; see ChatBackend."""
        prompts = [self.prompt_ids(r) for r in requests]
        check_lengths(requests, [len(p) for p in prompts], self._context_length, self._title)
        longest = max(len(p) + r.max_tokens for p, r in zip(prompts, requests, strict=True))
        started = time.perf_counter()
        with self._samplers(requests) as samplers:
            sequences = [_Sequence(r, p, s) for r, p, s in zip(requests, prompts, samplers, strict=True)]
            # llama.cpp reads a pass of several caches in cuts of equal length, and each length that occurs is a cut of its
            # own. Side by side, prompts of like length share their cuts.
            ordered = sorted(sequences, key=lambda sequence: len(sequence.prompt))
            lanes = 1 if self._lib.llama_supports_gpu_offload() else min(self._threads, len(sequences))
            stop = threading.Event()
            with ThreadPoolExecutor(lanes) as pool:
                ends = [
                    pool.submit(self._lane, ordered[at::lanes], longest, started, self._threads // lanes, stop)
                    for at in range(lanes)
                ]
                try:
                    for end in ends:
                        end.result()
                except BaseException:
                    stop.set()  # a signal, or another lane's error: not to the end of the answers first
                    raise
        return [
            Reply(
                request_id=s.request.request_id,
                request_hash=h,
                text=self._text(s.tokens),
                finish_reason=s.finish_reason or "length",
                prompt_tokens=len(s.prompt),
                completion_tokens=len(s.tokens),
                seconds=s.seconds,
            )
            for s, h in zip(sequences, hashes, strict=True)
        ]

    def _lane(
        self, sequences: list[_Sequence], longest: int, started: float, threads: int, stop: threading.Event
    ) -> None:
        """Decode sequences in waves of as many as llama.cpp takes at once."""
        # No more than fit into one pass, and no more than its build allows (256).
        at_once = min(len(sequences), self._batch, int(self._lib.llama_max_parallel_sequences()))
        for first in range(0, len(sequences), at_once):
            wave = sequences[first : first + at_once]
            for slot, sequence in enumerate(wave):
                sequence.slot = slot
            with self._context(len(wave), longest, threads) as context:
                self._generate(context, wave, started, stop)

    def _generate(self, context: Any, sequences: list[_Sequence], started: float, stop: threading.Event) -> None:
        """Decode all sequences to their ends, or until told to stop.

        llama.cpp decodes separate caches in one pass only where their numbers follow each other without a gap. So when
        a sequence ends, the last one moves into its slot (a copy of its cache, bit for bit); without that the steps
        fall apart into small passes and speed halves.
        """
        memory = self._lib.llama_get_memory(context)
        batch = self._lib.llama_batch_init(self._batch, 0, 1)
        try:
            self._read_prompts(context, batch, sequences, started)
            live = self._close_gaps(memory, sequences)
            while live and not stop.is_set():
                for i, s in enumerate(live):
                    self._put(batch, i, s.tokens[-1], len(s.prompt) + len(s.tokens) - 1, s.slot, True)
                self._decode(context, batch, len(live))
                for i, s in enumerate(live):
                    self._take(context, i, s, started)
                live = self._close_gaps(memory, live)
        finally:
            self._lib.llama_batch_free(batch)

    def _close_gaps(self, memory: Any, sequences: list[_Sequence]) -> list[_Sequence]:
        """The sequences that go on, renumbered 0, 1, 2, … in the cache."""
        live = [s for s in sequences if s.finish_reason is None]
        free = sorted(s.slot for s in sequences if s.finish_reason is not None)
        for slot in free:
            self._lib.llama_memory_seq_rm(memory, slot, -1, -1)
        live.sort(key=lambda s: s.slot)
        for slot in free:
            if slot >= len(live):
                break
            last = live.pop()
            self._lib.llama_memory_seq_cp(memory, last.slot, slot, -1, -1)
            self._lib.llama_memory_seq_rm(memory, last.slot, -1, -1)
            last.slot = slot
            live.insert(slot, last)
        return live

    def _read_prompts(self, context: Any, batch: Any, sequences: list[_Sequence], started: float) -> None:
        """Feed every prompt in batches and draw each sequence's first token.

        What all prompts have in common (a system message, mostly) is read once and copied to every sequence.
        """
        shared = _common_prefix([s.prompt for s in sequences]) if len(sequences) > 1 else 0
        count = 0
        ends: list[tuple[int, _Sequence]] = []

        def flush() -> None:
            nonlocal count
            if count:
                self._decode(context, batch, count)
                for i, s in ends:
                    self._take(context, i, s, started)
            count = 0
            ends.clear()

        def feed(s: _Sequence, positions: range) -> None:
            nonlocal count
            for position in positions:
                last = position == len(s.prompt) - 1
                self._put(batch, count, s.prompt[position], position, s.slot, last)
                if last:
                    ends.append((count, s))
                count += 1
                if count == self._batch:
                    flush()

        if shared:
            feed(sequences[0], range(shared))
            flush()
            memory = self._lib.llama_get_memory(context)
            for s in sequences[1:]:
                self._lib.llama_memory_seq_cp(memory, 0, s.slot, -1, -1)
        for s in sequences:
            feed(s, range(shared, len(s.prompt)))
        flush()

    @staticmethod
    def _put(batch: Any, i: int, token: int, position: int, slot: int, wants_logits: bool) -> None:
        batch.token[i] = token
        batch.pos[i] = position
        batch.n_seq_id[i] = 1
        batch.seq_id[i][0] = slot
        batch.logits[i] = wants_logits

    def _decode(self, context: Any, batch: Any, count: int) -> None:
        batch.n_tokens = count
        code = self._lib.llama_decode(context, batch)
        if code != 0:
            raise FoundryError(
                f"llama.cpp could not decode a batch of {count} tokens (code {code})",
                where=self._title,
                mend="lower `generation_group` in the profile: the key-value cache may not fit in memory",
            )

    def _take(self, context: Any, output: int, s: _Sequence, started: float) -> None:
        """Draw the next token of a sequence; at an end token or at the bound the sequence is done."""
        token = self._lib.llama_sampler_sample(s.sampler, context, output)
        if self._lib.llama_vocab_is_eog(self._vocab, token):
            s.finish_reason = "stop"
        else:
            s.tokens.append(token)
            if len(s.tokens) == s.request.max_tokens:
                s.finish_reason = "length"
        if s.finish_reason is not None:
            s.seconds = time.perf_counter() - started

    @contextmanager
    def _context(self, sequences: int, longest: int, threads: int) -> Iterator[Any]:
        """A fresh context with room for `longest` tokens in each sequence; its size depends on the group alone."""
        lib = self._lib
        per_sequence = -(-longest // _PAD) * _PAD
        params = lib.llama_context_default_params()
        params.n_ctx = per_sequence * sequences
        params.n_seq_max = sequences
        params.n_batch = self._batch
        params.n_ubatch = self._batch
        params.n_outputs_max = sequences
        params.n_threads = threads
        params.n_threads_batch = threads
        params.kv_unified = False
        params.flash_attn_type = lib.LLAMA_FLASH_ATTN_TYPE_ENABLED
        mend = "lower `generation_group`, `answer_max_tokens` or `student_max_tokens` in the profile"
        with self._opened(params, f"{sequences} sequences of {per_sequence} tokens", mend) as context:
            yield context

    @contextmanager
    def _opened(self, params: Any, room: str, mend: str) -> Iterator[Any]:
        """A context with the adapter laid over it, if there is one; `room` and `mend` are for the error of too little memory."""
        lib = self._lib
        context = lib.llama_init_from_model(self._model, params)
        if not context:
            raise FoundryError(f"no memory for {room}", where=self._title, mend=mend)
        try:
            if self._lora:
                adapters = (lib.llama_adapter_lora_p_ctypes * 1)(self._lora)
                if lib.llama_set_adapters_lora(context, adapters, 1, (ctypes.c_float * 1)(1.0)) != 0:
                    raise FoundryError(
                        "llama.cpp does not apply this adapter, and the base alone would answer in its name",
                        where=str(self._lora_path),
                        mend="lay it over a GGUF of the weights that it was trained on",
                    )
            yield context
        finally:
            lib.llama_free(context)

    @contextmanager
    def _samplers(self, requests: Sequence[ChatRequest]) -> Iterator[list[Any]]:
        chains: list[Any] = []
        try:
            for request in requests:
                chains.append(sampler_chain(request, self._vocab))
            yield chains
        finally:
            for chain in chains:
                self._lib.llama_sampler_free(chain)

    def _text(self, tokens: Sequence[int]) -> str:
        """Text of the tokens. A character cut in two by the bound becomes U+FFFD, as in `transformers`."""
        if not tokens:
            return ""
        array = (self._lib.llama_token * len(tokens))(*tokens)
        size = 32 * len(tokens) + 32
        while True:
            buffer = ctypes.create_string_buffer(size)
            length = self._lib.llama_detokenize(self._vocab, array, len(tokens), buffer, size, False, False)
            if length >= 0:
                return buffer.raw[:length].decode("utf-8", "replace")
            size = -length


def _common_prefix(prompts: Sequence[Sequence[int]]) -> int:
    """How many tokens all prompts begin with alike; short of the last token of each, which has to be decoded."""
    least = min(len(p) for p in prompts) - 1
    first = prompts[0]
    return next((i for i in range(least) if any(p[i] != first[i] for p in prompts)), least)
