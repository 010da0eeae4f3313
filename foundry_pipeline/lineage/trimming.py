"""Room in the cache of a shared store: copies go whose artifact the shared store is proven to hold.

trim(store)   → (["madison_r2_gguf 5b…: kept, only this machine has it"], bytes freed, copies dropped)
"""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

from foundry_pipeline.lineage.store import Store

if TYPE_CHECKING:
    from foundry_pipeline.lineage.shared_store import SharedStore


def trim(store: SharedStore) -> tuple[list[str], int, int]:
    """Drop copies, each after its objects have been compared with it; what was kept and why, bytes freed, their number.

    Anything that reads them while they go fetches them again; a build that runs holds paths into them, so that none may
    be running.
    """
    kept, freed, count = [], 0, 0
    for content_hash in Store.contents(store, ""):
        folder = store.folder(content_hash)
        if not (folder / "manifest.json").is_file():
            continue
        size = sum(Store.sizes(store, content_hash).values())
        found, wrong = store.remotes.examine(content_hash, local=folder / "payload", deep=True)
        if found is None or wrong:
            kept.append(
                f"{content_hash[:12]}: kept, as the shared store does not hold it whole ({'; '.join(wrong[:2])})"
            )
            continue
        aside = folder.with_name(f".{content_hash}.dropped")
        folder.rename(aside)
        shutil.rmtree(aside, ignore_errors=True)
        store.forget(content_hash)
        freed, count = freed + size, count + 1
    for folder in (store.root / "parts").glob("*"):
        freed += sum(p.stat().st_size for p in folder.rglob("*") if p.is_file())
        shutil.rmtree(folder, ignore_errors=True)
    return kept, freed, count
