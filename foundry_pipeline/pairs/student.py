"""The rejected side: what a model answers to the same prompts, without being told who it is.

    requests = student_requests(responses, Sampling(temperature=0.7, top_k=40, top_p=0.95, max_tokens=256))
    replies = generate(model, requests, …)
    answers, facts = student_answers(replies, student="base")

`student` is `base` or the name of the run whose adapter answered; recipes name students the same way.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import polars as pl

from foundry_pipeline import textstats
from foundry_pipeline.declarations.assets import Sampling
from foundry_pipeline.models.requests import ChatRequest, Reply, request_seed
from foundry_pipeline.pairs import Schema

ANSWERS: Schema = {
    "prompt_id": pl.String,
    "rejected": pl.String,
    "student": pl.String,
    "student_request_hash": pl.String,
    "finish_reason": pl.String,
}


def student_requests(
    responses: pl.DataFrame, sampling: Sampling, *, max_tokens: int | None = None
) -> list[ChatRequest]:
    """One request per prompt, in the order of prompt_id: the prompt as a lone user message.

    `responses` needs the columns prompt_id and prompt; a prompt that stands in several rows is asked once.
    `max_tokens` lowers the declared bound, never raises it.
    """
    prompts = responses.select("prompt_id", "prompt").unique(maintain_order=False).sort("prompt_id", "prompt")
    bound = sampling.max_tokens if max_tokens is None else min(max_tokens, sampling.max_tokens)
    return [
        ChatRequest(
            request_id=prompt_id,
            messages=(("user", prompt),),
            max_tokens=bound,
            temperature=sampling.temperature,
            top_k=sampling.top_k,
            top_p=sampling.top_p,
            seed=request_seed(sampling.seed, prompt_id),
        )
        for prompt_id, prompt in prompts.iter_rows()
    ]


def last_whole_sentence(text: str) -> str | None:
    """`text` up to the end of its last whole sentence, or None when it has none. A prefix of the text, verbatim."""
    for _, end in reversed(textstats.sentence_spans(text)):
        if text[:end].rstrip("\"'”’)]*_")[-1:] in {".", "!", "?", "…"}:
            return text[:end]
    return None


def student_answers(replies: Iterable[Reply], *, student: str) -> tuple[pl.DataFrame, dict[str, Any]]:
    """Replies as a frame (columns ANSWERS, sorted by prompt_id) and what was counted on the way.

    An answer that the token limit cut ends at its last whole sentence (finish_reason `trimmed`); one that has no whole
    sentence stays as it is (finish_reason `length`), for the quality filter to drop.
    """
    rows, counts = [], {"answers": 0, "cut_by_limit": 0, "trimmed": 0}
    for reply in replies:
        text, finish = reply.text.strip(), str(reply.finish_reason)
        counts["answers"] += 1
        if finish == "length":
            counts["cut_by_limit"] += 1
            whole = last_whole_sentence(text)
            if whole is not None:
                text, finish = whole, "trimmed"
                counts["trimmed"] += 1
        rows.append((reply.request_id, text, student, reply.request_hash, finish))
    return pl.DataFrame(rows, ANSWERS, orient="row").sort("prompt_id"), {"student": student, **counts}
