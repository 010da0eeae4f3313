"""`python -m tests.fuzz --seconds 600`: every parser in turn, each in a process of its own; a table, and exit code 1 for any finding."""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import time
from pathlib import Path

from tests.fuzz.targets import TARGETS
from tests.fuzz.work import MOST_MEGABYTES, SECONDS_EACH

ROOT = Path(__file__).resolve().parents[2]
_GRACE = 90.0  # seconds beyond its share, after which a process that no signal reaches is ended


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=600.0, help="in all")
    parser.add_argument("--seed", type=int, default=int(time.time()), help="the same one tries the same inputs")
    parser.add_argument("--only", default="", help="targets whose name holds this")
    parser.add_argument("--out", type=Path, default=ROOT / ".foundry" / "fuzz", help="inputs that were findings")
    parser.add_argument("--results", type=Path, help="write the table as JSON, too")
    asked = parser.parse_args()
    names = [name for name in TARGETS if asked.only in name]
    if not names:
        parser.error(f"no target's name holds {asked.only!r}; there are: {', '.join(TARGETS)}")
    share, rows = asked.seconds / len(names), []
    print(f"{len(names)} parsers, {share:.0f} s each, seed {asked.seed}", flush=True)
    for name in names:
        row = one(name, share, asked.seed, asked.out / name.replace(" ", "_").replace(":", "").replace("/", "_"))
        rows.append(row)
        print(f"{name:<28}{row['inputs']:>8,} inputs {row['slowest_seconds']:>7.2f} s slowest {row['megabytes']:>5} MB  "
              f"{len(row['findings'])} findings", flush=True)  # fmt: skip
        for finding in row["findings"]:
            print(f"    {finding['error']}\n    {finding['at']}\n    {finding['input']}", flush=True)
    found = sum(len(row["findings"]) for row in rows)
    print(f"{sum(r['inputs'] for r in rows):,} inputs, {found} findings (an error nobody handles, an input of more than "
          f"{SECONDS_EACH:g} s, memory above {MOST_MEGABYTES} MB)")  # fmt: skip
    if asked.results:
        about = {
            "machine": platform.processor() or platform.machine(),
            "python": platform.python_version(),
            "cores": os.cpu_count(),
        }
        asked.results.write_text(
            json.dumps({"seed": asked.seed, "seconds": asked.seconds, **about, "rows": rows}, indent=1) + "\n"
        )
    return 1 if found else 0


def one(name: str, seconds: float, seed: int, folder: Path) -> dict:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    command = [sys.executable, "-m", "tests.fuzz.work", name, str(seconds), str(seed), str(folder)]
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
        try:
            code = process.wait(seconds + _GRACE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            code = "no answer"
        except BaseException:
            process.kill()
            raise
    held = folder / "result.json"
    row = {"target": name, "inputs": 0, "slowest_seconds": 0.0, "megabytes": 0, "findings": []}
    row |= json.loads(held.read_text()) if held.is_file() else {}
    if code != 0:
        last = ((folder / "log").read_text(errors="replace").strip().splitlines() or [""])[-1]
        row["findings"].append(
            {"error": f"the process ended with {code}", "at": last[:200], "input": str(folder / "input")}
        )
    return row


if __name__ == "__main__":
    sys.exit(main())
