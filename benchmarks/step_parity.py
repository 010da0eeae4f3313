"""The project's step against TRL on real pairs: errors of one window, and where sixty steps end: `python -m benchmarks.step_parity`.

Pairs are those of the profile's own datasets, the shortest first, on its base model. One window: loss and gradients of
every LoRA matrix by TRL in float64 are the truth; told is how far TRL in float32, TRL under bfloat16 autocast, and the
project's step in float32 and in bfloat16 are from it (all gradients together, in norm). Sixty steps of one pair each, for
three seeds of adapter and order: the mean loss over the last twenty, TRL under autocast beside the project's step, both
from the same adapter and in the same order. Writes `benchmarks/results/step-parity-<profile>.md`.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import polars as pl

from benchmarks.chain import machine
from foundry_pipeline.chain.graph import load_chain
from foundry_pipeline.settings import load_settings
from foundry_pipeline.training.tokens import Example, load_examples

DATASET = "madison_dataset_v6"
BETA, RANK, RATE = 0.1, 16, 2e-4
SEEDS, STEPS, LAST = (1, 2, 3), 60, 20
WINDOW = 4


def adapted(base: Path, dtype: str, seed: int, *, zero: bool = True) -> Any:
    """The base with a fresh adapter in float32 (float64 for a float64 base); `zero`: the second matrices begin at zero."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    torch.manual_seed(seed)
    model: Any = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32, local_files_only=True)
    model.config.use_cache = False
    lora = LoraConfig(r=RANK, lora_alpha=RANK, target_modules="all-linear", task_type="CAUSAL_LM")
    model = get_peft_model(model, lora)
    if not zero:
        for name, p in model.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(p, std=0.01)
    if dtype == "float64":
        return model.double()
    if dtype == "bfloat16":
        for p in model.parameters():
            if not p.requires_grad:
                p.data = p.data.to(torch.bfloat16)
    return model


def gradients(model: Any) -> Any:
    import torch

    named = sorted((n, p.grad) for n, p in model.named_parameters() if p.grad is not None)
    return torch.cat([g.double().flatten() for _, g in named])


def by_trl(base: Path, tokenizer: Any, pairs: Sequence[Example], dtype: str, *, autocast: bool) -> tuple[float, Any]:
    """(loss, all gradients) of one window by TRL."""
    import torch

    from benchmarks.trl_peer import trl_loss, trl_trainer

    trainer = trl_trainer(adapted(base, dtype, 0, zero=False), tokenizer, pairs, method="orpo", beta=BETA)
    model = trainer.model.double() if dtype == "float64" else trainer.model
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        loss = trl_loss(trainer, pairs, method="orpo")
    loss.backward()
    return float(loss.detach()), gradients(model)


def by_us(base: Path, pairs: Sequence[Example], precision: str) -> tuple[float, Any]:
    """The same by the project's step."""
    from foundry_pipeline.training.loop import computing
    from foundry_pipeline.training.preference import attention
    from foundry_pipeline.training.preference.lora import fuse
    from foundry_pipeline.training.preference.step import window_loss

    model = adapted(base, precision, 0, zero=False)
    attention.prepare(model.get_base_model())
    fuse(model)
    with computing(model, precision):
        loss, _ = window_loss(model, pairs, method="orpo", beta=BETA, window=len(pairs))
    loss.backward()
    return float(loss.detach()), gradients(model)


def one_window(base: Path, tokenizer: Any, pairs: Sequence[Example]) -> dict[str, tuple[float, float]]:
    """Side → relative errors of (loss, gradients) against TRL in float64."""
    loss, truth = by_trl(base, tokenizer, pairs, "float64", autocast=False)
    found = {
        "TRL, float32": by_trl(base, tokenizer, pairs, "float32", autocast=False),
        "the project's step, float32": by_us(base, pairs, "float32"),
        "TRL, bfloat16 autocast": by_trl(base, tokenizer, pairs, "float32", autocast=True),
        "the project's step, bfloat16": by_us(base, pairs, "bfloat16"),
    }
    return {
        side: (abs(its - loss) / loss, float((its_gradients - truth).norm() / truth.norm()))
        for side, (its, its_gradients) in found.items()
    }


