"""Two processes, as on two machines, that want the same answers: each request is asked, and paid, once."""

from __future__ import annotations

import signal
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from foundry_pipeline.models.cache import ResponseCache
from foundry_pipeline.models.money.ledger import MoneyLedger
from foundry_pipeline.settings import DATABASE
from tests.project import wait_for
from tests.servers.asking import PRICES, ask_for, claude, facts, said, spec_for, start
from tests.servers.postgres import Postgres
from tests.servers.running import Server, running

COUNT = 60


def specs(folder: Path, place: Path, **remote: Any) -> list[dict[str, Any]]:
    """The same job on two machines, with the tables at one place."""
    made = []
    for name in ("one", "two"):
        spec = spec_for(folder / name, claude(concurrency=4, **remote), ask_for(COUNT))
        spec["cache"] = str(place.with_name("responses.db") if place.suffix else place)
        spec["money"]["ledger"] = str(place)
        made.append(spec)
    return made


def environment(place: Path) -> dict[str, str]:
    import os

    return {DATABASE: os.environ[DATABASE]} if place.name == DATABASE else {}


def asked(server: Server) -> Counter[str]:
    return Counter(line["key"] for line in server.events("received"))


@pytest.mark.parametrize("batch", [False, True], ids=["one by one", "batch"])
def test_two_that_want_the_same_answers_pay_for_them_once(tmp_path: Path, place: Path, batch: bool) -> None:
    place.parent.mkdir(parents=True)
    with running("claude", tmp_path / "server", wait=0.05, prices=PRICES) as server:
        both = specs(tmp_path, place, batch=batch)
        processes = [start(spec, server, **environment(place)) for spec in both]
        assert [p.wait(timeout=120) for p in processes] == [0, 0], [said(s) for s in both]
        answered = Counter(line["key"] for line in server.events("answered"))
        assert len(answered) == COUNT
        assert set(answered.values()) == {1}
        account = server.account()
    found = [facts(spec) for spec in both]
    if not batch:
        assert set(asked(server).values()) == {1}
        # Neither waited idly for the other: both asked, and both ended with all answers.
        assert sum(f["requests"] - f["from_cache"] - f["asked_elsewhere"] for f in found) == COUNT
    replies = [(Path(spec["work"]) / "result" / "replies.jsonl").read_bytes() for spec in both]
    assert replies[0] == replies[1]
    totals = MoneyLedger(place).totals()
    assert totals.reserved == totals.uncertain == 0
    assert totals.spent == int(account["delivered"] * 10**12)


def test_what_a_killed_one_had_under_way_is_asked_by_the_other(
    tmp_path: Path, postgres: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(DATABASE, postgres.database())
    place = tmp_path / DATABASE
    with running("claude", tmp_path / "server", wait=0.3) as server:
        one, two = specs(tmp_path, place)
        first = start(one, server, **environment(place))
        wait_for(lambda: len(server.events("answered")) >= 8)
        second = start(two, server, **environment(place))
        wait_for(lambda: len(server.events("answered")) >= 16)
        first.kill()
        assert first.wait() == -signal.SIGKILL
        stored = len(ResponseCache(place))
        assert 0 < stored < COUNT
        assert second.wait(timeout=120) == 0, said(two)
        twice = [key for key, times in asked(server).items() if times > 1]
    # At most what was on its way when the process died, of which nobody can know whether it was billed.
    assert len(twice) <= 4
    ledger = MoneyLedger(place)
    assert len(ledger.rows("state = 'settled'")) == len(ResponseCache(place)) == COUNT
    # The one that is left closes what the other left open.
    assert ledger.rows("state = 'reserved'") == []
    assert facts(two)["asked_elsewhere"] >= 0
