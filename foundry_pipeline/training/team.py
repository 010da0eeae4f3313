"""Processes that share a window of pairs and add up their gradients.

    team = Team.start(spec_file, size=2, work=work)     # in the process that trains: rank 0, with its peers started
    team = Team.join(rank=1, size=2, work=work)         # in a peer
    team = Team.launched(place, on_gpu=False)           # in a process that torch's launcher started
    team.add(gradients); team.add(figures)              # in place: afterwards everybody holds the sum
    team.end()

Two processes of one thread each compute what one process of two threads does, without waiting for each other at every
matrix product: on a machine that other work shares, threads that wait lose most of their time. Every process takes the
same optimizer step on the same sums, so that the weights never have to travel.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Sequence
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from foundry_pipeline.errors import FoundryError
from foundry_pipeline.launch import script_environment
from foundry_pipeline.training.shared_sum import SharedSum, make_room
from foundry_pipeline.warm import PEER as PEER_MODULE
from foundry_pipeline.warm import Started, start_script

if TYPE_CHECKING:
    import torch

    from foundry_pipeline.training.distributed import Place

T = TypeVar("T")
_MEETING = "meeting"  # a file by which the processes find each other
_PATIENCE = timedelta(minutes=30)  # for a peer that is slow; one that died is noticed at once


def team_size(threads: int, window: int, *, on_gpu: bool) -> int:
    """How many processes train: one on a GPU, else one for each thread, as far as there are pairs for them."""
    return 1 if on_gpu else max(1, min(threads, window))


class Team:
    """This process's place among those that train together; alone, adding up does nothing.

    `here` counts those on this machine. `in_step` says that the weights are shared out (`sharding.py`): a forward pass needs
    them all, so that each has to make as many as every other.
    """

    def __init__(self, rank: int, size: int, peers: Sequence[Started], *, here: int | None = None) -> None:
        self.rank, self.size, self._peers = rank, size, peers
        self.here = size if here is None else here
        self.in_step = False
        self._room: int | None = None
        self._sum: SharedSum | None = None

    @classmethod
    def start(cls, spec_file: Path, *, size: int, work: Path) -> Team:
        """Become rank 0 and start the others, which die with this process."""
        (work / _MEETING).unlink(missing_ok=True)
        room = make_room() if size > 1 else None
        given = [] if room is None else [str(room)]
        peers = [
            start_script(
                PEER_MODULE,
                [str(spec_file), str(rank), str(size), *given],
                {},
                script_environment(),
                pass_fds=[] if room is None else [room],
            )
            for rank in range(1, size)
        ]
        team = cls(0, size, peers)
        team._room = room
        team._meet(work)
        return team

    @classmethod
    def join(cls, rank: int, size: int, work: Path, room: int | None = None) -> Team:
        """Become one of those that rank 0 has started; `room` is the handle on shared memory that it passed on."""
        team = cls(rank, size, [])
        team._room = room
        team._meet(work)
        return team

    @classmethod
    def launched(cls, place: Place, *, on_gpu: bool) -> Team:
        """The place that torch's launcher gave this process; the others are where its environment says."""
        team = cls(place.rank, place.size, [], here=place.local_size)
        # Figures and counters are summed where they are, in main memory.
        team._gather("cpu:gloo,cuda:nccl" if on_gpu else "gloo", "env://")
        return team

    def _meet(self, work: Path) -> None:
        self._gather("gloo", f"file://{(work / _MEETING).resolve()}")

    def _gather(self, backend: str, where: str) -> None:
        if self.size == 1:
            return
        import torch.distributed as dist

        if self.here == self.size:
            # All processes are on this machine; by its name it may not be reachable.
            os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
        try:
            dist.init_process_group(backend, init_method=where, rank=self.rank, world_size=self.size, timeout=_PATIENCE)
        except RuntimeError as error:
            raise self._broken(error) from error

    def in_turn(self, local_rank: int, work: Callable[[], T]) -> T:
        """Let the processes of each machine do something one after the other; every process of the team has to call it."""
        out: list[T] = []
        for turn in range(self.here):
            if turn == local_rank:
                out.append(work())
            self.wait()
        return out[0]

    def wait(self) -> None:
        """Go on when all have come here."""
        import torch

        self.add(torch.zeros(1))

    def zeros(self, count: int, dtype: torch.dtype, device: torch.device) -> torch.Tensor:
        """So many zeros; where the processes share memory, the first that are asked for are added up there, in place."""
        import torch

        if self._room is None or self._sum is not None or dtype != torch.float32 or device.type != "cpu":
            return torch.zeros(count, dtype=dtype, device=device)
        self._sum = SharedSum(self._room, self.rank, self.size, count, self._barrier)
        return self._sum.own

    def add(self, values: torch.Tensor) -> None:
        """Replace `values` by their sum over all processes."""
        if self.size == 1:
            return
        import torch.distributed as dist

        if self._sum is not None and self._sum.holds(values):
            self._sum.add()
            return
        try:
            dist.all_reduce(values)
        except RuntimeError as error:
            raise self._broken(error) from error

    def _barrier(self) -> None:
        import torch.distributed as dist

        try:
            dist.barrier()
        except RuntimeError as error:
            raise self._broken(error) from error

    def _broken(self, error: RuntimeError) -> FoundryError:
        ended = [p.poll() for p in self._peers]
        told = ", ".join(f"process {rank} ended with {code}" for rank, code in enumerate(ended, 1) if code)
        return FoundryError(
            f"training together failed: {told or str(error).splitlines()[0]}",
            where=f"process {self.rank} of {self.size}",
            mend="run the same command again: it goes on from the last checkpoint",
        )

    def end(self) -> None:
        """Part; peers that do not go by themselves are made to."""
        if self.size > 1:
            import torch.distributed as dist

            if dist.is_initialized():
                dist.destroy_process_group()
        for peer in self._peers:
            try:
                peer.wait(timeout=10)
            except subprocess.TimeoutExpired:
                peer.kill()
                peer.wait()
