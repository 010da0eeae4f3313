"""Sources that are fetched, on a real Dagster instance: what a refresh asks for, what it rebuilds, what retrains.

Two characters: the shipped one, whose texts come from a package, and the keeper, whose log lies on a web server here.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import dagster as dg
import pytest
import yaml
from dagster._core.definitions.asset_checks.asset_check_evaluation import AssetCheckEvaluationTargetMaterializationData

from tests.project import KEEPER, Project, make_project
from tests.servers.source_server import Site, serve

LOG = (KEEPER / "sources/keeper/manifests/logbook/winter.txt").read_text()
BUILT = ("keeper_sources", "keeper_passages", "keeper_teacher_responses", "madison_sources", "madison_passages")


@dataclass
class Running:
    """A project with its instance; Dagster is spoken to as the web server and the daemon do, in this process."""

    project: Project
    site: Site
    instance: dg.DagsterInstance
    cursors: dict[str, object] = field(default_factory=dict)

    @cached_property
    def definitions(self) -> dg.Definitions:
        from foundry_pipeline.definitions import build_definitions

        return build_definitions()

    def weekly(self) -> dg.ExecuteInProcessResult:
        """What the schedule `weekly_sources` runs."""
        job = self.definitions.get_schedule_def("weekly_sources").job_name
        return self.definitions.resolve_job_def(job).execute_in_process(instance=self.instance)

    def build(self, *names: str) -> dg.ExecuteInProcessResult:
        job = self.definitions.resolve_implicit_global_asset_job_def()
        return job.execute_in_process(instance=self.instance, asset_selection=[dg.AssetKey(n) for n in names])

    def versions(self) -> dict[str, str]:
        """Every asset that was ever materialized, and its data version."""
        out = {}
        for key in self.instance.get_asset_keys():
            event = self.instance.get_latest_materialization_event(key)
            if event is not None:
                out[key.to_user_string()] = event.asset_materialization.tags["dagster/data_version"]
        return out

    def requested(self) -> set[str]:
        """What the automation asks for now; the sensor's cursor is carried on."""
        result = dg.evaluate_automation_conditions(
            defs=self.definitions, instance=self.instance, cursor=self.cursors.get("cursor")
        )
        self.cursors["cursor"] = result.cursor
        keys = self.definitions.resolve_asset_graph().materializable_asset_keys
        return {k.to_user_string() for k in keys if result.get_num_requested(k)}


@pytest.fixture
def running(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Running]:
    project = make_project(tmp_path / "project")
    # What lies below the shipped character's filtered pairs would only make Dagster slower here.
    for path in project.root.glob("assets/*/madison*.yaml"):
        path.unlink()
    with serve(tmp_path / "site") as site:
        site.put("/winter.txt", LOG, etag='"1"')
        manifest = project.root / "sources/keeper/manifests/logbook.yaml"
        told = yaml.safe_load(manifest.read_text())
        told["connector"] = {
            "kind": "url",
            "documents": {"winter": {"url": site.url("/winter.txt"), "title": "Winter log", "date": "1851-03-01"}},
            "fetch": {"requests_per_second": 50, "retries": 0, "private_hosts": ["127.0.0.1"]},
        }
        manifest.write_text(yaml.safe_dump(told))
        monkeypatch.setenv("FOUNDRY_ROOT", str(project.root))
        monkeypatch.setenv("FOUNDRY_PROFILE", "tiny")
        monkeypatch.setenv("DAGSTER_HOME", str(project.root))
        monkeypatch.chdir(project.root)
        with dg.DagsterInstance.get() as instance:
            yield Running(project, site, instance)


def answered(run: dg.ExecuteInProcessResult) -> bool:
    (check,) = [c for c in run.get_asset_check_evaluations() if c.check_name == "sources_answered"]
    return check.passed


def test_a_changed_sentence_rebuilds_what_depends_on_it_and_nothing_else(running: Running) -> None:
    assert running.build(*BUILT).success
    before = running.versions()
    assert set(before) == set(BUILT)
    assert running.site.asked() == [200]
    running.requested()

    # Nothing has changed: one request, every version as it was, and nothing for the automation to do.
    assert answered(running.weekly())
    assert running.site.asked() == [200, 304]
    assert running.versions() == before
    assert not running.requested() & {"keeper_teacher_responses", "madison_teacher_responses", *BUILT}

    # A sentence changes at the source.
    running.site.put("/winter.txt", LOG.replace("these eleven winters", "these twelve winters"), etag='"2"')
    assert answered(running.weekly())
    after = running.versions()
    assert {name for name in after if after[name] != before.get(name)} == {"keeper_sources", "keeper_passages"}
    assert running.requested() & {*before, "madison_teacher_responses"} == {"keeper_teacher_responses"}
    assert running.build("keeper_teacher_responses").success
    after = running.versions()
    assert {n for n in after if after[n] != before.get(n)} == {n for n in BUILT if n.startswith("keeper")}
    assert set(after) == set(BUILT)  # no other asset of either character was touched, nor a base model

    # The text goes back to what it was: everything is found by its inputs, nothing is built a second time.
    running.site.put("/winter.txt", LOG, etag='"3"')
    assert running.weekly().success
    assert running.build("keeper_teacher_responses").success
    assert running.versions() == before


