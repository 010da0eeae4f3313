"""What requests will cost before they are sent: low, expected and high, in tokens and picodollars.

    estimate_requests(requests, rate=rate)   → Estimate(requests=225, input=Span(…), output=Span(…), cost=Span(…))

`high` is what the budget will reserve: no request can cost more. `expected` takes four bytes for a token of input (what
English text has with today's vocabularies) and, where this model has answered before, the mean length of its answers;
a third of the bound otherwise. `low` takes five bytes, and half of the expected answer. Attempts that are lost on the
way are not foreseen.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from foundry_pipeline.models.money.prices import Rate, Usage, token_bound
from foundry_pipeline.models.requests import ChatRequest

_EXPECTED_BYTES, _LOW_BYTES = 4, 5
_ANSWERS = 10  # so many have to be known before their mean length is believed


@dataclass(frozen=True)
class Span:
    """A figure between its bounds."""

    low: int = 0
    expected: int = 0
    high: int = 0

    def __add__(self, other: Span) -> Span:
        return Span(self.low + other.low, self.expected + other.expected, self.high + other.high)


@dataclass(frozen=True)
class Estimate:
    """Requests still to be sent, their tokens, and what they cost (picodollars)."""

    requests: int = 0
    input: Span = Span()
    output: Span = Span()
    cost: Span = Span()

    def __add__(self, other: Estimate) -> Estimate:
        return Estimate(
            self.requests + other.requests,
            self.input + other.input,
            self.output + other.output,
            self.cost + other.cost,
        )

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def estimate_requests(requests: Sequence[ChatRequest], *, rate: Rate, mean_answer: float | None = None) -> Estimate:
    """Of requests as they will be sent. What several have in common in marked system blocks is written to the
    provider's cache by the first and read by the others, except in `high`, where nothing is ever found there."""
    total = Estimate()
    written: set[str] = set()
    for request in requests:
        prefix = _marked(request)
        length = sum(len(t.encode()) for t, _ in request.system) + sum(len(c.encode()) for _, c in request.messages)
        length += len(request.schema.encode())
        known = bool(prefix) and prefix in written
        if prefix:
            written.add(prefix)
        marked = len(prefix.encode())
        total += _one(
            length - marked,
            0 if known else marked,
            marked if known else 0,
            token_bound(request),
            request.max_tokens,
            rate,
            cached=bool(prefix),
            mean_answer=mean_answer,
        )
    return total


def estimate_demand(
    count: int, prompt_bytes: int, answer_tokens: int, *, rate: Rate, mean_answer: float | None = None
) -> Estimate:
    """Of so many requests of a size that only the declarations tell; no cache is counted on."""
    one = _one(prompt_bytes, 0, 0, prompt_bytes + 1024 + 64, answer_tokens, rate, cached=True, mean_answer=mean_answer)
    return Estimate(
        count,
        *[
            Span(span.low * count, span.expected * count, span.high * count)
            for span in (one.input, one.output, one.cost)
        ],
    )


def _one(
    plain: int,
    write: int,
    read: int,
    bound: int,
    max_tokens: int,
    rate: Rate,
    *,
    cached: bool,
    mean_answer: float | None,
) -> Estimate:
    """One request: bytes that are sent plainly, written to the cache and read from it; the bound in tokens."""
    expected_answer = min(max_tokens, round(mean_answer) if mean_answer is not None else -(-max_tokens // 3))
    answers = Span(expected_answer // 2, expected_answer, max_tokens)

    def usage(size: int, answer: int) -> Usage:
        return Usage(-(-plain // size), answer, cache_write=-(-write // size), cache_read=-(-read // size))

    low, expected = usage(_LOW_BYTES, answers.low), usage(_EXPECTED_BYTES, answers.expected)
    high = rate.bound(prompt_tokens=bound, answer_tokens=max_tokens, cached=cached)
    return Estimate(
        1,
        Span(low.prompt, expected.prompt, bound),
        answers,
        Span(rate.cost(low), rate.cost(expected), high),
    )


def _marked(request: ChatRequest) -> str:
    """The beginning of a request that the provider keeps for others: up to its first marked block."""
    texts: list[str] = []
    for text, cached in request.system:
        texts.append(text)
        if cached:
            return "".join(texts)
    return ""


def mean_answer(rows: Sequence[dict[str, Any]]) -> float | None:
    """Mean length (tokens) of answers that are booked in the ledger, where there are enough of them."""
    lengths = [row["output_tokens"] for row in rows if row["output_tokens"] > 0]
    return sum(lengths) / len(lengths) if len(lengths) >= _ANSWERS else None
