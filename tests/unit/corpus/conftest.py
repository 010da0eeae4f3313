"""The two declared sources of the first character, read and cut from the real package."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import polars as pl
import pytest
import yaml

from foundry_pipeline.corpus.cleaning import clean_frame
from foundry_pipeline.corpus.connectors import read_source
from foundry_pipeline.corpus.passages import cut_passages
from foundry_pipeline.declarations.sources import SourceManifest
from tests.servers.source_server import Site, serve
from tests.unit.corpus.web import Web, web

MANIFESTS = Path(__file__).parents[3] / "sources" / "madison" / "manifests"


@pytest.fixture(scope="session")
def manifests() -> dict[str, SourceManifest]:
    return {
        p.stem: SourceManifest.model_validate(yaml.safe_load(p.read_text("utf-8"))) for p in MANIFESTS.glob("*.yaml")
    }


@pytest.fixture(scope="session")
def corpus(manifests) -> SimpleNamespace:
    """`raw`, `documents`, `changes`, `passages`: the tables of both sources, the message of 1815 held out."""
    rows = []
    for manifest in manifests.values():
        for document in read_source(manifest, base=MANIFESTS):
            own = {k: getattr(manifest, k) for k in ("source", "role", "author", "license")}
            held_out = document.document_id == "annual_message_1815"
            rows.append({**vars(document), **own, "held_out": held_out})
    raw = pl.DataFrame(rows).sort("document_id")
    documents, changes = clean_frame(list(manifests.values()), raw)
    return SimpleNamespace(raw=raw, documents=documents, changes=changes, passages=cut_passages(documents))


@pytest.fixture(scope="session")
def site(tmp_path_factory) -> Iterator[Site]:
    with serve(tmp_path_factory.mktemp("site")) as running:
        yield running


@pytest.fixture
def net(tmp_path, site) -> Web:
    """A project whose sources are fetched, and the site that they lie on."""
    return web(tmp_path, site)
