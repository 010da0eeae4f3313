"""The folder for Hugging Face `datasets`: it loads offline, says what it is, and is the same to the byte."""

from __future__ import annotations

import dataclasses
import json
import re
import socket
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from foundry_pipeline.datasets.card import CardData, SourceDocument, cell, code, fence, link, render_card, size_category
from foundry_pipeline.datasets.hub import SHARD, plain_rows, write_folder
from foundry_pipeline.datasets.shape import shape
from foundry_pipeline.errors import FoundryError
from foundry_pipeline.lineage.hashing import file_hash, folder_files

HOSTILE = (
    "<script>alert(1)</script> | **bold** [x](javascript:y) `tick` \u202eback \x1b[31m\n# heading\n---\nlicense: mit"
)


@pytest.fixture
def card() -> Callable[..., CardData]:
    def make(frame: pl.DataFrame, method: str = "preference", **changes: object) -> CardData:
        document = SourceDocument(
            "log_1", "log", HOSTILE, "The Keeper", "1851-03-01", "CC0-1.0", "javascript:alert(1)", "a" * 64, "primary",
            False, 3,
        )  # fmt: skip
        held = dataclasses.replace(document, document_id="log_2", title="The sealed log", held_out=True, used=0)
        made = CardData(
            name="keeper_dataset_v1",
            description=HOSTILE,
            character="A Keeper",
            method=method,
            order="shuffle",
            license=None,
            content_hash="c" * 64,
            profile="tiny",
            size_factor=0.5,
            shape=shape(frame),
            facts={"parts": [{"origin": "base", "wanted": 20, "got": 12, "upsample": 1}], "shortage": 8},
            documents=[document, held],
            held_out=("The sealed log",),
            models={"base": {"what": "A small model, untuned", "side": "rejected", "license": "Apache-2.0"}},
            verdict={"passed": True, "dataset_hash": "c" * 64, "results": [{"name": "row_count", "passed": True}]},
            sieve={"kept": 12, "dropped": {"loop": 2}},
            filters={"suite_overlap_ngram": 8},
            unserved={"private_voice": "no letters"},
            inputs={"keeper_passages": "d" * 64},
            example={"prompt": "````", "chosen": HOSTILE},
            columns={c: f"what {c} holds" for c in plain_rows(frame, method).columns},
        )
        return dataclasses.replace(made, **changes)

    return make


@pytest.fixture
def no_network(monkeypatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a connection was tried")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


def front(text: str) -> dict:
    head = re.match(r"---\n(.*?)\n---\n", text, re.DOTALL)
    assert head is not None
    return yaml.safe_load(head.group(1))


@pytest.mark.parametrize("method", ["preference", "sft"])
def test_it_loads_without_a_network_as_trl_expects_it(method, make_pairs, card, tmp_path, no_network, monkeypatch):
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))
    frame = make_pairs(12).with_columns(upsample=pl.lit(2, pl.Int64))
    folder = write_folder(frame, card(frame, method), tmp_path / "out")
    texts = ["prompt", "completion"] if method == "sft" else ["prompt", "chosen", "rejected"]
    rows = datasets.load_dataset(str(folder), split="train", cache_dir=str(tmp_path / "cache"))
    assert rows.column_names[: len(texts)] == texts
    assert rows.num_rows == 12
    assert {"pair_id", "origin", "category", "passage_ids", "teacher", "upsample"} <= set(rows.column_names)
    assert ("rejected" in rows.column_names) == (method == "preference")
    stored = {r["pair_id"]: r for r in frame.iter_rows(named=True)}
    assert all(r["prompt"] == stored[r["pair_id"]]["prompt"] for r in rows)
    assert all(r[texts[1]] == stored[r["pair_id"]]["chosen"] for r in rows)
    chat = datasets.load_dataset(str(folder), "conversational", split="train", cache_dir=str(tmp_path / "cache"))
    first = chat[0]
    assert first["prompt"] == [{"role": "user", "content": rows[0]["prompt"]}]
    assert [first[name][0]["role"] for name in texts[1:]] == ["assistant"] * (len(texts) - 1)


def test_equal_content_gives_equal_bytes_whatever_the_order_of_rows(make_pairs, card, tmp_path) -> None:
    frame = make_pairs(9)
    one = write_folder(frame, card(frame), tmp_path / "a")
    two = write_folder(frame.reverse(), card(frame), tmp_path / "b")
    assert folder_files(one) == folder_files(two)
    assert sorted(folder_files(one)) == [
        "LICENSES.md", "README.md", f"conversational/{SHARD}", "croissant.json", f"pairs/{SHARD}", "provenance.json",
    ]  # fmt: skip


def test_an_earlier_export_is_replaced_and_anything_else_is_left_alone(make_pairs, card, tmp_path) -> None:
    frame, fewer = make_pairs(9), make_pairs(4)
    out = write_folder(frame, card(frame), tmp_path / "out")
    before = (out / "README.md").stat().st_mtime_ns
    write_folder(frame, card(frame), out)
    assert (out / "README.md").stat().st_mtime_ns == before, "nothing to do, nothing written"
    write_folder(fewer, card(fewer), out)
    assert pl.read_parquet(out / "pairs" / SHARD).height == 4
    assert [p.name for p in tmp_path.iterdir()] == ["out"], "nothing is left beside it"
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "thesis.txt").write_text("years of work")
    with pytest.raises(FoundryError, match="not an export"):
        write_folder(frame, card(frame), mine)
    assert [p.name for p in mine.iterdir()] == ["thesis.txt"]
    with pytest.raises(FoundryError, match="not an export"):
        write_folder(frame, card(frame), mine / "thesis.txt")
    (tmp_path / "empty").mkdir()
    assert (write_folder(frame, card(frame), tmp_path / "empty") / "README.md").is_file()


