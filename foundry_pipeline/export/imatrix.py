"""llama.cpp's importance matrix, from the text that a model was trained on: which inputs of each layer are large.

    found = measure(model_dir, parquet, tokens=16_384, log=print)
    found.means["blk.0.attn_q.weight"]        # (columns,) float32: the mean square of each input over all tokens
    with found.entries() as pointer: …        # as `llama_model_quantize_params.imatrix` takes it

A quantizer that knows them rounds the columns that matter more exactly, at the cost of the others. The definition is that of
llama.cpp's own tool (tools/imatrix: sums of squared activations over their count, by input column of each tensor, the output
layer left out); what it reads by running a GGUF file is read here by hooks on the linear layers of the merged weights. Names
are llama.cpp's; a converter may reorder a layer's rows, never its columns.
"""

from __future__ import annotations

import ctypes
import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from foundry_pipeline.errors import FoundryError
from foundry_pipeline.models.base import quiet_transformers

if TYPE_CHECKING:
    import numpy as np

_LONGEST = 2048  # tokens of one text; what is longer than that is left out, as in training


@dataclass(frozen=True)
class Importance:
    """Mean squares of the inputs of every linear layer, by llama.cpp's name of its tensor; over `tokens` of `texts` texts."""

    means: dict[str, np.ndarray]
    tokens: int
    texts: int

    def facts(self) -> dict[str, Any]:
        """For the manifest: how much was read, and a hash of what was found."""
        found = hashlib.sha256()
        for name in sorted(self.means):
            found.update(name.encode() + self.means[name].tobytes())
        return {"tokens": self.tokens, "texts": self.texts, "tensors": len(self.means), "sha256": found.hexdigest()}

    @contextmanager
    def entries(self) -> Iterator[Any]:
        """A C array of `llama_model_imatrix_data`, ended by an entry without a name; it lives as long as the block."""
        import llama_cpp

        kind = llama_cpp.llama_model_imatrix_data
        held = {name: self.means[name].astype("float32").copy() for name in sorted(self.means)}
        array = (kind * (len(held) + 1))()
        for i, (name, values) in enumerate(held.items()):
            data = values.ctypes.data_as(ctypes.POINTER(ctypes.c_float))
            array[i] = kind(name.encode(), data, values.size)
        yield array
        del held  # the array points into it


def measure(model: Path, parquet: Path, *, tokens: int, log: Callable[[str], None] | None = None) -> Importance:
    """Run prompts and chosen answers of a dataset through the weights in `model`, up to `tokens` tokens.

    Rows are taken in order of their hash, whole ones, the last cut where the tokens end; they are rendered as in training,
    so that marks of a turn weigh what they will weigh in use. Raises FoundryError for a dataset without a usable row, for a
    model whose layers llama.cpp does not know, and for activations that are no finite numbers.
    """
    import numpy as np
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from foundry_pipeline.training.tokens import load_examples

    with quiet_transformers():
        tokenizer: Any = AutoTokenizer.from_pretrained(model, local_files_only=True)
        device = "cuda" if torch.cuda.is_available() else None
        network: Any = AutoModelForCausalLM.from_pretrained(
            model, dtype="auto", use_safetensors=True, local_files_only=True, device_map=device
        ).eval()
    examples, _ = load_examples(parquet, tokenizer, "sft", _LONGEST)
    sums, counts, handles = _watch(network, model)
    read = texts = 0
    try:
        with torch.inference_mode():
            for example in examples:
                ids = list(example.prompt + example.chosen)[: tokens - read]
                if not ids:
                    break
                network.get_decoder()(input_ids=torch.tensor([ids], device=network.device), use_cache=False)
                read, texts = read + len(ids), texts + 1
    finally:
        for handle in handles:
            handle.remove()
    means = {name: (total / counts[name]).float().cpu().numpy() for name, total in sums.items() if counts[name]}
    if wrong := next((name for name, values in means.items() if not bool(np.isfinite(values).all())), None):
        raise FoundryError(
            f"inputs of {wrong} are no finite numbers, so nothing can be weighed by them",
            where=str(model),
            mend="merge the adapter anew, or leave `imatrix` out of the profile",
        )
    if log:
        log(f"importance of {sum(len(v) for v in means.values()):,} columns from {read:,} tokens of {texts} rows")
    return Importance(means, read, texts)


def _watch(network: Any, model: Path) -> tuple[dict[str, Any], dict[str, int], list[Any]]:
    """Sums and counts that hooks on the decoder's linear layers fill, and the hooks."""
    import torch

    sums: dict[str, Any] = {}
    counts: dict[str, int] = {}
    handles = []
    for layer, name in _named(network, model):

        def add(_module: Any, inputs: tuple[Any, ...], name: str = name) -> None:
            rows = inputs[0].detach().reshape(-1, inputs[0].shape[-1]).to(torch.float32)
            found = rows.square().sum(0, dtype=torch.float64)
            sums[name] = sums[name] + found if name in sums else found
            counts[name] = counts.get(name, 0) + len(rows)

        handles.append(layer.register_forward_pre_hook(add))
    return sums, counts, handles


def _named(network: Any, model: Path) -> Iterator[tuple[Any, str]]:
    """Each linear layer of the decoder with llama.cpp's name of its weight. Raises FoundryError where one has none."""
    import torch
    from gguf import MODEL_ARCH, get_tensor_name_map

    decoder = network.get_decoder()
    layers = network.config.get_text_config().num_hidden_layers
    # The names of linear layers are the same in every architecture that is trained here.
    names = get_tensor_name_map(MODEL_ARCH.LLAMA, layers)
    for path, layer in decoder.named_modules():
        if isinstance(layer, torch.nn.Linear):
            name = names.get_name(f"model.{path}.weight", try_suffixes=(".weight",))
            if name is None:
                raise FoundryError(
                    f"llama.cpp has no name for the layer {path}",
                    where=str(model),
                    mend="leave `imatrix` out of the profile for this architecture",
                )
            yield layer, name
