"""Claude over real HTTP against a server that fails on a seeded script: every answer once, the money exact, no key kept."""

from __future__ import annotations

import json
from collections import Counter
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from foundry_pipeline.models.cache import ResponseCache
from foundry_pipeline.models.generate import read_replies
from foundry_pipeline.models.money.ledger import MoneyLedger
from foundry_pipeline.models.money.prices import usd
from foundry_pipeline.models.requests import Reply
from tests.servers.asking import PRICES, ask_for, claude, facts, files_with, run, said, spec_for, start
from tests.servers.running import KEY, running

FAULTS = {
    "429": 0.06,
    "500": 0.05,
    "529": 0.05,
    "timeout": 0.02,
    "cut": 0.05,
    "not_json": 0.05,
    "no_usage": 0.03,
    "thinking": 0.1,
    "pause": 0.01,
}


def dollars(amount: int) -> Decimal:
    return Decimal(usd(amount))


def prefix(which: int) -> tuple[str, bool]:
    """A block of the system prompt that is to be kept by the server; one of several."""
    return f"You keep harbour light {which}, and speak as its keeper. " * 20, True


@pytest.fixture(scope="module")
def faulted(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """200 requests through every fault, and the same command once more."""
    folder = tmp_path_factory.mktemp("faulted")
    requests = ask_for(196) + [
        *ask_for(1, text="[refuse] tell me a secret"),
        *ask_for(1, text="[long] tell me all"),
        *ask_for(2, text="twice the same question"),
    ]
    # A prefix is written into the server's cache by whichever request comes first; a fault may lose what that one was billed
    # for, which is why there are twenty of them.
    requests = [
        type(r)(f"q{i:03}", r.messages, 64, 0.7, 40, 0.95, 5 if i >= 198 else i, system=(prefix(min(i, 198) % 20),))
        for i, r in enumerate(requests)
    ]
    spec = spec_for(folder / "run", claude(timeout_seconds=0.6, concurrency=12), requests)
    with running("claude", folder / "server", faults=FAULTS, seed=11, hang=1.0, prices=PRICES) as server:
        first = start(spec, server).wait(timeout=120)
        after_first = len(server.log())
        replies = (Path(spec["work"]) / "result" / "replies.jsonl").read_bytes()
        found = facts(spec)
        second = run(spec, server)
        return {
            "spec": spec,
            "codes": (first, second),
            "log": server.log(),
            "after_first": after_first,
            "account": server.account(),
            "replies": replies,
            "facts": found,
            "again": facts(spec),
            "folder": folder,
        }


def test_every_request_ends_with_an_answer_stored_once(faulted: dict[str, Any]) -> None:
    assert faulted["codes"] == (0, 0), said(faulted["spec"])[-3000:]
    replies = read_replies(Path(faulted["spec"]["work"]) / "result")
    assert [r.request_id for r in replies] == [f"q{i:03}" for i in range(200)]
    assert replies[196].finish_reason == "refusal"
    assert replies[197].finish_reason == "length"
    assert replies[198].text == replies[199].text
    # 199 different requests, each answered under its own key and never twice.
    assert len(ResponseCache(Path(faulted["spec"]["cache"]))) == 199
    answered = Counter(line["key"] for line in faulted["log"] if line["event"] == "answered")
    assert len(answered) == 199
    assert set(answered.values()) == {1}
    assert sum(line["event"] == "fault" for line in faulted["log"]) > 30, "the script of faults did not run"


def test_the_same_command_asks_nobody_and_says_the_same(faulted: dict[str, Any]) -> None:
    assert len(faulted["log"]) == faulted["after_first"]
    assert (Path(faulted["spec"]["work"]) / "result" / "replies.jsonl").read_bytes() == faulted["replies"]
    assert faulted["again"]["from_cache"] == 200
    assert faulted["again"]["cost_usd"] == 0
    assert faulted["again"]["cost_of_answers_usd"] == faulted["facts"]["cost_of_answers_usd"]


def test_the_ledger_is_the_servers_own_account(faulted: dict[str, Any]) -> None:
    ledger, account = MoneyLedger(Path(faulted["spec"]["money"]["ledger"])), faulted["account"]
    rows = ledger.rows("state = 'settled'")
    exact = sum(r["cost"] for r in rows if not r["note"])
    assert dollars(exact) == account["delivered"]
    # Answers without usage cannot be priced: they count at their reservation, which is more, and are marked.
    guessed = [r for r in rows if r["note"]]
    assert len(guessed) == faulted["facts"]["without_usage"] > 0
    assert all(r["cost"] == r["reserved"] for r in guessed)
    assert dollars(sum(r["cost"] for r in guessed)) >= account["without_usage"]
    totals = ledger.totals()
    assert totals.reserved == 0
    assert dollars(totals.uncertain) >= account["lost"]
    assert (dollars(totals.uncertain) > 0) == (account["lost"] > 0)
    assert faulted["facts"]["cost_of_answers_usd"] == usd(exact)


def test_usage_is_kept_with_the_answer(faulted: dict[str, Any]) -> None:
    found = faulted["facts"]
    rows = MoneyLedger(Path(faulted["spec"]["money"]["ledger"])).rows("state = 'settled'")
    assert found["cache_read_tokens"] == sum(r["cache_read_tokens"] for r in rows) > 0
    assert found["cache_write_tokens"] == sum(r["cache_write_tokens"] for r in rows) > 0
    assert found["completion_tokens"] == sum(r["output_tokens"] for r in rows)
    assert (found["refused"], found["truncated"]) >= (1, 1)


def test_no_key_is_written_anywhere(faulted: dict[str, Any]) -> None:
    assert files_with(faulted["folder"], KEY, but=("config.json",)) == []
    assert files_with(faulted["folder"], KEY) != [], "the search itself finds nothing"


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({"key": "another-key-altogether"}, ["401 authentication", "ANTHROPIC_API_KEY"]),
        ({"faults": {"403": 1.0}}, ["403 permission", "whose account may use"]),
        ({"faults": {"late429": 1.0}}, ["asks to wait 3600 s", "run the same command again in 3600 s"]),
    ],
)
def test_what_would_fail_every_request_ends_the_run_at_once(
    tmp_path: Path, config: dict[str, Any], expected: list[str]
) -> None:
    spec = spec_for(tmp_path / "run", claude(concurrency=4), ask_for(40))
    with running("claude", tmp_path / "server", echo_key=True, **config) as server:
        assert run(spec, server) == 1
        log = server.log()
    text = said(spec)
    assert all(words in text for words in expected), text
    assert "Traceback" not in text
    assert len([line for line in log if line["event"] in ("received", "refused")]) <= 8
    assert files_with(tmp_path, KEY, but=("config.json",)) == []
    totals = MoneyLedger(Path(spec["money"]["ledger"])).totals()
    assert (totals.spent, totals.reserved, totals.uncertain) == (0, 0, 0)


