"""A Ray cluster as its job server shows it: which nodes there are, what they offer, and the jobs on it.

    cluster = RayCluster("http://head:8265")
    cluster.check(asked)            # FoundryError where no node could ever hold that much, with what is missing
    cluster.end_writers(work)       # a job that a killed run has left behind

What every job gets of this environment is in `job_environment`: the settings of the project, never a key or a password,
which would be shown to everybody who may look at the cluster. Those each node has in its own environment.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from foundry_pipeline.errors import FoundryError
from foundry_pipeline.launch import PARENT_VARIABLE, PIPES_VARIABLES
from foundry_pipeline.scale.asking import Asked
from foundry_pipeline.scale.engine import ADDRESS, patience
from foundry_pipeline.scale.node import CODE_VARIABLE, NEEDS_VARIABLE, code_digest
from foundry_pipeline.settings import Settings

if TYPE_CHECKING:
    from ray.job_submission import JobDetails, JobSubmissionClient

WORK = "foundry/work"  # of a job's metadata: the work folder that its script writes into
# They hold a password, or may: every node has its own.
SECRET = ("FOUNDRY_DATABASE", "FOUNDRY_LEDGER_URL", "FOUNDRY_STORE_OPTIONS")
_OWN = {PARENT_VARIABLE, *PIPES_VARIABLES, *SECRET, CODE_VARIABLE, NEEDS_VARIABLE}
_STOP_SECONDS = 60.0
_GIB = 1024**3


@dataclass(frozen=True)
class Node:
    """A node that is alive: its name, and what it offers in all, by Ray's names (memory in bytes)."""

    name: str
    total: Mapping[str, float]


