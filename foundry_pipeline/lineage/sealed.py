"""JSON that tells when it was edited: beside its content stands the hash of that content.

    write_json(path, sealed({"passed": True}))     → {"passed": true, "seal": "3f0c…"}
    unsealed(json.loads(path.read_text()))         → {"passed": True}; ValueError for one flipped byte

A seal finds what a disk, a copy or a hand has changed. It is no signature: who recomputes it is not found out.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from foundry_pipeline.lineage.hashing import digest

SEAL = "seal"


def seal_of(content: Mapping[str, Any]) -> str:
    """SHA-256 (hex) of the content as JSON gives it back; a `seal` in it is left out."""
    return _digest_of_json(json.loads(json.dumps(content, allow_nan=False)))


def _digest_of_json(content: Mapping[str, Any]) -> str:
    return digest({name: value for name, value in content.items() if name != SEAL})


def sealed(content: Mapping[str, Any]) -> dict[str, Any]:
    """The content with its seal."""
    return {**content, SEAL: seal_of(content)}


def unsealed(found: Any, *, required: bool) -> dict[str, Any]:
    """The content without its seal.

    Raises ValueError where it is no object, was edited, or (with `required`) bears no seal; without, a file from before
    there were seals is taken as it is.
    """
    if not isinstance(found, dict):
        raise ValueError("it is no JSON object")
    if SEAL not in found:
        if required:
            raise ValueError("it bears no seal")
        return found
    if found[SEAL] != _digest_of_json(found):
        raise ValueError("it was edited: its seal is of another content")
    return {name: value for name, value in found.items() if name != SEAL}
