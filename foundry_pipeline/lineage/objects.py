"""What an object of a store is known by: its size, and the store's own mark of its content.

>>> entry({"size": 3, "ETag": '"900150983cd24fb0d6963f7d28e17f72"'})
Entry(size=3, tag='900150983cd24fb0d6963f7d28e17f72')
>>> shown_url("sftp://somebody:secret@host/models?x=1")
'sftp://host/models'
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

_MD5 = re.compile(r"[0-9a-f]{32}")
_PARTS = re.compile(r"[0-9a-f]{32}-\d+")


@dataclass(frozen=True)
class Entry:
    """An object: size in bytes, and the store's own mark of its content (an ETag; empty where it has none)."""

    size: int
    tag: str = ""


@dataclass
class Traffic:
    """What went to and fro. `requests` are HTTP requests for S3, operations of the file system elsewhere."""

    requests: int = 0
    uploaded_files: int = 0
    uploaded_bytes: int = 0
    downloaded_files: int = 0
    downloaded_bytes: int = 0
    found_files: int = 0

    def since(self, earlier: Traffic) -> Traffic:
        return Traffic(*(getattr(self, f.name) - getattr(earlier, f.name) for f in fields(self)))

    def as_dict(self) -> dict[str, int]:
        return asdict(self)


def shown_url(url: str) -> str:
    """A URL without what may be a secret: no user, no password, no query."""
    parts = urlsplit(url)
    return urlunsplit((parts.scheme, parts.netloc.rsplit("@", 1)[-1], parts.path.rstrip("/"), "", ""))


def entry(info: dict[str, Any]) -> Entry:
    tag = str(info.get("ETag") or info.get("etag") or "").strip('"')
    if not tag and (md5 := info.get("md5Hash")):  # Google gives it in base 64
        try:
            tag = base64.b64decode(md5, validate=True).hex()
        except (binascii.Error, ValueError):
            tag = ""
    return Entry(int(info.get("size") or 0), tag)


def _md5(path: Path) -> str:
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def _md5_of_parts(path: Path, size: int) -> str:
    """The ETag of an object that was sent in parts: MD5 over the MD5 of each, and their number."""
    parts = []
    with path.open("rb") as handle:
        while block := handle.read(size):
            parts.append(hashlib.md5(block, usedforsecurity=False).digest())
    return f"{hashlib.md5(b''.join(parts), usedforsecurity=False).hexdigest()}-{len(parts)}"


def is_file(found: Entry, path: Path, part_size: int | None) -> bool | None:
    """Whether an object is this local file, by size and mark alone; None where these cannot tell.

    `part_size` is the size in bytes of the parts that it would have been sent in, None where that is not known.
    """
    if found.size != path.stat().st_size:
        return False
    if _MD5.fullmatch(found.tag):
        return True if _md5(path) == found.tag else None
    if part_size is not None and _PARTS.fullmatch(found.tag):
        return True if _md5_of_parts(path, part_size) == found.tag else None
    return None