def test_a_document_that_vanishes_or_a_server_that_fails_changes_nothing(running: Running) -> None:
    assert running.build("keeper_sources", "keeper_passages").success
    before = running.versions()
    running.site.fail("/winter.txt", {"status": 410}, {"status": 503}, {"captcha": True})
    gone = running.build("keeper_sources")
    assert answered(gone)
    told = str(gone.get_asset_check_evaluations()[0].metadata)
    assert "vanished" in told
    for _ in ("503", "captcha"):
        assert not answered(running.build("keeper_sources"))
    assert running.versions() == before


def test_without_anything_fetched_a_failing_server_stops_the_build(running: Running) -> None:
    running.site.fail("/winter.txt", *[{"captcha": True}] * 9)
    with pytest.raises(Exception, match="check for people"):
        running.build("keeper_sources")
    assert running.versions() == {}
    status = running.project.run("foundry", "status", "--json")
    assert status.returncode == 0, status.stdout


def test_offline_nothing_is_asked(running: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    assert running.build("keeper_sources").success
    asked = len(running.site.asked())
    monkeypatch.setenv("FOUNDRY_OFFLINE", "1")
    assert running.build("keeper_sources").success
    assert len(running.site.asked()) == asked


def test_retraining_waits_for_the_gate(running: Running) -> None:
    """The real conditions of the real definitions; what training would stand on is reported to the instance."""
    adapter, dataset = "keeper_first_adapter", "keeper_dataset_v1"
    graph = running.definitions.resolve_asset_graph()
    blocking = [k for k in graph.asset_check_keys if k.asset_key.path == [dataset] and graph.get(k).blocking]
    assert blocking

    def materialized(name: str, version: str) -> None:
        tags = {"dagster/data_version": version}
        running.instance.report_runless_asset_event(dg.AssetMaterialization(name, tags=tags))

    def judged(passed: bool) -> None:
        (record,) = running.instance.fetch_materializations(dg.AssetKey(dataset), limit=1).records
        target = AssetCheckEvaluationTargetMaterializationData(
            storage_id=record.storage_id, run_id=record.run_id, timestamp=record.timestamp
        )
        for key in blocking:
            evaluation = dg.AssetCheckEvaluation(
                asset_key=dg.AssetKey(dataset),
                check_name=key.name,
                passed=passed or key != blocking[0],
                metadata={},
                severity=dg.AssetCheckSeverity.ERROR,
                target_materialization_data=target,
            )
            running.instance.report_runless_asset_event(evaluation)

    for key in graph.get(dg.AssetKey(adapter)).parent_keys:
        materialized(key.to_user_string(), "v1")
    judged(True)
    materialized(adapter, "a1")
    running.requested()
    assert adapter not in running.requested()

    materialized(dataset, "v2")  # a new version, not yet judged
    assert adapter not in running.requested()
    judged(False)
    assert adapter not in running.requested()
    judged(True)
    assert adapter in running.requested()


def test_the_commands(running: Running) -> None:
    project = running.project
    early = project.run("foundry", "sources", "list", "keeper")
    assert early.returncode == 1
    assert "foundry sources refresh keeper --source logbook" in early.stdout
    first = project.run("foundry", "sources", "refresh", "keeper")
    assert first.returncode == 0, first.stdout
    assert "logbook: 1 new; 1 requests" in first.stdout
    listed = project.run("foundry", "sources", "list", "keeper")
    assert listed.returncode == 0, listed.stdout
    assert "log_winter" in listed.stdout
    running.site.fail("/winter.txt", {"status": 500})
    failed = project.run("foundry", "sources", "refresh", "keeper", "--source", "logbook", "--json")
    assert failed.returncode == 1
    assert '"failed": 1' in failed.stdout
    assert project.run("foundry", "sources", "refresh", "keeper", "--source", "rival").returncode == 1
    assert project.run("foundry", "sources", "refresh", "nobody").returncode == 1


def test_the_drop_folder(running: Running) -> None:
    import os
    import time

    from foundry_pipeline.defs.sources import SETTLE

    folder = running.project.root / "sources/keeper/manifests/rival"
    old = time.time() - 2 * SETTLE

    def settle() -> None:
        for path in folder.rglob("*"):
            os.utime(path, (old, old))

    def look(cursor: str | None) -> tuple[list[dg.RunRequest], str | None]:
        context = dg.build_sensor_context(running.instance, cursor=cursor)
        found = running.definitions.get_sensor_def("drop_folder")(context)
        if isinstance(found, dg.SkipReason):
            return [], context.cursor
        return list(found.run_requests), found.cursor

    settle()
    requests, cursor = look(None)  # never read: read now
    assert [r.asset_selection for r in requests] == [[dg.AssetKey("keeper_sources")]]
    assert running.build("keeper_sources").success
    assert look(None)[0] == []  # read as it lies there
    assert look(cursor) == ([], cursor)
    text = folder / "board.txt"
    text.write_text(text.read_text() + "\n\nResolved, that the oil be counted.\n")
    assert look(cursor)[0] == []  # still being written
    settle()
    changed, later = look(cursor)
    assert len(changed) == 1
    assert look(cursor)[0][0].run_key == changed[0].run_key  # a tick that is repeated asks for the same run
    assert look(later)[0] == []
    old += 1
    settle()  # touched, not changed
    assert look(later)[0] == []
