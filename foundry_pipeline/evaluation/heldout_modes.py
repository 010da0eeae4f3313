"""Held-out text under every serving mode, in a process of its own beside the judging: a script, and how it is waited for.

    measuring = Measuring(spec["weights"], passages, documents, threads=2, work=work / "held_out")
    …judge…
    measuring.result()["adapter"]   → {"passages": {"nats_per_token": 3.617, "tokens": 3648}, "documents": {…}}

Whole documents are read by the weights alone: what context adds is the same for their quantized copies, whose long
reading takes the longest.

One thread for the weights and one for the judge waste less of two cores than two threads for one after the other: both
work on small products, between which the second thread mostly waits. Once there is nothing left to judge, a second
process begins with the last mode; where the two meet they share one, a portion of text at a time, so that both end
together. A figure does not depend on who read what: chunks are added up in their order.
"""

from __future__ import annotations

import json
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from foundry_pipeline.evaluation.heldout import CHUNK, HeldOut, Reading, mean, reading_gguf, reading_weights
from foundry_pipeline.launch import ScriptSession, atomic_folder, leave, read_facts, run_script, script_main
from foundry_pipeline.training.machine import keep_freed_memory

KINDS = ("passages", "documents")
CLAIMS = "claims"


class Measuring:
    """The script at work on `weights` (mode → paths, see `reading`); it ends with this process.

    `result` waits for it and raises its FoundryError if it failed. While it waits a second one takes what the first
    has not come to, where `threads` allows for two.
    """

    def __init__(
        self,
        weights: Mapping[str, Mapping[str, Any]],
        passages: Sequence[str],
        documents: Sequence[str],
        *,
        threads: int,
        work: Path,
        log: Callable[[str], None] = lambda text: None,
    ) -> None:
        shutil.rmtree(work, ignore_errors=True)
        (work / CLAIMS).mkdir(parents=True)
        self._modes = list(weights) if passages else []
        self._spec: dict[str, Any] = {
            "weights": {k: dict(v) for k, v in weights.items()},
            "passages": list(passages),
            "documents": list(documents),
            "threads": max(1, threads // 2),
            "claims": str(work / CLAIMS),
        }
        self._work, self._two, self._log = work, threads > 1, log
        self._error: BaseException | None = None
        self._workers: list[threading.Thread] = []
        self._start()

    def _start(self) -> None:
        # A daemon: when this process is told to end it ends, and the kernel ends the script with the thread.
        name = f"held-out-{len(self._workers)}"
        spec = self._spec | {"modes": self._modes[:: -1 if self._workers else 1]}
        worker = threading.Thread(target=self._run, args=(spec, self._work / name), name=name, daemon=True)
        self._workers.append(worker)
        worker.start()

    def _run(self, spec: dict[str, Any], work: Path) -> None:
        try:
            run_script("foundry_pipeline.evaluation.heldout_modes", spec, work)
        except BaseException as error:  # handed to whoever asks for the result
            self._error = error

    def result(self) -> dict[str, dict[str, Any]]:
        """mode → {"passages": …, "documents": …}, no documents for a GGUF file; empty where nothing is held out."""
        if self._two and any(not _taken(self._work / CLAIMS, mode) for mode in self._modes):
            self._start()
        for worker in self._workers:
            worker.join()
        if self._error is not None:
            raise self._error
        read: dict[str, list[Any]] = {mode: [] for mode in self._modes}
        for worker in self._workers:
            rows_by_mode = json.loads((self._work / worker.name / "result" / "held_out.json").read_text("utf-8"))
            for mode, rows in rows_by_mode.items():
                read[mode] += rows
        found: dict[str, dict[str, Any]] = {}
        for mode in self._modes:
            each = _by_kind(read[mode], _kinds(self._spec["weights"][mode]))
            told = ", ".join(f"{value.nats_per_token:.3f} in {kind}" for kind, value in each.items())
            self._log(f"{mode}: nats per held-out token: {told}")
            found[mode] = {kind: vars(value) for kind, value in each.items()}
        return found

    def seconds(self) -> dict[str, float]:
        """Seconds that each mode took, of both processes together, once there is a result."""
        each = [read_facts(self._work / worker.name)["seconds"] for worker in self._workers]
        return {m: round(sum(s.get(m, 0.0) for s in each), 3) for m in self._modes}


def _kinds(weights: Mapping[str, Any]) -> Sequence[str]:
    return KINDS[:1] if "gguf" in weights else KINDS


def _by_kind(rows: Sequence[Any], kinds: Sequence[str]) -> dict[str, HeldOut]:
    """Figures of one mode from its chunks, each (place, kind, nats, tokens), in the order of their places."""
    ordered = sorted(rows)
    return {kind: mean([(nats, tokens) for _, k, nats, tokens in ordered if k == kind]) for kind in kinds}


def reading(
    weights: Mapping[str, Any], kinds: Mapping[str, Sequence[str]], threads: int
) -> AbstractContextManager[Reading]:
    """One mode, ready to read these kinds of texts: `weights` names a `gguf` file, or a `dense` folder and perhaps an `adapter`."""
    if "gguf" in weights:
        return reading_gguf(Path(weights["gguf"]), kinds, threads=threads)
    adapter = Path(weights["adapter"]) if weights.get("adapter") else None
    return reading_weights(Path(weights["dense"]), adapter, kinds, threads=threads, precision="bfloat16")


Part = tuple[int, str, list[int]]
"""A chunk of a mode: its place among all, its kind, its tokens."""


def _portions(parts: Mapping[str, Sequence[list[int]]]) -> Iterator[list[Part]]:
    """All chunks in order, in lists of at least CHUNK tokens but for the last: what one process claims at a time."""
    portion: list[Part] = []
    for place, (kind, part) in enumerate((kind, part) for kind, each in parts.items() for part in each):
        portion.append((place, kind, part))
        if sum(len(part) for _, _, part in portion) > CHUNK:
            yield portion
            portion = []
    if portion:
        yield portion


def _claimed(claims: Path, name: str) -> bool:
    """Whether this process is the one that reads a portion: the first to ask is."""
    try:
        (claims / name).touch(exist_ok=False)
    except FileExistsError:
        return False
    return True


def _taken(claims: Path, mode: str) -> bool:
    """Whether every portion of a mode has been claimed."""
    return (claims / f"{mode}.taken").exists()


def run(spec: dict[str, Any], session: ScriptSession) -> dict[str, Any]:
    """The script's work: of every mode what no other process has claimed. Its facts are seconds by mode."""
    keep_freed_memory()  # logits of a whole vocabulary for every token of a chunk come and go
    claims = Path(spec["claims"])
    found: dict[str, list[tuple[int, str, float, int]]] = {}
    seconds: dict[str, float] = {}
    for mode in spec["modes"]:
        if _taken(claims, mode):
            continue
        started = time.monotonic()
        weights = spec["weights"][mode]
        rows = found[mode] = []
        with reading(weights, {kind: spec[kind] for kind in _kinds(weights)}, int(spec["threads"])) as model:
            portions = list(_portions(model.parts))
            for number, portion in enumerate(portions):
                if not _claimed(claims, f"{mode}.{number}"):
                    continue
                if portion is portions[-1]:
                    (claims / f"{mode}.taken").touch()
                rows += [(place, kind, model.nats(part), len(part) - 1) for place, kind, part in portion]
        seconds[mode] = round(time.monotonic() - started, 3)
        session.log(f"{mode}: {sum(tokens for *_, tokens in rows)} held-out tokens read")
    with atomic_folder(Path(spec["work"]) / "result") as result:
        (result / "held_out.json").write_text(json.dumps(found), encoding="utf-8")
    return {"seconds": seconds}


if __name__ == "__main__":
    leave(script_main(run))
