"""Put the probes to a run's serving modes: many answers to few questions, for rates of breaks.

    done = probe_run(d, chain, "madison_r2", modes=("adapter", "merged"), samples=20, run_script=…, log=print)
    probe_answers(done.artifact)   → mode, probe_id, sample, answer

The answers are an artifact like any other, found again by its inputs. It is no asset of the graph: twenty answers to
nineteen probes in four modes take longer than all the rest of an evaluation, and are asked for by name.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import polars as pl

from foundry_pipeline.chain.engine import Chain, Materialized
from foundry_pipeline.chain.evaluate import known_run
from foundry_pipeline.chain.generation import generate_many
from foundry_pipeline.chain.model_stages import base_asset, model_refs, parity_gate, responses_stage
from foundry_pipeline.chain.modes import GGUF_TYPES, mode_inputs, serving_modes
from foundry_pipeline.chain.stage import BuildContext, Built, ScriptRunner, Stage
from foundry_pipeline.declarations import Declarations
from foundry_pipeline.declarations.common import Sampling
from foundry_pipeline.declarations.probes import Probe, ProbeSet
from foundry_pipeline.errors import FoundryError
from foundry_pipeline.evaluation.probes import ANSWERS
from foundry_pipeline.lineage.store import Artifact
from foundry_pipeline.models.requests import evaluation_requests


@dataclass(frozen=True)
class Sample:
    """One asking of a probe; its name gives it a seed of its own."""

    probe: Probe
    number: int

    @property
    def id(self) -> str:
        return f"{self.probe.id}#{self.number}"

    @property
    def text(self) -> str:
        return self.probe.text


def samples_of(probe_set: ProbeSet, samples: int) -> list[Sample]:
    """Every asking, the samples of one probe together."""
    return [Sample(probe, number) for probe in probe_set.probes for number in range(samples)]


def build_answers(
    ctx: BuildContext,
    *,
    run: str,
    start: str,
    base: str,
    modes: tuple[str, ...],
    asked: Sequence[Sample],
    sampling: Sampling,
    max_tokens: int,
    **how: Any,
) -> Built:
    requests = evaluation_requests(asked, sampling, max_tokens=max_tokens)
    refs = model_refs(run, start, base, ctx.inputs, modes)
    answered = generate_many(ctx, {mode: (ref, requests) for mode, ref in refs.items()}, **how)
    by_id = {sample.id: sample for sample in asked}
    rows = [
        {
            "mode": mode,
            "probe_id": by_id[reply.request_id].probe.id,
            "sample": by_id[reply.request_id].number,
            "answer": reply.text,
        }
        for mode, (replies, _) in answered.items()
        for reply in replies
    ]
    payload = ctx.work / "payload"
    payload.mkdir(exist_ok=True)
    pl.DataFrame(rows, ANSWERS).write_parquet(payload / "answers.parquet")
    return Built(payload, {"modes": {mode: facts for mode, (_, facts) in answered.items()}})


def probes_stage(d: Declarations, run_name: str, *, modes: Sequence[str] = (), samples: int | None = None) -> Stage:
    """The stage that answers a run's probes, in all its serving modes unless some are named.

    Raises FoundryError for a character without probes, a mode that the run is not served in, or fewer than two samples.
    """
    run = d.runs[run_name]
    evaluation, files = d.evaluations[run.evaluation], d.characters[run.character]
    if files.probes is None:
        raise FoundryError(
            f"{run.character} has no probes", where=f"sources/{run.character}/probes.yaml", mend="write that file"
        )
    samples = files.probes.samples if samples is None else samples
    served = serving_modes(run, evaluation)
    chosen = tuple(dict.fromkeys(modes)) or served
    if strange := [mode for mode in chosen if mode not in served]:
        raise FoundryError(
            f"{run_name} is not served as {', '.join(strange)}",
            where="assets/runs/",
            mend=f"name some of: {', '.join(served)}",
        )
    if samples < 2:
        raise FoundryError(f"{samples} samples of a probe give no rate", where="--samples", mend="ask for 2 or more")
    base = base_asset(d.base_model(run.base))
    start = f"{run.start_from}_merged" if run.start_from else base
    exported = any(mode == "merged" or mode in GGUF_TYPES for mode in chosen)
    inputs = [*mode_inputs(run_name, chosen, base=base, start=start), *([f"{run_name}_gguf"] if exported else [])]
    asked = samples_of(files.probes, samples)
    how: dict[str, Any] = {
        "at_once": d.profile.generating_at_once,
        "threads": d.profile.threads,
        "group": d.profile.generation_group,
        "precision": d.profile.precision,
    }
    max_tokens = min(evaluation.sampling.max_tokens, d.profile.answer_max_tokens)
    return Stage(
        name=f"{run_name}_probes",
        kind="responses",
        inputs=tuple(dict.fromkeys(inputs)),
        declaration={
            "probes": [[sample.id, sample.text] for sample in asked],
            "sampling": evaluation.sampling.model_dump(mode="json"),
            "modes": list(chosen),
            "max_tokens": max_tokens,
            **how,
        },
        code=responses_stage(d, run, evaluation, base=base, start=start).code,
        gate=partial(parity_gate, d, run_name) if exported else None,
        build=partial(
            build_answers,
            run=run_name,
            start=start,
            base=base,
            modes=chosen,
            asked=asked,
            sampling=evaluation.sampling,
            max_tokens=max_tokens,
            **how,
        ),
        character=run.character,
    )


def probe_run(
    d: Declarations,
    chain: Chain,
    run: str,
    *,
    modes: Sequence[str] = (),
    samples: int | None = None,
    run_script: ScriptRunner,
    log: Callable[[str], None],
) -> Materialized:
    """Answer the probes of a run, or find them answered. Raises as `probes_stage` and `Chain.materialize` do.

    What is missing is named with the command that builds it: the run itself, since its probes are no asset.
    """
    known_run(d, run)
    stage = probes_stage(d, run, modes=modes, samples=samples)
    asking = Chain({**chain.stages, stage.name: stage}, chain.store, chain.settings)
    for name in stage.inputs:
        chain.require(name)
    return asking.materialize(stage.name, run_script=run_script, log=log)


def probe_answers(artifact: Artifact) -> pl.DataFrame:
    """The answers of such an artifact: columns ANSWERS."""
    return pl.read_parquet(artifact.file("answers.parquet"))
