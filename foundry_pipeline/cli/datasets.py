"""Commands on dataset versions: `foundry diff`, `checks`, `versions`, `export-dataset`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from foundry_pipeline.settings import load_settings

AsJson = Annotated[bool, typer.Option("--json", help="print JSON instead of tables")]
Name = Annotated[str, typer.Argument(help="a declared dataset, such as madison_dataset_v6")]


def _json(data: Any) -> None:
    # ASCII alone: a pair's text may hold control characters that a terminal would obey.
    print(json.dumps(data, indent=1, ensure_ascii=True, default=str))


def diff(
    left: Annotated[str, typer.Argument(help="a declared dataset, or a content hash (8 characters or more)")],
    right: Annotated[str, typer.Argument(help="the same; what it has more counts as added")],
    rows: Annotated[int, typer.Option(min=0, help="how many rows of each kind to show (all of them in --json)")] = 3,
    as_json: AsJson = False,
) -> None:
    """Two versions of a dataset: rows added, removed, changed; figures that moved; scores beside them."""
    from foundry_pipeline.chain.dataset_diff import diff_versions
    from foundry_pipeline.chain.graph import load_chain

    d, chain = load_chain(load_settings())
    found = diff_versions(d, chain, left, right)
    if as_json:
        _json(found)
    else:
        from foundry_pipeline.cli.dataset_views import diff_view

        diff_view(found, rows)


def versions(dataset: Name, as_json: AsJson = False) -> None:
    """Every version of a dataset that the store holds, by content hash; `diff` takes these."""
    from foundry_pipeline.chain import dataset_versions
    from foundry_pipeline.chain.graph import load_chain

    d, chain = load_chain(load_settings())
    found = dataset_versions.versions(d, chain, dataset)
    if as_json:
        _json(found)
    else:
        from foundry_pipeline.cli.dataset_views import versions_view

        versions_view(found)


def checks(dataset: Name, as_json: AsJson = False) -> None:
    """The verdict of a dataset's data checks, and its page. Exit code 1 when an error-level expectation failed."""
    from foundry_pipeline.chain.dataset_versions import known_dataset
    from foundry_pipeline.chain.graph import load_chain
    from foundry_pipeline.chain.verdicts import dataset_verdict
    from foundry_pipeline.reports.checks_page import write_checks_page

    d, chain = load_chain(load_settings())
    known_dataset(d, dataset)
    verdict = dataset_verdict(d, chain, dataset)
    page = write_checks_page(chain, d, dataset)
    if as_json:
        _json({**verdict, "page": str(page)})
    else:
        from foundry_pipeline.cli.dataset_views import checks_view

        checks_view(verdict, str(page))
    if not verdict["passed"]:
        raise typer.Exit(1)


def export_dataset(
    dataset: Name,
    to: Annotated[Path | None, typer.Option(help="folder to write into (default: below .foundry/exports)")] = None,
) -> None:
    """Write a dataset as a folder for Hugging Face `datasets`, with its card and Croissant metadata."""
    from foundry_pipeline.chain.dataset_exports import export
    from foundry_pipeline.chain.graph import load_chain

    d, chain = load_chain(load_settings())
    print(f"dataset: {export(d, chain, dataset, to)}", flush=True)


def register(app: typer.Typer) -> None:
    """Add these commands to `foundry`."""
    app.command()(diff)
    app.command()(versions)
    app.command()(checks)
    app.command(name="export-dataset")(export_dataset)
