"""Answers of a remote model to a list of requests, through the response cache: what is stored is never asked again.

    replies = answer_all(model, requests, cache=…, spending=…, run="…", progress=…, facts=facts)

Each answer is stored the moment it arrives, under the hash of its own request; nothing depends on the order in which
they come. Ends with every reply, or with one error that says what is missing and why.
"""

from __future__ import annotations

import datetime as dt
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from foundry_pipeline.errors import FoundryError
from foundry_pipeline.models.cache import ResponseCache
from foundry_pipeline.models.money.ledger import reconcile
from foundry_pipeline.models.money.prices import FREE, PICO, Usage, short_usd, usd
from foundry_pipeline.models.money.spending import Spending
from foundry_pipeline.models.remote.attempts import Asker, Job, Line
from foundry_pipeline.models.remote.client import body_of, client_of, environment, request_identity, request_key
from foundry_pipeline.models.remote.concurrency import Pool, requests_failed
from foundry_pipeline.models.remote.waiting import await_others
from foundry_pipeline.models.requests import ChatRequest, ModelRef, Reply


def answer_all(
    model: ModelRef,
    requests: Sequence[ChatRequest],
    *,
    cache: ResponseCache,
    spending: Spending,
    run: str,
    progress: Callable[..., None],
    log: Callable[[str], None] = lambda text: None,
    facts: dict[str, Any] | None = None,
) -> list[Reply]:
    """Replies in the order of the requests.

    Raises FoundryError: RequestsFailed where some got no answer, BudgetReached at a cap, RunEnded where no request can
    succeed (a refused key, an unknown model), UnknownPrice before anything is sent.
    """
    started = time.monotonic()
    keys = [request_key(model, request) for request in requests]
    stored = cache.find(sorted(set(keys)))
    jobs = {
        key: Job(request, key, body_of(model, request))
        for key, request in reversed(list(zip(keys, requests, strict=True)))
        if key not in stored
    }
    waiting = [jobs[key] for key in dict.fromkeys(keys) if key in jobs]
    reused = sum(key in stored for key in keys)
    _close_left_open(spending, cache, log)
    fresh: dict[str, Reply] = {}
    retries = elsewhere = 0
    servers: dict[str, Any] = {}
    if waiting:
        fresh, retries, elsewhere, servers = _ask(
            model,
            waiting,
            cache=cache,
            spending=spending,
            run=run,
            log=log,
            progress=lambda count, **metrics: progress(
                min(len(requests), reused + count), len(requests), from_cache=reused, **metrics
            ),
        )
        # Of those that asked for the same answers some may have been killed meanwhile.
        _close_left_open(spending, cache, log)
    found = cache.find(sorted(set(keys)))
    if lost := [r.request_id for key, r in zip(keys, requests, strict=True) if key not in found]:
        raise FoundryError(
            f"{len(lost)} answers are not in the response cache",
            where=cache.where,
            mend="run the same command again",
        )
    replies = [
        replace(found[key], request_id=request.request_id, request_hash=request_identity(model, request))
        for key, request in zip(keys, requests, strict=True)
    ]
    progress(len(requests), len(requests), from_cache=reused)
    if facts is not None:
        own = [found[key] for key in dict.fromkeys(keys)]
        paid = sum(reply.cost or 0 for reply in fresh.values())
        seconds = time.monotonic() - started
        facts |= {
            "requests": len(requests),
            "from_cache": reused,
            "prompt_tokens": sum(r.prompt_tokens for r in own),
            "completion_tokens": sum(r.completion_tokens for r in own),
            "cache_read_tokens": sum(r.cache_read_tokens for r in own),
            "cache_write_tokens": sum(r.cache_write_tokens for r in own),
            "truncated": sum(r.finish_reason == "length" for r in replies),
            "refused": sum(r.finish_reason == "refusal" for r in replies),
            "without_usage": sum(r.cost is None for r in own),
            "retries": retries,
            "asked_elsewhere": elsewhere,
            **servers,
            "cost_usd": paid / PICO,
            "cost_of_answers_usd": usd(sum(r.cost or 0 for r in own)),
            "seconds": round(seconds, 3),
            "requests_per_second": round(len(fresh) / seconds, 2) if fresh else None,
            "environment": environment(model),
        }
    return replies


