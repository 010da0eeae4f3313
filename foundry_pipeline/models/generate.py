"""Answers to a list of requests, by groups, through the response cache: as a function and as a script.

    python -m foundry_pipeline.models.generate SPEC.json

    SPEC.json   {"model": {"backend": "llama_cpp", "path": …, "content_hash": …, "adapter_path": null, …},
                 "requests": "requests.jsonl", "cache": "responses.db", "group_size": 36, "threads": 2,
                 "precision": "bfloat16", "work": "…"}
    requests    one ChatRequest in a line, see `request_lines`
    → work/result/replies.jsonl   one Reply in a line, in the order of the requests; no clock times
      work/result.json            tokens, seconds, tokens per second, libraries

Requests to a local model are cut into groups by their order. A group that is in the cache is taken from there whole; any
other is generated whole and stored in one transaction. So a killed job goes on with the group that it was at, and the
answers are the same as if it had never been killed.

A remote model (`"backend": "anthropic"` or `"openai"`, `path` its model id) is asked request by request, and each answer
is stored as it arrives: what is stored is never asked, or paid, again. Its spec says besides what may be spent:

                 "money": {"ledger": "money.db", "prices": "assets/prices.yaml", "project_usd": "5", "run_usd": "5",
                           "asset": "madison_teacher_responses"}
"""

from __future__ import annotations

import gc
import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol

from foundry_pipeline.errors import FoundryError
from foundry_pipeline.launch import ScriptSession, atomic_folder, leave, script_main
from foundry_pipeline.models.cache import ResponseCache, renamed
from foundry_pipeline.models.money.spending import Spending, open_spending
from foundry_pipeline.models.requests import REMOTE, ChatBackend, ChatRequest, ModelRef, Reply, group_hashes

RESULT = "replies.jsonl"


class Progress(Protocol):
    """Called after each group: `done` of `total` requests, and figures for people."""

    def __call__(self, done: int, total: int, **metrics: float | int | str) -> None: ...


def _silent(done: int, total: int, **metrics: float | int | str) -> None:
    return None


def load_backend(model: ModelRef, *, threads: int, precision: str = "bfloat16") -> ChatBackend:
    """The backend that a model names. `precision` is of no account to GGUF files."""
    if model.backend == "llama_cpp":
        from foundry_pipeline.models.llama_backend import LlamaBackend

        return LlamaBackend(model, threads=threads)
    if model.backend == "transformers":
        from foundry_pipeline.models.hf_backend import TransformersBackend

        if precision not in ("bfloat16", "float32"):
            raise FoundryError(
                f"unknown precision {precision!r}", where=model.title, mend="set `precision` to bfloat16 or float32"
            )
        return TransformersBackend(model, threads=threads, precision=precision)  # type: ignore[arg-type]
    raise FoundryError(
        f"unknown backend {model.backend!r}",
        where=model.title,
        mend="use `llama_cpp` or `transformers` (or, asked over the network, `anthropic` or `openai`)",
    )


def generate(
    model: ModelRef,
    requests: Sequence[ChatRequest],
    *,
    cache: ResponseCache,
    group_size: int,
    threads: int,
    precision: str = "bfloat16",
    progress: Progress = _silent,
    facts: dict[str, Any] | None = None,
    load: Callable[..., ChatBackend] = load_backend,
    spending: Spending | None = None,
    run: str = "",
    log: Callable[[str], None] = lambda text: None,
) -> list[Reply]:
    """Replies in the order of the requests.

    Of a local model `group_size` requests are decoded together; the last group may be smaller. A remote one is asked
    request by request, and what it costs is booked on `run` under `spending` (by default that of the project around
    the working directory). `facts`, where given, is filled with counts, seconds and the environment. Raises FoundryError
    for a request that cannot be answered, before anything of its group is stored; see `remote.answering` for the rest.
    """
    if model.backend in REMOTE:
        from foundry_pipeline.models.remote.answering import answer_all

        return answer_all(
            model,
            requests,
            cache=cache,
            spending=spending or open_spending(None),
            run=run,
            progress=progress,
            log=log,
            facts=facts,
        )
    if group_size < 1:
        raise FoundryError(f"a group of {group_size} requests", mend="set `generation_group` to 1 or more")
    started = time.monotonic()
    with _uncollected():
        backend = load(model, threads=threads, precision=precision)
    replies: list[Reply] = []
    fresh = reused = 0
    busy = loading = 0.0
    try:
        environment = backend.environment()
        for at in range(0, len(requests), group_size):
            group = requests[at : at + group_size]
            hashes = group_hashes(model, group, environment=environment, group_size=group_size)
            stored = cache.get_group(hashes)
            if stored is None:
                # Only now: a job that finds all its groups stored never reads the weights.
                began = time.monotonic()
                with _uncollected():
                    backend.load()
                loading += time.monotonic() - began
                began = time.monotonic()
                answered = backend.answer(group, hashes)
                busy += time.monotonic() - began
                cache.put_group(answered)
                # Where another process stored the same group first, its replies are the ones that count.
                stored = cache.get_group(hashes) or answered
                fresh += sum(r.completion_tokens for r in answered)
            else:
                reused += len(group)
            replies += renamed(stored, [r.request_id for r in group])
            rate = {"tokens_per_second": round(fresh / busy, 1)} if busy else {}
            progress(len(replies), len(requests), from_cache=reused, **rate)
    finally:
        backend.close()
    if facts is not None:
        facts |= {
            "requests": len(requests),
            "from_cache": reused,
            "completion_tokens": sum(r.completion_tokens for r in replies),
            "truncated": sum(r.finish_reason == "length" for r in replies),
            "generated_tokens": fresh,
            "generating_seconds": round(busy, 3),
            "tokens_per_second": round(fresh / busy, 1) if busy else None,
            "loading_seconds": round(loading, 3),
            "seconds": round(time.monotonic() - started, 3),
            "environment": environment,
        }
    return replies


