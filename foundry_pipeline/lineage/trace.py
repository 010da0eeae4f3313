"""Which data produced which score: from a score to its pairs, passages and documents, by hash.

The walk uses the store alone (index and manifests), so it answers with Dagster's history gone. Every step names the
content hash and the input hash of what it stands on; a step whose artifact is not there any more says so.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import polars as pl

from foundry_pipeline.errors import DamagedArtifact, FoundryError
from foundry_pipeline.lineage.store import Record, Store


@dataclass
class Node:
    """One artifact on the way from a score to its sources."""

    name: str
    kind: str
    content_hash: str
    input_hash: str
    current: bool
    facts: dict[str, Any]
    inputs: list[str] = field(default_factory=list)
    note: str = ""


@dataclass
class Trace:
    """The whole way: artifacts (the traced one first), then rows: pairs, passages, documents, and ledger rows."""

    target: str
    nodes: list[Node]
    pairs: list[dict[str, Any]]
    passages: list[dict[str, Any]]
    documents: list[dict[str, Any]]
    scores: list[dict[str, Any]]

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def trace_record(
    store: Store, record: Record, *, scores: Sequence[Mapping[str, Any]], current: Mapping[str, str]
) -> Trace:
    """Walk from one build to its sources. `scores` are the ledger's rows, `current` says what is declared now."""
    nodes: dict[str, Node] = {}
    _walk(store, record, nodes, current)
    datasets = [n for n in nodes.values() if n.kind == "dataset"]
    passages = [n for n in nodes.values() if n.kind == "passages"]
    trained = _trained_on(store, record, nodes)
    pair_rows = _pair_rows(_rows(store, trained or (datasets[0] if datasets else None), "pairs"))
    used = {p for row in pair_rows for p in row["passage_ids"]}
    passage_rows, document_rows = _text_rows(store, passages[0] if passages else None, used)
    mine = [dict(s) for s in scores if s["input_hash"] == record.input_hash]
    return Trace(record.name, list(nodes.values()), pair_rows, passage_rows, document_rows, mine)


def _walk(store: Store, record: Record, nodes: dict[str, Node], current: Mapping[str, str]) -> None:
    if record.input_hash in nodes:
        return
    node = Node(
        record.name,
        record.kind,
        record.content_hash,
        record.input_hash,
        current=current.get(record.name) == record.content_hash,
        facts={k: v for k, v in record.facts.items() if isinstance(v, str | int | float | bool)},
        inputs=sorted(record.inputs),
    )
    nodes[record.input_hash] = node
    try:
        store.open(record.content_hash, name=record.name)
    except DamagedArtifact as error:
        node.note = error.what
    for name, way in record.inputs.items():
        upstream = store.record(way["input"])
        if upstream is None:
            node.note = f"{name} ({way['content'][:12]}) is no longer in the store"
            continue
        _walk(store, upstream, nodes, current)


def _trained_on(store: Store, record: Record, nodes: dict[str, Node]) -> Node | None:
    """The dataset of the adapter nearest to the traced artifact (a chain may hold several datasets)."""
    queue, seen = [record], set()
    while queue:
        step = queue.pop(0)
        if step.input_hash in seen:
            continue
        seen.add(step.input_hash)
        if step.kind == "dataset":
            return nodes.get(step.input_hash)
        # An adapter's own dataset comes before the model it started from.
        ways = sorted(step.inputs.items(), key=lambda item: ("_dataset" not in item[0], "_adapter" not in item[0]))
        queue += [r for _, way in ways if (r := store.record(way["input"])) is not None]
    return None


def _rows(store: Store, node: Node | None, name: str) -> pl.DataFrame | None:
    if node is None:
        return None
    path = store.folder(node.content_hash) / "payload" / f"{name}.parquet"
    return pl.read_parquet(path) if path.is_file() else None


def _pair_rows(pairs: pl.DataFrame | None) -> list[dict[str, Any]]:
    if pairs is None:
        return []
    columns = ["pair_id", "prompt_id", "origin", "category", "student", "passage_ids", "upsample"]
    return pairs.select([c for c in columns if c in pairs.columns]).to_dicts()


def _text_rows(store: Store, node: Node | None, used: set[str]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    passages, documents = _rows(store, node, "passages"), _rows(store, node, "documents")
    if passages is None or documents is None:
        return [], []
    mine = passages.filter(pl.col("passage_id").is_in(sorted(used)))
    sources = documents.filter(pl.col("document_id").is_in(mine["document_id"].unique().sort().to_list()))
    return (
        mine.select(["passage_id", "document_id", "position", "date", "words"]).to_dicts(),
        sources.select(["document_id", "title", "date", "url", "license", "raw_sha256"]).to_dicts(),
    )


def forward_scores(store: Store, source: str, scores: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Rows of the ledger that a source document touched, each with the number of pairs it touched them through.

    `source` is a document id, or the first 8 characters or more of the hash of its transcription. Raises FoundryError
    naming the known documents when nothing matches.
    """
    out: list[dict[str, Any]] = []
    known: set[str] = set()
    ways: dict[str, Trace] = {}
    for score in scores:
        record = store.record(score["input_hash"])
        if record is None:
            continue
        if record.input_hash not in ways:
            ways[record.input_hash] = trace_record(store, record, scores=(), current={})
        way = ways[record.input_hash]
        ids = {x["document_id"]: str(x["raw_sha256"]) for x in way.documents}
        known |= set(ids)
        named = {i for i, h in ids.items() if i == source or (len(source) >= 8 and h.startswith(source))}
        touched = {p["passage_id"] for p in way.passages if p["document_id"] in named}
        if named:
            pairs = sum(bool(touched & set(p["passage_ids"])) for p in way.pairs)
            out.append({**score, "pairs_touched": pairs})
    if not out:
        raise FoundryError(
            f"no recorded score was touched by a document `{source}`",
            mend=f"name one of: {', '.join(sorted(known)) or 'none is recorded yet'}",
        )
    return out
