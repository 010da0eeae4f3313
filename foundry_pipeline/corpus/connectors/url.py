"""Documents at any URL: text, Markdown, HTML, PDF or EPUB, one address each.

>>> [item.stem for item in items(Place(manifest, base, snapshots))]     # documents: {letter: {url: https://…, date: …}}
['letter']
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from foundry_pipeline.corpus.connectors.base import Item, Place, asked, fetched_facts
from foundry_pipeline.corpus.formats import read_format
from foundry_pipeline.declarations.network import UrlText
from foundry_pipeline.errors import DeclarationError

if TYPE_CHECKING:
    from foundry_pipeline.corpus.session import Session


def asks(place: Place) -> dict[str, Any]:
    return {stem: document.url for stem, document in _connector(place).documents.items()}


def refresh(place: Place, session: Session) -> None:
    for stem, document in _connector(place).documents.items():
        session.text(stem, document.url)


def facts(place: Place) -> dict[str, Any]:
    return fetched_facts(place, asks(place))


def items(place: Place) -> Iterator[Item]:
    """The declared documents as they were last fetched; of a zip archive every text in it.

    What the manifest says of a document goes before what the file says of itself. Raises DeclarationError for a document
    that neither gives a date, FoundryError as `read_format` does.
    """
    connector, snapshot = _connector(place), place.snapshot
    for record in snapshot.documents(asked("url", asks(place))):
        told = connector.documents[record.key]
        name = unquote(PurePosixPath(urlsplit(record.final_url).path).name) or record.key
        texts = read_format(
            snapshot.data(record), name=name, content_type=record.content_type, encoding=connector.encoding
        )
        for number, text in enumerate(texts, start=1):
            date = told.date or text.date
            if not date:
                raise DeclarationError(
                    f"`{record.key}` has no date, and the file says none",
                    where=f"{place.where}, field `connector.documents.{record.key}.date`",
                    mend="give the day on which it was written or published: YYYY-MM-DD, YYYY-MM or YYYY",
                )
            yield Item(
                stem=record.key if len(texts) == 1 else f"{record.key}-{number}",
                where=record.url,
                text=text.text,
                title=told.title or text.title or place.manifest.title,
                date=date,
                url=record.url,
                author=told.author,
                role=told.role or "",
            )


def _connector(place: Place) -> UrlText:
    connector = place.manifest.connector
    assert isinstance(connector, UrlText)
    return connector
