"""How far the predictions of one serving mode lie from those of another, token by token over a fixed text.

    reference = log_probabilities(logits)                # (tokens, vocabulary)
    distance(reference, other_logits, text_ids)
    → {"mean_kl": 0.0121, "median_kl": 0.0047, "p99_kl": 0.11, "max_kl": 0.4, "top1": 0.957, "nats_change": 0.002}

KL is the Kullback-Leibler divergence of a mode's next-token distribution from the reference's, in nats; top-1 the share
of tokens at which both find the same token likeliest. llama.cpp judges its quantizations by the same two
(tools/perplexity, `--kl-divergence`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from foundry_pipeline.errors import FoundryError
from foundry_pipeline.export.served import Span

if TYPE_CHECKING:
    import torch

MEASURES = ("mean_kl", "median_kl", "p99_kl", "max_kl", "top1", "nats_change")
_AT_ONCE = 128  # rows: a whole vocabulary each, in 32 bits


def spans_of(
    prompts: Sequence[Sequence[int]], texts: Sequence[Sequence[int]], *, end: int, tokens: int, each: int
) -> list[Span]:
    """Prompts, evenly spaced over the list, each followed by one of the texts: `tokens` tokens of text in all.

    A text is cut at `each` tokens; one that ends before is followed by the end token, so that ending is measured too.
    Texts (and prompts, if there are not enough) are used again from the beginning; a text of its own goes with each
    prompt only then. Raises FoundryError where there is nothing to read.
    """
    texts = [t for t in texts if t]
    if not prompts or not texts:
        raise FoundryError(
            "there is no text to compare serving modes on",
            where="the character's suite and passages",
            mend="declare prompts of the evaluation suite, and a source that gives passages",
        )
    spans: list[Span] = []
    left = tokens
    count = max(1, -(-tokens // each))
    while left > 0:
        i = len(spans)
        prompt = prompts[i * len(prompts) // count] if i < count <= len(prompts) else prompts[i % len(prompts)]
        text = list(texts[i % len(texts)][:each])
        if len(text) < each:
            text.append(end)
        text = text[:left]
        left -= len(text)
        spans.append(Span(tuple(prompt), tuple(text)))
    return spans


def log_probabilities(logits: torch.Tensor) -> torch.Tensor:
    """Log-softmax over the vocabulary, (tokens, vocabulary), float32; in place of the logits."""
    for rows in logits.split(_AT_ONCE):
        rows.copy_(rows.log_softmax(dim=1))
    return logits


def distance(reference: torch.Tensor, logits: torch.Tensor, text: Sequence[int]) -> dict[str, float | None]:
    """Distance of `logits` from the log-probabilities `reference`, both (tokens, vocabulary); `text` are the ids read.

    `nats_change` is how many nats a token of the text costs more than under the reference, on average. Vocabularies of
    different size (some exporters drop the padding rows) are compared on the ids that both have. Predictions that are
    no finite numbers have no distance: every value is None.
    """
    import torch

    common = min(reference.shape[1], logits.shape[1])
    if max(text) >= common:
        raise FoundryError(
            f"the modes have {reference.shape[1]} and {logits.shape[1]} tokens, and the text needs more than both have",
            where=f"token {max(text)}",
            mend="export the model again: the vocabulary was cut",
        )
    if not (bool(reference.isfinite().all()) and bool(logits.isfinite().all())):
        return dict.fromkeys(MEASURES)
    ids = torch.tensor(list(text))
    kl, same, change = [], [], []
    for start in range(0, len(ids), _AT_ONCE):
        wanted = reference[start : start + _AT_ONCE, :common]
        if common < reference.shape[1]:
            wanted = wanted.log_softmax(dim=1)
        found = logits[start : start + _AT_ONCE, :common].log_softmax(dim=1)
        kl.append((wanted.exp() * (wanted - found)).sum(dim=1))
        same.append(wanted.argmax(dim=1) == found.argmax(dim=1))
        at = ids[start : start + _AT_ONCE, None]
        change.append((wanted.gather(1, at) - found.gather(1, at))[:, 0])
    kls = torch.cat(kl).double().clamp_min(0)
    return {
        "mean_kl": _rounded(kls.mean()),
        "median_kl": _rounded(kls.median()),
        "p99_kl": _rounded(kls.quantile(0.99)),
        "max_kl": _rounded(kls.max()),
        "top1": _rounded(torch.cat(same).double().mean()),
        "nats_change": _rounded(torch.cat(change).double().mean()),
    }


def _rounded(value: torch.Tensor) -> float:
    """Six significant digits: what lies below is the order in which numbers were added."""
    return float(f"{float(value):.6g}")
