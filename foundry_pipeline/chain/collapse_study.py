"""The collapse study of a declared run: its own base and dataset, once their gate has passed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from foundry_pipeline.chain.engine import Chain
from foundry_pipeline.chain.model_stages import adapter_gate, dense_dir
from foundry_pipeline.declarations import Declarations
from foundry_pipeline.errors import FoundryError
from foundry_pipeline.launch import ScriptRunner
from foundry_pipeline.training.collapse import Cell, Study, rates_around
from foundry_pipeline.training.plan import effective, training_spec


def collapse_study(
    d: Declarations, chain: Chain, name: str, *, rates: Sequence[float], ranks: Sequence[int], steps: int
) -> Study:
    """The study of a run; without rates or ranks, around its own. Raises MissingArtifact, GateRefused, FoundryError."""
    run = d.runs[name]
    wrong = [f"learning rate {rate:g}" for rate in rates if not 0 < rate < 1]
    wrong += [f"rank {rank}" for rank in ranks if not 1 <= rank <= 1024]
    if wrong or steps < 2:
        raise FoundryError(
            f"out of range: {', '.join(wrong) or f'{steps} steps'}",
            where="foundry collapse",
            mend="learning rates lie between 0 and 1, ranks between 1 and 1024, and two steps are the least",
        )
    start = next(i for i in chain.stages[f"{name}_adapter"].inputs if i != run.dataset)
    base, data = chain.require(start).artifact, chain.require(run.dataset).artifact
    adapter_gate(d, run.dataset, chain, {run.dataset: data})
    spec = training_spec(
        run,
        d.profile,
        base_dir=dense_dir(base),
        base_hash=base.content_hash,
        dataset_parquet=data.payload / "pairs.parquet",
        dataset_hash=data.content_hash,
        order=d.datasets[run.dataset].order,
    )
    values = effective(run, d.profile)
    return Study(
        spec=spec,
        rates=tuple(dict.fromkeys(rates)) or rates_around(values.learning_rate),
        ranks=tuple(dict.fromkeys(ranks)) or tuple(sorted({max(1, values.lora_rank // 4), values.lora_rank})),
        steps=steps,
        guards=run.guards,
    )


def run_study(chain: Chain, study: Study, run_script: ScriptRunner, say: Callable[[str], None]) -> list[Cell]:
    """All cells; those trained before lie below `studies/` in the store and are found again."""
    return study.run(studies(chain, study), run_script, say)


def studies(chain: Chain, study: Study) -> Path:
    return chain.store.root / "studies" / "collapse" / str(study.spec["run"])
