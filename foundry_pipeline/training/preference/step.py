"""Loss of a window of pairs in one forward pass.

    prepare(model)
    loss, shown = window_loss(model, pairs, method="orpo", beta=0.1, window=4)
    loss.backward()            # adds the gradients of these pairs' share of the window's mean

`model` is a causal language model of `transformers` with an adapter on it, base frozen, in any precision; run it under
autocast where the adapter is float32 and the base is not.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

from foundry_pipeline.errors import FoundryError
from foundry_pipeline.training.preference import losses
from foundry_pipeline.training.preference.layout import CHOSEN, REJECTED, Packed, PairTokens, pack
from foundry_pipeline.training.preference.vocabulary import GPU_CHUNK, GPU_TILE, token_log_probabilities

if TYPE_CHECKING:
    import torch

Method = Literal["orpo", "dpo", "sft"]


def scored_states(model: Any, packed: Packed) -> tuple[torch.Tensor, torch.Tensor]:
    """Last hidden state of every scored row of a packed window, (N, width), and the output layer's weight."""
    import torch

    network = model.get_base_model() if hasattr(model, "get_base_model") else model
    cap = getattr(network.config.get_text_config(), "final_logit_softcapping", None)
    head = network.get_output_embeddings()
    if cap is not None or getattr(head, "bias", None) is not None or type(head) is not torch.nn.Linear:
        raise FoundryError(
            "the loss is not written for this output layer (capped logits, a bias, or an adapter on it)",
            where=type(network).__name__,
            mend="use a base of the Llama, Qwen3 or Gemma 3 family, and no adapter on its output layer",
        )
    device = head.weight.device
    states = network.base_model(
        input_ids=torch.tensor([packed.ids], device=device),
        position_ids=torch.tensor([packed.positions], device=device),
        pair_spans=packed.spans,
        use_cache=False,
    ).last_hidden_state[0]
    return states[torch.tensor(packed.rows, device=device)].to(head.weight.dtype), head.weight


def scored(model: Any, packed: Packed) -> torch.Tensor:
    """Log-probability (nats) of every prediction of a packed window, in the order of `packed.labels`."""
    import torch

    states, weight = scored_states(model, packed)
    labels = torch.tensor(packed.labels, device=weight.device)
    # A processor's cache holds a small tile of logits; a GPU is kept busy by a large one.
    sizes = {} if weight.device.type == "cpu" else {"chunk": GPU_CHUNK, "tile": GPU_TILE}
    with torch.autocast(weight.device.type, enabled=False):
        return token_log_probabilities(states, weight, labels, **sizes)


def window_loss(
    model: Any,
    pairs: Sequence[PairTokens],
    *,
    method: Method,
    beta: float,
    window: int,
    reference: torch.Tensor | None = None,
) -> tuple[torch.Tensor, dict[str, float]]:
    """The share of these pairs in the mean loss of a window of `window` pairs, and sums of what is shown of them."""
    packed = pack(pairs, score_prompt=method == "orpo")
    found = scored(model, packed)
    if method == "orpo":
        each, shown = losses.orpo(found, packed, beta)
    elif method == "dpo":
        if reference is None:
            raise ValueError("DPO needs the reference's log-probabilities")
        each, shown = losses.dpo(found, packed, beta, reference.to(found))
    else:
        each, shown = losses.sft(found, packed)
    figures = {name: float(values.sum()) / window for name, values in shown.items()}
    loss = each.sum() / window
    return loss, {"loss": float(loss.detach()), **figures}


def reference_sums(model: Any, pairs: Sequence[PairTokens]) -> torch.Tensor:
    """Summed log-probabilities of chosen and rejected, (pairs, 2) in float32, without gradients: DPO's reference."""
    import torch

    with torch.no_grad():
        packed = pack(pairs, score_prompt=False)
        total, _ = losses.sums(scored(model, packed), packed)
    return total[:, [CHOSEN, REJECTED]]
