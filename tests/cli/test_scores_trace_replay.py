"""`foundry scores`, `trace` and `replay` as a user calls them, on a small store that was scored."""

from __future__ import annotations

import csv
import io
import json
import re
import shutil
import sqlite3
from pathlib import Path

import polars as pl
import pytest

from foundry_pipeline.chain.replay import replay
from foundry_pipeline.chain.scores import record_scores, trace, trace_forward
from foundry_pipeline.errors import FoundryError
from foundry_pipeline.launch import run_script
from foundry_pipeline.lineage.hashing import folder_files
from foundry_pipeline.lineage.ledger import append_scores, read_scores
from foundry_pipeline.settings import Settings
from tests.prepared import HOSTILE, V1, publish_made
from tests.project import ROOT, Project
from tests.scored import EVAL, MODES, ByHand, InProcess, opened, score
from tests.servers.postgres import Postgres

CONTROL = re.compile(r"[\x00-\x09\x0b-\x0c\x0e-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
SOURCE = "sources/keeper/manifests/logbook/winter.txt"


@pytest.fixture(scope="module")
def project(scored: Project) -> Project:
    return scored


@pytest.fixture
def copy(project: Project, tmp_path: Path) -> Project:
    shutil.copytree(project.root, tmp_path / "project")
    return InProcess(tmp_path / "project")


def url(project: Project) -> str:
    return f"sqlite:///{project.store / 'ledger.db'}"


def settings(project: Project) -> Settings:
    return Settings(project.root, project.store, "tiny")


def ids(project: Project) -> dict[str, str]:
    return {r["mode"]: r["score_id"] for r in read_scores(url(project))}


# -- scores --------------------------------------------------------------------------------------------------------


def test_scores_in_three_shapes(project: Project) -> None:
    rows = json.loads(project.run("foundry", "scores", "--json").stdout)
    assert {r["kind"] for r in rows} == {"measured"}
    assert [r["mode"] for r in rows] == sorted(MODES)
    assert all(r["prompts"] == 4 and r["sampling_seed"] == 0 and r["judge_repeat"] == 0 for r in rows)
    assert {r["mode"]: r["training_seed"] for r in rows} == {"base": None, "adapter": 42, "merged": 42, "q4_k_m": 42}
    assert all(r["intervals"]["components"]["voice"]["mean"] == r["components"]["voice"] for r in rows)
    told = project.run("foundry", "scores").stdout
    assert "measured scores" in told
    assert all(r["score_id"][:10] in told for r in rows)
    out = project.run("foundry", "scores", "--csv", "--mode", "adapter").stdout
    (row,) = csv.DictReader(io.StringIO(out))
    adapter = next(r for r in rows if r["mode"] == "adapter")
    assert (row["kind"], row["score_id"]) == ("measured", adapter["score_id"])
    assert float(row["overall"]) == adapter["overall"]
    assert float(row["categories.ground_truth"]) == adapter["categories"]["ground_truth"]
    assert row["raw_overall"] == ""


def test_reported_figures_are_listed_apart_and_labelled(tmp_path: Path) -> None:
    project = InProcess(ROOT, "laptop", {"FOUNDRY_STORE": str(tmp_path)})
    rows = json.loads(project.run("foundry", "scores", "--reported", "--json").stdout)
    assert {r["kind"] for r in rows} == {"reported"}
    assert not {"overall", "judge_version"} & rows[0].keys()
    told = csv.DictReader(io.StringIO(project.run("foundry", "scores", "--reported", "--csv").stdout))
    assert {r["kind"] for r in told} == {"reported"}
    refused = project.run("foundry", "scores", "--reported", "--judge", "claude")
    assert refused.returncode == 1
    assert "carry no judge" in refused.stdout


def test_filters_and_what_they_refuse(project: Project) -> None:
    assert json.loads(project.run("foundry", "scores", "--json", "--since", "1d", "--mode", "base").stdout)
    assert json.loads(project.run("foundry", "scores", "--json", "--until", "2001-01-01").stdout) == []
    assert "no score fits" in project.run("foundry", "scores", "--run", "nobody").stdout
    for wrong in (("--since", "soon"), ("--json", "--csv")):
        done = project.run("foundry", "scores", *wrong)
        assert done.returncode == 1
        assert "mend:" in done.stdout


def test_hostile_text_in_a_ledger_is_shown_and_not_obeyed(copy: Project) -> None:
    (first, *_) = read_scores(url(copy))
    append_scores(url(copy), [{**first, "score_id": "f" * 64, "run": HOSTILE, "dataset": "=cmd()", "judge": "+1"}])
    for options in ((), ("--json",), ("--csv",)):
        out = copy.run("foundry", "scores", *options).stdout
        assert not CONTROL.search(out), options
    assert "[bold]loud[/bold]" in copy.run("foundry", "scores").stdout
    # An error that quotes the name is as harmless.
    append_scores(url(copy), [{**first, "score_id": "d" * 64, "run": HOSTILE, "artifact_hash": "0" * 64}])
    for command in (("replay", "dddddddd"), ("trace", "dddddddd"), ("trace", "--forward", HOSTILE)):
        done = copy.run("foundry", *command)
        assert done.returncode in (1, 2)
        assert not CONTROL.search(done.stdout), command
    last = list(csv.DictReader(io.StringIO(copy.run("foundry", "scores", "--csv").stdout)))
    (told,) = [r for r in last if r["score_id"] == "f" * 64]
    assert (told["dataset"], told["judge"]) == ("'=cmd()", "'+1")


def test_reading_changes_no_file(copy: Project) -> None:
    (copy.store / "ledger.db").rename(copy.store / "ledger.kept")
    before = folder_files(copy.store)
    told = copy.run("foundry", "scores")
    assert told.returncode == 1
    assert "foundry repair ledger" in told.stdout, "its second copy is there"
    assert folder_files(copy.store) == before
    (copy.store / "ledger.db.jsonl").rename(copy.store / "ledger.kept.jsonl")
    before = folder_files(copy.store)
    assert "no score yet" in copy.run("foundry", "scores").stdout
    assert copy.run("foundry", "trace", EVAL).returncode == 0
    assert copy.run("foundry", "replay", "abcdef12").returncode == 2
    assert folder_files(copy.store) == before
    (copy.store / "ledger.kept").rename(copy.store / "ledger.db")
    (copy.store / "ledger.kept.jsonl").rename(copy.store / "ledger.db.jsonl")
    before = folder_files(copy.store)
    for command in (("scores", "--csv"), ("trace", EVAL), ("replay", ids(copy)["adapter"][:10]), ("diff", V1, V1)):
        copy.run("foundry", *command)
    assert folder_files(copy.store) == before


# -- trace ---------------------------------------------------------------------------------------------------------


def test_what_stands_is_not_stale(project: Project) -> None:
    way = json.loads(project.run("foundry", "trace", EVAL, "--json").stdout)
    assert way["stale"] == []
    assert {s["mode"] for s in way["scores"]} == set(MODES)
    assert all(s["stale"] == [] for s in way["scores"])
    assert all(n["current"] and not n["note"] for n in way["nodes"])
    assert trace(opened(project)[1], ids(project)["merged"][:12], verify=True).nodes[0].note == ""
    told = project.run("foundry", "trace", EVAL).stdout
    assert "STALE" not in told
    assert "stale" not in told


def test_an_edited_source_makes_the_score_stale_and_is_named(copy: Project) -> None:
    before = opened(copy)[1].require("keeper_sources").record.external["logbook"]
    path = copy.root / SOURCE
    path.write_text(path.read_text().replace("eleven winters", "twelve winters"))
    _, chain = opened(copy)
    after = chain.external(chain.stages["keeper_sources"])["logbook"]
    told = copy.run("foundry", "trace", EVAL).stdout
    assert "STALE" in told
    assert f"keeper_sources: source logbook changed, {before[:12]} → {after[:12]}" in told
    way = json.loads(copy.run("foundry", "trace", EVAL, "--json").stdout)
    (reason,) = way["stale"]
    assert (reason["kind"], reason["asset"], reason["field"]) == ("source", "keeper_sources", "logbook")
    assert (reason["before"], reason["after"]) == (before, after)
    forward = json.loads(copy.run("foundry", "trace", "--forward", "log_winter", "--json").stdout)
    assert {s["mode"] for s in forward} == set(MODES)
    assert all(s["stale"] == [reason["told"]] for s in forward)
    assert all(s["pairs_touched"] == 8 and s["read_by_judge"] for s in forward)
    # Sources and passages built anew: the documents themselves can be told apart, and the old way is still walked.
    for name in ("keeper_sources", "keeper_passages"):
        chain.materialize(name, run_script=run_script, log=lambda text: None)
    found = trace(opened(copy)[1], EVAL)
    assert [(r["kind"], r["field"]) for r in found.stale][:2] == [("source", "logbook"), ("document", "log_winter")]
    assert found.documents[0]["raw_sha256"] == found.stale[1]["before"]
    assert {r["asset"] for r in found.stale if r["kind"] == "input"} == {"keeper_sources", "keeper_passages"}
    # Put back, it stands again.
    path.write_text(path.read_text().replace("twelve winters", "eleven winters"))
    assert trace(opened(copy)[1], EVAL).stale == []


def test_an_unreadable_source_is_a_reason_and_no_crash(copy: Project) -> None:
    (copy.root / SOURCE).unlink()
    done = copy.run("foundry", "trace", EVAL)
    assert done.returncode == 0, done.stdout
    assert "keeper_sources: source" in done.stdout
    assert "STALE" in done.stdout


def test_a_changed_declaration_is_named_by_field(copy: Project) -> None:
    path = copy.root / "assets/runs/keeper_first.yaml"
    path.write_text(path.read_text().replace("lora_rank: 4", "lora_rank: 8"))
    found = trace(opened(copy)[1], EVAL)
    (reason,) = [r for r in found.stale if r["kind"] == "declaration" and r["asset"] == "keeper_first_adapter"]
    assert (reason["field"], reason["before"], reason["after"]) == ("lora_rank", 4, 8)
    forward = trace_forward(opened(copy)[1], "log_winter")
    assert all(any("lora_rank" in told for told in row["stale"]) for row in forward)


def test_a_score_of_another_profile_is_held_to_that_profile(copy: Project) -> None:
    folder = copy.root / "assets/profiles"
    other = (folder / "tiny.yaml").read_text().replace("profile: tiny", "profile: other")
    (folder / "other.yaml").write_text(other.replace("max_length: 256", "max_length: 128"))
    copy.profile = "other"
    way = json.loads(copy.run("foundry", "trace", ids(copy)["adapter"][:12], "--json").stdout)
    assert way["stale"] == []


def test_the_way_leads_through_what_was_built_again(copy: Project) -> None:
    _, chain = opened(copy)
    old = chain.require(V1).record
    payload = copy.root / "again"
    shutil.copytree(chain.store.folder(old.content_hash) / "payload", payload)
    frame = pl.read_parquet(payload / "pairs.parquet").head(3)
    frame.write_parquet(payload / "pairs.parquet")
    publish_made(chain, V1, payload)
    found = trace(chain, EVAL)
    node = next(n for n in found.nodes if n.name == V1)
    assert node.content_hash == old.content_hash
    assert "built again since" in node.note
    assert len(found.pairs) == 8, "the pairs that it was trained on, not those of today"
    assert [(r["kind"], r["asset"], r["before"]) for r in found.stale if r["kind"] == "input"][0] == (
        "input", V1, old.content_hash,
    )  # fmt: skip
    shutil.rmtree(chain.store.folder(old.content_hash))
    gone = trace(opened(copy)[1], EVAL)
    assert any(V1 in n.note and "no longer in the store" in n.note for n in gone.nodes)


def test_damage_is_found_when_asked_for(copy: Project) -> None:
    _, chain = opened(copy)
    path = chain.require("keeper_passages").artifact.payload / "changes.parquet"
    path.write_bytes(path.read_bytes() + b"more")
    assert not any(n.note for n in trace(opened(copy)[1], EVAL).nodes)
    noted = {n.name: n.note for n in trace(opened(copy)[1], EVAL, verify=True).nodes if n.note}
    assert list(noted) == ["keeper_passages"]
    assert "changes.parquet differs" in noted["keeper_passages"]


@pytest.mark.parametrize("target", ["nobody_eval", "ffffffffff", "", "../../etc/passwd", "\x1b[31m", "0" * 64])
def test_what_cannot_be_traced_is_told(project: Project, target: str) -> None:
    done = project.run("foundry", "trace", target)
    assert done.returncode == 1
    assert "mend:" in done.stdout
    assert "Traceback" not in done.stdout
    assert not CONTROL.search(done.stdout)


# -- replay --------------------------------------------------------------------------------------------------------


def test_a_recorded_score_is_the_same_number(project: Project) -> None:
    for mode, score_id in ids(project).items():
        found = replay(settings(project), score_id, run_script=run_script)
        assert found.same, mode
        assert found.figures[0].recorded == found.figures[0].found
    done = Project(project.root).run("foundry", "replay", ids(project)["adapter"][:10])
    assert done.returncode == 0, done.stdout
    assert "the same score" in done.stdout
    assert "against base" in done.stdout


def test_judged_anew_it_is_the_same_number(project: Project) -> None:
    done = project.run("foundry", "replay", ids(project)["q4_k_m"][:10], "--rejudge")
    assert done.returncode == 0, done.stdout
    assert "8 answers were judged anew by rubric-local" in done.stdout
    assert "0 of 8 judgments differ" in done.stdout


def test_another_number_is_told_as_such(copy: Project) -> None:
    """An evaluation whose marks no rubric gave: it adds up, and judging anew shows that it was not judged so."""
    path = copy.root / "assets/evals/keeper_suite.yaml"
    path.write_text(path.read_text().replace("bootstrap_resamples: 200", "bootstrap_resamples: 201"))
    score(copy, ByHand(9.5))
    by_hand = [r for r in read_scores(url(copy)) if r["judge_version"] == "by-hand" and r["mode"] == "adapter"]
    assert copy.run("foundry", "replay", by_hand[0]["score_id"]).returncode == 0
    done = copy.run("foundry", "replay", by_hand[0]["score_id"], "--rejudge", "--json")
    assert done.returncode == 1, done.stdout
    # A row that says something else than its evaluation.
    wrong = {**read_scores(url(copy))[0], "score_id": "e" * 64, "overall": 9.9}
    append_scores(url(copy), [wrong])
    done = copy.run("foundry", "replay", "eeeeeeee")
    assert done.returncode == 1
    assert "ANOTHER score: 1 of" in done.stdout
    assert "9.900000" in done.stdout


def test_what_cannot_be_replayed_ends_with_two(copy: Project) -> None:
    score_id = ids(copy)["adapter"]
    for target in ("abcdef12", "", "\x1b[31m"):
        done = copy.run("foundry", "replay", target, "--json")
        assert done.returncode == 2, done.stdout
        assert not CONTROL.search(done.stdout)
    evaluation = opened(copy)[1].require(EVAL).artifact
    kept = (evaluation.payload / "scores.parquet").read_bytes()
    (evaluation.payload / "scores.parquet").write_bytes(kept[:-7])
    done = copy.run("foundry", "replay", score_id)
    assert done.returncode == 2
    assert f"foundry repair {EVAL}" in done.stdout
    shutil.rmtree(evaluation.folder)
    for options in ((), ("--rejudge",), ("--regenerate",)):
        with pytest.raises(FoundryError, match="no longer in the store"):
            replay(settings(copy), score_id, run_script=run_script, **{o.strip("-"): True for o in options})


def test_without_its_passages_it_adds_up_but_cannot_be_judged(copy: Project) -> None:
    _, chain = opened(copy)
    shutil.rmtree(chain.require("keeper_passages").artifact.folder)
    score_id = ids(copy)["adapter"]
    assert replay(settings(copy), score_id, run_script=run_script).same
    with pytest.raises(FoundryError, match="passages"):
        replay(settings(copy), score_id, run_script=run_script, rejudge=True)


def test_a_ledger_of_the_first_layout_is_replayed(copy: Project) -> None:
    """Its rows hold no components; everything else is compared."""
    rows = read_scores(url(copy))
    for name in ("ledger.db", "ledger.db.jsonl"):
        (copy.store / name).unlink()
    from tests.unit.lineage.ledger_sample import old_ledger

    old_ledger(url(copy), rows)
    found = replay(settings(copy), rows[0]["score_id"], run_script=run_script)
    assert found.same
    assert "voice" not in {f.name for f in found.figures}
    with sqlite3.connect(copy.store / "ledger.db") as connection:
        assert connection.execute("SELECT count(*) FROM sqlite_master WHERE name = 'ledger_version'").fetchone() == (0,)


def test_the_same_by_a_postgresql_url(copy: Project, postgres: Postgres, monkeypatch: pytest.MonkeyPatch) -> None:
    there = postgres.database()
    copy.extra["FOUNDRY_LEDGER_URL"] = there
    assert json.loads(copy.run("foundry", "scores", "--json").stdout) == []
    monkeypatch.setenv("FOUNDRY_LEDGER_URL", there)
    d, chain = opened(copy)
    assert record_scores(chain, d, chain.require(EVAL)) == len(MODES)
    assert record_scores(chain, d, chain.require(EVAL)) == 0
    told = copy.run("foundry", "scores", "--json", "--mode", "merged")
    (row,) = json.loads(told.stdout)
    assert row["score_id"] == ids(copy)["merged"], "the same row as in the file"
    assert copy.run("foundry", "replay", row["score_id"][:12]).returncode == 0
    way = json.loads(copy.run("foundry", "trace", row["score_id"][:12], "--json").stdout)
    assert {s["mode"] for s in way["scores"]} == set(MODES)
