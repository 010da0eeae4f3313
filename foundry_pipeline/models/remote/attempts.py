"""One request until it has an answer: reserve, send, store, settle, and ask again where that may help.

The order is what makes a kill harmless at any moment. The request is claimed, so that no other process asks for it
meanwhile; money is reserved before anything is sent; the answer is on disk before its price is booked and the claim is
dropped; a row whose answer is stored but not booked is settled by the next start (`reconcile`).
"""

from __future__ import annotations

import contextlib
import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from foundry_pipeline.errors import FoundryError
from foundry_pipeline.models.cache import ResponseCache
from foundry_pipeline.models.money.claims import Elsewhere
from foundry_pipeline.models.money.ledger import Ask, Book, BudgetReached
from foundry_pipeline.models.money.prices import FREE, Rate, token_bound
from foundry_pipeline.models.remote.client import Answer, RemoteClient
from foundry_pipeline.models.remote.failures import AttemptFailed, Failure, RunEnded
from foundry_pipeline.models.remote.retry import pause
from foundry_pipeline.models.requests import ChatRequest, ModelRef, Reply

NO_USAGE = "no usage told: counted at the reservation"


@dataclass(frozen=True)
class Job:
    """A request that is to be asked: its body, and the key its answer is kept under."""

    request: ChatRequest
    key: str
    body: dict[str, Any]


class Stopped(Exception):
    """The run is coming to its end; this request was not asked (again)."""


class Line:
    """What the workers of one run share: who is under way, since when nobody may send, and that it is over."""

    def __init__(self) -> None:
        self.stopped = threading.Event()
        self._changed = threading.Condition()
        self._under_way = 0
        self._not_before = 0.0

    def enter(self, reserve: Callable[[], str]) -> str:
        """Reserve, and be under way. Where the budget has no room now but other requests may yet leave some, wait."""
        with self._changed:
            while True:
                if self.stopped.is_set():
                    raise Stopped
                try:
                    entry = reserve()
                except BudgetReached:
                    if self._under_way == 0:
                        raise
                    self._changed.wait(timeout=1.0)
                    continue
                self._under_way += 1
                return entry

    def leave(self) -> None:
        with self._changed:
            self._under_way -= 1
            self._changed.notify_all()

    def hold(self, seconds: float) -> None:
        """Nobody sends for so long: the server asked one of them to wait, and counts them all."""
        with self._changed:
            self._not_before = max(self._not_before, time.monotonic() + seconds)

    def wait(self, seconds: float = 0.0) -> None:
        """Sleep, and as long as the server asked for. Raises Stopped when the run ends meanwhile."""
        until = time.monotonic() + seconds
        while (left := max(until, self._not_before) - time.monotonic()) > 0:
            if self.stopped.wait(left):
                raise Stopped
        if self.stopped.is_set():
            raise Stopped


