"""How long a trace takes in a store of many builds: `python -m benchmarks.trace` (`make bench`).

Makes a store by its own index format, 100 runs × 10 training seeds over shared sources and datasets, each with adapter,
merged weights, GGUF files, parity, answers, two judgings and matrix, until it holds 10,000 materializations, and a ledger
with the scores of every evaluation in four serving modes. Then measures, in this process: back from one score, back
from one build to everything in a chain of 10,000 steps, and forward from one document to every score. Writes
`benchmarks/results/trace.md`.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl

from benchmarks.chain import machine
from foundry_pipeline.lineage.hashing import digest
from foundry_pipeline.lineage.ledger import append_scores, find_score, read_scores
from foundry_pipeline.lineage.store import Store
from foundry_pipeline.lineage.trace import forward_scores, trace_record
from foundry_pipeline.lineage.walk import Walker

SEEDS, MODES, REPEATS, BOUND = 10, ("base", "adapter", "merged", "q4_k_m"), 3, 2.0
PASSAGES, DOCUMENTS, PAIRS, DATASETS = 447, 16, 1500, 12


class Made:
    """A store written line by line, as `Store.publish` leaves it; payloads only where a trace reads them."""

    def __init__(self, root: Path) -> None:
        self.store, self.count = Store(root), 0
        (root / "index").mkdir(parents=True)

    def build(self, name: str, kind: str, inputs: dict[str, Any], frames: dict[str, pl.DataFrame] | None = None) -> Any:
        key = digest([name, self.count])
        way = {"content": digest([key, "content"]), "input": key}
        folder = self.store.folder(way["content"])
        (folder / "payload").mkdir(parents=True)
        record = {
            "name": name, "kind": kind, "input_hash": key, "content_hash": way["content"], "inputs": inputs,
            "declaration": {f"field_{i}": i for i in range(40)}, "external": {}, "code_version": "0123456789ab",
            # As long as a training's: a figure for each of some hundred steps.
            "facts": {"built_at": f"2026-11-21T20:00:00.{self.count:06d}+00:00", "build_seconds": 1.0,
                      "history": [{"step": i, "loss": 4.0 - i / 100} for i in range(100 if kind == "adapter" else 0)]},
        }  # fmt: skip
        (folder / "manifest.json").write_text(json.dumps({**record, "files": {}}))
        (self.store.root / "index" / f"{key}.json").write_text(json.dumps(record))
        for table, frame in (frames or {}).items():
            frame.write_parquet(folder / "payload" / f"{table}.parquet")
        self.count += 1
        return way


def texts() -> dict[str, pl.DataFrame]:
    ids = [f"passage-{i:04d}" for i in range(PASSAGES)]
    homes = [f"document-{i % DOCUMENTS:02d}" for i in range(PASSAGES)]
    names = sorted(set(homes))
    blank = [""] * DOCUMENTS
    about = {"title": blank, "date": blank, "url": blank, "license": blank, "raw_sha256": [digest(n) for n in names]}
    passages = {"passage_id": ids, "document_id": homes, "position": range(PASSAGES), "date": ["1812"] * PASSAGES}
    return {
        "passages": pl.DataFrame({**passages, "words": [100] * PASSAGES}),
        "documents": pl.DataFrame({"document_id": names, **about}),
    }


def pairs(rng: random.Random) -> pl.DataFrame:
    return pl.DataFrame(
        {
            "pair_id": [digest(rng.random()) for _ in range(PAIRS)],
            "prompt_id": [f"prompt-{i}" for i in range(PAIRS)],
            "origin": ["base"] * PAIRS,
            "category": ["ground_truth"] * PAIRS,
            "student": ["base"] * PAIRS,
            "passage_ids": [[f"passage-{rng.randrange(PASSAGES):04d}"] for _ in range(PAIRS)],
            "upsample": [1] * PAIRS,
        }
    )


def make(root: Path, size: int) -> tuple[Made, list[dict[str, Any]]]:
    rng, made, rows = random.Random(0), Made(root), []
    base = made.build("base_model_x", "base_model", {})
    sources = made.build("x_sources", "sources", {})
    passages = made.build("x_passages", "passages", {"x_sources": sources}, texts())
    datasets = [
        made.build(f"x_dataset_v{i}", "dataset", {"x_passages": passages}, {"pairs": pairs(rng)})
        for i in range(DATASETS)
    ]
    run = 0
    while made.count < size:
        name = f"run_{run // SEEDS}"
        data = f"x_dataset_v{run % DATASETS}"
        adapter = made.build(f"{name}_adapter", "adapter", {"base_model_x": base, data: datasets[run % DATASETS]})
        merged = made.build(f"{name}_merged", "merged", {"base_model_x": base, f"{name}_adapter": adapter})
        gguf = made.build(f"{name}_gguf", "gguf", {f"{name}_merged": merged, f"{name}_adapter": adapter})
        parity = made.build(f"{name}_parity", "parity", {f"{name}_gguf": gguf})
        served = {f"{name}_adapter": adapter, f"{name}_merged": merged, f"{name}_gguf": gguf, "base_model_x": base}
        answers = made.build(f"{name}_responses", "responses", served)
        for _ in range(2):
            judged = made.build(
                f"{name}_eval", "eval", {f"{name}_responses": answers, "x_passages": passages, **served}
            )
            rows += [row(name, data, judged, mode) for mode in MODES]
        made.build(f"{name}_serving_matrix", "serving_matrix", {f"{name}_eval": judged, f"{name}_parity": parity})
        run += 1
    return made, rows


def row(run: str, data: str, judged: dict[str, str], mode: str) -> dict[str, Any]:
    return {
        "score_id": digest([judged, mode]), "recorded_at": "2026-11-21T20:00:00+00:00", "run": run, "mode": mode,
        "profile": "laptop", "judge": "rubric-local", "judge_version": "v", "suite_hash": "s", "dataset": data,
        "dataset_hash": "d", "adapter_hash": "a", "artifact_hash": judged["content"], "input_hash": judged["input"],
        "base_model": "x", "base_revision": "x", "overall": 6.0, "overall_low": 5.0, "overall_high": 7.0, "categories": {},
        "difficulties": {}, "critical_failures": 0, "parse_failures": 0, "cost_usd": 0.0, "seconds": 1.0, "code_version": "c",
    }  # fmt: skip


def timed(work: Callable[[], Any]) -> tuple[float, Any]:
    """Median seconds of REPEATS calls, and what the last one gave."""
    seconds, out = [], None
    for _ in range(REPEATS):
        started = time.perf_counter()
        out = work()
        seconds.append(time.perf_counter() - started)
    return statistics.median(seconds), out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=10_000, help="materializations in the store")
    size = parser.parse_args().size
    with tempfile.TemporaryDirectory() as folder:
        made, rows = make(Path(folder) / "store", size)
        url = f"sqlite:///{folder}/ledger.db"
        recording, _ = timed(lambda: append_scores(url, rows))
        last = rows[-1]["score_id"]

        def back() -> Any:
            score = find_score(url, last)
            assert score is not None
            record = Walker(made.store).of_score(score)
            assert record is not None
            return trace_record(made.store, record, scores=read_scores(url), current={})

        one, way = timed(back)
        forward, touched = timed(lambda: forward_scores(made.store, "document-03", read_scores(url)))
        line = Made(Path(folder) / "line")
        below: dict[str, Any] = {}
        for i in range(size):
            below = {f"step_{i}": line.build(f"step_{i}", "dataset", below)}
        end = line.store.record(next(iter(below.values()))["input"])
        assert end is not None
        deep, walked = timed(lambda: list(Walker(line.store).walk(end)))
    assert len(walked) == size
    assert len(touched) == len(rows)
    assert len(way.pairs) == PAIRS
    results = [
        (
            f"back from one score of {len(rows):,} to its {len(way.pairs):,} pairs ({len(way.nodes)} builds on the way)",
            one,
        ),
        (f"back through a chain of {size:,} builds, each made from the one before", deep),
        (f"forward from one document to the {len(touched):,} scores that it touched", forward),
    ]
    lines = [f"# Tracing in a store of {made.count:,} materializations", "", f"Machine: {machine()}", ""]
    lines += [f"Median of {REPEATS}, files in the system's cache; at most {BOUND:g} s is wanted.", ""]
    lines += ["| what | seconds |", "|---|---:|", *(f"| {what} | {seconds:.2f} |" for what, seconds in results), ""]
    lines += [f"Recording all {len(rows):,} scores again, none of them new: {recording:.2f} s.", ""]
    path = Path(__file__).parent / "results" / "trace.md"
    path.parent.mkdir(exist_ok=True)
    path.write_text("\n".join(lines), encoding="utf-8")
    print("\n".join(lines))
    sys.exit(0 if all(seconds < BOUND for _, seconds in results) else 1)


if __name__ == "__main__":
    main()
