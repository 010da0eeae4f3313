"""The head of a GGUF file, read without believing a number in it; what llama.cpp is given has passed here.

    head = read_gguf_header(Path("q4_k_m.gguf"))
    head.metadata["general.architecture"], len(head.tensors), head.tensors["output_norm.weight"].shape
    → ("llama", 272, (576,))

llama.cpp reads these files in C++, where a wrong length may end the process. Every count and length is therefore held
against the bytes that are there before it is used, every tensor has to lie within the file, and no two may overlap.
Layout: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md, versions 2 and 3, little endian.
"""

from __future__ import annotations

import mmap
import struct
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, NoReturn

from foundry_pipeline.errors import FoundryError

_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_STRING, _ARRAY = 8, 9
_LEAST_ENTRY, _LEAST_TENSOR = 13, 32  # bytes of the shortest key with its value, and of the shortest tensor's head
_LONGEST_KEY, _LONGEST_NAME = 65_535, 63  # the format's bound, and GGML_MAX_NAME less its final zero
_MOST_DIMENSIONS = 4  # GGML_MAX_DIMS


@dataclass(frozen=True)
class GgufTensor:
    """One tensor: its shape (fastest dimension first), GGML type number, and where its bytes lie in the file."""

    shape: tuple[int, ...]
    type: int
    start: int
    bytes: int


@dataclass(frozen=True)
class GgufHeader:
    """Metadata (arrays as lists) and tensors by name."""

    version: int
    metadata: dict[str, Any]
    tensors: dict[str, GgufTensor]


def read_gguf_header(path: Path) -> GgufHeader:
    """Read the head of a GGUF file. Raises FoundryError for a file that is none, is cut, or contradicts itself."""
    try:
        with path.open("rb") as handle:
            if handle.seek(0, 2) == 0:
                _refuse("the file is empty", str(path))
            with mmap.mmap(handle.fileno(), 0, access=mmap.ACCESS_READ) as data:
                return parse_gguf_header(data, where=str(path))
    except OSError as error:
        raise FoundryError(
            f"the GGUF file cannot be read ({error.strerror})", where=str(path), mend="name a file that is there"
        ) from error


def parse_gguf_header(data: Any, *, where: str) -> GgufHeader:
    """The same of bytes, or of anything that is sliced like them."""
    reader = _Reader(data, where)
    if reader.take(4) != b"GGUF":
        _refuse("this is no GGUF file", where)
    version = reader.scalar("I")
    if version not in (2, 3):
        _refuse(f"GGUF version {version} is not read (2 and 3 are, little endian)", where)
    tensors, entries = reader.scalar("Q"), reader.scalar("Q")
    if tensors * _LEAST_TENSOR + entries * _LEAST_ENTRY > reader.left:
        _refuse(f"it announces {entries:,} entries and {tensors:,} tensors, more than there is room for", where)
    metadata: dict[str, Any] = {}
    for _ in range(entries):
        key = reader.string(_LONGEST_KEY)
        if key in metadata:
            _refuse(f"the key {key[:80]!r} is there twice", where)
        metadata[key] = reader.value(reader.scalar("I"), key)
    return GgufHeader(version, metadata, _tensors(reader, tensors, metadata))


def _tensors(reader: _Reader, count: int, metadata: dict[str, Any]) -> dict[str, GgufTensor]:
    from gguf import GGML_QUANT_SIZES, GGMLQuantizationType

    told: dict[str, tuple[tuple[int, ...], int, int]] = {}
    for _ in range(count):
        name = reader.string(_LONGEST_NAME)
        dimensions = reader.scalar("I")
        if not 1 <= dimensions <= _MOST_DIMENSIONS:
            _refuse(f"the tensor {name!r} has {dimensions} dimensions", reader.where)
        shape = tuple(reader.scalar("Q") for _ in range(dimensions))
        if name in told:
            _refuse(f"the tensor {name!r} is there twice", reader.where)
        told[name] = (shape, reader.scalar("I"), reader.scalar("Q"))
    alignment = metadata.get("general.alignment", 32)
    if type(alignment) is not int or not 8 <= alignment <= 1 << 20 or alignment & (alignment - 1):
        _refuse("`general.alignment` is no power of two", reader.where)
    begin = -(-reader.at // alignment) * alignment
    out: dict[str, GgufTensor] = {}
    for name, (shape, kind, offset) in told.items():
        try:
            block, size = GGML_QUANT_SIZES[GGMLQuantizationType(kind)]
        except (ValueError, KeyError):
            _refuse(f"the tensor {name!r} is of an unknown type ({kind})", reader.where)
        if not all(0 < n < 1 << 62 for n in shape) or shape[0] % block:
            _refuse(f"the tensor {name!r} has the impossible shape {shape}", reader.where)
        needed = prod(shape) // block * size
        if offset % alignment or begin + offset + needed > reader.size:
            _refuse(f"the tensor {name!r} does not lie within the file", reader.where)
        out[name] = GgufTensor(shape, kind, begin + offset, needed)
    end = 0
    for name, tensor in sorted(out.items(), key=lambda item: item[1].start):
        if tensor.start < end:
            _refuse(f"the tensor {name!r} overlaps another", reader.where)
        end = tensor.start + tensor.bytes
    return out


class _Reader:
    def __init__(self, data: Any, where: str) -> None:
        self.data, self.where, self.at, self.size = data, where, 0, len(data)

    @property
    def left(self) -> int:
        return self.size - self.at

    def take(self, count: int) -> bytes:
        if count > self.left:
            _refuse(f"it ends after {self.size:,} bytes, in the middle of its head", self.where)
        self.at += count
        return bytes(self.data[self.at - count : self.at])

    def scalar(self, code: str) -> Any:
        return struct.unpack(f"<{code}", self.take(struct.calcsize(f"<{code}")))[0]

    def string(self, longest: int | None = None) -> str:
        length = self.scalar("Q")
        if longest is not None and length > longest:
            _refuse(f"a name in it is {length:,} bytes long", self.where)
        try:
            # Tokens of a vocabulary may hold any bytes; names may not.
            return self.take(length).decode("utf-8", "surrogateescape" if longest is None else "strict")
        except UnicodeDecodeError:
            _refuse("a name in it is not UTF-8", self.where)

    def value(self, kind: int, key: str) -> Any:
        if kind == _STRING:
            return self.string()
        if kind in _SCALARS:
            return self.scalar(_SCALARS[kind])
        if kind != _ARRAY:
            _refuse(f"the value of {key[:80]!r} is of an unknown type ({kind})", self.where)
        inner, count = self.scalar("I"), self.scalar("Q")
        if inner == _STRING:
            if count * 8 > self.left:
                _refuse(f"the array {key[:80]!r} announces {count:,} texts, more than there is room for", self.where)
            return [self.string() for _ in range(count)]
        if inner not in _SCALARS:
            _refuse(f"the array {key[:80]!r} holds values of an unknown type ({inner})", self.where)
        code = _SCALARS[inner]
        return list(struct.unpack(f"<{count}{code}", self.take(count * struct.calcsize(f"<{code}")))) if count else []


def _refuse(what: str, where: str) -> NoReturn:
    raise FoundryError(
        f"not a usable GGUF file: {what}", where=where, mend="get the file again, from a source you trust"
    )
