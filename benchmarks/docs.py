"""How long the documentation site of many runs takes: `foundry docs` over a made store, started as a user starts it.

    python -m benchmarks.docs                              # 100 runs, each built ten times over
    python -m benchmarks.docs --runs 12 --builds 2         # a small one

The shipped declarations and so many more runs, each with eight assets. Every asset is in the store with small tables of
the declared columns, every asset of a run besides with earlier builds under other input hashes, as other seeds leave
them, and with a materialization in a Dagster instance; each tenth run is stale, so that the earlier builds are read. What
is in the tables does not matter: their sizes and columns are read, not their rows.
Writes `benchmarks/results/docs-<profile>.md`.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import polars as pl

from benchmarks.chain import machine
from foundry_pipeline.chain.engine import Chain
from foundry_pipeline.chain.graph import load_chain
from foundry_pipeline.docs.descriptions import Descriptions, load_descriptions
from foundry_pipeline.launch import write_json
from foundry_pipeline.lineage.hashing import digest
from foundry_pipeline.settings import Settings, load_settings
from tests.prepared import publish_made

TYPES: dict[str, Any] = {
    "String": pl.String, "Int64": pl.Int64, "Float64": pl.Float64, "Boolean": pl.Boolean, "List(String)": pl.List(pl.String),
}  # fmt: skip
TIMES = 3


def made_project(root: Path, runs: int) -> Chain:
    here = load_settings().root
    for name in ("sources", "assets", "dbt_style_docs"):
        shutil.copytree(here / name, root / name)
    for name in ("dagster.yaml", "workspace.yaml"):
        shutil.copy(here / name, root / name)
    for i in range(runs):  # at rates of which none is a shipped run's: equal declarations share one artifact
        (root / f"assets/runs/madison_m{i:04d}.yaml").write_text(
            f"run: madison_m{i:04d}\ninherits: common/qwen\ndescription: Trial {i} of a sweep over learning rates.\n"
            f"dataset: madison_dataset_v6\nlearning_rate: {1.01e-6 * (i + 1):.6e}\n"
        )
    return load_chain(Settings(root, root / ".foundry", "laptop"))[1]


def fill(chain: Chain, described: Descriptions, builds: int) -> None:
    """Put an artifact for every asset into the store, in order, and earlier builds of every run's."""
    done: set[str] = set()
    waiting = list(chain.stages)
    while waiting:
        name = next(n for n in waiting if set(chain.stages[n].inputs) <= done)
        waiting.remove(name)
        publish(chain, described, name)
        done.add(name)
    stale = sorted(n for n in chain.stages if n.startswith("madison_m"))
    for name in stale:
        record = chain.resolve(name).record
        assert record is not None
        for i in range(1, builds):
            key = digest([name, i])
            facts = {**record.facts, "built_at": f"2026-01-{i:02d}T00:00:00+00:00"}
            write_json(
                chain.store.root / "index" / f"{key}.json", {**record.__dict__, "input_hash": key, "facts": facts}
            )
    for name in stale:
        if name.startswith("madison_m") and name.split("_")[1].endswith("0"):
            found = chain.resolve(name)
            if found.record is not None:
                (chain.store.root / "index" / f"{found.input_hash}.json").unlink()


def publish(chain: Chain, described: Descriptions, name: str) -> None:
    stage, found = chain.stages[name], chain.resolve(name)
    assert found.input_hash is not None
    payload = chain.store.work(found.input_hash) / "payload"
    payload.mkdir(parents=True)
    for table, held in described.tables.get(stage.kind, {}).items():
        frame = pl.DataFrame(schema={c: TYPES[t] for c, t in held.columns.items()})
        frame.clear(36).write_parquet(payload / f"{table}.parquet")
    (payload / "made.txt").write_text(name)
    publish_made(chain, name, payload, {"built_at": "2026-02-01T00:00:00+00:00", "build_seconds": 1.0})


def remember(chain: Chain, root: Path) -> int:
    """A materialization of everything that is built, in the project's own Dagster instance; how many."""
    import dagster as dg

    os.chdir(root)
    os.environ["DAGSTER_HOME"] = str(root)
    with dg.DagsterInstance.get() as instance:
        built = [(n, r.content_hash) for n in chain.stages if (r := chain.resolve(n).record) is not None]
        for name, version in built:
            instance.report_runless_asset_event(dg.AssetMaterialization(name, tags={"dagster/data_version": version}))
    return len(built)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=100)
    parser.add_argument("--builds", type=int, default=10)
    given = parser.parse_args()
    settings = load_settings()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "project"
        root.mkdir()
        chain = made_project(root, given.runs)
        fill(chain, load_descriptions(root), given.builds)
        remembered = remember(chain, root)
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("FOUNDRY_", "DAGSTER_"))}
        command = [sys.executable, "-c", "from foundry_pipeline.cli.main import main; main()", "docs", "--to", "site"]
        seconds = []
        for _ in range(TIMES):
            started = time.perf_counter()
            subprocess.run(command, cwd=root, env={**kept, "FOUNDRY_PROFILE": "laptop"}, check=True)
            seconds.append(time.perf_counter() - started)
        page = (root / "site/index.html").stat().st_size
        records = len(list((root / ".foundry/index").glob("*.json")))
    lines = [
        "# The documentation site of many runs",
        "",
        f"Machine: {machine()}",
        "",
        f"{given.runs} made runs beside the shipped ten: {len(chain.stages)} assets, {records:,} builds in the store, "
        f"{remembered} materializations in Dagster.",
        "",
        f"`foundry docs`, from its start to its end: **{sorted(seconds)[TIMES // 2]:.1f} s** (median of {TIMES}; "
        f"{min(seconds):.1f} to {max(seconds):.1f}). The page has {page / 1e6:.2f} MB.",
        "",
    ]
    out = settings.root / "benchmarks" / "results" / f"docs-{settings.profile}.md"
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text("\n".join(lines), encoding="utf-8")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
