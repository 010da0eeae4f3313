"""A LoRA layer as one node of the graph, and layers that read the same input as one node together.

    fuse(model)                        # once, after PEFT has put the adapter on
    model(input_ids=…)                 # the same numbers within rounding, the same parameters and gradients

PEFT computes `base(x) + lora_B(lora_A(x)) · scale` with a node, a cast and a tensor for every sign in it. Here the adapter's
product is added into the base's, its two narrow matrices are cast once, and the gradient of the input is summed in one
buffer over all layers that read it (query, key and value; gate and up). Nothing is left out and nothing is rounded more
often than before; in bfloat16 a few roundings fall away.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

TOGETHER = (("q_proj", "k_proj", "v_proj"), ("gate_proj", "up_proj"))
"""Names of layers that read one input, in the order in which the Llama, Qwen3 and Gemma 3 families call them."""


def fuse(model: Any) -> int:
    """Let every plain LoRA layer of a PEFT model compute in one node; the number of layers that do.

    A layer with a bias, dropout, several active adapters, or weights that are no plain matrix (four bits) keeps PEFT's own way.
    """
    fused = 0
    for parent in model.modules():
        named = {name: child for name, child in parent.named_children() if _plain(child)}
        groups = [tuple(n for n in names if n in named) for names in TOGETHER]
        alone = [(name,) for name in named if not any(name in group for group in groups)]
        for group in (*filter(None, groups), *alone):
            together = _Together([named[name] for name in group])
            for place, name in enumerate(group):
                named[name].forward = partial(together.forward, place)
            fused += len(group)
    return fused


def _plain(layer: Any) -> bool:
    import torch
    from peft.tuners.lora import Linear

    if type(layer) is not Linear or type(layer.base_layer) is not torch.nn.Linear or len(layer.active_adapters) != 1:
        return False
    (name,) = layer.active_adapters
    return (
        layer.base_layer.bias is None
        and not layer.base_layer.weight.requires_grad
        and type(layer.lora_dropout[name]) is torch.nn.Identity
        and not layer.lora_bias[name]
        and not layer.use_dora[name]
        and not layer.fan_in_fan_out
    )


class _Together:
    """Layers that read the same input: the first that is called computes for all, the others take what is theirs.

    A layer that is called with another input than the first computes for itself.
    """

    def __init__(self, layers: Sequence[Any]) -> None:
        self._layers = list(layers)
        self._own = [layer.forward for layer in layers]
        self._input: torch.Tensor | None = None
        self._waiting: dict[int, torch.Tensor] = {}

    def forward(self, place: int, x: torch.Tensor) -> torch.Tensor:
        layer = self._layers[place]
        if layer.disable_adapters or layer.merged:
            out: torch.Tensor = self._own[place](x)
            return out
        if place == 0:
            self._input, self._waiting = x, dict(enumerate(_apply(self._layers, x)))
        elif self._input is not x or place not in self._waiting:
            return _apply([layer], x)[0]
        found = self._waiting.pop(place)
        if not self._waiting:
            self._input = None
        return found


def _apply(layers: Sequence[Any], x: torch.Tensor) -> tuple[torch.Tensor, ...]:
    import torch

    device = x.device.type
    kind = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else x.dtype
    weights: list[torch.Tensor] = []
    scales: list[float] = []
    for layer in layers:
        (name,) = layer.active_adapters
        weights += [layer.base_layer.weight, layer.lora_A[name].weight, layer.lora_B[name].weight]
        scales.append(float(layer.scaling[name]))
    made: tuple[torch.Tensor, ...] = _function().apply(x, kind, tuple(scales), *weights)
    return made


@lru_cache(maxsize=1)
def _function() -> Any:
    import torch

    class Adapted(torch.autograd.Function):
        """Outputs x·Wᵀ + scale · x·Aᵀ·Bᵀ, one for each three of `weights` (W, A, B); W is frozen."""

        @staticmethod
        def forward(
            ctx: Any, x: torch.Tensor, kind: torch.dtype, scales: tuple[float, ...], *weights: torch.Tensor
        ) -> tuple[torch.Tensor, ...]:
            ctx.set_materialize_grads(False)
            with torch.autocast(x.device.type, enabled=False):
                rows = x.reshape(-1, x.shape[-1]).to(kind)
                outs, kept = [], []
                for scale, base, down, up in zip(scales, weights[::3], weights[1::3], weights[2::3], strict=True):
                    wide, narrow = base.to(kind), down.to(kind)
                    raised = (up * scale).to(kind)
                    inner = rows @ narrow.t()
                    outs.append((rows @ wide.t()).addmm_(inner, raised.t()).view(*x.shape[:-1], -1))
                    kept += [wide, narrow, raised, inner]
            ctx.save_for_backward(rows, *kept)
            ctx.scales, ctx.shape, ctx.kinds = scales, x.shape, (x.dtype, *(w.dtype for w in weights))
            return tuple(outs)

        @staticmethod
        def backward(ctx: Any, *gradients: torch.Tensor | None) -> tuple[Any, ...]:
            rows, *kept = ctx.saved_tensors
            back: torch.Tensor | None = None
            found: list[torch.Tensor | None] = []
            with torch.autocast(rows.device.type, enabled=False):
                for at, (scale, gradient) in enumerate(zip(ctx.scales, gradients, strict=True)):
                    if gradient is None:
                        found += [None, None, None]
                        continue
                    wide, narrow, raised, inner = kept[4 * at : 4 * at + 4]
                    g = gradient.reshape(-1, gradient.shape[-1]).to(rows.dtype)
                    lowered = g @ raised
                    if ctx.needs_input_grad[0]:
                        back = g @ wide if back is None else back.addmm_(g, wide)
                        back.addmm_(lowered, narrow)
                    kinds = ctx.kinds[1 + 3 * at : 4 + 3 * at]
                    down = (lowered.t() @ rows).to(kinds[1])
                    up = (g.t() @ inner).to(kinds[2])
                    found += [None, down, up if scale == 1.0 else up.mul_(scale)]
            return (None if back is None else back.view(ctx.shape).to(ctx.kinds[0]), None, None, *found)

    return Adapted
