"""Which data produced which score: from a score to its pairs, passages and documents, by hash, and back.

The walk uses the store alone (index and manifests), so it answers with Dagster's history gone. Every step names the
content hash and the input hash of what it stands on; a step whose artifact is not there any more says so.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import polars as pl

from foundry_pipeline.errors import FoundryError
from foundry_pipeline.lineage.store import Record, Store
from foundry_pipeline.lineage.walk import Walker
from foundry_pipeline.plain import plain


@dataclass
class Node:
    """One artifact on the way from a score to its sources. `input_hashes`: input hash of each upstream, by its name."""

    name: str
    kind: str
    content_hash: str
    input_hash: str
    current: bool
    facts: dict[str, Any]
    inputs: list[str] = field(default_factory=list)
    note: str = ""
    code_version: str = ""
    input_contents: dict[str, str] = field(default_factory=dict)


@dataclass
class Trace:
    """The whole way: artifacts (the traced one first), then rows: pairs, passages, documents, and ledger rows.

    `stale` says why the traced build is not what the declarations call for now; empty where it is.
    """

    target: str
    nodes: list[Node]
    pairs: list[dict[str, Any]]
    passages: list[dict[str, Any]]
    documents: list[dict[str, Any]]
    scores: list[dict[str, Any]]
    stale: list[dict[str, Any]] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def trace_record(
    store: Store,
    record: Record,
    *,
    scores: Sequence[Mapping[str, Any]],
    current: Mapping[str, str],
    verify: bool = False,
) -> Trace:
    """Walk from one build to its sources. `scores` are the ledger's rows, `current` says what is declared now.

    With `verify` every file on the way is read and compared with its manifest.
    """
    walker = Walker(store)
    nodes = [
        Node(
            step.record.name,
            step.record.kind,
            step.record.content_hash,
            step.record.input_hash,
            current=current.get(step.record.name) == step.record.content_hash,
            facts={k: v for k, v in step.record.facts.items() if isinstance(v, str | int | float | bool)},
            inputs=sorted(step.record.inputs),
            note=step.note,
            code_version=step.record.code_version,
            input_contents={name: way["content"] for name, way in sorted(step.record.inputs.items())},
        )
        for step in walker.walk(record, verify=verify)
    ]
    trained = walker.nearest(record, "dataset")
    passages = next((n for n in nodes if n.kind == "passages"), None)
    pair_rows = _pair_rows(read_rows(store, trained.content_hash if trained else None, "pairs"))
    used = {p for row in pair_rows for p in row["passage_ids"] or ()}
    passage_rows, document_rows = _text_rows(store, passages.content_hash if passages else None, used)
    mine = [
        dict(s)
        for s in scores
        if s["input_hash"] == record.input_hash and s["artifact_hash"] in ("", record.content_hash)
    ]
    return Trace(record.name, nodes, pair_rows, passage_rows, document_rows, mine)


def read_rows(store: Store, content_hash: str | None, name: str) -> pl.DataFrame | None:
    """A table of an artifact, or None where artifact or table is not there. Raises FoundryError for a damaged one."""
    if content_hash is None:
        return None
    path = store.file(content_hash, f"{name}.parquet")
    if path is None:
        return None
    try:
        return pl.read_parquet(path)
    except (pl.exceptions.PolarsError, OSError) as error:
        raise FoundryError(
            f"a table of {content_hash[:12]} cannot be read ({error})",
            where=str(path),
            mend=f"foundry repair {content_hash}",
        ) from error


def _pair_rows(pairs: pl.DataFrame | None) -> list[dict[str, Any]]:
    if pairs is None:
        return []
    columns = ["pair_id", "prompt_id", "origin", "category", "student", "passage_ids", "upsample"]
    return pairs.select([c for c in columns if c in pairs.columns]).to_dicts()


def _text_rows(
    store: Store, content_hash: str | None, used: set[str]
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    passages, documents = (read_rows(store, content_hash, name) for name in ("passages", "documents"))
    if passages is None or documents is None:
        return [], []
    mine = passages.filter(pl.col("passage_id").is_in(sorted(used)))
    sources = documents.filter(pl.col("document_id").is_in(mine["document_id"].unique().sort().to_list()))
    return (
        mine.select(["passage_id", "document_id", "position", "date", "words"]).to_dicts(),
        sources.select(["document_id", "title", "date", "url", "license", "raw_sha256"]).to_dicts(),
    )


class _Texts:
    """Documents by passages artifact and pairs by dataset artifact, each read once for all scores."""

    def __init__(self, store: Store, source: str) -> None:
        self.store, self.source = store, source
        self.known: set[str] = set()
        self._passages: dict[str, set[str] | None] = {}
        self._pairs: dict[tuple[str, str], int] = {}

    def passages(self, content: str) -> set[str] | None:
        """Passages of the document in one passages artifact; None where the document is not in it."""
        if content not in self._passages:
            passages, documents = (read_rows(self.store, content, name) for name in ("passages", "documents"))
            if passages is None or documents is None:
                self._passages[content] = None
            else:
                hashes = dict(documents.select("document_id", "raw_sha256").iter_rows())
                self.known |= hashes.keys()
                long = len(self.source) >= 8
                named = {i for i, h in hashes.items() if i == self.source or (long and str(h).startswith(self.source))}
                mine = passages.filter(pl.col("document_id").is_in(sorted(named)))
                self._passages[content] = set(mine["passage_id"]) if named else None
        return self._passages[content]

    def pairs(self, dataset: str, passages: str) -> int:
        """How many pairs of a dataset quote the document, as one passages artifact has it."""
        if (dataset, passages) not in self._pairs:
            frame, mine = read_rows(self.store, dataset, "pairs"), self.passages(passages)
            touched = 0
            if frame is not None and mine:
                quoted = pl.col("passage_ids").list.eval(pl.element().is_in(sorted(mine))).list.any()
                touched = frame.filter(quoted).height
            self._pairs[dataset, passages] = touched
        return self._pairs[dataset, passages]


def forward_scores(store: Store, source: str, scores: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Rows of the ledger that a source document touched, and in which way.

    `source` is a document id, or the first 8 characters or more of the hash of its transcription. To each row come
    `pairs_touched` (pairs quoting it among those the run was trained on), `upstream_pairs` (the same of other datasets on
    the way: that of a model it starts from, or whose answers it rejects) and `read_by_judge` (the judge had the document
    among its passages). Raises FoundryError naming the known documents when nothing matches.
    """
    walker, texts = Walker(store), _Texts(store, source)
    ways: dict[tuple[str, str], dict[str, Any] | None] = {}
    out: list[dict[str, Any]] = []
    for score in scores:
        key = (score["input_hash"], score["artifact_hash"])
        if key not in ways:
            record = walker.of_score(score)
            ways[key] = _touch(walker, texts, record) if record is not None else None
        if (touch := ways[key]) is not None:
            out.append({**score, **touch})
    if not out:
        raise FoundryError(
            f"no recorded score was touched by a document `{plain(source, 80)}`",
            mend=f"name one of: {', '.join(sorted(texts.known)) or 'none is recorded yet'}",
        )
    return out


def _touch(walker: Walker, texts: _Texts, record: Record) -> dict[str, Any] | None:
    steps = [step.record for step in walker.walk(record)]
    trained = walker.nearest(record, "dataset")
    contents = dict.fromkeys(r.content_hash for r in steps if r.kind == "passages")
    holding = [content for content in contents if texts.passages(content) is not None]
    if not holding:
        return None
    counts: dict[str, int] = {}
    for dataset in (r for r in steps if r.kind == "dataset" and r is not trained):
        touched = max(texts.pairs(dataset.content_hash, content) for content in holding)
        if touched:
            counts[dataset.name] = max(counts.get(dataset.name, 0), touched)
    direct = {way["content"] for way in record.inputs.values()}
    return {
        "pairs_touched": max(texts.pairs(trained.content_hash, c) for c in holding) if trained else 0,
        "upstream_pairs": dict(sorted(counts.items())),
        "read_by_judge": bool(direct & set(holding)),
    }
