"""The training loop: windows of pairs, one optimizer step each, resumable to the bit.

    state = State.fresh(model, values, total_steps)      # LoRA weights, AdamW, schedule, figures so far
    for step in range(state.step, total_steps):
        figures = take_step(state, examples, window, team, …)

The loss is the mean over the window's pairs (`preference/step.py`); the window is split over the team by length, every
process packs its share, and the gradients are added. A step depends on the weights, the optimizer and the window's rows
alone, so weights and optimizer are all that a checkpoint has to hold.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from foundry_pipeline.errors import FoundryError
from foundry_pipeline.launch import write_json
from foundry_pipeline.training.plan import Hyperparameters, warmup_steps
from foundry_pipeline.training.preference.layout import shares
from foundry_pipeline.training.preference.step import reference_sums, window_loss
from foundry_pipeline.training.team import Team
from foundry_pipeline.training.tokens import Example

if TYPE_CHECKING:
    import torch

SHOWN = {
    "orpo": ("loss", "nll", "margin", "accuracy", "log_odds", "chosen_logp", "rejected_logp"),
    "dpo": ("loss", "margin", "accuracy", "chosen_logp", "rejected_logp"),
    "sft": ("loss", "nll", "chosen_logp"),
}
"""What each method tells of a step: means over the window's pairs. `chosen_logp` is per token of the answer."""
TOKENS_AT_ONCE = 4096  # in one forward pass of a process; bounds the activations, not the result
_SCHEDULERS = {"cosine": "cosine", "linear": "linear", "constant": "constant_with_warmup"}


@dataclass
class State:
    """What changes while a model is trained. `buffer` holds every gradient, and each `p.grad` is a view of it.

    `history` holds the figures of every step, `events` what its guards said and did, `samples` what it answered when it
    was last asked (`watch.py`).
    """

    model: Any
    names: list[str]
    parameters: list[torch.nn.Parameter]
    buffer: torch.Tensor
    optimizer: Any
    schedule: Any
    step: int
    history: list[dict[str, float]]
    events: list[dict[str, Any]] = field(default_factory=list)
    samples: list[dict[str, str]] = field(default_factory=list)

    @classmethod
    def fresh(cls, model: Any, values: Hyperparameters, steps: int, team: Team | None = None) -> State:
        """State before the first of `steps` steps; trainable parameters are those of the adapter."""
        from transformers import get_scheduler

        trained = sorted((name, p) for name, p in model.named_parameters() if p.requires_grad)
        names, parameters = [n for n, _ in trained], [p for _, p in trained]
        zeros = (team or Team(0, 1, [])).zeros
        buffer = zeros(sum(p.numel() for p in parameters), parameters[0].dtype, parameters[0].device)
        at = 0
        for p in parameters:
            p.grad = buffer[at : at + p.numel()].view_as(p)
            at += p.numel()
        optimizer = _optimizer(parameters, values)
        schedule = get_scheduler(
            _SCHEDULERS[values.scheduler],
            optimizer,
            num_warmup_steps=warmup_steps(steps, values.warmup_fraction),
            num_training_steps=steps,
        )
        return cls(model, names, parameters, buffer, optimizer, schedule, 0, [])

    def save(self, folder: Path) -> None:
        """Write what `restore` reads: adapter.safetensors, optimizer.pt, state.json."""
        import torch
        from safetensors.torch import save_file

        save_file(
            {name: p.detach().contiguous() for name, p in zip(self.names, self.parameters, strict=True)},
            str(folder / "adapter.safetensors"),
        )
        torch.save(
            {"optimizer": self.optimizer.state_dict(), "schedule": self.schedule.state_dict()}, folder / "optimizer.pt"
        )
        told = {"step": self.step, "history": self.history, "events": self.events, "samples": self.samples}
        write_json(folder / "state.json", told)

    def restore(self, folder: Path) -> None:
        import torch
        from safetensors.torch import load_file

        weights = load_file(str(folder / "adapter.safetensors"), device=str(self.buffer.device))
        with torch.no_grad():
            for name, p in zip(self.names, self.parameters, strict=True):
                p.copy_(weights[name])
        kept = torch.load(folder / "optimizer.pt", map_location=self.buffer.device, weights_only=True)
        self.optimizer.load_state_dict(kept["optimizer"])
        self.schedule.load_state_dict(kept["schedule"])
        told = json.loads((folder / "state.json").read_text(encoding="utf-8"))
        self.step, self.history = told["step"], told["history"]
        self.events, self.samples = told["events"], told["samples"]

    def set_rate(self, rate: float) -> None:
        """Let what is left of the schedule go by another peak learning rate."""
        self.schedule.base_lrs = [rate] * len(self.optimizer.param_groups)
        now = rate * self.schedule.lr_lambdas[0](self.schedule.last_epoch)
        for group in self.optimizer.param_groups:
            group["initial_lr"], group["lr"] = rate, now
        self.schedule._last_lr = [now] * len(self.optimizer.param_groups)


def _optimizer(parameters: list[torch.nn.Parameter], values: Hyperparameters) -> Any:
    import torch

    if values.optimizer == "adamw":
        return torch.optim.AdamW(parameters, lr=values.learning_rate, weight_decay=0.0, fused=True)
    try:
        from bitsandbytes.optim import AdamW8bit
    except ImportError as error:
        raise FoundryError(
            "optimizer adamw_8bit needs the package bitsandbytes",
            where="`optimizer` of the profile, under assets/profiles/",
            mend="pip install -e '.[gpu]'   # or set `optimizer: adamw`",
        ) from error
    return AdamW8bit(parameters, lr=values.learning_rate, weight_decay=0.0)


