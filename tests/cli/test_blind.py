"""`foundry ab` as a user calls it, on recorded answers: both orders, several judges, a sheet that gives nothing away."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from tests.project import Project
from tests.scored import InProcess
from tests.servers.running import running

OURS, THEIRS = "keeper_first:adapter", "keeper_first:base"
JUDGES = """judges:
  second: {kind: openai, model: reader-1, max_tokens: 400, remote: {free: true, concurrency: 4}}
"""


@pytest.fixture
def copy(scored: Project, tmp_path: Path) -> InProcess:
    shutil.copytree(scored.root, tmp_path / "project")
    return InProcess(tmp_path / "project")


def ab(project: Project, *arguments: str) -> dict[str, Any]:
    done = project.run("foundry", "ab", *arguments, "--json")
    assert done.returncode == 0, done.stdout
    (found,) = json.loads(done.stdout[done.stdout.index("[\n") :])
    return dict(found)


def key_of(found: dict[str, Any]) -> dict[str, dict[str, Any]]:
    sheet = Path(found["sheet"])
    key: dict[str, Any] = json.loads((sheet.parents[1] / "keys" / f"{sheet.parent.name}.json").read_text())
    return dict(key["lines"])


def lines_of(found: dict[str, Any]) -> list[dict[str, str]]:
    return [json.loads(line) for line in Path(found["sheet"]).read_text(encoding="utf-8").splitlines()]


def test_the_sides_may_change_places_and_only_the_sign_does(copy: InProcess) -> None:
    here, there = ab(copy, OURS, THEIRS), ab(copy, THEIRS, OURS)
    one, other = (found["rates"]["rubric-local"]["all"] for found in (here, there))
    assert (one["wins"], one["ties"], one["losses"]) == (other["losses"], other["ties"], other["wins"])
    assert one["wins"] + one["ties"] + one["losses"] == one["n"] == 4
    assert one["wins"] > one["losses"]
    assert one["verdict"] == "no claim at n=4"  # the smallest p of four questions is 2 in 16
    assert {group.split(":")[0] for group in here["rates"]["rubric-local"]} == {"all", "suite", "category"}
    rows = pl.read_parquet(here["verdicts"])
    assert rows["prompt_id"].n_unique() == rows.height == 4


def test_one_text_under_two_names_is_a_tie_without_a_judge(copy: InProcess) -> None:
    found = ab(copy, OURS, "keeper_first:merged")
    assert found["same_text"] == 4
    assert found["rates"]["rubric-local"]["all"]["ties"] == 4
    assert found["rates"]["rubric-local"]["all"]["rate"] == 0.5
    assert lines_of(found) == []


def test_the_sheet_names_nobody_and_stays_as_it_is(copy: InProcess) -> None:
    found = ab(copy, OURS, THEIRS)
    path = Path(found["sheet"])
    before = path.read_bytes()
    assert not any(word in before.decode() for word in ("keeper_first", "adapter", "ours", "rubric"))
    assert not list(path.parent.rglob("*key*"))
    lines = lines_of(found)
    assert [set(line) for line in lines] == [{"id", "question", "first", "second"}] * 8
    assert len({line["id"] for line in lines}) == 8
    assert ab(copy, OURS, THEIRS)["sheet"] == str(path)
    assert path.read_bytes() == before


def test_votes_of_a_person_are_a_judge_and_what_is_missing_is_unscored(copy: InProcess, tmp_path: Path) -> None:
    key = key_of(ab(copy, OURS, THEIRS))
    votes = []
    for name, place in key.items():
        if place["duel"] == 0:  # by whose answer it is, in both orders
            votes.append({"id": name, "choice": "first" if place["ours_first"] else "second"})
        elif place["duel"] == 1:  # always the first: it is the place that wins
            votes.append({"id": name, "choice": "first"})
        elif place["duel"] == 2 and place["ours_first"]:  # the other order is not voted on
            votes.append({"id": name, "choice": "first", "reason": "plainer"})
    path = tmp_path / "votes.jsonl"
    path.write_text("\n".join(map(json.dumps, votes)), encoding="utf-8")
    found = ab(copy, OURS, THEIRS, "--votes", f"anna={path}", "--judge", "rubric-local")
    anna = found["rates"]["anna"]["all"]
    assert (anna["wins"], anna["ties"], anna["swayed"], anna["losses"], anna["unscored"]) == (1, 1, 1, 0, 2)
    assert (anna["n"], anna["rate"]) == (2, 0.75)
    assert set(found["rates"]) == {"anna", "rubric-local", "most judges"}
    assert [(p["judges"], p["n"]) for p in found["agreement"]] == [(["anna", "rubric-local"], 2)]


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ('{"id": "nobody", "choice": "first"}', "no duel of this sheet has that id"),
        ('{"id": "%s", "choice": "third"}', "a choice is one of"),
        ('{"id": "%s", "choice": "tie"}\n{"id": "%s", "choice": "tie"}', "voted on before"),
        ('{"id": "%s"}', "this is no vote"),
        ("first", "this is no vote"),
    ],
)
def test_what_is_no_vote_is_named_by_its_line(copy: InProcess, tmp_path: Path, line: str, says: str) -> None:
    name = next(iter(key_of(ab(copy, OURS, THEIRS))))
    path = tmp_path / "votes.jsonl"
    path.write_text(line.replace("%s", name), encoding="utf-8")
    done = copy.run("foundry", "ab", OURS, THEIRS, "--votes", f"anna={path}")
    assert done.returncode == 1
    assert says in done.stdout
    assert "votes.jsonl, line" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ((OURS,), "one side has nobody to meet"),
        ((OURS, "nobody"), "no run `nobody` is declared"),
        ((OURS, "keeper_first:f16"), "was not judged in the mode `f16`"),
        ((OURS, THEIRS, "--judge", "claude"), "no judge `claude` is declared"),
        ((OURS, THEIRS, "--votes", "votes.jsonl"), "names no votes"),
        ((OURS, THEIRS, "--votes", "anna=gone.jsonl"), "the votes cannot be read"),
    ],
)
def test_bad_input_is_named_with_what_mends_it(scored: Project, arguments: tuple[str, ...], says: str) -> None:
    done = scored.run("foundry", "ab", *arguments)
    assert done.returncode == 1
    assert says in done.stdout
    assert "mend:" in done.stdout
    assert "Traceback" not in done.stdout


def test_a_model_judges_through_cache_beside_the_rubric_and_suites_are_apart(copy: InProcess, tmp_path: Path) -> None:
    """Both orders of every duel are asked about once, whatever is repeated; no request names a side."""
    profile, suite = copy.root / "assets/profiles/tiny.yaml", copy.root / "assets/evals/keeper_suite.yaml"
    profile.write_text(profile.read_text() + JUDGES)
    suite.write_text(suite.read_text() + "out_of_domain: [position_discrimination]\n")
    with running("openai", tmp_path / "server") as server:
        copy.extra["OPENAI_BASE_URL"] = server.url
        found = ab(copy, OURS, THEIRS, "--judge", "second", "--judge", "rubric-local")
        asked = server.events("received")
        assert len(asked) == 8
        assert (
            ab(copy, OURS, THEIRS, "--judge", "second")["rates"]["openai:reader-1"] == found["rates"]["openai:reader-1"]
        )
        assert len(server.events("received")) == 8
    rates = found["rates"]["openai:reader-1"]
    assert rates["all"]["unscored"] == 0
    outside, inside = rates["suite:out_of_domain"], rates["suite:in_domain"]
    assert outside["n"] == rates["category:position_discrimination"]["n"] >= 1
    assert outside["n"] + inside["n"] == 4
    assert found["agreement"][0]["n"] == 4
    told = copy.run("foundry", "ab", OURS, THEIRS, "--judge", "second", "--judge", "rubric-local")
    assert told.returncode == 0, told.stdout
    assert "out of domain" in told.stdout
    assert "most judges" in told.stdout
