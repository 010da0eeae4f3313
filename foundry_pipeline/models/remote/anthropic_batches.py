"""Claude through Message Batches: half the price, within a day, and never paid twice.

    BatchRun(asker, pool, rate=batch_rate, log=log).run(jobs, arrived)

What a kill could lose is on disk before it can be lost: that a batch is about to be made, with the money reserved for
each of its requests; then its id; then, one by one, its results. A repeated command waits for the same batch. Where the
kill came between the making and the id, the server's list of batches is searched for the one that holds our requests.

Requests are known by `custom_id`, which is their key in the response cache: results come in any order, some twice, some
never. What errored, expired, was canceled or is missing is asked again in a further batch. Where system blocks are
worth caching, one request is asked alone before each batch: requests of a cold batch do not share a prompt cache.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from foundry_pipeline.models.money.batches import BatchBook, OpenBatch
from foundry_pipeline.models.money.prices import Rate
from foundry_pipeline.models.remote.anthropic_messages import ClaudeClient, read_message
from foundry_pipeline.models.remote.attempts import Asker, Job
from foundry_pipeline.models.remote.batch_wire import BatchWire
from foundry_pipeline.models.remote.client import Answer
from foundry_pipeline.models.remote.concurrency import WINDOW, Pool
from foundry_pipeline.models.remote.failures import AttemptFailed, Failure, RunEnded, malformed, of_status, shown
from foundry_pipeline.models.remote.service import service_name
from foundry_pipeline.models.requests import Reply

_ID = 64  # longest custom_id that the interface takes
_STATUS = {
    "invalid_request_error": 400,
    "authentication_error": 401,
    "billing_error": 402,
    "permission_error": 403,
    "not_found_error": 404,
    "request_too_large": 413,
    "rate_limit_error": 429,
    "overloaded_error": 529,
}


def custom_id(key: str) -> str:
    """A request's name in a batch: its key in the response cache, as far as it fits."""
    return key[:_ID]