def test_a_full_disk_leaves_the_earlier_export(make_pairs, card, full_disk) -> None:
    small, large = make_pairs(3), make_pairs(9)
    out = write_folder(small, card(small), full_disk / "out")
    wanted = folder_files(out)
    (full_disk / "filler").write_bytes(b"x" * (2 * 2**20 - 80_000))
    with pytest.raises(FoundryError, match="could not write"):
        write_folder(large, card(large, description="w" * 100_000), out)
    assert folder_files(out) == wanted
    assert sorted(p.name for p in full_disk.iterdir()) == ["filler", "out"]


def test_croissant_is_valid_and_reads_the_rows(make_pairs, card, tmp_path) -> None:
    import mlcroissant

    frame = make_pairs(5)
    folder = write_folder(frame, card(frame), tmp_path / "out")
    found = mlcroissant.Dataset(str(folder / "croissant.json"))
    assert not found.metadata.ctx.issues.errors
    assert {w for w in found.metadata.ctx.issues.warnings if "datePublished" not in str(w)} == set()
    records = list(found.records("pairs"))
    assert len(records) == 5
    assert {r["pairs/prompt"].decode() for r in records} == set(frame["prompt"])
    told = json.loads((folder / "croissant.json").read_text())["distribution"][0]
    assert told["sha256"] == file_hash(folder / told["contentUrl"])


def test_the_card_says_what_a_reader_must_know(make_pairs, card) -> None:
    frame = make_pairs(12)
    text = render_card(card(frame))
    for told in (
        "12", "c" * 64, "loop 2", "The data checks passed", "sealed log", "8 rows fewer", "no letters",
        "A small model, untuned", "CC0-1.0", "LICENSES.md", "provenance.json", "0.5 of the declared size",
    ):  # fmt: skip
        assert told in text
    head = front(text)
    assert head["license"] == "other"
    assert head["size_categories"] == ["n<1K"]
    assert [c["config_name"] for c in head["configs"] if c.get("default")] == ["pairs"]
    declared = front(render_card(card(frame, license="cc-by-4.0")))
    assert (declared["license"], "license_name" in declared) == ("cc-by-4.0", False)


@pytest.mark.parametrize(
    ("verdict", "said"),
    [
        (None, "have not been run on this content"),
        (
            {"passed": False, "results": [{"name": "row_count", "passed": False}]},
            r"\*\*The data checks failed\*\*: row",
        ),
    ],
)
def test_a_card_never_claims_checks_that_did_not_pass(verdict, said, make_pairs, card) -> None:
    text = render_card(card(make_pairs(2), verdict=verdict))
    assert re.search(said, text)
    assert "checks passed" not in text
    assert "have not confirmed it" in text


def test_hostile_text_is_text_in_the_card(make_pairs, card) -> None:
    text = render_card(card(make_pairs(2)))
    prose = re.sub(r"`{3,}json\n.*?\n`{3,}", "", text, flags=re.DOTALL)
    assert "<script" not in prose
    assert not re.search(r"(?<!\\)\]\(", prose), "brackets are escaped, so nothing is a link"
    assert "<javascript" not in prose
    assert "\n# heading" not in text
    assert "\u202e" not in text
    assert "\x1b" not in text
    assert front(text)["license"] == "other", "text cannot write into the front matter"
    assert text.count("\n`````json\n") == 1, "the fence is longer than any run of ticks within"


@given(st.text())
def test_a_cell_holds_no_markup(text: str) -> None:
    shown = cell(text)
    assert "\n" not in shown
    assert not re.search(r"(?<!\\)[`*_\[\]|]", re.sub(r"\\\\", "", shown))
    assert "<" not in shown
    assert ">" not in shown


@given(st.text())
def test_a_code_span_and_a_fence_cannot_be_closed_from_within(text: str) -> None:
    span = code(text)
    assert span.count("`") == 2
    assert "|" not in span
    block = fence(text)
    ticks = block[: len(block) - len(block.lstrip("`"))]
    assert ticks not in block[len(ticks) : -len(ticks)]


def test_only_web_addresses_become_links() -> None:
    assert link("https://founders.archives.gov/documents/x") == "https://founders.archives.gov/documents/x"
    for bad in ("javascript:alert(1)", "file:///etc/passwd", "https://a.b/<x>", "https://a b", "ftp://a.b", ""):
        assert link(bad) == ""


def test_sizes_by_the_hubs_names() -> None:
    names = [size_category(n) for n in (0, 999, 1000, 99_999, 1_000_000, 10**8)]
    assert names == ["n<1K", "n<1K", "1K<n<10K", "10K<n<100K", "1M<n<10M", "10M<n<100M"]


def test_licences_name_each_source_once(make_pairs, card, tmp_path: Path) -> None:
    frame = make_pairs(2)
    folder = write_folder(frame, card(frame), tmp_path / "out")
    text = (folder / "LICENSES.md").read_text()
    assert text.count("CC0-1.0") == 1
    assert "Apache-2.0" in text
