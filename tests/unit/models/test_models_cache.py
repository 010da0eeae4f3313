"""The response cache: whole groups or nothing, also after a kill and under several writers."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sqlite3
import subprocess
import sys
import textwrap
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from foundry_pipeline.errors import FoundryError
from foundry_pipeline.lineage.hashing import digest
from foundry_pipeline.models.cache import ResponseCache, renamed
from foundry_pipeline.models.requests import Reply


def reply(name: str, text: str = "yes") -> Reply:
    return Reply("", name, text, "stop", 5, 3, 0.25)


def test_what_was_put_comes_back(place: Path) -> None:
    cache = ResponseCache(place)
    assert cache.get("a") is None
    cache.put(reply("a"))
    assert ResponseCache(place).get("a") == reply("a")


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> ResponseCache:
    return ResponseCache(tmp_path_factory.mktemp("shared") / "r.db")


@settings(deadline=None, max_examples=50)
@given(text=st.text(st.characters(exclude_categories=["Cs"])))
def test_any_text_survives(shared: ResponseCache, text: str) -> None:
    name = digest(text)
    shared.put(reply(name, text))
    assert shared.get(name) == reply(name, text)


def test_a_group_is_found_whole_or_not_at_all(place: Path) -> None:
    cache = ResponseCache(place)
    cache.put_group([reply("b", "2"), reply("a", "1")])
    found = cache.get_group(["a", "b"])
    assert found is not None
    assert [r.text for r in found] == ["1", "2"]
    assert cache.get_group(["a", "b", "c"]) is None
    assert [r.request_id for r in renamed(found, ["x", "y"])] == ["x", "y"]


def test_a_large_group_is_found(place: Path) -> None:
    cache = ResponseCache(place)
    names = [f"h{i}" for i in range(1203)]
    cache.put_group([reply(n) for n in names])
    found = cache.get_group(names)
    assert found is not None
    assert [r.request_hash for r in found] == names


def test_the_first_reply_stays(place: Path) -> None:
    cache = ResponseCache(place)
    cache.put(reply("a", "first"))
    cache.put(reply("a", "second"))
    assert cache.get("a") == reply("a", "first")
    assert len(cache) == 1


def test_a_group_with_one_impossible_row_leaves_nothing(tmp_path: Path) -> None:
    cache = ResponseCache(tmp_path / "r.db")
    with pytest.raises(sqlite3.IntegrityError):
        cache.put_group([reply("a"), replace(reply("b"), finish_reason=None)])  # type: ignore[arg-type]
    assert len(cache) == 0


def test_a_kill_between_two_rows_of_a_group_leaves_nothing(tmp_path: Path) -> None:
    path = tmp_path / "r.db"
    ResponseCache(path)
    script = """
        import os, signal, sys
        from pathlib import Path
        from foundry_pipeline.lineage.database import transaction
        from foundry_pipeline.models.cache import ResponseCache

        cache = ResponseCache(Path(sys.argv[1]))
        with cache._database.connection() as connection, transaction(connection):
            connection.execute(
                "INSERT INTO replies (request_hash, text, finish_reason, prompt_tokens, completion_tokens) "
                "VALUES ('a', 'one', 'stop', 1, 1)"
            )
            os.kill(os.getpid(), signal.SIGKILL)
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(script), str(path)], check=False)
    assert done.returncode == -signal.SIGKILL
    assert len(ResponseCache(path)) == 0


def _write(path: str, start: int) -> None:
    cache = ResponseCache(Path(path))
    for i in range(start, start + 20):
        cache.put_group([reply(f"{i}-{j}", f"from {os.getpid()}") for j in range(5)])


def test_several_processes_write_at_once(place: Path) -> None:
    path = place
    context = multiprocessing.get_context("spawn")
    writers = [context.Process(target=_write, args=(str(path), start)) for start in (0, 10, 10, 20)]
    for w in writers:
        w.start()
    for w in writers:
        w.join()
    assert [w.exitcode for w in writers] == [0, 0, 0, 0]
    cache = ResponseCache(path)
    assert len(cache) == 40 * 5
    for i in range(40):
        group = cache.get_group([f"{i}-{j}" for j in range(5)])
        assert group is not None
        assert len({r.text for r in group}) == 1, "a group came from two writers"


def test_a_file_that_is_no_cache_is_named(tmp_path: Path) -> None:
    path = tmp_path / "r.db"
    path.write_bytes(b"these are not the pages of a database, by a long way" * 100)
    with pytest.raises(FoundryError, match="r.db"):
        ResponseCache(path)


def test_a_newer_layout_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "r.db"
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA user_version=99")
    connection.close()
    with pytest.raises(FoundryError, match="layout 99"):
        ResponseCache(path)


def test_a_cache_of_the_first_layout_keeps_its_replies(tmp_path: Path) -> None:
    path = tmp_path / "r.db"
    connection = sqlite3.connect(path)
    connection.execute(
        "CREATE TABLE replies (request_hash TEXT PRIMARY KEY, text TEXT NOT NULL, finish_reason TEXT NOT NULL, "
        "prompt_tokens INTEGER NOT NULL, completion_tokens INTEGER NOT NULL, seconds REAL) WITHOUT ROWID"
    )
    connection.execute("INSERT INTO replies VALUES ('a', 'yes', 'stop', 5, 3, 0.25)")
    connection.execute("PRAGMA user_version=1")
    connection.commit()
    connection.close()
    cache = ResponseCache(path)
    assert cache.get("a") == reply("a")
    paid = replace(reply("b"), cache_read_tokens=4, cache_write_tokens=2, cost=10**13)
    cache.put(paid)
    assert ResponseCache(path).get("b") == paid


def test_a_full_disk_is_said_and_what_was_stored_stays(full_disk: Path) -> None:
    cache = ResponseCache(full_disk / "r.db")
    cache.put(reply("a"))

    def fill() -> None:
        for i in range(100):
            cache.put(reply(f"b{i}", "x" * 100_000))

    with pytest.raises(FoundryError, match="free disk space"):
        fill()
    assert cache.get("a") == reply("a")