class BatchRun:
    """All of one job's requests through as few batches as they need."""

    def __init__(self, asker: Asker, pool: Pool, *, rate: Rate, log: Callable[[str], None]) -> None:
        assert isinstance(asker.client, ClaudeClient)
        remote = asker.model.remote or {}
        self._asker, self._pool, self._rate, self._log = asker, pool, rate, log
        self._wire = BatchWire(asker, asker.client)
        self._book = BatchBook(asker.book, service=service_name(asker.model) or "anthropic")
        self._size = int(remote.get("batch_size", 1000))
        self._rounds = int(remote.get("attempts", 6))
        self._poll = float(remote.get("poll_seconds", 20.0))

    def resume(self, jobs: Sequence[Job], arrived: Callable[[Reply], None]) -> list[Job]:
        """Take the results of batches that earlier processes left behind; the jobs that are still unanswered.

        A batch that holds none of the jobs is not waited for: it is taken where it has ended.
        """
        waiting = {custom_id(job.key): job for job in jobs}
        with self._told():
            for batch in self._book.open():
                self._resume(batch, waiting, arrived)
        return list(waiting.values())

    def run(self, jobs: Sequence[Job], arrived: Callable[[Reply], None]) -> None:
        """Ask for all jobs. What failed for good is in the pool's `failed`; raises BudgetReached, RunEnded."""
        with self._told():
            self._run({custom_id(job.key): job for job in jobs}, arrived)

    @contextlib.contextmanager
    def _told(self) -> Iterator[None]:
        """Tell a failure of the batch interface itself as the end of the run: the batch is resumed by the next one."""
        try:
            yield
        except AttemptFailed as error:
            raise RunEnded(
                f"the batch interface fails: {error.failure.told()}; batches that were made are known by their ids",
                where=self._asker.model.title,
                mend=error.failure.mend or "run the same command again: it goes on with the batches that were made",
            ) from error

    def _run(self, waiting: dict[str, Job], arrived: Callable[[Reply], None]) -> None:
        names = {name: job.request.request_id for name, job in waiting.items()}
        tried: Counter[str] = Counter()
        while waiting:
            part = list(waiting.values())[: self._size]
            part = self._warm(part, waiting, arrived)
            if not part:
                continue
            failures = self._batch(part, waiting, arrived)
            for name, failure in failures.items():
                tried[name] += 1
                if failure.deserves == "request" or tried[name] >= self._rounds:
                    job = waiting.pop(name)
                    self._pool.failed.append((job.request.request_id, failure))
            if len(part) >= WINDOW and len(failures) * 2 > len(part):
                self._pool.failed += [(names[name], failures[name]) for name in failures if name in waiting]
                self._pool.early = True
                return

    def _warm(self, part: list[Job], waiting: dict[str, Job], arrived: Callable[[Reply], None]) -> list[Job]:
        """Ask one request alone, so that those of the batch find their common beginning in the provider's cache."""
        shared = Counter(first_cached(job) for job in part)
        begin = max(shared, key=lambda prefix: (bool(prefix), shared[prefix]))
        if not begin or shared[begin] < 2:
            return part
        first = next(job for job in part if first_cached(job) == begin)
        before = len(self._pool.failed)
        self._pool.run([first], arrived)
        del waiting[custom_id(first.key)]
        # One that failed for good is listed as such, and the batch goes on without its warmth.
        if len(self._pool.failed) > before:
            self._log("the request that was to warm the prompt cache failed")
        return [job for job in part if job is not first]

    def _batch(self, part: list[Job], waiting: dict[str, Job], arrived: Callable[[Reply], None]) -> dict[str, Failure]:
        """One batch from its reservation to its last result; failures by custom_id."""
        asks, priced, failures = [], [], {}
        for job in part:
            try:
                asks.append(self._asker.ask_of(job, self._rate))
                priced.append(job)
            except AttemptFailed as error:
                failures[custom_id(job.key)] = error.failure
        priced = self._ours(priced, waiting, arrived)
        ours = {job.key for job in priced}
        asks = [ask for ask in asks if ask.request_hash in ours]
        if not asks:
            return failures
        batch = self._book.prepare(asks)
        held = [job for job in priced if job.key in batch.entries]
        sent = [{"custom_id": custom_id(job.key), "params": job.body} for job in held]
        identifier = self._wire.create(sent, lambda: self._adopt(batch, waiting, arrived), self._book, batch)
        if identifier is None:
            return failures  # adopted, and collected already
        self._book.created(batch, identifier)
        self._log(f"batch {identifier}: {len(held)} requests")
        return failures | self._collect(batch, identifier, waiting, arrived)

    def _ours(self, jobs: list[Job], waiting: dict[str, Job], arrived: Callable[[Reply], None]) -> list[Job]:
        """Those of the jobs that no other process asks for, or has answered meanwhile."""
        claims = self._asker.book.claims
        keys = [job.key for job in jobs]
        away = {holder.request_hash for holder in claims.take(keys, seconds=self._asker.seconds)}
        stored = self._asker.cache.find([key for key in keys if key not in away])
        for job in jobs:
            if job.key in away:
                self._pool.elsewhere.append(waiting.pop(custom_id(job.key)))
            elif job.key in stored:
                self._asker.others.add(job.key)
                del waiting[custom_id(job.key)]
                arrived(stored[job.key])
        claims.drop(list(stored))
        return [job for job in jobs if job.key not in away and job.key not in stored]

    def _resume(self, batch: OpenBatch, waiting: dict[str, Job], arrived: Callable[[Reply], None]) -> None:
        """Go on with a batch that an earlier process left behind."""
        if not batch.entries:
            self._book.lost(batch, billed=False)
            return
        if not batch.provider_id:
            self._log("a batch was being made when its process ended; looking for it")
            if not self._adopt(batch, waiting, arrived):
                self._book.lost(batch, billed=False)
            return
        wanted = any(custom_id(key) in waiting for key in batch.entries)
        try:
            if not wanted and not self._wire.ended(batch.provider_id):
                return
            self._log(f"batch {batch.provider_id} of an earlier process: its results are taken")
            self._collect(batch, batch.provider_id, waiting, arrived)
        except AttemptFailed as error:
            if not error.failure.kind.startswith("404"):
                raise
            self._log(f"batch {batch.provider_id} cannot be had any more ({error.failure.told()})")
            self._book.lost(batch, billed=True)

    def _adopt(self, batch: OpenBatch, waiting: dict[str, Job], arrived: Callable[[Reply], None]) -> bool:
        """Whether a batch whose id was never heard is among the server's; if so it is collected."""
        for identifier in self._wire.candidates(batch, self._book.provider_ids()):
            self._wait(identifier)
            names = {str(line.get("custom_id")) for line in self._wire.results(identifier)}
            if names & {custom_id(key) for key in batch.entries}:
                self._book.created(batch, identifier)
                self._log(f"batch {identifier} holds these requests: its results are taken")
                self._collect(batch, identifier, waiting, arrived)
                return True
        return False

    def _wait(self, identifier: str) -> None:
        """Until the batch has ended."""
        while not self._wire.ended(identifier):
            self._asker.line.wait(self._poll)

    def _collect(
        self, batch: OpenBatch, identifier: str, waiting: dict[str, Job], arrived: Callable[[Reply], None]
    ) -> dict[str, Failure]:
        """Wait, then store each result as it comes; failures by custom_id, missing results among them.

        Answers to requests that nobody asks for now are stored like the others: they have been paid.
        """
        self._wait(identifier)
        failures: dict[str, Failure] = {}
        heard: set[str] = set()
        counts: Counter[str] = Counter()
        keys = {custom_id(key): key for key in batch.entries}
        for line in self._wire.results(identifier):
            name = line.get("custom_id")
            if not isinstance(name, str) or name not in keys:
                counts["of no request"] += 1
                continue
            if name in heard:
                counts["twice"] += 1
                continue
            heard.add(name)
            entry, job = batch.entries[keys[name]], waiting.get(name)
            try:
                answer = read_result(line.get("result"))
            except AttemptFailed as error:
                failures[name] = error.failure
                self._asker.close(entry, error.failure)
                continue
            asked = job.request.request_id if job else ""
            reply = self._asker.keep(answer, entry, self._rate, key=keys[name], request_id=asked)
            if job is not None:
                del waiting[name]
                arrived(reply)
        for name in sorted(keys.keys() - heard):
            failures[name] = malformed("no result for this request in its batch", kind="missing result")
            self._asker.close(batch.entries[keys[name]], failures[name])
        self._book.collected(batch)
        if counts:
            self._log(f"batch {identifier}: results passed over: {', '.join(f'{n} {k}' for k, n in counts.items())}")
        return {name: failure for name, failure in failures.items() if name in waiting}


def first_cached(job: Job) -> str:
    """The beginning that a request shares with others in the provider's cache: up to its first marked block."""
    texts: list[str] = []
    for text, cached in job.request.system:
        texts.append(text)
        if cached:
            return "\0".join(texts)
    return ""


def read_result(result: Any) -> Answer:
    """The answer in one line of results. Raises AttemptFailed for one that errored, expired or was canceled."""
    kind = result.get("type") if isinstance(result, dict) else None
    if kind == "succeeded" and isinstance(result.get("message"), dict):
        return read_message(result["message"])
    if kind == "errored":
        error: Any = result.get("error")
        inner: Any = error.get("error") if isinstance(error, dict) else None
        inner = inner if isinstance(inner, dict) else {}
        status = _STATUS.get(str(inner.get("type")), 500)
        failure = of_status(status, str(inner.get("message") or "no reason given"), provider="anthropic")
        raise AttemptFailed(failure)
    if kind in ("expired", "canceled"):
        raise AttemptFailed(Failure(f"batch {kind}", "not processed by the provider", "retry"))
    raise AttemptFailed(malformed(f"a result of the kind {shown(str(kind))!r}"))
