"""The chain of a project: every stage that its declarations call for, by asset name.

>>> sorted(build_chain(declarations, settings).stages)[:3]       # doctest: +SKIP
['base_model_smollm2_135m', 'madison_candidate_pairs', 'madison_dataset_sft']
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from foundry_pipeline.chain.data_stages import data_stages
from foundry_pipeline.chain.engine import Chain
from foundry_pipeline.chain.evaluation_stages import eval_stage
from foundry_pipeline.chain.judges_stage import judges_stage
from foundry_pipeline.chain.model_stages import adapter_stages, base_stage
from foundry_pipeline.chain.parity_stages import parity_stage
from foundry_pipeline.chain.serving_stages import matrix_stage
from foundry_pipeline.chain.stage import Stage
from foundry_pipeline.declarations import Declarations, load
from foundry_pipeline.declarations.assets import Run
from foundry_pipeline.declarations.seeds import partitioned
from foundry_pipeline.errors import DeclarationError
from foundry_pipeline.lineage.hashing import digest
from foundry_pipeline.lineage.opening import open_store
from foundry_pipeline.settings import Settings


def build_chain(d: Declarations, settings: Settings) -> Chain:
    """Derive the graph; raises DeclarationError when two declarations give the same asset name."""
    store = open_store(settings)
    stages = [base_stage(d, model) for model in sorted(set(d.profile.bases.values()))]
    for character in d.characters:
        stages += data_stages(d, character, settings.store)
    for run in d.runs.values():
        repeat = d.variants[run.run].judge_repeat if run.run in d.variants else 0
        judged = eval_stage(d, run, attempt=repeat)
        stages += [*adapter_stages(d, run), parity_stage(d, run), judged, matrix_stage(d, run)]
        stages.append(judges_stage(d, run, store))
    stages = [_placed(d, stage) for stage in stages]
    named = {s.name: s for s in stages}
    if len(named) != len(stages):
        twice = sorted({s.name for s in stages if sum(o.name == s.name for o in stages) > 1})
        raise DeclarationError(f"two declarations give the same asset: {', '.join(twice)}", mend="rename one of them")
    return Chain(named, store, settings)


def _placed(d: Declarations, stage: Stage) -> Stage:
    """The stage with its asset and partition, where its run has several seeds."""
    asset, partition = partitioned(stage.name, stage.kind, d.variants)
    return stage if partition is None else replace(stage, asset_name=asset, partition=partition)


def count_assets(chain: Chain) -> int:
    """How many assets the chain's stages are, partitions of one asset counted once."""
    return len({stage.asset for stage in chain.stages.values()})


def load_chain(settings: Settings) -> tuple[Declarations, Chain]:
    """Declarations and chain of the project the settings point at."""
    d = load(settings.root, settings.profile)
    return d, build_chain(d, settings)


def same_here(d: Declarations, run: Run) -> list[str]:
    """Runs that this profile cannot tell from the given one: they differ only in what the profile replaces.

    With one stand-in for every base, two runs that differ only in their base are one and the same training.
    """
    return [name for name in alike(d).get(run.run, ()) if name != run.run]


def alike(d: Declarations) -> dict[str, list[str]]:
    """Run → the runs, itself among them, that this profile takes for one; sorted."""
    # One comparison of all for each set of declarations: asked for every asset of every run, it would grow with their square.
    if _ALIKE.get("of") is not d:
        groups: dict[str, list[str]] = {}
        for r in d.runs.values():
            told_apart = r.model_dump(
                mode="json", exclude={"run", "description", "base", "reported", "seeds", "resources"}
            )
            groups.setdefault(digest({**told_apart, "model": d.base_model(r.base)}), []).append(r.run)
        _ALIKE.update(of=d, runs={name: sorted(names) for names in groups.values() for name in names})
    found: dict[str, list[str]] = _ALIKE["runs"]
    return found


_ALIKE: dict[str, Any] = {}
