"""A hard budget under concurrency, an orderly end at a signal, and servers that speak the OpenAI protocol."""

from __future__ import annotations

import json
import signal
import time
from collections import Counter
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from foundry_pipeline.declarations.remote import RemoteService
from foundry_pipeline.errors import FoundryError
from foundry_pipeline.models.cache import ResponseCache
from foundry_pipeline.models.generate import generate, read_replies
from foundry_pipeline.models.money.ledger import MoneyLedger
from foundry_pipeline.models.money.prices import usd
from foundry_pipeline.models.money.spending import open_spending
from foundry_pipeline.models.remote import remote_ref
from foundry_pipeline.models.requests import ChatRequest, ModelRef, Reply
from tests.servers.asking import (
    MODEL,
    PRICES,
    ask_for,
    claude,
    facts,
    files_with,
    price_table,
    run,
    said,
    spec_for,
    start,
)
from tests.servers.running import KEY, Server, running


def ledger_of(spec: dict[str, Any]) -> MoneyLedger:
    return MoneyLedger(Path(spec["money"]["ledger"]))


def test_the_cap_is_never_exceeded_and_raising_it_goes_on(tmp_path: Path) -> None:
    """Two processes with eight requests under way each, on one ledger with room for a part of them."""
    specs = [spec_for(tmp_path / "run", claude(), ask_for(150), budget="0.08")]
    other = json.loads(json.dumps(specs[0]))
    other |= {"requests": str(tmp_path / "other" / "requests.jsonl"), "work": str(tmp_path / "other" / "work")}
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "requests.jsonl").write_text(
        (tmp_path / "run" / "requests.jsonl").read_text().replace("Question", "Other question")
    )
    specs.append(other)
    with running("claude", tmp_path / "server", slow=0.02, prices=PRICES, words=40) as server:
        processes = [start(spec, server) for spec in specs]
        most = 0
        while any(process.poll() is None for process in processes):
            most = (
                max(most, ledger_of(specs[0]).totals().counted) if Path(specs[0]["money"]["ledger"]).exists() else most
            )
            time.sleep(0.02)
        assert [process.wait() for process in processes] == [1, 1]
        assert Decimal(usd(most)) <= Decimal("0.08")
        account = server.account()["delivered"]
        totals = ledger_of(specs[0]).totals()
        # Everything that was under way has arrived, is stored and is settled.
        assert (totals.reserved, totals.uncertain) == (0, 0)
        assert Decimal(usd(totals.spent)) == account <= Decimal("0.08")
        assert Decimal(usd(totals.spent)) > Decimal("0.06"), "it stopped long before the cap"
        stored = len(ResponseCache(Path(specs[0]["cache"])))
        assert stored == len(server.events("answered")) < 300
        text = said(specs[0])
        assert "the project's budget is reached: spent 0.0" in text or "the run's budget is reached" in text
        assert "cap 0.0800" in text
        for spec in specs:
            spec["money"]["project_usd"] = "1"
            assert run(spec, server) == 0, said(spec)
        answered = Counter(line["key"] for line in server.events("answered"))
    assert len(answered) == 300
    assert set(answered.values()) == {1}


def test_no_budget_means_that_nothing_is_sent(tmp_path: Path) -> None:
    spec = spec_for(tmp_path / "run", claude(), ask_for(3), budget="0")
    with running("claude", tmp_path / "server") as server:
        assert run(spec, server) == 1
        assert server.log() == []
    assert "budget is reached: spent 0.0000 USD" in said(spec)
    assert "raise `budget: {" in said(spec)


def test_a_signal_ends_a_run_in_order(tmp_path: Path) -> None:
    spec = spec_for(tmp_path / "run", claude(concurrency=4), ask_for(200))
    with running("claude", tmp_path / "server", slow=0.6, prices=PRICES) as server:
        process = start(spec, server)
        until = time.monotonic() + 60
        while len(server.events("answered")) < 8 and time.monotonic() < until:
            time.sleep(0.02)
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=20) == 143
        totals, account = ledger_of(spec).totals(), server.account()
        assert (totals.reserved, totals.uncertain) == (0, 0)
        assert Decimal(usd(totals.spent)) == account["delivered"]
        assert len(ResponseCache(Path(spec["cache"]))) == len(server.events("answered")) < 200


def test_progress_tells_rate_money_and_time_left(tmp_path: Path) -> None:
    spec = spec_for(tmp_path / "run", claude(concurrency=4), ask_for(60))
    with running("claude", tmp_path / "server", slow=0.5, prices=PRICES) as server:
        assert run(spec, server) == 0
    lines = [line for line in said(spec).splitlines() if "/60 [" in line]
    assert any("left]" in line and "per_second" in line and "usd 0.0" in line for line in lines), said(spec)


def test_token_counts_of_the_provider_make_reservations_smaller(tmp_path: Path) -> None:
    requests = ask_for(6)
    with running("claude", tmp_path / "server", prices=PRICES) as server:
        reserved = []
        for name, counted in (("bytes", False), ("counted", True)):
            spec = spec_for(tmp_path / name, claude(count_tokens=counted), requests)
            assert run(spec, server) == 0, said(spec)
            reserved.append(max(r["reserved"] for r in ledger_of(spec).rows()))
            assert all(r["cost"] <= r["reserved"] for r in ledger_of(spec).rows())
    assert reserved[1] < reserved[0] / 2


# -- OpenAI-compatible ---------------------------------------------------------------------------------------------


def local(model: str = "base", **remote: Any) -> ModelRef:
    given = {"free": True, "attempts": 8, "timeout_seconds": 0.8} | remote
    return remote_ref("openai", model, remote=RemoteService(**given), revision="r1")


