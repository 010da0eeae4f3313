"""The stages of a chain as Dagster shows them: one asset each, or one asset with a partition for each combination of seeds.

A run that declares `seeds: [42, 43]` has the assets of any other run, each with the partitions `42` and `43`:

    dagster asset materialize --select '*keeper_first_eval' --partition 43
    dagster job backfill --job keeper_first_seeds --all --noprompt
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import dagster as dg
from dagster_shared.utils.warnings import PreviewWarning

from foundry_pipeline.chain.engine import Chain
from foundry_pipeline.chain.stage import Stage, materialize
from foundry_pipeline.declarations import Declarations
from foundry_pipeline.errors import FoundryError


@dataclass(frozen=True)
class Placed:
    """One asset: its stages by partition key, or its only stage under None."""

    name: str
    stages: dict[str | None, Stage]

    @property
    def first(self) -> Stage:
        """The stage that other declarations mean by the asset's name."""
        return next(iter(self.stages.values()))

    @property
    def partitions(self) -> dg.StaticPartitionsDefinition | None:
        keys = [key for key in self.stages if key is not None]
        return dg.StaticPartitionsDefinition(keys) if keys else None

    def asked(self, context: dg.AssetExecutionContext | dg.AssetCheckExecutionContext) -> Stage:
        """The stage that a run of Dagster is about. Raises FoundryError for a partitioned one without a partition."""
        if self.partitions is None:
            return self.first
        if not context.op_execution_context.has_partition_key:
            raise FoundryError(
                f"{self.name} has a partition for each of its seeds, and this run names none",
                where=self.name,
                mend=materialize(self.name, self.first.partition),
            )
        return self.stages[context.op_execution_context.partition_key]


def check_spec(name: str, asset: Placed, **given: Any) -> dg.AssetCheckSpec:
    """A check of an asset, with a result for each of its partitions where it has some."""
    with warnings.catch_warnings():
        # Partitions of a check are a preview in the pinned version; a test holds what is relied on.
        warnings.simplefilter("ignore", PreviewWarning)
        return dg.AssetCheckSpec(name, asset=dg.AssetKey(asset.name), partitions_def=asset.partitions, **given)


def placed(chain: Chain) -> list[Placed]:
    """Every asset of the chain, in the order of its first stage."""
    found: dict[str, dict[str | None, Stage]] = {}
    for stage in chain.stages.values():
        found.setdefault(stage.asset, {})[stage.partition] = stage
    return [Placed(name, stages) for name, stages in found.items()]


def placed_at(chain: Chain, name: str) -> Placed:
    """The asset of that name; raises KeyError where there is none."""
    return {asset.name: asset for asset in placed(chain)}[name]


def dependencies(chain: Chain, asset: Placed) -> list[dg.AssetDep]:
    """What an asset is made from. Of another run under several seeds it is that run's first combination."""
    out = []
    for name in asset.first.inputs:
        needed = chain.stages[name]
        fixed = needed.partition is not None and not _moves(chain, asset, needed)
        mapping = dg.SpecificPartitionsPartitionMapping([str(needed.partition)]) if fixed else None
        out.append(dg.AssetDep(dg.AssetKey(needed.asset), partition_mapping=mapping))
    return out


def _moves(chain: Chain, asset: Placed, needed: Stage) -> bool:
    """Whether an input is another one in each partition, as those of the same run are."""
    stages = [chain.stages[i] for stage in asset.stages.values() for i in stage.inputs]
    return len({s.partition for s in stages if s.asset == needed.asset}) > 1


def seed_jobs(d: Declarations, chain: Chain) -> list[dg.UnresolvedAssetJobDefinition]:
    """For each run under several seeds a job over everything from its training on, to be backfilled."""
    out = []
    assets = placed(chain)
    for run in dict.fromkeys(v.run for v in d.variants.values()):
        mine = [a for a in assets if a.first.partition is not None and d.run_and_partition(_run(a.first))[0] == run]
        keys: Iterable[dg.AssetKey] = [dg.AssetKey(a.name) for a in mine]
        out.append(
            dg.define_asset_job(
                f"{run}_seeds",
                selection=dg.AssetSelection.assets(*keys),
                partitions_def=mine[0].partitions,
                description=f"{run} under each of its seeds, from the training to the serving matrix.",
            )
        )
    return out


def _run(stage: Stage) -> str:
    return stage.name.removesuffix(f"_{stage.kind}")
