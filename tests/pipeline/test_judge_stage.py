"""Claude as the judge of an evaluation, through the chain: estimate, scores, money, and a second command that pays nothing."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from foundry_pipeline.chain.costs import estimate
from foundry_pipeline.chain.engine import Chain, Materialized
from foundry_pipeline.chain.evaluation_stages import eval_stage
from foundry_pipeline.chain.graph import load_chain
from foundry_pipeline.chain.judge_views import agreement_of, audit_of
from foundry_pipeline.chain.judges_stage import judges_summary
from foundry_pipeline.chain.scores import score_rows
from foundry_pipeline.declarations import Declarations
from foundry_pipeline.defs.judge_checks import outcomes
from foundry_pipeline.errors import FoundryError
from foundry_pipeline.launch import run_script
from foundry_pipeline.models.money.ledger import MoneyLedger
from foundry_pipeline.settings import Settings
from tests.prepared import prepare, publish_made
from tests.servers.asking import environment, surroundings
from tests.servers.running import Server, running

PRICES = {"input": "2", "output": "10", "cache_write": "2.5", "cache_read": "0.1"}
JUDGE = """judge: claude
judges:
  claude: {kind: claude, model: claude-sonnet-5-5, max_tokens: 800, rejudge_max_tokens: 1600,
           remote: {concurrency: 4, effort: low}}
