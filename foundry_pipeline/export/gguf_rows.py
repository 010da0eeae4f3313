"""Rows of the weights in a GGUF file, beside the same rows of the model folder that the file was made from.

file = GgufWeights(Path("q4_k_m.gguf"))
file.rows("model.layers.3.self_attn.q_proj", torch.tensor([0, 9]), folder_weight)   # ("Q5_0", (2, 576) float32)
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from foundry_pipeline.errors import FoundryError

if TYPE_CHECKING:
    import numpy as np
    import torch

LAYER = re.compile(r"(?:^|\.)layers\.(\d+)\.(.+)$")
_LONG = 1000  # items
# Cosine of rows as written with rows as merged: any type used here keeps it above the first; rows in another order,
# or of other weights, come nowhere near the second.
_SURELY, _LEAST = 0.98, 0.9


class GgufWeights:
    """Rows of a GGUF file's tensors, dequantized, in the order of the model folder they were made from."""

    def __init__(self, path: Path) -> None:
        from gguf import MODEL_ARCH_NAMES, get_tensor_name_map

        reader = _reader(path)
        self._tensors = {t.name: t for t in reader.tensors}
        field = reader.get_field("general.architecture")
        arch = str(field.contents()) if field else ""
        known = {name: number for number, name in MODEL_ARCH_NAMES.items()}
        if arch not in known:
            raise FoundryError(
                f"the GGUF is of an architecture that is not known here: {arch or 'it names none'}",
                where=str(path),
                mend="update the package gguf",
            )

        def count(key: str) -> int:
            field = reader.get_field(f"{arch}.{key}")
            value = field.contents() if field else 0
            return int(value) if isinstance(value, int) else 0

        self._names = get_tensor_name_map(known[arch], count("block_count"))
        self._heads = [n for n in (count("attention.head_count"), count("attention.head_count_kv")) if n]

    def rows(self, layer: str, place: torch.Tensor, stored: torch.Tensor) -> tuple[str, torch.Tensor] | None:
        """(type as stored, rows `place` of a layer's weight), float32; None where the file has no such tensor, or none
        whose rows correlate with the folder's.

        llama.cpp keeps the rows of some query and key layers in another order (the halves of each head interleaved):
        the order is the one in which the file's rows are nearest the folder's.
        """
        import torch

        found = LAYER.search(layer)
        name = self._names.get_name(f"model.layers.{found.group(1)}.{found.group(2)}" if found else layer)
        tensor = self._tensors.get(f"{name}.weight")
        if tensor is None or len(tensor.data) != len(stored):
            return None
        wanted = stored[place].float()
        norm = wanted.norm()
        best: tuple[float, torch.Tensor] | None = None
        for order in self._orders(len(stored)):
            values = torch.from_numpy(_dequantized(tensor, order[place.numpy()]))
            if values.shape != wanted.shape:
                return None
            likeness = float((values * wanted).sum() / (values.norm() * norm).clamp_min(1e-30))
            if best is None or likeness > best[0]:
                best = likeness, values
            if likeness > _SURELY:
                break
        return None if best is None or best[0] < _LEAST else (tensor.tensor_type.name, best[1])

    def _orders(self, rows: int) -> list[np.ndarray]:
        """Row in the file of each row in the folder, in every order that converters are known to write."""
        import numpy as np

        orders = [np.arange(rows)]
        for heads in dict.fromkeys(self._heads):
            if rows % (2 * heads) == 0:
                moved = np.arange(rows).reshape(heads, 2, rows // heads // 2).swapaxes(1, 2).reshape(-1)
                orders.append(np.argsort(moved))
        return orders


def _reader(path: Path) -> Any:
    """gguf's own reader, which leaves long lists unread: a vocabulary takes it seconds, and nobody asks for it here."""
    import struct

    import numpy as np
    from gguf import GGUFReader, GGUFValueType

    class Reader(GGUFReader):
        def _get_field_parts(self, orig_offs: int, raw_type: int) -> Any:
            if raw_type == GGUFValueType.ARRAY and self.byte_order == "I":
                data: Any = self.data
                kind, count = struct.unpack_from("<IQ", data, orig_offs)
                plain = self.gguf_scalar_to_np.get(GGUFValueType(kind))
                if count > _LONG and plain is not None:
                    return 12 + count * np.dtype(plain).itemsize, [], [], [GGUFValueType.ARRAY]
                if count > _LONG and kind == GGUFValueType.STRING:
                    end = orig_offs + 12
                    for _ in range(count):
                        end += 8 + struct.unpack_from("<Q", data, end)[0]
                    return end - orig_offs, [], [], [GGUFValueType.ARRAY]
            return super()._get_field_parts(orig_offs, raw_type)

    return Reader(path)


def _dequantized(tensor: Any, rows: np.ndarray) -> np.ndarray:
    """Rows of one GGUF tensor, float32."""
    import numpy as np
    from gguf.quants import dequantize

    values: np.ndarray = dequantize(np.ascontiguousarray(tensor.data[rows]), tensor.tensor_type)
    return values.astype(np.float32, copy=False)
