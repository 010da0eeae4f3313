"""One declared run under several seeds: training seed × sampling seed × repeat of the judge.

    seeds: 10                 in a run         → training seeds 42 … 51 (`seed` and the nine after it)
    seeds: [42, 7, 1815]                       → these
    sampling_seeds: 3         in an evaluation → every model answers the suite under three seeds
    judge_repeats: 2                           → every answer is judged twice

Each combination is one partition of the run's assets and, for the chain, a run of its own whose name ends in the
partition: `keeper_first@43`, `keeper_first@43.s1.j1`. The first combination keeps the run's plain name, and is what other
declarations mean by it: a dataset that takes its answers, a run that starts from it.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from pydantic import AfterValidator, Field

if TYPE_CHECKING:
    from foundry_pipeline.declarations.assets import Evaluation, Run

MARK = "@"
MOST = 1000


def _distinct(given: int | tuple[int, ...]) -> int | tuple[int, ...]:
    if isinstance(given, tuple) and len(set(given)) != len(given):
        raise ValueError("a seed is named twice")
    return given


_Seed = Annotated[int, Field(ge=0, lt=2**31, strict=True)]
Seeds = Annotated[
    Annotated[int, Field(ge=1, le=MOST, strict=True)]
    | Annotated[tuple[_Seed, ...], Field(min_length=1, max_length=MOST)],
    AfterValidator(_distinct),
]


def seeds_of(first: int, declared: int | tuple[int, ...] | None) -> tuple[int, ...]:
    """The seeds of a declaration, the first one first.

    >>> seeds_of(42, 3), seeds_of(0, (7, 9)), seeds_of(5, None)
    ((42, 43, 44), (7, 9), (5,))
    """
    if declared is None:
        return (first,)
    return declared if isinstance(declared, tuple) else tuple(range(first, first + declared))


@dataclass(frozen=True)
class Variant:
    """One combination of seeds of a declared run.

    `partition` is its key among the run's partitions; `weights` names the model, which is the same for every sampling
    seed and every repeat: `keeper_first`, `keeper_first@43`.
    """

    run: str
    partition: str
    weights: str
    primary: bool
    training_seed: int
    sampling_seed: int
    judge_repeat: int

    @property
    def name(self) -> str:
        return self.run if self.primary else f"{self.run}{MARK}{self.partition}"


def variants_of(run: Run, evaluation: Evaluation) -> list[Variant]:
    """Every combination that a run and its evaluation declare; empty where there is but one.

    A key holds what is declared more than once, and the training seed in any case: `43`, `43.s1`, `43.s1.j1`.
    """
    training = seeds_of(run.seed, run.seeds)
    sampling = seeds_of(evaluation.sampling.seed, evaluation.sampling_seeds)
    repeats = range(evaluation.judge_repeats)
    if len(training) * len(sampling) * len(repeats) == 1:
        return []
    out = []
    for number, (seed, sample, repeat) in enumerate(itertools.product(training, sampling, repeats)):
        key = str(seed) + (f".s{sample}" if len(sampling) > 1 else "") + (f".j{repeat}" if len(repeats) > 1 else "")
        weights = run.run if seed == training[0] else f"{run.run}{MARK}{seed}"
        out.append(Variant(run.run, key, weights, number == 0, seed, sample, repeat))
    return out


def expand(
    runs: Mapping[str, Run], evaluations: Mapping[str, Evaluation]
) -> tuple[dict[str, Run], dict[str, Evaluation], dict[str, Variant]]:
    """Runs and evaluations with one more of each for every further combination, and the combinations by name.

    A run without several seeds stays as it is and has no variant.
    """
    all_runs, all_evaluations, variants = dict(runs), dict(evaluations), {}
    for run in runs.values():
        evaluation = evaluations[run.evaluation]
        for v in variants_of(run, evaluation):
            variants[v.name] = v
            suite = run.evaluation
            if v.sampling_seed != evaluation.sampling.seed:
                suite = f"{suite}{MARK}s{v.sampling_seed}"
                sampling = evaluation.sampling.model_copy(update={"seed": v.sampling_seed})
                all_evaluations[suite] = evaluation.model_copy(update={"evaluation": suite, "sampling": sampling})
            # What was reported elsewhere was reported of one training.
            told = run.reported if v.primary else ()
            all_runs[v.name] = run.model_copy(
                update={"run": v.name, "seed": v.training_seed, "evaluation": suite, "reported": told}
            )
    return all_runs, all_evaluations, variants


def partitioned(asset: str, kind: str, variants: Mapping[str, Variant]) -> tuple[str, str | None]:
    """Asset and partition behind a stage's name.

    >>> partitioned("keeper_first@43_eval", "eval", {"keeper_first@43": Variant("keeper_first", "43", "keeper_first@43", False, 43, 0, 0)})
    ('keeper_first_eval', '43')
    """
    variant = variants.get(asset.removesuffix(f"_{kind}"))
    return (asset, None) if variant is None else (f"{variant.run}_{kind}", variant.partition)
