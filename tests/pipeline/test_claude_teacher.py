"""A generated teacher through the chain: Claude's protocol and an OpenAI student over real HTTP, up to the datasets."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path

import polars as pl
import pytest

from foundry_pipeline.chain.engine import Chain, Materialized
from foundry_pipeline.chain.graph import build_chain, load_chain
from foundry_pipeline.declarations import load
from foundry_pipeline.launch import run_script
from foundry_pipeline.models.remote.client import request_identity
from foundry_pipeline.settings import load_settings
from tests.project import make_project
from tests.servers.running import KEY, Server, running

PRICES = {"input": "2", "output": "10", "cache_write": "2.5", "cache_read": "0.1"}
TEACHER = """teacher:
  kind: claude
  model: claude-sonnet-5-5
  serves: {ground_truth: 1, verified_response: 1, position_discrimination: 1, character_consistency: 1}
  cannot_serve: {anachronism_trap: the log says nothing of later times, private_voice: no letters}
  needs_passage: {character_consistency: false}
  max_words: 90
  min_words: 15
  passages_in_view: 2
  min_fit: 0.05
  max_tokens: 600
  remote: {concurrency: 4}
student_server:
  models: {base: small-chat}
  remote: {free: true, concurrency: 4}
budget: {project_usd: 1, run_usd: 1}
"""
SFT = """dataset: keeper_dataset_sft
character: keeper
description: The keeper on himself.
method: sft
parts:
  - {origin: introspection, pairs: 1, rows_per_item: 5}
  - {origin: introspection, pairs: 4}
"""
INTROSPECTION = """reflections:
  templates:
    - {id: drives, category: character_consistency, text: "What has driven you in {topic}?"}
    - {id: doubts, category: character_consistency, text: "What do you doubt concerning {topic}?"}
  topics: &topics
    - {id: lamp, text: the keeping of the lamp}
    - {id: wreck, text: the wreck of the brig}
    - {id: board, text: the Board}
dialogues:
  templates: [{id: evening, category: character_consistency, text: "Shall we speak of {topic}?"}]
  topics: *topics