@contextmanager
def _uncollected() -> Iterator[None]:
    """No search for garbage meanwhile: importing torch, transformers and peft makes objects by the hundred thousand and
    next to no garbage, and the searches through all of them are a fifth of the seconds it takes."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def request_lines(requests: Sequence[ChatRequest]) -> str:
    """JSON lines, one request each; `read_requests` is the inverse."""
    return "".join(json.dumps(asdict(r), sort_keys=True, ensure_ascii=False) + "\n" for r in requests)


def read_requests(path: Path) -> list[ChatRequest]:
    """Requests from JSON lines. Raises FoundryError naming file and line."""
    requests: list[ChatRequest] = []
    # Not splitlines(): it also cuts at U+2028 and the like, which JSON leaves inside a string.
    for number, line in enumerate(_read(path).split("\n"), 1):
        if not line.strip():
            continue
        try:
            fields = json.loads(line)
            messages = tuple((str(role), str(content)) for role, content in fields.pop("messages"))
            system = tuple((str(text), bool(cached)) for text, cached in fields.pop("system", ()))
            requests.append(ChatRequest(messages=messages, system=system, **fields))
        except (json.JSONDecodeError, TypeError, ValueError, KeyError, AttributeError) as error:
            raise FoundryError(
                f"not a request: {error}",
                where=f"{path}:{number}",
                mend="write requests with foundry_pipeline.models.generate.request_lines",
            ) from error
    return requests


_CIRCUMSTANCE = {"seconds", "cache_read_tokens", "cache_write_tokens", "cost"}


def reply_lines(replies: Sequence[Reply]) -> str:
    """JSON lines, one reply each, without time and money: equal answers give equal files."""
    return "".join(
        json.dumps({k: v for k, v in asdict(r).items() if k not in _CIRCUMSTANCE}, sort_keys=True, ensure_ascii=False)
        + "\n"
        for r in replies
    )


def read_replies(result: Path, name: str = RESULT) -> list[Reply]:
    """Replies that a script wrote to its result folder, in the order of the requests; `seconds` is None."""
    return [Reply(**json.loads(line)) for line in _read(result / name).split("\n") if line]


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (FileNotFoundError, UnicodeDecodeError) as error:
        raise FoundryError(
            f"cannot be read: {error}", where=str(path), mend="run the stage that writes it again"
        ) from error


def run(spec: dict[str, Any], session: ScriptSession) -> dict[str, Any]:
    """The script's work; `script_main` holds the lock of the work folder meanwhile."""
    model = ModelRef(**spec["model"])
    requests = read_requests(Path(spec["requests"]))
    remote = model.backend in REMOTE
    session.log(f"{model.title}: {len(requests)} requests" + ("" if remote else f" in groups of {spec['group_size']}"))
    facts: dict[str, Any] = {}
    replies = generate(
        model,
        requests,
        cache=ResponseCache(Path(spec["cache"])),
        group_size=int(spec.get("group_size", 1)),
        threads=int(spec.get("threads", 1)),
        precision=spec.get("precision", "bfloat16"),
        progress=session.progress,
        facts=facts,
        spending=open_spending(spec.get("money")) if remote else None,
        run=session.run_id,
        log=session.log,
    )
    with atomic_folder(Path(spec["work"]) / "result") as folder:
        (folder / RESULT).write_text(reply_lines(replies), encoding="utf-8")
    return facts


if __name__ == "__main__":
    leave(script_main(run))
