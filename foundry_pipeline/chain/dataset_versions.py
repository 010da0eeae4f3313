"""Versions of a dataset: by name as declared now, or by content hash as the store still holds them.

find_version(d, chain, "madison_dataset_v6")   the rows that the present declarations call for
find_version(d, chain, "9f3c2a71")             the rows of that content, whoever built them, however long ago
"""

from __future__ import annotations

import difflib
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from foundry_pipeline.chain.engine import Chain
from foundry_pipeline.chain.gate import read_verdict
from foundry_pipeline.chain.model_stages import base_asset
from foundry_pipeline.datasets.content import PAIRS_FILE
from foundry_pipeline.declarations import Declarations
from foundry_pipeline.errors import DamagedArtifact, FoundryError
from foundry_pipeline.lineage.hashing import file_hash
from foundry_pipeline.lineage.store import Artifact, Record
from foundry_pipeline.pairs.candidates import PAIRS

_PREFIX = re.compile(r"[0-9a-f]{8,64}")


@dataclass(frozen=True)
class Version:
    """One content of a dataset: its rows (columns PAIRS) and how it came about.

    `current` says that the present declarations call for exactly this content. `sieve` tells what the quality filter
    did to the pairs it was taken from; None where that artifact is no longer in the store.
    """

    name: str
    artifact: Artifact
    frame: pl.DataFrame
    declaration: dict[str, Any]
    inputs: dict[str, str]
    facts: dict[str, Any]
    code_version: str
    current: bool
    verdict: dict[str, Any] | None
    sieve: dict[str, Any] | None

    @property
    def content_hash(self) -> str:
        return self.artifact.content_hash


def known_dataset(d: Declarations, name: str) -> None:
    """Raise FoundryError, with the names there are, unless a dataset of this name is declared."""
    if name not in d.datasets:
        close = difflib.get_close_matches(name, d.datasets, n=1)
        raise FoundryError(
            f"no dataset `{name}` is declared" + (f"; did you mean `{close[0]}`?" if close else ""),
            where="assets/datasets/",
            mend=f"name one of: {', '.join(sorted(d.datasets))}",
        )


def find_version(d: Declarations, chain: Chain, target: str) -> Version:
    """The version that a declared name, or a content hash (8 characters or more), stands for.

    Raises MissingArtifact with the command that builds it for a declared dataset that is not built, FoundryError for a
    name or hash that stands for nothing, or for more than one thing, DamagedArtifact for one that was changed.
    """
    if target in d.datasets:
        done = chain.require(target)
        return _version(chain, target, done.artifact, done.record, current=True)
    if not _PREFIX.fullmatch(target):
        known_dataset(d, target)
    found = chain.store.contents(target)
    if len(found) != 1:
        what = f"{len(found)} artifacts begin with" if found else "no artifact of this store begins with"
        raise FoundryError(
            f"{what} `{target}`",
            where=chain.store.place,
            mend="foundry versions DATASET  # lists every version of a dataset that the store holds",
        )
    artifact = chain.store.open(found[0])
    if artifact.manifest.get("kind") != "dataset":
        raise FoundryError(
            f"{found[0][:12]} is no dataset but {artifact.manifest.get('name')} ({artifact.manifest.get('kind')})",
            where=str(artifact.folder),
            mend="foundry versions DATASET  # lists every version of a dataset that the store holds",
        )
    records = [r for r in chain.store.records() if r.content_hash == artifact.content_hash and r.kind == "dataset"]
    record = max(records, key=_built_at) if records else None
    name = record.name if record else str(artifact.manifest["name"])
    return _version(chain, name, artifact, record, current=_current(chain, name) == artifact.content_hash)


def versions(d: Declarations, chain: Chain, name: str) -> list[dict[str, Any]]:
    """Every content of a dataset that the store's index still knows, oldest first."""
    known_dataset(d, name)
    newest: dict[str, Record] = {}
    for record in sorted((r for r in chain.store.records() if r.name == name), key=_built_at):
        newest[record.content_hash] = record
    current = _current(chain, name)
    return [
        {
            "dataset": name,
            "content_hash": r.content_hash,
            "built_at": _built_at(r)[:19],
            "rows": r.facts.get("rows"),
            "shown": r.facts.get("effective_pairs"),
            "size_factor": r.declaration.get("size_factor"),
            "current": r.content_hash == current,
        }
        for r in newest.values()
    ]


def tokenizer_file(d: Declarations, chain: Chain, dataset: str) -> tuple[str, Path | None]:
    """(title of the base that a dataset is trained into, its tokenizer.json or None while that base is not built).

    Only this one file is compared with the manifest: weights are gigabytes, and nothing here reads them.
    Raises DamagedArtifact when it is not the one that was stored.
    """
    bases = [run.base for run in d.runs.values() if run.dataset == dataset]
    model = d.base_model(bases[0] if bases else d.profile.student)
    record = chain.resolve(base_asset(model)).record
    if record is None:
        return d.profile.models[model].title, None
    path: Path | None = None
    try:
        stored = chain.store.read_manifest(record.content_hash)["files"]
        name = next((n for n in ("dense/tokenizer.json", "tokenizer.json") if n in stored), None)
        if name is not None:
            path = chain.store.file(record.content_hash, name)
            if path is None or file_hash(path) != stored[name]:
                raise ValueError(f"{name} differs from what was built")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DamagedArtifact(
            f"{base_asset(model)} artifact is damaged: {error}",
            where=str(chain.store.folder(record.content_hash)),
            mend=f"foundry repair {base_asset(model)}",
        ) from error
    return d.profile.models[model].title, path


def _current(chain: Chain, name: str) -> str | None:
    record = chain.resolve(name).record if name in chain.stages else None
    return record.content_hash if record else None


def _built_at(record: Record) -> str:
    return str(record.facts.get("built_at", ""))


def _version(chain: Chain, name: str, artifact: Artifact, record: Record | None, *, current: bool) -> Version:
    told = record.__dict__ if record else artifact.manifest
    inputs = {n: way["content"] for n, way in dict(told.get("inputs", {})).items()}
    frame = pl.read_parquet(artifact.file(PAIRS_FILE))
    # A version from before a column existed has nothing in it; its bytes have been verified above.
    frame = frame.select(
        (pl.col(c) if c in frame.columns else pl.lit(None)).cast(kind).alias(c) for c, kind in PAIRS.items()
    )
    return Version(
        name=name,
        artifact=artifact,
        frame=frame,
        declaration=dict(told.get("declaration", {})),
        inputs=inputs,
        facts=dict(told.get("facts", {})),
        code_version=str(told.get("code_version", "")),
        current=current,
        verdict=read_verdict(artifact),
        sieve=_sieve(chain, inputs),
    )


def _sieve(chain: Chain, inputs: dict[str, str]) -> dict[str, Any] | None:
    """{"kept", "dropped": {rule: pairs}} of the filter that a dataset's pairs went through."""
    content = next((c for name, c in sorted(inputs.items()) if name.endswith("_filtered_pairs")), None)
    if content is None or not chain.store.has(content):
        return None
    try:
        found = chain.store.open(content)
        kept = pl.scan_parquet(found.file("pairs.parquet")).select(pl.len()).collect().item()
        dropped = pl.read_parquet(found.file("dropped.parquet"), columns=["rule"])["rule"]
    except (DamagedArtifact, OSError, pl.exceptions.PolarsError):
        return None
    ranked = sorted(Counter(dropped.to_list()).items(), key=lambda item: (-item[1], item[0]))
    return {"content_hash": content, "kept": int(kept), "dropped": dict(ranked)}
