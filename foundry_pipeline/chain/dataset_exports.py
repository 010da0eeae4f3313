"""Datasets for the world outside: card, Croissant metadata and a folder that Hugging Face `datasets` loads.

An export is made on demand and is no part of the artifact. A dataset's content is its canonical rows; its card also says
how the checks came out, which happens afterwards, and is worded by code that may change while no row does. So it lies in
`.foundry/exports/<dataset>/<content hash>`, and can be made again at any time from what the hash stands for.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import polars as pl

from foundry_pipeline.chain.dataset_versions import Version, find_version, known_dataset, tokenizer_file
from foundry_pipeline.chain.engine import Chain
from foundry_pipeline.datasets.card import CardData, SourceDocument
from foundry_pipeline.datasets.hub import plain_rows, write_folder
from foundry_pipeline.datasets.shape import shape, token_counter
from foundry_pipeline.declarations import Declarations
from foundry_pipeline.declarations.assets import Dataset, PypiModel
from foundry_pipeline.docs.blocks import load_blocks
from foundry_pipeline.errors import MissingArtifact

_EXAMPLE = ("prompt", "chosen", "rejected", "completion", "category", "origin", "teacher", "student", "passage_ids")


def export_folder(exports: Path, dataset: str, content_hash: str) -> Path:
    return exports / dataset / content_hash


def export(d: Declarations, chain: Chain, dataset: str, to: Path | None = None) -> Path:
    """Write a built dataset as a folder and return where it is.

    Raises MissingArtifact with the command that builds it, FoundryError for a name that is not declared or a folder
    that cannot be written.
    """
    known_dataset(d, dataset)
    version = find_version(d, chain, dataset)
    target = to or export_folder(chain.settings.store / "exports", dataset, version.content_hash)
    return write_folder(version.frame, card_data(d, chain, version), target)


def card_data(d: Declarations, chain: Chain, version: Version) -> CardData:
    """Everything that the card of a declared dataset's version says, read from what it was built from, by hash."""
    declared = d.datasets[version.name]
    files = d.characters[declared.character]
    documents = _documents(chain, version)
    title, tokenizer = tokenizer_file(d, chain, version.name)
    present = set(version.frame["category"].drop_nulls())
    rows = plain_rows(version.frame, declared.method)
    blocks = load_blocks(d.root, "columns")
    example = rows.head(1).to_dicts()
    verdict = version.verdict
    filters = dict(version.declaration.get("filters", {}))
    return CardData(
        name=version.name,
        description=" ".join(declared.description.split()),
        character=files.character.name,
        method=declared.method,
        order=declared.order,
        license=declared.license,
        content_hash=version.content_hash,
        profile=d.profile.profile,
        size_factor=float(version.facts.get("size_factor", d.profile.size_factor)),
        shape=shape(version.frame, token_counter(tokenizer) if tokenizer else None),
        facts={k: v for k, v in version.facts.items() if k in ("parts", "shortage", "in_two_parts", "students")},
        documents=documents,
        held_out=tuple(x.title if x.date[:4] in x.title else f"{x.title}, {x.date}" for x in documents if x.held_out),
        models=_models(d, declared, version.frame),
        # A verdict of other rows says nothing of these.
        verdict=verdict if verdict and verdict.get("dataset_hash") == version.content_hash else None,
        sieve=version.sieve,
        filters=filters,
        language=str(filters.get("language", "en")),
        unserved={c: why for c, why in d.profile.teacher.cannot_serve.items() if c not in present},
        inputs=version.inputs,
        tokenizer=title if tokenizer else None,
        example={k: v for k, v in example[0].items() if k in _EXAMPLE} if example else None,
        columns={
            name: "what the model is to answer; the chosen side" if name == "completion" else blocks.get(name, "")
            for name in rows.columns
        },
    )


def _documents(chain: Chain, version: Version) -> list[SourceDocument]:
    """Every document behind the passages that this version was built from, and how many of its passages it uses."""
    content = next((c for name, c in sorted(version.inputs.items()) if name.endswith("_passages")), None)
    if content is None:
        raise MissingArtifact(
            f"{version.name} does not say which passages it was built from",
            where=str(version.artifact.folder),
            mend=f"dagster asset materialize --select '*{version.name}'",
        )
    payload = chain.store.open(content, name=f"the passages of {version.name}").payload
    passages = pl.read_parquet(payload / "passages.parquet")
    home = dict(zip(passages["passage_id"], passages["document_id"], strict=True))
    used = Counter(home[p] for p in set(version.frame["passage_ids"].drop_nulls().explode().drop_nulls()) if p in home)
    documents = pl.read_parquet(payload / "documents.parquet").sort("source", "date", "document_id")
    return [
        SourceDocument(
            **{name: str(row.get(name) or "") for name in _TEXTS},
            held_out=bool(row["held_out"]),
            used=used[row["document_id"]],
        )
        for row in documents.iter_rows(named=True)
    ]


_TEXTS = ("document_id", "source", "title", "author", "date", "license", "url", "raw_sha256", "role")


def _models(d: Declarations, declared: Dataset, frame: pl.DataFrame) -> dict[str, dict[str, str]]:
    """Who wrote which side, by the names that the rows use."""
    out: dict[str, dict[str, str]] = {}
    side = "chosen" if declared.method == "preference" else "completion"
    for name in sorted(frame["teacher"].drop_nulls().unique()):
        model = getattr(d.profile.teacher, "model", None)
        if name == "primary_source":
            what = "the character's own words, retrieved for the prompt; no model"
            out[name] = {"what": what, "side": side, "license": "that of the source"}
        else:
            out[name] = {"what": f"a model ({model or name})", "side": side, "license": "terms of its provider"}
    for name in sorted(frame["student"].drop_nulls().unique()):
        base = d.profile.student if name == "base" else d.runs[name].base if name in d.runs else None
        if base is None:
            out[name] = {"what": "a model that is no longer declared", "side": "rejected", "license": "unknown"}
            continue
        model = d.profile.models[d.base_model(base)]
        stand_in = ", a stand-in for " + base if isinstance(model, PypiModel) and "stand-in" not in model.title else ""
        trained = "" if name == "base" else f", trained by the run {name}"
        what = f"{model.title}{stand_in}{trained or ', untuned'}"
        out[name] = {"what": what, "side": "rejected", "license": model.license}
    return out
