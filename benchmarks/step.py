"""Seconds a preference pair takes: the project's step beside TRL's, at three lengths, in one run: `python -m benchmarks.step`.

Every measurement is a process of its own on the real base model with a LoRA of rank 64 on all linear layers, four pairs
an optimizer step, ORPO. The project's side is its training script as the chain runs it. TRL's sides are its trainer's
own loss on the same tokens, forward, backward and optimizer, in float32 and under bfloat16 autocast. The floor is the
floating-point work that cannot be left out (base, adapter and vocabulary, forward and backward, prompt once) at the
speed this machine multiplies bfloat16 matrices of the model's own shape. Writes `benchmarks/results/step-<profile>.md`.
"""

from __future__ import annotations

import json
import random
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import polars as pl

from benchmarks.chain import machine
from foundry_pipeline.chain.graph import load_chain
from foundry_pipeline.launch import read_facts, run_script
from foundry_pipeline.settings import load_settings
from foundry_pipeline.training.plan import MODULE, Hyperparameters

LENGTHS = (150, 450, 900)  # tokens of prompt, chosen and rejected together
WINDOW, STEPS = 4, 4  # the first step warms up and is not counted
VALUES: dict[str, Any] = {
    "method": "orpo", "epochs": 1, "learning_rate": 2e-5, "beta": 0.1, "lora_rank": 64, "lora_alpha": 64,
    "lora_targets": "all-linear", "batch_size": 1, "gradient_accumulation": WINDOW, "max_grad_norm": 1.0,
    "max_length": 2048, "warmup_fraction": 0.0, "scheduler": "constant", "optimizer": "adamw",
    "precision": "bfloat16", "validation_fraction": 0.0,
}  # fmt: skip


def write_pairs(path: Path, length: int, tokenizer: Any) -> None:
    """Pairs of random words, of a fixed number of tokens: 15 % prompt, 50 % chosen, 35 % rejected."""
    draw = random.Random(length)
    # words that are one token each with a space before them
    known = [w for w in ("union", "state", "law", "people", "power", "peace", "war", "trade", "right", "senate")
             if len(tokenizer(" " + w, add_special_tokens=False)["input_ids"]) == 1]  # fmt: skip
    frame = len(tokenizer.apply_chat_template([{"role": "user", "content": ""}], tokenize=True,
                                              add_generation_prompt=True)["input_ids"])  # fmt: skip
    sizes = {"prompt": max(3, int(0.15 * length) - frame), "chosen": int(0.5 * length), "rejected": int(0.35 * length)}
    rows = [
        {"pair_id": f"{n:04}", "prompt_id": f"{n:04}", "upsample": 1}
        | {side: " ".join(draw.choice(known) for _ in range(size)) for side, size in sizes.items()}
        for n in range(WINDOW * STEPS)
    ]
    pl.DataFrame(rows).write_parquet(path)


