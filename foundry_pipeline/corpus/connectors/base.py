"""What every connector gives and gets.

    >>> Item("letter", "texts/letter.txt", "Dear Sir, …", title="To a friend", date="1788-06-01", url="")
    Item(stem='letter', …)

`Item` is what a connector module yields, `RawDocument` what the rest of the project sees of it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from foundry_pipeline.corpus.snapshot import NotFetched, Snapshot
from foundry_pipeline.declarations.common import Role
from foundry_pipeline.declarations.sources import SourceManifest
from foundry_pipeline.errors import FoundryError
from foundry_pipeline.lineage.hashing import digest


@dataclass(frozen=True)
class RawDocument:
    """One document as transcribed.

    `raw` is the decoded text with its line ends untouched, `raw_sha256` the SHA-256 (hex) of `raw` in UTF-8; `date` is
    ISO: a day, or a month (YYYY-MM) or year (YYYY) where no more is known. `author` and `role` are the manifest's unless
    a collection says otherwise of this document, and `variant_of` names the document that it is another version of.
    `remarks` say in words what the reader of its format left out, mended or met.
    """

    document_id: str
    title: str
    date: str
    url: str
    raw: str
    raw_sha256: str
    author: str = ""
    role: str = ""
    variant_of: str = ""
    remarks: str = ""


@dataclass(frozen=True)
class Item:
    """A document as a connector hands it over: its text, where that came from, and what is said of it.

    `stem` fills `{stem}` in the manifest's id pattern and `where` names the place in error messages. Empty `author` and
    `role` stand for the manifest's own; `variant_of` is the stem of another item of the same source; `remarks` are what a
    user should know of how it was read.
    """

    stem: str
    where: str
    text: str
    title: str
    date: str
    url: str
    author: str = ""
    role: str = ""
    variant_of: str = ""
    remarks: str = ""


@dataclass(frozen=True)
class Place:
    """A manifest and where its texts lie.

    `base` is the manifest's folder, to which a local path is relative; `snapshots` the folder that holds what was fetched
    for this character (`.foundry/sources/<character>`), None where nothing may come from the network.
    """

    manifest: SourceManifest
    base: Path
    snapshots: Path | None = None

    @property
    def snapshot(self) -> Snapshot:
        """What was fetched for this source. Raises NotFetched where nothing may come from the network."""
        if self.snapshots is None:
            raise NotFetched(
                f"the source `{self.manifest.source}` is fetched, and no folder is given that holds what was fetched",
                where=f"manifest `{self.manifest.source}`",
                mend="foundry sources refresh <character>",
            )
        command = f"foundry sources refresh {self.snapshots.name} --source {self.manifest.source}"
        return Snapshot(self.snapshots / self.manifest.source, command=command)

    @property
    def where(self) -> str:
        return f"manifest `{self.manifest.source}`"


def asked(kind: str, asks: dict[str, Any]) -> str:
    """Digest of what a manifest asks a remote place for: with another one, what was fetched is not what is declared."""
    return digest({"kind": kind, "asks": asks})


def fetched_facts(place: Place, asks: dict[str, Any]) -> dict[str, Any]:
    """What reading a fetched source depends on: every text's key, hash and noted facts, never when it was asked for."""
    records = place.snapshot.documents(asked(place.manifest.connector.kind, asks))
    return {"version": "", "files": [(r.key, r.sha256, r.facts) for r in records]}


def parse_json(data: bytes, *, where: str, mend: str) -> Any:
    """JSON of a body that came over the network; raises FoundryError for what is none, or is nested without end."""
    try:
        return json.loads(data.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        shown = data[:60].decode("utf-8", "replace")
        raise FoundryError(f"not JSON ({error}): {shown!r}", where=where, mend=mend) from error


def whole_text(text: str, *, where: str, mend: str) -> str:
    """A text out of JSON, which can hold half of a surrogate pair; raises FoundryError for one that is no Unicode text."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise FoundryError(f"character {error.start} is half of a character", where=where, mend=mend) from error
    return text


def mended(fact: str) -> str:
    """A title or name out of JSON with halves of surrogate pairs replaced by `?`: a text would be refused for them."""
    return fact.encode("utf-8", "replace").decode()


def whose(names: Sequence[str], authors: Sequence[str], manifest: SourceManifest) -> tuple[str, Role]:
    """Author and role of a document that a catalogue gives these authors; `names` are the manifest author's there.

    By the manifest's author alone: his, in the manifest's role. With others, or by nobody known: `joint`. By others:
    `control`.
    """
    own = {_name(n) for n in names}
    his = [a for a in authors if _name(a) in own]
    if authors and len(his) == len(authors):
        return manifest.author, manifest.role
    if not authors:
        return "unknown", "joint"
    return "; ".join(authors), "joint" if his else "control"


def _name(name: str) -> str:
    return " ".join(name.casefold().replace(".", " ").replace(",", " ").split())


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def text_sha256(text: str, piece: int = 1 << 20) -> str:
    """SHA-256 (hex) of a text in UTF-8, without a second copy of a large one."""
    hashed = hashlib.sha256()
    for start in range(0, len(text), piece):
        hashed.update(text[start : start + piece].encode())
    return hashed.hexdigest()


def decode(data: bytes, *, where: str, mend: str) -> str:
    """UTF-8 text without its byte-order mark; raises FoundryError naming the first byte that is not UTF-8."""
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        what = f"not UTF-8 text: byte {error.start} is 0x{data[error.start]:02x}"
        raise FoundryError(what, where=where, mend=mend) from error
