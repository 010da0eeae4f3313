"""Log-probabilities of given next tokens without ever holding the logits.

A frozen output layer needs no gradient of its own, so all that a scored row has to remember for the backward pass is
one vector: d log p(label) / d hidden = W[label] − softmax(W h) · W. It is computed while the chunk's logits are at hand
and scaled later by whatever the loss asks of that token: no logits are kept, none are computed twice.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

CHUNK = 256  # scored rows at a time: 256 × 49,152 logits in float32 are 50 MB


def token_log_probabilities(
    hidden: torch.Tensor, weight: torch.Tensor, labels: torch.Tensor, *, chunk: int = CHUNK
) -> torch.Tensor:
    """log p(labels) in nats, float32 (float64 for float64 inputs): hidden (N, width), weight (vocabulary, width).

    `weight` must be frozen: it gets no gradient.
    """
    if weight.requires_grad:
        raise ValueError("the output layer must be frozen for this loss; train adapters on other layers")
    out: torch.Tensor = _function().apply(hidden, weight, labels, chunk)
    return out


@lru_cache(maxsize=1)
def _function() -> Any:
    import torch

    class LogProbabilities(torch.autograd.Function):
        @staticmethod
        def forward(
            ctx: Any, hidden: torch.Tensor, weight: torch.Tensor, labels: torch.Tensor, chunk: int
        ) -> torch.Tensor:
            exact = torch.float64 if hidden.dtype == torch.float64 else torch.float32
            found = torch.empty(len(labels), dtype=exact, device=hidden.device)
            slopes = torch.empty_like(hidden)
            wanted = ctx.needs_input_grad[0]
            for start in range(0, len(labels), chunk):
                rows = slice(start, start + chunk)
                logits = (hidden[rows] @ weight.T).to(exact)
                picked = logits.gather(1, labels[rows].unsqueeze(1)).squeeze(1)
                total = torch.logsumexp(logits, dim=1)
                found[rows] = picked - total
                if wanted:
                    shares = logits.sub_(total.unsqueeze(1)).exp_().to(weight.dtype)
                    slopes[rows] = weight[labels[rows]] - shares @ weight
            ctx.save_for_backward(slopes)
            return found

        @staticmethod
        def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[Any, ...]:
            (slopes,) = ctx.saved_tensors
            return (gradients[0].unsqueeze(1).to(slopes.dtype) * slopes, None, None, None)

    return LogProbabilities