def trajectory(base: Path, tokenizer: Any, pairs: Sequence[Example], seed: int, *, trl: bool) -> list[float]:
    """Loss of each of STEPS steps of one pair."""
    import torch

    from benchmarks.trl_peer import trl_loss, trl_trainer
    from foundry_pipeline.training.loop import computing
    from foundry_pipeline.training.preference import attention
    from foundry_pipeline.training.preference.lora import fuse
    from foundry_pipeline.training.preference.step import window_loss

    order = random.Random(seed).sample(range(len(pairs)), STEPS)
    model = adapted(base, "float32" if trl else "bfloat16", seed)
    trainer = trl_trainer(model, tokenizer, pairs, method="orpo", beta=BETA) if trl else None
    model = trainer.model if trainer else model
    if trainer is None:
        attention.prepare(model.get_base_model())
        fuse(model)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=RATE, weight_decay=0.0)
    told = []
    for index in order:
        if trainer is None:
            with computing(model, "bfloat16"):
                loss, _ = window_loss(model, [pairs[index]], method="orpo", beta=BETA, window=1)
        else:
            with torch.autocast("cpu", torch.bfloat16):
                loss = trl_loss(trainer, [pairs[index]], method="orpo")
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        told.append(float(loss.detach()))
    return told


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--window-only", action="store_true", help="leave out the sixty steps")
    asked = parser.parse_args()
    import torch
    from transformers import AutoTokenizer

    settings = load_settings()
    d, chain = load_chain(settings)
    name = sorted(set(d.profile.bases.values()))[0]
    base = chain.require(f"base_model_{name}").artifact.payload / "dense"
    parquet = chain.require(DATASET).artifact.payload / "pairs.parquet"
    torch.set_num_threads(d.profile.threads)
    tokenizer = AutoTokenizer.from_pretrained(base, local_files_only=True)
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    examples, _ = load_examples(parquet, tokenizer, "orpo", 512)
    pairs = sorted({e.pair_id: e for e in examples}.values(), key=lambda e: (e.tokens, e.pair_id))[: 2 * STEPS]
    used = pl.Series([e.tokens for e in pairs])
    lines = [
        "# The preference step (ORPO) against TRL on real pairs", "", f"Machine: {machine()}", "",
        f"{d.profile.models[name].title}; {DATASET}, its {len(pairs)} shortest pairs ({used.min()} to {used.max()} tokens); "
        f"LoRA r = {RANK} on all linear layers, beta {BETA}.", "",
        f"## One window of {WINDOW} pairs: relative error against TRL in float64", "",
        "| side | loss | all LoRA gradients |", "|---|---:|---:|",
    ]  # fmt: skip
    for side, (loss, gradient) in one_window(base, tokenizer, pairs[:: len(pairs) // WINDOW][:WINDOW]).items():
        lines.append(f"| {side} | {loss:.1e} | {gradient:.1e} |")
        print(lines[-1], flush=True)
    if not asked.window_only:
        lines += [
            "", f"## {STEPS} steps of one pair, learning rate {RATE:g}: mean loss over the last {LAST}", "",
            "| seed | TRL, bfloat16 autocast | the project's step, bfloat16 | difference |", "|---|---:|---:|---:|",
        ]  # fmt: skip
        ends: dict[bool, list[float]] = {True: [], False: []}
        for seed in SEEDS:
            for trl in (True, False):
                started = time.monotonic()
                ends[trl].append(statistics.mean(trajectory(base, tokenizer, pairs, seed, trl=trl)[-LAST:]))
                print(f"seed {seed}, {'TRL' if trl else 'ours'}: {time.monotonic() - started:.0f} s", file=sys.stderr)
            theirs, ours = ends[True][-1], ends[False][-1]
            lines.append(f"| {seed} | {theirs:.4f} | {ours:.4f} | {ours - theirs:+.4f} |")
            print(lines[-1], flush=True)
        apart = [abs(a - b) for a, b in zip(ends[True], ends[False], strict=True)]
        lines += [
            "",
            f"TRL's own ends differ between seeds by a standard deviation of {statistics.stdev(ends[True]):.4f}; ours are at "
            f"most {max(apart):.4f} from TRL's.",
        ]
    target = settings.root / "benchmarks" / "results" / f"step-parity-{settings.profile}.md"
    target.write_text("\n".join(lines) + "\n", encoding="utf-8")
    print(json.dumps({"written": str(target)}))


if __name__ == "__main__":
    main()
