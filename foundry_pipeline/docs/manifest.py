"""`manifest.json`: everything that is declared, under one profile.

    manifest["assets"]["madison_dataset_v6"]["parents"]       → ['madison_candidate_pairs', …]
    manifest["kinds"]["dataset"]["tables"]["pairs"]["columns"]["chosen"]
        → {'type': 'String', 'description': 'The answer that training prefers: …'}

Built from the declarations, the chain and Dagster's resolved graph; it knows nothing of what has been built. Equal
declarations and code give the same bytes. What nobody described is an error that names it.
"""

from __future__ import annotations

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


def build_manifest(
    d: Declarations, chain: Chain, nodes: Sequence[AssetNode], described: Descriptions
) -> dict[str, Any]:
    """The declared state. Raises DeclarationError naming every asset, table, column, check and owner left unsaid."""
    groups = {chain.stages[n.name].kind: n.group for n in nodes if n.name in chain.stages}
    refuse_unsaid([*undescribed(described, dict(sorted(groups.items()))), *_unsaid(nodes)])
    modules = sorted({m for s in chain.stages.values() for m in (*modules_of(s), built_by(s).module)})
    return {
        "schema": SCHEMA,
        "profile": d.profile.profile,
        "groups": {
            name: {"title": g.title, "description": g.description, "owners": list(g.owners)}
            for name, g in described.groups.items()
        },
        "kinds": {kind: _kind(described, kind, group) for kind, group in sorted(groups.items())},
        "modules": {m: module_summary(m) for m in modules},
        "assets": {n.name: _asset(d, chain, n) for n in nodes},
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


def _asset(d: Declarations, chain: Chain, node: AssetNode) -> dict[str, Any]:
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
    return base if stage is None else {**base, **_declared(d, stage)}


def _declared(d: Declarations, stage: Stage) -> dict[str, Any]:
    build, run = built_by(stage), run_of(d, stage)
    return {
        "kind": stage.kind,
        "character": stage.character,
        "run": run,
        "own_description": own_description(d, stage),
        "files": declared_in(d, stage, run),
        "declaration": as_json(stage.declaration),
        "effective": as_json(stage.shown),
        "modules": list(modules_of(stage)),
        "built_by": {"module": build.module, "function": build.name, "line": build.line},
    }


def declared_in(d: Declarations, stage: Stage, run: str | None) -> list[str]:
    """Files, relative to the project, that a user edits to change this asset, most particular first."""
    names = [stage.name if stage.kind == "dataset" else None, run, d.runs[run].evaluation if run else None]
    if run is not None and stage.kind not in ("responses", "eval", "serving_matrix", "parity"):
        names = names[:2]
    paths = [d.files[n] for n in names if n is not None and n in d.files]
    if run is None and stage.character and not paths:
        paths = [d.characters[stage.character].folder]
    return [p.relative_to(d.root).as_posix() for p in paths if p.is_relative_to(d.root)]
