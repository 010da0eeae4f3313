"""What an importance matrix from training text does to a run's quantized files: `python -m benchmarks.imatrix [RUN]`.

For each number of tokens the matrix is made from the run's own pairs, the merged weights are quantized with it, and the next-
token predictions of every file are compared, over held-out text that neither training nor the matrix has seen, with those of
the adapter on its base in 32 bits: the reference of export parity. Beside them the same file without a matrix. The
difference of two files' KL has an interval by bootstrap over the passages that are read (1,000 draws, 95 %).
Writes `benchmarks/results/imatrix-<profile>.md`.
"""

from __future__ import annotations

import random
import sys
import tempfile
from pathlib import Path
from typing import Any

import polars as pl

from benchmarks.chain import machine
from foundry_pipeline.chain.engine import Chain
from foundry_pipeline.chain.frames import held_out_texts
from foundry_pipeline.chain.graph import load_chain
from foundry_pipeline.chain.model_stages import base_asset, dense_dir, model_refs
from foundry_pipeline.errors import FoundryError
from foundry_pipeline.export.distance import log_probabilities, spans_of
from foundry_pipeline.export.gguf import WEIGHTED, write_gguf
from foundry_pipeline.export.imatrix import measure
from foundry_pipeline.export.served import Asked, ServedGguf, ServedWeights
from foundry_pipeline.lineage.store import Artifact
from foundry_pipeline.models.requests import ChatRequest, ModelRef
from foundry_pipeline.settings import load_settings

READ = (4_096, 32_768)  # tokens that a matrix is made from
TOKENS, EACH = 2_048, 64  # of held-out text, in all and after one prompt


def held(chain: Chain, name: str) -> Artifact:
    """The artifact as declared now, or the only one of this name that the store holds."""
    found = chain.resolve(name).record
    hashes = {found.content_hash} if found else {r.content_hash for r in chain.store.records() if r.name == name}
    if len(hashes) != 1:
        raise FoundryError(f"{name} is not built", where=str(chain.store.root), mend=f"dagster asset materialize --select '*{name}'")  # fmt: skip
    return chain.store.open(hashes.pop(), name=name)


def kls(reference: Any, logits: Any, spans: list[Any]) -> list[float]:
    """Summed KL in nats of each span."""
    found = log_probabilities(logits)
    each = (reference.exp() * (reference - found)).sum(1).double().clamp_min(0)
    out, at = [], 0
    for span in spans:
        out.append(float(each[at : at + len(span.text)].sum()))
        at += len(span.text)
    return out


def interval(one: list[float], other: list[float], lengths: list[int]) -> tuple[float, float, float]:
    """Mean difference of KL per token, and its interval over draws of the spans."""
    draw = random.Random(0)

    def mean(places: list[int]) -> float:
        return sum(one[i] - other[i] for i in places) / sum(lengths[i] for i in places)

    places = list(range(len(lengths)))
    drawn = sorted(mean([draw.choice(places) for _ in places]) for _ in range(1000))
    return mean(places), drawn[25], drawn[974]


def main(run: str = "madison_r2") -> None:
    settings = load_settings()
    d, chain = load_chain(settings)
    declared = d.runs[run]
    base = base_asset(d.base_model(declared.base))
    start = f"{declared.start_from}_merged" if declared.start_from else base
    inputs = {name: held(chain, name) for name in {base, start, f"{run}_adapter", f"{run}_merged"}}
    refs = model_refs(run, start, base, inputs, ("adapter", "merged"))
    merged = dense_dir(inputs[f"{run}_merged"])
    parquet = held(chain, declared.dataset).payload / "pairs.parquet"
    passages = pl.read_parquet(held(chain, f"{declared.character}_passages").payload / "passages.parquet")
    threads = d.profile.threads
    asked = Asked(merged)
    questions = d.characters[declared.character].suite.prompts
    requests = [ChatRequest(p.id, (("user", p.text),), 1, 0.0, 0, 1.0, 0) for p in questions]
    spans = spans_of(
        [asked.prompt_ids(r) for r in requests],
        [asked.text_ids(text) for text in held_out_texts(passages)],
        end=asked.ends()[0],
        tokens=TOKENS,
        each=EACH,
    )
    lengths = [len(s.text) for s in spans]
    weights = ServedWeights(refs["adapter"], threads=threads, precision="float32")
    reference = log_probabilities(weights.logits(spans))
    weights.close()
    lines = [
        f"# Importance matrix: {run}, profile `{settings.profile}`",
        "",
        f"Machine: {machine()}. Reference: the adapter on its base in 32 bits; {sum(lengths):,} tokens of "
        f"{len(spans)} passages' beginnings, held out from all pairs. KL in nats per token.",
        "",
        "| file | matrix from | KL | against none | 95 % interval | same top token | MB |",
        "|---|---:|---:|---:|---|---:|---:|",
    ]
    with tempfile.TemporaryDirectory() as folder:
        plain: dict[str, list[float]] = {}
        for tokens in (0, *READ):
            importance = measure(merged, parquet, tokens=tokens, log=print) if tokens else None
            out = Path(folder) / str(tokens)
            out.mkdir()
            sizes = write_gguf(merged, out, types=WEIGHTED, name=run, threads=threads, importance=importance)
            for kind in WEIGHTED:
                file = out / f"{kind}.gguf"
                served = ServedGguf(ModelRef("llama_cpp", str(file), "", None, None, kind.upper()), threads=threads)
                logits = served.logits(spans)
                served.close()
                top = float((logits.argmax(1) == reference.argmax(1)).double().mean())
                found = kls(reference, logits, spans)
                plain.setdefault(kind, found)
                mean, low, high = interval(found, plain[kind], lengths)
                told = f"{mean:+.4f} | {low:+.4f} … {high:+.4f}" if importance else "– | –"
                read = f"{importance.tokens:,} tokens" if importance else "none"
                lines.append(
                    f"| {kind.upper()} | {read} | {sum(found) / sum(lengths):.4f} | {told} | {top:.1%} | {sizes[kind] / 1e6:.1f} |"
                )
                print(lines[-1], flush=True)
                file.unlink()
    target = Path(__file__).parent / "results" / f"imatrix-{settings.profile}.md"
    target.write_text("\n".join(lines) + "\n", encoding="utf-8")
    print(target)


if __name__ == "__main__":
    main(*sys.argv[1:2])
