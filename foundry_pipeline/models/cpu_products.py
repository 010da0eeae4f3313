"""Faster products for a network that answers on a CPU in bfloat16; the numbers are the same, bit by bit.

    with fast_products(network, wanted=5760):        # tokens to be decoded
        network.generate(…)

Decoding multiplies a few rows with every weight of the model, over and over. Two things make that dear in torch:

- oneDNN, which multiplies in bfloat16, brings a weight into the order that its kernels want anew at every call. Here
  every linear layer is brought into it once, and multiplied by the product that takes it so.
- PEFT keeps an adapter in float32 over a base in bfloat16, and widens the input of every layer by itself and adds in
  three passes. Here the layers that read one input (queries, keys and values; gate and up) share its widened copy, and
  the adapter's second product adds to the base's result at once. Products and sums are PEFT's, each in its precision.

Only plain linear layers and plain LoRA over them are taken; whatever else a network holds is left as it is.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

PACKED_BYTES = 2 << 30
"""Weights beyond this many bytes stay as they are: a second copy of a large model may not fit into memory."""
_WORTH = 512  # tokens to decode

Product = Callable[["torch.Tensor"], "torch.Tensor"]


@contextmanager
def fast_products(network: Any, *, wanted: int) -> Iterator[int]:
    """The network with fast products as long as the block lasts; yields how many layers have them.

    None where the processor or the library has no product of bfloat16, on a GPU, for more than `PACKED_BYTES`, and for
    fewer tokens than make up for bringing the weights into order.
    """
    changed: list[Any] = []
    try:
        if wanted >= _WORTH and _usable(network):
            products: dict[int, Product] = {}
            for layer in network.modules():
                if _is_plain(layer):
                    products[id(layer)] = layer.forward = _packed(layer)
                    changed.append(layer)
            widened = _Widened()
            for layer in network.modules():
                if id(getattr(layer, "base_layer", None)) in products and (lora := _plain_lora(layer)):
                    layer.forward = _with_lora(products[id(layer.base_layer)], *lora, widened)
                    changed.append(layer)
        yield len(changed)
    finally:
        for layer in changed:
            del layer.forward


def _usable(network: Any) -> bool:
    import torch

    weights = [w for w in network.parameters() if w.dtype == torch.bfloat16]
    return (
        bool(weights)
        and all(w.device.type == "cpu" for w in weights)
        and sum(w.nbytes for w in weights) <= PACKED_BYTES
        and torch.backends.mkldnn.is_available()
        and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    )


def _is_plain(layer: Any) -> bool:
    """A linear layer of bfloat16 and nothing derived from it, whose forward nobody has replaced."""
    import torch

    return type(layer) is torch.nn.Linear and layer.weight.dtype == torch.bfloat16 and "forward" not in vars(layer)


def _packed(layer: Any) -> Product:
    import torch

    ops: Any = torch.ops.mkldnn
    weight, bias = ops._reorder_linear_weight(layer.weight.detach(), None), layer.bias

    def product(x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = ops._linear_pointwise(x, weight, bias, "none", [], "")
        return out

    return product


def _plain_lora(layer: Any) -> tuple[torch.Tensor, torch.Tensor, float] | None:
    """A, B and scaling of the one adapter that is active on this layer in float32; None where there is more to it."""
    import torch
    from peft.tuners.lora import Linear

    if type(layer) is not Linear or layer.disable_adapters or layer.merged or "forward" in vars(layer):
        return None
    names = [name for name in layer.active_adapters if name in layer.lora_A]
    if len(names) != 1 or names[0] in layer.lora_variant or layer.lora_dropout[names[0]].training:
        return None
    a, b, scaling = layer.lora_A[names[0]], layer.lora_B[names[0]], float(layer.scaling[names[0]])
    if a.bias is not None or b.bias is not None or {a.weight.dtype, b.weight.dtype} != {torch.float32}:
        return None
    return a.weight.detach(), b.weight.detach(), scaling


class _Widened:
    """The float32 copy of the last input; layers that read one input come one after the other."""

    def __init__(self) -> None:
        self._of: torch.Tensor | None = None
        self._copy: torch.Tensor | None = None

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        if x is not self._of or self._copy is None:
            self._of, self._copy = x, x.flatten(0, -2).float()
        return self._copy


def _with_lora(base: Product, a: torch.Tensor, b: torch.Tensor, scaling: float, widened: _Widened) -> Product:
    # A power of two scales without rounding, so that it may be a factor of the product; PEFT rounds once for any other.
    exact = math.frexp(scaling)[0] == 0.5
    b = b.t()

    def product(x: torch.Tensor) -> torch.Tensor:
        result = base(x)
        low = widened(x) @ a.t()
        flat = result.flatten(0, -2)
        if exact:
            out = flat.float().addmm_(low, b, alpha=scaling)  # into the widened copy, which is nobody else's
        else:
            out = (low @ b).mul_(scaling).add_(flat)
        return out.to(result.dtype).view_as(result)

    return product
