"""What every serving mode of one run does otherwise than the adapter on its base, as a script:
`python -m foundry_pipeline.export.parity SPEC.json`.

{"models": {"base": {…}, "adapter": {…}, "merged": {…}, "f16": {…}, …}, "folders": {"start": …, "adapter": …,
 "merged": …}, "requests": [[id, question], …], "texts": ["…", …], "tokens": 512, "each": 64, "rows": 64,
 "reference": "float32", "precision": "bfloat16", "threads": 2, "at_once": 2}

The result folder holds `parity.json` and `tensors.parquet`; both are the same again for the same weights, texts, library
versions and machine. Nothing is judged here: see `parity_verdict.py`.

    parity.json → {"reference": …, "text": …, "prompts": …, "ends": …, "distance": {"merged": {"mean_kl": …}, …},
                   "merge": {"worst_steps": 0, …}, "deltas": {"q4_k_m": {"below": 210, "ratio": 0.1, "kept": 0.98}, …}}

The reference is the adapter applied at run time to the weights it was trained on, in full precision: what training
itself has seen.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING, Any

import polars as pl

from foundry_pipeline.errors import FoundryError
from foundry_pipeline.export.deltas import compare_weights, summary
from foundry_pipeline.export.distance import distance, log_probabilities, spans_of
from foundry_pipeline.export.served import Asked, Served, ServedGguf, ServedWeights, Span
from foundry_pipeline.launch import ScriptSession, atomic_folder, leave, script_main
from foundry_pipeline.lineage.hashing import digest
from foundry_pipeline.models.hf_backend import Precision
from foundry_pipeline.models.requests import ChatRequest, ModelRef

if TYPE_CHECKING:
    import torch

BASE, REFERENCE, MERGED = "base", "adapter", "merged"
_SHOWN = 3  # prompts by name where a mode reads them otherwise


@dataclass(frozen=True)
class Question:
    """What every mode is asked, and how the reference reads and answers it."""

    requests: Sequence[ChatRequest]
    ids: Mapping[str, list[int]]
    spans: Sequence[Span]
    log_probabilities: torch.Tensor

    @property
    def text(self) -> list[int]:
        return [token for span in self.spans for token in span.text]


@dataclass
class Measures:
    """What has been found so far, mode by mode, in the order in which modes were measured."""

    prompts: dict[str, dict[str, Any]] = field(default_factory=dict)
    ends: dict[str, dict[str, Any]] = field(default_factory=dict)
    distance: dict[str, dict[str, float | None]] = field(default_factory=dict)

    def add(
        self, mode: str, served: Served, question: Question, ends: Sequence[int], log: Callable[[str], None]
    ) -> None:
        """Measure one mode. Forced are the ends of the reference: those that the model has learned to write."""
        self.prompts[mode] = _reading(served, question)
        self.ends[mode] = _ends(served) | {"forced": _forced(served, question.requests[0], ends)}
        self.near(mode, served, question, log)

    def near(self, mode: str, served: Served, question: Question, log: Callable[[str], None]) -> None:
        """Measure how far the predictions of one mode lie from the reference's."""
        self.distance[mode] = distance(question.log_probabilities, served.logits(question.spans), question.text)
        log(f"{mode}: KL {self.distance[mode]['mean_kl']} nats, top-1 {self.distance[mode]['top1']}")


def measure(
    spec: Mapping[str, Any], log: Callable[[str], None]
) -> tuple[dict[str, Any], list[dict[str, Any]], dict[str, float]]:
    """The content of `parity.json`, the rows of `tensors.parquet`, and seconds by part."""
    models = {mode: ModelRef(**fields) for mode, fields in spec["models"].items()}
    if REFERENCE not in models or MERGED not in models:
        raise FoundryError("parity needs adapter and merged model", where="models", mend="name both in the spec")
    requests = [_request(*named) for named in spec["requests"]]
    seconds: dict[str, float] = {}
    found = Measures()
    tokenizer = Asked(Path(models[REFERENCE].path))
    with _opened(models[REFERENCE], spec, spec["reference"]) as reference:
        assert isinstance(reference, ServedWeights)
        with _timed(seconds, "reference"):
            question, ends = _question(spec, reference, tokenizer, requests)
        log(f"reference: {len(question.text)} tokens after {len(question.spans)} prompts")
        # What llama.cpp serves is measured beside what torch does, where the profile answers by several modes at once.
        files = _meanwhile(partial(_files, spec, models, question, ends, found, seconds, log), spec["at_once"] > 1)
        with _timed(seconds, BASE):
            asked = tokenizer if models[BASE].path == models[REFERENCE].path else Asked(Path(models[BASE].path))
            found.prompts[BASE], found.ends[BASE] = _reading(asked, question), _ends(asked)
        with _timed(seconds, REFERENCE):
            if spec["precision"] != spec["reference"]:
                reference.lower(spec["precision"])
            found.add(REFERENCE, reference, question, ends, log)
        if models[BASE].path == models[REFERENCE].path:
            # How far training has moved the model: what every other distance is to be seen beside.
            with _timed(seconds, "base, predictions"), reference.without_adapter():
                found.near(BASE, reference, question, log)
    for mode, ref in models.items():
        if mode not in (BASE, REFERENCE) and ref.backend != "llama_cpp":
            with _timed(seconds, mode), _opened(ref, spec, spec["precision"]) as served:
                found.add(mode, served, question, ends, log)
    gguf = {mode: Path(ref.path) for mode, ref in models.items() if ref.backend == "llama_cpp"}
    folders = {name: Path(path) for name, path in spec["folders"].items()}
    try:
        with _timed(seconds, "weights"):
            rows, merge = compare_weights(
                folders["start"], folders["adapter"], folders["merged"], gguf, rows=int(spec["rows"])
            )
    except Exception:
        files()  # a file that cannot be read is told by who was to serve it
        raise
    files()
    further = {token for told in found.ends.values() for token in told["ends"]} - set(ends)
    content = {
        "reference": {"mode": REFERENCE, "precision": spec["reference"], "served_precision": spec["precision"]},
        "text": {"prompts": len(question.spans), "tokens": len(question.text), "from": spec["texts_from"]},
        "prompts": {
            "asked": len(requests),
            "ids": digest([question.ids[r.request_id] for r in requests]),
            "modes": found.prompts,
        },
        "ends": {"reference": ends, "markers": sorted(further & tokenizer.markers()), "modes": found.ends},
        "distance": found.distance,
        "merge": merge,
        "deltas": summary(rows),
    }
    return content, rows, {name: round(value, 3) for name, value in seconds.items()}


