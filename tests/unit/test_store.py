"""The store: whole or absent, verified, one writer."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from foundry_pipeline.errors import DamagedArtifact, FoundryError, Locked
from foundry_pipeline.lineage.hashing import (
    canonical_json,
    code_version,
    digest,
    folder_files,
    folder_hash,
    texts_digest,
)
from foundry_pipeline.lineage.store import Store


def fields(input_hash: str = "a" * 64, name: str = "thing") -> dict:
    return {
        "name": name,
        "kind": "dataset",
        "input_hash": input_hash,
        "inputs": {},
        "declaration": {},
        "external": {},
        "code_version": "1",
        "facts": {},
    }


def payload(folder: Path, text: str = "hello") -> Path:
    folder.mkdir(parents=True)
    (folder / "a.txt").write_text(text)
    return folder


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


def test_published_artifact_is_found_by_its_input_hash(store: Store, tmp_path: Path) -> None:
    made = store.publish(payload(tmp_path / "p"), record=fields())
    record = store.record("a" * 64)
    assert record is not None
    assert record.content_hash == made.content_hash == folder_hash({"a.txt": folder_files(made.payload)["a.txt"]})
    assert store.open(made.content_hash).manifest["name"] == "thing"


def test_equal_content_from_other_inputs_is_kept_once(store: Store, tmp_path: Path) -> None:
    first = store.publish(payload(tmp_path / "p"), record=fields())
    second = store.publish(payload(tmp_path / "q"), record=fields("b" * 64, "other"))
    assert first.content_hash == second.content_hash
    assert len(list((store.root / "artifacts").iterdir())) == 1
    assert store.record("b" * 64).name == "other"


@pytest.mark.parametrize("harm", ["edit", "empty", "remove", "add", "manifest", "no manifest"])
def test_damage_is_named_and_refused(store: Store, tmp_path: Path, harm: str) -> None:
    made = store.publish(payload(tmp_path / "p"), record=fields())
    file, manifest = made.payload / "a.txt", made.folder / "manifest.json"
    if harm == "edit":
        file.write_text("hellO")
    elif harm == "empty":
        file.write_text("")
    elif harm == "remove":
        file.unlink()
    elif harm == "add":
        (made.payload / "b.txt").write_text("x")
    elif harm == "manifest":
        changed = json.loads(manifest.read_text())
        file.write_text("forged")
        changed["files"] = folder_files(made.payload)
        changed["payload_hash"] = folder_hash(changed["files"])
        changed["content_hash"] = changed["payload_hash"]
        manifest.write_text(json.dumps(changed))
    else:
        manifest.unlink()
    with pytest.raises(DamagedArtifact) as caught:
        store.open(made.content_hash, name="thing")
    assert "foundry repair thing" in str(caught.value)


def test_quarantine_keeps_the_damaged_copy_and_frees_its_place(store: Store, tmp_path: Path) -> None:
    made = store.publish(payload(tmp_path / "p"), record=fields())
    (made.payload / "a.txt").write_text("damaged")
    aside = store.quarantine(made.content_hash)
    assert (aside / "payload" / "a.txt").read_text() == "damaged"
    assert store.record("a" * 64) is None
    assert store.publish(payload(tmp_path / "q"), record=fields()).content_hash == made.content_hash


def test_leftovers_of_a_killed_writer_are_not_taken_for_whole(store: Store, tmp_path: Path) -> None:
    made = store.publish(payload(tmp_path / "p"), record=fields())
    half = store.root / "artifacts" / f".{'f' * 64}.partial"
    payload(half / "payload")
    assert [r.content_hash for r in store.records()] == [made.content_hash]
    with pytest.raises(DamagedArtifact):
        store.open("f" * 64)


def test_a_full_disk_ends_in_a_message_and_leaves_nothing(store: Store, tmp_path: Path, full_disk: Path) -> None:
    cramped = Store(full_disk / "store")
    source = payload(tmp_path / "p", "x" * 3_000_000)
    with pytest.raises(FoundryError) as caught:
        cramped.publish(source, record=fields())
    assert "disk is full" in str(caught.value)
    assert cramped.record("a" * 64) is None
    assert not list((full_disk / "store").rglob("manifest.json"))


def _hold(root: Path, ready: str) -> None:
    with Store(root).lock("a" * 64, name="thing"):
        Path(ready).touch()
        time.sleep(60)


def test_second_writer_is_refused_until_the_first_is_gone(store: Store, tmp_path: Path) -> None:
    ready = tmp_path / "ready"
    holder = multiprocessing.get_context("spawn").Process(target=_hold, args=(store.root, str(ready)))
    holder.start()
    deadline = time.monotonic() + 30
    while not ready.exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    with pytest.raises(Locked, match=str(holder.pid)), store.lock("a" * 64, name="thing"):
        pass
    os.kill(holder.pid, signal.SIGKILL)
    holder.join()
    with store.lock("a" * 64, name="thing"):
        pass


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@given(json_values)
def test_digest_survives_a_round_trip_and_key_order(value: object) -> None:
    again = json.loads(canonical_json(value))
    assert digest(again) == digest(value)
    if isinstance(value, dict):
        assert digest(dict(reversed(list(value.items())))) == digest(value)


@given(st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), st.none() | st.text(), max_size=5))
def test_texts_have_the_digest_of_their_canonical_json(texts: dict[str, str | None]) -> None:
    if any("\ud800" <= c <= "\udfff" for t in texts.values() if t for c in t):
        with pytest.raises(ValueError, match=r"(?i)utf-8"):
            texts_digest(texts)
    else:
        assert texts_digest(texts) == digest(texts)


@given(json_values, json_values)
def test_digest_tells_values_apart(one: object, other: object) -> None:
    if canonical_json(one) != canonical_json(other):
        assert digest(one) != digest(other)


def test_code_version_follows_code_and_not_comments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    module = tmp_path / "sample_stage_module.py"

    def version(source: str) -> str:
        from foundry_pipeline.lineage import hashing

        module.write_text(source)
        hashing._module_digest.cache_clear()
        hashing.code_version.cache_clear()
        return code_version(("sample_stage_module",), version)

    first = version('"""Doc."""\nx = 1\n')
    assert version('"""Other doc."""\n# a comment\nx = 1\n') == first
    assert version('"""Doc."""\nx = 2\n') != first


def test_digests_of_code_are_kept_and_never_believed_when_damaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from foundry_pipeline.lineage import hashing

    def digest_of(source: str) -> str:
        kept = hashing._Kept(tmp_path / "cache")
        found = kept.digest(source)
        kept.write()
        return found

    parsed: list[str] = []
    whole = hashing._tree_digest

    def counted(source: str) -> str:
        parsed.append(source)
        return whole(source)

    monkeypatch.setattr(hashing, "_tree_digest", counted)
    monkeypatch.setattr(hashing.sys, "dont_write_bytecode", False)
    first = digest_of("x = 1\n")
    assert first == whole("x = 1\n")
    assert [digest_of("x = 1\n"), digest_of("x = 1  # one\n")] == [first, first]
    assert parsed == ["x = 1\n", "x = 1  # one\n"]
    (file,) = (tmp_path / "cache").iterdir()
    text = file.read_text()
    for damaged in (text.replace(first, "0" * 64), text[:40], "", "[]", "\x00", '{"digests": 1, "sum": "2"}'):
        file.write_text(damaged)
        before = len(parsed)
        assert digest_of("x = 1\n") == first
        assert len(parsed) == before + 1
    monkeypatch.setattr(hashing, "_KEPT", 3)
    for number in range(4):
        digest_of(f"y = {number}\n")
    # Once there were more than three, only what was new was kept.
    assert set(json.loads(file.read_text())["digests"].values()) == {whole("y = 2\n"), whole("y = 3\n")}


def test_where_nothing_may_be_written_digests_are_made_each_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from foundry_pipeline.lineage import hashing

    kept = hashing._Kept(tmp_path / "file" / "cache")
    (tmp_path / "file").write_text("no folder")
    assert kept.digest("x = 1\n") == hashing._tree_digest("x = 1\n")
    kept.write()
    monkeypatch.setattr(hashing.sys, "dont_write_bytecode", True)
    kept = hashing._Kept(tmp_path)
    kept.digest("x = 1\n")
    kept.write()
    assert [p.name for p in tmp_path.iterdir()] == ["file"]
