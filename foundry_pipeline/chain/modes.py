"""In which serving modes a run is judged, and what each is served from.

serving_modes(run, evaluation)  → ("base", "adapter", "checkpoint-150")      the run's own, then its named checkpoints
mode_inputs("madison_r2", ("base", "merged"), base="base_model_q", start="base_model_q")
                                → ("base_model_q", "madison_r2_merged")      assets behind these modes
adapter_of(adapter, "checkpoint-150")  → folder of that adapter, and its own content hash
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from foundry_pipeline.declarations.assets import Evaluation, Run
from foundry_pipeline.errors import FoundryError
from foundry_pipeline.lineage.hashing import folder_hash
from foundry_pipeline.lineage.store import Artifact
from foundry_pipeline.training.keep import FOLDER

CHECKPOINT = "checkpoint-"
GGUF_TYPES = ("f16", "q8_0", "q5_k_m", "q4_k_m")


def serving_modes(run: Run, evaluation: Evaluation) -> tuple[str, ...]:
    """The modes that the run declares, or those of its evaluation, and then its named checkpoints."""
    return (*(run.modes or evaluation.modes), *run.checkpoints)


def uses_adapter(mode: str) -> bool:
    """Whether a mode applies an adapter to the weights it was trained on, while it answers."""
    return mode == "adapter" or mode.startswith(CHECKPOINT)


def mode_inputs(run: str, modes: Sequence[str], *, base: str, start: str) -> tuple[str, ...]:
    """Names of the assets that these modes are served from, the untuned base first."""
    inputs = [base]
    if any(uses_adapter(mode) for mode in modes):
        inputs += [start, f"{run}_adapter"]
    if "merged" in modes:
        inputs.append(f"{run}_merged")
    if any(mode in GGUF_TYPES for mode in modes):
        inputs.append(f"{run}_gguf")
    return tuple(dict.fromkeys(inputs))


def adapter_of(adapter: Artifact, mode: str) -> tuple[Path, str]:
    """Folder and content hash of the adapter behind a mode: the finished one, or one that was kept on the way.

    A kept adapter's hash is over its own files, as it would be if it were an artifact by itself. Raises FoundryError
    where the artifact holds no adapter of that name.
    """
    if not mode.startswith(CHECKPOINT):
        return adapter.payload, adapter.content_hash
    prefix = f"{FOLDER}/{mode}/"
    files = {
        path.removeprefix(prefix): sha for path, sha in adapter.manifest["files"].items() if path.startswith(prefix)
    }
    if not files:
        name = adapter.manifest["name"]
        raise FoundryError(
            f"{name} holds no adapter named {mode}",
            where=str(adapter.payload),
            mend=f"dagster asset materialize --select {name}",
        )
    return adapter.payload / prefix.rstrip("/"), folder_hash(files)
