"""The score ledger, the same tests on SQLite and on a real PostgreSQL server."""

from __future__ import annotations

import math
import multiprocessing
import sqlite3
from pathlib import Path
from typing import Any

import psycopg2
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from foundry_pipeline.errors import FoundryError
from foundry_pipeline.lineage.collapses import append_collapse, read_collapses
from foundry_pipeline.lineage.ledger import SCORES, append_scores, find_score, moment, read_scores
from foundry_pipeline.lineage.ledger_database import reading, shown, writing
from foundry_pipeline.lineage.ledger_tables import METADATA
from foundry_pipeline.lineage.ledger_versions import NEWEST, found_version
from tests.unit.lineage.ledger_sample import HOSTILE, LATER, columns, old_ledger, raw, row

REFUSED = "never changed or deleted"
DRIVER_ERRORS = (sqlite3.DatabaseError, psycopg2.Error)
PROCESSES, ROWS_EACH = 8, 12


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'a ledger? 100%.db'}"
    return request.getfixturevalue("postgres").database()


def test_a_row_comes_back_as_it_was_recorded_and_is_recorded_once(url: str) -> None:
    rows = [row(1), row(2, run=HOSTILE, overall=None, components=None, base_model="H₂O 𝔐 \U0001f600")]
    assert append_scores(url, rows) == 2
    assert read_scores(url) == rows
    assert append_scores(url, [row(2, run=HOSTILE), row(3), row(3)]) == 1
    assert [r["score_id"] for r in read_scores(url)] == [row(n)["score_id"] for n in (1, 2, 3)]


def test_the_same_inputs_with_another_outcome_stand_beside_the_first(url: str) -> None:
    other = row(1, overall=1.0, artifact_hash="f" * 64)
    assert append_scores(url, [row(1)]) == 1
    assert append_scores(url, [other]) == 1
    assert append_scores(url, [other, row(1)]) == 0
    first, second = sorted(read_scores(url), key=lambda r: -r["overall"])
    assert first == row(1)
    assert second == {**other, "score_id": second["score_id"]}
    assert second["score_id"] != first["score_id"]


def test_the_database_itself_refuses_to_change_or_delete(url: str) -> None:
    append_scores(url, [row(1), row(2)])
    statements = ["UPDATE scores SET overall = 9.9", "DELETE FROM scores", "UPDATE collapses SET step = 1"]
    if url.startswith("sqlite"):
        names = ", ".join(row(1))
        statements.append(f"INSERT OR REPLACE INTO scores ({names}) SELECT {names} FROM scores")
    else:
        statements.append("TRUNCATE scores")
        names = ", ".join(row(1))
        statements.append(
            f"INSERT INTO scores ({names}) SELECT {names} FROM scores ON CONFLICT (score_id) DO UPDATE SET overall = 9.9"
        )
    for statement in statements:
        if "collapses" in statement:
            append_collapse(url, COLLAPSE)
        with raw(url) as execute, pytest.raises(DRIVER_ERRORS, match=REFUSED):
            execute(statement)
    assert read_scores(url) == [row(1), row(2)]


COLLAPSE: dict[str, Any] = {
    "run": "keeper_first", "profile": "tiny", "rule": "kl", "step": 10, "steps": 85, "told": "it jumped \0 \ud800", "roll_backs": 1,
    "method": "orpo", "learning_rate": 0.05, "lora_rank": 64, "dataset": "keeper_dataset_v1", "dataset_hash": "d" * 64,
    "base_model": "Small", "input_hash": "a" * 64, "attempt": 1, "seconds": 31.5, "code_version": "c",
}  # fmt: skip


def test_collapses_stand_beside_the_scores(url: str) -> None:
    assert read_collapses(url) == []
    assert append_collapse(url, COLLAPSE)
    assert not append_collapse(url, COLLAPSE)
    (found,) = read_collapses(url, run="keeper_first")
    # No database keeps these two characters; they are written out.
    assert found["told"] == "it jumped \\x00 \\ud800"
    assert read_collapses(url, run="another") == []
    assert read_scores(url) == []


# -- layouts -------------------------------------------------------------------------------------------------------


def test_an_old_ledger_is_read_as_it_is_and_migrated_without_loss_by_the_next_score(url: str) -> None:
    old = old_ledger(url, [row(n, run=f"run {n} {HOSTILE}") for n in range(1, 40)])
    path = Path(url.removeprefix("sqlite:///"))
    before = path.read_bytes() if url.startswith("sqlite") else None
    expected = sorted(
        ({**r, **dict.fromkeys(LATER)} for r in old), key=lambda r: (r["recorded_at"], r["run"], r["mode"])
    )
    assert read_scores(url) == expected
    with reading(url) as connection:
        assert connection is not None
        assert found_version(connection) == 0, "reading migrates nothing"
    if before is not None:
        assert path.read_bytes() == before
    assert append_scores(url, [row(99, recorded_at="2026-12-31T00:00:00+00:00")]) == 1
    assert read_scores(url) == [*expected, row(99, recorded_at="2026-12-31T00:00:00+00:00")]
    with reading(url) as connection:
        assert connection is not None
        assert found_version(connection) == NEWEST
    with raw(url) as execute, pytest.raises(DRIVER_ERRORS, match=REFUSED):
        execute("DELETE FROM scores")


