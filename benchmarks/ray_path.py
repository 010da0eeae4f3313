"""What the way over a Ray cluster costs: `python -m benchmarks.ray_path` (`make bench-ray`), extra `ray`.

1. The same ten jobs that sleep 60 s and hold 0.1 processor each: runs of Dagster whose script sleeps, all started at
   once, on this machine (a process each) and on a cluster of two nodes that this starts on this host. A job lasts from
   the moment it is launched until its run has ended; its overhead over local is what it lasts longer.
2. A backfill of 130 partitions of which all are built: the whole command, from start to end.

Writes `benchmarks/results/ray-path.md`.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.chain import machine
from foundry_pipeline.chain.backfill import OF_A_RUN, Unit
from foundry_pipeline.chain.graph import load_chain
from foundry_pipeline.chain.verdicts import dataset_verdict
from foundry_pipeline.settings import Settings
from tests.prepared import V1, prepare, publish_made
from tests.project import ROOT, Project, make_project
from tests.servers.ray_cluster import ray_cluster

PARTITIONS, GOAL_JOB, GOAL_NOOP = 130, 15.0, 60.0
_MARK = "JOB "  # before a figure that the child prints


def sleepers(jobs: int) -> None:
    """In a child whose environment says which engine: start all jobs at once, wait, print how long each lasted."""
    from dagster import DagsterInstance

    from foundry_pipeline.cli.instance import enter_project
    from foundry_pipeline.defs.backfill import Launches

    enter_project(release=False)
    with DagsterInstance.get() as instance:
        launches = Launches(
            instance, store=Path(os.environ["FOUNDRY_STORE"]), label="sleep", module="benchmarks.ray_jobs"
        )
        going = {}
        for key in range(jobs):
            unit = Unit(f"sleeper-{key}", (), ("sleeper",), str(key), frozenset())
            going[launches.start(unit, backfill="sleep")] = time.monotonic()
        while going:
            for started, since in list(going.items()):
                ended = launches.state(started)
                if ended is not None:
                    if ended.how != "well":
                        raise SystemExit(f"{started.unit.name}: {ended.how}: {ended.said}")
                    print(f"{_MARK}{time.monotonic() - since:.2f}", flush=True)
                    del going[started]
            time.sleep(0.5)


def timed_sleepers(project: Project, jobs: int, seconds: float, more: dict[str, str]) -> list[float]:
    """Seconds that each of the jobs lasted under one engine."""
    environment = {**project.environment, **more, "FOUNDRY_SLEEP": str(seconds), "FOUNDRY_STORE": str(project.store)}
    command = [sys.executable, "-m", "benchmarks.ray_path", "--child", "--jobs", str(jobs)]
    done = subprocess.run(
        command,
        cwd=project.root,
        env={**environment, "PYTHONPATH": str(ROOT)},
        text=True,
        stdout=subprocess.PIPE,
        check=False,
    )
    if done.returncode != 0:
        raise SystemExit(f"the jobs did not end well under {more.get('FOUNDRY_ENGINE', 'local')}")
    return [float(line.removeprefix(_MARK)) for line in done.stdout.splitlines() if line.startswith(_MARK)]


def nothing_to_do(folder: Path, partitions: int) -> tuple[float, str]:
    """Seconds that a backfill of so many built partitions takes, and what it says; payloads are made by hand."""
    project = make_project(folder)
    with (project.root / "assets/runs/keeper_first.yaml").open("a") as file:
        file.write(f"seeds: {partitions}\n")
    prepare(project.root, make=False)
    d, chain = load_chain(Settings(project.root, project.store, "tiny"))
    assert dataset_verdict(d, chain, V1)["passed"]
    for run in [r for r in d.runs if d.run_and_partition(r)[0] == "keeper_first"]:
        for kind in OF_A_RUN:
            found = chain.resolve(f"{run}_{kind}")
            assert found.input_hash is not None, found.missing
            payload = chain.store.work(found.input_hash) / "payload"
            payload.mkdir(parents=True)
            (payload / "by_hand.txt").write_text(f"{run} {kind}")
            publish_made(chain, f"{run}_{kind}", payload)
            if kind == "gguf":
                made = chain.resolve(f"{run}_{kind}").record
                assert made is not None
                (chain.store.folder(made.content_hash) / "verdict.json").write_text("{}")
    begun = time.monotonic()
    done = project.run("foundry", "backfill", "keeper_first", "--until", "serving_matrix")
    took = time.monotonic() - begun
    if done.returncode != 0 or f"{partitions} of {partitions} are built" not in done.stdout:
        raise SystemExit(done.stdout)
    return took, done.stdout.strip()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=10)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--partitions", type=int, default=PARTITIONS)
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.child:
        sleepers(asked.jobs)
        return
    with tempfile.TemporaryDirectory(prefix="ray-path-") as temporary:
        folder = Path(temporary)
        noop, said = nothing_to_do(folder / "noop", asked.partitions)
        print(f"{asked.partitions} partitions, all built: {noop:.1f} s ({said})", flush=True)
        local = timed_sleepers(make_project(folder / "local"), asked.jobs, asked.seconds, {})
        print(f"local: {statistics.mean(local):.1f} s a job, the last after {max(local):.1f} s", flush=True)
        with ray_cluster({"PYTHONPATH": str(ROOT)}, cpus=1, memory_gib=8) as nodes:
            time.sleep(5)  # until the second node has joined
            ray = timed_sleepers(make_project(folder / "ray"), asked.jobs, asked.seconds, nodes.environment)
        print(f"Ray: {statistics.mean(ray):.1f} s a job, the last after {max(ray):.1f} s", flush=True)
    over = statistics.mean(ray) - statistics.mean(local)
    load = os.getloadavg()[2]
    text = f"""# The way over a Ray cluster

`python -m benchmarks.ray_path` on {machine()}; two nodes on this host; load over the last fifteen minutes {load:.1f}
(other work on the machine is in every figure).

{asked.jobs} runs of Dagster at once, each with a script that sleeps {asked.seconds:g} s and holds 0.1 processor:

| path | a job lasts, mean | longest | over the {asked.seconds:g} s, mean |
|---|---:|---:|---:|
| this machine, a process each | {statistics.mean(local):.1f} s | {max(local):.1f} s | {statistics.mean(local) - asked.seconds:.1f} s |
| Ray: run and script as jobs | {statistics.mean(ray):.1f} s | {max(ray):.1f} s | {statistics.mean(ray) - asked.seconds:.1f} s |

Overhead of the Ray path over local: **{over:.1f} s per job** (aimed at: under {GOAL_JOB:g} s).

`foundry backfill` of {asked.partitions} partitions × {len(OF_A_RUN)} stages, all built (small payloads made by hand): **{noop:.1f} s** for the
whole command (aimed at: under {GOAL_NOOP:g} s). It starts no run: what is there is found by its inputs.
"""
    path = ROOT / "benchmarks" / "results" / "ray-path.md"
    path.write_text(text, encoding="utf-8")
    print(f"written: {path}")


if __name__ == "__main__":
    main()
