"""Requests that another process, perhaps on another machine, is asking for: its answers are waited for, not asked again.

    await_others(pool, asker, ask=…, resume=…, arrived=…, log=…)

Each is either answered there, and found in the response cache; or it is given up there, or its process ends, and then
it is asked for here. A batch whose process has ended is taken over by its id.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence

from foundry_pipeline.models.money.claims import Holder
from foundry_pipeline.models.remote.attempts import Asker, Job
from foundry_pipeline.models.remote.concurrency import Pool
from foundry_pipeline.models.requests import Reply

LOOK_SECONDS = 0.5
_TELL_SECONDS = 30.0


def await_others(
    pool: Pool,
    asker: Asker,
    *,
    ask: Callable[[Sequence[Job]], None],
    resume: Callable[[Sequence[Job]], list[Job]],
    arrived: Callable[[Reply], None],
    log: Callable[[str], None],
) -> None:
    """Until `pool.elsewhere` is empty. `ask` asks for jobs, `resume` takes batches of ended processes over.

    Raises what `ask` raises. Ends as it is where the pool has given up early.
    """
    told = -_TELL_SECONDS
    while pool.elsewhere and not pool.early:
        jobs, pool.elsewhere = {job.key: job for job in pool.elsewhere}, []
        # Claims first: one that is dropped after this look has left its answer, which the next look finds.
        held = {holder.request_hash: holder for holder in asker.book.claims.held(list(jobs))}
        for key, reply in asker.cache.find(list(jobs)).items():
            asker.others.add(key)
            del jobs[key]
            arrived(reply)
        free = [job for key, job in jobs.items() if key not in held]
        rest = [job for key, job in jobs.items() if key in held]
        if any(held[job.key].batch and not held[job.key].at_work for job in rest):
            rest = resume(rest)
        pool.elsewhere = rest
        if free:
            ask(free)
        elif rest:
            if time.monotonic() - told >= _TELL_SECONDS:
                log(_told([held[job.key] for job in rest]))
                told = time.monotonic()
            time.sleep(LOOK_SECONDS)


def _told(holders: Sequence[Holder]) -> str:
    by = Counter(_name(holder.process) for holder in holders)
    who = ", ".join(f"{count} by {name}" for name, count in by.most_common(3))
    silent = sum(not holder.at_work for holder in holders)
    more = f"; {silent} of a process that is not heard of, asked again when its time is over" if silent else ""
    return f"waiting for {len(holders)} answers that others are asking for ({who}){more}"


def _name(mark: str) -> str:
    node, pid, _ = mark.rsplit(":", 2)
    return f"process {pid} on {node.split('/')[0]}"