def test_migrations_end_where_the_tables_are_declared(url: str) -> None:
    append_scores(url, [row(1)])
    for table in METADATA.sorted_tables:
        declared = {c.name: bool(c.nullable) for c in table.columns}
        found = columns(url, table.name)
        assert found.keys() == declared.keys()
        for name, nullable in declared.items():
            # SQLite calls a primary key nullable unless told otherwise.
            assert found[name] == nullable or table.c[name].primary_key, (table.name, name)


def test_what_a_later_version_made_and_what_is_not_a_ledger_is_left_alone(url: str) -> None:
    with raw(url) as execute:
        execute("CREATE TABLE scores (player VARCHAR, points INTEGER)")
    for attempt in (lambda: append_scores(url, [row(1)]), lambda: read_scores(url)):
        with pytest.raises(FoundryError, match="not the ledger's") as caught:
            attempt()
        assert "FOUNDRY_LEDGER_URL" in caught.value.mend
    assert columns(url, "scores").keys() == {"player", "points"}
    with raw(url) as execute:
        execute("DROP TABLE scores")
    append_scores(url, [row(1)])
    with raw(url) as execute:
        execute("INSERT INTO ledger_version VALUES (99, 'then', 'something new')")
    for attempt in (lambda: append_scores(url, [row(2)]), lambda: read_scores(url)):
        with pytest.raises(FoundryError, match="has layout 99"):
            attempt()


