"""Why a build is not what the declarations call for now: what changed, from what, to what.

    why_stale(chain, record)
    → [Reason("madison_sources", "source", "annual_messages", "5a115ec801ef…", "77c0de…")]

Asked of the traced build and then, step by step, of everything it was made from whose present content is another: so the
first causes are named (an edited source, a changed declaration, other code), and not only what follows from them. What
was built again to the same content is no cause of anything.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any, Literal

from foundry_pipeline.chain.engine import Chain, Resolved
from foundry_pipeline.chain.stage import Stage
from foundry_pipeline.datasets.diff import differing
from foundry_pipeline.errors import FoundryError
from foundry_pipeline.lineage.hashing import canonical_json
from foundry_pipeline.lineage.store import Record
from foundry_pipeline.lineage.trace import read_rows
from foundry_pipeline.lineage.walk import Walker

Kind = Literal["source", "document", "declaration", "code", "inputs", "input", "undeclared", "unbuilt"]
_SAID: dict[str, str] = {
    "source": "{asset}: source {field} changed, {before} → {after}",
    "document": "{asset}: document {field} changed, {before} → {after}",
    "declaration": "{asset}: declared {field} changed, {before} → {after}",
    "code": "{asset}: its code changed, {before} → {after}",
    "inputs": "{asset}: is made from other assets, {before} → {after}",
    "input": "{asset}: was built anew to another content, {before} → {after}",
    "undeclared": "{asset}: is not declared any more",
    "unbuilt": "{asset}: is not built for the present declarations",
}
# In this order: what was done first, then what followed from it.
_FIRST = tuple(_SAID)


@dataclass(frozen=True)
class Reason:
    """One change: of which asset, of what kind, at which place, and both values (None: there is no such value)."""

    asset: str
    kind: Kind
    field: str = ""
    before: Any = None
    after: Any = None

    def told(self) -> str:
        """The change as one sentence; hashes and long texts are cut."""
        before, after = (_short(value) for value in (self.before, self.after))
        return _SAID[self.kind].format(asset=self.asset, field=self.field, before=before, after=after)

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "told": self.told()}


def _short(value: Any) -> str:
    if value is None:
        return "none"
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, sort_keys=True)
    if len(text) in (12, 64) and all(c in "0123456789abcdef" for c in text):
        return text[:12]
    return text if len(text) <= 60 else f"{text[:59]}…"


def look_up(chain: Chain, name: str, memo: dict[str, Resolved]) -> Resolved:
    """`chain.resolve`, with a stage that cannot even be looked up (its source is unreadable, say) counted as not built."""
    try:
        return chain.resolve(name, memo)
    except FoundryError:
        return Resolved(chain.stages[name], None, None, (name,))


def why_stale(
    chain: Chain, record: Record, *, memo: dict[str, Resolved] | None = None, walker: Walker | None = None
) -> list[Reason]:
    """The reasons, first causes first; empty where the build is what the declarations call for. Builds nothing."""
    memo = {} if memo is None else memo
    walker = walker or Walker(chain.store)
    if record.name not in chain.stages:
        return [Reason(record.name, "undeclared")]
    now = look_up(chain, record.name, memo).record
    if now is not None and now.content_hash == record.content_hash:
        return []
    reasons: list[Reason] = []
    queue, seen = [record], {record.input_hash}
    for step in queue:  # grows while it is read
        stage = chain.stages.get(step.name)
        if stage is None:
            reasons.append(Reason(step.name, "undeclared"))
            continue
        reasons += _own(chain, stage, step)
        for name, way in step.inputs.items():
            if name not in chain.stages:
                continue  # told by `inputs`
            present = look_up(chain, name, memo).record
            if present is not None and present.content_hash == way["content"]:
                continue
            if present is not None:
                reasons.append(Reason(name, "input", "", way["content"], present.content_hash))
                reasons += _documents(chain, name, way["content"], present.content_hash)
            upstream, _ = walker.find(way["input"], way["content"])
            if upstream is not None and upstream.input_hash not in seen:
                seen.add(upstream.input_hash)
                queue.append(upstream)
    unique = list(dict.fromkeys(reasons))
    if not unique:
        unique = [Reason(record.name, "unbuilt")]
    return sorted(unique, key=lambda reason: _FIRST.index(reason.kind))


def _own(chain: Chain, stage: Stage, record: Record) -> list[Reason]:
    """What of a stage itself is declared otherwise now."""
    out: list[Reason] = []
    try:
        external = chain.external(stage)
    except FoundryError as error:
        out.append(Reason(stage.name, "source", "", "read", error.what))
        external = dict(record.external)
    for source in sorted(record.external.keys() | external.keys()):
        before, after = record.external.get(source), external.get(source)
        if before != after:
            out.append(Reason(stage.name, "source", source, before, after))
    declared = json.loads(canonical_json(stage.declaration))
    out += [
        Reason(stage.name, "declaration", path, _plain(before), _plain(after))
        for path, before, after in differing(record.declaration, declared)
    ]
    if (code := chain.code_version(stage)) != record.code_version:
        out.append(Reason(stage.name, "code", "", record.code_version, code))
    if set(stage.inputs) != set(record.inputs):
        out.append(Reason(stage.name, "inputs", "", ", ".join(sorted(record.inputs)), ", ".join(sorted(stage.inputs))))
    return out


def _plain(value: Any) -> Any:
    return value if value is None or isinstance(value, str | int | float | bool) else canonical_json(value)


def _documents(chain: Chain, asset: str, before: str, after: str) -> list[Reason]:
    """Documents that differ between two contents of the sources, where both are there."""
    if chain.stages[asset].kind != "sources":
        return []
    one, two = (read_rows(chain.store, content, "documents") for content in (before, after))
    if one is None or two is None:
        return []
    old, new = (dict(frame.select("document_id", "raw_sha256").iter_rows()) for frame in (one, two))
    return [
        Reason(asset, "document", name, old.get(name), new.get(name))
        for name in sorted(old.keys() | new.keys())
        if old.get(name) != new.get(name)
    ]
