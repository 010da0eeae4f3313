"""Answers to a list of requests, through the response cache: a library function and a script.

    replies = generate(model, requests, cache=ResponseCache(path), group_size=36, threads=2)
    python -m foundry_pipeline.models.generate SPEC.json

Requests are cut into groups in the order of the list. A group is decoded together, stored whole in one transaction the
moment it is done, and never decoded again; after a kill the next start goes on with the first group that is missing.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from foundry_pipeline.launch import ScriptSession, atomic_folder, script_main
from foundry_pipeline.models.cache import ResponseCache, renamed
from foundry_pipeline.models.requests import ChatBackend, ChatRequest, ModelRef, Reply, group_hashes

Progress = Callable[[int, int, dict[str, float]], None]
REPLIES = "replies.jsonl"


def load_backend(model: ModelRef, *, threads: int, precision: str = "bfloat16") -> ChatBackend:
    """The backend that a model reference names, loaded."""
    if model.backend == "llama_cpp":
        from foundry_pipeline.models.llama_backend import LlamaBackend

        return LlamaBackend(model, threads=threads)
    from foundry_pipeline.models.hf_backend import HfBackend

    return HfBackend(model, threads=threads, precision="float32" if precision == "float32" else "bfloat16")


def generate(
    model: ModelRef,
    requests: Sequence[ChatRequest],
    *,
    cache: ResponseCache,
    group_size: int,
    threads: int,
    precision: str = "bfloat16",
    progress: Progress | None = None,
) -> list[Reply]:
    """Replies in the order of the requests. `progress(done, total, {…})` is called after each group.

    Raises ValueError for a group size below 1, FoundryError as the backend does.
    """
    if group_size < 1:
        raise ValueError(f"group_size is {group_size}; at least 1 is needed")
    replies: list[Reply] = []
    if not requests:
        return replies
    backend = load_backend(model, threads=threads, precision=precision)
    fresh_tokens, fresh_seconds = 0, 0.0
    try:
        environment = backend.environment()
        for start in range(0, len(requests), group_size):
            group = requests[start : start + group_size]
            hashes = group_hashes(model, group, environment=environment, group_size=group_size)
            known = cache.get_group(hashes)
            if known is None:
                started = time.perf_counter()
                cache.put_group(backend.answer(group, hashes))
                # Read back what is stored: if another process was first, its answers are the ones that stay.
                known = cache.get_group(hashes)
                assert known is not None
                fresh_seconds += time.perf_counter() - started
                fresh_tokens += sum(r.completion_tokens for r in known)
            replies += renamed(known, [r.request_id for r in group])
            if progress is not None:
                rate = {"tokens_per_second": fresh_tokens / fresh_seconds} if fresh_seconds else {}
                progress(len(replies), len(requests), rate)
    finally:
        backend.close()
    return replies


def request_lines(requests: Iterable[ChatRequest]) -> str:
    """Requests as JSON lines, for a script's spec."""
    return "".join(json.dumps(asdict(r), ensure_ascii=False) + "\n" for r in requests)


def read_requests(path: Path) -> list[ChatRequest]:
    """The requests of a file that `request_lines` wrote."""
    found = []
    for line in path.read_text(encoding="utf-8").splitlines():
        fields = json.loads(line)
        fields["messages"] = tuple((role, content) for role, content in fields["messages"])
        found.append(ChatRequest(**fields))
    return found


def read_replies(result: Path) -> list[Reply]:
    """The replies in a script's result folder, in the order of its requests."""
    lines = (result / REPLIES).read_text(encoding="utf-8").splitlines()
    return [Reply(**json.loads(line)) for line in lines]


def run(spec: dict[str, Any], session: ScriptSession) -> dict[str, Any]:
    """Answer the spec's requests; returns how many were answered, how many of them were known before, and the rate."""
    model = ModelRef(**spec["model"])
    requests = read_requests(Path(spec["requests"]))
    cache = ResponseCache(Path(spec["cache"]))
    before = len(cache)
    session.log(f"{model.title}: {len(requests)} requests in groups of {spec['group_size']}")
    started = time.perf_counter()
    replies = generate(
        model,
        requests,
        cache=cache,
        group_size=int(spec["group_size"]),
        threads=int(spec["threads"]),
        precision=str(spec.get("precision", "bfloat16")),
        progress=lambda done, total, more: session.progress(done, total, **more),
    )
    seconds = time.perf_counter() - started
    fresh = len(cache) - before
    tokens = sum(r.completion_tokens for r in replies)
    with atomic_folder(Path(spec["work"]) / "result") as folder:
        # Without times: equal answers give equal bytes.
        lines = [json.dumps({**asdict(r), "seconds": None}, ensure_ascii=False) for r in replies]
        (folder / REPLIES).write_text("".join(line + "\n" for line in lines), encoding="utf-8")
    return {
        "answers": len(replies),
        "answers_known_before": len(replies) - fresh,
        "completion_tokens": tokens,
        "generation_seconds": round(seconds, 3),
    }


if __name__ == "__main__":
    sys.exit(script_main(run))
