"""Export parity in the chain: the stage that measures it, the verdict beside the GGUF files, the gate that reads it.

The measurement is an artifact like any other, `<run>_parity`. The checks of `<run>_gguf` build it, judge it by the
bounds of the profile and leave the verdict beside the GGUF files; `<run>_responses` refuses to answer without a pass for
exactly these files, in the same run, launched alone, or with Dagster's history lost.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import polars as pl

from foundry_pipeline.chain.engine import Chain
from foundry_pipeline.chain.frames import held_out_texts
from foundry_pipeline.chain.gate import read_verdict, verdict_place, write_verdict
from foundry_pipeline.chain.model_stages import GGUF_TYPES, base_asset, dense_dir, model_refs
from foundry_pipeline.chain.stage import BuildContext, Built, Stage
from foundry_pipeline.corpus.passages import own_passages
from foundry_pipeline.declarations import CharacterFiles, Declarations
from foundry_pipeline.declarations.assets import Run
from foundry_pipeline.errors import GateRefused
from foundry_pipeline.export.parity_verdict import judge, passed
from foundry_pipeline.launch import ScriptRunner, read_json
from foundry_pipeline.lineage.hashing import code_version, digest
from foundry_pipeline.lineage.store import Artifact

MODULE = "foundry_pipeline.export.parity"
CODE = (
    MODULE,
    "foundry_pipeline.export.served",
    "foundry_pipeline.export.distance",
    "foundry_pipeline.export.deltas",
    "foundry_pipeline.export.gguf_rows",
    "foundry_pipeline.export.merge",
    "foundry_pipeline.models.hf_backend",
    "foundry_pipeline.models.hf_decode",
    "foundry_pipeline.models.cpu_products",
    "foundry_pipeline.models.llama_backend",
    "foundry_pipeline.models.chat",
    "foundry_pipeline.models.vocabulary",
)
MODES = ("base", "adapter", "merged", *GGUF_TYPES)


def parity_asset(run: str) -> str:
    return f"{run}_parity"


def build_parity(
    ctx: BuildContext, *, run: str, start: str, base: str, passages: str, files: CharacterFiles, how: dict[str, Any]
) -> Built:
    models = model_refs(run, start, base, ctx.inputs, MODES)
    frame = pl.read_parquet(ctx.inputs[passages].payload / "passages.parquet")
    texts, source = held_out_texts(frame), "held-out passages"
    if not texts:
        texts, source = own_passages(frame)["text"].to_list(), "the character's own passages"
    result, facts = ctx.script(
        MODULE,
        {
            "models": {mode: ref.__dict__ for mode, ref in models.items()},
            "folders": {
                "start": str(dense_dir(ctx.inputs[start])),
                "adapter": str(ctx.inputs[f"{run}_adapter"].payload),
                "merged": str(dense_dir(ctx.inputs[f"{run}_merged"])),
            },
            "requests": [[p.id, p.text] for p in files.suite.prompts],
            "texts": texts,
            "texts_from": source,
            **how,
        },
    )
    return Built(result, facts)


def parity_stage(d: Declarations, run: Run) -> Stage:
    """The stage that measures how far each serving mode of a run lies from the adapter on its base."""
    base = base_asset(d.base_model(run.base))
    start = f"{run.start_from}_merged" if run.start_from else base
    passages = f"{run.character}_passages"
    files, declared = d.characters[run.character], d.profile.parity
    how: dict[str, Any] = {
        "tokens": declared.tokens,
        "each": declared.tokens_per_prompt,
        "rows": declared.rows_per_tensor,
        "reference": declared.reference,
        "precision": d.profile.precision,
        "threads": d.profile.threads,
        "at_once": d.profile.generating_at_once,
    }
    inputs = (base, start, f"{run.run}_adapter", f"{run.run}_merged", f"{run.run}_gguf", passages)
    return Stage(
        name=parity_asset(run.run),
        kind="parity",
        inputs=tuple(dict.fromkeys(inputs)),
        declaration={"prompts": [[p.id, p.text] for p in files.suite.prompts], **how},
        code=CODE,
        build=partial(build_parity, run=run.run, start=start, base=base, passages=passages, files=files, how=how),
        character=run.character,
        shown={"bounds": {m: b.model_dump() for m, b in declared.bounds.items()}},
    )


def expected_hash(d: Declarations, chain: Chain, run: str) -> str | None:
    """Hash of the measurement that the present declarations call for, of the bounds and of the code that judge it; None
    where the measurement cannot be made, because something it reads is not built."""
    found = chain.resolve(parity_asset(run))
    if found.input_hash is None:
        return None
    bounds = {mode: bound.model_dump() for mode, bound in d.profile.parity.bounds.items()}
    judged_by = code_version(("foundry_pipeline.export.parity_verdict",))
    return digest({"measured": found.input_hash, "bounds": bounds, "judged_by": judged_by})


def verdict_in_force(d: Declarations, chain: Chain, run: str, gguf: Artifact) -> dict[str, Any] | None:
    """The verdict beside GGUF files, if it is of these files and of the measurement and bounds that hold now."""
    verdict, expected = read_verdict(gguf), expected_hash(d, chain, run)
    if verdict is None or verdict.get("gguf_hash") != gguf.content_hash:
        return None
    return verdict if expected is not None and verdict.get("suite_hash") == expected else None


def parity_verdict(
    d: Declarations, chain: Chain, run: str, *, run_script: ScriptRunner, log: Callable[[str], None]
) -> dict[str, Any]:
    """The verdict on the GGUF files of a run as built now: found beside them, or reached by measuring.

    Raises MissingArtifact where something that has to be compared is not built.
    """
    gguf = chain.require(f"{run}_gguf").artifact
    known, expected = read_verdict(gguf), expected_hash(d, chain, run)
    there = chain.resolve(parity_asset(run)).record is not None
    if known and there and known.get("gguf_hash") == gguf.content_hash and known.get("suite_hash") == expected:
        return known
    done = chain.materialize(parity_asset(run), run_script=run_script, log=log)
    results = judge(measured(done.artifact), d.profile.parity)
    verdict = {
        "gguf": f"{run}_gguf",
        "gguf_hash": gguf.content_hash,
        "parity_hash": done.artifact.content_hash,
        "suite_hash": expected_hash(d, chain, run),
        "passed": passed(results),
        "results": results,
    }
    write_verdict(gguf, verdict)
    return verdict


def measured(parity: Artifact) -> dict[str, Any]:
    """The content of a measurement's `parity.json`."""
    content: dict[str, Any] = read_json(parity.file("parity.json"))
    return content


