"""The decoding of one group by `transformers`: the library's own loop, left each time some rows have come to their end.

`generate` runs all rows until the last one has ended, which for answers of uneven length is a fifth of the work for
nothing. Here it is stopped as soon as one row in `_LEAVE` has ended and goes on with the others from the same key-value
cache, out of which the ended rows are taken. What a row reads does not change by that: its columns, its padding, its
positions and its noise stay where they were. Products of bfloat16 give a row the same bits in company of any size on the
processors tried; where a library rounds otherwise, the texts are still a function of the group, since it alone decides
when which row leaves.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from foundry_pipeline.models.sampling import SeededSampling

if TYPE_CHECKING:
    import torch
    from transformers import Cache

_LEAVE = (
    12  # rows leave when a twelfth of those at work has ended: what a step still wastes, against what leaving costs
)
_FEWEST = 4  # torch multiplies fewer rows of float32 by another routine, which rounds differently


def decode(
    network: Any,
    prompts: Sequence[Sequence[int]],
    bounds: Sequence[int],
    *,
    ends: Sequence[int],
    pad: int,
    sampling: SeededSampling,
    cache: Cache,
    device: str,
) -> tuple[list[list[int]], list[float]]:
    """Token ids that follow each prompt, as far as its bound at least, and the time at which each row ended.

    What stands behind a row's first end token, or beyond its bound, is of no meaning. Times are of `perf_counter`.
    """
    import torch
    from transformers import GenerationConfig, LogitsProcessorList, StoppingCriteriaList

    width = max(map(len, prompts))
    ids = torch.tensor([[pad] * (width - len(p)) + list(p) for p in prompts], device=device)
    mask = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in prompts], device=device)
    answers: list[list[int]] = [[] for _ in prompts]
    times = [0.0] * len(prompts)
    live = list(range(len(prompts)))
    with torch.inference_mode():
        while live:
            stop = _RowsDone([bounds[row] for row in live], width, ends, leaving=_may_leave(cache))
            config = GenerationConfig(
                do_sample=False,
                max_new_tokens=max(bounds[row] for row in live) - (ids.shape[1] - width),
                eos_token_id=list(ends),
                pad_token_id=pad,
                use_cache=True,
            )
            ids = network.generate(
                input_ids=ids,
                attention_mask=mask,
                generation_config=config,
                logits_processor=LogitsProcessorList([sampling]),
                stopping_criteria=StoppingCriteriaList([stop]),
                past_key_values=cache,
            )
            staying = [place for place, at in enumerate(stop.ended) if at is None]
            for place, (row, at) in enumerate(zip(live, stop.ended, strict=True)):
                if at is not None:
                    answers[row], times[row] = ids[place, width:].tolist(), at
            if staying:
                places = torch.tensor(staying, device=device)
                ids, mask = ids[places], mask[places]
                mask = torch.cat([mask, mask.new_ones(len(staying), ids.shape[1] - mask.shape[1])], dim=1)
                cache.batch_select_indices(places)
                sampling.keep(staying)
            live = [live[place] for place in staying]
    return answers, times


def _may_leave(cache: Cache) -> bool:
    """Whether rows can be taken out: where every layer keeps keys and values of all positions, and nothing else."""
    from foundry_pipeline.models.hf_backend import is_reserved

    return all(is_reserved(layer) for layer in cache.layers)


class _RowsDone:
    """A stopping criterion with a bound for each row; notes when each row came to its end.

    Stops all rows when enough have ended for those to leave; of those that stay `ended` is None.
    """

    def __init__(self, bounds: Sequence[int], width: int, ends: Sequence[int], *, leaving: bool) -> None:
        import torch

        self._bounds = torch.tensor(list(bounds)) + width
        self._ends = torch.tensor(list(ends))
        rows = len(bounds)
        leave = max(1, rows // _LEAVE)
        self._enough = leave if leaving and rows - leave >= _FEWEST else rows
        self.ended: list[float | None] = [None] * rows

    def __call__(self, input_ids: torch.Tensor, scores: Any, **kwargs: Any) -> torch.Tensor:
        import torch

        full = input_ids.shape[1] >= self._bounds
        ended = full | torch.isin(input_ids[:, -1].cpu(), self._ends)
        now = time.perf_counter()
        for row in torch.nonzero(ended).flatten().tolist():
            if self.ended[row] is None:
                self.ended[row] = now
        if sum(at is not None for at in self.ended) >= self._enough:
            full = torch.ones_like(full)
        return full.to(input_ids.device)
