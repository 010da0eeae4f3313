"""Declarations: what is broken is named by file and field before anything runs."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from foundry_pipeline.declarations import load
from foundry_pipeline.declarations.yaml_file import read_yaml
from foundry_pipeline.errors import DeclarationError, FoundryError
from tests.conftest import ROOT


@pytest.fixture
def project(tmp_path: Path) -> Path:
    for folder in ("sources", "assets"):
        shutil.copytree(ROOT / folder, tmp_path / folder)
    return tmp_path


def change(path: Path, **fields: object) -> None:
    data = yaml.safe_load(path.read_text())
    for name, value in fields.items():
        if value is None:
            data.pop(name, None)
        else:
            data[name] = value
    path.write_text(yaml.safe_dump(data, allow_unicode=True))


@pytest.mark.parametrize("profile", ["laptop", "full"])
def test_the_project_as_shipped_holds(profile: str) -> None:
    d = load(ROOT, profile)
    assert {"madison"} <= set(d.characters)
    assert len([r for r in d.runs.values() if r.character == "madison"]) == 10
    assert {n.rsplit("_", 1)[1] for n in d.datasets if n.startswith("madison")} == {
        "v1",
        "v2",
        "v3b",
        "v4",
        "v5",
        "v6",
        "sft",
    }
    claimed = [row for r in d.runs.values() for row in r.reported]
    assert sorted(claimed) == sorted(r.row for r in d.characters["madison"].reported_scores)
    assert len(d.characters["madison"].training_prompts) >= 240


RUN = "assets/runs/madison_r2.yaml"


@pytest.mark.parametrize(
    ("path", "fields", "says"),
    [
        (RUN, {"lora_rank": 0}, ["madison_r2.yaml", "lora_rank", "0"]),
        (RUN, {"learning_rate": 5}, ["madison_r2.yaml", "learning_rate", "5"]),
        (RUN, {"learning_rat": 1e-5}, ["madison_r2.yaml", "learning_rat", "allowed"]),
        (RUN, {"dataset": "madison_dataset_v7"}, ["dataset", "madison_dataset_v7", "did you mean"]),
        (RUN, {"base": "llama_9t"}, ["base", "llama_9t", "qwen3_32b"]),
        (RUN, {"method": "ppo"}, ["method", "orpo"]),
        (RUN, {"inherits": "common/qwens"}, ["inherits", "common/qwen"]),
        (RUN, {"dataset": "madison_dataset_sft"}, ["dataset", "sft"]),
        (RUN, {"reported": ["nothing"]}, ["reported", "nothing"]),
        (RUN, {"run": "madison_r3"}, ["run", "madison_r2"]),
        (RUN, {"character": "hamilton"}, ["character", "hamilton", "madison"]),
        (
            "assets/datasets/madison_dataset_v5.yaml",
            {"order": "source_first"},
            ["madison_dataset_v5", "order", "source_enriched"],
        ),
        (
            "assets/datasets/madison_dataset_v6.yaml",
            {"order": "best_first"},
            ["madison_dataset_v6", "order", "shuffle"],
        ),
        (
            "assets/datasets/madison_dataset_sft.yaml",
            {"parts": [{"origin": "introspection", "pairs": 2, "rows_per_item": 5, "weight": 1.5}]},
            ["madison_dataset_sft", "weight", "whole number"],
        ),
        (
            "assets/datasets/madison_dataset_v1.yaml",
            {"parts": [{"origin": "base", "pairs": 2, "weight": 0}]},
            ["madison_dataset_v1", "weight", "greater than 0"],
        ),
        ("assets/evals/madison_suite.yaml", {"modes": ["adapter"]}, ["modes", "base"]),
        ("assets/profiles/laptop.yaml", {"size_factor": 2}, ["size_factor", "2"]),
        (
            "assets/profiles/laptop.yaml",
            {"size_factors": {"madison_dataset_sft": 0}},
            ["size_factors", "greater than 0"],
        ),
        (
            "assets/profiles/laptop.yaml",
            {"size_factors": {"madison_dataset_sf": 0.1}},
            ["size_factors", "did you mean"],
        ),
        ("assets/profiles/laptop.yaml", {"size_factors": {"madison_dataset_v4": 0.1}}, ["size_factors", "one size"]),
        ("assets/profiles/laptop.yaml", {"student": "nobody"}, ["student", "nobody"]),
        ("sources/madison/character.yaml", {"born": "yesterday"}, ["character.yaml", "born", "yesterday"]),
    ],
)
def test_a_fault_is_named_by_file_and_field(project: Path, path: str, fields: dict, says: list[str]) -> None:
    change(project / path, **fields)
    with pytest.raises(DeclarationError) as caught:
        load(project, "laptop")
    for word in says:
        assert word in str(caught.value)
    assert "foundry check" in str(caught.value)


def test_all_faults_come_at_once(project: Path) -> None:
    change(project / RUN, lora_rank=0)
    change(project / "assets/runs/madison_orpo_v4.yaml", beta=-1)
    with pytest.raises(DeclarationError) as caught:
        load(project, "laptop")
    assert "lora_rank" in str(caught.value)
    assert "beta" in str(caught.value)


def test_a_circle_is_found(project: Path) -> None:
    change(project / "assets/runs/madison_orpo_v3b.yaml", dataset="madison_dataset_v4")
    with pytest.raises(DeclarationError, match="circle"):
        load(project, "laptop")


def test_a_suite_without_a_guarded_category_is_refused(project: Path) -> None:
    path = project / "sources/madison/prompts/evaluation.yaml"
    suite = yaml.safe_load(path.read_text())
    suite["prompts"] = [p for p in suite["prompts"] if p["category"] != "position_discrimination"]
    path.write_text(yaml.safe_dump(suite, allow_unicode=True))
    with pytest.raises(DeclarationError, match="position_discrimination"):
        load(project, "laptop")


def test_an_id_used_twice_is_named(project: Path) -> None:
    path = project / "sources/madison/prompts/training.yaml"
    data = yaml.safe_load(path.read_text())
    data["prompts"].append(dict(data["prompts"][0]))
    path.write_text(yaml.safe_dump(data, allow_unicode=True))
    with pytest.raises(DeclarationError, match="used twice"):
        load(project, "laptop")


@pytest.mark.parametrize(
    "text",
    ["a: [1", "a: 1\na: 2", "!!python/object/apply:os.system ['true']", "\x00", "- just\n- a list\n", "", "a: &a [*a]"],
)
def test_broken_yaml_is_named(project: Path, text: str) -> None:
    (project / RUN).write_text(text)
    with pytest.raises(DeclarationError, match=r"madison_r2\.yaml"):
        load(project, "laptop")


def test_an_unknown_profile_lists_the_known_ones(project: Path) -> None:
    with pytest.raises(DeclarationError, match="laptop"):
        load(project, "desktop")


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=80))
def test_any_text_is_read_or_refused(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    path = tmp_path_factory.mktemp("y") / "x.yaml"
    path.write_text(text, encoding="utf-8", errors="replace")
    try:
        read_yaml(path)
    except FoundryError as error:
        message = str(error)
    else:
        message = "x.yaml"
    assert "x.yaml" in message
