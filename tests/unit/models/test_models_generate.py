"""Generation through the cache: by groups, and on from where a kill left it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from foundry_pipeline.errors import FoundryError
from foundry_pipeline.launch import read_facts, run_script
from foundry_pipeline.models.cache import ResponseCache
from foundry_pipeline.models.generate import generate, load_backend, read_replies, read_requests, request_lines
from foundry_pipeline.models.requests import ChatRequest, ModelRef

MODULE = "foundry_pipeline.models.generate"
Ask = Callable[..., ChatRequest]


@pytest.fixture
def model(gguf: Path, llama_ref: Callable[[Path], ModelRef]) -> ModelRef:
    return llama_ref(gguf)


@pytest.fixture
def requests(ask: Ask) -> list[ChatRequest]:
    return [
        ask(f"What is the number {i}?", request_id=f"q{i}", temperature=0.8, seed=i, max_tokens=4) for i in range(5)
    ]


def run(model: ModelRef, requests: list[ChatRequest], cache: Path, size: int = 2) -> tuple[list[str], dict[str, Any]]:
    facts: dict[str, Any] = {}
    replies = generate(model, requests, cache=ResponseCache(cache), group_size=size, threads=2, facts=facts)
    assert [r.request_id for r in replies] == [r.request_id for r in requests]
    return [r.text for r in replies], facts


def test_a_second_run_generates_nothing_and_says_the_same(
    model: ModelRef, requests: list[ChatRequest], tmp_path: Path
) -> None:
    first, facts = run(model, requests, tmp_path / "r.db")
    assert (facts["requests"], facts["from_cache"]) == (5, 0)
    assert facts["generated_tokens"] == facts["completion_tokens"] > 0
    again, facts = run(model, requests, tmp_path / "r.db")
    assert again == first
    assert (facts["from_cache"], facts["generated_tokens"], facts["loading_seconds"]) == (5, 0, 0.0)


def test_only_groups_with_a_changed_request_are_generated_again(
    model: ModelRef, requests: list[ChatRequest], ask: Ask, tmp_path: Path
) -> None:
    run(model, requests, tmp_path / "r.db")
    changed = [*requests[:3], ask("Something else?", max_tokens=4), requests[4]]
    _, facts = run(model, changed, tmp_path / "r.db")
    assert facts["from_cache"] == 3
    _, facts = run(model, requests, tmp_path / "r.db", size=3)
    assert facts["from_cache"] == 0


def test_progress_is_told_after_each_group(model: ModelRef, requests: list[ChatRequest], tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    generate(
        model,
        requests,
        cache=ResponseCache(tmp_path / "r.db"),
        group_size=2,
        threads=2,
        progress=lambda done, total, **metrics: told.append((done, total)),
    )
    assert told == [(2, 5), (4, 5), (5, 5)]


def test_no_requests_no_replies(model: ModelRef, tmp_path: Path) -> None:
    assert run(model, [], tmp_path / "r.db")[0] == []


def test_a_request_too_long_fails_its_group_and_keeps_those_before(
    model: ModelRef, requests: list[ChatRequest], ask: Ask, tmp_path: Path
) -> None:
    with pytest.raises(FoundryError, match="request too-long"):
        run(model, [*requests[:3], ask("word " * 8300, request_id="too-long")], tmp_path / "r.db")
    assert len(ResponseCache(tmp_path / "r.db")) == 2


def test_what_nobody_serves_is_refused(model: ModelRef, requests: list[ChatRequest], tmp_path: Path) -> None:
    with pytest.raises(FoundryError, match="unknown backend"):
        load_backend(ModelRef("vapour", "x", "c", None, None, "t"), threads=2)  # type: ignore[arg-type]
    with pytest.raises(FoundryError, match="group of 0"):
        run(model, requests, tmp_path / "r.db", size=0)


@settings(max_examples=60)
@given(
    st.lists(
        st.builds(
            ChatRequest,
            st.text(st.characters(exclude_categories=["Cs"]), min_size=1),
            st.lists(
                st.tuples(
                    st.sampled_from(["system", "user"]),
                    st.text(st.characters(exclude_categories=["Cs"])).map(lambda t: f"{t}x"),
                ),
                min_size=1,
            ).map(tuple),
            st.integers(1, 10**6),
            st.floats(0, 3),
            st.integers(0, 200),
            st.floats(0.01, 1),
            st.integers(0, 2**32 - 1),
        ),
        max_size=4,
    )
)
def test_requests_survive_the_file(tmp_path_factory: pytest.TempPathFactory, requests: list[ChatRequest]) -> None:
    path = tmp_path_factory.mktemp("r") / "requests.jsonl"
    path.write_text(request_lines(requests), encoding="utf-8")
    assert read_requests(path) == requests


def test_a_bad_line_is_named(tmp_path: Path, ask: Ask) -> None:
    path = tmp_path / "requests.jsonl"
    path.write_text(request_lines([ask("Hi")]) + '{"request_id": "x"}\n')
    with pytest.raises(FoundryError, match=r"requests\.jsonl:2"):
        read_requests(path)
    with pytest.raises(FoundryError, match=r"none\.jsonl"):
        read_requests(tmp_path / "none.jsonl")


def spec_for(model: ModelRef, requests: list[ChatRequest], folder: Path) -> dict[str, Any]:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "requests.jsonl").write_text(request_lines(requests), encoding="utf-8")
    return {
        "model": asdict(model),
        "requests": str(folder / "requests.jsonl"),
        "cache": str(folder / "r.db"),
        "group_size": 2,
        "threads": 2,
        "work": str(folder / "work"),
    }


def test_the_script_goes_on_after_a_kill_and_ends_with_the_same_bytes(
    model: ModelRef, ask: Ask, tmp_path: Path
) -> None:
    requests = [
        ask(f"Tell me of the year {1780 + i}.", request_id=f"q{i}", temperature=0.8, seed=i, max_tokens=40)
        for i in range(12)
    ]
    calm, killed = tmp_path / "calm", tmp_path / "killed"
    run_script(MODULE, spec_for(model, requests, calm), calm / "work")

    spec = spec_for(model, requests, killed)
    (killed / "spec.json").write_text(json.dumps(spec))
    child = subprocess.Popen([sys.executable, "-m", MODULE, str(killed / "spec.json")], stderr=subprocess.DEVNULL)
    until = time.monotonic() + 120
    while time.monotonic() < until and child.poll() is None:
        if (killed / "r.db").exists() and len(ResponseCache(killed / "r.db")) >= 2:
            break
        time.sleep(0.02)
    os.kill(child.pid, signal.SIGKILL)
    assert child.wait() == -signal.SIGKILL, "it ended before it could be killed"
    stored = len(ResponseCache(killed / "r.db"))
    assert 2 <= stored < 12
    assert stored % 2 == 0

    run_script(MODULE, spec, killed / "work")
    facts = read_facts(killed / "work")
    assert facts["from_cache"] >= stored
    assert facts["from_cache"] < 12
    replies = "result/replies.jsonl"
    assert (killed / "work" / replies).read_bytes() == (calm / "work" / replies).read_bytes()
    assert [r.request_id for r in read_replies(calm / "work" / "result")] == [f"q{i}" for i in range(12)]
    assert str(tmp_path) not in (calm / "work" / replies).read_text()


@pytest.mark.parametrize("enabled", [True, False])
def test_garbage_is_searched_again_after_loading_as_before(enabled: bool) -> None:
    import gc

    from foundry_pipeline.models.generate import _uncollected

    before = gc.isenabled()
    try:
        (gc.enable if enabled else gc.disable)()
        with suppress(FoundryError), _uncollected():
            assert not gc.isenabled()
            raise FoundryError("a model that cannot be read", mend="")
        assert gc.isenabled() is enabled
    finally:
        (gc.enable if before else gc.disable)()
