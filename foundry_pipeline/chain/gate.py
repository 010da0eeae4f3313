"""The gate: no training without a passed verdict for exactly the dataset at hand.

The verdict of a dataset's data checks lies beside it (`verdict.json`, outside the payload and its hash), so that a
lost Dagster instance still blocks, in the same run and when training is launched alone.
"""

from __future__ import annotations

import json
from typing import Any

from foundry_pipeline.errors import GateRefused
from foundry_pipeline.lineage.sealed import sealed, unsealed
from foundry_pipeline.lineage.store import Artifact

VERDICT = "verdict.json"


def verdict_place(dataset: Artifact) -> str:
    """Where the verdict of a dataset lies, for people."""
    return dataset.note_place(VERDICT)


def read_verdict(dataset: Artifact) -> dict[str, Any] | None:
    """The verdict beside a dataset, or None when there is none that can be read."""
    return believed(dataset.read_note(VERDICT))


def believed(text: bytes | None) -> dict[str, Any] | None:
    """The verdict in the text of its file, or None.

    One that was edited is none: its seal is of another content, and a `false` made `true` opens nothing.
    """
    try:
        return unsealed(json.loads(text or b""), required=True)
    except ValueError:
        return None


def write_verdict(dataset: Artifact, verdict: dict[str, Any]) -> None:
    dataset.write_note(VERDICT, sealed(verdict))


def require_verdict(dataset: Artifact, *, name: str, suite_hash: str | None = None) -> None:
    """Raise GateRefused unless this dataset, by its hash, has passed the checks as they are declared now."""
    verdict = read_verdict(dataset)
    where = verdict_place(dataset)
    mend = f"dagster asset materialize --select {name}  # runs its checks; then mend what they name"
    if verdict is None:
        raise GateRefused(f"training refused: {name} has not been checked", where=where, mend=mend)
    if verdict.get("dataset_hash") != dataset.content_hash:
        raise GateRefused(f"training refused: the verdict beside {name} is of another dataset", where=where, mend=mend)
    if suite_hash is not None and verdict.get("suite_hash") != suite_hash:
        raise GateRefused(
            f"training refused: {name} was checked against other expectations than are declared now",
            where=where,
            mend=mend,
        )
    if verdict.get("passed") is not True:
        failed = [r["name"] for r in verdict.get("results", []) if r.get("severity") == "error" and not r.get("passed")]
        raise GateRefused(
            f"training refused: {name} failed {', '.join(failed) or 'its checks'}", where=where, mend=mend
        )