def answers(
    server: Server, folder: Path, model: ModelRef, requests: list[ChatRequest], **money: Any
) -> tuple[list[Reply], dict[str, Any]]:
    found: dict[str, Any] = {}
    spec = {"ledger": str(folder / "m.db"), "prices": str(folder / "none.yaml"), "project_usd": "0"} | money
    replies = generate(
        ModelRef(**{**model.__dict__, "remote": {**(model.remote or {}), "base_url": server.url}}),
        requests,
        cache=ResponseCache(folder / "r.db"),
        group_size=1,
        threads=1,
        spending=open_spending(spec),
        run="test",
        facts=found,
    )
    return replies, found


def test_a_server_of_ones_own_needs_neither_key_nor_price_nor_budget(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    faults = {"429": 0.1, "500": 0.1, "cut": 0.1, "not_json": 0.1, "timeout": 0.03}
    requests = [*ask_for(60), *ask_for(1, text="[refuse] me"), *ask_for(1, text="[long] me")]
    with running("openai", tmp_path / "s", models=["base", "madison-v3b"], faults=faults, hang=1.2) as server:
        base, found = answers(server, tmp_path, local(), requests)
        assert (base[60].finish_reason, base[61].finish_reason) == ("refusal", "length")
        assert found["cost_usd"] == 0
        assert found["retries"] > 5
        # An adapter that the server has under a name of its own is another model.
        tuned, _ = answers(server, tmp_path, local("madison-v3b"), requests[:3])
        assert all(a.text != b.text for a, b in zip(base, tuned, strict=False))
        again, found = answers(server, tmp_path, local(), requests)
        assert found["from_cache"] == 62
        assert again == [Reply(**{**r.__dict__}) for r in base]
        with pytest.raises(FoundryError, match="404 not found"):
            answers(server, tmp_path, local("no-such-model"), requests[:1])


def test_what_a_request_says_travels_as_the_protocol_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    from foundry_pipeline.models.remote.client import body_of

    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    request = ChatRequest(
        "r",
        (("user", "Hi"),),
        9,
        0.7,
        40,
        0.9,
        7,
        system=(("Be brief.", True), ("Be kind.", False)),
        schema='{"type": "object"}',
    )
    own = body_of(local(base_url="http://127.0.0.1:1/v1"), request)
    assert own == {
        "model": "base",
        "messages": [{"role": "system", "content": "Be brief.\n\nBe kind."}, {"role": "user", "content": "Hi"}],
        "max_tokens": 9,
        "temperature": 0.7,
        "top_p": 0.9,
        "seed": 7,
        "top_k": 40,
        "response_format": {
            "type": "json_schema",
            "json_schema": {"name": "answer", "strict": True, "schema": {"type": "object"}},
        },
    }
    official = body_of(local(sampling=False, effort="low"), request)
    assert official.keys() == {"model", "messages", "max_completion_tokens", "response_format", "reasoning_effort"}
    claudes = body_of(claude(effort="high"), request)
    assert claudes["system"] == [
        {"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral"}},
        {"type": "text", "text": "Be kind."},
    ]
    assert claudes["output_config"] == {
        "format": {"type": "json_schema", "schema": {"type": "object"}},
        "effort": "high",
    }
    assert not {"temperature", "top_k", "top_p", "seed"} & claudes.keys()


def test_a_priced_server_is_booked_and_its_key_kept_out(tmp_path: Path) -> None:
    model = remote_ref("openai", MODEL, remote=RemoteService(attempts=6, timeout_seconds=2.0))
    spec = spec_for(tmp_path / "run", model, ask_for(30))
    with running("openai", tmp_path / "s", key=KEY, faults={"500": 0.2}, prices=PRICES) as server:
        assert run(spec, None, OPENAI_API_KEY=KEY, OPENAI_BASE_URL=server.url) == 0, said(spec)
        assert Decimal(facts(spec)["cost_of_answers_usd"]) == server.account()["delivered"]
        assert run(spec, None, OPENAI_API_KEY="not-the-one-it-wants", OPENAI_BASE_URL=server.url) == 0
    assert facts(spec)["from_cache"] == 30
    assert len(read_replies(Path(spec["work"]) / "result")) == 30
    assert files_with(tmp_path, KEY, but=("config.json",)) == []
    assert price_table(tmp_path).exists()


def test_a_prompt_beyond_what_the_price_holds_for_is_not_sent(tmp_path: Path) -> None:
    for batch in (False, True):
        spec = spec_for(tmp_path / f"run-{batch}", claude(batch=batch), [*ask_for(3), *ask_for(1, text="far " * 3000)])
        table = Path(spec["money"]["prices"])
        rows = json.loads(table.read_text())
        rows["prices"][0]["max_prompt_tokens"] = 6000
        table.write_text(json.dumps(rows))
        with running("claude", tmp_path / f"server-{batch}") as server:
            assert run(spec, server) == 1
            assert len(server.events("answered")) == 3
        assert "1 × no price" in said(spec)
        assert ledger_of(spec).totals().reserved == 0


def test_a_key_that_cannot_be_one_is_refused_without_being_shown(tmp_path: Path) -> None:
    spec = spec_for(tmp_path / "run", claude(), ask_for(1))
    with running("claude", tmp_path / "server") as server:
        assert run(spec, server, ANTHROPIC_API_KEY="half-of-it\nother-half") == 1
        assert server.log() == []
    assert "no key has" in said(spec)
    assert "half" not in said(spec)
