"""Attention in which both answers of a pair read one prompt and never each other.

Registered with `transformers` under NAME, so that every model whose attention goes through its attention interface
(Llama, Qwen3, Gemma 3, …) can be run with it and no model code is copied:

    prepare(model)                                     # once
    model(input_ids=…, position_ids=…, pair_spans=packed.spans)

Queries are taken in blocks of BLOCK rows with all heads of a key-value group in one product; a block reads only the
keys in front of it. The probabilities are kept for the backward pass, in the inputs' precision: recomputing them costs
an exponential each, which on a CPU is dearer than the memory.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Literal

from foundry_pipeline.training.preference.layout import Span

if TYPE_CHECKING:
    import torch

NAME = "foundry_pairs"
BLOCK = 128  # rows; the measured optimum on two cores lies between 96 and 192


def prepare(model: Any, kind: Literal["blocks", "sdpa"] = "blocks") -> None:
    """Let a loaded model attend pair by pair. Other uses of it need `pair_spans`, too, from then on."""
    from transformers import AttentionInterface
    from transformers.masking_utils import AttentionMaskInterface

    from foundry_pipeline.training.preference import sdpa

    name, function = (NAME, attend) if kind == "blocks" else (sdpa.NAME, sdpa.attend)
    AttentionInterface.register(name, function)
    AttentionMaskInterface.register(name, _no_mask)
    model.set_attn_implementation(name)


def _no_mask(*_args: Any, **_kwargs: Any) -> None:
    """What a row may see follows from the spans; no mask of T × T is ever made."""
    return


def attend(
    module: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: Any,
    *,
    pair_spans: tuple[Span, ...] | None = None,
    scaling: float | None = None,
    sliding_window: int | None = None,
    softcap: float | None = None,
    **_kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """An attention function of `transformers`: query (1, heads, T, width), key and value (1, groups, T, width).

    Returns (1, T, heads, width). Raises ValueError where it is called without spans, for more than one row, or for a
    model that caps its attention scores.
    """
    if pair_spans is None or query.shape[0] != 1 or softcap is not None:
        raise ValueError("pair attention takes one packed row, its spans, and a model without capped scores")
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    out = _function().apply(query[0], key[0], value[0], pair_spans, scale, sliding_window)
    return out.unsqueeze(0), None


def _blocks(rows: int, offset: int) -> Iterator[tuple[int, int, int]]:
    """First row, last row (exclusive) and number of keys of each block; `offset` keys stand before the first row."""
    for first in range(0, rows, BLOCK):
        last = min(rows, first + BLOCK)
        yield first, last, offset + last


def sequences(span: Span) -> Iterator[tuple[list[slice], list[slice], int]]:
    """The causal sequences of a pair: rows that ask, rows that are read (in order), and how many stand before them."""
    before = [slice(0, span.shared)] if span.shared else []
    prompt = slice(span.start, span.start + span.prompt)
    chosen_end = span.start + span.prompt + span.chosen
    whole = slice(span.start, chosen_end)
    yield [whole], [*before, whole], span.shared
    if span.rejected:
        branch = slice(chosen_end, chosen_end + span.rejected)
        yield [branch], [*before, prompt, branch], span.shared + span.prompt


@lru_cache(maxsize=1)
def _function() -> Any:
    import torch

    @lru_cache(maxsize=64)
    def ahead(rows: int, device: Any) -> torch.Tensor:
        """True where a row of a block must not look, of the block's own keys; rows × rows."""
        return torch.ones(rows, rows, dtype=torch.bool, device=device).triu_(1)

    def hide(scores: torch.Tensor, rows: int, window: int | None) -> None:
        """Take out, in place, what no row may look at: scores (groups, per, rows, keys), the block's own keys last."""
        keys = scores.shape[-1]
        scores[..., keys - rows :].masked_fill_(ahead(rows, scores.device), float("-inf"))
        if window is not None and keys > window:
            places = torch.arange(keys - rows, keys, device=scores.device).unsqueeze(1)
            far = torch.arange(keys, device=scores.device).unsqueeze(0) <= places - window
            scores.masked_fill_(far, float("-inf"))

    def gathered(tensor: torch.Tensor, parts: Sequence[slice]) -> torch.Tensor:
        return tensor[:, parts[0]] if len(parts) == 1 else torch.cat([tensor[:, p] for p in parts], dim=1)

    class PairAttention(torch.autograd.Function):
        @staticmethod
        def forward(
            ctx: Any,
            query: torch.Tensor,
            key: torch.Tensor,
            value: torch.Tensor,
            spans: tuple[Span, ...],
            scale: float,
            window: int | None,
        ) -> torch.Tensor:
            heads, total, width = query.shape
            groups = key.shape[0]
            per = heads // groups
            out = query.new_empty(total, heads, width)
            kept: list[torch.Tensor] = []
            for span in spans:
                for (ask,), read, offset in sequences(span):
                    k, v = gathered(key, read), gathered(value, read)
                    for first, last, keys in _blocks(ask.stop - ask.start, offset):
                        rows = slice(ask.start + first, ask.start + last)
                        q = (query[:, rows] * scale).reshape(groups, per * (last - first), width)
                        scores = torch.bmm(q, k[:, :keys].transpose(1, 2))
                        hide(scores.view(groups, per, last - first, keys), last - first, window)
                        weights = torch.softmax(scores, dim=-1)  # sums in 32 bits at least, rounds once
                        answer = torch.bmm(weights, v[:, :keys]).view(heads, last - first, width)
                        out[rows] = answer.transpose(0, 1)
                        kept.append(weights)
            ctx.save_for_backward(query, key, value, *kept)
            ctx.spans, ctx.scale = spans, scale
            return out

        @staticmethod
        def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[Any, ...]:
            (grad_out,) = gradients
            query, key, value, *kept = ctx.saved_tensors
            heads, _, width = query.shape
            groups = key.shape[0]
            per = heads // groups
            grad_q, grad_k, grad_v = torch.empty_like(query), torch.zeros_like(key), torch.zeros_like(value)
            at = 0
            for span in ctx.spans:
                for (ask,), read, offset in sequences(span):
                    k, v = gathered(key, read), gathered(value, read)
                    gk, gv = torch.zeros_like(k), torch.zeros_like(v)
                    for first, last, keys in _blocks(ask.stop - ask.start, offset):
                        size = last - first
                        rows = slice(ask.start + first, ask.start + last)
                        weights, at = kept[at], at + 1
                        g = grad_out[rows].transpose(0, 1).reshape(groups, per * size, width)
                        q = query[:, rows].reshape(groups, per * size, width)
                        gv[:, :keys] += torch.bmm(weights.transpose(1, 2), g)
                        slope = torch.bmm(g, v[:, :keys].transpose(1, 2))
                        slope = torch._softmax_backward_data(slope, weights, -1, weights.dtype)
                        grad_q[:, rows] = torch.bmm(slope, k[:, :keys]).view(heads, size, width)
                        gk[:, :keys] += torch.bmm(slope.transpose(1, 2), q)
                    done = 0
                    for part in read:
                        size = part.stop - part.start
                        grad_k[:, part] += gk[:, done : done + size]
                        grad_v[:, part] += gv[:, done : done + size]
                        done += size
            return grad_q.mul_(ctx.scale), grad_k.mul_(ctx.scale), grad_v, None, None, None

    return PairAttention
