"""`foundry docs`: manifest, catalog and documentation site of the project."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from foundry_pipeline.cli import show
from foundry_pipeline.settings import load_settings

if TYPE_CHECKING:
    from foundry_pipeline.docs.nodes import AssetNode, History


def docs(
    to: Annotated[Path | None, typer.Option(help="folder of the site; by default `docs` in the store")] = None,
) -> None:
    """Write manifest.json, catalog.json and the documentation site. Fails, naming it, on whatever nobody described."""
    started = time.monotonic()
    where = to.expanduser().resolve() if to is not None else None
    index, assets, size = write_docs(where)
    seconds = time.monotonic() - started
    show.line(f"{assets} assets documented in {seconds:.1f} s; the page has {size / 1e6:.2f} MB")
    show.line(f"open {index}")


def register(app: typer.Typer) -> None:
    app.command()(docs)


def write_docs(to: Path | None = None) -> tuple[Path, int, int]:
    """Build and write the site; its index.html, how many assets it has, and the bytes of that page."""
    from foundry_pipeline.chain.graph import load_chain
    from foundry_pipeline.defs.documented import asset_nodes
    from foundry_pipeline.defs.gathered import gathered
    from foundry_pipeline.docs.catalog import build_catalog, undeclared
    from foundry_pipeline.docs.descriptions import load_descriptions
    from foundry_pipeline.docs.manifest import build_manifest, refuse_unsaid
    from foundry_pipeline.docs.page_data import page_data
    from foundry_pipeline.docs.site import INDEX, site_pages, write_site
    from foundry_pipeline.lineage.ledger import read_scores

    settings = load_settings()
    d, chain = load_chain(settings)
    nodes = asset_nodes(gathered(d, chain))
    manifest = build_manifest(d, chain, nodes, load_descriptions(settings.root))
    catalog = build_catalog(chain, nodes, _histories(nodes), read_scores(settings.ledger_url))
    refuse_unsaid(undeclared(manifest, catalog))
    pages = site_pages(settings.root, manifest, catalog, page_data(manifest, catalog, chain, d))
    index = write_site(to or settings.store / "docs", pages)
    return index, len(nodes), len(pages[INDEX].encode())


def _histories(nodes: list[AssetNode]) -> dict[str, History]:
    """What the project's Dagster instance remembers; nothing where there is no instance that lasts."""
    import os

    from dagster import DagsterInstance

    from foundry_pipeline.cli.instance import enter_project
    from foundry_pipeline.defs.documented import histories

    enter_project(release=False)
    if not os.environ.get("DAGSTER_HOME"):
        return {}
    with DagsterInstance.get() as instance:
        return histories(instance, nodes)
