"""Held-out text under every serving mode, in a process of its own beside the judging: a script, and how it is waited for.

    with_modes = Measuring(spec["weights"], passages, documents, threads=1, work=work / "held_out")
    …judge…
    with_modes.result()["adapter"]   → {"passages": {"nats_per_token": 3.617, "tokens": 3648}, "documents": {…}}

One thread for the weights and one for the judge waste less of two cores than two threads for one after the other: both
work on small products, between which the second thread mostly waits.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from foundry_pipeline.evaluation.heldout import HeldOut, nats_per_token, nats_per_token_gguf
from foundry_pipeline.launch import ScriptSession, atomic_folder, read_facts, run_script, script_main


class Measuring:
    """The script at work on `weights` (mode → paths, see `measure`); it ends with this process.

    `result` waits for it and raises its FoundryError if it failed.
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
        self._spec = {
            "modes": list(weights),
            "weights": {k: dict(v) for k, v in weights.items()},
            "passages": list(passages),
            "documents": list(documents),
            "threads": threads,
        }
        self._work = work
        self._error: BaseException | None = None
        # A daemon: when this process is told to end it ends, and the kernel ends the script with the thread.
        self._thread = threading.Thread(target=self._run, name="held-out", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            run_script("foundry_pipeline.evaluation.heldout_modes", self._spec, self._work)
        except BaseException as error:  # handed to whoever asks for the result
            self._error = error

    def result(self) -> dict[str, dict[str, Any]]:
        """mode → {"passages": …, "documents": …}; empty where nothing is held out."""
        self._thread.join()
        if self._error is not None:
            raise self._error
        found: dict[str, dict[str, Any]] = json.loads((self._work / "result" / "held_out.json").read_text("utf-8"))
        return found

    def seconds(self) -> dict[str, float]:
        """Seconds that each mode took, once there is a result."""
        return dict(read_facts(self._work)["seconds"])


def measure(weights: Mapping[str, Any], texts: Sequence[str], threads: int) -> HeldOut:
    """Loss of one mode: `weights` names a `gguf` file, or a `dense` folder and perhaps an `adapter`."""
    if "gguf" in weights:
        return nats_per_token_gguf(Path(weights["gguf"]), texts, threads=threads)
    adapter = Path(weights["adapter"]) if weights.get("adapter") else None
    return nats_per_token(Path(weights["dense"]), adapter, texts, threads=threads, precision="bfloat16")


def run(spec: dict[str, Any], session: ScriptSession) -> dict[str, Any]:
    """The script's work; its facts are seconds by mode."""
    found: dict[str, dict[str, Any]] = {}
    seconds: dict[str, float] = {}
    threads = int(spec["threads"])
    for mode in spec["modes"] if spec["passages"] else ():
        started = time.monotonic()
        each = {kind: measure(spec["weights"][mode], spec[kind], threads) for kind in ("passages", "documents")}
        found[mode] = {kind: vars(value) for kind, value in each.items()}
        seconds[mode] = round(time.monotonic() - started, 3)
        session.log(
            f"{mode}: {each['passages'].nats_per_token:.3f} nats per token on held-out passages, "
            f"{each['documents'].nats_per_token:.3f} in whole documents"
        )
    with atomic_folder(Path(spec["work"]) / "result") as result:
        (result / "held_out.json").write_text(json.dumps(found), encoding="utf-8")
    return {"seconds": seconds}


if __name__ == "__main__":
    sys.exit(script_main(run))
