"""Why an asset that was built is not what the present declarations call for.

    why_stale(record, expected)    → ['declaration: `learning_rate` changed', 'input madison_passages: 1f0c9a… → 77be02…']

Compared are the four things that an input hash covers: inputs by content, the declaration, what lies outside the project,
and the stage's code.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from foundry_pipeline.lineage.store import Record

SHORT = 12  # characters of a hash that are shown


@dataclass(frozen=True)
class Expected:
    """What a build would start from now; `inputs` maps an upstream's name to its content hash, None where it is not there."""

    inputs: Mapping[str, str | None]
    declaration: Mapping[str, Any]
    external: Mapping[str, str]
    code_version: str


def why_stale(record: Record, expected: Expected) -> list[str]:
    """One line for each thing that differs, in a fixed order; empty where nothing does."""
    out = []
    before = {name: way["content"] for name, way in record.inputs.items()}
    for name in sorted(before.keys() | expected.inputs.keys()):
        old, new = before.get(name), expected.inputs.get(name)
        if name not in expected.inputs:
            out.append(f"input {name}: no longer one")
        elif new is None:
            out.append(f"input {name}: not built for the present declarations")
        elif old is None:
            out.append(f"input {name}: was not one")
        elif old != new:
            out.append(f"input {name}: {old[:SHORT]} → {new[:SHORT]}")
    changed = _changed(record.declaration, expected.declaration)
    if changed:
        out.append(f"declaration: {', '.join(f'`{name}`' for name in changed)} changed")
    changed = _changed(record.external, expected.external)
    if changed:
        out.append(f"outside the project: {', '.join(f'`{name}`' for name in changed)} changed")
    if record.code_version != expected.code_version:
        out.append(f"code: version {record.code_version} → {expected.code_version}")
    return out


def _changed(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    return [
        k for k in sorted(before.keys() | after.keys()) if k not in before or k not in after or before[k] != after[k]
    ]
