"""What is left to build of many runs and seeds, and in which order: units that one run of Dagster builds each.

    plan = plan_backfill(d, chain, ["keeper_first", "keeper_first@43"], until="eval")
    plan.ready      # may start now, all at once: the inputs of each are there, and no two build the same artifact
    plan.waiting    # by name, and what for
    plan.built      # targets that are there

A unit is what a run has of its own (from its adapter on), or what runs share (sources, pairs, datasets, base models). When
one ends, the plan is made anew: what has been built is found by its hash, so there is nothing to keep in step.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field

from foundry_pipeline.chain.engine import Chain, Resolved
from foundry_pipeline.chain.gate import VERDICT
from foundry_pipeline.chain.stage import Kind, Stage
from foundry_pipeline.declarations import Declarations
from foundry_pipeline.errors import FoundryError

SHARED = "shared"
OF_A_RUN: tuple[Kind, ...] = ("adapter", "merged", "gguf", "parity", "responses", "eval", "serving_matrix")
# Beside these lies a verdict that what follows asks for; a run that was killed between the two leaves it out.
_JUDGED: tuple[Kind, ...] = ("dataset", "gguf")


@dataclass(frozen=True)
class Unit:
    """Stages that one run of Dagster builds, in the order of the chain; all of one partition, or of none.

    `claims` are the input hashes under which they will be built, as far as they are known: two units that have one in
    common would build the same artifact, such as two runs that this profile cannot tell apart.
    """

    name: str
    stages: tuple[str, ...]
    assets: tuple[str, ...]
    partition: str | None
    claims: frozenset[str]


@dataclass(frozen=True)
class Plan:
    """How a backfill stands."""

    ready: tuple[Unit, ...] = ()
    waiting: dict[str, str] = field(default_factory=dict)
    built: tuple[str, ...] = ()
    targets: tuple[str, ...] = ()


def targets(d: Declarations, chain: Chain, named: Iterable[str], *, until: str) -> list[str]:
    """Stages that a backfill ends with: of each named run every combination of seeds, of `run@seed` that one.

    Raises FoundryError for a run that is not declared, or a kind that no run has.
    """
    if until not in OF_A_RUN:
        raise FoundryError(f"no run has a `{until}`", where="--until", mend=f"name one of: {', '.join(OF_A_RUN)}")
    out: list[str] = []
    for name in named:
        mine = [r for r in d.runs if name in (r, d.run_and_partition(r)[0], _addressed(d, r))]
        if "@" in name:
            mine = [r for r in mine if name == _addressed(d, r)]
        if not mine:
            known = sorted({d.run_and_partition(r)[0] for r in d.runs})
            raise FoundryError(
                f"no run `{name}` is declared",
                where="assets/runs/",
                mend=f"name some of: {', '.join(known)}; one seed of a run is RUN@SEED",
            )
        out += [f"{run}_{until}" for run in mine]
    return list(dict.fromkeys(out))


def _addressed(d: Declarations, run: str) -> str:
    """A run with its partition, the first combination too: `keeper_first` → `keeper_first@42`."""
    declared, partition = d.run_and_partition(run)
    return f"{declared}@{partition}" if partition is not None else run


def plan_backfill(
    d: Declarations, chain: Chain, wanted: Collection[str], *, busy: Iterable[Unit] = (), over: Collection[str] = ()
) -> Plan:
    """The plan for these target stages while the units `busy` are being built and those named `over` have failed.

    Raises GateRefused where a target was built from a dataset that has no passed verdict any more.
    """
    memo: dict[str, Resolved] = {}
    lacking: list[str] = []
    for name in _upstream(chain, wanted):
        if _is_lacking(chain, name, wanted, memo):
            lacking.append(name)
    _ask_gates(chain, [n for n in _upstream(chain, wanted) if n not in lacking], memo)
    units: dict[str, list[str]] = {}
    for name in lacking:
        units.setdefault(_unit_of(d, chain.stages[name]), []).append(name)
    going = {u.name for u in busy}
    claimed = {claim for u in busy for claim in u.claims}
    ready: list[Unit] = []
    waiting: dict[str, str] = {}
    for unit, stages in units.items():
        if unit in going or unit in over:
            continue
        # Of what runs share, some may be built before a run that the rest waits for.
        possible = [s for s in stages if _own_lack(chain, s, set(lacking)) <= set(stages)]
        if not possible:
            missing = {m for s in stages for m in _own_lack(chain, s, set(lacking)) - set(stages)}
            waiting[unit] = f"{sorted(missing)[0]}" + (f" and {len(missing) - 1} more" if len(missing) > 1 else "")
            continue
        claims = frozenset(h for s in possible if (h := memo[s].input_hash) is not None)
        if claims & claimed:
            waiting[unit] = "another run that builds the very same artifact"
            continue
        claimed |= claims
        placed = [chain.stages[s] for s in possible]
        assets = tuple(dict.fromkeys(s.asset for s in placed))
        ready.append(Unit(unit, tuple(possible), assets, placed[0].partition, claims))
    return Plan(tuple(ready), waiting, tuple(t for t in wanted if t not in lacking), tuple(wanted))


def _is_lacking(chain: Chain, name: str, wanted: Collection[str], memo: dict[str, Resolved]) -> bool:
    found = chain.resolve(name, memo)
    if found.record is None:
        return True
    if found.stage.kind not in _JUDGED or name in wanted:
        return False
    # By its note alone: opening the files would read gigabytes of them for many runs.
    return chain.store.read_note(f"artifacts/{found.record.content_hash}/{VERDICT}") is None


def _ask_gates(chain: Chain, built: Iterable[str], memo: dict[str, Resolved]) -> None:
    """The gate of every training that is found built: a backfill that starts nothing must not be a way around it."""
    asked: set[str] = set()
    for name in built:
        stage = chain.stages[name]
        if stage.kind != "adapter" or stage.gate is None:
            continue
        # Of what a training takes in, its gate reads the dataset; a base model is large.
        datasets = [i for i in stage.inputs if chain.stages[i].kind == "dataset"]
        inputs = {i: r for i in datasets if (r := memo[i].record) is not None}
        key = ",".join(sorted(r.content_hash for r in inputs.values()))
        if key not in asked:
            asked.add(key)
            stage.gate(chain, {i: chain.store.open(r.content_hash, name=i) for i, r in inputs.items()})


def _upstream(chain: Chain, wanted: Iterable[str]) -> list[str]:
    """Everything that the wanted stages are made from, and themselves, inputs first."""
    order: dict[str, None] = {}

    def visit(name: str) -> None:
        if name in order:
            return
        for needed in chain.stages[name].inputs:
            visit(needed)
        order[name] = None

    for name in wanted:
        visit(name)
    return list(order)


def _own_lack(chain: Chain, name: str, lacking: set[str]) -> set[str]:
    """What is lacking upstream of a stage, itself included."""
    return {n for n in _upstream(chain, [name]) if n in lacking}


def _unit_of(d: Declarations, stage: Stage) -> str:
    run = stage.name.removesuffix(f"_{stage.kind}")
    return run if stage.kind in OF_A_RUN and run in d.runs else SHARED
