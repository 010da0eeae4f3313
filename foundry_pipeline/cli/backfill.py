"""`foundry backfill`: many runs and seeds, on this machine one after the other or on a cluster all at once.

    foundry backfill madison_r2 madison_dpo_v1          # every seed of both, up to their scores
    foundry backfill madison_r2@43 --until adapter
    FOUNDRY_ENGINE=ray FOUNDRY_RAY_ADDRESS=http://head:8265 foundry backfill --all

What is built is not started. A run whose machine is gone is started again; one that fails is told, and the others go on.
The same command, repeated after whatever ended it, takes up runs that are still going and builds what is left.
"""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Annotated, Any

import typer

from foundry_pipeline.cli import show
from foundry_pipeline.errors import FoundryError
from foundry_pipeline.settings import load_settings

if TYPE_CHECKING:
    from foundry_pipeline.chain.backfill import Plan, Unit
    from foundry_pipeline.chain.engine import Chain
    from foundry_pipeline.declarations import Declarations
    from foundry_pipeline.defs.backfill import Ended, Launches, Started

LOST = 4  # times that a unit may be lost with its machine
_LOCKED_SECONDS = 15.0
_LOCKED = 240  # times: an hour
_POLL_SECONDS = 2.0


def backfill(
    runs: Annotated[
        list[str] | None, typer.Argument(help="declared runs; RUN@SEED is one seed of a run, RUN all of them")
    ] = None,
    every: Annotated[bool, typer.Option("--all", help="every declared run")] = False,
    until: Annotated[str, typer.Option(help="the last of a run's stages that is built")] = "eval",
    at_once: Annotated[
        int | None,
        typer.Option(min=1, help="runs at the same time; by default one here, one per processor on a cluster"),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="say what would be started, and start nothing")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="print the outcome as JSON")] = False,
) -> None:
    """Build many runs and seeds up to their scores: here one after the other, on a Ray cluster side by side."""
    from foundry_pipeline.chain.backfill import plan_backfill, targets
    from foundry_pipeline.chain.graph import load_chain
    from foundry_pipeline.cli.instance import enter_project
    from foundry_pipeline.scale.engine import engine

    if bool(runs) == every:
        raise FoundryError("name runs, or all of them", where="foundry backfill", mend="foundry backfill --all")
    settings = load_settings()
    d, chain = load_chain(settings)
    wanted = targets(d, chain, d.declared_runs if every else runs or [], until=until)
    started_at = time.monotonic()
    first = plan_backfill(d, chain, wanted)
    if dry_run or not (first.ready or first.waiting):
        _tell(first, {}, {}, time.monotonic() - started_at, as_json)
        return
    limit = at_once or _at_once(engine() == "ray")
    enter_project(release=True)
    from dagster import DagsterInstance

    from foundry_pipeline.defs.backfill import Launches

    with DagsterInstance.get() as instance:
        launches = Launches(instance, store=settings.store, label=settings.profile)
        work = Backfill(d, chain, wanted, launches, limit=limit)
        try:
            work.run()
        except KeyboardInterrupt:
            work.stop()
            show.line("stopped; the same command goes on from what is stored")
            raise typer.Exit(130) from None
    plan = plan_backfill(d, chain, wanted, over=work.failed)
    _tell(plan, work.failed, work.lost, time.monotonic() - started_at, as_json)
    if len(plan.built) < len(wanted):
        raise typer.Exit(1)


def _at_once(on_cluster: bool) -> int:
    """How many runs may go on: one on this machine; on a cluster one for each of its processors, which they ask for in turn."""
    if not on_cluster:
        return 1
    from foundry_pipeline.scale.cluster import RayCluster
    from foundry_pipeline.scale.engine import ray_address

    return max(1, int(sum(node.total.get("CPU", 0.0) for node in RayCluster(ray_address()).nodes())))


