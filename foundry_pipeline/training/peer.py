"""A process that trains beside rank 0: `python -m foundry_pipeline.training.peer SPEC.json RANK SIZE [HANDLE]`.

It is started by `train.py`, or by torch's launcher as `train.py` itself, dies with what started it, writes nothing, and
takes the same steps on the same sums.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from foundry_pipeline.errors import Collapsed, FoundryError
from foundry_pipeline.launch import die_with_parent, leave, limit_threads, read_json
from foundry_pipeline.training.distributed import Place, compute_of, require_declared
from foundry_pipeline.training.machine import training_device
from foundry_pipeline.training.team import Team
from foundry_pipeline.training.train import work_through


def serve(spec_file: str, rank: int, here: int, make_team: Callable[[dict[str, Any]], Team]) -> int:
    """0, or 1 where the team broke up: rank 0 says why. `here` is the number of processes on this machine."""
    die_with_parent()
    try:
        spec = read_json(Path(spec_file))
        limit_threads(max(1, int(spec["threads"]) // here))
        work_through(spec, lambda: make_team(spec), None)
    except Collapsed:
        return 0  # rank 0 has come to the same verdict, and tells it
    except FoundryError as error:
        print(f"training process {rank}: {error}", file=sys.stderr, flush=True)
        return 1
    return 0


def main(spec_file: str, rank: int, size: int, room: int | None = None) -> int:
    """A peer of a team on one machine, which meets in the work folder; `room` is its handle on memory that all share."""
    return serve(spec_file, rank, size, lambda spec: Team.join(rank, size, Path(spec["work"]), room))


def launched(spec_file: str, here: Place) -> int:
    """A peer that torch's launcher started."""

    def team(spec: dict[str, Any]) -> Team:
        compute = compute_of(spec)
        require_declared(compute, here)
        return Team.launched(here, on_gpu=training_device(compute.device, here.local_rank) != "cpu")

    return serve(spec_file, here.rank, here.local_size, team)


if __name__ == "__main__":
    leave(main(sys.argv[1], *(int(argument) for argument in sys.argv[2:])))