class RayCluster:
    """One cluster, through its job server. Raises FoundryError where that does not answer, or Ray is not installed."""

    def __init__(self, address: str) -> None:
        self.address = address

    @cached_property
    def client(self) -> JobSubmissionClient:
        try:
            from ray.job_submission import JobSubmissionClient
        except ImportError as error:
            raise FoundryError(
                f"Ray is not installed ({error})",
                where="extra `ray`",
                mend="pip install -c constraints.txt -e '.[ray]'",
            ) from error
        # Nothing is told to anybody, by whatever this process starts.
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        try:
            return JobSubmissionClient(self.address)
        except Exception as error:  # ConnectionError, RuntimeError and more, by what listens there
            raise self.unreachable(error) from error

    def unreachable(self, error: Exception) -> FoundryError:
        """What a cluster that does not answer is told as."""
        said = (str(error).strip() or type(error).__name__).splitlines()[0][:300]
        if "uthentication" in str(error) or "nauthorized" in str(error):
            return FoundryError(
                f"the Ray cluster refuses this client: {said}",
                where=self.address,
                mend="export RAY_AUTH_MODE=token RAY_AUTH_TOKEN=…   # the cluster's own",
            )
        return FoundryError(
            f"no Ray job server answers: {said}",
            where=self.address,
            mend=f"start the cluster (`ray start --head`, see deploy/README.md), or correct {ADDRESS}; "
            "then run the same command again: it goes on from what is stored",
        )

    def nodes(self) -> list[Node]:
        """The nodes that are alive, and what each offers in all."""
        try:
            # The state API's HTTP form: `ray.util.state` would first look for a cluster of this machine.
            reply = self.client._do_request("GET", "/api/v0/nodes?limit=10000")
            rows = reply.json()["data"]["result"]["result"]
            return [Node(r["node_name"], r["resources_total"]) for r in rows if r["state"] == "ALIVE"]
        except FoundryError:
            raise
        except Exception as error:
            raise self.unreachable(error) from error

    def lacking(self, asked: Asked) -> list[str]:
        """What no node of the cluster offers in all; empty where one could hold all of it, be it taken just now.

        >>> RayCluster("http://head:8265").lacking(Asked("training", 8, 1, 0))     # doctest: +SKIP
        ['GPU: 1 asked for, the most that a node has is 0']
        """
        nodes = self.nodes()
        wanted = asked.amounts()
        if any(all(n.total.get(name, 0.0) >= amount for name, amount in wanted.items()) for n in nodes):
            return []
        if not nodes:
            return ["nodes: the cluster has none"]
        most = {name: max(n.total.get(name, 0.0) for n in nodes) for name in wanted}
        short = [name for name, amount in wanted.items() if most[name] < amount]
        told = [
            f"{name}: {_amount(name, wanted[name])} asked for, the most that a node has is {_amount(name, most[name])}"
            for name in short
        ]
        return told or [f"one node with all of {', '.join(f'{n} {_amount(n, a)}' for n, a in wanted.items())}"]

    def check(self, asked: Asked) -> None:
        """Raise FoundryError when, `patience()` seconds long, no node of the cluster could hold what is asked for."""
        until = time.monotonic() + patience()
        while lacking := self.lacking(asked):
            if time.monotonic() >= until:
                raise self.never(asked, lacking)
            time.sleep(min(2.0, max(0.0, until - time.monotonic())))

    def never(self, asked: Asked, lacking: Sequence[str]) -> FoundryError:
        return FoundryError(
            f"the Ray cluster can never hold this work ({asked.work}): {'; '.join(lacking)}",
            where=self.address,
            mend=f"ask for less under `resources: {{{asked.work}: …}}` in {asked.declared}, or add a node that has it",
        )

    def info(self, job: str) -> JobDetails | None:
        """A job as it stands; None for one that the cluster does not know (any more)."""
        try:
            return self.client.get_job_info(job)
        except RuntimeError as error:
            if "404" in str(error) or "does not exist" in str(error):
                return None
            raise self.unreachable(error) from error
        except Exception as error:
            raise self.unreachable(error) from error

    def last_lines(self, job: str, count: int = 25) -> str:
        """The end of a job's output, or why it cannot be had (that of a node that is gone, say)."""
        try:
            return "\n".join(self.client.get_job_logs(job).splitlines()[-count:])
        except Exception as error:  # what is asked for here only adds to a message, and must not stand in its place
            return f"(the output of {job} cannot be had: {type(error).__name__}: {error})"

    def stop(self, job: str) -> None:
        """Ask a job to end, and wait until it has."""
        try:
            self.client.stop_job(job)
        except Exception as error:
            raise self.unreachable(error) from error
        until = time.monotonic() + _STOP_SECONDS
        while (info := self.info(job)) is not None and not info.status.is_terminal():
            if time.monotonic() > until:
                raise FoundryError(
                    f"the Ray job {job} does not end",
                    where=self.address,
                    mend=f"ray job stop --address {self.address} {job}",
                )
            time.sleep(0.5)

    def end_writers(self, work: Path) -> list[str]:
        """End every job that still writes into a work folder; their ids. A run that was killed leaves one behind."""
        try:
            jobs = self.client.list_jobs()
        except Exception as error:
            raise self.unreachable(error) from error
        ended = []
        for job in jobs:
            writes = (job.metadata or {}).get(WORK) == str(work.resolve())
            if writes and job.submission_id and not job.status.is_terminal():
                self.stop(job.submission_id)
                ended.append(job.submission_id)
        return ended


def job_environment(settings: Settings) -> dict[str, str]:
    """What a job gets of this environment: every setting of the project as it is in force here, and no secret."""
    kept = {k: v for k, v in os.environ.items() if k.startswith("FOUNDRY_") and k not in _OWN}
    needed = [name for name in SECRET if os.environ.get(name)]
    return {
        **kept,
        "FOUNDRY_ROOT": str(settings.root),
        # With a shared store the folder is its cache, which a script's work folder lies in.
        "FOUNDRY_STORE": settings.url or str(settings.store),
        **({"FOUNDRY_CACHE": str(settings.store)} if settings.url else {}),
        "FOUNDRY_PROFILE": settings.profile,
        CODE_VARIABLE: code_digest(),
        NEEDS_VARIABLE: ",".join(needed),
    }


def _amount(name: str, amount: float) -> str:
    return f"{amount / _GIB:.3g} GiB" if name == "memory" else f"{amount:g}"
