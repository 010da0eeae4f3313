"""Seeded sampling for `transformers`: noise of its own for every row of a batch.

`generate(do_sample=True)` draws all rows from one generator, so that an answer depends on who else is in the batch.
Here each row adds Gumbel noise from its own generator to the logits that its request leaves standing, and the largest
sum is taken; that is a draw from the softmax (the Gumbel-max trick, e.g. Maddison et al., arXiv 1411.0030).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import TYPE_CHECKING

from foundry_pipeline.models.requests import ChatRequest

if TYPE_CHECKING:
    import torch


class SeededSampling:
    """A logits processor, to be followed by argmax (`do_sample=False`); one request per row, in order."""

    def __init__(self, requests: Sequence[ChatRequest]) -> None:
        import torch

        self._generators = [torch.Generator().manual_seed(r.seed) for r in requests]
        self._how = [(r.temperature, r.top_k, r.top_p) for r in requests]
        self._group()

    def _group(self) -> None:
        rows: dict[tuple[float, int, float], list[int]] = defaultdict(list)
        for row, how in enumerate(self._how):
            if how[0] > 0:
                rows[how].append(row)
        self._rows = dict(rows)

    def keep(self, rows: Sequence[int]) -> None:
        """Go on with these rows alone; each draws what it would have drawn among all."""
        self._generators = [self._generators[row] for row in rows]
        self._how = [self._how[row] for row in rows]
        self._group()

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Scores (rows, vocabulary), float32, with noise on what may be drawn and −inf elsewhere."""
        import torch

        for (temperature, top_k, top_p), rows in self._rows.items():
            # Nearly always all rows are drawn alike; then the vocabulary's scores are not copied out and back.
            every = len(rows) == len(scores)
            index = torch.tensor(rows, device=scores.device)
            logits, tokens = candidates(scores if every else scores[index], top_k=top_k, top_p=top_p)
            # An exponential variate E gives a Gumbel one, −log E. Drawn on the CPU, so that the device changes nothing.
            noise = torch.empty(logits.shape)
            for place, row in enumerate(rows):
                noise[place].exponential_(generator=self._generators[row])
            noise = noise.log_().neg_().to(logits.device)
            drawn = tokens.gather(1, (logits / temperature + noise).argmax(dim=1, keepdim=True))
            if every:
                scores.fill_(float("-inf")).scatter_(1, drawn, 0.0)
            else:
                scores[index] = float("-inf")
                scores[index, drawn[:, 0]] = 0.0
        return scores


def candidates(scores: torch.Tensor, *, top_k: int, top_p: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits and token ids that a request leaves standing, each (rows, kept), likeliest first.

    The `top_k` largest (0: all); of these, by their renormalized probability, the fewest that reach `top_p`. Logits
    beyond those are −inf. This is the order of llama.cpp's default sampler chain.
    """
    import torch

    size = scores.shape[1]
    if top_k == 0 and top_p >= 1:
        return scores, torch.arange(size, device=scores.device).expand_as(scores)
    logits, tokens = torch.topk(scores, min(top_k or size, size), dim=1)
    if top_p < 1:
        probabilities = logits.softmax(dim=1)
        before = probabilities.cumsum(dim=1) - probabilities
        logits = logits.masked_fill(before >= top_p, float("-inf"))
    return logits, tokens
