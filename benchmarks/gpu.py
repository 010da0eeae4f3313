"""A full-size preference step on one CUDA card, beside TRL with Liger: `python -m benchmarks.gpu [--layers 64]`.

A model of Qwen3-32B's shape (that of `assets/profiles/full.yaml`) with random weights in bfloat16, a LoRA of rank 64 on every
linear layer, gradient checkpointing, ORPO on pairs whose two sequences have `--length` tokens each, a sixteenth of them
prompt. The card's peak is measured in the same run, by products of large bfloat16 matrices. Both sides are told in seconds a
pair and in tokens of whole sequences a second (2 × length a pair, whichever side computes them once or twice); the share of
the peak counts the operations that a pair cannot do without: forward and backward once, the prompt once.

Every measurement is a process of its own. Writes `benchmarks/results/gpu-<card>.md`. Without a CUDA card it says so and ends
with exit code 1; `--rehearse` runs the same code in a tiny shape on the processor and writes nothing.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import yaml

from foundry_pipeline.errors import FoundryError
from foundry_pipeline.training import size
from foundry_pipeline.training.effort import Lengths, operations

ROOT = Path(__file__).resolve().parents[1]
RANK, WINDOW = 64, 2  # pairs a step; more of them change the optimizer's share only
TINY: dict[str, Any] = {
    "model_type": "qwen3", "vocab_size": 512, "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16, "tie_word_embeddings": False,
}  # fmt: skip


def shape_of(layers: int | None, *, rehearse: bool) -> dict[str, Any]:
    """The configuration that is measured: Qwen3-32B's as the profile `full` has it, with fewer layers if asked for."""
    declared = yaml.safe_load((ROOT / "assets/profiles/full.yaml").read_text(encoding="utf-8"))
    config = dict(TINY if rehearse else declared["models"]["qwen3_32b"]["architecture"])
    if layers:
        config["num_hidden_layers"] = layers
    config.pop("layer_types", None)
    return config


def lengths_of(length: int) -> Lengths:
    prompt = max(1, length // 16)
    return Lengths(prompt, length - prompt, length - prompt)


def random_model(config: dict[str, Any], device: str) -> Any:
    """Made on the device in bfloat16, without a copy anywhere else."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    fields = dict(config)
    torch.manual_seed(0)
    with torch.device(device):
        return AutoModelForCausalLM.from_config(
            AutoConfig.for_model(fields.pop("model_type"), **fields), dtype=torch.bfloat16
        )


def with_adapter(model: Any) -> Any:
    from peft import LoraConfig, get_peft_model

    model.config.use_cache = False
    model = get_peft_model(
        model, LoraConfig(r=RANK, lora_alpha=RANK, target_modules="all-linear", task_type="CAUSAL_LM")
    )
    model.enable_input_require_grads()
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    return model.train()


def pairs(config: dict[str, Any], length: int, count: int) -> list[Any]:
    from foundry_pipeline.training.tokens import Example

    draw, told = random.Random(0), lengths_of(length)
    take = lambda n: tuple(draw.randrange(3, config["vocab_size"]) for _ in range(int(n)))  # noqa: E731
    return [Example(str(i), str(i), 1, take(told.prompt), take(told.chosen), take(told.rejected)) for i in range(count)]


def ours(config: dict[str, Any], length: int, steps: int, device: str) -> dict[str, Any]:
    """The trainer's own step, as it runs on a GPU."""
    from foundry_pipeline.training.loop import State, take_step
    from foundry_pipeline.training.plan import Hyperparameters
    from foundry_pipeline.training.preference.attention import prepare
    from foundry_pipeline.training.team import Team

    values = Hyperparameters(
        method="orpo", epochs=1, learning_rate=2e-5, beta=0.1, lora_rank=RANK, lora_alpha=RANK,
        lora_targets="all-linear", batch_size=1, gradient_accumulation=WINDOW, max_grad_norm=1.0, max_length=2 * length,
        warmup_fraction=0.0, scheduler="constant", optimizer="adamw", precision="bfloat16", validation_fraction=0.0,
    )  # fmt: skip
    model = random_model(config, device)
    prepare(model, "sdpa")
    state = State.fresh(with_adapter(model), values, steps + 1)
    rows = pairs(config, length, WINDOW)
    return timed(lambda: take_step(state, rows, range(WINDOW), values, Team(0, 1, []), None), steps, device)


def trl(config: dict[str, Any], length: int, steps: int, device: str) -> dict[str, Any]:
    """TRL's own ORPO loss under autocast, on a model with Liger's kernels where liger-kernel is installed."""
    import torch

    from benchmarks.trl_peer import trl_loss, trl_trainer, word_tokenizer

    model = random_model(config, device)
    with_liger = False
    if device != "cpu":
        try:
            from liger_kernel.transformers import _apply_liger_kernel_to_instance
        except ImportError:
            pass
        else:
            # TRL's loss wants the logits, which the fused output layer would not give.
            _apply_liger_kernel_to_instance(model=model, cross_entropy=False, fused_linear_cross_entropy=False)
            with_liger = True
    rows = pairs(config, length, WINDOW)
    trainer = trl_trainer(with_adapter(model), word_tokenizer(), rows, method="orpo", beta=0.1, device=device)
    model = trainer.model.train()
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=2e-5, fused=True)

    def step() -> None:
        for row in rows:
            with torch.autocast(torch.device(device).type, torch.bfloat16):
                loss = trl_loss(trainer, [row], method="orpo") / WINDOW
            loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    return timed(step, steps, device) | {"liger": with_liger}


