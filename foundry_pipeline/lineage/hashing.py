"""Content hashes: one canonical JSON, one way to hash a folder.

>>> digest({"b": 1, "a": [1.5, "x"]}) == digest({"a": [1.5, "x"], "b": 1})
True
"""

from __future__ import annotations

import ast
import atexit
import contextlib
import hashlib
import inspect
import json
import os
import sys
import textwrap
from collections.abc import Callable, Mapping
from functools import cache, partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import orjson

_KEPT = 2000  # digests of syntax trees: some ten versions of the whole project


def canonical_json(value: Any) -> str:
    """Sorted keys, no spaces, shortest round-trip floats, no NaN: equal values give equal text."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def digest(value: Any) -> str:
    """SHA-256 (hex, 64 characters) of the canonical JSON of a value."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()


def texts_digest(texts: Mapping[str, str | None]) -> str:
    """`digest` of a flat mapping of texts, several times as fast: for what is hashed by the hundred thousand.

    Raises ValueError for a text that is no Unicode (a lone surrogate).
    """
    try:
        return hashlib.sha256(orjson.dumps(texts, option=orjson.OPT_SORT_KEYS)).hexdigest()
    except orjson.JSONEncodeError as error:
        raise ValueError(str(error)) from error


def file_hash(path: Path) -> str:
    """SHA-256 (hex) of a file's bytes, read in blocks."""
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def folder_files(folder: Path) -> dict[str, str]:
    """Relative POSIX path → SHA-256, sorted by path, for every regular file below `folder`."""
    paths = sorted(p for p in folder.rglob("*") if p.is_file())
    return {p.relative_to(folder).as_posix(): file_hash(p) for p in paths}


def folder_hash(files: dict[str, str]) -> str:
    """Content hash of a payload: over its sorted (path, file hash) pairs, nothing else."""
    return digest(sorted(files.items()))


class _Kept:
    """Digests of syntax trees, kept by the hash of their text beside the compiled modules: parsing a hundred modules takes
    every command half a second. Python's own rules hold: written where bytecode is written, and never missed.

    Another Python, or another way to make digests (this file), has a file of its own.
    """

    def __init__(self, folder: Path) -> None:
        this = hashlib.sha256(Path(__file__).read_bytes()).hexdigest()[:12]
        self._path = folder / f"syntax.{sys.implementation.cache_tag}-{sys.hexversion:x}-{this}.json"
        self._known: dict[str, str] = {}
        self._new: dict[str, str] = {}
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError, AttributeError):
            found = json.loads(self._path.read_bytes())
            if digest(found["digests"]) == found["sum"]:
                self._known = dict(found["digests"])

    def digest(self, source: str) -> str:
        key = hashlib.sha256(source.encode("utf-8", "surrogatepass")).hexdigest()
        if key not in self._known:
            if not self._new:
                atexit.register(self.write)
            self._known[key] = self._new[key] = _tree_digest(source)
        return self._known[key]

    def write(self) -> None:
        """Add what is new. Of two processes that write at once one is forgotten, and its digests made again."""
        if sys.dont_write_bytecode:
            return
        # What code used to be is not asked for again.
        kept = self._known if len(self._known) <= _KEPT else self._new
        temporary = self._path.with_name(f"{self._path.name}.{os.getpid()}")
        with contextlib.suppress(OSError):
            temporary.parent.mkdir(exist_ok=True)
            temporary.write_text(json.dumps({"digests": kept, "sum": digest(kept)}), encoding="utf-8")
            temporary.replace(self._path)
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


@cache
def _kept() -> _Kept:
    return _Kept(Path(__file__).parent / "__pycache__")


class _DropDocstrings(ast.NodeTransformer):
    def _visit_body(self, node: Any) -> Any:
        self.generic_visit(node)
        first = node.body[0] if node.body else None
        if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) and isinstance(first.value.value, str):
            node.body = node.body[1:] or [ast.Pass()]
        return node

    visit_Module = visit_ClassDef = visit_FunctionDef = visit_AsyncFunctionDef = _visit_body


def _tree_digest(source: str) -> str:
    tree = _DropDocstrings().visit(ast.parse(textwrap.dedent(source)))
    return hashlib.sha256(ast.dump(tree).encode()).hexdigest()


@cache
def _module_digest(module: str) -> str:
    spec = find_spec(module)
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError(module)
    return _kept().digest(Path(spec.origin).read_text(encoding="utf-8"))


@cache
def _function_digest(function: Callable[..., Any]) -> str:
    return _kept().digest(inspect.getsource(function))


@cache
def code_version(modules: tuple[str, ...], build: Callable[..., Any] | None = None) -> str:
    """Version (12 hex characters) of a stage's own code: the syntax trees, without comments and docstrings, of the
    modules that do its work and of the function that calls them.

    Computed rather than declared, because a constant that somebody has to remember to raise is forgotten once.
    A change that leaves a stage's output as it was costs one rebuild of that stage; everything below it is found
    again by content hash.
    """
    parts = {m: _module_digest(m) for m in sorted(set(modules))}
    if build is not None:
        parts["build"] = _function_digest(build.func if isinstance(build, partial) else build)
    return digest(parts)[:12]
