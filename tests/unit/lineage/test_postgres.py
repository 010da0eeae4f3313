"""The shared database: one that cannot be used is told with a mend, one that goes away loses nothing."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from foundry_pipeline.errors import FoundryError
from foundry_pipeline.lineage import postgres as database
from foundry_pipeline.lineage.ledger import append_scores, read_scores
from foundry_pipeline.lineage.sqlite_file import transaction
from foundry_pipeline.models.cache import UNSENT, ResponseCache
from foundry_pipeline.models.money.ledger import Ask, Caps, MoneyLedger
from foundry_pipeline.models.requests import Reply
from foundry_pipeline.settings import DATABASE, Settings
from tests.servers.postgres import Postgres, postgres_server
from tests.unit.lineage.ledger_sample import row

SECRET = "pl4nted-p4ssword"


@pytest.fixture(scope="module")
def own() -> Iterator[Postgres]:
    """A server that is stopped and started, with a user who needs a password."""
    with postgres_server() as server:
        server.guard("guarded", SECRET)
        yield server


def reply(name: str, text: str = "yes") -> Reply:
    return Reply("", name, text, "stop", 5, 3, 0.25, cost=7)


def refused(monkeypatch: pytest.MonkeyPatch, url: str, folder: Path) -> FoundryError:
    monkeypatch.setenv(DATABASE, url)
    attempts = (
        lambda: ResponseCache(folder / DATABASE),
        lambda: MoneyLedger(folder / DATABASE),
        lambda: append_scores(Settings(folder, folder, "p").ledger_url, [row(1)]),
        database.check_database,
    )
    for attempt in attempts:
        with pytest.raises(FoundryError) as caught:
            attempt()
        assert caught.value.mend
        assert SECRET not in str(caught.value)
    return caught.value


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("nothing of the kind", "not a URL"),
        (f"mysql://u:{SECRET}@host/db", "PostgreSQL is expected"),
        ("sqlite:////tmp/x.db", "PostgreSQL is expected"),
        (f"postgresql://u:{SECRET}@host", "names no database"),
        (f"postgresql://u:{SECRET}@127.0.0.1:9/db", "cannot be used"),
        (f"postgresql://127.0.0.1:9/db?user=u&password={SECRET}", "cannot be used"),
    ],
)
def test_a_setting_that_leads_nowhere_is_told_without_its_password(
    url: str, says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert says in str(refused(monkeypatch, url, tmp_path))
    assert not (tmp_path / DATABASE).exists()


def test_a_wrong_password_and_a_database_that_is_not_there(
    own: Postgres, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = own.database(username="guarded", password=SECRET)
    monkeypatch.setenv(DATABASE, right)
    ResponseCache(tmp_path / DATABASE).put(reply("a"))
    assert SECRET not in ResponseCache(tmp_path / DATABASE).where
    wrong = refused(monkeypatch, right.replace(SECRET, f"{SECRET}x"), tmp_path)
    assert "password" in wrong.what
    assert "correct user and password" in wrong.mend
    absent = refused(monkeypatch, f"{right.split('?')[0]}x?{right.split('?')[1]}", tmp_path)
    assert "createdb" in absent.mend
    latin = own.database("ENCODING 'LATIN1' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0")
    monkeypatch.setenv(DATABASE, latin)
    with pytest.raises(FoundryError, match="LATIN1"):
        ResponseCache(tmp_path / DATABASE)


def test_any_text_is_kept(postgres: Postgres, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(DATABASE, postgres.database())
    cache = ResponseCache(tmp_path / DATABASE)
    for name, text in (("a", "nul \0 and % and ? and ' and \\"), ("b", "𝔐 ü \U0010ffff \u2028"), ("c", "")):
        cache.put(reply(name, text))
        assert cache.get(name) == reply(name, text)


def test_a_later_layout_is_refused_and_an_earlier_one_brought_up(
    postgres: Postgres, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(DATABASE, postgres.database())
    cache = ResponseCache(tmp_path / DATABASE)
    cache.put(reply("a"))
    with cache._database.connection() as connection, transaction(connection):
        connection.execute("UPDATE foundry_layouts SET version = 99 WHERE what = 'response cache'")
    database._laid_out.clear()
    with pytest.raises(FoundryError, match="layout 99"):
        ResponseCache(tmp_path / DATABASE)
    with cache._database.connection() as connection, transaction(connection):
        connection.execute("UPDATE foundry_layouts SET version = 0 WHERE what = 'response cache'")
    assert ResponseCache(tmp_path / DATABASE).get("a") == reply("a")


def test_a_server_that_is_away_in_the_middle_loses_nothing(
    own: Postgres, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(DATABASE, own.database())
    monkeypatch.setattr(database, "WAIT_SECONDS", 0.3)
    cache, ledger = ResponseCache(tmp_path / DATABASE), MoneyLedger(tmp_path / DATABASE)
    book = ledger.book(asset="a", run="r", caps=Caps(100, 100))
    assert book.claims.take(["paid"], seconds=1) == []
    entry = book.reserve(Ask("paid", 9, "openai", "m", "2026-01-01", 1.0))
    url = Settings(tmp_path, tmp_path, "p").database
    append_scores(url, [row(1)])
    own.stop()
    try:
        with pytest.raises(FoundryError, match="are kept in") as caught:
            cache.put(reply("paid", "an answer that was paid for"))
        assert "carried over" in caught.value.mend
        for attempt in (lambda: book.settle(entry, cost=7, usage=None), lambda: append_scores(url, [row(2)])):
            with pytest.raises(FoundryError, match="cannot be used"):
                attempt()
    finally:
        own.start()
    again = ResponseCache(tmp_path / DATABASE)
    assert again.get("paid") == reply("paid", "an answer that was paid for")
    assert len(ResponseCache(tmp_path / UNSENT)) == 0
    assert ledger.totals().reserved == 9
    book.settle(entry, cost=7, usage=None)
    assert ledger.totals().spent == 7
    assert append_scores(url, [row(1), row(2)]) == 1
    assert len(read_scores(url)) == 2


def test_a_restart_is_waited_for(own: Postgres, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(DATABASE, own.database())
    cache = ResponseCache(tmp_path / DATABASE)
    own.stop()
    back = threading.Thread(target=lambda: (time.sleep(0.5), own.start()))
    back.start()
    cache.put(reply("a"))
    back.join()
    assert cache.get("a") == reply("a")
    assert not (tmp_path / UNSENT).exists()
