"""`foundry estimate` and `foundry costs` as a user meets them: exit codes, JSON, and what stands in the tables."""

from __future__ import annotations

import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from foundry_pipeline.chain.graph import load_chain
from foundry_pipeline.launch import run_script
from foundry_pipeline.models.cache import ResponseCache
from foundry_pipeline.models.money.ledger import Ask, Caps, MoneyLedger
from foundry_pipeline.models.money.prices import Usage
from foundry_pipeline.models.remote.client import request_key
from foundry_pipeline.models.requests import Reply
from foundry_pipeline.settings import Settings
from tests.project import Project, make_project
from tests.scored import InProcess

TEACHER = """teacher:
  kind: claude
  model: claude-sonnet-5-5
  serves: {ground_truth: 1, verified_response: 1, position_discrimination: 1, character_consistency: 1}
  cannot_serve: {anachronism_trap: the log says nothing of later times, private_voice: no letters}
  needs_passage: {character_consistency: false}
  max_words: 90
  min_words: 15
  min_fit: 0.05
  max_tokens: 600
budget: {project_usd: 1.5, run_usd: 0.5}
"""


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    made = make_project(tmp_path_factory.mktemp("money") / "project")
    tiny = (made.root / "assets/profiles/tiny.yaml").read_text()
    paid = tiny[: tiny.index("teacher:\n")] + TEACHER + tiny[tiny.index("filters:") :]
    (made.root / "assets/profiles/paid.yaml").write_text(paid.replace("profile: tiny", "profile: paid"))
    return InProcess(made.root, "paid")


def answer(project: Project, *command: str) -> Any:
    """The JSON document that a command prints, and nothing else on stdout."""
    done = project.run("foundry", *command, "--json")
    assert done.returncode == 0, done.stdout
    return json.loads(done.stdout)


def stage(found: Any, name: str) -> Any:
    return next(row for row in found["stages"] if row["stage"] == name)


def test_an_estimate_before_anything_is_built_comes_from_the_declarations(project: Project) -> None:
    found = answer(project, "estimate", "keeper_dataset_v1")
    teacher = stage(found, "keeper_teacher_responses")
    assert teacher["how"] == "estimated from declarations"
    assert teacher["requests"] > 0
    dollars = {name: Decimal(value) for name, value in found["usd"].items()}
    assert 0 < dollars["low"] < dollars["expected"] < dollars["high"]
    assert stage(found, "keeper_student_responses")["how"] == "local"
    assert Decimal(stage(found, "keeper_student_responses")["usd"]["high"]) == 0
    assert found["prices_checked"] == "2026-11-21"


def test_a_local_teacher_costs_nothing(project: Project) -> None:
    local = Project(project.root)  # processes of their own, as a user starts them
    found = answer(local, "estimate", "keeper_dataset_v1")
    assert found["requests"] == 0
    assert {Decimal(value) for value in found["usd"].values()} == {Decimal(0)}
    done = local.run("foundry", "estimate", "keeper_dataset_v1")
    assert done.returncode == 0
    assert "local" in done.stdout


def test_once_the_passages_are_there_the_requests_themselves_are_counted_and_stored_answers_left_out(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FOUNDRY_ROOT", str(project.root))
    settings = Settings(project.root, project.store, "paid")
    _, chain = load_chain(settings)
    for name in ("keeper_sources", "keeper_passages"):
        chain.materialize(name, run_script=run_script, log=lambda text: None)
    before = stage(answer(project, "estimate", "keeper_dataset_v1"), "keeper_teacher_responses")
    assert before["how"] == "counted from the requests"
    asks = chain.stages["keeper_teacher_responses"].requests
    assert asks is not None
    model, requests = asks({"keeper_passages": chain.require("keeper_passages").artifact})
    assert before["requests"] == len(requests) > 1
    cache = ResponseCache(settings.responses_path)
    cache.put(Reply("", request_key(model, requests[0]), "stored", "stop", 9, 9, cost=5))
    after = stage(answer(project, "estimate", "keeper_dataset_v1"), "keeper_teacher_responses")
    assert (after["requests"], after["stored"]) == (len(requests) - 1, 1)


def test_an_unknown_asset_and_an_unknown_price_are_refused_by_name(project: Project, tmp_path: Path) -> None:
    done = project.run("foundry", "estimate", "keeper_dataset_v7")
    assert done.returncode == 1
    assert "did you mean keeper_dataset_v1" in done.stdout
    prices = project.root / "assets" / "prices.yaml"
    kept = prices.read_text()
    try:
        prices.write_text(kept.replace("claude-sonnet-5-5", "claude-sonnet-9"))
        done = project.run("foundry", "estimate", "keeper_dataset_v1")
        assert done.returncode == 1
        assert "does not know anthropic's model 'claude-sonnet-5-5'" in done.stdout
        prices.write_text(kept.replace("output: 10,", "output: ten,", 1))
        done = project.run("foundry", "check")
        assert done.returncode == 1
        assert "prices.0.output" in done.stdout
    finally:
        prices.write_text(kept)


def test_costs_come_from_the_ledger_and_uncertain_ones_can_be_released(project: Project) -> None:
    empty = project.run("foundry", "costs")
    assert empty.returncode == 0
    assert "no remote answer has been paid for" in empty.stdout
    ledger = MoneyLedger(project.store / "money.db")
    caps = Caps(10**13, 10**13)
    for asset, run, cost in (
        ("keeper_teacher_responses", "one", 2 * 10**10),
        ("other_teacher_responses", "two", 10**9),
    ):
        book = ledger.book(asset=asset, run=run, caps=caps)
        paid, lost = (
            book.reserve(Ask(f"{asset}{i}", 10**11, "anthropic", "m\x1b[31m", "2026-01-01")) for i in range(2)
        )
        book.settle(paid, cost=cost, usage=Usage(1000, 200, cache_read=50))
        book.doubt(lost, "timeout")
    found = answer(project, "costs")
    assert found["total"]["spent_usd"] == "0.021"
    assert found["total"]["uncertain_usd"] == "0.2"
    assert [row["spent_usd"] for row in found["by_run"]] == ["0.02", "0.001"]
    assert {row["item"] for row in found["reported"]["rows"]} >= {"madison_r2", "cumulative"}
    assert found["budget"] == {"project_usd": "1.5", "run_usd": "0.5", "counted_usd": "0.221"}
    mine = answer(project, "costs", "keeper_dataset_v1")
    assert mine["total"]["spent_usd"] == "0.02"
    shown = project.run("foundry", "costs")
    assert "reported elsewhere (USD, not measured here)" in shown.stdout
    assert "\x1b[31m" not in shown.stdout
    released = answer(project, "costs", "--release-uncertain")
    assert released["released"] == {"released_usd": "0.2", "rows": 2}
    assert released["total"]["uncertain_usd"] == "0"
    assert released["total"]["spent_usd"] == "0.021"
