"""ORPO, DPO and supervised losses of a window, from the log-probabilities of its scored tokens.

ORPO: Hong, Lee and Thorne 2024 (arXiv 2403.07691), with the conventions of TRL's trainer: the NLL is the mean over
prompt and chosen tokens, the odds are of mean log-probabilities per answer token. DPO: Rafailov et al. 2023 (arXiv
2305.18290), sigmoid loss on summed log-probabilities. Every loss is the mean over pairs, so that a window split into
parts by any number of processes adds up to the same number.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from foundry_pipeline.training.preference.layout import CHOSEN, PROMPT, REJECTED, Packed

if TYPE_CHECKING:
    import torch


def sums(found: torch.Tensor, packed: Packed) -> tuple[torch.Tensor, torch.Tensor]:
    """Sum of log-probabilities and number of tokens by pair and part: both (pairs, 3), prompt, chosen, rejected."""
    import torch

    part = torch.tensor(packed.part, device=found.device)
    found = found[torch.tensor(packed.places, device=found.device)]
    shape = 3 * packed.pairs
    total = torch.zeros(shape, dtype=found.dtype, device=found.device).index_add(0, part, found)
    count = torch.zeros(shape, dtype=found.dtype, device=found.device).index_add(0, part, torch.ones_like(found))
    return total.view(-1, 3), count.view(-1, 3)


def orpo(found: torch.Tensor, packed: Packed, beta: float) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Loss of each pair (pairs,) and what is shown of each: nll, margin, accuracy, log_odds."""
    import torch

    total, count = sums(found, packed)
    nll = -(total[:, PROMPT] + total[:, CHOSEN]) / (count[:, PROMPT] + count[:, CHOSEN])
    chosen, rejected = total[:, CHOSEN] / count[:, CHOSEN], total[:, REJECTED] / count[:, REJECTED]
    odds = (chosen - rejected) - (_log1mexp(chosen) - _log1mexp(rejected))
    loss = nll - beta * torch.nn.functional.logsigmoid(odds)
    return loss, {
        "nll": nll.detach(),
        "margin": (beta * (chosen - rejected)).detach(),
        "accuracy": (chosen > rejected).to(loss.dtype).detach(),
        "log_odds": odds.detach(),
        "chosen_logp": chosen.detach(),
        "rejected_logp": rejected.detach(),
    }


def dpo(
    found: torch.Tensor, packed: Packed, beta: float, reference: torch.Tensor
) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """As `orpo`. `reference` (pairs, 2): the untrained model's summed log-probabilities of chosen and rejected."""
    import torch

    total, count = sums(found, packed)
    chosen, rejected = total[:, CHOSEN] - reference[:, 0], total[:, REJECTED] - reference[:, 1]
    margin = beta * (chosen - rejected)
    return -torch.nn.functional.logsigmoid(margin), {
        "margin": margin.detach(),
        "accuracy": (margin > 0).to(margin.dtype).detach(),
        "chosen_logp": (total[:, CHOSEN] / count[:, CHOSEN]).detach(),
        "rejected_logp": (total[:, REJECTED] / count[:, REJECTED]).detach(),
    }


def sft(found: torch.Tensor, packed: Packed) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """As `orpo`: the mean NLL over the answer's tokens."""
    total, count = sums(found, packed)
    nll = -total[:, CHOSEN] / count[:, CHOSEN]
    return nll, {"nll": nll.detach(), "chosen_logp": -nll.detach()}


def _log1mexp(x: torch.Tensor) -> torch.Tensor:
    """log(1 − eˣ) for x < 0, stable at both ends (Mächler 2012); x of 0 (a certain answer) is held just below it."""
    import torch

    x = x.clamp(max=-torch.finfo(x.dtype).tiny)
    near = torch.log(-torch.expm1(x.clamp(min=-0.6931472)))
    far = torch.log1p(-torch.exp(x.clamp(max=-0.6931472)))
    return torch.where(x > -0.6931472, near, far)
