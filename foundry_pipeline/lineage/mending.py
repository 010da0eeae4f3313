"""A damaged artifact of a shared store: one copy mended from the other, or both set aside.

    mend(store, content_hash)   → ['pairs.parquet is not what was built; sent again from the copy on this machine']

Nothing is deleted: objects go to `quarantine/` of the shared store, folders to `quarantine/` of the cache.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from foundry_pipeline.errors import DamagedArtifact
from foundry_pipeline.lineage.remotes import manifest_key
from foundry_pipeline.lineage.store import Store

if TYPE_CHECKING:
    from foundry_pipeline.lineage.shared_store import SharedStore


def mend(store: SharedStore, content_hash: str) -> list[str]:
    """What was done; empty where both copies are whole, or the one there is."""
    done = []
    here = (store.folder(content_hash) / "manifest.json").is_file()
    if here:
        try:
            Store.open(store, content_hash)
        except DamagedArtifact as error:
            here = False
            done.append(f"{error.what}; the copy on this machine was set aside as {store.quarantine(content_hash)}")
    local = store.folder(content_hash) / "payload" if here else None
    found, wrong = store.remotes.examine(content_hash, local=local, deep=True)
    if not wrong:
        if done:
            done.append("the shared store holds it whole: it is fetched from there when it is needed")
        return done
    if found is None and wrong == ["it has no manifest"] and not _objects(store, content_hash):
        if not here:
            _drop_lines(store, content_hash)
            done.append(f"{wrong[0]} in the shared store; its index lines there were removed")
        return done
    aside = _set_aside(store, content_hash)
    told = f"{'; '.join(wrong)}; set aside as {store.bucket.place(aside)}"
    if here:
        name = str(store.read_manifest(content_hash).get("name", ""))
        store.sender.send(content_hash, name)
        done.append(f"{told}; sent again from the copy on this machine")
    else:
        _drop_lines(store, content_hash)
        done.append(told)
    store.forget(content_hash)
    return done


def _objects(store: SharedStore, content_hash: str) -> list[str]:
    return sorted(store.bucket.entries(f"artifacts/{content_hash}/"))


def _set_aside(store: SharedStore, content_hash: str) -> str:
    """Move every object of an artifact but its notes, the manifest first: from then on nobody takes it for whole."""
    aside = f"quarantine/{content_hash}-{os.urandom(4).hex()}"
    store.bucket.move(manifest_key(content_hash), f"{aside}/manifest.json")
    for name in _objects(store, content_hash):
        if "/" in name:
            store.bucket.move(f"artifacts/{content_hash}/{name}", f"{aside}/{name}")
    store.forget(content_hash)
    return aside


def _drop_lines(store: SharedStore, content_hash: str) -> None:
    for record in list(store.records()):
        if record.content_hash == content_hash:
            store.bucket.remove(f"index/{record.input_hash}.json")
            (store.root / "index" / f"{record.input_hash}.json").unlink(missing_ok=True)
    store.forget(content_hash)