class Backfill:
    """The loop: start what is ready, wait for what goes on, plan anew when something has ended."""

    def __init__(self, d: Declarations, chain: Chain, wanted: list[str], launches: Launches, *, limit: int) -> None:
        self._d, self._chain, self._wanted, self._launches, self._limit = d, chain, wanted, launches, limit
        self._busy: dict[str, Started] = {}
        self._not_before: dict[str, float] = {}
        self._locked: dict[str, int] = {}
        self._id = f"foundry-{int(time.time()):x}"
        self.failed: dict[str, str] = {}
        self.lost: dict[str, int] = {}

    def run(self) -> None:
        """Until nothing is left that can be started. Raises FoundryError where nothing can be started at all."""
        while True:
            plan = self._plan()
            for unit in plan.ready:
                if len(self._busy) < self._limit and self._not_before.get(unit.name, 0.0) <= time.monotonic():
                    self._start(unit)
            if not self._busy and not any(u.name in self._not_before for u in plan.ready):
                return
            self._wait()

    def _plan(self) -> Plan:
        from foundry_pipeline.chain.backfill import plan_backfill

        units = [s.unit for s in self._busy.values()]
        return plan_backfill(self._d, self._chain, self._wanted, busy=units, over=self.failed)

    def _start(self, unit: Unit) -> None:
        earlier = self._launches.going_on(unit)
        started = earlier or self._launches.start(unit, backfill=self._id)
        self._busy[unit.name] = started
        how = "goes on" if earlier else "started"
        _say(f"{unit.name}: {how} as run {started.run_id[:8]} ({', '.join(unit.assets)})")

    def _wait(self) -> None:
        """Until at least one run has ended, or the time of one that was not its turn has come."""
        while True:
            ended = {name: end for name, s in self._busy.items() if (end := self._launches.state(s)) is not None}
            for name, end in ended.items():
                self._ended(self._busy.pop(name), end)
            if ended or not self._busy or any(t <= time.monotonic() for t in self._not_before.values()):
                if not ended and not self._busy:
                    time.sleep(_POLL_SECONDS)
                return
            time.sleep(_POLL_SECONDS)

    def _ended(self, started: Started, end: Ended) -> None:
        unit = started.unit
        self._not_before.pop(unit.name, None)
        for name in unit.stages:
            self._chain.forget(name)
        first = end.said.split("\n")[0]
        if end.how == "well":
            _say(f"{unit.name}: done")
        elif end.how == "lost" and self.lost.get(unit.name, 0) < LOST:
            self.lost[unit.name] = self.lost.get(unit.name, 0) + 1
            _say(f"{unit.name}: lost ({first}); started again, {self.lost[unit.name]} of {LOST} times")
        elif end.how == "locked" and self._locked.get(unit.name, 0) < _LOCKED:
            self._locked[unit.name] = self._locked.get(unit.name, 0) + 1
            self._not_before[unit.name] = time.monotonic() + _LOCKED_SECONDS
            _say(f"{unit.name}: not its turn ({first})")
        else:
            self.failed[unit.name] = end.said
            _say(f"{unit.name}: failed: {end.said}")

    def stop(self) -> None:
        """End what goes on."""
        for started in self._busy.values():
            self._launches.stop(started)


def _say(text: str) -> None:
    # On stderr: what is printed as JSON stays JSON.
    print(text, file=sys.stderr, flush=True)


def _tell(plan: Plan, failed: dict[str, str], lost: dict[str, int], seconds: float, as_json: bool) -> None:
    outcome: dict[str, Any] = {
        "targets": len(plan.targets),
        "built": len(plan.built),
        "to_start": {u.name: list(u.stages) for u in plan.ready},
        "waiting": plan.waiting,
        "failed": failed,
        "lost_and_started_again": lost,
        "seconds": round(seconds, 1),
    }
    show.json_or(as_json, outcome, _table)


def _table(outcome: dict[str, Any]) -> None:
    show.line(f"{outcome['built']} of {outcome['targets']} are built ({outcome['seconds']} s)")
    for name, stages in outcome["to_start"].items():
        show.line(f"  {name}: to build: {', '.join(stages)}")
    for name, why in outcome["waiting"].items():
        show.line(f"  {name}: waits for {why}")
    for name, why in outcome["failed"].items():
        show.line(f"  {name}: failed: {why}")


def register(app: typer.Typer) -> None:
    app.command()(backfill)
