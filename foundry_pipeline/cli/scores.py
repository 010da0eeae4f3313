"""`foundry scores`: the ledger of measured scores, filtered; as a table, as JSON, as CSV.

Measured figures and figures reported elsewhere are never listed together, and every row says which it is (`kind`).
Reading changes nothing: not the ledger's layout, and no ledger is made by looking for one.
"""

from __future__ import annotations

import csv
import sys
from collections.abc import Iterable, Mapping
from typing import Annotated, Any

import typer

from foundry_pipeline.cli import collapses, show
from foundry_pipeline.errors import FoundryError
from foundry_pipeline.plain import plain
from foundry_pipeline.settings import load_settings


def register(app: typer.Typer) -> None:
    app.command()(scores)


def scores(
    run: Annotated[str | None, typer.Option(help="only this run")] = None,
    mode: Annotated[str | None, typer.Option(help="only this serving mode")] = None,
    judge: Annotated[str | None, typer.Option(help="only this judge, or the beginning of a judge's version")] = None,
    suite: Annotated[str | None, typer.Option(help="only this evaluation suite: the beginning of its hash")] = None,
    dataset: Annotated[str | None, typer.Option(help="only this dataset: a name, or the beginning of a hash")] = None,
    profile: Annotated[str | None, typer.Option(help="only this profile")] = None,
    since: Annotated[str | None, typer.Option(help="recorded then or later: 2026-11-21, 2026-11-21T20:14, 7d")] = None,
    until: Annotated[str | None, typer.Option(help="recorded before then")] = None,
    reported: Annotated[
        bool, typer.Option("--reported", help="figures reported elsewhere, never measured here")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="print JSON instead of a table")] = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="print CSV instead of a table")] = False,
) -> None:
    """Rows of the score ledger, oldest first, and runs that collapsed; with --reported figures published elsewhere."""
    if as_json and as_csv:
        raise FoundryError("one listing is either JSON or CSV", where="--json --csv", mend="leave one of them out")
    settings = load_settings()
    filters = {
        "run": run, "mode": mode, "judge": judge, "suite": suite, "dataset": dataset, "profile": profile,
        "since": since, "until": until,
    }  # fmt: skip
    if reported:
        rows = _reported(settings, filters)
    else:
        rows = _measured(settings.ledger_url, filters)
    if as_csv:
        write_csv(rows)
    elif as_json:
        show.json_or(True, rows, lambda _: None)
    elif not rows and any(filters.values()):
        show.line("no score fits these filters")
    else:
        (show.reported_table if reported else collapses.scores_with_collapses)(rows)


def _measured(url: str, filters: Mapping[str, str | None]) -> list[dict[str, Any]]:
    from foundry_pipeline.lineage.ledger import moment, read_scores

    rows = [{"kind": "measured", **row} for row in read_scores(url, **filters)]
    if filters["mode"] is None and filters["judge"] is None and filters["suite"] is None:
        # What collapsed was neither served nor judged.
        first, last = (moment(filters[n] or "") if filters[n] else None for n in ("since", "until"))
        rows += [
            {"kind": "collapsed", **row}
            for row in collapses.collapsed_rows(url, filters["run"])
            if filters["profile"] in (None, row["profile"])
            and (
                (d := filters["dataset"]) is None
                or row["dataset"] == d
                or (len(d) >= 8 and row["dataset_hash"].startswith(d))
            )
            and (first is None or row["recorded_at"] >= first)
            and (last is None or row["recorded_at"] < last)
        ]
    return rows


def _reported(settings: Any, filters: Mapping[str, str | None]) -> list[dict[str, Any]]:
    from foundry_pipeline.declarations import load

    given = sorted(name for name, value in filters.items() if value is not None and name != "run")
    if given:
        raise FoundryError(
            f"figures reported elsewhere carry no {', '.join(given)} of this ledger",
            where="foundry scores --reported",
            mend="filter them by --run alone",
        )
    d = load(settings.root, settings.profile)
    told = [r.model_dump(mode="json") for c in d.characters.values() for r in c.reported_scores]
    return [{"kind": "reported", **r} for r in told if filters["run"] in (None, r["run"])]


def write_csv(rows: Iterable[Mapping[str, Any]]) -> None:
    """Rows as CSV (RFC 4180): one column a figure, the groups of a score as `categories.<name>` and so on."""
    flat = [dict(_flat(row)) for row in rows]
    columns = list(dict.fromkeys(name for row in flat for name in row)) or ["kind"]
    out = csv.DictWriter(sys.stdout, columns, restval="")
    out.writeheader()
    out.writerows(flat)
    sys.stdout.flush()


def _flat(row: Mapping[str, Any], before: str = "") -> Iterable[tuple[str, Any]]:
    for name, value in row.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{before}{name}.")
        else:
            yield _cell(f"{before}{name}"), _cell(value)


def _cell(value: Any) -> Any:
    """Text as a spreadsheet shows it and never runs it: what begins like a formula gets an apostrophe in front."""
    if not isinstance(value, str):
        return value
    text = plain(value)
    # Blanks in front of a formula are passed over by some programs.
    return f"'{text}" if text.lstrip()[:1] in ("=", "+", "-", "@", "＝", "＋", "－", "＠") else text