interlocutor: You are the same man in an earlier winter, and you ask after his reasons.
"""
ORDER = ("sources", "passages", "teacher_responses", "introspection", "student_responses", "candidate_pairs",
         "filtered_pairs", "dataset_v1", "dataset_sft")  # fmt: skip


@dataclass
class World:
    """A project whose teacher and student are servers, with everything up to its datasets built."""

    root: Path
    chain: Chain
    built: dict[str, Materialized]
    claude: Server
    students: Server

    def frame(self, stage: str, name: str) -> pl.DataFrame:
        return pl.read_parquet(self.built[stage].artifact.payload / f"{name}.parquet")

    def facts(self, stage: str) -> dict:
        return self.built[stage].record.facts


def build(chain: Chain) -> dict[str, Materialized]:
    return {n: chain.materialize(f"keeper_{n}", run_script=run_script, log=lambda text: None) for n in ORDER}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("claude")
    project = make_project(folder / "project")
    tiny = (project.root / "assets/profiles/tiny.yaml").read_text().replace("profile: tiny", "profile: served")
    start = tiny.index("teacher:\n")
    end = tiny.index("filters:")
    (project.root / "assets/profiles/served.yaml").write_text(tiny[:start] + TEACHER + tiny[end:])
    (project.root / "assets/datasets/keeper_dataset_sft.yaml").write_text(SFT)
    (project.root / "sources/keeper/prompts/introspection.yaml").write_text(INTROSPECTION)
    named = project.root / "sources/keeper/character.yaml"
    # The server's sentences may begin with "Light", which would be the character named as somebody else.
    named.write_text(named.read_text().replace("name: The Keeper of the North Light", "name: Ephraim Stone"))
    faults = {"429": 0.1, "500": 0.1, "thinking": 0.2}
    with (
        pytest.MonkeyPatch.context() as patch,
        running("claude", folder / "claude", faults=faults, prices=PRICES, words=45) as claude,
        running("openai", folder / "students", models=["small-chat"], words=20) as students,
    ):
        patch.setenv("FOUNDRY_ROOT", str(project.root))
        patch.setenv("FOUNDRY_PROFILE", "served")
        patch.setenv("ANTHROPIC_BASE_URL", claude.url)
        patch.setenv("ANTHROPIC_API_KEY", KEY)
        patch.setenv("OPENAI_BASE_URL", students.url)
        _, chain = load_chain(load_settings())
        yield World(project.root, chain, build(chain), claude, students)


def test_pairs_say_who_wrote_them_and_what_they_rest_on(world: World) -> None:
    pairs = world.frame("dataset_v1", "pairs")
    assert pairs.height >= 3
    assert set(pairs["teacher"]) == {"claude:claude-sonnet-5-5"}
    assert set(pairs["student"]) == {"base"}
    own = world.frame("passages", "passages").filter((pl.col("role") == "primary") & ~pl.col("held_out"))
    assert set(pairs["passage_ids"].explode().drop_nulls()) <= set(own["passage_id"])
    asked = world.frame("teacher_responses", "replies")
    said = {row["prompt_id"]: json.loads(row["reply"])["answer"] for row in asked.rows(named=True)}
    assert all(said[row["prompt_id"]] == row["chosen"] for row in pairs.rows(named=True))


def test_every_prompt_is_answered_or_dropped_with_a_reason(world: World) -> None:
    answered, drops = world.frame("teacher_responses", "responses"), world.frame("teacher_responses", "drops")
    declared = (world.root / "sources/keeper/prompts/training.yaml").read_text().count("id:")
    assert answered.height + drops.height == declared == world.facts("teacher_responses")["prompts"]
    reasons = dict(drops.select("prompt_id", "reason").rows())
    assert reasons["base-at-001"] == "category not served: the log says nothing of later times"


def test_tokens_and_cost_stand_in_the_manifests_and_agree_with_the_servers_account(world: World) -> None:
    paid = Decimal(0)
    for stage in ("teacher_responses", "introspection"):
        facts = world.facts(stage)
        assert facts["prompt_tokens"] > 0
        assert facts["completion_tokens"] > 0
        assert facts["cost_usd"] > 0
        assert world.built[stage].artifact.manifest["cost_usd"] == facts["cost_usd"]
        paid += Decimal(str(facts["cost_usd"]))
    account = world.claude.account()
    assert account["lost"] == account["without_usage"] == 0
    assert abs(paid - account["delivered"]) < Decimal("0.000001")
    assert world.facts("student_responses")["cost_usd"] == 0
    # The constitution was written to the provider's cache and read from it again.
    assert world.facts("introspection")["cache_read_tokens"] > 0


def test_the_requests_a_stage_foretells_are_those_it_sent(world: World) -> None:
    stage = world.chain.stages["keeper_teacher_responses"]
    assert stage.requests is not None
    assert stage.demand is not None
    model, requests = stage.requests({"keeper_passages": world.built["passages"].artifact})
    assert (model.backend, model.path) == ("anthropic", "claude-sonnet-5-5")
    assert [r.request_id for r in requests] == world.frame("teacher_responses", "replies")["prompt_id"].to_list()
    known = {request_identity(model, r) for r in requests}
    assert known == set(world.frame("teacher_responses", "replies")["request_hash"])
    assert known >= set(world.frame("dataset_v1", "pairs")["teacher_request_hash"])
    demand = stage.demand()
    assert demand.requests >= len(requests)
    longest = max(len(r.messages[0][1].encode()) + sum(len(t.encode()) for t, _ in r.system) for r in requests)
    assert demand.prompt_bytes >= 0.8 * longest
    foretold = world.chain.stages["keeper_introspection"].demand
    assert foretold is not None
    assert foretold().requests >= world.facts("introspection")["requests"]


def test_introspection_is_reflections_and_whole_dialogues(world: World) -> None:
    facts, rows = world.facts("introspection"), world.frame("introspection", "rows")
    by_prompt = facts["by_prompt"]
    assert set(by_prompt) == {"reflection/drives", "reflection/doubts", "dialogue/evening"}
    assert sum(p["asked"] for n, p in by_prompt.items() if n.startswith("reflection")) == 6
    assert facts["reflections"] + facts["dialogues"] + facts["dropped"] == sum(p["asked"] for p in by_prompt.values())
    assert facts["dialogue_rows"] == 5 * facts["dialogues"] > 0
    dataset = world.frame("dataset_sft", "pairs")
    assert dataset["rejected"].null_count() == dataset.height == 9
    assert set(dataset["prompt_id"]) <= set(rows["prompt_id"])
    assert world.facts("dataset_sft")["introspection_from"] == "generated"
    turns = rows.filter(pl.col("dialogue").is_not_null()).sort("dialogue", "turn").rows(named=True)[:5]
    assert turns[1]["prompt"].startswith(f"{turns[0]['prompt']}\n\n{turns[0]['chosen']}\n\n")
    trace = set(world.chain.stages["keeper_dataset_sft"].inputs)
    assert "keeper_introspection" in trace


def test_repeating_asks_nothing_and_changes_nothing(world: World) -> None:
    before = len(world.claude.events("received")), len(world.students.events("received"))
    settings = world.chain.settings
    again = build(build_chain(load(settings.root, settings.profile), settings))
    assert all(done.reused for done in again.values())
    assert (len(world.claude.events("received")), len(world.students.events("received"))) == before


@pytest.mark.parametrize("stage", ["teacher_responses", "introspection"])
def test_a_lost_artifact_is_built_again_from_the_answers_that_were_paid(world: World, stage: str) -> None:
    done = world.built[stage]
    before = len(world.claude.events("received"))
    index = world.chain.store.root / "index" / f"{done.record.input_hash}.json"
    kept = index.read_bytes()
    index.unlink()
    try:
        again = world.chain.materialize(f"keeper_{stage}", run_script=run_script, log=lambda text: None)
    finally:
        index.write_bytes(kept)
    assert not again.reused
    assert again.artifact.content_hash == done.artifact.content_hash
    assert len(world.claude.events("received")) == before


def test_no_request_was_sent_again_after_its_answer(world: World) -> None:
    answered: set[str] = set()
    for line in world.claude.log():
        if line["event"] == "received":
            assert line["key"] not in answered
        elif line["event"] == "answered":
            answered.add(line["key"])
    assert answered


def test_the_key_is_nowhere_on_disk(world: World) -> None:
    files = [p for p in world.root.rglob("*") if p.is_file()]
    assert any(p.name == "responses.db" for p in files)
    assert [p for p in files if KEY.encode() in p.read_bytes()] == []
