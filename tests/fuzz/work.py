"""One target in a process of its own: `python -m tests.fuzz.work TARGET SECONDS SEED FOLDER`.

Before each input is tried it is written to FOLDER/input, so that what ends the process is known; findings, counts and the
most memory go to FOLDER/result.json.
"""

from __future__ import annotations

import json
import resource
import signal
import sys
import time
import traceback
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, Phase, given, seed, settings

from tests.fuzz.mutation import inputs
from tests.fuzz.targets import TARGETS

SECONDS_EACH = 10.0  # for one input, of the process's own time: two cores are shared here
MOST_MEGABYTES = 2000
_ROUND = 150  # inputs between two looks at the clock
_FINDINGS = 5


class Hang(Exception):
    """An input that took too long."""


def hang(*_: object) -> None:
    raise Hang(f"more than {SECONDS_EACH:g} s")


def main(name: str, seconds: float, number: int, folder: Path) -> None:
    resource.setrlimit(resource.RLIMIT_AS, (16 << 30, 16 << 30))  # the machine is not to be taken down with it
    target = TARGETS[name]
    held, begun = folder / "input", time.monotonic()
    told: dict[str, Any] = {"target": name, "inputs": 0, "slowest_seconds": 0.0, "findings": []}
    signal.signal(signal.SIGPROF, hang)

    def once(data: bytes) -> None:
        held.write_bytes(data)
        told["inputs"] += 1
        started = time.process_time()
        signal.setitimer(signal.ITIMER_PROF, SECONDS_EACH)
        try:
            target(data)
        finally:
            signal.setitimer(signal.ITIMER_PROF, 0)
            told["slowest_seconds"] = max(told["slowest_seconds"], round(time.process_time() - started, 3))

    while time.monotonic() - begun < seconds and len(told["findings"]) < _FINDINGS:
        number += 1
        rounds = settings(
            max_examples=_ROUND, deadline=None, database=None, suppress_health_check=list(HealthCheck),
            phases=(Phase.generate, Phase.shrink), print_blob=False,
        )  # fmt: skip
        try:
            seed(number)(rounds(given(inputs(target.samples(), target.marks))(once)))()
        except BaseException as error:
            if isinstance(error, KeyboardInterrupt):
                raise
            told["findings"].append(note(error, held.read_bytes(), folder, len(told["findings"])))
        told["megabytes"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
        told["seconds"] = round(time.monotonic() - begun, 1)
        if told["megabytes"] > MOST_MEGABYTES:
            told["findings"].append(note(MemoryError(f"{told['megabytes']} MB"), held.read_bytes(), folder, 99))
        (folder / "result.json").write_text(json.dumps(told))
        if told["megabytes"] > MOST_MEGABYTES:
            break


def note(error: BaseException, data: bytes, folder: Path, number: int) -> dict[str, str]:
    path = folder / f"finding-{number}.bin"
    path.write_bytes(data)
    where = traceback.extract_tb(error.__traceback__)[-1:] or ["?"]
    last = [f for f in traceback.extract_tb(error.__traceback__) if "foundry_pipeline" in f.filename][-1:] or where
    return {"error": f"{type(error).__name__}: {str(error)[:200]}", "at": str(last[0])[:200], "input": str(path)}


if __name__ == "__main__":
    main(sys.argv[1], float(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4]))
