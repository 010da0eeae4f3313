"""What work asks of a cluster, the engine's settings, the fitness of a node, the lease, and the plan of a backfill."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from foundry_pipeline.chain.backfill import plan_backfill, targets
from foundry_pipeline.chain.graph import load_chain
from foundry_pipeline.declarations import load
from foundry_pipeline.declarations.resources import Resources, ResourceTable
from foundry_pipeline.errors import DeclarationError, FoundryError, GateRefused
from foundry_pipeline.scale.asking import asked_by_run, asked_for
from foundry_pipeline.scale.cluster import job_environment
from foundry_pipeline.scale.engine import engine, patience, ray_address
from foundry_pipeline.scale.lease import Lease
from foundry_pipeline.scale.node import UNFIT, code_digest
from foundry_pipeline.settings import Settings
from tests.prepared import V1, prepare, publish_made
from tests.project import BIN, ROOT, make_project

RUN = "assets/runs/keeper_first.yaml"


def _project(tmp_path: Path, *, run: str = "", profile: str = "") -> Settings:
    project = make_project(tmp_path / "project")
    with (project.root / RUN).open("a") as file:
        file.write(run)
    with (project.root / "assets/profiles/tiny.yaml").open("a") as file:
        file.write(profile)
    return Settings(project.root, project.store, "tiny")


def test_a_run_asks_for_what_it_declares_and_for_the_profiles_share_of_the_rest(tmp_path: Path) -> None:
    settings = _project(
        tmp_path,
        run="seeds: 2\nresources: {training: {gpus: 1, custom: {a100: 0.5}}}\n",
        profile="resources: {training: {memory_gib: 1.5, gpus: 4}, generation: {cpus: 3}, run: {memory_gib: 2}}\n",
    )
    d, chain = load_chain(settings)
    for name in ("keeper_first_adapter", "keeper_first@43_adapter"):
        asked = asked_for(d, chain.stages[name], {})
        assert asked.amounts() == {"CPU": 2.0, "GPU": 1.0, "memory": 1.5 * 1024**3, "a100": 0.5}
        assert asked.declared == RUN
    answers = asked_for(d, chain.stages["keeper_student_responses"], {"model": {"backend": "llama_cpp"}})
    assert answers.amounts() == {"CPU": 3.0}
    assert answers.declared == "assets/profiles/tiny.yaml"
    # Who only talks to a server holds neither GPU nor threads.
    assert asked_for(d, chain.stages["keeper_student_responses"], {"model": {"backend": "openai"}}).cpus == 1
    assert asked_by_run(d).amounts() == {"memory": 2 * 1024**3}


def test_no_artifact_depends_on_what_is_asked_for(tmp_path: Path) -> None:
    plain = load_chain(_project(tmp_path / "a"))[1]
    asking = load_chain(_project(tmp_path / "b", run="resources: {training: {cpus: 8}}\n"))[1]
    for name, stage in plain.stages.items():
        assert (stage.declaration, stage.code) == (asking.stages[name].declaration, asking.stages[name].code)


@pytest.mark.parametrize(
    "wrong", ["{training: {cpus: 0}}", "{training: {gpu: 1}}", "{trainig: {}}", "{export: {gpus: -1}}"]
)
def test_resources_that_cannot_be_are_named_by_file_and_field(tmp_path: Path, wrong: str) -> None:
    settings = _project(tmp_path, run=f"resources: {wrong}\n")
    with pytest.raises(DeclarationError, match=r"keeper_first.yaml.*resources"):
        load(settings.root, "tiny")


def test_fields_of_a_run_stand_over_the_profiles() -> None:
    mine, theirs = Resources(cpus=4, custom={"a": 1}), Resources(cpus=1, gpus=2, custom={"a": 9, "b": 3})
    assert mine.over(theirs) == Resources(cpus=4, gpus=2, custom={"a": 1, "b": 3})
    assert ResourceTable().of("run") == Resources()


def test_the_engine_and_its_address(monkeypatch: pytest.MonkeyPatch) -> None:
    assert engine() == "local"
    monkeypatch.setenv("FOUNDRY_ENGINE", "ray")
    assert engine() == "ray"
    with pytest.raises(FoundryError, match="needs the address"):
        ray_address()
    for wrong in ("ray://head:10001", "head:8265", "http://", "http://u:secret@head:8265", "http://head:x"):
        monkeypatch.setenv("FOUNDRY_RAY_ADDRESS", wrong)
        with pytest.raises(FoundryError, match="no address") as told:
            ray_address()
        assert "secret" not in str(told.value)
    monkeypatch.setenv("FOUNDRY_RAY_ADDRESS", "http://head:8265/")
    assert ray_address() == "http://head:8265"
    monkeypatch.setenv("FOUNDRY_RAY_PATIENCE", "soon")
    with pytest.raises(FoundryError, match="no number"):
        patience()
    monkeypatch.setenv("FOUNDRY_ENGINE", "slurm")
    with pytest.raises(FoundryError, match="no engine `slurm`"):
        engine()


def test_no_secret_travels_with_a_job(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("FOUNDRY_DATABASE", "postgresql://u:planted-secret@h/d")
    monkeypatch.setenv("FOUNDRY_OFFLINE", "1")
    monkeypatch.setenv("ANTHROPIC_API_KEY", "planted-secret")
    told = job_environment(Settings(tmp_path, tmp_path / "s", "tiny"))
    assert "planted-secret" not in json.dumps(told)
    assert (told["FOUNDRY_OFFLINE"], told["FOUNDRY_PROFILE"]) == ("1", "tiny")
    assert told["FOUNDRY_NODE_NEEDS"] == "FOUNDRY_DATABASE"
    assert told["FOUNDRY_STORE"] == str(tmp_path / "s")
    monkeypatch.setenv("FOUNDRY_STORE_OPTIONS", '{"secret": "planted-secret"}')
    told = job_environment(Settings(tmp_path, tmp_path / "s", "tiny", url="s3://bucket/prefix"))
    assert (told["FOUNDRY_STORE"], told["FOUNDRY_CACHE"]) == ("s3://bucket/prefix", str(tmp_path / "s"))
    assert "planted-secret" not in json.dumps(told)


def _node(tmp_path: Path, *arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
    kept = {k: v for k, v in os.environ.items() if not k.startswith("FOUNDRY_")}
    given = {"PYTHONPATH": str(ROOT), "FOUNDRY_ROOT": str(tmp_path), "FOUNDRY_STORE": str(tmp_path), **more}
    command = [sys.executable, "-m", "foundry_pipeline.scale.node", *arguments]
    return subprocess.run(command, env={**kept, **given}, capture_output=True, text=True, timeout=60, check=False)


def test_a_node_that_is_unfit_says_why_and_does_nothing(tmp_path: Path) -> None:
    code = json.loads(code_digest())
    done = _node(
        tmp_path,
        "script",
        "foundry_pipeline.nothing",
        str(tmp_path / "w" / "spec.json"),
        str(tmp_path / ".lease"),
        FOUNDRY_NODE_CODE=json.dumps({**code, "code": "another", "torch": "0.1"}),
        FOUNDRY_NODE_NEEDS="FOUNDRY_DATABASE",
        FOUNDRY_STORE=str(tmp_path / "elsewhere"),
    )
    assert done.returncode == UNFIT
    for said in (
        "FOUNDRY_DATABASE is not set",
        "check out the same commit",
        "torch is",
        "every node has to see the same",
    ):
        assert said in done.stderr
    assert not list(tmp_path.iterdir())


def test_a_script_ends_when_nobody_waits_for_it_any_more(tmp_path: Path) -> None:
    """The lease is renewed while its block lasts, and the script outlives that by the lease's time and no more."""
    code = (
        "import sys, time\nfrom pathlib import Path\nfrom foundry_pipeline.launch import script_session\n"
        "from foundry_pipeline.scale.node import watch_lease\n"
        "with script_session():\n    watch_lease(Path(sys.argv[1]), seconds=7.0, every=0.1)\n"
        "    print('on', flush=True)\n    time.sleep(60)\n"
    )
    with Lease(tmp_path) as lease:
        before = lease.path.read_text()
        script = subprocess.Popen(
            [sys.executable, "-c", code, str(lease.path)],
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
        assert script.stdout is not None
        assert script.stdout.readline() == b"on\n"
        time.sleep(9)  # longer than the lease: it has been renewed meanwhile
        assert script.poll() is None
        assert lease.path.read_text() != before
    assert script.wait(timeout=30) == 143
    script.stdout.close()


def test_the_plan_starts_what_may_start_and_never_two_of_one_artifact(tmp_path: Path) -> None:
    project = make_project(tmp_path / "p")
    with (project.root / RUN).open("a") as file:
        file.write("seeds: 2\n")
    text = (project.root / RUN).read_text().replace("keeper_first", "keeper_twin")
    (project.root / "assets/runs/keeper_twin.yaml").write_text(text)
    prepare(project.root, make=False)
    d, chain = load_chain(Settings(project.root, project.store, "tiny"))
    wanted = targets(d, chain, ["keeper_first", "keeper_twin"], until="adapter")
    assert wanted == [f"{r}_adapter" for r in ("keeper_first", "keeper_first@43", "keeper_twin", "keeper_twin@43")]
    assert targets(d, chain, ["keeper_first@42"], until="eval") == ["keeper_first_eval"]
    with pytest.raises(FoundryError, match="no run `keeper_first@7`"):
        targets(d, chain, ["keeper_first@7"], until="eval")

    # The dataset has been built, its checks have not run: a run that was killed between the two leaves it so.
    plan = plan_backfill(d, chain, wanted)
    assert [(u.name, u.assets, u.partition) for u in plan.ready] == [("shared", (V1,), None)]
    _judge(d, chain)
    plan = plan_backfill(d, chain, wanted)
    assert [(u.name, u.assets, u.partition) for u in plan.ready] == [
        ("keeper_first", ("keeper_first_adapter",), "42"),
        ("keeper_first@43", ("keeper_first_adapter",), "43"),
    ]
    assert set(plan.waiting) == {"keeper_twin", "keeper_twin@43"}
    assert "the very same artifact" in plan.waiting["keeper_twin"]

    later = plan_backfill(d, chain, wanted, busy=plan.ready[:1], over=["keeper_first@43"])
    assert [u.name for u in later.ready] == ["keeper_twin@43"]
    _publish(chain, "keeper_first_adapter")
    done = plan_backfill(d, chain, wanted, over=["keeper_first@43", "keeper_twin@43"])
    assert done.built == ("keeper_first_adapter", "keeper_twin_adapter")

    # A backfill that has nothing to start is no way around the gate.
    place = chain.store.folder(chain.require(V1).artifact.content_hash) / "verdict.json"
    verdict = json.loads(place.read_text())
    place.write_text(json.dumps({**verdict, "passed": False}))
    with pytest.raises(GateRefused):
        plan_backfill(d, chain, ["keeper_first_adapter"])


def _judge(d, chain) -> None:
    from foundry_pipeline.chain.verdicts import dataset_verdict

    assert dataset_verdict(d, chain, V1)["passed"]


def _publish(chain, name: str) -> None:
    found = chain.resolve(name)
    payload = chain.store.work(found.input_hash) / "payload"
    payload.mkdir(parents=True)
    (payload / "adapter_model.safetensors").write_bytes(b"by hand")
    publish_made(chain, name, payload)


def test_without_ray_and_without_a_cluster_the_mend_is_named(tmp_path: Path) -> None:
    project = make_project(tmp_path / "p")
    absent = tmp_path / "absent" / "ray"
    absent.mkdir(parents=True)
    (absent / "__init__.py").write_text("raise ModuleNotFoundError(\"No module named 'ray'\")\n")
    project.extra = {"FOUNDRY_ENGINE": "ray", "FOUNDRY_RAY_ADDRESS": "http://127.0.0.1:9", "FOUNDRY_RAY_PATIENCE": "1"}
    done = project.run("foundry", "backfill", "keeper_first")
    assert done.returncode == 1
    assert "no Ray job server answers" in done.stdout
    assert "Traceback" not in done.stdout
    project.extra["PYTHONPATH"] = f"{absent.parent}{os.pathsep}{ROOT}"
    done = project.run("foundry", "backfill", "keeper_first")
    assert done.returncode == 1
    assert "pip install -c constraints.txt -e '.[ray]'" in done.stdout
    assert "Traceback" not in done.stdout
    assert not (project.store / "work").exists()
    assert shutil.which("ray", path=str(BIN)), "the extra `ray` belongs to the development environment"
