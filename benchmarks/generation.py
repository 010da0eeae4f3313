"""Batched generation beside one by one: 36 questions × 128 tokens, the same llama.cpp build, file and threads.

    python -m benchmarks.generation                       # writes benchmarks/results/generation-laptop.md
    python -m benchmarks.generation --prompts 4 --tokens 8 --rounds 1 --no-write

Three sides, each in a process of its own that has loaded the model and answered one short prompt before its clock starts:

    batched       this project's backend, all prompts as one group
    alone         the same backend, groups of one
    high-level    llama-cpp-python's `Llama.create_chat_completion`, prompt after prompt in one context

All are greedy and bounded alike, and each type of file is measured: BF16 (which the chain's student is decoded from), F16
and Q8_0 made from the packaged model, and Q4_1 as it is packaged. How many answers come out the same batched and alone is counted. The sides take turns and the best
round of each counts, so that a busy moment of the machine does not decide. The ratio is to the faster of the two that
work one by one.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

from benchmarks.chain import machine
from foundry_pipeline.declarations import load
from foundry_pipeline.declarations.assets import PypiModel
from foundry_pipeline.models.base import pypi_file
from foundry_pipeline.models.requests import ChatRequest, ModelRef
from foundry_pipeline.settings import find_root

SIDES = {
    "batched": "this backend, one group of all prompts",
    "alone": "this backend, groups of one",
    "high-level": "llama-cpp-python `Llama`, one by one",
}


TYPES = ("bf16", "f16", "q8_0", "q4_1")


def of_type(source: Path, kind: str, folder: Path) -> Path:
    """The packaged model (Q4_1) as a file of another type."""
    if kind == "q4_1":
        return source
    import llama_cpp

    from foundry_pipeline.models.llama_log import silence

    silence()
    params = llama_cpp.llama_model_quantize_default_params()
    params.ftype = getattr(llama_cpp, f"LLAMA_FTYPE_MOSTLY_{kind.upper()}")
    target = folder / f"{kind}.gguf"
    params.allow_requantize = True
    if llama_cpp.llama_model_quantize(str(source).encode(), str(target).encode(), params) != 0:
        raise SystemExit(f"llama.cpp could not make {kind} of the packaged model")
    return target


def requests_of(prompts: list[str], tokens: int) -> list[ChatRequest]:
    """Greedy requests of one user message each."""
    return [ChatRequest(f"p{i}", (("user", p),), tokens, 0.0, 0, 1.0, 0) for i, p in enumerate(prompts)]


def answer_with_backend(spec: dict[str, Any], *, together: bool) -> dict[str, Any]:
    from foundry_pipeline.models.llama_backend import LlamaBackend

    ref = ModelRef("llama_cpp", spec["model"], "0" * 64, None, None, "benchmark")
    backend = LlamaBackend(ref, threads=spec["threads"])
    requests = requests_of(spec["prompts"], spec["tokens"])
    backend.answer(requests_of(["Good day."], 4), ["warm"])
    groups = [requests] if together else [[request] for request in requests]
    started = time.perf_counter()
    replies = [reply for group in groups for reply in backend.answer(group, [r.request_id for r in group])]
    seconds = time.perf_counter() - started
    tokens = sum(r.completion_tokens for r in replies)
    return {"seconds": seconds, "tokens": tokens, "texts": [r.text for r in replies]}


def answer_high_level(spec: dict[str, Any]) -> dict[str, Any]:
    from llama_cpp import Llama

    model: Any = Llama(
        spec["model"], n_ctx=1024, n_threads=spec["threads"], n_threads_batch=spec["threads"], flash_attn=True,
        verbose=False,
    )  # fmt: skip

    def ask(prompt: str, tokens: int) -> Any:
        said = [{"role": "user", "content": prompt}]
        return model.create_chat_completion(said, max_tokens=tokens, temperature=0.0)

    ask("Good day.", 4)
    started = time.perf_counter()
    replies = [ask(prompt, spec["tokens"]) for prompt in spec["prompts"]]
    seconds = time.perf_counter() - started
    tokens = sum(r["usage"]["completion_tokens"] for r in replies)
    return {"seconds": seconds, "tokens": tokens, "texts": [r["choices"][0]["message"]["content"] for r in replies]}


def measure(spec: dict[str, Any], side: str) -> dict[str, Any]:
    """One round of one side in a fresh process."""
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.generation", "--side", side],
        input=json.dumps(spec),
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def table(kind: str, best: dict[str, dict[str, Any]], prompts: int) -> list[str]:
    """The results of one type of file as Markdown."""
    rate = {side: r["tokens"] / r["seconds"] for side, r in best.items()}
    peer = max((s for s in rate if s != "batched"), key=lambda s: rate[s])
    agree = sum(a == b for a, b in zip(best["batched"]["texts"], best["alone"]["texts"], strict=True))
    return [
        f"## {kind.upper()}",
        "",
        "| side | tokens | seconds | tokens/s |",
        "|---|---:|---:|---:|",
        *(f"| {SIDES[side]} | {r['tokens']:,} | {r['seconds']:.2f} | {rate[side]:.0f} |" for side, r in best.items()),
        "",
        f"Batched over the faster of the other two ({SIDES[peer]}): **{rate['batched'] / rate[peer]:.2f}×**. "
        f"{agree} of {prompts} answers are the same word for word batched and in groups of one.",
        "",
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prompts", type=int, default=36)
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--no-write", action="store_true")
    parser.add_argument("--side", choices=list(SIDES), help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.side:
        spec = json.load(sys.stdin)
        if asked.side == "high-level":
            found = answer_high_level(spec)
        else:
            found = answer_with_backend(spec, together=asked.side == "batched")
        print(json.dumps(found))
        return
    root = find_root()
    declarations = load(root, "laptop")
    model = declarations.profile.models[declarations.base_model(declarations.profile.student)]
    assert isinstance(model, PypiModel)
    suite = [p.text for p in declarations.characters["madison"].suite.prompts]
    prompts = suite[: asked.prompts]
    lines = [
        "# Batched generation beside one by one",
        "",
        f"Machine: {machine()}; llama-cpp-python {version('llama-cpp-python')}, {asked.threads} threads.",
        f"{model.file}, {len(prompts)} questions of the evaluation suite, greedy, at most {asked.tokens} tokens each; best "
        f"of {asked.rounds} rounds, the sides in turn, each round in a fresh process.",
        "",
    ]
    with tempfile.TemporaryDirectory() as folder:
        for kind in TYPES:
            gguf = of_type(pypi_file(model), kind, Path(folder))
            spec = {"model": str(gguf), "prompts": prompts, "tokens": asked.tokens, "threads": asked.threads}
            rounds = [{side: measure(spec, side) for side in SIDES} for _ in range(asked.rounds)]
            best = {side: min((r[side] for r in rounds), key=lambda r: r["seconds"] / r["tokens"]) for side in SIDES}
            lines += table(kind, best, len(prompts))
    told = "\n".join(lines)
    print(told)
    if not asked.no_write:
        path = root / "benchmarks" / "results" / "generation-laptop.md"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(told, encoding="utf-8")


if __name__ == "__main__":
    main()
