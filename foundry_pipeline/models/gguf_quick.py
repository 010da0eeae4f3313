"""Reading a GGUF file through `gguf` and `transformers` several times as fast, with the same outcome.

    with quick_gguf():
        network = AutoModelForCausalLM.from_pretrained(folder, gguf_file="model.Q4_1.gguf", …)

`transformers` reads a file of most architectures by `gguf.GGUFReader`, once each for tokenizer, configuration and weights,
and makes the table of tensor names anew for each of several hundred modules. The reader takes a slice of a numpy `memmap`
for each of some 150,000 tokens and merges, an object that costs ten times a plain array's view. On SmolLM2-135M both
together were two thirds of the time in which the dense copy was made (28 s → 13 s of one core).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any


@cache
def quick_reader() -> Any:
    """`gguf.GGUFReader` with plain arrays in place of slices of a `memmap`: equal fields, tensors and errors."""
    import numpy as np
    from gguf import GGUFReader

    class QuickReader(GGUFReader):
        def _get(self, offset: int, dtype: Any, count: Any = 1, override_order: Any = None) -> Any:
            data: Any = self.data
            found = np.frombuffer(data, dtype, int(count), offset)
            order = self.byte_order if override_order is None else override_order
            return found if order == "I" else found.view(found.dtype.newbyteorder(order))

    return QuickReader


@contextmanager
def quick_gguf() -> Iterator[None]:
    """Let everything in this process that reads GGUF files by the package `gguf` do so quickly, while the block lasts."""
    import gguf

    package: Any = gguf
    kept = package.GGUFReader, package.get_tensor_name_map
    # A table of names is only asked, never changed.
    package.GGUFReader, package.get_tensor_name_map = quick_reader(), cache(kept[1])
    try:
        yield
    finally:
        package.GGUFReader, package.get_tensor_name_map = kept
