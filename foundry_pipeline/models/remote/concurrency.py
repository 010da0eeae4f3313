"""Several requests under way at once, and an orderly end of them, whatever ends them.

    pool = Pool(asker, workers=8)
    pool.run(jobs, arrived=…)         # one call of `arrived` for each answer, in the order they come in

Ends early when more than half of the last WINDOW requests failed for good, at the budget's cap, at something that would
fail every request alike, and at a signal: what is under way is awaited, stored and paid for, nothing new is sent.
"""

from __future__ import annotations

import queue
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence

from foundry_pipeline.errors import FoundryError
from foundry_pipeline.models.money.claims import Elsewhere
from foundry_pipeline.models.remote.attempts import Asker, Job, Stopped
from foundry_pipeline.models.remote.failures import AttemptFailed, Failure
from foundry_pipeline.models.requests import Reply

WINDOW = 20
_LINGER_SECONDS = 8.0  # a stopped script is killed ten seconds after it was asked to end
_LISTED = 5


class RequestsFailed(FoundryError):
    """Requests that got no answer; all others are stored, and the same command asks for these only."""


def requests_failed(
    failed: Sequence[tuple[str, Failure]], *, title: str, answered: int, asked: int, early: bool
) -> RequestsFailed:
    """One error for all failed requests: counts by kind, the first few by name, and what mends it."""
    kinds = Counter(failure.kind for _, failure in failed)
    # Not in the order of arrival, so that the same failures make the same message.
    counts = ", ".join(f"{count} × {kind}" for kind, count in sorted(kinds.items(), key=lambda k: (-k[1], k[0])))
    shown = "".join(f"\n    {name}: {failure.told()}" for name, failure in failed[:_LISTED])
    more = f"\n    … and {len(failed) - _LISTED} more" if len(failed) > _LISTED else ""
    how = f"stopped early, since more than half of the last {WINDOW} requests failed: " if early else ""
    rest = asked - answered - len(failed)
    unasked = f", {rest} were not asked" if rest > 0 else ""
    mends = list(dict.fromkeys(failure.mend for _, failure in failed if failure.mend))
    return RequestsFailed(
        f"{how}{len(failed)} requests got no answer ({counts}){unasked}; {answered} answers are stored{shown}{more}",
        where=title,
        mend="; ".join(
            [*mends, "run the same command again: it asks for what is still unanswered, and for nothing else"]
        ),
    )


class Pool:
    """Threads that take jobs in their order. `failed` holds (request id, failure) of those given up, `elsewhere`
    jobs that another process is asking for."""

    def __init__(self, asker: Asker, *, workers: int) -> None:
        self._asker, self._line, self._workers = asker, asker.line, workers
        self.failed: list[tuple[str, Failure]] = []
        self.elsewhere: list[Job] = []
        self.early = False

    def run(self, jobs: Sequence[Job], arrived: Callable[[Reply], None]) -> None:
        """Ask for all jobs. Raises what ended the run (RunEnded, BudgetReached, a signal) once nothing is under way."""
        waiting: queue.SimpleQueue[Job] = queue.SimpleQueue()
        for job in jobs:
            waiting.put(job)
        done: queue.SimpleQueue[tuple[Job, Reply | BaseException]] = queue.SimpleQueue()
        # Daemons, so that a worker in the middle of a long answer cannot hold a process that was told to end.
        threads = [
            threading.Thread(target=self._work, args=(waiting, done), name=f"ask-{i}", daemon=True)
            for i in range(min(self._workers, len(jobs)))
        ]
        for thread in threads:
            thread.start()
        ended: BaseException | None = None
        lately: deque[bool] = deque(maxlen=WINDOW)
        try:
            while any(thread.is_alive() for thread in threads) or not done.empty():
                try:
                    job, outcome = done.get(timeout=0.2)
                except queue.Empty:
                    continue
                if isinstance(outcome, Reply):
                    lately.append(True)
                    arrived(outcome)
                elif isinstance(outcome, Elsewhere):
                    self.elsewhere.append(job)
                elif isinstance(outcome, AttemptFailed):
                    lately.append(False)
                    self.failed.append((job.request.request_id, outcome.failure))
                    if len(lately) == WINDOW and lately.count(False) * 2 > WINDOW and not self._line.stopped.is_set():
                        self.early = True
                        self._line.stopped.set()
                elif not isinstance(outcome, Stopped):
                    ended = ended or outcome
                    self._line.stopped.set()
        except BaseException:
            self._line.stopped.set()
            until = time.monotonic() + _LINGER_SECONDS
            for thread in threads:
                thread.join(timeout=max(0.0, until - time.monotonic()))
            raise
        if ended is not None:
            raise ended

    def _work(
        self, waiting: queue.SimpleQueue[Job], done: queue.SimpleQueue[tuple[Job, Reply | BaseException]]
    ) -> None:
        while not self._line.stopped.is_set():
            try:
                job = waiting.get_nowait()
            except queue.Empty:
                return
            try:
                done.put((job, self._asker.answer(job)))
            except BaseException as error:
                done.put((job, error))
