"""A training in several declared processes, by torch's own launcher.

    python -m foundry_pipeline.training.train SPEC.json            # becomes torchrun where the spec declares processes
    torchrun --nproc-per-node 4 -m foundry_pipeline.training.train SPEC.json                    # the same by hand
    FOUNDRY_NODE_RANK=1 python -m foundry_pipeline.training.train SPEC.json   # on the second node; `foundry join-training`

Rank 0 is on the first node and does all that a training in one process does: it reports, writes figures, checkpoints and the
result, and holds the work folder's lock. The others compute (`peer.py`). All nodes read the spec's folders by the same
paths: a shared file system. An ordinary training on a laptop comes nowhere near this module's launcher (`team.py`).
"""

from __future__ import annotations

import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from pydantic import ValidationError

from foundry_pipeline.declarations.compute import Compute
from foundry_pipeline.errors import FoundryError
from foundry_pipeline.launch import die_with_parent

NODE_VARIABLE = "FOUNDRY_NODE_RANK"
_SET = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


@dataclass(frozen=True)
class Place:
    """Which of the launched processes this one is: of all, and of those on its node."""

    rank: int
    size: int
    local_rank: int
    local_size: int


def compute_of(spec: dict[str, Any]) -> Compute:
    """What a spec says of device and processes; a spec without it means one machine as it is."""
    return Compute.model_validate(spec.get("compute", {}))


def place() -> Place | None:
    """This process's place where torchrun (or `accelerate launch`, which is one) started it, else None."""
    if not all(name in os.environ for name in _SET):
        return None
    return Place(*(int(os.environ[name]) for name in _SET[:4]))


def require_declared(compute: Compute, here: Place | None) -> None:
    """Raise FoundryError where a training was started in another number of processes than its profile declares."""
    found, declared = (here.size if here else 1), compute.world_size or 1
    if found != declared:
        raise FoundryError(
            f"started in {found} processes, declared for {declared}: the sums of a step would be taken in another order",
            where="`compute.processes` and `compute.nodes` of the profile",
            mend=f"declare them, or start {declared}",
        )


def node_rank(compute: Compute) -> int:
    """Which node this is, by FOUNDRY_NODE_RANK: 0 where nothing is said. Raises FoundryError for one that is not declared."""
    told = os.environ.get(NODE_VARIABLE, "0")
    if not told.isdigit() or int(told) >= compute.nodes:
        raise FoundryError(
            f"{told!r} is no node of {compute.nodes}",
            where=NODE_VARIABLE,
            mend=f"give one from 0 to {compute.nodes - 1}",
        )
    return int(told)


def command(module: str, spec_file: Path, compute: Compute) -> list[str]:
    """The command line of torch's launcher on this node. Raises FoundryError for a node that is not declared."""
    out = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", str(compute.processes)]
    if compute.nodes > 1:
        host, _, port = compute.rendezvous.rpartition(":")
        out += ["--nnodes", str(compute.nodes), "--node-rank", str(node_rank(compute)), "--rdzv-backend", "static"]
        out += ["--master-addr", host.strip("[]"), "--master-port", port]
    else:
        # By its own name this machine may not be reachable.
        out += [
            "--nnodes",
            "1",
            "--rdzv-backend",
            "c10d",
            "--rdzv-endpoint",
            "127.0.0.1:0",
            "--local-addr",
            "127.0.0.1",
        ]
    return [*out, "--module", module, str(spec_file)]


def launch_if_declared(module: str, arguments: list[str]) -> None:
    """Become torch's launcher where the spec declares several processes; return where it does not, or cannot be read."""
    if len(arguments) != 1:
        return
    try:
        spec = json.loads(Path(arguments[0]).read_text(encoding="utf-8"))
        compute = compute_of(spec)
    except (OSError, ValueError, AttributeError, TypeError, ValidationError):
        return  # the script itself says what is wrong with it
    if (compute.world_size or 1) > 1:
        _become(command(module, Path(arguments[0]), compute))


def _become(line: list[str]) -> NoReturn:
    # The kernel's request to end this process with its parent outlives the change of program, and the workers make
    # their own.
    die_with_parent()
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # the launcher would say so at length; each worker sets its own
    os.execv(line[0], line)