budget: {project_usd: 5}
"""
MODES = ("base", "adapter", "merged", "q4_k_m")
ANSWERS = (
    "I trim the wick at dusk.",
    "I say nothing of it. [refuse]",
    "The Board errs in this. [room]",
    "lamp and oil " * 80,
)


@dataclass
class World:
    root: Path
    d: Declarations
    chain: Chain
    server: Server
    estimated: dict[str, Any]
    done: Materialized
    asked: int

    @property
    def summary(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.done.artifact.payload / "summary.json").read_text("utf-8"))
        return found

    def frame(self, name: str) -> pl.DataFrame:
        return pl.read_parquet(self.done.artifact.payload / f"{name}.parquet")


def answers(d: Declarations) -> pl.DataFrame:
    prompts = d.characters["keeper"].suite.prompts
    rows = [
        {
            "mode": mode,
            "prompt_id": prompt.id,
            "answer": f"{ANSWERS[i]} ({mode})" if i < 3 else ANSWERS[i],
            "finish_reason": "stop",
            "request_hash": f"{mode}{i}",
        }
        for mode in MODES
        for i, prompt in enumerate(prompts)
    ]
    return pl.DataFrame(rows)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("judged")
    root = prepare(folder / "project").root
    profile = root / "assets/profiles/tiny.yaml"
    profile.write_text(profile.read_text("utf-8").replace("judge: rubric-local\n", JUDGE), encoding="utf-8")
    with running("claude", folder / "server", prices=PRICES) as server, surroundings(environment(server)):
        d, chain = load_chain(Settings(root, root / ".foundry", "tiny"))
        # Whatever would hold weights: held-out text is measured on them, and this character holds none out.
        for name in ("keeper_first_adapter", "keeper_first_merged", "keeper_first_gguf", "keeper_first_responses"):
            payload = chain.store.work(str(chain.resolve(name).input_hash)) / "payload"
            (payload / "dense").mkdir(parents=True)
            (payload / "made_by_hand.txt").write_text(name)
            if name.endswith("responses"):
                answers(d).write_parquet(payload / "responses.parquet")
            publish_made(chain, name, payload)
        estimated = estimate(d, chain, "keeper_first_eval")
        done = build(chain)
        yield World(root, d, chain, server, estimated, done, len(server.events("received")))


def build(chain: Chain, name: str = "keeper_first_eval") -> Materialized:
    return chain.materialize(name, run_script=run_script, log=lambda text: None)


def test_every_answer_has_its_score_or_its_reason(world: World) -> None:
    scores, judgments = world.frame("scores"), world.frame("judgments")
    # Twelve answers were sent, eight of them once more; the loop of every mode was sent to nobody.
    assert world.asked == judgments.height == 12 + 8
    assert judgments.filter(pl.col("attempt") == 1).height == 8
    by_prompt = {key[0]: part for key, part in scores.partition_by("prompt_id", as_dict=True).items()}
    first, refused, longer, loop = (by_prompt[p.id] for p in world.d.characters["keeper"].suite.prompts)
    assert first["overall"].null_count() == longer["overall"].null_count() == 0
    assert refused["overall"].null_count() == 4
    assert set(refused["justification"]) == {"unscored: refused (stop_reason refusal)"}
    assert (set(loop["overall"]), loop["critical_failures"].to_list()) == ({0.0}, [["loop"]] * 4)
    assert first["raw_overall"].null_count() == 0
    for row in first.iter_rows(named=True):
        weights = {"voice": 0.25, "rhetorical": 0.2, "historical": 0.2, "position": 0.2, "integrity": 0.15}
        assert row["overall"] == pytest.approx(sum(w * row[name] for name, w in weights.items()))


def test_the_summary_names_the_judge_and_what_it_left_unscored(world: World) -> None:
    summary = world.summary
    assert summary["judge"]["name"] == "claude:claude-sonnet-5-5"
    for mode in summary["modes"].values():
        assert mode["unscored"] == 1
        bounds = mode["unscored_bounds"]
        assert bounds["reasons"] == {"refused (stop_reason refusal)": 1}
        assert bounds["low"] == pytest.approx(mode["overall"]["mean"] * 3 / 4)
        assert bounds["high"] == pytest.approx(mode["overall"]["mean"] * 3 / 4 + 2.5)
    rows = score_rows(world.chain, world.d, world.done)
    assert {row["parse_failures"] for row in rows} == {1}
    assert {row["judge_version"] for row in rows} == {summary["judge"]["version"]}


def test_what_it_cost_was_foreseen_and_is_the_servers_own_figure(world: World) -> None:
    stage = next(row for row in world.estimated["stages"] if row["stage"] == "keeper_first_eval")
    assert (stage["how"], stage["requests"]) == ("counted from the requests", 12)
    billed = world.server.account()["delivered"]
    assert billed > 0
    assert Decimal(str(world.done.record.facts["cost_usd"])) == pytest.approx(billed, abs=Decimal("1e-9"))
    assert billed < Decimal(stage["usd"]["high"])
    assert MoneyLedger(world.root / ".foundry/money.db").totals().counted > 0


def test_the_same_command_asks_nobody_and_a_lost_result_is_made_from_stored_replies(world: World) -> None:
    assert build(world.chain).reused
    index = world.root / ".foundry/index" / f"{world.done.record.input_hash}.json"
    assert index.is_file()
    index.unlink()
    again = build(world.chain)
    assert (again.reused, again.record.content_hash) == (False, world.done.record.content_hash)
    assert len(world.server.events("received")) == world.asked
    assert again.record.facts["cost_usd"] == 0


def test_judging_anew_asks_anew_and_only_then(world: World) -> None:
    stage = eval_stage(world.d, world.d.runs["keeper_first"], attempt=1)
    chain = Chain({**world.chain.stages, stage.name: stage}, world.chain.store, world.chain.settings)
    before = len(world.server.events("received"))
    assert not build(chain).reused
    assert len(world.server.events("received")) - before == 20


def test_the_judges_own_mark_is_audited_over_runs(world: World) -> None:
    runs = sorted(world.d.runs)
    found = audit_of(world.chain, runs)["claude:claude-sonnet-5-5"]
    # Of sixteen answers four are unscored; the loops, scored by rule, have no mark of the judge's own.
    assert (found["runs"], found["answers"]) == (["keeper_first"], 8)
    assert found["with"]["n"] + found["without"]["n"] == 2
    with pytest.raises(FoundryError, match="own overall mark"):
        audit_of(world.chain, [run for run in runs if run != "keeper_first"])


def test_two_judges_of_the_same_answers_are_compared_and_one_alone_is_not(world: World) -> None:
    with pytest.raises(FoundryError, match="two judges"):
        agreement_of(world.chain, "keeper_first")
    alone = judges_summary(build(world.chain, "keeper_first_judges"))
    assert "only claude:claude-sonnet-5-5 has judged these answers" in alone["told"]
    assert outcomes(alone)["judges_agree"][0] is False, "what was not measured has not passed"
    profile = world.root / "assets/profiles/tiny.yaml"
    claude = profile.read_text("utf-8")
    try:
        profile.write_text(claude.replace("judge: claude\n", "judge: rubric-local\n"), encoding="utf-8")
        _, chain = load_chain(Settings(world.root, world.root / ".foundry", "tiny"))
        build(chain)
    finally:
        profile.write_text(claude, encoding="utf-8")
    found = agreement_of(world.chain, "keeper_first")
    assert found["judges"] == ["claude:claude-sonnet-5-5", "rubric-local"]
    # Sixteen answers; the four that the first judge refused to judge are not compared.
    assert (found["answers"], found["overall"]["answers"]) == (16, 12)
    assert -1 <= found["overall"]["alpha"] <= 1
    world.chain.forget("keeper_first_judges")
    done = build(world.chain, "keeper_first_judges")
    assert not done.reused, "another judge's evaluation makes the table anew"
    told = judges_summary(done)
    assert (told["judges"], told["told"]) == (found["judges"], "")
    assert told["agreement"] == found["overall"]["alpha"]
    table = pl.read_parquet(done.artifact.payload / "agreement.parquet")
    assert table.filter(pl.col("of") == "judges")["score"].to_list()[0] == "overall"
    audit = pl.read_parquet(done.artifact.payload / "audit.parquet")
    assert set(audit["judge"]) == {"claude:claude-sonnet-5-5"}, "the rubric gives no mark of its own"
    assert outcomes(told)["judges_agree"][2]["observed"] == told["agreement"]
    assert build(world.chain, "keeper_first_judges").reused
