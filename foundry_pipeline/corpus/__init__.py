"""From source manifests to passages: connectors → cleaning → passages → retrieval, each usable alone.

>>> documents = read_source(manifest, base=folder_of_the_manifest)   # the transcription, checked against its hashes
>>> cleaned, changes = clean(manifest, documents)                    # every change recorded, replayable, traceable
>>> passages = cut_passages(table_of_cleaned_documents)              # each a stretch of its document's cleaned text
>>> hits = Retriever(passages).search("Should Congress charter a national bank?", k=3)
"""
