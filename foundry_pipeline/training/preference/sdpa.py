"""Attention pair by pair by torch's own kernels: on a GPU flash attention, which keeps no probabilities.

The same sequences as in `attention.py`, and the same answers within rounding; there the processor's kernel is too slow, here
the many small products of its blocks would be. A branch's rows stand at the end of what they read, so that its mask is
causal from the lower right corner: a kernel's own mask, of which no matrix is made. Only a sliding window shorter than a
sequence needs one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from foundry_pipeline.training.preference.attention import sequences
from foundry_pipeline.training.preference.layout import Span

if TYPE_CHECKING:
    import torch

NAME = "foundry_pairs_sdpa"


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
    """As `attention.attend`, with the same shapes and errors."""
    import torch
    from torch.nn.attention.bias import causal_lower_right
    from torch.nn.functional import scaled_dot_product_attention

    if pair_spans is None or query.shape[0] != 1 or softcap is not None:
        raise ValueError("pair attention takes one packed row, its spans, and a model without capped scores")
    parts = []
    for span in pair_spans:
        for (ask,), read, offset in sequences(span):
            k, v = (
                t[:, :, read[0]] if len(read) == 1 else torch.cat([t[:, :, p] for p in read], dim=2)
                for t in (key, value)
            )
            rows, keys = ask.stop - ask.start, offset + ask.stop - ask.start
            if sliding_window is not None and keys > sliding_window:
                mask: Any = windowed(rows, keys, sliding_window, query.device)
            else:
                mask = causal_lower_right(rows, keys)
            found = scaled_dot_product_attention(
                query[:, :, ask], k, v, attn_mask=mask, scale=scaling, enable_gqa=query.shape[1] != key.shape[1]
            )
            parts.append(found)
    # sequences come in the order of the row, so that their answers laid end to end are the row's
    return torch.cat(parts, dim=2).transpose(1, 2), None


def windowed(rows: int, keys: int, window: int, device: Any) -> torch.Tensor:
    """True where a row may look, (rows, keys): the last rows of a causal sequence, `window` keys back, its own included."""
    import torch

    places = torch.arange(keys - rows, keys, device=device).unsqueeze(1)
    columns = torch.arange(keys, device=device).unsqueeze(0)
    return (columns <= places) & (columns > places - window)
