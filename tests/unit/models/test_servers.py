"""Several servers of one model: balanced by what is under way, a dead one left out, answers kept by request."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from foundry_pipeline.declarations.remote import RemoteService
from foundry_pipeline.errors import FoundryError
from foundry_pipeline.models.remote import remote_ref
from foundry_pipeline.models.remote.client import request_key
from foundry_pipeline.models.remote.failures import AttemptFailed, Failure
from foundry_pipeline.models.remote.servers import FIRST_SECONDS, STRIKES, Servers
from foundry_pipeline.models.requests import ModelRef
from tests.project import wait_for
from tests.servers.asking import ask_for, facts, run, said, spec_for, start
from tests.servers.running import running

DEAD = "http://127.0.0.1:9/v1"  # the port `discard`, where nothing listens


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def fail(servers: Servers, failure: Failure) -> str:
    url = ""

    def attempt() -> None:
        nonlocal url
        with servers.one() as server:
            url = server.url
            raise AttemptFailed(failure)

    with pytest.raises(AttemptFailed) as caught:
        attempt()
    assert url in caught.value.failure.message
    return url


def test_each_request_goes_to_the_server_with_the_least_under_way() -> None:
    servers = Servers(["a", "b", "c"])
    with servers.one() as first, servers.one() as second, servers.one() as third:
        assert {first.url, second.url, third.url} == {"a", "b", "c"}
    done: Counter[str] = Counter()
    for _ in range(30):
        with servers.one() as server:
            done[server.url] += 1
    assert max(done.values()) - min(done.values()) <= 1
    assert sum(s["answered"] for s in servers.told().values()) == 33


def test_a_dead_server_is_left_out_said_once_and_tried_again_by_one_request() -> None:
    clock, log = Clock(), []
    servers = Servers(["a", "b"], log=log.append, now=clock)
    dead = fail(servers, Failure("connection", "refused", "retry"))
    assert len(log) == 1
    assert "left out" in log[0]
    for _ in range(5):
        with servers.one() as server:
            assert server.url != dead
    clock.now = FIRST_SECONDS + 0.1
    with servers.one() as one, servers.one() as two, servers.one() as three:
        assert sorted([one.url, two.url, three.url]).count(dead) == 1
    assert log[1] == f"server {dead} answers again"


def test_failures_in_a_row_leave_a_server_out_and_those_of_a_request_do_not() -> None:
    servers = Servers(["a", "b"])
    for _ in range(20):
        fail(servers, Failure("400 bad request", "no", "request"))
        fail(servers, Failure("429 rate limit", "wait", "retry"))
    with servers.one() as one, servers.one() as two:
        assert {one.url, two.url} == {"a", "b"}
    bad = Counter(fail(servers, Failure("500 server error", "no", "retry")) for _ in range(2 * STRIKES))
    assert set(bad.values()) == {STRIKES}


def test_one_that_refuses_every_request_is_left_out_while_others_answer() -> None:
    servers = Servers(["a", "b"])
    refusal = Failure("404 not found", "no such model", "run", mend="correct the model id")
    with pytest.raises(AttemptFailed) as caught, servers.one():
        raise AttemptFailed(refusal)
    assert caught.value.failure.deserves == "retry"
    with pytest.raises(AttemptFailed) as caught, servers.one():
        raise AttemptFailed(refusal)
    assert caught.value.failure.deserves == "run"


@settings(max_examples=50, deadline=None)
@given(st.lists(st.sampled_from(["ok", "connection", "500 server error", "404 not found", "wait"]), max_size=60))
def test_whatever_happens_some_server_is_asked_and_nothing_stays_under_way(events: Sequence[str]) -> None:
    clock = Clock()
    servers = Servers(["a", "b", "c"], now=clock)
    for event in events:
        clock.now += 1.0 if event == "wait" else 0.0
        try:
            with servers.one():
                if event not in ("ok", "wait"):
                    raise AttemptFailed(Failure(event, "x", "run" if event.startswith("404") else "retry"))
        except AttemptFailed:
            pass
    assert all(s.under_way == 0 for s in servers._all)
    assert sum(v for s in servers.told().values() for v in s.values()) == len(events)


def many(urls: Sequence[str], **remote: Any) -> ModelRef:
    given = {"free": True, "timeout_seconds": 5.0, "attempts": 6, "concurrency": 6} | remote
    return remote_ref("openai", "base", remote=RemoteService(base_urls=tuple(urls), **given), revision="r1")


def test_a_server_that_dies_in_the_middle_is_survived_and_its_work_done_by_the_others(tmp_path: Path) -> None:
    with running("openai", tmp_path / "s1", wait=0.05) as one, running("openai", tmp_path / "s2", wait=0.05) as two:
        spec = spec_for(tmp_path / "job", many([one.url, two.url]), ask_for(80, system=False))
        process = start(spec, None)
        wait_for(lambda: len(one.events("answered")) >= 8)
        one.process.kill()
        assert process.wait(timeout=60) == 0, said(spec)
        found = facts(spec)["servers"]
        assert found[two.url]["answered"] >= 40
        assert found[one.url]["answered"] >= 8
        assert found[one.url]["failed"] >= 1
        assert sum(s["answered"] for s in found.values()) == 80
        assert f"server {one.url} is left out" in said(spec)
        # Known by the first address: another list that begins with it asks nobody for what is answered.
        again = spec_for(tmp_path / "job", many([one.url]), ask_for(80, system=False))
        again["work"] = str(tmp_path / "job" / "again")
        assert run(again, None) == 0
        assert facts(again)["from_cache"] == 80


def test_where_all_are_dead_it_is_said_what_to_start_and_the_rest_is_asked_later(tmp_path: Path) -> None:
    requests = ask_for(12, system=False)
    spec = spec_for(tmp_path / "job", many([DEAD, f"{DEAD}/b"], service="mine", attempts=2), requests)
    assert run(spec, None) == 1
    assert "start one of the servers" in json.loads((Path(spec["work"]) / "error.json").read_text())["mend"]
    with running("openai", tmp_path / "s1") as one:
        spec = spec_for(tmp_path / "job", many([DEAD, one.url], service="mine"), requests)
        assert run(spec, None) == 0
        assert facts(spec)["servers"][one.url]["answered"] == 12


def test_a_list_of_servers_in_declarations_and_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    request = ask_for(1)[0]
    a, b = "http://a.example/v1", "http://b.example/v1"
    one = remote_ref("openai", "m", remote=RemoteService(base_url=a))
    assert request_key(many([a, b]), request) == request_key(many([a]), request)
    assert request_key(one, request) == request_key(
        remote_ref("openai", "m", remote=RemoteService(base_urls=(a, b))), request
    )
    monkeypatch.setenv("OPENAI_BASE_URL", f"{a}, {b}/")
    assert request_key(many(["http://elsewhere/v1"]), request) == request_key(many([a]), request)
    monkeypatch.setenv("OPENAI_BASE_URL", f"{a}, https://api.openai.com/v1")
    with pytest.raises(FoundryError, match="cannot be one of several"):
        request_key(one, request)
    for wrong in ({"base_url": a, "base_urls": (b,)}, {"base_urls": (a, a)}, {"base_urls": ("ftp://x",)}):
        with pytest.raises(ValidationError):
            RemoteService(**wrong)  # type: ignore[arg-type]
