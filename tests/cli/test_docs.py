"""`foundry docs` on a project whose datasets are built: what it writes, what it says of it, and what it refuses."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl
import pytest

from foundry_pipeline.chain.engine import Chain
from foundry_pipeline.chain.graph import load_chain
from foundry_pipeline.declarations import Declarations
from foundry_pipeline.defs.assets import stage_asset
from foundry_pipeline.defs.checks import chain_checks
from foundry_pipeline.defs.documented import asset_nodes, histories
from foundry_pipeline.defs.gathered import gathered
from foundry_pipeline.defs.partitions import placed_at
from foundry_pipeline.docs.catalog import build_catalog, undeclared
from foundry_pipeline.docs.descriptions import load_descriptions
from foundry_pipeline.docs.manifest import build_manifest
from foundry_pipeline.docs.nodes import AssetNode
from foundry_pipeline.docs.page_data import page_data
from foundry_pipeline.docs.site import site_pages
from foundry_pipeline.errors import DeclarationError
from foundry_pipeline.settings import Settings
from tests.prepared import HOSTILE, V1, V2, prepare
from tests.project import Project

Loaded = tuple[Declarations, Chain, list[AssetNode]]


def read(root: Path) -> Loaded:
    d, chain = load_chain(Settings(root, root / ".foundry", "tiny"))
    nodes = [n for n in asset_nodes(gathered(d, chain)) if n.name.startswith(("keeper_", "base_model"))]
    return d, chain, nodes


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Project:
    return prepare(tmp_path_factory.mktemp("documented") / "project")


@pytest.fixture(scope="module")
def loaded(made: Project) -> Loaded:
    return read(made.root)


@pytest.fixture
def copy(made: Project, tmp_path: Path) -> Project:
    """The same project, which a test may spoil."""
    shutil.copytree(made.root, tmp_path / "project", symlinks=True)
    return Project(tmp_path / "project")


@pytest.fixture(scope="module")
def instance(loaded: Loaded) -> Iterator[dg.DagsterInstance]:
    """A history in which one dataset was materialized and checked."""
    d, chain, _ = loaded
    asset = stage_asset(d, chain, placed_at(chain, V1), load_descriptions(d.root))
    checks = [c for c in chain_checks(d, chain) if {k.asset_key.path[-1] for k in c.check_keys} == {V1}]
    with dg.DagsterInstance.ephemeral() as kept:
        resources = {"pipes": dg.PipesSubprocessClient()}
        dg.materialize([asset, *checks], instance=kept, resources=resources, raise_on_error=False)
        yield kept


def catalog_of(loaded: Loaded, instance: dg.DagsterInstance | None = None) -> dict[str, Any]:
    _, chain, nodes = loaded
    return build_catalog(chain, nodes, histories(instance, nodes) if instance else {}, [])


def test_the_catalog_tells_what_is_there(loaded: Loaded) -> None:
    _, chain, _ = loaded
    assets = catalog_of(loaded)["assets"]
    built = assets[V1]
    done = chain.require(V1)
    assert built["state"] == "built"
    assert built["content_hash"] == done.artifact.content_hash
    frame = pl.read_parquet(done.artifact.payload / "pairs.parquet")
    assert built["tables"]["pairs"]["rows"] == frame.height > 0
    assert built["tables"]["pairs"]["columns"] == {n: str(t) for n, t in frame.schema.items()}
    assert built["bytes"] == sum(p.stat().st_size for p in done.artifact.payload.rglob("*") if p.is_file())
    assert assets["keeper_first_adapter"]["state"] == "not built"
    waits = assets["keeper_first_eval"]["why"]
    assert "waits for keeper_first_adapter, which is not built" in waits


def test_equal_state_gives_equal_bytes(made: Project, loaded: Loaded) -> None:
    pages = []
    for d, chain, nodes in (loaded, read(made.root)):
        manifest = build_manifest(d, chain, nodes, load_descriptions(d.root))
        catalog = build_catalog(chain, nodes, {}, [])
        pages.append(site_pages(d.root, manifest, catalog, page_data(manifest, catalog, chain, d)))
    assert pages[0] == pages[1]
    assert str(made.root) not in pages[0]["manifest.json"] + pages[0]["catalog.json"] + pages[0]["index.html"]


def test_what_dagster_remembers_is_told(loaded: Loaded, instance: dg.DagsterInstance) -> None:
    built = catalog_of(loaded, instance)["assets"][V1]
    assert built["last_materialization"]["data_version"] == built["content_hash"]
    ran = built["checks"]["pair_id_unique"]
    assert ran["outcome"] == "passed"
    assert ran["told_by"] == "Dagster"
    assert ran["on_latest"] is True
    assert {c["outcome"] for c in built["checks"].values()} <= {"passed", "warned", "failed"}


def test_a_check_of_an_earlier_version_says_so(loaded: Loaded, instance: dg.DagsterInstance) -> None:
    newer = dg.AssetMaterialization(V1, tags={"dagster/data_version": "f" * 64})
    instance.report_runless_asset_event(newer)
    checks = catalog_of(loaded, instance)["assets"][V1]["checks"].values()
    assert {c["on_latest"] for c in checks} == {False}


def test_without_dagster_the_verdict_beside_a_dataset_is_told(loaded: Loaded, instance: dg.DagsterInstance) -> None:
    """`instance` has run the checks, which leave their verdict in the store."""
    with_history, without = (catalog_of(loaded, i)["assets"][V1]["checks"] for i in (instance, None))
    assert {n: c["outcome"] for n, c in with_history.items()} == {n: c["outcome"] for n, c in without.items()}
    assert {c["told_by"] for c in without.values()} == {"verdict"}
    assert catalog_of(loaded)["assets"][V2]["checks"]["row_count"] is None


def test_a_changed_declaration_makes_its_asset_stale_and_names_the_field(copy: Project) -> None:
    path = copy.root / f"assets/datasets/{V1}.yaml"
    path.write_text(path.read_text().replace("pairs: 8", "pairs: 7"))
    assets = catalog_of(read(copy.root))["assets"]
    assert assets[V1]["state"] == "stale"
    assert f"{V1}: declared parts[0].pairs changed, 8 → 7" in assets[V1]["why"]
    assert assets[V2]["state"] == "stale"
    # The first cause is named, however far up it lies.
    assert f"{V1}: declared parts[0].pairs changed, 8 → 7" in assets[V2]["why"]
    assert assets["keeper_passages"]["state"] == "built"


def test_damage_is_told_and_stops_nothing(copy: Project) -> None:
    loaded = read(copy.root)
    store = loaded[1].store
    before = catalog_of(loaded)["assets"]
    (store.folder(before[V1]["content_hash"]) / "payload/pairs.parquet").write_bytes(b"PAR1 torn")
    shutil.rmtree(store.folder(before[V2]["content_hash"]))
    assets = catalog_of(loaded)["assets"]
    assert assets[V1]["state"] == "damaged"
    assert "pairs.parquet" in assets[V1]["why"][0]
    assert assets[V2]["state"] == "damaged"
    assert assets["keeper_passages"]["state"] == "built"


def test_a_built_column_that_is_not_declared_is_named(loaded: Loaded) -> None:
    d, chain, nodes = loaded
    manifest = build_manifest(d, chain, nodes, load_descriptions(d.root))
    catalog = catalog_of(loaded)
    # The hand-made artifacts stand for what models would have built, and lack tables of theirs.
    by_hand = {
        "keeper_teacher_responses",
        "keeper_student_responses",
        "keeper_candidate_pairs",
        "keeper_filtered_pairs",
    }
    catalog["assets"] = {k: v for k, v in catalog["assets"].items() if k not in by_hand}
    assert undeclared(manifest, catalog) == []
    columns = catalog["assets"][V1]["tables"]["pairs"]["columns"]
    columns["mood"] = columns.pop("fit")
    catalog["assets"][V1]["tables"]["extra"] = {"rows": 1, "columns": {"a": "String"}}
    faults = "\n".join(undeclared(manifest, catalog))
    assert f"column `mood` of table `pairs` of kind `dataset` (built in {V1})" in faults
    assert "column `fit` of table `pairs` of kind `dataset`: declared" in faults
    assert "table `extra` of kind `dataset`" in faults


def test_every_unsaid_thing_is_named_at_once(loaded: Loaded) -> None:
    d, chain, nodes = loaded
    spoilt = [
        *nodes,
        AssetNode("stray", "g", (), (), "", (), None, None, None, (), {}, (), declared=False),
        AssetNode("bare", "g", (), (), " ", (), None, None, None, (), {}, ()),
    ]
    with pytest.raises(DeclarationError) as told:
        build_manifest(d, chain, spoilt, load_descriptions(d.root))
    text = str(told.value)
    assert "asset `stray`: it is named as an input and declared nowhere" in text
    assert "asset `bare`: no description" in text
    assert "asset `bare`: no owner" in text


def test_the_command_writes_the_site_and_refuses_what_nobody_described(copy: Project) -> None:
    # Hand-made artifacts lack tables that are declared; what is built for real is documented.
    for path in (copy.store / "index").glob("*.json"):
        if json.loads(path.read_text())["kind"] not in ("sources", "passages"):
            path.unlink()
    done = copy.run("foundry", "docs", "--to", "site")
    assert done.returncode == 0, done.stdout
    site = copy.root / "site"
    manifest, catalog = (json.loads((site / f"{name}.json").read_text()) for name in ("manifest", "catalog"))
    assert manifest["assets"].keys() == catalog["assets"].keys()
    refers = [
        v["$ref"]
        for v in manifest["assets"]["keeper_first_eval"]["declaration"].values()
        if isinstance(v, dict) and "$ref" in v
    ]
    assert refers
    assert all(r.removeprefix("#/values/") in manifest["values"] for r in refers)
    assert catalog["assets"]["keeper_passages"]["state"] == "built"
    described = manifest["assets"][V1]["description"]
    assert " ".join(repr(HOSTILE).split())[1:20] in described
    assert "<script>alert(1)</script>" not in (site / "index.html").read_text()
    assert f"{site}/index.html" in done.stdout

    columns = copy.root / "dbt_style_docs/columns.md"
    columns.write_text(columns.read_text().replace("{% docs held_out %}", "{% docs held_in %}"))
    refused = copy.run("foundry", "docs", "--to", "site")
    assert refused.returncode == 1
    assert "column `held_out` of table `passages` of kind `passages`" in refused.stdout
    assert "Traceback" not in refused.stdout
