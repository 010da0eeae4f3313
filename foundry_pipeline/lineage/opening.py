"""The store that the settings name: a folder, or a URL with a folder as its cache.

store = open_store(load_settings())
"""

from __future__ import annotations

import os
import sys

from foundry_pipeline.lineage.store import Store
from foundry_pipeline.settings import Settings


def open_store(settings: Settings) -> Store:
    """Nothing is read or asked yet. Raises FoundryError for options that cannot be used."""
    if not settings.url:
        return Store(settings.store)
    from foundry_pipeline.lineage.bucket import Bucket, parse_options
    from foundry_pipeline.lineage.shared_store import SharedStore

    bucket = Bucket(settings.url, parse_options(os.environ.get("FOUNDRY_STORE_OPTIONS")))
    return SharedStore(settings.store, bucket, say=lambda text: print(text, file=sys.stderr, flush=True))