def responses_gate(
    d: Declarations, run: str, chain: Chain, inputs: Mapping[str, Artifact], what: str = "answers"
) -> None:
    """Refuse to use exported files that have not passed parity as it is declared now; `what` is refused."""
    gguf = inputs[f"{run}_gguf"]
    verdict, where = read_verdict(gguf), verdict_place(gguf)
    mend = f"dagster asset materialize --select {run}_gguf  # runs its checks; then mend what they name"
    if verdict is None:
        raise GateRefused(f"{what} refused: {run}_gguf has not been checked for export parity", where=where, mend=mend)
    if verdict.get("gguf_hash") != gguf.content_hash:
        raise GateRefused(f"{what} refused: the verdict beside {run}_gguf is of other files", where=where, mend=mend)
    expected = expected_hash(d, chain, run)
    if expected is not None and verdict.get("suite_hash") != expected:
        raise GateRefused(
            f"{what} refused: {run}_gguf was checked against other models, prompts or bounds than there are now",
            where=where,
            mend=mend,
        )
    if verdict.get("passed") is not True:
        failed = [r for r in verdict.get("results", []) if r.get("severity") == "error" and not r.get("passed")]
        told = "; ".join(f"{r['name']} ({r.get('observed')})" for r in failed) or "its checks"
        raise GateRefused(f"{what} refused: {run}_gguf failed {told}", where=where, mend=mend)
