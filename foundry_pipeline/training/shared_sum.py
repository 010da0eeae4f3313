"""A sum over processes of one machine, taken where the numbers lie: in memory that all of them see.

    handle = make_room()                                    # before the others are started; they inherit it
    room = SharedSum(handle, rank, size, count, wait)       # in each of them; `wait` comes back when all have called it
    room.own[:] = gradients; room.add()                     # afterwards every process's `own` holds the sum

Gradients of a LoRA are some 80 MB, and a loopback connection takes a tenth of a second and two copies for them, at every
step. Here each process sums one part, in the order of ranks, and takes the other parts from those that summed them.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def make_room() -> int | None:
    """A handle on memory without a name, to be passed on to processes that are started; None where there is none (not Linux)."""
    make = getattr(os, "memfd_create", None)
    return None if make is None else int(make("foundry-gradients"))


class SharedSum:
    """`count` float32 numbers for each of `size` processes; `own` are those of this one (`rank`), zeros at first.

    Raises OSError where there is no memory for them.
    """

    def __init__(self, handle: int, rank: int, size: int, count: int, wait: Callable[[], None]) -> None:
        import torch

        # All make it the same size: who comes first does not matter, and what is there already stays.
        os.ftruncate(handle, 4 * count * size)
        memory = mmap.mmap(handle, 4 * count * size)
        every = torch.frombuffer(memory, dtype=torch.float32).view(size, count)
        edges = [count * part // size for part in range(size + 1)]
        self._parts = [slice(first, last) for first, last in zip(edges, edges[1:], strict=False)]
        self._every, self._rank, self._wait = every, rank, wait
        self.own: torch.Tensor = every[rank]

    def holds(self, values: torch.Tensor) -> bool:
        """Whether these numbers are `own`, all of them."""
        return values.data_ptr() == self.own.data_ptr() and values.numel() == self.own.numel()

    def add(self) -> None:
        """Replace `own` by the sum over all processes, each of which has to call this."""
        self._wait()  # until everybody's numbers are there
        part = self._parts[self._rank]
        first, *others = (numbers[part] for numbers in self._every)
        total = first.clone()
        for numbers in others:
            total.add_(numbers)
        self.own[part] = total
        self._wait()  # until every part is summed
        for rank, part in enumerate(self._parts):
            if rank != self._rank:
                self.own[part] = self._every[rank, part]
        self._wait()  # until nobody reads what is about to be written again
