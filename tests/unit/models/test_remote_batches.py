"""Message Batches over real HTTP: any order, twice, never, expired; killed and resumed; and never paid twice."""

from __future__ import annotations

import os
import signal
import time
from collections import Counter
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from foundry_pipeline.lineage.sqlite_file import transaction
from foundry_pipeline.models.cache import ResponseCache
from foundry_pipeline.models.generate import read_replies
from foundry_pipeline.models.money.ledger import MoneyLedger
from foundry_pipeline.models.money.prices import usd
from foundry_pipeline.models.remote.anthropic_batches import read_result
from foundry_pipeline.models.remote.failures import AttemptFailed
from tests.servers.asking import PRICES, ask_for, claude, files_with, run, said, spec_for, start
from tests.servers.running import KEY, Server, running

FAULTS = {"duplicate": 0.1, "missing": 0.08, "errored": 0.08, "expired": 0.05, "canceled": 0.03, "thinking": 0.1}


def ledger_of(spec: dict[str, Any]) -> MoneyLedger:
    return MoneyLedger(Path(spec["money"]["ledger"]))


def kill_when(spec: dict[str, Any], server: Server, event: str) -> None:
    """Start the script and kill it as soon as the server has seen something."""
    process = start(spec, server)
    until = time.monotonic() + 60
    while not server.events(event) and time.monotonic() < until:
        assert process.poll() is None, said(spec)[-2000:]
        time.sleep(0.005)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()


def test_results_in_any_order_twice_or_never_end_with_every_answer(tmp_path: Path) -> None:
    spec = spec_for(tmp_path / "run", claude(batch=True, batch_size=60), ask_for(120))
    script: dict[str, Any] = {"seed": 4, "cut_results": True, "prices": PRICES}
    with running("claude", tmp_path / "server", faults=FAULTS, **script) as server:
        assert run(spec, server) == 0, said(spec)[-3000:]
        account, batches = server.account(), server.events("batch")
    assert [r.request_id for r in read_replies(Path(spec["work"]) / "result")] == [f"q{i:03}" for i in range(120)]
    assert len(ResponseCache(Path(spec["cache"]))) == 120
    totals = ledger_of(spec).totals()
    assert Decimal(usd(totals.spent)) == account["delivered"]
    assert totals.reserved == 0
    assert Decimal(usd(totals.uncertain)) >= account["lost"] > 0
    # One request before each batch goes alone, so that the others find the common beginning in the cache.
    assert len(batches[0]["keys"]) == 59
    assert len(batches) >= 3
    warm = [r for r in ledger_of(spec).rows("state = 'settled' AND batch = ''") if r["cache_write_tokens"]]
    assert len(warm) == 1
    assert all(r["cache_read_tokens"] for r in ledger_of(spec).rows("state = 'settled' AND batch != ''"))
    assert files_with(tmp_path, KEY, but=("config.json",)) == []


@pytest.mark.parametrize("moment", ["batch", "retrieved"])
def test_a_batch_killed_before_its_results_is_resumed_not_made_again(tmp_path: Path, moment: str) -> None:
    """Killed as soon as the batch was there (its id perhaps never heard), and while it was waited for."""
    requests = ask_for(40, system=False)
    spec = spec_for(tmp_path / "run", claude(batch=True), requests)
    with running("claude", tmp_path / "server", batch_seconds=4.0, prices=PRICES) as server:
        kill_when(spec, server, moment)
        assert ledger_of(spec).totals().reserved > 0
        assert run(spec, server) == 0, said(spec)[-3000:]
        assert len(server.events("batch")) == 1
        account = server.account()
    assert Decimal(usd(ledger_of(spec).totals().counted)) == account["delivered"]
    assert len(ResponseCache(Path(spec["cache"]))) == 40


def test_a_batch_whose_id_was_never_heard_is_found_on_the_server(tmp_path: Path) -> None:
    spec = spec_for(tmp_path / "run", claude(batch=True), ask_for(25, system=False))
    with running("claude", tmp_path / "server", lose_created=True, prices=PRICES) as server:
        assert run(spec, server) == 0, said(spec)[-3000:]
        assert len(server.events("batch")) == 1
        assert "holds these requests: its results are taken" in said(spec)
        assert Decimal(usd(ledger_of(spec).totals().counted)) == server.account()["delivered"]


def test_a_killed_batch_is_resumed_also_by_a_run_without_batches(tmp_path: Path) -> None:
    requests = ask_for(20, system=False)
    spec = spec_for(tmp_path / "run", claude(batch=True), requests)
    with running("claude", tmp_path / "server", batch_seconds=2.0) as server:
        kill_when(spec, server, "retrieved")
        plain = spec_for(tmp_path / "run", claude(batch=False), requests)
        assert run(plain, server) == 0, said(spec)
        assert len(server.events("received")) == 0
        assert Counter(line["key"] for line in server.events("answered")).most_common(1)[0][1] == 1


def test_a_batch_that_is_gone_counts_as_uncertain_and_is_asked_anew(tmp_path: Path) -> None:
    spec = spec_for(tmp_path / "run", claude(batch=True), ask_for(5, system=False))
    with running("claude", tmp_path / "server", batch_seconds=30.0) as server:
        kill_when(spec, server, "retrieved")
        ledger = ledger_of(spec)
        with ledger.connection() as connection, transaction(connection):
            (batch,) = connection.execute("UPDATE batches SET provider_id = 'msgbatch_9999' RETURNING batch").fetchone()
            ledger.keep(connection, "batches", [batch])
    with running("claude", tmp_path / "later", port=int(server.url.rsplit(":", 1)[1])) as later:
        assert run(spec, later) == 0, said(spec)
    totals = ledger_of(spec).totals()
    assert totals.uncertain > 0
    assert "cannot be had any more" in said(spec)


def test_the_cap_bounds_a_batch_too(tmp_path: Path) -> None:
    spec = spec_for(tmp_path / "run", claude(batch=True), ask_for(60, system=False), budget="0.02")
    with running("claude", tmp_path / "server", prices=PRICES) as server:
        assert run(spec, server) == 1
        assert "budget is reached" in said(spec)
        stored = len(ResponseCache(Path(spec["cache"])))
        assert 0 < stored < 60
        assert server.account()["delivered"] <= Decimal("0.02")
        spec["money"]["project_usd"] = "1"
        assert run(spec, server) == 0
        keys = [key for line in server.events("batch") for key in line["keys"]]
        assert len(keys) == len(set(keys)) == 60


@pytest.mark.parametrize(
    ("result", "kind"),
    [
        (None, "malformed"),
        ({"type": "succeeded", "message": "no object"}, "malformed"),
        ({"type": "errored", "error": {"error": {"type": "invalid_request_error", "message": "x"}}}, "400"),
        ({"type": "errored", "error": "text"}, "500"),
        ({"type": "expired"}, "batch expired"),
        ({"type": "\x1b[31mstrange"}, "malformed"),
    ],
)
def test_a_result_that_is_no_answer_says_what_it_is(result: Any, kind: str) -> None:
    with pytest.raises(AttemptFailed) as caught:
        read_result(result)
    assert caught.value.failure.kind.startswith(kind)
    assert "\x1b" not in caught.value.failure.told()