def test_requests_that_cannot_be_answered_are_told_by_kind_and_the_rest_is_kept(tmp_path: Path) -> None:
    requests = ask_for(30)
    bad, huge = ask_for(31, text="[bad] {i}")[30:], ask_for(32, text="[huge] {i}")[31:]
    spec = spec_for(tmp_path / "run", claude(), requests + bad + huge)
    with running("claude", tmp_path / "server") as server:
        assert run(spec, server) == 1
        assert run(spec, server) == 1
        received = Counter(line["key"] for line in server.events("received"))
    error = json.loads((tmp_path / "run" / "work" / "error.json").read_text())
    assert "2 requests got no answer (1 × 400 bad request, 1 × 413 too large)" in error["what"]
    assert "q030" in error["what"]
    assert "shorten the prompt" in error["mend"]
    assert len(ResponseCache(Path(spec["cache"]))) == 30
    # Asked again by the second run: the two that have no answer, and nothing else.
    assert sorted(received.values()) == [1] * 30 + [2, 2]


def test_a_server_that_only_fails_is_left_after_a_window(tmp_path: Path) -> None:
    spec = spec_for(tmp_path / "run", claude(attempts=1, concurrency=4), ask_for(200))
    with running("claude", tmp_path / "server", faults={"500": 0.9}, seed=3) as server:
        assert run(spec, server) == 1
        received, answered = len(server.events("received")), len(server.events("answered"))
    assert "stopped early, since more than half of the last 20 requests failed" in said(spec)
    assert received < 40
    assert len(ResponseCache(Path(spec["cache"]))) == answered


def test_a_model_without_a_price_is_not_asked(tmp_path: Path) -> None:
    model = claude()
    spec = spec_for(tmp_path / "run", type(model)(**{**model.__dict__, "path": "claude-unheard-of"}), ask_for(2))
    with running("claude", tmp_path / "server") as server:
        assert run(spec, server) == 1
        assert server.log() == []
    assert "does not know anthropic's model 'claude-unheard-of'" in said(spec)


def test_without_a_key_nothing_is_sent_and_the_variable_is_named(tmp_path: Path) -> None:
    spec = spec_for(tmp_path / "run", claude(), ask_for(1))
    assert run(spec, None) == 1
    assert "the environment has no ANTHROPIC_API_KEY" in said(spec)
    assert "Traceback" not in said(spec)


def test_a_stored_answer_of_one_server_is_not_taken_for_anothers(tmp_path: Path) -> None:
    spec = spec_for(tmp_path / "run", claude(), ask_for(3))
    with running("claude", tmp_path / "one") as server:
        assert run(spec, server) == 0
    with running("claude", tmp_path / "two") as other:
        assert run(spec, other) == 0
        assert len(other.events("received")) == 3
    assert len(ResponseCache(Path(spec["cache"]))) == 6


def test_replies_read_back_hold_no_circumstance(faulted: dict[str, Any]) -> None:
    line = json.loads(faulted["replies"].split(b"\n")[0])
    assert set(line) == {"request_id", "request_hash", "text", "finish_reason", "prompt_tokens", "completion_tokens"}
    assert isinstance(Reply(**line), Reply)
