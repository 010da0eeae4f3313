"""`manifest.json`: everything that is declared, under one profile.

    manifest["assets"]["madison_dataset_v6"]["parents"]       → ['madison_candidate_pairs', …]
    manifest["kinds"]["dataset"]["tables"]["pairs"]["columns"]["chosen"]
        → {'type': 'String', 'description': 'The answer that training prefers: …'}

A large declared value stands under `values` and is referred to as `{"$ref": "#/values/<key>"}`.

Built from the declarations, the chain and Dagster's resolved graph; it knows nothing of what has been built. Equal
declarations and code give the same bytes. What nobody described is an error that names it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import Any

from foundry_pipeline.chain.engine import Chain
from foundry_pipeline.chain.stage import Stage
from foundry_pipeline.declarations import Declarations
from foundry_pipeline.docs.code import built_by, module_summary, modules_of
from foundry_pipeline.docs.descriptions import Descriptions, own_description, run_of, undescribed
from foundry_pipeline.docs.nodes import AssetNode
from foundry_pipeline.docs.values import as_json
from foundry_pipeline.errors import DeclarationError

SCHEMA = "foundry-manifest/1"
SMALL = 1_000  # characters of JSON from which on a declared value is written once and referred to


class Shared:
    """Large declared values, each once: a suite that a hundred runs are judged by is not written a hundred times."""

    def __init__(self) -> None:
        self.values: dict[str, Any] = {}

    def add(self, value: Any) -> Any:
        """The value itself where it is small; else `{"$ref": "#/values/<key>"}`, by which `values` has it."""
        text = json.dumps(value, default=str)
        if len(text) < SMALL:
            return as_json(value)
        key = hashlib.sha256(text.encode()).hexdigest()[:16]
        if key not in self.values:
            self.values[key] = as_json(value)
        return {"$ref": f"#/values/{key}"}


def build_manifest(
    d: Declarations, chain: Chain, nodes: Sequence[AssetNode], described: Descriptions
) -> dict[str, Any]:
    """The declared state. Raises DeclarationError naming every asset, table, column, check and owner left unsaid."""
    groups = {chain.stages[n.name].kind: n.group for n in nodes if n.name in chain.stages}
    refuse_unsaid([*undescribed(described, dict(sorted(groups.items()))), *_unsaid(nodes)])
    modules = sorted({m for s in chain.stages.values() for m in (*modules_of(s), built_by(s).module)})
    shared = Shared()
    assets = {n.name: _asset(d, chain, n, shared) for n in nodes}
    return {
        "schema": SCHEMA,
        "profile": d.profile.profile,
        "groups": {
            name: {"title": g.title, "description": g.description, "owners": list(g.owners)}
            for name, g in described.groups.items()
        },
        "kinds": {kind: _kind(described, kind, group) for kind, group in sorted(groups.items())},
        "modules": {m: module_summary(m) for m in modules},
        "assets": assets,
        "values": dict(sorted(shared.values.items())),
    }


def refuse_unsaid(faults: Sequence[str]) -> None:
    """Raise one error that names all of them; nothing where there is none."""
    if faults:
        raise DeclarationError(
            f"the documentation leaves {len(faults)} things unsaid:\n    " + "\n    ".join(faults),
            where="dbt_style_docs/",
            mend="describe what is named, then: foundry docs",
        )


def _unsaid(nodes: Sequence[AssetNode]) -> list[str]:
    out = []
    for n in nodes:
        if not n.declared:
            out.append(f"asset `{n.name}`: it is named as an input and declared nowhere")
            continue
        if not n.description.strip():
            out.append(f"asset `{n.name}`: no description")
        if not n.owners:
            out.append(f"asset `{n.name}`: no owner, neither of its character nor of its group `{n.group}`")
        out += [f"check `{c.name}` of asset `{n.name}`: no description" for c in n.checks if not c.description.strip()]
    return out


def _kind(described: Descriptions, kind: str, group: str) -> dict[str, Any]:
    return {
        "group": group,
        "description": described.assets[kind],
        "tables": {
            name: {
                "description": table.description,
                "optional": table.optional,
                "columns": {
                    column: {"type": dtype, "description": described.column(kind, name, column)}
                    for column, dtype in table.columns.items()
                },
            }
            for name, table in described.tables.get(kind, {}).items()
        },
    }


def _asset(d: Declarations, chain: Chain, node: AssetNode, shared: Shared) -> dict[str, Any]:
    base: dict[str, Any] = {
        "group": node.group,
        "kinds": list(node.kinds),
        "owners": list(node.owners),
        "description": node.description,
        "parents": list(node.parents),
        "code_version": node.code_version,
        "pool": node.pool,
        "automation": node.automation,
        "partitions": list(node.partitions),
        "tags": node.tags,
        "checks": {c.name: {"description": c.description, "blocking": c.blocking} for c in node.checks},
    }
    stage = chain.stages.get(node.name)
    return base if stage is None else {**base, **_declared(d, stage, shared)}


def _declared(d: Declarations, stage: Stage, shared: Shared) -> dict[str, Any]:
    build, run = built_by(stage), run_of(d, stage)
    return {
        "kind": stage.kind,
        "character": stage.character,
        "run": run,
        "own_description": own_description(d, stage),
        "files": declared_in(d, stage, run),
        "declaration": {k: shared.add(v) for k, v in stage.declaration.items()},
        "effective": as_json(stage.shown),
        "modules": list(modules_of(stage)),
        "built_by": {"module": build.module, "function": build.name, "line": build.line},
    }


def declared_in(d: Declarations, stage: Stage, run: str | None) -> list[str]:
    """Files, relative to the project, that a user edits to change this asset, most particular first."""
    names = [stage.name if stage.kind == "dataset" else None, run, d.runs[run].evaluation if run else None]
    if run is not None and stage.kind not in ("responses", "eval", "serving_matrix", "judges", "parity"):
        names = names[:2]
    paths = [d.files[n] for n in names if n is not None and n in d.files]
    if run is None and stage.character and not paths:
        paths = [d.characters[stage.character].folder]
    return [p.relative_to(d.root).as_posix() for p in paths if p.is_relative_to(d.root)]
