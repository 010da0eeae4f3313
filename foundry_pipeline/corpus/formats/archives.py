"""Zip archives from anywhere, read in memory and never unpacked to disk.

    >>> with open_archive(data, where="harvest.zip") as archive:
    ...     {name: archive.read(name) for name in archive.names}
    {'1404.txt': b'...'}

Before the first byte is unpacked the whole list of entries is judged: names that leave the archive, links, encrypted
or repeated entries, too many of them, or a promised size out of all proportion are refused. While unpacking, the bytes
are counted again, since a list may lie.
"""

from __future__ import annotations

import io
import stat
import zipfile
import zlib
from collections import Counter
from dataclasses import dataclass
from types import TracebackType
from typing import NoReturn

from foundry_pipeline.errors import FoundryError

ARCHIVE_MAGIC = (
    b"PK\x03\x04",
    b"PK\x05\x06",
    b"PK\x07\x08",
    b"\x1f\x8b",
    b"BZh",
    b"\xfd7zXZ\x00",
    b"7z\xbc\xaf",
    b"Rar!",
)
_PIECE = 1 << 20


@dataclass(frozen=True)
class Limits:
    """What an archive may hold. Deflate cannot pack better than about 1,030 to 1, prose seldom better than 4 to 1."""

    entries: int = 10_000
    total: int = 512 << 20  # bytes unpacked
    ratio: int = 200  # unpacked over packed, for entries over 1 MiB


class Archive:
    """An opened zip; `names` are its files in order of name, folders left out."""

    def __init__(self, zipped: zipfile.ZipFile, infos: dict[str, zipfile.ZipInfo], where: str, limits: Limits) -> None:
        self._zip, self._infos, self.where, self._left = zipped, infos, where, limits.total
        self.names: tuple[str, ...] = tuple(sorted(infos))

    def __enter__(self) -> Archive:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, at: TracebackType | None) -> None:
        self._zip.close()

    def __contains__(self, name: str) -> bool:
        return name in self._infos

    def read(self, name: str) -> bytes:
        """One entry's bytes; raises FoundryError if it is not there, damaged, or more than the list said."""
        if name not in self._infos:
            _refuse(f"the archive has no entry {name!r}", self.where, "get the file again")
        info = self._infos[name]
        pieces, size = [], 0
        try:
            with self._zip.open(info) as handle:
                while piece := handle.read(_PIECE):
                    size += len(piece)
                    if size > info.file_size or size > self._left:
                        _refuse(f"the entry {name!r} unpacks to more than it says", self.where, _LEAVE)
                    pieces.append(piece)
        except (
            zipfile.BadZipFile,
            zlib.error,
            EOFError,
            OSError,
            ValueError,
            NotImplementedError,
            RuntimeError,
        ) as error:
            _refuse(f"the entry {name!r} cannot be unpacked ({error})", self.where, "get the file again")
        self._left -= size
        return b"".join(pieces)


_LEAVE = "do not use this archive; get the text from another place"


def open_archive(data: bytes, *, where: str, limits: Limits | None = None) -> Archive:
    """Open a zip archive held in memory. Raises FoundryError for one that is damaged or that no honest packer makes."""
    limits = limits or Limits()
    try:
        zipped = zipfile.ZipFile(io.BytesIO(data))
        infos = zipped.infolist()
    except (zipfile.BadZipFile, zipfile.LargeZipFile, OSError, ValueError, NotImplementedError) as error:
        _refuse(f"the zip archive is damaged ({error})", where, "get the file again")
    if len(infos) > limits.entries:
        _refuse(f"the archive has {len(infos)} entries, more than {limits.entries}", where, _LEAVE)
    for info in infos:
        _judge(info, where, limits)
    total = sum(info.file_size for info in infos)
    if total > limits.total:
        _refuse(f"the archive unpacks to {total:,} bytes, more than {limits.total:,}", where, _LEAVE)
    files = [info for info in infos if not info.is_dir()]
    repeated = [name for name, count in Counter(info.filename for info in files).items() if count > 1]
    if repeated:
        _refuse(f"the archive has the entry {repeated[0]!r} more than once", where, _LEAVE)
    _apart(files, where)
    return Archive(zipped, {info.filename: info for info in files}, where, limits)


def _judge(info: zipfile.ZipInfo, where: str, limits: Limits) -> None:
    # `filename` has been cut at a NUL and had the system's separator replaced; `orig_filename` is what the list says.
    name = info.orig_filename
    parts = name.replace("\\", "/").split("/")
    if name.startswith(("/", "\\")) or ".." in parts or "\0" in name or (len(name) > 1 and name[1] == ":"):
        _refuse(f"the entry {name!r} points outside the archive", where, _LEAVE)
    if stat.S_ISLNK(info.external_attr >> 16):
        _refuse(f"the entry {name!r} is a link", where, _LEAVE)
    if info.flag_bits & 0x1:
        _refuse(f"the entry {name!r} is encrypted", where, "unpack it with its password and use the files inside")
    if info.file_size > 1 << 20 and info.file_size > limits.ratio * max(1, info.compress_size):
        ratio = info.file_size // max(1, info.compress_size)
        _refuse(f"the entry {name!r} unpacks to {ratio} times its size, as a zip bomb does", where, _LEAVE)


def _apart(files: list[zipfile.ZipInfo], where: str) -> None:
    """No two entries may share packed bytes: that is how a bomb without nesting is made (Fifield, 2019)."""
    end = -1
    for info in sorted(files, key=lambda i: i.header_offset):
        if info.header_offset < end:
            _refuse(f"the entry {info.filename!r} overlaps another, as in a zip bomb", where, _LEAVE)
        end = info.header_offset + 30 + len(info.orig_filename) + info.compress_size


def _refuse(what: str, where: str, mend: str) -> NoReturn:
    raise FoundryError(what, where=where, mend=mend)
