"""kill -9 at twenty random moments of a remote generation: the same dataset in the end, and nothing asked twice."""

from __future__ import annotations

import os
import random
import signal
import time
from decimal import Decimal
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from foundry_pipeline.datasets.content import dataset_hash
from foundry_pipeline.lineage.hashing import digest
from foundry_pipeline.models.cache import ResponseCache
from foundry_pipeline.models.generate import read_replies
from foundry_pipeline.models.money.ledger import MoneyLedger
from foundry_pipeline.models.money.prices import usd
from foundry_pipeline.pairs.candidates import PAIRS
from tests.servers.asking import PRICES, ask_for, claude, files_with, run, said, spec_for, start
from tests.servers.running import KEY, Server, running

KILLS, PROMPTS = 20, 300


def pairs(spec: dict[str, Any]) -> pl.DataFrame:
    """Replies as the pairs of a dataset: what was answered is the chosen side."""
    rows = []
    for reply in read_replies(Path(spec["work"]) / "result"):
        row = dict.fromkeys(PAIRS) | {
            "prompt_id": reply.request_id,
            "chosen": reply.text,
            "rejected": "As a language model I have no lamp.",
            "teacher_request_hash": reply.request_hash,
        }
        rows.append(row | {"pair_id": digest([row["prompt_id"], row["chosen"], row["rejected"]])})
    return pl.DataFrame(rows, PAIRS, infer_schema_length=None)


def kill_in_the_middle(spec: dict[str, Any], server: Server, draw: random.Random) -> bool:
    """Start the script, wait until it has sent something new, and kill it a random moment later; whether it lived so long."""
    before = len(server.log())
    process = start(spec, server)
    until = time.monotonic() + 60
    while len(server.log()) == before and process.poll() is None and time.monotonic() < until:
        time.sleep(0.01)
    time.sleep(draw.uniform(0.0, 0.35))
    os.kill(process.pid, signal.SIGKILL)
    return process.wait() == -signal.SIGKILL


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("killed")
    model, requests = claude(concurrency=4), ask_for(PROMPTS)
    script: dict[str, Any] = {"seed": 5, "slow": 0.15, "words": 12, "prices": PRICES}
    calm = spec_for(folder / "calm", model, requests)
    with running("claude", folder / "calm-server", **{**script, "slow": 0.0}) as server:
        assert run(calm, server) == 0, said(calm)
    disturbed = spec_for(folder / "disturbed", model, requests)
    draw, kills, stored = random.Random(20), 0, []
    with running("claude", folder / "server", faults={"429": 0.03, "500": 0.03, "cut": 0.03}, **script) as server:
        while kills < KILLS and len(server.events("answered")) < PROMPTS - 15:
            kills += kill_in_the_middle(disturbed, server, draw)
            at = time.time()
            cache = Path(disturbed["cache"])
            stored.append((at, len(ResponseCache(cache)) if cache.exists() else 0))
        assert start(disturbed, server).wait(timeout=120) == 0, said(disturbed)[-3000:]
        return {
            "calm": calm,
            "disturbed": disturbed,
            "kills": kills,
            "stored": stored,
            "log": server.log(),
            "account": server.account(),
            "folder": folder,
        }


def test_it_was_killed_twenty_times_and_each_time_something_had_been_kept(story: dict[str, Any]) -> None:
    assert story["kills"] == KILLS
    counts = [count for _, count in story["stored"]]
    assert counts == sorted(counts)
    assert 0 < counts[-1] < PROMPTS, counts


def test_the_dataset_is_that_of_the_undisturbed_run(story: dict[str, Any]) -> None:
    calm, disturbed = pairs(story["calm"]), pairs(story["disturbed"])
    assert calm.height == PROMPTS
    assert dataset_hash(disturbed) == dataset_hash(calm)


def test_no_request_was_sent_again_after_its_answer_had_been_stored(story: dict[str, Any]) -> None:
    """The server knows what it delivered, the cache what was stored: what a kill found stored was never asked again."""
    received: dict[str, list[float]] = {}
    for line in story["log"]:
        if line["event"] == "received":
            received.setdefault(line["key"], []).append(line["at"])
    # Between two kills a request is asked at most once after its last delivered answer was lost: an answer delivered and
    # asked for again must have been under way at a kill, of which there are at most four a kill.
    delivered: dict[str, int] = {}
    for line in story["log"]:
        if line["event"] == "answered":
            delivered[line["key"]] = delivered.get(line["key"], 0) + 1
    twice = sum(count - 1 for count in delivered.values())
    assert twice <= KILLS * 4
    # The stronger half: at each kill so many answers were on disk, and so many requests were left to be asked at all.
    for at, count in story["stored"]:
        asked_later = {key for key, times in received.items() if max(times) > at}
        assert len(asked_later) <= PROMPTS - count, (at, count)


def test_the_money_is_right_after_all_that(story: dict[str, Any]) -> None:
    ledger = MoneyLedger(Path(story["disturbed"]["money"]["ledger"]))
    totals, account = ledger.totals(), story["account"]
    settled = ledger.rows("state = 'settled'")
    assert len({r["request_hash"] for r in settled}) == len(settled) == PROMPTS
    assert totals.reserved == 0
    # What was delivered and lost in a kill is not settled, but it still counts against the budget.
    assert Decimal(usd(totals.spent)) <= account["delivered"]
    assert Decimal(usd(totals.counted)) >= account["delivered"] + account["lost"]


def test_no_key_is_left_behind(story: dict[str, Any]) -> None:
    assert files_with(story["folder"], KEY, but=("config.json",)) == []
