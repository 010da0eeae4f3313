"""A run under several seeds: what is declared, the stages and partitions that follow, their scores and spread."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from unittest import mock

import dagster as dg
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from foundry_pipeline.chain.graph import load_chain
from foundry_pipeline.chain.stage import materialize
from foundry_pipeline.declarations import load
from foundry_pipeline.declarations.assets import Evaluation, Run
from foundry_pipeline.declarations.seeds import expand, partitioned, variants_of
from foundry_pipeline.defs.gathered import gathered
from foundry_pipeline.errors import DeclarationError, FoundryError
from foundry_pipeline.settings import Settings
from tests.project import KEEPER, Project
from tests.scored import ByHand, InProcess, answer, opened, prepare_scored, score

RUN = "assets/runs/keeper_first.yaml"
SUITE = "assets/evals/keeper_suite.yaml"


def declare(project: Project, path: str, **fields: object) -> None:
    file = project.root / path
    file.write_text(yaml.safe_dump({**yaml.safe_load(file.read_text()), **fields}))


@pytest.fixture(scope="module")
def scored(tmp_path_factory: pytest.TempPathFactory) -> Project:
    return prepare_scored(tmp_path_factory.mktemp("seeds") / "project")


@pytest.fixture
def project(scored: Project, tmp_path: Path) -> Project:
    shutil.copytree(scored.root, tmp_path / "project")
    return InProcess(tmp_path / "project")


@pytest.fixture(scope="module")
def three(scored: Project, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """The run under three seeds, each trained, answered and judged by hand, with the marks 6, 6.5 and 7."""
    shutil.copytree(scored.root, root := tmp_path_factory.mktemp("three") / "project")
    project = InProcess(root)
    declare(project, RUN, seeds=3)
    for run, mark in (("keeper_first", 6.0), ("keeper_first@43", 6.5), ("keeper_first@44", 7.0)):
        answer(project, run)
        score(project, ByHand(mark), run)
    return project


def model(name: str, kind: type, **fields: object):
    path = KEEPER / ("assets/runs/keeper_first.yaml" if kind is Run else "assets/evals/keeper_suite.yaml")
    return kind.model_validate({**yaml.safe_load(path.read_text()), **fields})


several = st.one_of(st.none(), st.integers(1, 5), st.lists(st.integers(0, 99), min_size=1, max_size=5, unique=True))


@given(training=several, sampling=st.integers(1, 4), repeats=st.integers(1, 3))
def test_every_combination_has_one_name_and_the_first_the_plain_one(training, sampling, repeats) -> None:
    run = model("keeper_first", Run, seeds=training)
    suite = model("keeper_suite", Evaluation, sampling_seeds=sampling, judge_repeats=repeats)
    found = variants_of(run, suite)
    trained = 1 if training is None else training if isinstance(training, int) else len(training)
    combinations = trained * sampling * repeats
    assert len(found) == (combinations if combinations > 1 else 0)
    assert len({v.name for v in found}) == len({v.partition for v in found}) == len(found)
    assert [v.name for v in found if v.primary] == (["keeper_first"] if found else [])
    runs, _, variants = expand({"keeper_first": run}, {"keeper_suite": suite})
    assert set(variants) == {v.name for v in found}
    for name, variant in variants.items():
        assert partitioned(f"{name}_eval", "eval", variants) == ("keeper_first_eval", variant.partition)
        assert runs[name].seed == variant.training_seed
    # One model for each training seed, whatever is drawn from it.
    assert len({v.weights for v in found}) == len({v.training_seed for v in found}) == (trained if found else 0)


@pytest.mark.parametrize(
    ("path", "fields", "says"),
    [
        (RUN, {"seeds": 0}, ["keeper_first.yaml", "seeds"]),
        (RUN, {"seeds": True}, ["keeper_first.yaml", "seeds"]),
        (RUN, {"seeds": []}, ["keeper_first.yaml", "seeds"]),
        (RUN, {"seeds": [7, 7]}, ["seeds", "twice"]),
        (RUN, {"seeds": [7, -1]}, ["keeper_first.yaml", "seeds"]),
        (RUN, {"seeds": 1001}, ["keeper_first.yaml", "seeds"]),
        (RUN, {"seed": 3, "seeds": [7, 8]}, ["`seed` is 3", "first of `seeds` is 7"]),
        (SUITE, {"sampling_seeds": [5, 0]}, ["keeper_suite.yaml", "sampling_seeds"]),
        (SUITE, {"judge_repeats": 0}, ["keeper_suite.yaml", "judge_repeats"]),
    ],
)
def test_seeds_that_cannot_be_are_named(project: Project, path: str, fields: dict, says: list[str]) -> None:
    declare(project, path, **fields)
    with pytest.raises(DeclarationError) as caught:
        load(project.root, "tiny")
    for word in says:
        assert word in str(caught.value)


def test_a_seed_declared_afterwards_leaves_what_is_built(project: Project) -> None:
    before = {name: opened(project)[1].resolve(name).record for name in ("keeper_first_adapter", "keeper_first_eval")}
    declare(project, RUN, seeds=[42, 7])
    declare(project, SUITE, sampling_seeds=2)
    d, chain = opened(project)
    assert list(d.variants) == ["keeper_first", "keeper_first@42.s1", "keeper_first@7.s0", "keeper_first@7.s1"]
    for name, record in before.items():
        assert record is not None
        assert chain.resolve(name).record == record
    # Another drawing is from the same files; another training is not.
    for part in ("adapter", "merged", "gguf"):
        assert chain.resolve(f"keeper_first@42.s1_{part}").record == chain.resolve(f"keeper_first_{part}").record
    assert chain.resolve("keeper_first@7.s0_adapter").record is None
    assert chain.resolve("keeper_first@42.s1_responses").record is None
    command = "dagster asset materialize --select '*keeper_first_eval' --partition 7.s1"
    assert chain.stages["keeper_first@7.s1_eval"].command == command
    with pytest.raises(FoundryError) as caught:
        chain.require("keeper_first@7.s1_eval")
    assert command in str(caught.value)


def test_what_is_trained_on_a_run_takes_its_first_seed(tmp_path: Path) -> None:
    from tests.project import make_project

    project = make_project(tmp_path / "project", keeper=False)
    declare(project, "assets/runs/madison_orpo_v3b.yaml", seeds=3)
    d, chain = load_chain(Settings(project.root, project.store, "laptop"))
    graph = gathered(d, chain).resolve_asset_graph()
    students = [
        n for n, s in chain.stages.items() if "madison_orpo_v3b_adapter" in s.inputs and s.kind == "student_responses"
    ]
    assert students
    for name in students:
        key, adapter = dg.AssetKey(name), dg.AssetKey("madison_orpo_v3b_adapter")
        assert graph.get(key).partitions_def is None
        mapping = graph.get_partition_mapping(key=key, parent_asset_key=adapter)
        assert isinstance(mapping, dg.SpecificPartitionsPartitionMapping)
        assert list(mapping.partition_keys) == ["42"]
    assert graph.get(dg.AssetKey("madison_orpo_v3b_eval")).partitions_def.get_partition_keys() == ["42", "43", "44"]


def test_dagster_shows_each_seed_as_a_partition_with_its_own_version_and_checks(three: Project) -> None:
    d, chain = opened(three)
    defs = gathered(d, chain)
    assert "keeper_first_seeds" in [job.name for job in defs.resolve_all_job_defs()]
    asset = next(a for a in defs.resolve_asset_graph().assets_defs if dg.AssetKey("keeper_first_eval") in a.keys)
    with dg.DagsterInstance.ephemeral() as instance:
        for key in ("42", "43", "44"):
            assert dg.materialize([asset], partition_key=key, instance=instance).success
        versions = {
            record.partition_key: (record.asset_materialization.tags or {})["dagster/data_version"]
            for record in instance.fetch_materializations(dg.AssetKey("keeper_first_eval"), limit=9).records
        }
        failed = dg.materialize([asset], instance=instance, raise_on_error=False)
    names = {"42": "keeper_first", "43": "keeper_first@43", "44": "keeper_first@44"}
    assert versions == {k: chain.require(f"{n}_eval").artifact.content_hash for k, n in names.items()}
    assert not failed.success


def test_scores_trace_and_spread_are_told_for_each_seed(three: Project) -> None:
    found = json.loads(three.run("foundry", "seeds", "keeper_first", "--json").stdout)
    adapter = [r for r in found["rows"] if r["mode"] == "adapter"]
    assert [(r["partition"], r["training_seed"], r["mean"]) for r in adapter] == [
        ("42", 42, 6),
        ("43", 43, 6.5),
        ("44", 44, 7),
    ]
    assert len({r["adapter_hash"] for r in adapter}) == 3
    spread = found["modes"]["adapter"]
    assert (spread["n"], spread["unit"]) == (3, "training seeds")
    assert spread["mean"] == pytest.approx(6.5)
    # mean ± t(0.975, 2) × sd / √3, by hand
    half = 4.302653 * 0.5 / 3**0.5
    assert (spread["low"], spread["high"]) == pytest.approx((6.5 - half, 6.5 + half))
    assert found["modes"]["base"]["n"] == 1
    assert found["modes"]["base"]["low"] is None
    rows = json.loads(three.run("foundry", "scores", "--run", "keeper_first", "--mode", "adapter", "--json").stdout)
    assert {(r["training_seed"], r["sampling_seed"]) for r in rows[1:]} == {(42, 0), (43, 0), (44, 0)}
    for seed, mark in (("43", "6.50"), ("44", "7.00")):
        told = three.run("foundry", "trace", f"keeper_first@{seed}_eval")
        assert told.returncode == 0
        assert f"adapter: {mark}" in told.stdout
        assert f"keeper_first@{seed}_adapter" in told.stdout
    compared = three.run("foundry", "compare", "keeper_first@44", "keeper_first@43")
    assert compared.returncode == 0
    assert "verdict" in compared.stdout


def test_a_seed_without_a_score_is_named_with_its_command(three: Project, tmp_path: Path) -> None:
    shutil.copytree(three.root, tmp_path / "project")
    project = InProcess(tmp_path / "project")
    declare(project, RUN, seeds=[42, 43, 44, 99])
    told = project.run("foundry", "seeds", "keeper_first")
    assert told.returncode == 0
    assert materialize("keeper_first_eval", "99", upstream=True) in " ".join(told.stdout.split())
    assert json.loads(project.run("foundry", "seeds", "keeper_first", "--json").stdout)["modes"]["adapter"]["n"] == 3


def test_two_runs_are_compared_over_their_trainings(three: Project, tmp_path: Path) -> None:
    shutil.copytree(three.root, tmp_path / "project")
    project = InProcess(tmp_path / "project")
    declared = yaml.safe_load((project.root / RUN).read_text())
    other = {**declared, "run": "keeper_second", "lora_rank": 8}
    (project.root / "assets/runs/keeper_second.yaml").write_text(yaml.safe_dump(other))
    early = project.run("foundry", "seeds", "keeper_second", "keeper_first")
    assert early.returncode == 1
    assert "0 judged seeds" in early.stdout
    assert "--partition 42" in early.stdout
    for run, mark in (("keeper_second", 1.0), ("keeper_second@43", 1.5), ("keeper_second@44", 1.1)):
        answer(project, run)
        score(project, ByHand(mark), run)
    found = json.loads(project.run("foundry", "seeds", "keeper_first", "keeper_second", "--json").stdout)
    assert found["verdict"] == "better"
    assert found["difference"] == pytest.approx(6.5 - 1.2)
    backwards = project.run("foundry", "seeds", "keeper_second", "keeper_first")
    assert backwards.returncode == 0
    assert "worse" in backwards.stdout


def test_a_run_with_one_seed_says_so(scored: Project) -> None:
    told = scored.run("foundry", "seeds", "keeper_first")
    assert told.returncode == 1
    assert "declares one seed" in told.stdout
    assert "seeds: 10" in told.stdout
    unknown = scored.run("foundry", "seeds", "keeper_fist")
    assert unknown.returncode == 1
    assert "keeper_first" in unknown.stdout


def test_a_missing_partition_is_an_error_of_the_user(capsys: pytest.CaptureFixture[str]) -> None:
    from dagster_shared.check import CheckError

    from foundry_pipeline.cli import dagster_command

    said = "Failure condition: Asset has partitions, but no '--partition' option was provided"
    with (
        mock.patch("foundry_pipeline.cli.instance.enter_project"),
        mock.patch("sys.argv", ["dagster", "asset", "materialize", "--select", "x"]),
        mock.patch("dagster._cli.main", side_effect=CheckError(said)),
        pytest.raises(SystemExit) as left,
    ):
        dagster_command.main()
    assert left.value.code == 1
    assert "--partition" in capsys.readouterr().err