def one_trl(precision: str, base: Path, parquet: Path, threads: int) -> dict[str, float]:
    """TRL's loss over the windows, in this process."""
    from foundry_pipeline.training import machine as settings

    settings.keep_freed_memory()
    settings.make_repeatable(0, threads)
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from benchmarks.trl_peer import trl_loss, trl_trainer
    from foundry_pipeline.training.tokens import load_examples

    tokenizer = AutoTokenizer.from_pretrained(base, local_files_only=True)
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32, local_files_only=True)
    model.config.use_cache = False
    model = get_peft_model(model, LoraConfig(r=64, lora_alpha=64, target_modules="all-linear", task_type="CAUSAL_LM"))
    examples, _ = load_examples(parquet, tokenizer, "orpo", 2048)
    trainer = trl_trainer(model, tokenizer, examples, method="orpo", beta=0.1)
    model = trainer.model.train()
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=2e-5, fused=True)
    seconds = []
    for at in range(0, len(examples), WINDOW):
        started = time.perf_counter()
        for example in examples[at : at + WINDOW]:
            with torch.autocast("cpu", torch.bfloat16, enabled=precision == "autocast"):
                loss = trl_loss(trainer, [example], method="orpo") / WINDOW
            loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        seconds.append(time.perf_counter() - started)
    return {"pair": sorted(seconds[1:])[len(seconds[1:]) // 2] / WINDOW, "peak": _peak()}


def one_ours(base: Path, parquet: Path, threads: int, work: Path) -> dict[str, float]:
    """The training script as the chain runs it; the median step between two lines of its figures."""
    spec = {
        "run": "bench", "base_dir": str(base), "base_hash": "b", "dataset_parquet": str(parquet), "dataset_hash": "d",
        "method": "orpo", "declared": {}, "effective": Hyperparameters(**VALUES).__dict__, "seed": 1,
        "threads": threads, "save_every_steps": 1000,
    }  # fmt: skip
    run_script(MODULE, spec, work)
    facts = read_facts(work)
    seen = facts["step_seconds"][1:]
    return {"pair": sorted(seen)[len(seen) // 2] / WINDOW, "peak": float(facts["peak_memory_bytes"])}


def floor(base: Path, length: int, threads: int) -> float:
    """Seconds a pair cannot be computed in less, on this machine: operations over its bfloat16 matrix speed."""
    import torch

    torch.set_num_threads(threads)
    config = json.loads((base / "config.json").read_text())
    width, inner, layers = config["hidden_size"], config["intermediate_size"], config["num_hidden_layers"]
    a, b = torch.randn(1024, width).bfloat16(), torch.randn(width, inner).bfloat16()
    times = []
    for _ in range(30):
        started = time.perf_counter()
        for _ in range(20):
            a @ b
        times.append((time.perf_counter() - started) / 20)
    speed = 2 * 1024 * width * inner / min(times)
    kv = config["num_key_value_heads"] * (width // config["num_attention_heads"])
    linear = layers * (2 * width * width + 2 * width * kv + 3 * width * inner)
    shapes = [(width, width)] * 2 + [(width, kv)] * 2 + [(width, inner)] * 2 + [(inner, width)]
    adapter = layers * sum(64 * (i + o) for i, o in shapes)
    vocabulary = config["vocab_size"] * width
    # forward and gradient of the activations; for the adapter its own gradient as well
    return length * (4 * linear + 6 * adapter + 4 * vocabulary) / speed


def _peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024.0


def _apart(*arguments: str) -> dict[str, float]:
    out = subprocess.run(
        [sys.executable, "-m", "benchmarks.step", *arguments], check=True, stdout=subprocess.PIPE, text=True
    ).stdout
    found: dict[str, float] = json.loads(out.strip().splitlines()[-1])
    return found


def main() -> None:
    settings = load_settings()
    d, chain = load_chain(settings)
    name = sorted(set(d.profile.bases.values()))[0]
    base = chain.require(f"base_model_{name}").artifact.payload / "dense"
    threads = d.profile.threads
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(base, local_files_only=True)
    lines = [
        "# The preference step (ORPO) beside TRL's", "", f"Machine: {machine()}", "",
        f"Model: {d.profile.models[name].title}; LoRA r = 64 on all linear layers; {WINDOW} pairs a step; "
        f"{threads} threads each side.", "",
        "| tokens a pair | TRL float32, s/pair | TRL autocast | ours | × float32 | × autocast | share of the floor | "
        "peak GB, TRL autocast | peak GB, ours (all processes) |",
        "|---:|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]  # fmt: skip
    for length in LENGTHS:
        with tempfile.TemporaryDirectory() as folder:
            parquet = Path(folder) / "pairs.parquet"
            write_pairs(parquet, length, tokenizer)
            common = (str(base), str(parquet), str(threads))
            exact, auto = _apart("float32", *common), _apart("autocast", *common)
            ours = one_ours(base, parquet, threads, Path(folder) / "work")
            least = floor(base, length, threads)
        lines.append(
            f"| {length} | {exact['pair']:.2f} | {auto['pair']:.2f} | {ours['pair']:.2f} "
            f"| {exact['pair'] / ours['pair']:.1f} | {auto['pair'] / ours['pair']:.1f} | {least / ours['pair']:.0%} "
            f"| {auto['peak'] / 1e9:.1f} | {ours['peak'] / 1e9:.1f} |"
        )
        print(lines[-1], flush=True)
    target = settings.root / "benchmarks" / "results" / f"step-{settings.profile}.md"
    target.write_text("\n".join(lines) + "\n", encoding="utf-8")
    print(target)


if __name__ == "__main__":
    if len(sys.argv) == 5:
        print(json.dumps(one_trl(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]), int(sys.argv[4]))))
    else:
        main()
