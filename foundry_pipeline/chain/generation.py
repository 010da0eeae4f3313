"""Answers for a stage: the generation scripts, started from its work folder, behind the response cache."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from foundry_pipeline.chain.stage import BuildContext
from foundry_pipeline.models.requests import REMOTE, ChatRequest, ModelRef, Reply

Answered = tuple[list[Reply], dict[str, Any]]
ONE, MANY = "foundry_pipeline.models.generate", "foundry_pipeline.models.generate_many"
MANY_CODE = (ONE, MANY)


def generate_in_child(
    ctx: BuildContext,
    model: ModelRef,
    requests: Sequence[ChatRequest],
    *,
    folder: str,
    threads: int,
    group: int,
    precision: str,
) -> Answered:
    """Answers to the requests, in their order, and facts."""
    from foundry_pipeline.models.generate import read_replies
    from foundry_pipeline.models.money.spending import spending_spec

    work = f"generate-{folder}"
    spec = _spec(ctx, {"requests": requests}, work, threads=threads, group=group, precision=precision)
    spec |= {"model": model.__dict__, "requests": str(ctx.work / work / "requests.jsonl")}
    if model.backend in REMOTE:
        spec["money"] = spending_spec(ctx.settings, ctx.name)
    result, facts = ctx.script(ONE, spec, folder=work)
    return read_replies(result), facts


def generate_many(
    ctx: BuildContext,
    jobs: Mapping[str, tuple[ModelRef, Sequence[ChatRequest]]],
    *,
    at_once: int,
    threads: int,
    group: int,
    precision: str,
) -> dict[str, Answered]:
    """The same for several lists of requests to models on this machine, so many at a time; by the name of the job."""
    from foundry_pipeline.models.generate import read_replies

    work = "generate"
    listed = {name: requests for name, (_, requests) in jobs.items()}
    spec = _spec(ctx, listed, work, threads=threads, group=group, precision=precision)
    spec["at_once"] = at_once
    spec["jobs"] = {
        name: {"model": model.__dict__, "requests": str(ctx.work / work / f"{name}.jsonl")}
        for name, (model, _) in jobs.items()
    }
    result, facts = ctx.script(MANY, spec, folder=work)
    return {name: (read_replies(result, f"{name}.jsonl"), facts[name]) for name in jobs}


def generate_divided(
    ctx: BuildContext,
    model: ModelRef,
    requests: Sequence[ChatRequest],
    *,
    at_once: int,
    threads: int,
    group: int,
    precision: str,
) -> Answered:
    """Answers of one model, the requests dealt out to so many processes."""
    jobs = {f"part-{i}": (model, requests[i::at_once]) for i in range(min(at_once, len(requests)))}
    done = generate_many(ctx, jobs, at_once=at_once, threads=threads, group=group, precision=precision)
    by_id = {reply.request_id: reply for replies, _ in done.values() for reply in replies}
    every = [facts for _, facts in done.values()]
    counts = ("requests", "from_cache", "completion_tokens", "truncated", "generated_tokens")
    longest = {name: max(f[name] for f in every) for name in ("generating_seconds", "loading_seconds", "seconds")}
    rates = [f["tokens_per_second"] for f in every if f["tokens_per_second"]]
    facts = {
        **{name: sum(f[name] for f in every) for name in counts},
        **longest,
        "tokens_per_second": round(sum(rates), 1) if rates else None,
        "environment": every[0]["environment"],
        "processes": len(every),
    }
    return [by_id[request.request_id] for request in requests], facts


def _spec(
    ctx: BuildContext,
    lists: Mapping[str, Sequence[ChatRequest]],
    folder: str,
    *,
    threads: int,
    group: int,
    precision: str,
) -> dict[str, Any]:
    """What the scripts read beside model and requests; writes each list of requests into the work folder."""
    from foundry_pipeline.models.generate import request_lines

    work = ctx.work / folder
    work.mkdir(parents=True, exist_ok=True)
    for name, requests in lists.items():
        (work / f"{name}.jsonl").write_text(request_lines(list(requests)), encoding="utf-8")
    return {
        "cache": str(ctx.settings.responses_path),
        "group_size": group,
        "threads": threads,
        "precision": precision,
    }
