"""Where students answer, and which stages a generated teacher brings."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from foundry_pipeline.chain.graph import build_chain
from foundry_pipeline.chain.student_stages import student_model
from foundry_pipeline.chain.teacher_stages import introspection_wanted
from foundry_pipeline.declarations import load
from foundry_pipeline.declarations.generation import StudentServer
from foundry_pipeline.errors import DeclarationError
from foundry_pipeline.lineage.artifact import Artifact
from foundry_pipeline.settings import Settings
from tests.conftest import ROOT
from tests.project import make_project

SERVER = {"models": {"base": "gemma", "madison_orpo_v3b": "v3b"}, "remote": {"base_url": "http://127.0.0.1:9/v1"}}


def chain_with(folder: Path, profile: str = "laptop", **changes: Any):
    project = make_project(folder / "project", keeper=False)
    path = project.root / "assets" / "profiles" / f"{profile}.yaml"
    path.write_text(yaml.safe_dump({**yaml.safe_load(path.read_text()), **changes}))
    return build_chain(load(project.root, profile), Settings(project.root, folder / "store", profile))


def artifact(content: str, **files: str) -> Any:
    return Artifact(content, Path("/nowhere"), {"files": files})


def test_a_served_student_needs_no_weights_here_and_a_served_run_still_its_adapter(tmp_path: Path) -> None:
    chain = chain_with(tmp_path, student_server=SERVER)
    assert chain.stages["madison_student_responses"].inputs == ("madison_teacher_responses",)
    trained = chain.stages["madison_student_responses_orpo_v3b"]
    assert trained.inputs == ("madison_teacher_responses", "madison_orpo_v3b_adapter")
    assert trained.external() == {"service of v3b": "http://127.0.0.1:9/v1"}
    assert trained.requests is not None
    # A run that the server does not have answers on this machine as ever.
    other = chain.stages["madison_student_responses_qwen3_v1"]
    assert "madison_qwen3_v1_adapter" in other.inputs
    assert other.requests is None


def test_without_a_server_nothing_changes(tmp_path: Path) -> None:
    stages = chain_with(tmp_path).stages
    assert stages["madison_student_responses"].inputs == ("madison_teacher_responses", "base_model_smollm2_135m")
    assert stages["madison_student_responses"].requests is None
    assert stages["madison_teacher_responses"].requests is None
    assert stages["madison_teacher_responses"].demand is None
    assert "madison_introspection" not in stages


def test_each_student_has_its_own_model() -> None:
    inputs = {
        "base_x": artifact("b", **{"base.gguf": "g"}),
        "hub": artifact("h"),
        "run_adapter": artifact("a"),
    }
    which: dict[str, Any] = {"adapter": None, "start": None, "server": None}
    local = student_model(inputs, student="base", base="base_x", **which)
    assert (local.backend, local.content_hash) == ("llama_cpp", "g")
    hub = student_model(inputs, student="base", base="hub", **which)
    assert (hub.backend, hub.content_hash) == ("transformers", "h")
    trained = {**which, "adapter": "run_adapter", "start": "base_x"}
    run = student_model(inputs, student="run", base="base_x", **trained)
    assert (run.backend, run.content_hash, run.adapter_hash) == ("transformers", "b", "a")
    server = StudentServer.model_validate({"models": {"run": "r"}, "remote": {"free": True}})
    served = student_model(inputs, student="run", base="base_x", **{**trained, "server": server})
    again = student_model(
        {**inputs, "run_adapter": artifact("retrained")}, student="run", base="base_x", **{**trained, "server": server}
    )
    assert (served.backend, served.path) == ("openai", "r")
    assert served.content_hash != again.content_hash


def test_the_full_profile_has_introspection_of_its_own_and_foretells_what_it_asks() -> None:
    d = load(ROOT, "full")
    chain = build_chain(d, Settings(ROOT, Path("/nonexistent/foundry"), "full"))
    assert "madison_introspection" in chain.stages["madison_dataset_sft"].inputs
    assert "madison_introspection" not in chain.stages["madison_dataset_v6"].inputs
    assert introspection_wanted(d.datasets, d.profile) == (623, 29)
    for name, least in (("madison_teacher_responses", 300), ("madison_introspection", 623)):
        demand = chain.stages[name].demand
        assert demand is not None
        told = demand()
        assert told.requests >= least
        assert told.prompt_bytes > len(d.characters["madison"].constitution.encode())
        assert told.answer_tokens >= 4096
        assert told.model.backend == "anthropic"


def test_only_what_bears_on_the_answers_bears_on_the_stage(tmp_path: Path) -> None:
    def declared(folder: str, **remote: Any) -> dict[str, Any]:
        (tmp_path / folder).mkdir()
        teacher = {
            "kind": "claude", "model": "m", "serves": dict.fromkeys(
                ("anachronism_trap", "character_consistency", "ground_truth", "position_discrimination",
                 "private_voice", "verified_response"), 1), "remote": remote,
        }  # fmt: skip
        return chain_with(tmp_path / folder, teacher=teacher).stages["madison_teacher_responses"].declaration

    plain = declared("a", concurrency=1)
    assert plain == declared("b", concurrency=16, batch=True)
    assert plain != declared("c", effort="high")


def test_a_madison_introspection_prompt_shares_no_run_of_words_with_what_he_is_measured_by() -> None:
    from foundry_pipeline.pairs.introspection import chosen_prompts, prompt_rows
    from foundry_pipeline.pairs.overlap import OverlapIndex

    files = load(ROOT, "laptop").characters["madison"]
    assert files.introspection is not None
    suite = OverlapIndex([p.text for p in files.suite.prompts], 8)
    for kind, prompted in (
        ("reflection", files.introspection.reflections),
        ("dialogue", files.introspection.dialogues),
    ):
        rows = prompt_rows(chosen_prompts(prompted, 10_000, kind=kind))
        assert rows.height == len(prompted.templates) * len(prompted.topics)
        assert rows["prompt"].n_unique() == rows.height
        assert [p for p in rows["prompt"] if suite.longest(p)] == []
        assert [p for p in rows["prompt"] if len(p.split()) < 6] == []


def test_a_wrong_introspection_file_is_named_by_field(tmp_path: Path) -> None:
    project = make_project(tmp_path / "project", keeper=False)
    path = project.root / "sources/madison/prompts/introspection.yaml"
    path.write_text(path.read_text().replace("{topic}?", "the lamp?", 1))
    with pytest.raises(DeclarationError, match=r"introspection\.yaml.*reflections\.templates\.0\.text"):
        load(project.root, "laptop")