def _batches(indices: Sequence[int], examples: Sequence[Example]) -> Iterator[list[int]]:
    """The indices in groups of at most TOKENS_AT_ONCE tokens, or of one pair where it alone has more."""
    group: list[int] = []
    size = 0
    for index in indices:
        if group and size + examples[index].tokens > TOKENS_AT_ONCE:
            yield group
            group, size = [], 0
        group.append(index)
        size += examples[index].tokens
    if group:
        yield group


def computing(model: Any, precision: str) -> Any:
    """The context in which losses are computed: matrix products in bfloat16 over a float32 adapter.

    PEFT would cast every layer's input to the adapter's float32, and autocast back to bfloat16: the same numbers, bit
    for bit, and a tenth of the time.
    """
    from contextlib import ExitStack

    import torch
    from peft.helpers import disable_input_dtype_casting

    stack = ExitStack()
    if precision == "bfloat16":
        stack.enter_context(disable_input_dtype_casting(model))
        stack.enter_context(torch.autocast(next(model.parameters()).device.type, torch.bfloat16))
    return stack


def mine(window: Sequence[int], examples: Sequence[Example], team: Team) -> list[int]:
    """The rows of a window that fall to this process."""
    parts = shares([examples[index].tokens for index in window], team.size)
    return [window[place] for place in parts[team.rank]]


def passes(indices: Sequence[int], examples: Sequence[Example], team: Team) -> Iterator[tuple[list[int], bool]]:
    """This process's rows in groups for one forward pass each, marked True.

    Where the team is in step, every process makes as many passes as the one with the most: what it lacks is filled up with
    the shortest row, marked False, whose figures and gradients are not to count.
    """
    parts = shares([examples[index].tokens for index in indices], team.size)
    own = list(_batches([indices[place] for place in parts[team.rank]], examples))
    yield from ((group, True) for group in own)
    if team.in_step and indices:
        most = max(sum(1 for _ in _batches([indices[place] for place in part], examples)) for part in parts)
        filler = min(indices, key=lambda index: (examples[index].tokens, index))
        yield from (([filler], False) for _ in range(most - len(own)))


def references(model: Any, examples: Sequence[Example], values: Hyperparameters, team: Team) -> torch.Tensor:
    """DPO's reference, (rows, 2): the model without its adapter. Every row once, the rows split over the team."""
    import torch

    out = torch.zeros(len(examples), 2, device=next(model.parameters()).device)
    with model.disable_adapter(), computing(model, values.precision):
        for group, counts in passes(range(len(examples)), examples, team):
            found = reference_sums(model, [examples[i] for i in group]).float()
            if counts:
                out[group] = found
    team.add(out)
    return out


def window_figures(
    state: State,
    examples: Sequence[Example],
    window: Sequence[int],
    values: Hyperparameters,
    team: Team,
    reference: torch.Tensor | None,
    *,
    backward: bool,
) -> dict[str, float]:
    """Mean figures of a window's pairs over the team; with `backward`, the window's gradients are in the buffer."""
    import torch

    names = SHOWN[values.method]
    sums = dict.fromkeys(names, 0.0)
    if backward:
        state.buffer.zero_()
    with torch.set_grad_enabled(backward):
        for group, counts in passes(window, examples, team):
            with computing(state.model, values.precision):
                loss, shown = window_loss(
                    state.model,
                    [examples[i] for i in group],
                    method=values.method,
                    beta=values.beta,
                    window=len(window),
                    reference=None if reference is None else reference[group],
                )
            if backward:
                (loss if counts else loss * 0.0).backward()
            for name in names if counts else ():
                sums[name] += shown[name]
    total = torch.tensor([sums[name] for name in names], dtype=torch.float64)
    team.add(total)
    if backward:
        team.add(state.buffer)
    return dict(zip(names, total.tolist(), strict=True))


def take_step(
    state: State,
    examples: Sequence[Example],
    window: Sequence[int],
    values: Hyperparameters,
    team: Team,
    reference: torch.Tensor | None,
) -> dict[str, float]:
    """One optimizer step; its figures: step, the method's own, learning_rate and grad_norm (before clipping)."""
    rate = float(state.schedule.get_last_lr()[0])
    figures = window_figures(state, examples, window, values, team, reference, backward=True)
    norm = float(state.buffer.norm())
    # as torch.nn.utils.clip_grad_norm_: never scaled up
    state.buffer.mul_(min(1.0, values.max_grad_norm / (norm + 1e-6)))
    state.optimizer.step()
    state.schedule.step()
    state.step += 1
    found = {"step": state.step, **figures, "learning_rate": rate, "grad_norm": norm}
    state.history.append(found)
    return found


def mean_loss(
    state: State,
    examples: Sequence[Example],
    values: Hyperparameters,
    team: Team,
    reference: torch.Tensor | None,
    size: int,
) -> float:
    """Mean loss over all rows of `examples`, no gradients, `size` rows at a time."""
    total = 0.0
    for at in range(0, len(examples), size):
        window = list(range(at, min(len(examples), at + size)))
        figures = window_figures(state, examples, window, values, team, reference, backward=False)
        total += figures["loss"] * len(window)
    return total / len(examples)
