"""Batched generation from a dense folder by `transformers`, with or without a LoRA adapter on top.

The library's own `generate` loop runs over a left-padded batch. Two things are added to it: noise per request
(`models/sampling.py`), and a key-value cache that grows inside a buffer reserved beforehand: the library's default
one copies all it holds at every step.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from foundry_pipeline.errors import FoundryError
from foundry_pipeline.lineage.hashing import code_version
from foundry_pipeline.models.base import quiet_transformers
from foundry_pipeline.models.chat import check_lengths, render
from foundry_pipeline.models.requests import BACKEND_CODE, ChatRequest, FinishReason, ModelRef, Reply

if TYPE_CHECKING:
    import torch
    from transformers import Cache

Precision = Literal["bfloat16", "float32"]


class TransformersBackend:
    """A dense model in memory, on the GPU where there is one.

    Supports any causal model with a chat template and, by `adapter_path`, a PEFT adapter applied at run time. Assumes safetensors; code from the folder is never run. Raises FoundryError for a
    folder without weights or template, and for a prompt longer than the context. Weights are read at the first need.
    """

    def __init__(self, model: ModelRef, *, threads: int, precision: Precision = "bfloat16") -> None:
        import torch

        folder = Path(model.path)
        if not (folder / "config.json").is_file() or not any(folder.glob("*.safetensors")):
            raise FoundryError(
                "no dense model here: a folder with config.json and safetensors is expected",
                where=model.path,
                mend="build the model's artifact again",
            )
        torch.set_num_threads(threads)
        self._model, self._folder = model, folder
        self._threads, self._precision = threads, precision
        self._device = "cuda" if torch.cuda.is_available() else "cpu"
        self._network: Any = None

    def load(self) -> None:
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

        if self._network is not None:
            return
        with quiet_transformers():
            self._tokenizer: Any = AutoTokenizer.from_pretrained(self._folder, local_files_only=True)
            network: Any = AutoModelForCausalLM.from_pretrained(
                self._folder,
                dtype=getattr(torch, self._precision),
                attn_implementation="sdpa",
                use_safetensors=True,
                local_files_only=True,
                device_map=self._device if self._device != "cpu" else None,
            )
            if self._model.adapter_path is not None:
                network = _with_adapter(network, Path(self._model.adapter_path))
        template = self._tokenizer.chat_template
        if not isinstance(template, str):
            raise FoundryError(
                "the tokenizer carries no chat template, so nobody can say how the model wants to be asked",
                where=self._model.path,
                mend="use the chat (instruct) variant of this model",
            )
        self._template = template
        declared = GenerationConfig.from_pretrained(self._folder, local_files_only=True).eos_token_id
        ends = declared if isinstance(declared, list) else [declared]
        self._ends = [int(self._tokenizer.eos_token_id if e is None else e) for e in ends]
        pad = self._tokenizer.pad_token_id
        self._pad = int(self._ends[0] if pad is None else pad)
        self._context_length = int(network.config.get_text_config().max_position_embeddings)
        # No gradient is ever taken, but PEFT freezes the base, and for a frozen weight torch's matmul copies the whole
        # output layer once per sequence when it is given the last position only: seconds and gigabytes per group.
        self._network = network.eval().requires_grad_(True)

    def close(self) -> None:
        self._network = None

    def environment(self) -> dict[str, Any]:
        import torch

        cpu = self._device == "cpu"
        adapter = "" if self._model.adapter_path is None else f", peft {version('peft')}"
        return {
            "library": f"transformers {version('transformers')}, torch {torch.__version__}{adapter}",
            "code": code_version(BACKEND_CODE["transformers"]),
            "processor": torch.backends.cpu.get_cpu_capability() if cpu else torch.cuda.get_device_name(),
            "threads": self._threads,
            "precision": self._precision,
            "cache": "left padding, sdpa",
        }

    def prompt_ids(self, request: ChatRequest) -> list[int]:
        """Token ids of the rendered conversation, special tokens parsed."""
        self.load()
        text = render(self._template, request, self._tokenizer.special_tokens_map)
        ids: list[int] = self._tokenizer(text, add_special_tokens=False)["input_ids"]
        return ids

    def answer(self, requests: Sequence[ChatRequest], hashes: Sequence[str]) -> list[Reply]:
        """Generate for one group; see ChatBackend."""
        from foundry_pipeline.models.cpu_products import fast_products
        from foundry_pipeline.models.hf_decode import decode
        from foundry_pipeline.models.sampling import SeededSampling

        if bound_to_schema := [r.request_id for r in requests if r.schema]:
            raise FoundryError(
                "the transformers backend cannot hold an answer to a schema",
                where=f"request {bound_to_schema[0]}",
                mend="serve the model as a GGUF file or by an OpenAI-compatible server, or ask for free text",
            )
        prompts = [self.prompt_ids(r) for r in requests]
        check_lengths(requests, [len(p) for p in prompts], self._context_length, self._model.title)
        bounds = [r.max_tokens for r in requests]
        started = time.perf_counter()
        with fast_products(self._network, wanted=sum(bounds)):
            rows, ended = decode(
                self._network,
                prompts,
                bounds,
                ends=self._ends,
                pad=self._pad,
                sampling=SeededSampling(requests),
                cache=reserved_cache(self._network.config, max(map(len, prompts)) + max(bounds)),
                device=self._device,
            )
        replies = []
        for i, (request, row) in enumerate(zip(requests, rows, strict=True)):
            tokens, finish_reason = cut(row[: request.max_tokens], self._ends)
            replies.append(
                Reply(
                    request_id=request.request_id,
                    request_hash=hashes[i],
                    text=self._tokenizer.decode(tokens, skip_special_tokens=True, clean_up_tokenization_spaces=False),
                    finish_reason=finish_reason,
                    prompt_tokens=len(prompts[i]),
                    completion_tokens=len(tokens),
                    seconds=ended[i] - started,
                )
            )
        return replies


def cut(tokens: list[int], ends: Sequence[int]) -> tuple[list[int], FinishReason]:
    """Tokens before the first end token, and whether there was one."""
    at = next((i for i, token in enumerate(tokens) if token in ends), None)
    return (tokens, "length") if at is None else (tokens[:at], "stop")


@cache
def _reserved_layer() -> Any:
    """A cache layer that writes into a buffer made when it is first written; a class, made where it is first needed."""
    from transformers.cache_utils import DynamicLayer

    class ReservedLayer(DynamicLayer):
        def __init__(self, length: int) -> None:
            super().__init__()
            self.length = length

        def update(
            self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
        ) -> tuple[torch.Tensor, torch.Tensor]:
            if not self.is_initialized:
                self.dtype, self.device = key_states.dtype, key_states.device
                batch, heads, _, width = key_states.shape
                self.key_buffer = key_states.new_empty(batch, heads, self.length, width)
                self.value_buffer = value_states.new_empty(batch, heads, self.length, value_states.shape[-1])
                self.keys, self.values = self.key_buffer[:, :, :0], self.value_buffer[:, :, :0]
                self.is_initialized = True
            assert self.keys is not None
            start = self.keys.shape[2]
            end = start + key_states.shape[2]
            self.key_buffer[:, :, start:end] = key_states
            self.value_buffer[:, :, start:end] = value_states
            self.keys, self.values = self.key_buffer[:, :, :end], self.value_buffer[:, :, :end]
            return self.keys, self.values

        def batch_select_indices(self, indices: torch.Tensor) -> None:
            """Keep these rows, moved together in the same buffers."""
            for name in ("key", "value"):
                buffer, held = getattr(self, f"{name}_buffer"), getattr(self, f"{name}s")
                end = held.shape[2]
                buffer[: len(indices), :, :end] = held[indices]
                buffer = buffer[: len(indices)]
                setattr(self, f"{name}_buffer", buffer)
                setattr(self, f"{name}s", buffer[:, :, :end])

    return ReservedLayer


def reserved_cache(config: Any, length: int) -> Cache:
    """A dynamic key-value cache that writes into buffers of `length` positions instead of copying itself at each step.

    Layers of other kinds (sliding windows, linear attention) keep the library's own.
    """
    from transformers import DynamicCache
    from transformers.cache_utils import DynamicLayer

    reserved = DynamicCache(config=config)
    reserved.layers = [_reserved_layer()(length) if type(layer) is DynamicLayer else layer for layer in reserved.layers]
    return reserved


def is_reserved(layer: Any) -> bool:
    """Whether a layer of a cache is one that `reserved_cache` put there."""
    return type(layer) is _reserved_layer()


def _with_adapter(network: Any, folder: Path) -> Any:
    """The network with a PEFT adapter from a folder; names weights that the folder lacks instead of passing over them."""
    from peft import PeftModel
    from safetensors import safe_open

    config, weights = folder / "adapter_config.json", folder / "adapter_model.safetensors"
    if not config.is_file() or not weights.is_file():
        raise FoundryError(
            "no adapter here: adapter_config.json and adapter_model.safetensors are expected",
            where=str(folder),
            mend="train the run again: dagster asset materialize --select <run>_adapter",
        )
    # In float32, PEFT's default: the layers beneath keep their own precision, and speed is the same.
    tuned = PeftModel.from_pretrained(network, folder)
    wanted = {n.replace(".default", "") for n in tuned.state_dict() if ".lora_" in n}
    with safe_open(weights, framework="pt") as file:
        held = {n for n in file.keys() if ".lora_" in n}  # noqa: SIM118 - a file handle, not a dict
    if wanted != held:
        rank = json.loads(config.read_text(encoding="utf-8")).get("r")
        raise FoundryError(
            f"the adapter (rank {rank}) does not fit the base: {len(wanted - held)} of its weights are missing, "
            f"{len(held - wanted)} belong to nothing",
            where=str(folder),
            mend="use the base that the adapter was trained on",
        )
    return tuned
