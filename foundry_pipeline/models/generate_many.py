"""Several lists of requests to models on this machine, a few at once, each in a process of its own: a script.

    python -m foundry_pipeline.models.generate_many SPEC.json

    SPEC.json   {"jobs": {"base": {"model": {…}, "requests": "base.jsonl"}, "adapter": {…}}, "at_once": 2, "threads": 2,
                 "cache": …, "group_size": …, "precision": …, "work": "…"}      model and requests as in `models.generate`
    → work/result/<job>.jsonl   its replies
      work/result.json          its facts, by job

A small model is decoded by small products with waiting between them: two processes of one thread answer faster than two
threads for one list after the other. How many work at once is declared, since a large model wants the machine for
itself. The first failure ends the others.
"""

from __future__ import annotations

import shutil
import threading
import time
from collections import deque
from pathlib import Path
from typing import Any

from foundry_pipeline.launch import ScriptSession, atomic_folder, leave, read_facts, run_script, script_main
from foundry_pipeline.models.generate import RESULT

_SCRIPT = "foundry_pipeline.models.generate"
_LOOK_SECONDS = 0.1


def run(spec: dict[str, Any], session: ScriptSession) -> dict[str, Any]:
    """Answer every list; the facts of each by its name. Raises what the first that failed raised."""
    work = Path(spec["work"])
    shared = {name: spec[name] for name in ("cache", "group_size", "precision")}
    jobs: dict[str, dict[str, Any]] = spec["jobs"]
    lanes = max(1, min(int(spec["at_once"]), len(jobs)))
    shared["threads"] = max(1, int(spec["threads"]) // lanes)
    waiting = deque(jobs)
    failed: list[BaseException] = []
    done: list[str] = []

    def lane() -> None:
        while not failed:
            try:
                name = waiting.popleft()
            except IndexError:
                return
            try:
                run_script(_SCRIPT, {**shared, **jobs[name]}, work / name)
            except BaseException as error:  # handed to the thread that waits
                failed.append(error)
                return
            rate = read_facts(work / name).get("tokens_per_second")
            session.log(f"{name}: {f'{rate} tokens a second' if rate else 'answers were stored'}")
            done.append(name)
            session.progress(len(done), len(jobs))

    # Daemons: when this process is told to end it ends, and the kernel ends a script with the thread that waits for it.
    workers = [threading.Thread(target=lane, name=f"lane-{i}", daemon=True) for i in range(lanes)]
    for worker in workers:
        worker.start()
    while not failed and any(worker.is_alive() for worker in workers):
        time.sleep(_LOOK_SECONDS)
    if failed:
        raise failed[0]
    with atomic_folder(work / "result") as result:
        for name in jobs:
            shutil.copyfile(work / name / "result" / RESULT, result / f"{name}.jsonl")
    return {name: read_facts(work / name) for name in jobs}


if __name__ == "__main__":
    leave(script_main(run))
