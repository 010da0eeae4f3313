"""What a folder of a model may hold: tensors, tokenizer and configuration, and nothing that runs.

    check_model_folder(Path("base"))
    → FoundryError: `pytorch_model.bin` is a pickle, and loading one runs whatever its writer put there

A pickle executes on loading. `auto_map` in a configuration names code that a loader may fetch and import, and PEFT imports
what `auto_mapping` names. Both are refused by name, before a library sees the folder: that the loaders are asked for
safetensors and never trusted with remote code is then the second lock, not the only one. Chat templates are programs too;
`transformers` runs them in Jinja's sandbox.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NoReturn

from foundry_pipeline.errors import FoundryError

MARKS = ("config.json", "adapter_config.json")
"""A folder with one of these, or with safetensors, is a model's."""
PICKLES = (
    ".bin",
    ".pt",
    ".pth",
    ".ckpt",
    ".pkl",
    ".pickle",
    ".joblib",
    ".dill",
    ".npz",
    ".npy",
    ".h5",
    ".keras",
    ".msgpack",
)
CODE = (".py", ".pyc", ".pyd", ".so", ".dll", ".dylib", ".sh", ".exe", ".bat", ".js", ".ipynb", ".whl", ".jar")
_BY_KEY = {
    "auto_map": "names code to be imported in place of the library's own",
    "custom_pipelines": "names code to be imported in place of the library's own",
    "auto_mapping": "names a module to be imported",
    "trust_remote_code": "asks that foreign code be run",
}
_LARGEST_CONFIG = 64 << 20  # bytes; tokenizer.json of large vocabularies has 35 million
_DEEPEST = 64
# Heads of pickles (protocols 2 to 5), of zip archives as torch writes them, of programs and scripts.
_HEADS = (
    b"\x80\x02",
    b"\x80\x03",
    b"\x80\x04",
    b"\x80\x05",
    b"PK\x03\x04",
    b"\x7fELF",
    b"MZ",
    b"#!",
    b"\x93NUMPY",
    b"\x89HDF",
)


def check_model_folder(folder: Path) -> None:
    """Raise FoundryError naming the file, for a model's folder that holds a pickle, code, or a configuration that asks for
    code; for links that lead out of it; and for GGUF and safetensors files whose head contradicts the file."""
    inside = folder.resolve()
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_symlink() and not path.resolve().is_relative_to(inside):
            _refuse(f"`{name}` is a link that leads out of the folder", folder, "put the file itself there")
        if not path.is_file():
            continue
        suffix = path.suffix.lower()
        if suffix in PICKLES:
            _refuse(
                f"`{name}` is a pickle or may hold one, and loading one runs whatever its writer put there",
                folder,
                "take it out; weights are read from safetensors and GGUF files only",
            )
        if suffix in CODE:
            _refuse(f"`{name}` is code", folder, "take it out; a model's own code is never run")
        check_model_file(path, name=name)


def check_model_file(path: Path, *, name: str = "") -> None:
    """The same of one file, by what it holds."""
    name, suffix = name or path.name, path.suffix.lower()
    if suffix == ".gguf":
        from foundry_pipeline.models.gguf_header import read_gguf_header

        read_gguf_header(path)
        return
    with path.open("rb") as handle:
        head = handle.read(8)
    if head.startswith(_HEADS) and suffix not in (".safetensors", ".txt", ".md", ".model"):
        _refuse(f"`{name}` is a pickle, an archive or a program by its first bytes", path.parent, "take it out")
    if suffix == ".safetensors":
        _check_safetensors(path, name, head)
    elif suffix == ".json" and name.rpartition("/")[2] != "tokenizer.json":
        _check_configuration(path, name)


def _check_safetensors(path: Path, name: str, head: bytes) -> None:
    length, size = int.from_bytes(head, "little"), path.stat().st_size
    # 100 MB is the library's own bound of a head (safetensors, MAX_HEADER_SIZE).
    if len(head) < 8 or not 2 <= length <= min(100_000_000, size - 8):
        _refuse(f"`{name}` is no safetensors file", path.parent, "get the file again, from a source you trust")


def _check_configuration(path: Path, name: str) -> None:
    if path.stat().st_size > _LARGEST_CONFIG:
        _refuse(f"`{name}` is larger than any configuration", path.parent, "get the file again")
    try:
        value = json.loads(path.read_bytes().decode("utf-8"))
    except (ValueError, RecursionError) as error:
        _refuse(f"`{name}` is no JSON ({error})", path.parent, "get the file again")
    for key, given in _entries(value, path, name):
        if key in _BY_KEY and given not in (None, False, {}, [], ""):
            _refuse(
                f"`{name}` has `{key}`, which {_BY_KEY[key]}",
                path.parent,
                "use a model that the library knows by itself; foreign code is never run",
            )


def _entries(value: Any, path: Path, name: str) -> Iterator[tuple[str, Any]]:
    """Every (key, value) of a JSON document, however deep."""
    level: list[Any] = [value]
    for _ in range(_DEEPEST):
        pairs = [pair for node in level if isinstance(node, Mapping) for pair in node.items()]
        yield from pairs
        inner = [v for _, v in pairs] + [v for node in level if isinstance(node, list) for v in node]
        level = [v for v in inner if isinstance(v, Mapping | list)]
        if not level:
            return
    _refuse(f"`{name}` is nested too deep", path.parent, "get the file again")


def check_named(spec: Any) -> None:
    """Check every model that a script's spec names by path: folders with a model's files, and GGUF files."""
    for text in _texts(spec):
        if not text.startswith("/") or len(text) > 4096 or "\0" in text:
            continue
        path = Path(text)
        if path.suffix.lower() == ".gguf" and path.is_file():
            check_model_file(path)
        elif path.is_dir() and is_model_folder(path):
            check_model_folder(path)


def is_model_folder(folder: Path) -> bool:
    """Whether a folder holds a model or an adapter."""
    if any((folder / mark).is_file() for mark in MARKS):
        return True
    return any(p.suffix.lower() in (".safetensors", *PICKLES) for p in folder.iterdir())


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for name, inner in value.items():
            if name != "work":
                yield from _texts(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _texts(inner)


def _refuse(what: str, folder: Path, mend: str) -> NoReturn:
    raise FoundryError(f"the model is not loaded: {what}", where=str(folder), mend=mend)