def _files(
    spec: Mapping[str, Any],
    models: Mapping[str, ModelRef],
    question: Question,
    ends: Sequence[int],
    found: Measures,
    seconds: dict[str, float],
    log: Callable[[str], None],
) -> None:
    """Measure every GGUF file, into `found`."""
    for mode, ref in models.items():
        if ref.backend == "llama_cpp":
            with _timed(seconds, mode), _opened(ref, spec, spec["precision"]) as served:
                found.add(mode, served, question, ends, log)


def _meanwhile(work: Callable[[], None], beside: bool) -> Callable[[], None]:
    """What ends with `work` done, or raises its error: begun now in a thread that ends with the process, or then."""
    if not beside:
        return work
    done: Future[None] = Future()

    def run() -> None:
        try:
            work()
            done.set_result(None)
        except BaseException as error:
            done.set_exception(error)

    Thread(target=run, name="GGUF files", daemon=True).start()
    return done.result


def _request(request_id: str, text: str) -> ChatRequest:
    return ChatRequest(request_id, (("user", text),), max_tokens=1, temperature=0.0, top_k=0, top_p=1.0, seed=0)


def _question(
    spec: Mapping[str, Any], reference: ServedWeights, tokenizer: Asked, requests: Sequence[ChatRequest]
) -> tuple[Question, list[int]]:
    ids = {r.request_id: reference.prompt_ids(r) for r in requests}
    declared, ends = reference.ends()
    spans = spans_of(
        list(ids.values()),
        [tokenizer.text_ids(text) for text in spec["texts"]],
        end=declared,
        tokens=int(spec["tokens"]),
        each=int(spec["each"]),
    )
    return Question(requests, ids, spans, log_probabilities(reference.logits(spans))), ends


@contextmanager
def _opened(ref: ModelRef, spec: Mapping[str, Any], precision: Precision) -> Iterator[Served]:
    # One thread of llama.cpp beside two of torch: its own wait for each other awake, and would keep torch's from a core.
    threads = int(spec["threads"]) // (2 if spec["at_once"] > 1 and ref.backend == "llama_cpp" else 1) or 1
    served: ServedGguf | ServedWeights
    if ref.backend == "llama_cpp":
        served = ServedGguf(ref, threads=threads)
    else:
        served = ServedWeights(ref, threads=threads, precision=precision)
    try:
        yield served
    finally:
        served.close()


def _reading(mode: Any, question: Question) -> dict[str, Any]:
    """How many prompts a mode reads as other token ids than the reference, and the first of them."""
    other = {}
    for request in question.requests:
        ids = mode.prompt_ids(request)
        if ids != question.ids[request.request_id]:
            other[request.request_id] = ids
    told: dict[str, Any] = {"differing": len(other), "which": sorted(other)[:_SHOWN]}
    if other:
        name = next(iter(other))
        wanted, read = question.ids[name], other[name]
        at = next(
            (i for i, pair in enumerate(zip(wanted, read, strict=False)) if pair[0] != pair[1]),
            min(len(wanted), len(read)),
        )
        told["first"] = {"prompt": name, "at": at, "reference": wanted[at : at + 4], "read": read[at : at + 4]}
    return told


def _ends(mode: Any) -> dict[str, Any]:
    declared, ends = mode.ends()
    return {"declared": declared, "ends": ends}


def _forced(mode: Served, request: ChatRequest, ends: Sequence[int]) -> dict[str, str]:
    """What followed a forced end, by its id: `stop`, or what was written instead of stopping."""
    replies = mode.forced(request, ends)
    return {
        str(end): "stop"
        if reply.finish_reason == "stop" and not reply.completion_tokens
        else f"went on: {reply.text!r}"
        for end, reply in zip(ends, replies, strict=True)
    }


@contextmanager
def _timed(seconds: dict[str, float], part: str) -> Iterator[None]:
    started = time.monotonic()
    yield
    seconds[part] = time.monotonic() - started


def run(spec: dict[str, Any], session: ScriptSession) -> dict[str, Any]:
    """Measure and write; returns the facts (seconds by part)."""
    content, rows, seconds = measure(spec, session.log)
    with atomic_folder(Path(spec["work"]) / "result") as result:
        text = json.dumps(content, indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False)
        (result / "parity.json").write_text(text + "\n", encoding="utf-8")
        pl.DataFrame(rows, TENSORS).write_parquet(result / "tensors.parquet")
    return {"seconds_by_part": seconds}


TENSORS = {
    "tensor": pl.String,
    "mode": pl.String,
    "stored_as": pl.String,
    "delta_rms": pl.Float64,
    "step_rms": pl.Float64,
    "ratio": pl.Float64,
    "kept": pl.Float64,
    "weights": pl.Int64,
}


if __name__ == "__main__":
    leave(script_main(run))
