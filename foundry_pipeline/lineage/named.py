"""Builds by name: every index line of a store that bears it, without reading all of the store each time it is asked.

records_named(store, "madison_r2_eval")   → [Record, …]     oldest first
"""

from __future__ import annotations

import time

from foundry_pipeline.lineage.artifact import Record
from foundry_pipeline.lineage.store import Store

SHARED_SECONDS = 30
_KNOWN: dict[str, tuple[int, dict[str, list[str]]]] = {}


def records_named(store: Store, name: str) -> list[Record]:
    """Index lines of that name, oldest first. The index is read once, until something is added to it; that of a store
    which others write to as well is read anew after half a minute."""
    known, state = _KNOWN.get(store.place), _state(store)
    if known is None or known[0] != state:
        names: dict[str, list[str]] = {}
        for record in store.records():
            names.setdefault(record.name, []).append(record.input_hash)
        known = (state, names)
        _KNOWN[store.place] = known
    found = [store.record(key) for key in known[1].get(name, ())]
    return sorted((r for r in found if r is not None), key=lambda r: (str(r.facts.get("built_at", "")), r.input_hash))


def _state(store: Store) -> int:
    """What tells that the index may be another one."""
    if type(store) is not Store:
        return int(time.monotonic() // SHARED_SECONDS)
    try:
        return (store.root / "index").stat().st_mtime_ns
    except FileNotFoundError:
        return 0
