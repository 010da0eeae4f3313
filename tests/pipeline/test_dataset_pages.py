"""What the Dagster UI links to beside a dataset is there: its card, its folder, the page of its checks."""

from __future__ import annotations

from pathlib import Path

import dagster as dg
import pytest

from foundry_pipeline.chain.graph import load_chain
from foundry_pipeline.defs.assets import stage_asset
from foundry_pipeline.defs.checks import chain_checks
from foundry_pipeline.defs.partitions import placed_at
from foundry_pipeline.docs.descriptions import load_descriptions
from foundry_pipeline.settings import Settings
from tests.prepared import V1, prepare


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> dg.ExecuteInProcessResult:
    project = prepare(tmp_path_factory.mktemp("prepared") / "project")
    d, chain = load_chain(Settings(project.root, project.store, "tiny"))
    asset = stage_asset(d, chain, placed_at(chain, V1), load_descriptions(project.root))
    checks = [c for c in chain_checks(d, chain) if {k.asset_key.path[-1] for k in c.check_keys} == {V1}]
    with dg.DagsterInstance.ephemeral() as instance:
        return dg.materialize(
            [asset, *checks], instance=instance, resources={"pipes": dg.PipesSubprocessClient()}, raise_on_error=True
        )


def test_the_asset_links_to_its_card_and_folder(result: dg.ExecuteInProcessResult) -> None:
    (made,) = result.asset_materializations_for_node(V1)
    folder = Path(str(made.metadata["card and Hugging Face folder"].value))
    assert (folder / "pairs/train-00000-of-00001.parquet").is_file()
    # Written before the checks ran, and again after them: it tells how they came out.
    assert "The data checks passed for exactly this content" in (folder / "README.md").read_text(encoding="utf-8")
    assert Path(str(made.metadata["page of its checks"].value)).is_file()


def test_every_check_links_to_the_page(result: dg.ExecuteInProcessResult) -> None:
    found = result.get_asset_check_evaluations()
    assert len(found) > 10
    assert all(check.passed for check in found)
    assert {Path(str(check.metadata["page"].value)).name for check in found} == {f"{V1}_checks.html"}
