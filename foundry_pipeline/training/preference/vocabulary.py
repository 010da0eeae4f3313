"""Log-probabilities of given next tokens without ever holding the logits.

A frozen output layer needs no gradient of its own, so all that a scored row has to remember for the backward pass is
one vector: d log p(label) / d hidden = W[label] − softmax(W h) · W. It is computed while the logits are at hand and
scaled later by whatever the loss asks of that token: no logits are kept, none are computed twice. The vocabulary is
gone through in tiles that fit a processor's cache, sums rescaled whenever a tile holds a higher logit than those before
it (the online softmax of Milakov and Gimelshein 2018, arXiv 1805.02867).
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

CHUNK = 256  # scored rows at a time
TILE = 4096  # tokens of the vocabulary at a time: 256 × 4,096 logits in float32 are 4 MB
GPU_CHUNK, GPU_TILE = 1024, 32768  # 134 MB of logits in float32; not measured on a GPU yet


def token_log_probabilities(
    hidden: torch.Tensor, weight: torch.Tensor, labels: torch.Tensor, *, chunk: int = CHUNK, tile: int = TILE
) -> torch.Tensor:
    """log p(labels) in nats, float32 (float64 for float64 inputs): hidden (N, width), weight (vocabulary, width).

    `weight` must be frozen: it gets no gradient.
    """
    if weight.requires_grad:
        raise ValueError("the output layer must be frozen for this loss; train adapters on other layers")
    out: torch.Tensor = _function().apply(hidden, weight, labels, chunk, tile)
    return out


@lru_cache(maxsize=1)
def _function() -> Any:
    import torch

    class LogProbabilities(torch.autograd.Function):
        @staticmethod
        def forward(
            ctx: Any, hidden: torch.Tensor, weight: torch.Tensor, labels: torch.Tensor, chunk: int, tile: int
        ) -> torch.Tensor:
            exact = torch.float64 if hidden.dtype == torch.float64 else torch.float32
            found = torch.empty(len(labels), dtype=exact, device=hidden.device)
            slopes = torch.empty_like(hidden)
            wanted = ctx.needs_input_grad[0]
            for start in range(0, len(labels), chunk):
                rows = slice(start, start + chunk)
                h, label = hidden[rows], labels[rows]
                highest = torch.full((len(h), 1), float("-inf"), dtype=exact, device=h.device)
                total, picked = torch.zeros_like(highest), torch.zeros_like(highest)
                mean = torch.zeros(h.shape, dtype=exact, device=h.device)  # Σ exp(logit) · W, over `total` at the end
                for first in range(0, len(weight), tile):
                    part = weight[first : first + tile]
                    logits = (h @ part.T).to(exact)
                    here = ((label >= first) & (label < first + len(part))).unsqueeze(1)
                    own = logits.gather(1, (label - first).clamp(0, len(part) - 1).unsqueeze(1))
                    picked = torch.where(here, own, picked)
                    higher = torch.maximum(highest, logits.amax(1, keepdim=True))
                    shrink = (highest - higher).exp_()
                    logits.sub_(higher).exp_()
                    total.mul_(shrink).add_(logits.sum(1, keepdim=True))
                    if wanted:
                        mean.mul_(shrink).add_(logits.to(weight.dtype) @ part)
                    highest = higher
                found[rows] = (picked - highest - total.log()).squeeze(1)
                if wanted:
                    slopes[rows] = weight[label] - mean.div_(total).to(weight.dtype)
            ctx.save_for_backward(slopes)
            return found

        @staticmethod
        def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[Any, ...]:
            (slopes,) = ctx.saved_tensors
            return (gradients[0].unsqueeze(1).to(slopes.dtype) * slopes, None, None, None, None)

    return LogProbabilities
