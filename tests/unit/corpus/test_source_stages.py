"""The stages of sources and passages on a small project with two editions of one collection."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import polars as pl
import pytest
from gutenberg_sample import Edition, body, gutenberg_file, paper
from test_collections import AUTHORS, HEADING

from foundry_pipeline.chain.data_stages import build_passages, build_sources
from foundry_pipeline.chain.stage import BuildContext
from foundry_pipeline.declarations.sources import SourceManifest
from foundry_pipeline.errors import FoundryError
from foundry_pipeline.lineage.artifact import Artifact

RULE = {
    "heading": HEADING,
    "attributions": AUTHORS,
    "signature": "PUBLIUS",
    "salutation": "To the People of the State of New York",
    "expect": 12,
}


def manifest(source: str, document_id: str, **changed) -> SourceManifest:
    connector = {"kind": "local", **changed.pop("connector")}
    return SourceManifest.model_validate(
        {"source": source, "title": source, "author": "James Madison", "license": "CC0-1.0", "document_id": document_id, "connector": connector, **changed}
    )  # fmt: skip


def built(tmp_path: Path, manifests: list[SourceManifest], held_out: tuple[str, ...] = ()) -> SimpleNamespace:
    character = SimpleNamespace(character="madison", held_out_documents=held_out)
    files = SimpleNamespace(manifests={m.source: m for m in manifests}, folder=tmp_path, character=character)
    found = SimpleNamespace()
    inputs: dict = {}
    for name, build, extra in (("sources", build_sources, {}), ("passages", build_passages, {"sources": "sources"})):
        work = tmp_path / f"work-{name}"
        settings = SimpleNamespace(store=tmp_path / ".foundry")
        ctx = BuildContext(settings, None, inputs, work, None, print)  # type: ignore[arg-type]
        done = build(ctx, files=files, **extra)  # type: ignore[operator]
        inputs[name] = Artifact(name, done.payload.parent, {})
        frames = {p.stem: pl.read_parquet(p) for p in done.payload.glob("*.parquet")}
        setattr(found, name, SimpleNamespace(facts=done.facts, **frames))
    return found


@pytest.fixture
def editions(tmp_path) -> list[SourceManifest]:
    edition = Edition(papers=12, twice=7)
    texts = tmp_path / "manifests"
    texts.mkdir()
    (texts / "18.txt").write_text(gutenberg_file(body(edition)))
    own = "\n\n".join(paper(10, edition)[1]).replace("the", "ye", 2) + " \u202eesrever\u202c"
    (texts / "letters").mkdir()
    (texts / "letters" / "1787-11-22_tenth.txt").write_text(own)
    return [
        manifest("federalist", "federalist_{stem}", connector={"path": "18.txt", "collection": RULE}, priority=2),
        manifest("letters", "letter_{stem}", connector={"path": "letters", "include": ["*.txt"]}, priority=1),
    ]


def test_documents_variants_and_what_is_remarked(tmp_path, editions):
    found = built(tmp_path, editions)
    assert found.sources.facts["documents"] == found.sources.documents.height == 13
    assert found.sources.facts["variants"] == ["federalist_7_v2 of federalist_7"]
    assert found.sources.facts["roles"] == {"control": 11, "primary": 2}
    assert found.sources.facts["invisible_characters"] == {"letter_1787-11-22_tenth": {"bidirectional controls": 2}}
    assert found.sources.variants["document_id"].to_list() == ["federalist_7_v2"]
    assert "federalist_7_v2" not in found.passages.passages["document_id"].to_list()
    joined = found.sources.documents.filter(document_id="letter_1787-11-22_tenth")["raw"].item()
    assert "\u202eesrever" in joined, "counted, not removed"


def test_one_text_in_two_sources_counts_once(tmp_path, editions):
    found = built(tmp_path, editions)
    twice = found.passages.passages.filter(pl.col("duplicate_of").is_not_null())
    assert set(twice["document_id"]) == {"federalist_10"}, "the source of lower priority number counts"
    assert found.passages.facts["duplicates"] == twice.height > 0
    (letters, variant) = found.passages.facts["same text twice"]
    assert letters.startswith("federalist_10 and letter_1787-11-22_tenth: 9")
    assert variant.startswith("federalist_7 and federalist_7_v2: 8")
    said = found.passages.differences.filter(document_b="letter_1787-11-22_tenth")
    assert ("word", "the", "ye") in said.select("kind", "text_a", "text_b").rows()


def test_the_second_copy_of_a_held_out_document_is_held_out(tmp_path, editions):
    found = built(tmp_path, editions, held_out=("letter_1787-11-22_tenth",))
    held_out = found.passages.passages.filter("held_out")["document_id"].unique().sort().to_list()
    assert held_out == ["federalist_10", "letter_1787-11-22_tenth"]
    assert found.passages.facts["held out as near-duplicates"] > 0


def test_equal_inputs_give_equal_bytes(tmp_path, editions):
    first = built(tmp_path, editions)
    payloads = {p: p.read_bytes() for p in tmp_path.glob("work-*/payload/*")}
    again = built(tmp_path, editions[::-1])
    assert {p: p.read_bytes() for p in tmp_path.glob("work-*/payload/*")} == payloads
    assert first.passages.facts == again.passages.facts


def test_two_sources_may_not_share_an_id(tmp_path, editions):
    twin = editions[1].model_copy(update={"source": "twin"})
    with pytest.raises(
        FoundryError, match="the sources `letters` and `twin` both have a document `letter_1787-11-22_tenth`"
    ):
        built(tmp_path, [*editions, twin])
