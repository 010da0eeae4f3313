"""Measurements on a model while it trains, on a few rows that are always the same.

    rows = probe_rows(examples, 4)                       # four pairs with different prompts, spread over the data
    distance = Distance(model, rows, …)                  # keeps the untrained model's states on them
    distance.kl(model)                                   # nats per token, 0.0 before the first step
    answers = sample(model, rows, …)                     # token ids of a sampled answer to each prompt

Nothing here touches a generator that training draws from, a gradient, or a setting that outlives the call: a training
ends with the same bytes whether it is measured or not. In a team each process takes its share of the rows and all hold
the same numbers afterwards.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from foundry_pipeline.declarations.guards import Probes
from foundry_pipeline.models.requests import ChatRequest
from foundry_pipeline.training.loop import computing, mine
from foundry_pipeline.training.preference.layout import pack
from foundry_pipeline.training.preference.step import scored_states
from foundry_pipeline.training.preference.vocabulary import CHUNK
from foundry_pipeline.training.team import Team
from foundry_pipeline.training.tokens import Example

if TYPE_CHECKING:
    import torch


def probe_rows(examples: Sequence[Example], count: int) -> list[Example]:
    """`count` rows of different prompts, evenly spread over them in order of pair_id; fewer where there are fewer."""
    by_prompt: dict[str, Example] = {}
    for example in sorted(examples, key=lambda e: e.pair_id):
        by_prompt.setdefault(example.prompt_id, example)
    rows = list(by_prompt.values())
    count = min(count, len(rows))
    return [rows[(2 * i + 1) * len(rows) // (2 * count)] for i in range(count)]


class Distance:
    """KL(model ‖ base) per token over the whole vocabulary, where the rows' chosen answers are to be foretold.

    Exact at those positions and not an estimate from samples. Of the base only the last hidden states are kept, from
    which its distribution follows: the output layer is frozen and the same for both. Assumes an adapter that can be
    switched off.
    """

    def __init__(self, model: Any, rows: Sequence[Example], tokens: int, precision: str, team: Team) -> None:
        cut = [replace(row, chosen=row.chosen[:tokens], rejected=()) for row in rows]
        own = [cut[i] for i in mine(range(len(cut)), cut, team)]
        # Where all have to compute, who has no row takes the first one, for nothing.
        self._counts = bool(own)
        own = own or (cut[:1] if team.in_step else [])
        self._packed = pack(own, score_prompt=False) if own else None
        self._precision, self._team = precision, team
        self._base: torch.Tensor | None = None
        with model.disable_adapter():
            states = self._states(model)
            self._base = None if states is None else states[0]

    def _states(self, model: Any) -> tuple[torch.Tensor, torch.Tensor] | None:
        import torch

        if self._packed is None:
            return None
        with torch.no_grad(), computing(model, self._precision):
            return scored_states(model, self._packed)

    def kl(self, model: Any) -> float:
        """Nats per token, the mean over all positions of all rows."""
        import torch

        total = torch.zeros(2, dtype=torch.float64)  # nats, positions
        found = self._states(model)
        if found is not None and self._base is not None and self._counts:
            states, weight = found
            with torch.no_grad():
                for at in range(0, len(states), CHUNK):
                    here, there = (
                        torch.log_softmax((s[at : at + CHUNK] @ weight.T).float(), dim=-1) for s in (states, self._base)
                    )
                    total[0] += float((here.exp() * (here - there)).sum(dtype=torch.float64))
            total[1] = len(states)
        self._team.add(total)
        return float(total[0] / total[1])


@contextmanager
def answering(model: Any) -> Iterator[Any]:
    """The network inside an adapter's model, ready to generate; afterwards everything is as it was."""
    network = model.get_base_model()
    training, attention = model.training, network.config._attn_implementation
    on_cpu = next(network.parameters()).device.type == "cpu"
    frozen = [p for p in network.parameters() if on_cpu and not p.requires_grad and p.is_floating_point()]
    network.set_attn_implementation("sdpa")
    model.eval()
    for p in frozen:
        # No gradient is taken, but torch copies a frozen weight once per sequence when it is multiplied with one
        # position of each: seconds for every token.
        p.requires_grad_(True)
    try:
        yield network
    finally:
        for p in frozen:
            p.requires_grad_(False)
        model.train(training)
        network.set_attn_implementation(attention)


def sample(model: Any, rows: Sequence[Example], guard: Probes, precision: str, team: Team) -> list[list[int]]:
    """Token ids of one answer to each row's prompt, end token left out; a seed for each row, the same every time."""
    import torch
    from transformers import GenerationConfig, LogitsProcessorList

    from foundry_pipeline.models.hf_backend import cut, reserved_cache
    from foundry_pipeline.models.sampling import SeededSampling

    device = next(model.parameters()).device
    # In step, all answer everything: an answer's length is not known before, and nobody may stop earlier than another.
    own = list(range(len(rows))) if team.in_step else mine(range(len(rows)), rows, team)
    # Every row is filled by one process, so that the sum over all of them gathers the tokens; 0 is no answer.
    gathered = torch.zeros(len(rows), guard.max_tokens, dtype=torch.int64)
    ends: list[int] = []
    with answering(model) as network:
        told = network.generation_config.eos_token_id
        told = network.config.get_text_config().eos_token_id if told is None else told
        ends = list(told) if isinstance(told, list | tuple) else [int(told)]
        if own:
            # The sampler reads how to draw; what is asked stands in the token ids.
            requests = [
                ChatRequest(
                    rows[i].pair_id, (("user", rows[i].pair_id),), guard.max_tokens, guard.temperature, 0, 1.0, i
                )
                for i in own
            ]
            asked = [list(rows[i].prompt) for i in own]
            width = max(map(len, asked))
            ids = torch.tensor([[ends[0]] * (width - len(p)) + p for p in asked], device=device)
            mask = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in asked], device=device)
            config = GenerationConfig(
                do_sample=False,
                max_new_tokens=guard.max_tokens,
                eos_token_id=ends,
                pad_token_id=ends[0],
                use_cache=True,
            )
            with torch.no_grad(), computing(model, precision):
                out = network.generate(
                    input_ids=ids,
                    attention_mask=mask,
                    generation_config=config,
                    logits_processor=LogitsProcessorList([SeededSampling(requests)]),
                    synced_gpus=team.in_step,
                    past_key_values=reserved_cache(network.config, width + guard.max_tokens),
                )
            for place, row in zip(own, out[:, width:].cpu(), strict=True):
                gathered[place, : len(row)] = row + 1
    if team.in_step and team.rank:
        gathered.zero_()
    team.add(gathered)
    return [cut([token - 1 for token in row if token], ends)[0] for row in gathered.tolist()]