class Asker:
    """Asks one model's server for answers, one request at a time per thread, and keeps the books."""

    def __init__(
        self,
        model: ModelRef,
        client: RemoteClient,
        *,
        cache: ResponseCache,
        book: Book,
        rate: Rate,
        line: Line,
        log: Callable[[str], None],
    ) -> None:
        remote = model.remote or {}
        self.model, self.client, self.cache, self.book, self.rate, self.line = model, client, cache, book, rate, line
        self._attempts = int(remote.get("attempts", 6))
        self._longest = float(remote.get("max_wait_seconds", 90.0))
        self._counts = bool(remote.get("count_tokens", False))
        self._log = log
        self._noise = random.Random()
        # How long a request that is paid for may be under way; for a free server nobody need wait.
        self.seconds = 0.0 if rate == FREE else float(remote.get("timeout_seconds", 300.0)) + 5.0
        self.retries = 0
        self.others: set[str] = set()  # requests that another process has answered while this one was at work

    def answer(self, job: Job) -> Reply:
        """The stored reply to a request. Raises AttemptFailed, RunEnded, BudgetReached, Stopped, or Elsewhere."""
        if self.line.stopped.is_set():
            raise Stopped
        if held := self.book.claims.take([job.key], seconds=self.seconds):
            raise Elsewhere(held[0])
        try:
            # Whoever held the claim before has stored its answer first.
            stored = self.cache.get(job.key)
            if stored is not None:
                self.others.add(job.key)
                return stored
            return self._answer(job)
        finally:
            # What cannot be dropped now is dropped at the end of the job, or lapses with this process.
            with contextlib.suppress(FoundryError):
                self.book.claims.drop([job.key])

    def _answer(self, job: Job) -> Reply:
        ask = self.ask_of(job, self.rate)
        for attempt in range(1, self._attempts + 1):
            self.line.wait()
            entry = self.line.enter(lambda: self.book.reserve(ask))
            try:
                return self._once(job, entry)
            except AttemptFailed as error:
                failure = error.failure
                self.close(entry, failure)
            finally:
                self.line.leave()
            self.end_run(failure)
            if failure.deserves == "request" or attempt == self._attempts:
                raise AttemptFailed(failure)
            self.rest(failure, attempt)
        raise AssertionError("no attempt was made")

    def ask_of(self, job: Job, rate: Rate) -> Ask:
        """What a request can cost at most, at a rate. Raises AttemptFailed for one longer than the rate holds for."""
        cached = any(mark for _, mark in job.request.system)
        prompt = self._prompt_bound(job)
        if rate.longest is not None and prompt > rate.longest:
            raise AttemptFailed(
                Failure(
                    "no price",
                    f"the prompt may have {prompt} tokens; the price table knows prices up to {rate.longest}",
                    "request",
                    mend="shorten the prompt, or declare `count_tokens: true`, which bounds its length more closely",
                )
            )
        amount = rate.bound(prompt_tokens=prompt, answer_tokens=job.request.max_tokens, cached=cached)
        return Ask(job.key, amount, self.model.backend, self.model.path, rate.since, self.seconds)

    def _prompt_bound(self, job: Job) -> int:
        bound = token_bound(job.request)
        if not self._counts or self.rate.input == 0:
            return bound
        try:
            counted = self.client.count_tokens(job.body)
        except AttemptFailed as error:
            self.end_run(error.failure)
            return bound
        # The provider calls its count an estimate that may be off by a little.
        return bound if counted is None else min(bound, counted + counted // 20 + 256)

    def _once(self, job: Job, entry: str) -> Reply:
        began = time.monotonic()
        answer = self.client.ask(job.body)
        seconds = round(time.monotonic() - began, 3)
        return self.keep(answer, entry, self.rate, key=job.key, request_id=job.request.request_id, seconds=seconds)

    def keep(
        self, answer: Answer, entry: str, rate: Rate, *, key: str, request_id: str, seconds: float | None = None
    ) -> Reply:
        """Store an answer, then book its price. An answer without usage has none, unless the server is free."""
        if answer.usage is not None:
            cost: int | None = rate.cost(answer.usage)
        else:
            cost = 0 if rate == FREE else None
        reply = answer.reply(request_id, key, cost=cost, seconds=seconds)
        try:
            self.cache.put(reply)
        finally:
            # Booked also where the disk took the answer no more: it has been paid for.
            self.book.settle(entry, cost=cost, usage=answer.usage, note="" if cost is not None else NO_USAGE)
        return reply

    def close(self, entry: str, failure: Failure) -> None:
        """Book a failed attempt: an error status is not charged for, an answer lost on the way may have been."""
        if failure.billed:
            self.book.doubt(entry, failure.kind)
        else:
            self.book.release(entry, failure.kind)

    def end_run(self, failure: Failure) -> None:
        """Raise RunEnded for what would meet every other request as well."""
        if failure.deserves == "run":
            raise RunEnded(f"{self.model.title} refuses: {failure.told()}", where=self.model.path, mend=failure.mend)
        if failure.wait is not None and failure.wait > self._longest:
            raise RunEnded(
                f"{self.model.title} asks to wait {failure.wait:.0f} s ({failure.told()}); "
                f"the declaration allows {self._longest:.0f} s. Every answer that arrived is stored",
                where=self.model.path,
                mend=f"run the same command again in {failure.wait:.0f} s, or raise `max_wait_seconds`",
            )

    def rest(self, failure: Failure, attempt: int) -> None:
        """Sleep before the next attempt; all workers do where the server said for how long."""
        self.retries += 1
        seconds = pause(attempt=attempt, wait=failure.wait, random=self._noise.random())
        if failure.wait is not None:
            self.line.hold(seconds)
        self.line.wait(seconds)
