"""A field that is none is answered with the fields that may stand at that very place."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from foundry_pipeline.declarations.load import _Faults, _parse
from foundry_pipeline.declarations.sources import SourceManifest

URL = {"kind": "url", "documents": {"a": {"url": "https://example.org/a"}}}


@pytest.mark.parametrize(
    ("connector", "field", "allowed", "not_allowed"),
    [
        ({**URL, "bar": 1}, "connector.url.bar", "documents, encoding, fetch, kind", "license"),
        ({**URL, "fetch": {"speed": 1}}, "connector.url.fetch.speed", "requests_per_second", "documents"),
        (
            {**URL, "documents": {"a": {"url": "https://example.org/a", "who": 1}}},
            "connector.url.documents.a.who",
            "author, date, role, title, url",
            "kind",
        ),
        (
            {"kind": "gutenberg", "book": 1, "path": "f", "collection": {"heading": "x", "head": "y"}},
            "connector.gutenberg.collection.head",
            "attributions",
            "mirror",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_allowed_is_said_for_the_place(tmp_path: Path, connector, field, allowed, not_allowed) -> None:
    path = tmp_path / "acts.yaml"
    facts = {"source": "acts", "title": "t", "author": "a", "license": "l", "document_id": "{stem}"}
    path.write_text(yaml.safe_dump({**facts, "connector": connector}))
    faults = _Faults(tmp_path)
    assert _parse(SourceManifest, path, faults) is None
    (line,) = faults.lines
    assert line.startswith(f"acts.yaml: `{field}`: no such field; allowed: ")
    assert allowed in line
    assert not_allowed not in line.partition("allowed:")[2]
