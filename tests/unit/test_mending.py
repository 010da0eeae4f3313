"""What was edited is told, what was lost comes back: index, answers, money, scores."""

from __future__ import annotations

import contextlib
import json
import random
import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import given, settings
from hypothesis import strategies as st

from foundry_pipeline.chain.gate import require_verdict, write_verdict
from foundry_pipeline.chain.mending import faults, mend
from foundry_pipeline.errors import DamagedArtifact, FoundryError, GateRefused
from foundry_pipeline.lineage.ledger import append_scores, read_scores
from foundry_pipeline.lineage.ledger_database import second_copy, writing
from foundry_pipeline.lineage.ledger_tables import SCORES
from foundry_pipeline.lineage.sealed import sealed, unsealed
from foundry_pipeline.lineage.second_copy import SecondCopy
from foundry_pipeline.lineage.store import Store
from foundry_pipeline.models.cache import ResponseCache
from foundry_pipeline.models.money.ledger import Ask, Caps, MoneyLedger
from foundry_pipeline.models.requests import Reply
from foundry_pipeline.settings import Settings
from tests.unit.lineage.ledger_sample import row as score_row
from tests.unit.test_store import fields, payload

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@settings(deadline=None, max_examples=60)
@given(content=st.dictionaries(st.text(max_size=8).filter(lambda k: k != "seal"), JSON, max_size=4), data=st.data())
def test_a_sealed_object_comes_back_and_an_edited_one_does_not(content: dict[str, Any], data: st.DataObject) -> None:
    text = json.dumps(sealed(content), ensure_ascii=False).encode("utf-8", "surrogatepass")
    assert unsealed(json.loads(text), required=True) == json.loads(json.dumps(content))
    at = data.draw(st.integers(0, len(text) - 1))
    edited = bytearray(text)
    edited[at] ^= 1 << data.draw(st.integers(0, 7))
    try:
        believed = unsealed(json.loads(bytes(edited)), required=True)
    except ValueError:
        return
    assert believed == json.loads(json.dumps(content)), "an edit was believed"


@pytest.fixture
def project(tmp_path: Path) -> Settings:
    return Settings(tmp_path, tmp_path / ".foundry", "tiny")


def reply(name: str) -> Reply:
    return Reply("", name, f"the answer to {name}", "stop", 5, 3, 0.25, cost=7)


def fill(project: Settings) -> dict[str, Any]:
    cache, ledger = ResponseCache(project.responses_path), MoneyLedger(project.store / "money.db")
    cache.put_group([reply(f"r{i:03}") for i in range(60)])
    book = ledger.book(asset="a", run="r", caps=Caps(10**6, 10**6))
    entries = [*book.reserve_many([Ask(f"r{i:03}", 10, "p", "m", "2026-01-01") for i in range(60)]).values()]
    for entry in entries[:40]:
        book.settle(entry, cost=7, usage=None)
    book.release(entries[41])
    append_scores(project.ledger_url, [score_row(n) for n in range(12)])
    return content(project)


def content(project: Settings) -> dict[str, Any]:
    """What is stored, read as the project reads it."""
    cache, ledger = ResponseCache(project.responses_path), MoneyLedger(project.store / "money.db")
    ledger.compare()
    return {
        "responses": cache.find([f"r{i:03}" for i in range(60)]),
        "money": ledger.rows(),
        "ledger": read_scores(project.ledger_url),
    }


FILES = {"responses": "responses.db", "money": "money.db", "ledger": "ledger.db"}


