"""What a shared store costs: `python -m benchmarks.shared_store --store .foundry --name madison_r2` (`make bench` does not).

Takes the builds of one run out of a finished store (hard links, nothing is changed), starts an S3-compatible server on this
machine, and measures five steps with their requests and bytes: sending all of it, sending it again, looking every build up
from an empty cache, fetching it whole, fetching it again. Beside it the peer: `s3fs` alone copying the same files to and fro,
which proves nothing and knows nothing of what is there. Writes `benchmarks/results/shared-store.md`.
"""

from __future__ import annotations

import argparse
import os
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.chain import machine
from foundry_pipeline.lineage.bucket import Bucket
from foundry_pipeline.lineage.objects import Traffic
from foundry_pipeline.lineage.shared_store import SharedStore
from foundry_pipeline.lineage.store import Store
from tests.servers.s3 import BUCKET, NAME, SECRET, s3_server

RESULTS = Path(__file__).parent / "results"


def part_of(store: Path, run: str, folder: Path) -> Store:
    """A store of the builds whose name begins with `run`, by hard links."""
    taken = Store(folder)
    for record in Store(store).records():
        if record.name.startswith(run) and not taken.has(record.content_hash):
            source, target = store / "artifacts" / record.content_hash, taken.folder(record.content_hash)
            shutil.copytree(source, target, copy_function=os.link)
            line = f"index/{record.input_hash}.json"
            (folder / "index").mkdir(exist_ok=True)
            shutil.copy(store / line, folder / line)
    return taken


def measured(do: Callable[[], Any], bucket: Bucket) -> tuple[float, Traffic]:
    before, started = bucket.traffic(), time.perf_counter()
    do()
    return time.perf_counter() - started, bucket.traffic().since(before)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--store", type=Path, default=Path(".foundry"))
    parser.add_argument("--name", default="madison_r2")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=given.store.resolve().parent) as name:
        folder = Path(name)
        local = part_of(given.store.resolve(), given.name, folder / "one")
        records = list(local.records())
        if not records:
            raise SystemExit(f"no build of {given.name} in {given.store.resolve()}: run `make madison` first")
        sizes = [sum(local.sizes(c).values()) for c in {r.content_hash for r in records}]
        files = sum(len(local.sizes(c)) for c in {r.content_hash for r in records})
        with s3_server(folder / "server") as server:
            options = {"key": NAME, "secret": SECRET, "endpoint_url": server.server.url}

            def shared(cache: str) -> SharedStore:
                return SharedStore(folder / cache, Bucket(f"s3://{BUCKET}/shared", options))

            rows: list[tuple[str, float, Traffic]] = []

            def step(what: str, store: SharedStore, do: Callable[[], Any]) -> None:
                seconds, spent = measured(do, store.bucket)
                rows.append((what, seconds, spent))
                print(f"{what}: {seconds:.1f} s, {spent}", flush=True)

            one = shared("one")
            step("send all", one, lambda: [one.share(r) for r in one.pending()])
            again = shared("one")
            step("send again", again, lambda: [again.reuse(r) for r in again.records()])
            two = shared("two")
            step("look every build up, empty cache", two, lambda: [two.reuse(r) for r in two.records()])
            step("fetch all", two, lambda: [two.open(r.content_hash).payload for r in two.records()])
            more = shared("two")
            step("fetch again", more, lambda: [more.open(r.content_hash).payload for r in more.records()])
            plain = Bucket(f"s3://{BUCKET}/plain", options)
            source, target = str(folder / "one" / "artifacts"), f"{BUCKET}/plain"
            up, sent = measured(lambda: plain.fs.put(source, target, recursive=True), plain)
            down, got = measured(lambda: plain.fs.get(target, str(folder / "plain"), recursive=True), plain)
    lines = [
        "# A store that several machines share",
        "",
        f"Machine: {machine()}; the S3-compatible server (moto) ran on the same cores, so that seconds are an upper bound and",
        f"say nothing of a network. {len(records)} builds of `{given.name}`: {files} files, {sum(sizes) / 1e6:,.0f} MB.",
        "",
        "| step | seconds | requests | files sent | MB sent | files fetched | MB fetched |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    for what, seconds, spent in rows:
        lines.append(
            f"| {what} | {seconds:.1f} | {spent.requests} | {spent.uploaded_files} | {spent.uploaded_bytes / 1e6:,.1f} "
            f"| {spent.downloaded_files} | {spent.downloaded_bytes / 1e6:,.1f} |"
        )
    lines.append(f"| peer: s3fs alone, send (proves nothing) | {up:.1f} | {sent.requests} | {files} | – | – | – |")
    lines.append(f"| peer: s3fs alone, fetch | {down:.1f} | {got.requests} | – | – | {files} | – |")
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "shared-store.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
