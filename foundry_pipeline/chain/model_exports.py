"""A run's model for the world outside: adapter, merged weights and GGUF files as folders, each with its card.

Like a dataset's, an export is made on demand and is no part of an artifact: its card tells scores, which come after the
weights. It lies in `.foundry/exports/<run>/<part>` unless its user names another place, and can be made again from what
the hashes stand for.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from foundry_pipeline.chain.dataset_exports import card_data
from foundry_pipeline.chain.dataset_versions import find_version
from foundry_pipeline.chain.engine import Chain, Materialized
from foundry_pipeline.chain.evaluate import known_run
from foundry_pipeline.chain.model_stages import base_asset, dense_dir
from foundry_pipeline.chain.modes import GGUF_TYPES
from foundry_pipeline.chain.origins import declared_origin, origin
from foundry_pipeline.chain.parity_stages import responses_gate, verdict_in_force
from foundry_pipeline.declarations import Declarations
from foundry_pipeline.declarations.assets import HubModel, Run
from foundry_pipeline.errors import FoundryError
from foundry_pipeline.evaluation.comparison import read_summary
from foundry_pipeline.export.model_card import ModelCard, Part
from foundry_pipeline.export.model_folder import PARTS, Weights, write_model

MODE_TITLES = {"base": "base, untuned", "adapter": "adapter on base", "merged": "merged"}
DEFAULT_TYPES = ("q4_k_m",)
DEFAULT_PARTS: tuple[Part, ...] = ("adapter", "merged", "gguf")


def export_model(
    d: Declarations,
    chain: Chain,
    run: str,
    *,
    parts: tuple[str, ...] = (),
    types: tuple[str, ...] = (),
    to: Path | None = None,
) -> dict[Part, tuple[Path, str]]:
    """Write the folders of a built run: {part: (where it is, what is missing in it and why, or "")}.

    `parts` are names of PARTS, empty for all but `lora`, whose base has to be converted; `types` GGUF types in any case. Raises FoundryError for a name
    that is not declared or known, MissingArtifact with the command that builds what is missing, GateRefused for merged
    weights or GGUF files that have not passed export parity.
    """
    known_run(d, run)
    wanted = _named(parts, PARTS, "part of a model") or DEFAULT_PARTS
    kinds = _named(tuple(t.lower() for t in types), GGUF_TYPES, "GGUF type") or DEFAULT_TYPES
    if {"merged", "gguf"} & set(wanted):
        # What may not answer here is not given away either.
        responses_gate(d, run, chain, {f"{run}_gguf": chain.require(f"{run}_gguf").artifact}, "export")
    weights, card = gather(d, chain, d.runs[run], kinds)
    folder = to or chain.settings.store / "exports" / run
    written: dict[Part, tuple[Path, str]] = {}
    for part in PARTS:
        if part in wanted:
            written[part] = write_model(part, weights, _part(card, part), folder / part)
    return written


def _named(given: tuple[str, ...], known: tuple[str, ...], what: str) -> tuple[str, ...]:
    for name in given:
        if name not in known:
            raise FoundryError(f"`{name}` is no {what}", mend=f"name some of: {', '.join(known)}")
    return tuple(dict.fromkeys(given))


def _part(card: ModelCard, part: Part) -> ModelCard:
    import dataclasses

    return dataclasses.replace(card, part=part)


def gather(d: Declarations, chain: Chain, run: Run, types: tuple[str, ...]) -> tuple[Weights, ModelCard]:
    """Where a run's weights lie and what its cards say. Raises MissingArtifact where it has not been trained and
    exported under the present declarations; an evaluation is not needed."""
    built = {kind: chain.require(f"{run.run}_{kind}") for kind in ("adapter", "merged", "gguf")}
    base, start = base_asset(d.base_model(run.base)), f"{run.start_from}_merged" if run.start_from else None
    contents = {
        name: chain.require(name).artifact.content_hash
        for name in (base, run.dataset, f"{run.run}_adapter", *((start,) if start else ()))
    }
    model = d.profile.models[d.base_model(run.base)]
    at_hub = isinstance(model, HubModel) and not run.start_from
    evaluated = _there(chain, f"{run.run}_eval")
    adapter, merged, gguf = (built[kind].artifact for kind in ("adapter", "merged", "gguf"))
    weights = Weights(
        adapter=adapter.payload,
        merged=dense_dir(merged),
        gguf=gguf.payload,
        start=dense_dir(chain.require(start or base).artifact),
        types=types,
        sampling=d.evaluations[run.evaluation].sampling,
        base_repo=model.repo if isinstance(model, HubModel) and at_hub else "",
        base_revision=model.revision if isinstance(model, HubModel) and at_hub else "",
        hashes={**_files(adapter.manifest), **_files(merged.manifest), **_files(gguf.manifest)},
    )
    dataset = card_data(d, chain, find_version(d, chain, run.dataset))
    training = built["adapter"].record.facts
    verdict = verdict_in_force(d, chain, run.run, gguf)
    card = ModelCard(
        part="gguf",
        origin=origin(declared_origin(d, run), base, contents),
        description=" ".join(run.description.split()),
        parameters=model.parameters,
        repo=weights.base_repo,
        declared_size_factor=d.profile.size_of(run.dataset),
        hashes={kind: built[kind].artifact.content_hash for kind in ("adapter", "merged", "gguf")},
        files=(),
        training=dict(built["adapter"].stage.shown.get("effective", {})),
        facts={k: v for k, v in training.items() if k in _COUNTED},
        dataset=dataset,
        summary=_summary(evaluated),
        evaluated=evaluated.artifact.content_hash if evaluated else "",
        confidence=d.evaluations[run.evaluation].confidence,
        parity=verdict,
        mode_titles={**MODE_TITLES, **{kind: f"GGUF {kind.upper()}" for kind in GGUF_TYPES}},
        language=d.profile.filters.language,
    )
    return weights, card


_COUNTED = ("rows_per_epoch", "validation_rows", "steps", "tokens", "seed")


def _there(chain: Chain, name: str) -> Materialized | None:
    return chain.require(name) if chain.resolve(name).record is not None else None


def _summary(evaluated: Materialized | None) -> dict[str, Any] | None:
    if evaluated is None:
        return None
    return read_summary(evaluated.artifact.payload)


def _files(manifest: dict[str, Any]) -> dict[str, str]:
    return {
        Path(name).name: sha for name, sha in manifest["files"].items() if "/" not in name or name.startswith("dense/")
    }
