"""Project Gutenberg: an ebook from a mirror, through the page for robots, or from a file the user has.

    >>> [i.stem for i in items(Place(manifest, base, snapshots))][:2]       # book: 1404, with a `collection:` rule
    ['1', '2']

The main site is for people (https://www.gutenberg.org/policy/robot_access.html): it is asked for nothing but
`/robot/harvest`, whose pages lead to zip files on a mirror, at the two seconds between requests that it asks for. A mirror
keeps book 1404 under `1/4/0/1404/`, and book 7 under `0/7/`.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from foundry_pipeline.corpus.addresses import FetchError, joined
from foundry_pipeline.corpus.connectors.base import Item, Place, asked, fetched_facts, sha256
from foundry_pipeline.corpus.connectors.works import works_of
from foundry_pipeline.corpus.gutenberg import read_gutenberg
from foundry_pipeline.declarations.network import GutenbergText
from foundry_pipeline.errors import DeclarationError, FoundryError

if TYPE_CHECKING:
    from foundry_pipeline.corpus.session import Session

_HREF = re.compile(r"""<a\s[^>]*?href\s*=\s*["']([^"']+)["']""", re.I)


def fetched(place: Place) -> bool:
    return not _connector(place).path


def asks(place: Place) -> dict[str, Any]:
    return _connector(place).model_dump(mode="json", include={"book", "mirror", "harvest", "file"})


def allowed(place: Place, url: str) -> str:
    connector = _connector(place)
    here = urlsplit(url)
    known = {urlsplit(x).netloc for x in (connector.mirror, connector.harvest) if x} | set(connector.hosts)
    return "" if here.netloc in known else f"{here.netloc} is no declared mirror"


def refresh(place: Place, session: Session) -> None:
    connector = _connector(place)
    known = session.snapshot.record(_key(connector))
    if connector.mirror:
        root = connector.mirror.rstrip("/")
        folder = f"{root}/{book_folder(connector.book)}"
        names = [connector.file] if connector.file else [f"{folder}/{name}" for name in usual_names(connector.book)]
        places = [f"{root}/{connector.file}"] if connector.file else names
        if known is not None and known.url in places:
            places = [known.url, *(p for p in places if p != known.url)]
        session.first_of(_key(connector), places, expect="text")
        return
    if known is None:
        session.text(_key(connector), _harvested(connector, session), expect="text")
        return
    # Where the harvest page led once is asked directly: one request, not a walk through hundreds of pages.
    session.text(_key(connector), known.url, expect="text")


def facts(place: Place) -> dict[str, Any]:
    if fetched(place):
        return fetched_facts(place, asks(place))
    return {"version": "", "files": [(_key(_connector(place)), sha256(_own_file(place)))]}


def items(place: Place) -> Iterator[Item]:
    """The work, or the works that it is divided into. Raises FoundryError as `read_gutenberg` and `works_of` do."""
    connector = _connector(place)
    where, data, url = f"Gutenberg {connector.book}", b"", place.manifest.url
    if fetched(place):
        for record in place.snapshot.documents(asked("gutenberg", asks(place))):
            where, data, url = record.url, place.snapshot.data(record), record.url
    else:
        where, data = str(place.base / connector.path), _own_file(place)
    text = read_gutenberg(data, where=where, encoding=connector.encoding)
    if text.number and int(text.number) != connector.book:
        raise DeclarationError(
            f"the file is ebook {text.number} ({text.title!r}), the manifest asks for {connector.book}",
            where=f"{place.where}, field `connector.book`",
            mend="correct the number, or get the other file",
        )
    if connector.collection is not None:
        yield from works_of(text.text, connector.collection, place=place, where=where, url=url, date=connector.date)
        return
    yield Item(
        stem=_key(connector),
        where=where,
        text=text.text,
        title=connector.title or text.title or place.manifest.title,
        date=connector.date,
        url=url,
    )


def _key(connector: GutenbergText) -> str:
    return f"pg{connector.book}"


def _own_file(place: Place) -> bytes:
    path = place.base / _connector(place).path
    try:
        return path.read_bytes()
    except OSError as error:
        raise FoundryError(
            f"the ebook's file cannot be read ({error.strerror})",
            where=str(path),
            mend=f"download ebook {_connector(place).book} in a browser and put it there",
        ) from error


# ---- where a book lies ----


def book_folder(book: int) -> str:
    """The folder of a book on a mirror: every digit but the last is a folder.

    >>> book_folder(1404), book_folder(7)
    ('1/4/0/1404', '0/7')
    """
    digits = str(book)
    return "/".join([*digits[:-1], digits]) if len(digits) > 1 else f"0/{digits}"


def usual_names(book: int) -> tuple[str, ...]:
    """File names that a plain text goes by: UTF-8, ASCII, eight bits; packed where a mirror has it only so."""
    return tuple(f"{book}{mark}{ending}" for ending in (".txt", ".zip") for mark in ("-0", "", "-8"))


def _harvested(connector: GutenbergText, session: Session) -> str:
    """The address of the book's zip, from the harvest pages, page after page."""
    assert connector.harvest is not None
    wanted = re.compile(rf"/{connector.book}(-0|-8)?\.zip$")
    url, seen = connector.harvest, set[str]()
    while url not in seen and len(seen) < connector.most_pages:
        seen.add(url)
        page = session.list_(f"harvest page {len(seen)}", url, expect="any").decode("utf-8", "replace")
        links = [joined(url, html.unescape(link)) for link in _HREF.findall(page)]
        found = sorted((link for link in links if wanted.search(link)), key=_best_first)
        if found:
            return found[0]
        following = [link for link in links if urlsplit(link).path.endswith("/harvest")]
        if not following:
            break
        url = following[-1]
    raise FetchError(
        f"ebook {connector.book} is on none of the {len(seen)} harvest pages that were read",
        where=connector.harvest,
        mend="see whether its language and file type are those of the address, or name a `mirror`",
    )


def _best_first(link: str) -> int:
    return 0 if link.endswith("-0.zip") else 2 if link.endswith("-8.zip") else 1


def _connector(place: Place) -> GutenbergText:
    connector = place.manifest.connector
    assert isinstance(connector, GutenbergText)
    return connector
