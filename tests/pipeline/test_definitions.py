"""What Dagster sees: groups, descriptions, owners, blocking checks, automation that is stopped until it is started."""

from __future__ import annotations

from pathlib import Path

import dagster as dg
import pytest

from foundry_pipeline.defs.automation import condition
from tests.conftest import ROOT


@pytest.fixture
def definitions(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dg.Definitions:
    monkeypatch.setenv("FOUNDRY_ROOT", str(ROOT))
    monkeypatch.setenv("FOUNDRY_STORE", str(tmp_path / "store"))
    from foundry_pipeline.definitions import build_definitions

    return build_definitions()


def test_every_asset_is_described_owned_grouped_and_versioned(definitions: dg.Definitions) -> None:
    graph = definitions.resolve_asset_graph()
    keys = graph.materializable_asset_keys
    assert len(keys) == 96
    for key in keys:
        node = graph.get(key)
        assert node.description
        assert node.owners
        assert node.kinds
        assert node.group_name != "default"
        assert node.code_version


def test_error_level_checks_block_and_warnings_do_not(definitions: dg.Definitions) -> None:
    graph = definitions.resolve_asset_graph()
    blocking = {
        k.name: graph.get(k).blocking for k in graph.asset_check_keys if k.asset_key.path == ["madison_dataset_v6"]
    }
    assert blocking["row_count"]
    assert blocking["no_suite_overlap"]
    assert blocking["no_held_out_overlap"]
    assert blocking["sides_differ"]
    assert not blocking["category_share"]


def test_automation_is_there_and_stopped(definitions: dg.Definitions) -> None:
    sensor = definitions.get_sensor_def("foundry_automation")
    assert sensor.default_status == dg.DefaultSensorStatus.STOPPED
    schedule = definitions.get_schedule_def("weekly_sources")
    assert schedule.default_status == dg.DefaultScheduleStatus.STOPPED
    assert schedule.cron_schedule == "0 5 * * 1"
    assert condition("sources") is None
    adapter, dataset = condition("adapter"), condition("dataset")
    assert adapter is not None
    assert dataset is not None
    assert "checks" in str(adapter.get_label())
    assert "checks" not in str(dataset.get_label())


def test_one_trainer_at_a_time(definitions: dg.Definitions) -> None:
    pools = {a.key.path[-1]: a.op.pool for a in definitions.resolve_asset_graph().assets_defs if a.keys}
    assert {name for name, pool in pools.items() if pool == "trainer"} == {n for n in pools if n.endswith("_adapter")}
