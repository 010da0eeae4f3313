"""From a manifest to its documents, through the connector of its kind.

>>> read_source(manifest, base=Path("sources/madison/manifests"))[0].document_id
'annual_message_1809'
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from foundry_pipeline.corpus.connectors import founders, gutenberg, loc, local, pypi, url
from foundry_pipeline.corpus.connectors.base import Item, Place, RawDocument, text_sha256
from foundry_pipeline.corpus.formats import MODULES as FORMATS
from foundry_pipeline.declarations.sources import SourceManifest
from foundry_pipeline.errors import DeclarationError, FoundryError
from foundry_pipeline.lineage.hashing import digest

if TYPE_CHECKING:
    from foundry_pipeline.corpus.session import Session


@dataclass(frozen=True)
class Connector:
    """How sources of one kind are read: their documents, and what reading them depends on (JSON-able).

    One that fetches has, besides: what it asks for, how it does (`corpus/refresh.py` calls it), whether this source is
    fetched at all or a file of the user's, and which addresses may be asked (empty: allowed; else why not).
    """

    items: Callable[[Place], Iterator[Item]]
    facts: Callable[[Place], dict[str, Any]]
    asks: Callable[[Place], dict[str, Any]] | None = None
    refresh: Callable[[Place, Session], None] | None = None
    fetched: Callable[[Place], bool] = lambda place: True
    allowed: Callable[[Place, str], str] = lambda place, url: ""


CONNECTORS: dict[str, Connector] = {
    "pypi": Connector(pypi.items, pypi.facts),
    "local": Connector(local.items, local.facts),
    "url": Connector(url.items, url.facts, url.asks, url.refresh),
    "gutenberg": Connector(
        gutenberg.items, gutenberg.facts, gutenberg.asks, gutenberg.refresh, gutenberg.fetched, gutenberg.allowed
    ),
    "founders": Connector(
        founders.items, founders.facts, founders.asks, founders.refresh, founders.fetched, founders.allowed
    ),
    "loc": Connector(loc.items, loc.facts, loc.asks, loc.refresh, allowed=loc.allowed),
}

# Every module that decides what is read; they make up the code version of the sources.
MODULES: tuple[str, ...] = (
    *(
        f"foundry_pipeline.corpus.connectors.{name}"
        for name in ("base", "reading", "works", "pypi", "local", "file_table", "url", "gutenberg", "founders", "loc")
    ),
    *(f"foundry_pipeline.corpus.{name}" for name in ("gutenberg", "collections", "work_parts")),
    *FORMATS,
)

_DATE = re.compile(r"\d{4}(-\d{2}(-\d{2})?)?")


def read_source(manifest: SourceManifest, *, base: Path, snapshots: Path | None = None) -> list[RawDocument]:
    """All documents of a source, ordered by date and id; variants are not among them (`read_all`).

    `base` is the folder of the manifest; a `local` connector's path is relative to it. `snapshots` is the folder that
    holds what was fetched for the character. Nothing is fetched here. Raises FoundryError (a missing or other package, an
    unreadable, empty or undecodable file, a source that was never fetched), DamagedArtifact (bytes that are not those
    that were published or fetched) or DeclarationError (a manifest that does not fit what it points to).
    """
    return [document for document in read_all(manifest, base=base, snapshots=snapshots) if not document.variant_of]


def read_all(manifest: SourceManifest, *, base: Path, snapshots: Path | None = None) -> list[RawDocument]:
    """The documents of a source and the variants beside them (another printing of a document, named by `variant_of`)."""
    place = Place(manifest, base, snapshots)
    items = list(CONNECTORS[manifest.connector.kind].items(place))
    ids = {item.stem: _document_id(manifest, item) for item in items}  # for `variant_of`
    documents = [_document(manifest, item, ids) for item in items]
    seen: dict[str, str] = {}
    for document in documents:
        if document.document_id in seen:
            raise DeclarationError(
                f"two documents of `{manifest.source}` get the id `{document.document_id}`",
                where=f"manifest `{manifest.source}`, field `document_id`: {manifest.document_id!r}",
                mend="use {date} or {stem} in the pattern",
            )
        seen[document.document_id] = document.title
    return sorted(documents, key=lambda d: (d.date, d.document_id))


def source_fingerprint(manifest: SourceManifest, base: Path, *, snapshots: Path | None = None) -> str:
    """SHA-256 (hex) over all that reading this source depends on: declaration, package version, every file's bytes.

    Cheap (about 20 files of 20 kB) and computed from the files on disk, not from a list of them, so that an altered file
    is never taken for the one that was read before. Raises as `read_source` does, except that a text is not compared
    with its published hash here: an altered one shows as a source to be read again, and reading refuses it.
    """
    facts = CONNECTORS[manifest.connector.kind].facts(Place(manifest, base, snapshots))
    declared = manifest.model_dump(mode="json", include={"source", "title", "author", "role", "license", "document_id"})
    # How fast a server is asked is nothing that its texts depend on.
    connector = manifest.connector.model_dump(mode="json", exclude={"fetch"})
    return digest({"declared": declared, "connector": connector, **facts})


def _document(manifest: SourceManifest, item: Item, ids: dict[str, str]) -> RawDocument:
    if not item.text.strip():
        raise FoundryError(
            "the file holds no text", where=item.where, mend="put the text back, or undeclare the document"
        )
    if item.variant_of and item.variant_of not in ids:
        raise DeclarationError(
            f"`{item.stem}` is given as a version of `{item.variant_of}`, which this source does not have",
            where=f"manifest `{manifest.source}`",
            mend=f"name one of: {', '.join(sorted(ids))}",
        )
    document_id = _document_id(manifest, item)
    if item.variant_of and document_id == ids[item.variant_of]:  # the pattern tells works apart, not their printings
        document_id += f"_{item.stem.rpartition('_')[2]}"
    return RawDocument(
        document_id=document_id,
        title=item.title,
        date=item.date,
        url=item.url,
        raw=item.text,
        raw_sha256=text_sha256(item.text),
        author=item.author or manifest.author,
        role=item.role or manifest.role,
        variant_of=ids[item.variant_of] if item.variant_of else "",
        remarks=item.remarks,
    )


def _document_id(manifest: SourceManifest, item: Item) -> str:
    try:
        return manifest.document_id.format(year=_year(manifest, item), date=item.date, stem=item.stem)
    except (KeyError, IndexError, ValueError) as error:
        raise DeclarationError(
            f"the id pattern {manifest.document_id!r} cannot be filled in: {error}",
            where=f"manifest `{manifest.source}`, field `document_id`",
            mend="use only {year}, {date} and {stem}",
        ) from error


def _year(manifest: SourceManifest, item: Item) -> int:
    """Year of an ISO date that may end with its month or year; raises DeclarationError for any other."""
    try:
        if not _DATE.fullmatch(item.date):
            raise ValueError(item.date)
        return dt.date.fromisoformat((item.date + "-01-01")[:10]).year
    except ValueError as error:
        raise DeclarationError(
            f"the date {item.date!r} of `{item.stem}` is not YYYY-MM-DD",
            where=f"manifest `{manifest.source}`",
            mend="give the day on which the document was sent or published as YYYY-MM-DD (or YYYY-MM, or YYYY)",
        ) from error
