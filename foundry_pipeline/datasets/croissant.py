"""Croissant 1.1 metadata of a dataset export (MLCommons): which file, by hash, holds which columns.

    croissant(card, "pairs/train-00000-of-00001.parquet", schema, sha256=…, size=…)   → a JSON-LD document

There is no publication date in it: two exports of one content are equal to the byte, whenever they are made.
"""

from __future__ import annotations

from typing import Any

import polars as pl

from foundry_pipeline.datasets.card import LICENSES, CardData
from foundry_pipeline.plain import plain

# The context that the specification 1.1 prescribes, as its reference validator has it.
CONTEXT: dict[str, Any] = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "arrayShape": "cr:arrayShape",
    "citeAs": "cr:citeAs",
    "column": "cr:column",
    "conformsTo": "dct:conformsTo",
    "containedIn": "cr:containedIn",
    "cr": "http://mlcommons.org/croissant/",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "dct": "http://purl.org/dc/terms/",
    "description": {"@container": "@language"},
    "equivalentProperty": "cr:equivalentProperty",
    "examples": {"@id": "cr:examples", "@type": "@json"},
    "extract": "cr:extract",
    "field": "cr:field",
    "fileObject": "cr:fileObject",
    "fileProperty": "cr:fileProperty",
    "fileSet": "cr:fileSet",
    "format": "cr:format",
    "includes": "cr:includes",
    "isArray": "cr:isArray",
    "isLiveDataset": "cr:isLiveDataset",
    "jsonPath": "cr:jsonPath",
    "key": "cr:key",
    "md5": "cr:md5",
    "name": {"@container": "@language"},
    "parentField": "cr:parentField",
    "path": "cr:path",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "recordSet": "cr:recordSet",
    "references": "cr:references",
    "regex": "cr:regex",
    "repeated": "cr:repeated",
    "replace": "cr:replace",
    "samplingRate": "cr:samplingRate",
    "sc": "https://schema.org/",
    "separator": "cr:separator",
    "source": "cr:source",
    "subField": "cr:subField",
    "transform": "cr:transform",
}
FILE = "pairs-parquet"


def croissant(card: CardData, path: str, schema: dict[str, pl.DataType], *, sha256: str, size: int) -> dict[str, Any]:
    """The metadata of an export whose plain rows lie in the file `path` with these columns. Pure."""
    return {
        "@context": CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": "http://mlcommons.org/croissant/1.1",
        "name": card.name,
        "description": plain(card.description),
        "version": f"1.0.0+{card.content_hash[:12]}",
        "license": card.license or f"{LICENSES}: " + "; ".join(_licenses(card)),
        "citeAs": f"{card.name}, content hash {card.content_hash}",
        "inLanguage": card.language,
        "isLiveDataset": False,
        "distribution": [
            {
                "@type": "cr:FileObject",
                "@id": FILE,
                "name": FILE,
                "contentUrl": path,
                "contentSize": f"{size} B",
                "encodingFormat": "application/x-parquet",
                "sha256": sha256,
            }
        ],
        "recordSet": [
            {
                "@type": "cr:RecordSet",
                "@id": "pairs",
                "name": "pairs",
                "description": "one row each, in order of pair_id",
                "key": {"@id": "pairs/pair_id"},
                "field": [_field(name, kind, card.columns.get(name, name)) for name, kind in schema.items()],
            }
        ],
    }


def _field(name: str, kind: pl.DataType, description: str) -> dict[str, Any]:
    many = isinstance(kind, pl.List)
    inner: Any = kind.inner if isinstance(kind, pl.List) else kind
    return {
        "@type": "cr:Field",
        "@id": f"pairs/{name}",
        "name": name,
        "description": description,
        "dataType": "sc:Float" if inner == pl.Float64 else "sc:Integer" if inner == pl.Int64 else "sc:Text",
        **({"isArray": True, "arrayShape": "-1"} if many else {}),
        "source": {"fileObject": {"@id": FILE}, "extract": {"column": name}},
    }


def _licenses(card: CardData) -> list[str]:
    told = [x.license for x in card.documents if x.used] + [m["license"] for m in card.models.values()]
    return [plain(name) for name in dict.fromkeys(told)]
