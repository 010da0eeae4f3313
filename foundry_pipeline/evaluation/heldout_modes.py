"""Held-out text under every serving mode, in a process of its own beside the judging: a script, and how it is waited for.

    measuring = Measuring(spec["weights"], passages, documents, threads=2, work=work / "held_out")
    …judge…
    measuring.result()["adapter"]   → {"passages": {"nats_per_token": 3.617, "tokens": 3648}, "documents": {…}}

Whole documents are read by the weights alone: what context adds is the same for their quantized copies, whose long
reading takes the longest.

One thread for the weights and one for the judge waste less of two cores than two threads for one after the other: both
work on small products, between which the second thread mostly waits.
"""

from __future__ import annotations

import json
import shutil
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from foundry_pipeline.evaluation.heldout import HeldOut, nats_by_kind, nats_by_kind_gguf
from foundry_pipeline.launch import ScriptSession, atomic_folder, leave, read_facts, run_script, script_main
from foundry_pipeline.training.machine import keep_freed_memory

KINDS = ("passages", "documents")
CLAIMS = "claims"


class Measuring:
    """The script at work on `weights` (mode → paths, see `measure`); it ends with this process.

    `result` waits for it and raises its FoundryError if it failed. While it waits a second one takes modes that the
    first has not come to, where `threads` allows for two.
    """

    def __init__(
        self,
        weights: Mapping[str, Mapping[str, Any]],
        passages: Sequence[str],
        documents: Sequence[str],
        *,
        threads: int,
        work: Path,
    ) -> None:
        # A GGUF file takes longest, so it is not left for the end.
        modes = sorted(weights, key=lambda mode: "gguf" not in weights[mode])
        shutil.rmtree(work, ignore_errors=True)
        (work / CLAIMS).mkdir(parents=True)
        self._modes = modes if passages else []
        self._spec: dict[str, Any] = {
            "modes": self._modes,
            "weights": {k: dict(v) for k, v in weights.items()},
            "passages": list(passages),
            "documents": list(documents),
            "threads": max(1, threads // 2),
            "claims": str(work / CLAIMS),
        }
        self._work, self._two = work, threads > 1
        self._error: BaseException | None = None
        self._workers: list[threading.Thread] = []
        self._start()

    def _start(self) -> None:
        # A daemon: when this process is told to end it ends, and the kernel ends the script with the thread.
        name = f"held-out-{len(self._workers)}"
        worker = threading.Thread(target=self._run, args=(self._work / name,), name=name, daemon=True)
        self._workers.append(worker)
        worker.start()

    def _run(self, work: Path) -> None:
        try:
            run_script("foundry_pipeline.evaluation.heldout_modes", self._spec, work)
        except BaseException as error:  # handed to whoever asks for the result
            self._error = error

    def result(self) -> dict[str, dict[str, Any]]:
        """mode → {"passages": …, "documents": …}, no documents for a GGUF file; empty where nothing is held out."""
        if self._two and len(list((self._work / CLAIMS).iterdir())) < len(self._modes):
            self._start()
        for worker in self._workers:
            worker.join()
        if self._error is not None:
            raise self._error
        found: dict[str, dict[str, Any]] = {}
        for worker in self._workers:
            found |= json.loads((self._work / worker.name / "result" / "held_out.json").read_text("utf-8"))
        return {mode: found[mode] for mode in self._modes}

    def seconds(self) -> dict[str, float]:
        """Seconds that each mode took, once there is a result."""
        return {m: s for w in self._workers for m, s in read_facts(self._work / w.name)["seconds"].items()}


def measure(weights: Mapping[str, Any], kinds: Mapping[str, Sequence[str]], threads: int) -> dict[str, HeldOut]:
    """Loss of one mode on each kind of texts: `weights` names a `gguf` file, or a `dense` folder and perhaps an `adapter`."""
    if "gguf" in weights:
        return nats_by_kind_gguf(Path(weights["gguf"]), kinds, threads=threads)
    adapter = Path(weights["adapter"]) if weights.get("adapter") else None
    return nats_by_kind(Path(weights["dense"]), adapter, kinds, threads=threads, precision="bfloat16")


def _claimed(claims: Path, mode: str) -> bool:
    """Whether this process is the one that measures a mode: the first to ask is."""
    try:
        (claims / mode).touch(exist_ok=False)
    except FileExistsError:
        return False
    return True


def run(spec: dict[str, Any], session: ScriptSession) -> dict[str, Any]:
    """The script's work: every mode that no other process has claimed. Its facts are seconds by mode."""
    keep_freed_memory()  # logits of a whole vocabulary for every token of a chunk come and go
    found: dict[str, dict[str, Any]] = {}
    seconds: dict[str, float] = {}
    for mode in spec["modes"]:
        if not _claimed(Path(spec["claims"]), mode):
            continue
        started = time.monotonic()
        weights = spec["weights"][mode]
        kinds = KINDS[:1] if "gguf" in weights else KINDS
        each = measure(weights, {kind: spec[kind] for kind in kinds}, int(spec["threads"]))
        found[mode] = {kind: vars(value) for kind, value in each.items()}
        seconds[mode] = round(time.monotonic() - started, 3)
        told = ", ".join(f"{value.nats_per_token:.3f} in {kind}" for kind, value in each.items())
        session.log(f"{mode}: nats per held-out token: {told}")
    with atomic_folder(Path(spec["work"]) / "result") as result:
        (result / "held_out.json").write_text(json.dumps(found), encoding="utf-8")
    return {"seconds": seconds}


if __name__ == "__main__":
    leave(script_main(run))