def flip(path: Path, draw: random.Random) -> None:
    data = bytearray(path.read_bytes())
    data[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
    path.write_bytes(data)


def truncate(path: Path, draw: random.Random) -> None:
    path.write_bytes(path.read_bytes()[: draw.randrange(path.stat().st_size)])


def empty(path: Path, draw: random.Random) -> None:
    path.write_bytes(b"")


def remove(path: Path, draw: random.Random) -> None:
    path.unlink()


@pytest.mark.parametrize("what", FILES)
@pytest.mark.parametrize("harm", [flip, truncate, empty, remove])
@pytest.mark.parametrize("copy", [False, True])
def test_whatever_becomes_of_one_file_every_row_is_read_as_it_was_or_comes_back(
    project: Settings, what: str, harm: Callable[[Path, random.Random], None], copy: bool
) -> None:
    """Damage to the database is told and mended, or does no harm; damage to the copy never hides a row."""
    draw = random.Random(f"{what}{harm.__name__}{copy}")
    before = fill(project)
    path = project.store / FILES[what]
    path = path.with_name(f"{path.name}.jsonl") if copy else path
    whole = path.read_bytes()
    for _ in range(5 if harm in (flip, truncate) else 1):
        harm(path, draw)
        told = None
        try:
            assert content(project)[what] == before[what]
        except FoundryError as error:
            told = error
        if told is not None:
            assert not copy
            assert f"foundry repair {what}" in told.mend
            assert mend(project, what)
            assert content(project)[what] == before[what]
        if faults(project, what):
            mend(project, what)
        assert faults(project, what) == []
        assert content(project)[what] == before[what]
        if copy:
            path.write_bytes(whole)
            continue
    with pytest.raises(FoundryError, match="nothing to repair"):
        mend(project, what)


def test_an_answer_that_only_the_copy_knows_is_put_back_and_not_asked_again(
    project: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    fill(project)
    connection = sqlite3.connect(project.responses_path)
    connection.execute("DELETE FROM replies WHERE request_hash = 'r007'")
    connection.commit()
    connection.close()
    cache = ResponseCache(project.responses_path)
    assert cache.get("r007") == reply("r007")
    assert cache.restored == 1
    assert "1 stored answers were put back" in capsys.readouterr().err
    assert cache.get("unknown") is None


def test_an_edited_answer_is_not_believed(project: Settings) -> None:
    fill(project)
    connection = sqlite3.connect(project.responses_path)
    connection.execute("UPDATE replies SET text = 'the answer to r0O7' WHERE request_hash = 'r007'")
    connection.commit()
    connection.close()
    cache = ResponseCache(project.responses_path)
    with pytest.raises(FoundryError, match="is not what was written"):
        cache.get("r007")
    mend(project, "responses")
    assert cache.get("r007") == reply("r007")


def test_a_file_from_before_there_were_copies_gets_one(project: Settings) -> None:
    before = fill(project)
    for name in FILES.values():
        (project.store / f"{name}.jsonl").unlink()
    append_scores(project.ledger_url, [score_row(99)])
    assert content(project)["responses"] == before["responses"]
    for what, name in FILES.items():
        assert SecondCopy(project.store / name, {}), name
        assert faults(project, what) == []


def test_a_line_that_was_cut_off_is_ended_by_the_next(project: Settings) -> None:
    cache = ResponseCache(project.responses_path)
    cache.put(reply("a"))
    copy = project.store / "responses.db.jsonl"
    copy.write_bytes(copy.read_bytes() + copy.read_bytes()[1:40])
    cache.put(reply("b"))
    assert set(SecondCopy(project.responses_path, {"replies": "request_hash"}).rows("replies")) == {"a", "b"}


def test_a_repair_waits_for_whoever_builds(project: Settings) -> None:
    fill(project)
    (project.store / "ledger.db").write_bytes(b"")
    with (
        Store(project.store).lock("c" * 64, name="thing"),
        pytest.raises(FoundryError, match="something is being built"),
    ):
        mend(project, "ledger")
    mend(project, "ledger")


# ------------------------------------------------------------------------------------------------------------ index


def test_a_lost_or_edited_index_is_written_anew_with_every_way_to_a_content(project: Settings, tmp_path: Path) -> None:
    store = Store(project.store)
    store.publish(payload(tmp_path / "p"), record=fields())
    store.publish(payload(tmp_path / "q"), record=fields("b" * 64, "twin"))
    store.publish(payload(tmp_path / "r", "other"), record=fields("c" * 64, "third"))
    wanted = list(store.records())
    for path in (project.store / "index").iterdir():
        path.unlink()
    assert "3 builds" in faults(project, "index")[0]
    assert mend(project, "index")
    assert list(store.records()) == wanted
    line = project.store / "index" / f"{'b' * 64}.json"
    line.write_text(line.read_text().replace('"kind": "dataset"', '"kind": "datases"'))
    with pytest.raises(DamagedArtifact, match="edited") as caught:
        store.record("b" * 64)
    assert caught.value.mend.startswith("foundry repair index")
    mend(project, "index")
    assert list(store.records()) == wanted
    with pytest.raises(FoundryError, match="nothing to repair"):
        mend(project, "index")


def test_an_index_from_before_is_read_and_written_anew_from_the_manifests(project: Settings, tmp_path: Path) -> None:
    store = Store(project.store)
    made = store.publish(payload(tmp_path / "p"), record=fields())
    wanted = list(store.records())
    for path in (made.folder / "records").iterdir():
        path.unlink()
    for path in (made.folder / "manifest.json", project.store / "index" / f"{'a' * 64}.json"):
        path.write_text(json.dumps(unsealed(json.loads(path.read_text()), required=True)))
    assert list(store.records()) == wanted
    (project.store / "index" / f"{'a' * 64}.json").unlink()
    mend(project, "index")
    assert list(store.records()) == wanted


@pytest.mark.parametrize("at", ["name", "declaration", "libraries"])
def test_any_edit_of_a_manifest_is_named(project: Settings, tmp_path: Path, at: str) -> None:
    store = Store(project.store)
    made = store.publish(payload(tmp_path / "p"), record=fields(), manifest={"libraries": {"torch": "2.13.0"}})
    path = made.folder / "manifest.json"
    changed = {**json.loads(path.read_text()), at: "another"}
    path.write_text(json.dumps(changed))
    with pytest.raises(DamagedArtifact, match="foundry repair thing"):
        Store(project.store).open(made.content_hash, name="thing")


def test_a_failed_verdict_made_a_passed_one_opens_nothing(project: Settings, tmp_path: Path) -> None:
    dataset = Store(project.store).publish(payload(tmp_path / "p"), record=fields())
    verdict = {"dataset_hash": dataset.content_hash, "suite_hash": "s", "passed": False, "results": []}
    write_verdict(dataset, verdict)
    path = dataset.folder / "verdict.json"
    path.write_text(path.read_text().replace("false", "true"))
    with pytest.raises(GateRefused, match="has not been checked"):
        require_verdict(dataset, name="d", suite_hash="s")
    write_verdict(dataset, replace_passed(verdict))
    require_verdict(dataset, name="d", suite_hash="s")


def replace_passed(verdict: dict[str, Any]) -> dict[str, Any]:
    return {**verdict, "passed": True}


def test_a_row_that_is_being_recorded_is_not_a_lost_one(project: Settings) -> None:
    """It stands in the second copy before it is committed: a reader who comes between waits for the writer."""
    append_scores(project.ledger_url, [score_row(1)])
    begun, read = threading.Event(), threading.Event()

    def record() -> None:
        copy = second_copy(project.ledger_url)
        assert copy is not None
        with writing(project.ledger_url) as connection:
            new = {c.name: score_row(2).get(c.name) for c in SCORES.columns}
            connection.execute(sa.insert(SCORES), [new])
            copy.append("scores", [new])
            begun.set()
            read.wait(0.5)

    writer = threading.Thread(target=record)
    writer.start()
    begun.wait(10)
    found = read_scores(project.ledger_url)
    read.set()
    writer.join()
    assert len(found) == 2


def test_a_score_comes_back_from_its_second_copy_to_the_byte(project: Settings) -> None:
    append_scores(project.ledger_url, [score_row(1) | {"components": {"voice": 1.5, "historical": 2.5}}])
    path = project.store / "ledger.db"

    def raw() -> list[tuple[object, ...]]:
        with contextlib.closing(sqlite3.connect(path)) as connection:
            return connection.execute("SELECT * FROM scores").fetchall()

    before = raw()
    path.unlink()
    mend(project, "ledger")
    assert raw() == before
