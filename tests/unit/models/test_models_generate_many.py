"""Several lists of requests at once: the same answers as one after the other, and nobody left behind by a failure."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from foundry_pipeline.chain.generation import generate_divided
from foundry_pipeline.chain.stage import BuildContext
from foundry_pipeline.errors import FoundryError
from foundry_pipeline.launch import read_facts, run_script
from foundry_pipeline.models.cache import ResponseCache
from foundry_pipeline.models.generate import generate, read_replies, request_lines
from foundry_pipeline.models.requests import ChatRequest, ModelRef
from foundry_pipeline.settings import Settings
from foundry_pipeline.settings import load_settings as settings_of

MODULE = "foundry_pipeline.models.generate_many"
Ask = Callable[..., ChatRequest]


@pytest.fixture
def model(gguf: Path, llama_ref: Callable[[Path], ModelRef]) -> ModelRef:
    return llama_ref(gguf)


def asked(ask: Ask, names: str, max_tokens: int = 6) -> list[ChatRequest]:
    return [
        ask(f"What is {name}?", request_id=name, temperature=0.8, seed=i, max_tokens=max_tokens)
        for i, name in enumerate(names)
    ]


def spec_for(folder: Path, jobs: dict[str, tuple[ModelRef, list[ChatRequest]]]) -> dict[str, Any]:
    folder.mkdir(parents=True)
    for name, (_, requests) in jobs.items():
        (folder / f"{name}.jsonl").write_text(request_lines(requests), encoding="utf-8")
    return {
        "jobs": {
            name: {"model": asdict(model), "requests": str(folder / f"{name}.jsonl")}
            for name, (model, _) in jobs.items()
        },
        "cache": str(folder / "r.db"),
        "group_size": 2,
        "threads": 2,
        "at_once": 2,
        "precision": "bfloat16",
        "work": str(folder / "work"),
    }


def test_every_list_has_the_answers_that_it_has_alone(model: ModelRef, ask: Ask, tmp_path: Path) -> None:
    lists = {"one": asked(ask, "abcde"), "two": asked(ask, "xyz"), "three": asked(ask, "q")}
    spec = spec_for(tmp_path / "many", {name: (model, requests) for name, requests in lists.items()})
    run_script(MODULE, spec, Path(spec["work"]))
    facts = read_facts(Path(spec["work"]))
    assert list(facts) == sorted(lists)
    for name, requests in lists.items():
        # Each has one of the two threads, which is part of what an answer depends on.
        alone = generate(model, requests, cache=ResponseCache(tmp_path / f"{name}.db"), group_size=2, threads=1)
        found = read_replies(Path(spec["work"]) / "result", f"{name}.jsonl")
        assert [(r.request_id, r.text) for r in found] == [(r.request_id, r.text) for r in alone]
        assert facts[name]["requests"] == len(requests)
    run_script(MODULE, spec, Path(spec["work"]))
    assert [read_facts(Path(spec["work"]))[name]["from_cache"] for name in ("one", "two", "three")] == [5, 3, 1]


def test_the_first_failure_ends_the_others_and_is_told(model: ModelRef, ask: Ask, tmp_path: Path) -> None:
    broken = replace(model, path=str(tmp_path / "none.gguf"))
    long = asked(ask, "abcdefghijklmnop", max_tokens=200)
    spec = spec_for(tmp_path / "many", {"broken": (broken, asked(ask, "a")), "long": (model, long)})
    with pytest.raises(FoundryError, match="model file not found"):
        run_script(MODULE, spec, Path(spec["work"]))
    assert not (Path(spec["work"]) / "result").exists()
    assert_nobody_left(Path(spec["work"]))


def test_killed_it_leaves_no_process_and_goes_on_with_what_is_stored(model: ModelRef, ask: Ask, tmp_path: Path) -> None:
    jobs = {"one": (model, asked(ask, "abcdefgh", 60)), "two": (model, asked(ask, "stuvwxyz", 60))}
    spec = spec_for(tmp_path / "many", jobs)
    work, cache = Path(spec["work"]), Path(spec["cache"])
    (tmp_path / "spec.json").write_text(json.dumps(spec))
    child = subprocess.Popen([sys.executable, "-m", MODULE, str(tmp_path / "spec.json")], stderr=subprocess.DEVNULL)
    until = time.monotonic() + 120
    while time.monotonic() < until and child.poll() is None and not (cache.exists() and len(ResponseCache(cache)) >= 2):
        time.sleep(0.02)
    os.kill(child.pid, signal.SIGKILL)
    assert child.wait() == -signal.SIGKILL, "it ended before it could be killed"
    assert_nobody_left(work)
    stored = len(ResponseCache(cache))
    run_script(MODULE, spec, work)
    facts = read_facts(work)
    assert 16 > sum(facts[name]["from_cache"] for name in jobs) >= stored >= 2


def test_requests_that_are_dealt_out_come_back_in_their_order(model: ModelRef, ask: Ask, tmp_path: Path) -> None:
    requests = asked(ask, "abcdefg")
    ctx = context(tmp_path)
    replies, facts = generate_divided(ctx, model, requests, at_once=2, threads=2, group=4, precision="bfloat16")
    assert [r.request_id for r in replies] == list("abcdefg")
    assert (facts["requests"], facts["from_cache"], facts["processes"]) == (7, 0, 2)
    assert facts["completion_tokens"] == sum(r.completion_tokens for r in replies)
    one, facts = generate_divided(ctx, model, requests[:1], at_once=2, threads=2, group=4, precision="bfloat16")
    assert ([r.request_id for r in one], facts["processes"]) == (["a"], 1)


def context(folder: Path) -> BuildContext:
    settings: Settings = replace(settings_of(), store=folder / "store")
    (folder / "store").mkdir()
    return BuildContext(settings, None, {}, folder / "work", run_script, lambda text: None)  # type: ignore[arg-type]


def assert_nobody_left(work: Path) -> None:
    until = time.monotonic() + 20
    while children_at_work(work) and time.monotonic() < until:
        time.sleep(0.1)
    assert children_at_work(work) == []


def children_at_work(work: Path) -> list[str]:
    """Command lines of processes that were started on a spec below this folder."""
    found = []
    for line in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            said = line.read_bytes().replace(b"\0", b" ").decode("utf-8", "replace")
        except OSError:  # it has ended meanwhile
            continue
        if str(work) in said:
            found.append(said)
    return found
