"""In what order an epoch shows its rows.

    epoch_order("shuffle", origins, seed=42, epoch=0)        → a permutation of all rows
    epoch_order("source_first", ("base", "source_enriched", "base", "source_enriched"), seed=42, epoch=0)
                                                             → [3, 1, 0, 2], say

`source_first`: rows made with primary sources in view before all others, each group in an order of its own. Either
order follows from seed and epoch alone. Nothing is drawn from a running generator, so a training taken up in the middle
of an epoch sees the rest of exactly that epoch.

A step of 4 pairs, 10 pairs, 3 epochs: `within_epochs` takes 4 + 4 + 2 in every epoch, 9 steps, as `transformers.Trainer`
does; `across_epochs` fills up from the next epoch, 4 × 7 + 2, 8 steps.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

from foundry_pipeline.declarations.common import Accumulation, Order

SOURCE_GROUNDED = "source_enriched"


def epoch_order(order: Order, origins: Sequence[str], *, seed: int, epoch: int) -> list[int]:
    """Indices of all rows in the order of one epoch; `origins` has one entry a row."""
    # A string as seed is hashed with SHA-512, the same on every machine; a tuple would be hashed per process.
    draw = random.Random(f"{order}:{seed}:{epoch}")
    first = [i for i, origin in enumerate(origins) if order == "source_first" and origin == SOURCE_GROUNDED]
    taken = set(first)
    rest = [i for i in range(len(origins)) if i not in taken]
    draw.shuffle(first)
    draw.shuffle(rest)
    return first + rest


def windows(
    order: Order,
    origins: Sequence[str],
    *,
    seed: int,
    epochs: int,
    size: int,
    accumulation: Accumulation = "within_epochs",
) -> list[list[int]]:
    """Rows of every optimizer step of a training, in order.

    The last step of an epoch may have fewer than `size`. Across epochs only the last of all differs: what is left over
    is a step of its own if it is at least half of one, and joins the step before it otherwise.
    """
    shown = [epoch_order(order, origins, seed=seed, epoch=epoch) for epoch in range(epochs)]
    if accumulation == "within_epochs":
        return [rows[at : at + size] for rows in shown for at in range(0, len(rows), size)]
    stream = [row for rows in shown for row in rows]
    steps = [stream[at : at + size] for at in range(0, len(stream), size)]
    if len(steps) > 1 and 2 * len(steps[-1]) < size:
        rest = steps.pop()
        steps[-1] += rest
    return steps