def _close_left_open(spending: Spending, cache: ResponseCache, log: Callable[[str], None]) -> None:
    """Settle what killed processes had paid for, or say how much of it nobody can know."""
    uncertain = reconcile(spending.ledger, lambda key: paid_answer(cache, key))
    if uncertain:
        log(f"{uncertain} requests of killed processes may have been billed: `foundry costs` shows them as uncertain")


def paid_answer(cache: ResponseCache, key: str) -> tuple[int | None, Usage] | None:
    """What a stored answer cost, for a row of the ledger that a kill left open."""
    reply = cache.get(key)
    if reply is None:
        return None
    read, write = reply.cache_read_tokens, reply.cache_write_tokens
    return reply.cost, Usage(reply.prompt_tokens - read - write, reply.completion_tokens, write, read)


def _ask(
    model: ModelRef,
    jobs: Sequence[Job],
    *,
    cache: ResponseCache,
    spending: Spending,
    run: str,
    log: Callable[[str], None],
    progress: Callable[..., None],
) -> tuple[dict[str, Reply], int, int, dict[str, Any]]:
    """Replies to the jobs by key, how often something was asked again, how many answers others had asked for, and what
    each of several servers did."""
    remote = model.remote or {}
    today = dt.datetime.now(dt.UTC).date()
    # Before anything is sent: a model without a price is not asked at all.
    prices = None if remote.get("free") else spending.prices()
    rate = FREE if prices is None else prices.rate_for(model, today)
    fresh: dict[str, Reply] = {}
    others: set[str] = set()
    began = time.monotonic()

    def arrived(reply: Reply) -> None:
        if reply.request_hash in asker.others:
            others.add(reply.request_hash)
        else:
            fresh[reply.request_hash] = reply
        cost = sum(r.cost or 0 for r in fresh.values())
        metrics: dict[str, Any] = {"per_second": round(len(fresh) / max(time.monotonic() - began, 1e-3), 2)}
        if rate is not FREE:
            metrics["usd"] = short_usd(cost)
        if others:
            metrics["asked_elsewhere"] = len(others)
        if pool.failed:
            metrics["failed"] = len(pool.failed)
        progress(len(fresh) + len(others), **metrics)

    client = client_of(model, log=log)
    try:
        book = spending.ledger.book(asset=spending.asset, run=run, caps=spending.caps)
        asker = Asker(model, client, cache=cache, book=book, rate=rate, line=Line(), log=log)
        pool = Pool(asker, workers=int(remote.get("concurrency", 8)))
        resume: Callable[[Sequence[Job]], list[Job]] = list
        ask: Callable[[Sequence[Job]], None] = lambda some: pool.run(some, arrived)  # noqa: E731
        with book.claims.kept():
            if model.backend == "anthropic":
                from foundry_pipeline.models.remote.anthropic_batches import BatchRun

                cheaper = FREE if prices is None else prices.rate_for(model, today, batch=True)
                batches = BatchRun(asker, pool, rate=cheaper, log=log)
                # Also where `batch` has been turned off meanwhile: what a batch answers must not be asked beside it.
                resume = lambda some: batches.resume(some, arrived)  # noqa: E731
                if remote.get("batch"):
                    ask = lambda some: batches.run(some, arrived)  # noqa: E731
            ask(resume(jobs))
            await_others(pool, asker, ask=ask, resume=resume, arrived=arrived, log=log)
    finally:
        client.close()
    if pool.failed or pool.early:
        raise requests_failed(pool.failed, title=model.title, answered=len(fresh), asked=len(jobs), early=pool.early)
    return fresh, asker.retries, len(others), client.told()