def test_a_migration_that_fails_leaves_the_old_ledger(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from foundry_pipeline.lineage import ledger_versions

    old_ledger(url, [row(1)])

    def fails(connection: Any) -> None:
        ledger_versions._append_only(connection)
        raise RuntimeError("cut off")

    steps = (*ledger_versions.MIGRATIONS[:2], ("fails", fails))
    monkeypatch.setattr(ledger_versions, "MIGRATIONS", steps)
    with pytest.raises(RuntimeError, match="cut off"):
        append_scores(url, [row(2)])
    assert "prompts" not in columns(url, "scores")
    monkeypatch.undo()
    assert append_scores(url, [row(2)]) == 1
    assert len(read_scores(url)) == 2


# -- several writers -----------------------------------------------------------------------------------------------


def _write(url: str, number: int, start: Any, failures: Any) -> None:
    try:
        start.wait(60)
        for i in range(ROWS_EACH):
            # One row of its own, and one that every process tries to record.
            append_scores(url, [row(1000 * (number + 1) + i), row(i, seconds=float(i))])
    except BaseException as error:
        failures.put(repr(error))


def test_eight_processes_lose_no_row_and_meet_no_lock(url: str) -> None:
    old_ledger(url, [row(999_999)])  # they meet while it is migrated, too
    context = multiprocessing.get_context("fork")
    start, failures = context.Barrier(PROCESSES), context.SimpleQueue()
    workers = [context.Process(target=_write, args=(url, n, start, failures)) for n in range(PROCESSES)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(120)
    assert [w.exitcode for w in workers] == [0] * PROCESSES
    told = [failures.get() for _ in range(PROCESSES) if not failures.empty()]
    assert told == []
    found = {r["score_id"] for r in read_scores(url)}
    own = {row(1000 * (n + 1) + i)["score_id"] for n in range(PROCESSES) for i in range(ROWS_EACH)}
    shared = {row(i)["score_id"] for i in range(ROWS_EACH)}
    assert found == own | shared | {row(999_999)["score_id"]}
    assert len(read_scores(url)) == len(found)


# -- reading -------------------------------------------------------------------------------------------------------


def test_filters(url: str) -> None:
    append_scores(
        url,
        [
            row(1),
            row(2, run="other", mode="base"),
            row(3, judge="claude", judge_version="c" * 16),
            row(4, dataset="keeper_dataset_v2", dataset_hash="e" * 64, suite_hash="6" * 64, profile="full"),
        ],
    )

    def found(**filters: str) -> list[int]:
        return [int(r["score_id"], 16) for r in read_scores(url, **filters)]

    assert found() == [1, 2, 3, 4]
    assert found(run="other") == [2]
    assert found(mode="adapter", judge="rubric-local") == [1, 4]
    assert found(judge="cccccccc") == [3]
    assert found(judge="c") == []
    assert found(dataset="keeper_dataset_v2") == found(dataset="eeeeeeee") == found(suite="66") == [4]
    assert found(profile="full") == [4]
    assert found(since="2026-11-04") == [3, 4]
    assert found(until="2026-11-04") == [1, 2]
    assert found(since="2026-11-03T12:00:00+02:00", until="2026-11-05T09:59:59") == [2, 3]
    assert found(run="' OR 1=1 --") == found(run="%") == []


def test_a_score_is_found_by_the_beginning_of_its_id(url: str) -> None:
    append_scores(url, [row(0xAB), row(0xAC)])
    whole = row(0xAB)["score_id"]
    assert find_score(url, whole) == row(0xAB)
    assert find_score(url, "ff") is None
    assert find_score(url, "") is None
    with pytest.raises(FoundryError, match="beginning of 2 scores"):
        find_score(url, whole[:10])


def test_a_number_that_is_none_is_refused_and_nothing_recorded(url: str) -> None:
    for bad in (math.nan, math.inf):
        for changes in ({"overall": bad}, {"categories": {"ground_truth": bad}}):
            with pytest.raises(FoundryError, match="which is no score"):
                append_scores(url, [row(1), row(2, **changes)])
    assert read_scores(url) == []


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(texts=st.lists(st.text(st.characters(), max_size=20), min_size=1, max_size=4, unique=True))
def test_any_text_is_kept(url: str, texts: list[str]) -> None:
    key = abs(hash(tuple(texts)))
    rows = [row(16 * key + i, run=t, categories={t: 1.0}) for i, t in enumerate(texts)]
    append_scores(url, rows)
    found = {r["score_id"]: r for r in read_scores(url)}
    for made in rows:
        storable = made["run"].replace("\0", "\\x00").encode("utf-8", "backslashreplace").decode()
        assert found[made["score_id"]]["run"] == storable
        assert found[made["score_id"]]["categories"] == {storable: 1.0}


# -- what cannot be used -------------------------------------------------------------------------------------------


def test_looking_for_a_ledger_makes_none(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'deep' / 'ledger.db'}"
    assert read_scores(url) == []
    assert not (tmp_path / "deep").exists()


def test_a_damaged_file_is_named_and_left(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    path.write_bytes(b"this was never a database, only text of some length" * 100)
    for attempt in (lambda: append_scores(f"sqlite:///{path}", [row(1)]), lambda: read_scores(f"sqlite:///{path}")):
        with pytest.raises(FoundryError, match="is damaged") as caught:
            attempt()
        assert "foundry repair ledger" in caught.value.mend
        assert caught.value.where == f"sqlite:///{path}"
    assert path.read_bytes().startswith(b"this was never")


def test_a_full_disk_loses_nothing(full_disk: Path) -> None:
    url = f"sqlite:///{full_disk / 'ledger.db'}"
    append_scores(url, [row(1)])
    with pytest.raises(FoundryError, match="cannot be used") as caught:
        append_scores(url, [row(2 + n, base_model="x" * 200_000) for n in range(20)])
    assert "free disk space" in caught.value.mend
    assert read_scores(url) == [row(1)]


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("mysql://root:secret@host/db", "of the kind `mysql`"),
        ("not a url", "not a URL"),
        ("sqlite://", "of the kind `sqlite`"),
        ("sqlite:///", "of the kind `sqlite`"),
        ("postgresql://someone:secret@127.0.0.1:1/none", "cannot be used"),
    ],
)
def test_a_url_that_leads_nowhere_is_told_without_its_password(url: str, says: str) -> None:
    for attempt in (lambda: append_scores(url, [row(1)]), lambda: read_scores(url)):
        with pytest.raises(FoundryError) as caught:
            attempt()
        assert says in str(caught.value)
        assert caught.value.mend
        assert "secret" not in str(caught.value)
    assert "secret" not in shown(url)


def test_nothing_is_written_by_a_connection_for_reading(url: str) -> None:
    append_scores(url, [row(1)])

    def try_to() -> None:
        with reading(url) as connection:
            assert connection is not None
            connection.execute(SCORES.insert(), [row(2)])

    with pytest.raises(FoundryError):
        try_to()
    assert len(read_scores(url)) == 1


def test_what_fails_within_a_transaction_leaves_nothing_of_it(url: str) -> None:
    append_scores(url, [row(1)])

    def cut_off() -> None:
        with writing(url) as connection:
            connection.execute(SCORES.insert(), [row(2)])
            raise RuntimeError("cut off")

    with pytest.raises(RuntimeError):
        cut_off()
    assert read_scores(url) == [row(1)]


@settings(max_examples=50, deadline=None)
@given(st.text(max_size=12))
def test_a_moment_is_read_or_refused(text: str) -> None:
    try:
        found = moment(text)
    except FoundryError:
        return
    assert found.endswith("+00:00")


def test_moments() -> None:
    assert moment("2026-11-21") == "2026-11-21T00:00:00+00:00"
    assert moment("2026-11-21T20:14+01:00") == "2026-11-21T19:14:00+00:00"
    assert moment("7d") < moment("1h") < moment("0m")
    for text in ("", "7", "yesterday", "7y", "999999w", "2026-13-01"):
        with pytest.raises(FoundryError, match="no moment"):
            moment(text)
