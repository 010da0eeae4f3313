"""`foundry join-training`: this machine takes its part in a training that another one has begun."""

from __future__ import annotations

import os
import subprocess
import time
from typing import Annotated

import typer

from foundry_pipeline.cli import show
from foundry_pipeline.errors import FoundryError
from foundry_pipeline.settings import load_settings

_LOOK_SECONDS = 1.0


def join_training(
    run: Annotated[str, typer.Argument(help="a declared run, such as madison_r2")],
    node: Annotated[int, typer.Option("--node-rank", min=1, help="which node this is; 0 is the one that began")] = 1,
    wait: Annotated[int, typer.Option("--wait", min=0, help="seconds to wait for the first node to begin")] = 600,
) -> None:
    """On a second or further node: train with the node that materializes this run's adapter.

    All nodes have the project and its store in the same place of a shared file system, and the same profile, whose `compute`
    says how many nodes there are and where they meet.
    """
    from foundry_pipeline.chain.evaluate import known_run
    from foundry_pipeline.chain.graph import load_chain
    from foundry_pipeline.launch import script_command
    from foundry_pipeline.training.distributed import NODE_VARIABLE
    from foundry_pipeline.training.plan import MODULE

    settings = load_settings()
    d, chain = load_chain(settings)
    known_run(d, run)
    compute, asset = d.profile.compute, f"{run}_adapter"
    if node >= compute.nodes:
        raise FoundryError(
            f"the profile {d.profile.profile} trains on {compute.nodes} node(s); there is none of rank {node}",
            where="`compute.nodes`",
            mend="declare `compute: {processes: …, nodes: …, rendezvous: …}`, the same on every node",
        )
    found = chain.resolve(asset)
    if found.record is not None:
        show.line(f"{asset} is built: nothing to join")
        return
    if found.input_hash is None:
        raise FoundryError(
            f"{asset} cannot be trained yet: {', '.join(found.missing or ())} is not there",
            where=str(chain.store.root),
            mend=f"on the first node: dagster asset materialize --select '*{asset}'",
        )
    spec = chain.store.work(found.input_hash) / "spec.json"
    show.line(f"waiting for the first node at {compute.rendezvous}")
    until = time.monotonic() + wait
    while not spec.is_file():
        if time.monotonic() > until:
            raise FoundryError(
                f"no training of {run} was begun within {wait} seconds",
                where=str(spec),
                mend=f"on the first node: dagster asset materialize --select {asset}",
            )
        time.sleep(_LOOK_SECONDS)
    code = subprocess.run(
        script_command(MODULE, spec), env=os.environ | {NODE_VARIABLE: str(node)}, check=False
    ).returncode
    if code:
        raise FoundryError(
            f"training together ended with exit code {code}",
            where=f"node {node} of {compute.nodes}",
            mend="start the first node's command and this one again: they go on from the last checkpoint",
        )
    show.line("the training ended; the first node has its result")


def register(app: typer.Typer) -> None:
    app.command(name="join-training")(join_training)
