"""A process that trains beside rank 0: `python -m foundry_pipeline.training.peer SPEC.json RANK SIZE`.

It is started by `train.py`, dies with it, writes nothing, and takes the same steps on the same sums.
"""

from __future__ import annotations

import sys
from pathlib import Path

from foundry_pipeline.errors import Collapsed, FoundryError
from foundry_pipeline.launch import die_with_parent, limit_threads, read_json
from foundry_pipeline.training.team import Team
from foundry_pipeline.training.train import work_through


def main(spec_file: str, rank: int, size: int) -> int:
    """0, or 1 where the team broke up: rank 0 says why."""
    die_with_parent()
    spec = read_json(Path(spec_file))
    limit_threads(max(1, int(spec["threads"]) // size))
    try:
        work_through(spec, lambda: Team.join(rank, size, Path(spec["work"])), None)
    except Collapsed:
        return 0  # rank 0 has come to the same verdict, and tells it
    except FoundryError as error:
        print(f"training process {rank}: {error}", file=sys.stderr, flush=True)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3])))
