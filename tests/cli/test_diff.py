"""`foundry diff`, `versions`, `checks` and `export-dataset`, as a user calls them, on a small store."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import polars as pl
import pytest

from foundry_pipeline.chain.dataset_diff import diff_versions
from foundry_pipeline.chain.dataset_exports import export
from foundry_pipeline.chain.dataset_versions import find_version, versions
from foundry_pipeline.chain.engine import Chain
from foundry_pipeline.chain.graph import load_chain
from foundry_pipeline.declarations import Declarations
from foundry_pipeline.errors import DamagedArtifact, FoundryError
from foundry_pipeline.lineage.ledger import SCORES, append_scores
from foundry_pipeline.pairs.candidates import score_pairs
from foundry_pipeline.reports.checks_page import write_checks_page
from foundry_pipeline.settings import Settings
from tests.prepared import HOSTILE, SFT, V1, V2, prepare
from tests.project import Project
from tests.scored import InProcess

CONTROL = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


def twisted(root: Path):
    """One pair of v1 says something hostile, another is too short to pass."""

    def change(frame: pl.DataFrame) -> pl.DataFrame:
        d, _ = load_chain(Settings(root, root / ".foundry", "tiny"))
        said = (
            f"I hold now that {HOSTILE} is nothing which a keeper of a light ought to write into the book of the house."
        )
        changed = frame.with_columns(
            chosen=pl.when(pl.col("prompt_id") == "base-001").then(pl.lit(said))
            .when(pl.col("prompt_id") == "base-002").then(pl.lit("I hold my peace.")).otherwise("chosen")
        )  # fmt: skip
        return score_pairs(changed, d.characters["keeper"].character)

    return change


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """Two versions of every dataset; the second is the present one. Runs on both versions of v1 have been scored."""
    root = tmp_path_factory.mktemp("prepared") / "project"
    made = prepare(root)
    first = hashes(made, V1)
    prepare(root, change=twisted(root), make=False)
    now = next(h for h in hashes(made, V1) if h not in first)
    rows = [
        score("keeper_first", first[0], 5.0),
        score("keeper_first", now, 6.25),
        score("keeper_first", now, 9.0, judge="claude"),
    ]
    append_scores(f"sqlite:///{made.store / 'ledger.db'}", rows)
    return InProcess(made.root)


def score(run: str, dataset_hash: str, overall: float, judge: str = "rubric-local") -> dict:
    row = {c.name: "" for c in SCORES.columns} | {
        "score_id": f"{run}{dataset_hash}{judge}", "recorded_at": "2026-01-01", "run": run, "mode": "adapter", "judge": judge,
        "dataset": V1, "dataset_hash": dataset_hash, "overall": overall, "overall_low": overall - 1,
        "overall_high": overall + 1, "categories": {}, "difficulties": {}, "critical_failures": 0, "parse_failures": 0,
        "cost_usd": 0.0, "seconds": 1.0,
    }  # fmt: skip
    numbers = ("raw_overall", "raw_low", "raw_high", "paired_difference", "paired_low", "paired_high", "nats_per_token")
    return row | dict.fromkeys(numbers)


def opened(project: Project) -> tuple[Declarations, Chain]:
    return load_chain(Settings(project.root, project.store, "tiny"))


def hashes(project: Project, dataset: str) -> list[str]:
    return [v["content_hash"] for v in versions(*opened(project), dataset)]


def test_two_names(project: Project) -> None:
    done = Project(project.root).run("foundry", "diff", V1, V2)
    assert done.returncode == 0, done.stdout
    assert "8 rows the same · 4 added · 0 removed · 0 changed" in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 80
    assert "parts[1]" in done.stdout
    found = json.loads(project.run("foundry", "diff", V1, V2, "--json").stdout)
    assert found["rows"] == {"same": 8, "added": 4, "removed": 0, "changed": 0, "reshown": 0}
    assert found["by"]["origins"]["added"] == {"voice": 4}
    assert sum(found["by"]["categories"]["added"].values()) == 4
    assert found["shown"]["origins"]["voice"] == {"left": 0, "right": 8, "difference": 8}
    assert found["right"]["tokens"]["shown"] > found["left"]["tokens"]["shown"] > 0
    assert found["left"]["filters"] == {**found["left"]["filters"], "kept": 16, "dropped": {"loop": 1}}
    assert [r["origin"] for r in found["details"]["added"]] == ["voice"] * 4
    back = diff_versions(*opened(project), V2, V1)
    assert back["rows"] == {"same": 8, "added": 0, "removed": 4, "changed": 0, "reshown": 0}


def test_yesterdays_version_against_todays_by_hash_with_scores_beside_them(project: Project) -> None:
    old, new = hashes(project, V1)
    done = project.run("foundry", "diff", old[:10], new)
    assert done.returncode == 0, done.stdout
    assert "6 rows the same · 0 added · 0 removed · 2 changed" in done.stdout
    assert "changed: chosen in 2" in done.stdout
    assert "+1.25" in done.stdout
    assert not CONTROL.search(done.stdout), "escape sequences and turning marks of a pair are shown, not obeyed"
    assert r"\x1b[31mred" in done.stdout
    assert "[bold]loud[/bold]" in done.stdout
    raw = project.run("foundry", "diff", old, V1, "--json").stdout
    assert not CONTROL.search(raw)
    found = json.loads(raw)
    assert (found["left"]["current"], found["right"]["current"]) == (False, True)
    (one,) = found["scores"]["comparisons"]
    assert (one["judge"], one["joined"]["overall"]["difference"]) == ("rubric-local", 1.25)
    assert one["joined"]["overall"]["verdict"] == "not compared question by question"
    assert "not in the store" in one["joined"]["how"]
    assert [i["input"] for i in found["causes"]["inputs"]] == ["keeper_filtered_pairs"]
    changed = {c["prompt_id"]: c for c in found["details"]["changed"]}
    assert HOSTILE in changed["base-001"]["right"]["chosen"]


def test_an_unbuilt_dataset_names_the_command_that_builds_it(project: Project) -> None:
    done = project.run("foundry", "diff", V1, "madison_dataset_v6")
    assert done.returncode == 1
    assert "dagster asset materialize --select '*madison_dataset_v6'" in done.stdout
    assert "Traceback" not in done.stdout


@pytest.mark.parametrize(
    ("target", "says"),
    [
        ("keeper_dataset_v9", "did you mean `keeper_dataset_v"),
        ("0123456789", "no artifact of this store begins with"),
        ("ab", "no dataset `ab`"),
        ("../../../etc", "no dataset"),
        ("keeper_passages", "no dataset `keeper_passages`"),
    ],
)
def test_what_cannot_be_compared_is_named(project: Project, target: str, says: str) -> None:
    with pytest.raises(FoundryError, match=re.escape(says)) as caught:
        find_version(*opened(project), target)
    assert caught.value.mend


def test_an_artifact_that_is_no_dataset_is_refused(project: Project) -> None:
    d, chain = opened(project)
    passages = chain.require("keeper_passages").artifact.content_hash
    with pytest.raises(FoundryError, match="no dataset but keeper_passages"):
        find_version(d, chain, passages)


def test_versions_are_listed_oldest_first_and_the_present_one_is_marked(project: Project) -> None:
    done = project.run("foundry", "versions", V1)
    assert done.returncode == 0, done.stdout
    old, new = hashes(project, V1)
    lines = [line for line in done.stdout.splitlines() if "2" in line and ":" in line]
    assert [line.split()[0] for line in lines] == [old[:16], new[:16]]
    assert ["as declared now" in line for line in lines] == [False, True]


def test_checks_print_the_verdict_write_the_page_and_fail_with_the_data(project: Project) -> None:
    failed = project.run("foundry", "checks", V1)
    assert failed.returncode == 1
    assert "FAILED: training on it is refused" in failed.stdout
    assert max(len(line) for line in failed.stdout.splitlines() if not line.startswith("page: ")) <= 80
    page = project.store / "reports" / f"{V1}_checks.html"
    text = page.read_text(encoding="utf-8")
    assert "I hold my peace." in text
    again = project.run("foundry", "checks", V1, "--json")
    assert again.returncode == 1
    found = json.loads(again.stdout)
    assert (found["passed"], found["page"]) == (False, str(page))
    assert [r["name"] for r in found["results"] if not r["passed"]] == ["chosen_length"]


def test_a_damaged_dataset_is_named_wherever_it_is_read(project: Project, tmp_path: Path) -> None:
    root = tmp_path / "project"
    shutil.copytree(project.root, root)
    copy = InProcess(root)
    (content,) = hashes(copy, SFT)
    path = copy.store / "artifacts" / content / "payload/pairs.parquet"
    path.write_bytes(path.read_bytes()[:100])
    done = copy.run("foundry", "diff", SFT, V1)
    assert done.returncode == 1
    assert f"foundry repair {SFT}" in done.stdout
    assert "Traceback" not in done.stdout
    d, chain = opened(copy)
    for command in (export, lambda d, chain, name: write_checks_page(chain, d, name)):
        with pytest.raises(DamagedArtifact) as caught:
            command(d, chain, SFT)
        assert caught.value.mend == f"foundry repair {SFT}"
    tokenizer = next((copy.store / "artifacts").glob("*/payload/dense/tokenizer.json"))
    tokenizer.write_text("{}")
    with pytest.raises(DamagedArtifact, match="tokenizer.json differs"):
        diff_versions(d, chain, V1, V2)


def test_export_says_where_it_is_and_leaves_other_folders_alone(project: Project, tmp_path: Path) -> None:
    done = project.run("foundry", "export-dataset", V2)
    assert done.returncode == 0, done.stdout
    folder = Path(done.stdout.strip().removeprefix("dataset: "))
    assert folder.parent == project.store / "exports" / V2
    card = (folder / "README.md").read_text(encoding="utf-8")
    assert "The Keeper" in card
    assert "\x1b" not in card
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "kept.txt").write_text("mine")
    d, chain = opened(project)
    with pytest.raises(FoundryError, match="left as it is"):
        export(d, chain, V2, mine)
    assert [p.name for p in mine.iterdir()] == ["kept.txt"]
    export(d, chain, V2, tmp_path / "out")
    assert (tmp_path / "out/README.md").read_text(encoding="utf-8") == card
