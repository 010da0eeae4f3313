"""`foundry database`: where scores, answers, money and Dagster's history stand, and the way from files to one database."""

from __future__ import annotations

import sys
from typing import Annotated, Any

import typer
from rich.table import Table

from foundry_pipeline.cli import show
from foundry_pipeline.settings import load_settings

app = typer.Typer(no_args_is_help=True, help="the shared database (FOUNDRY_DATABASE)")

AsJson = Annotated[bool, typer.Option("--json", help="print JSON instead of a table")]


@app.command()
def status(as_json: AsJson = False) -> None:
    """Where everything stands, and how much of it there is. Exit code 1 where the database cannot be used."""
    from foundry_pipeline.lineage.database import is_there
    from foundry_pipeline.lineage.ledger import read_scores
    from foundry_pipeline.lineage.ledger_database import shown
    from foundry_pipeline.models.cache import ResponseCache
    from foundry_pipeline.models.money.ledger import MoneyLedger

    settings = load_settings()
    # Looking makes no file.
    answers = len(ResponseCache(settings.responses_path)) if is_there(settings.responses_path) else 0
    money = len(MoneyLedger(settings.money_path).rows()) if is_there(settings.money_path) else 0
    database = shown(settings.database) if settings.database else ""
    found = [
        {"what": "scores", "rows": len(read_scores(settings.ledger_url)), "where": shown(settings.ledger_url)},
        {"what": "answers", "rows": answers, "where": database or str(settings.responses_path)},
        {"what": "money", "rows": money, "where": database or str(settings.money_path)},
        {"what": "Dagster's runs", "rows": None, "where": database or str(settings.root / ".dagster")},
        {"what": "embeddings, artifacts", "rows": None, "where": str(settings.store)},
    ]
    show.json_or(as_json, found, _status_view)


def _status_view(found: list[dict[str, Any]]) -> None:
    table = Table("what", "rows", "where")
    for row in found:
        table.add_row(row["what"], "" if row["rows"] is None else f"{row['rows']:,}", row["where"])
    show.console().print(table)


@app.command()
def copy(as_json: AsJson = False) -> None:
    """Copy this store's SQLite files (scores, answers, money) into FOUNDRY_DATABASE. May be repeated; compares every row.

    Dagster's history stays in its files: what is built is found by its inputs, whatever history says.
    """
    from foundry_pipeline.chain.database_copy import copy as copy_all

    done = copy_all(load_settings(), say=lambda text: print(text, file=sys.stderr, flush=True))
    show.json_or(as_json, done, _copy_view)
    if any(row["other"] for row in done):
        show.line("rows under `other` stand in the database with another content: those stay, these stay in the files")
        raise typer.Exit(1)


def _copy_view(done: list[dict[str, Any]]) -> None:
    if not done:
        show.line("this store has no SQLite files to copy")
        return
    table = Table("what", "in files", "added", "in database", "other", "digest of what both hold")
    for row in done:
        counts = [f"{row[name]:,}" for name in ("in_files", "added", "in_database", "other")]
        table.add_row(row["what"], *counts, row["digest"][:16])
    show.console().print(table)
