"""Reading a source: the transcription as it stands, whatever kind of place it lies in.

    >>> read_source(manifest, base=Path("sources/madison/manifests"))[0].document_id
    'annual_message_1809'

One module a kind of connector (`pypi`, `local`, …), each with two functions: `items` (its documents, as text) and `facts`
(what reading them depends on, for the fingerprint). A connector only reads; it never repairs, and it never reaches over
the network. What a text should say instead is `cleaning.py`'s business, in recorded rules.
"""

from foundry_pipeline.corpus.connectors.base import Item, Place, RawDocument
from foundry_pipeline.corpus.connectors.reading import MODULES, read_all, read_source, source_fingerprint

__all__ = ["MODULES", "Item", "Place", "RawDocument", "read_all", "read_source", "source_fingerprint"]
