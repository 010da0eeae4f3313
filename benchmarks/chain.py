"""How long the chain takes, stage by stage, and what a command costs over its own work: `make bench`.

Reads the durations that the stages recorded when they were built, then measures on this machine, now: importing the
definitions (beside importing Dagster alone), repeating the whole chain with nothing changed, and launching one asset.
Writes `benchmarks/results/chain-<profile>.md`.
"""

from __future__ import annotations

import os
import platform
import statistics
import subprocess
import sys
import time
from pathlib import Path

from foundry_pipeline.chain.graph import load_chain
from foundry_pipeline.settings import load_settings

TARGET = "madison_r2_eval"
REPEATS = 3


def timed(*command: str) -> float:
    """Median seconds of a command over REPEATS runs; raises CalledProcessError when it fails."""
    seconds = []
    for _ in range(REPEATS):
        started = time.perf_counter()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        seconds.append(time.perf_counter() - started)
    return statistics.median(seconds)


def machine() -> str:
    """Processor, cores and memory of this machine."""
    info = Path("/proc/cpuinfo").read_text().splitlines()
    name = next((x.split(":", 1)[1].strip() for x in info if x.startswith("model name")), platform.processor())
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return f"{name}, {os.cpu_count()} cores, {memory:.0f} GiB, {platform.system()}, Python {platform.python_version()}"


def main() -> None:
    settings = load_settings()
    _, chain = load_chain(settings)
    memo: dict = {}
    built = {name: r.record for name in chain.stages if (r := chain.resolve(name, memo)).record is not None}
    needed, queue = [], [TARGET]
    while queue:
        name = queue.pop()
        if name not in needed:
            needed.append(name)
            queue += chain.stages[name].inputs
    lines = [f"# The chain under the profile `{settings.profile}`", "", f"Machine: {machine()}", ""]
    lines += ["| stage | seconds |", "|---|---:|"]
    total = 0.0
    for name in chain.stages:
        if name in needed and name in built:
            seconds = float(built[name].facts["build_seconds"])
            total += seconds
            lines.append(f"| {name} | {seconds:.1f} |")
    lines += [f"| **sum** | **{total:.1f}** |", ""]
    python, dagster = sys.executable, str(Path(sys.executable).with_name("dagster"))
    plain = timed(python, "-c", "import dagster")
    ours = timed(python, "-c", "import foundry_pipeline.definitions")
    whole = timed(dagster, "asset", "materialize", "--select", f"*{TARGET}")
    alone = timed(dagster, "asset", "materialize", "--select", "madison_passages")
    lines += [
        f"Measured now, median of {REPEATS}:",
        "",
        "| what | seconds | beside |",
        "|---|---:|---|",
        f"| importing the definitions | {ours:.1f} | {ours / plain:.2f}× importing Dagster alone ({plain:.1f} s) |",
        f"| the whole chain, nothing changed | {whole:.1f} | {total / whole:.0f}× faster than building it |",
        f"| one asset alone, nothing to do | {alone:.1f} | {alone - plain:.1f} s over importing Dagster |",
        "",
    ]
    path = settings.root / "benchmarks" / "results" / f"chain-{settings.profile}.md"
    path.write_text("\n".join(lines), encoding="utf-8")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