def peak(device: str) -> dict[str, Any]:
    """What the card does in large bfloat16 products, the best of several, in operations a second."""
    import torch

    n = 8192 if device != "cpu" else 256
    a, b = (torch.randn(n, n, device=device, dtype=torch.bfloat16) for _ in range(2))
    for _ in range(5):
        a @ b
    best = float("inf")
    for _ in range(10):
        wait(device)
        started = time.perf_counter()
        for _ in range(10):
            a @ b
        wait(device)
        best = min(best, (time.perf_counter() - started) / 10)
    name = torch.cuda.get_device_name() if device != "cpu" else "cpu"
    return {"peak": 2 * n**3 / best, "card": name, "torch": torch.__version__}


def wait(device: str) -> None:
    import torch

    if device != "cpu":
        torch.cuda.synchronize()


def timed(step: Any, steps: int, device: str) -> dict[str, Any]:
    """Median seconds a pair after one step of warming up, and the most memory held."""
    import torch

    seconds = []
    for _ in range(steps + 1):
        wait(device)
        started = time.perf_counter()
        step()
        wait(device)
        seconds.append((time.perf_counter() - started) / WINDOW)
    held = torch.cuda.max_memory_allocated() if device != "cpu" else 0
    return {"seconds": statistics.median(seconds[1:]), "bytes": held}


SIDES = {"ours": ours, "trl": trl}


def apart(side: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """Measure one side in a process of its own; `{"failed": why}` where it ran out of memory or broke."""
    line = [sys.executable, "-m", "benchmarks.gpu", "--side", side, "--length", str(arguments.length)]
    line += ["--steps", str(arguments.steps), *(["--rehearse"] if arguments.rehearse else [])]
    line += ["--layers", str(arguments.layers)] if arguments.layers else []
    done = subprocess.run(line, capture_output=True, text=True, check=False)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or [f"ended with code {done.returncode}"])[-1]
        return {"failed": "out of memory" if "OutOfMemory" in done.stderr else last[:160]}
    found: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return found


def row(title: str, found: dict[str, Any], needed: float, arguments: argparse.Namespace, peak: float) -> str:
    """A line of the table; `needed` operations a pair."""
    if "failed" in found:
        return f"| {title} | {found['failed']} | – | – | – |"
    seconds = found["seconds"]
    rate = 2 * arguments.length / seconds
    return f"| {title} | {seconds:.3f} | {rate:,.0f} | {needed / seconds / peak:.1%} | {found['bytes'] / 2**30:.1f} |"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", type=int, help="fewer layers than the 64 of Qwen3-32B, for a smaller card")
    parser.add_argument("--length", type=int, default=2048, help="tokens of prompt and answer together")
    parser.add_argument("--steps", type=int, default=4, help="steps that are timed")
    parser.add_argument("--rehearse", action="store_true", help="a tiny shape on the processor; nothing is written")
    parser.add_argument("--side", choices=[*SIDES, "peak"], help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.length < 32 or arguments.steps < 1 or (arguments.layers is not None and arguments.layers < 1):
        parser.error("--length is 32 or more, --steps and --layers 1 or more")
    import torch

    if not torch.cuda.is_available() and not arguments.rehearse:
        print(
            f"no CUDA GPU here (torch {torch.__version__}): nothing was measured and nothing written. "
            "`--rehearse` tries the same code in a tiny shape on the processor.",
            file=sys.stderr,
        )
        return 1
    device = "cpu" if arguments.rehearse else "cuda"
    config = shape_of(arguments.layers, rehearse=arguments.rehearse)
    if arguments.side:
        found = peak(device) if arguments.side == "peak" else SIDES[arguments.side](config, arguments.length, arguments.steps, device)  # fmt: skip
        print(json.dumps(found))
        return 0
    card = apart("peak", arguments)
    if "failed" in card:
        raise FoundryError(f"the card's peak could not be measured: {card['failed']}", where=device, mend="nvidia-smi")
    shape, told = size.measure(config), lengths_of(arguments.length)
    needed = operations(shape, told, method="orpo", rank=RANK, recompute=False)
    lines = [
        f"# The preference step (ORPO) on {card['card']}" + (" (REHEARSAL, tiny shape)" if arguments.rehearse else ""),
        "",
        f"{config['num_hidden_layers']} layers of Qwen3-32B's shape with random weights ({shape.parameters / 1e9:.2f} "
        f"billion parameters), bfloat16, LoRA r = {RANK} on all linear layers, gradient checkpointing, sequences of "
        f"{arguments.length:,} tokens. Measured peak: {card['peak'] / 1e12:.0f} TFLOP/s in bfloat16, torch {card['torch']}.",
        "",
        "| side | s/pair | tokens/s | share of the measured peak | peak GiB |",
        "|---|---:|---:|---:|---:|",
    ]
    for side in SIDES:
        found = apart(side, arguments)
        title = "ours" if side == "ours" else "TRL with Liger" if found.get("liger") else "TRL (liger-kernel missing)"
        lines.append(row(title, found, needed, arguments, card["peak"]))
        print(lines[-1], flush=True)
    if arguments.rehearse:
        print("\n".join(lines))
        return 1 if any("failed" in line or "Error" in line for line in lines) else 0
    name = re.sub(r"[^a-z0-9]+", "-", card["card"].lower()).strip("-")
    target = ROOT / "benchmarks" / "results" / f"gpu-{name}.md"
    target.write_text("\n".join(lines) + "\n", encoding="utf-8")
    print(target)
    return 0


if __name__ == "__main__":
    sys.exit(main())
