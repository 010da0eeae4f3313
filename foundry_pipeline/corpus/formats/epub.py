"""EPUB 2 and 3: the chapters in the order of the spine, as one text.

    >>> read_epub(data, where="notes.epub").title
    'Notes of Debates'

The book's own lists (navigation, table of contents, cover, documents outside the reading order) are left out and
counted; each chapter is read as HTML. The container is a zip archive and goes through the guarded opener; its XML is
parsed without a network, and a file that declares entities of its own is refused (that is how a few bytes become
gigabytes). A book under DRM is an error that says so.
"""

from __future__ import annotations

import posixpath
from collections import Counter
from typing import TYPE_CHECKING, Any, NoReturn
from urllib.parse import unquote

from foundry_pipeline.corpus.formats.archives import Archive, open_archive
from foundry_pipeline.corpus.formats.decoding import decode
from foundry_pipeline.corpus.formats.document import FormatDocument, counted, iso_date, paragraphs
from foundry_pipeline.corpus.formats.html import _declared, parse, text_of
from foundry_pipeline.errors import FoundryError

if TYPE_CHECKING:
    from lxml.etree import _Element

_CHAPTERS = ("application/xhtml+xml", "text/html", "application/x-dtbook+xml")
_OUTSIDE = frozenset({"cover", "toc", "title-page", "loi", "lot", "index"})  # types of the EPUB 2 guide


def read_epub(data: bytes, *, where: str) -> FormatDocument:
    """The book's text; raises FoundryError for a damaged, encrypted or empty one."""
    with open_archive(data, where=where) as archive:
        package_name = _package(archive)
        package = xml(archive.read(package_name), where=f"{where}, {package_name}")
        _unlocked(archive, package, package_name)
        counts: Counter[str] = Counter()
        blocks = [
            text for name in _spine(archive, package, package_name, counts) if (text := _chapter(archive, name, counts))
        ]
    if not blocks:
        raise FoundryError("the book holds no text", where=where, mend="look at it in a reader; it may be pictures")
    text = paragraphs(blocks)
    return FormatDocument(
        text=text,
        kind="epub",
        title=_metadata(package, "title"),
        author=_metadata(package, "creator"),
        date=_written_on(package),
        encoding="utf-8",
        counts=counted(text, counts),
    )


def xml(data: bytes, *, where: str) -> _Element:
    """A parsed XML document; raises FoundryError for bad XML and for one that declares entities."""
    from lxml import etree

    parser = etree.XMLParser(resolve_entities=False, no_network=True, load_dtd=False, huge_tree=False, recover=False)
    try:
        root = etree.fromstring(data, parser)
    except (etree.XMLSyntaxError, ValueError) as error:
        raise FoundryError(f"the XML cannot be read ({error})", where=where, mend="get the file again") from error
    table = root.getroottree().docinfo.internalDTD
    if table is not None and any(True for _ in table.iterentities()):
        raise FoundryError("the XML declares entities of its own", where=where, mend="do not use this file")
    return root


def _package(archive: Archive) -> str:
    if "META-INF/container.xml" not in archive:
        _damaged("it has no META-INF/container.xml", archive.where)
    container = xml(archive.read("META-INF/container.xml"), where=f"{archive.where}, META-INF/container.xml")
    found = [e.get("full-path") for e in container.iter("{*}rootfile") if e.get("full-path")]
    if not found or found[0] not in archive:
        _damaged("its container.xml names no package that is there", archive.where)
    return str(found[0])


def _unlocked(archive: Archive, package: _Element, package_name: str) -> None:
    """Refuse a book whose chapters are encrypted; scrambled fonts alone are no hindrance."""
    if "META-INF/encryption.xml" not in archive:
        return
    locked = xml(archive.read("META-INF/encryption.xml"), where=f"{archive.where}, META-INF/encryption.xml")
    names = {unquote(e.get("URI", "")) for e in locked.iter("{*}CipherReference")}
    chapters = {_at(package_name, e) for e in package.iter("{*}item") if e.get("media-type") in _CHAPTERS}
    if names & chapters:
        raise FoundryError(
            "the book is encrypted (DRM)",
            where=archive.where,
            mend="use an edition that is free to read, as text or EPUB",
        )


def _spine(archive: Archive, package: _Element, package_name: str, counts: Counter[str]) -> list[str]:
    items = {e.get("id"): e for e in package.iter("{*}item")}
    outside = {
        posixpath.normpath(
            posixpath.join(posixpath.dirname(package_name), unquote(e.get("href", "")).partition("#")[0])
        )
        for e in package.iter("{*}reference")
        if (e.get("type") or "").lower() in _OUTSIDE
    }
    names: list[str] = []
    for reference in package.iter("{*}itemref"):
        item: Any = items.get(reference.get("idref"))
        if item is None:
            _damaged(f"its spine names {reference.get('idref')!r}, which its manifest does not have", archive.where)
        properties = set((item.get("properties") or "").split())
        name = _at(package_name, item)
        if reference.get("linear") == "no" or properties & {"nav", "cover-image"} or name in outside:
            counts["lists and covers"] += 1
        elif item.get("media-type") in _CHAPTERS:
            if name not in archive:
                _damaged(f"its chapter {name!r} is missing", archive.where)
            names.append(name)
        else:
            counts["parts that are no text"] += 1
    return list(dict.fromkeys(names))


def _at(package_name: str, item: _Element) -> str:
    href = unquote(item.get("href") or "").partition("#")[0]
    return posixpath.normpath(posixpath.join(posixpath.dirname(package_name), href))


def _chapter(archive: Archive, name: str, counts: Counter[str]) -> str:
    data = archive.read(name)
    where = f"{archive.where}, {name}"
    if b"<!ENTITY" in data[:4096]:
        raise FoundryError("the chapter declares entities of its own", where=where, mend="do not use this file")
    text, _ = decode(data, where=where, declared=_declared(data))
    if not text.strip():
        return ""
    root = parse(text, where=where)
    body = root.find("body")
    counts["chapters"] += 1
    return text_of(root if body is None else body, counts)


def _metadata(package: _Element, name: str) -> str:
    found = next(package.iter(f"{{*}}{name}"), None)
    return "" if found is None else " ".join("".join(found.itertext()).split())


def _written_on(package: _Element) -> str:
    """A date only where the book says that it is the text's: a bare `dc:date` is mostly that of the electronic edition."""
    for element in package.iter("{*}date"):
        event = next((v for k, v in element.attrib.items() if str(k).endswith("event")), "")
        if event in ("original-publication", "creation") and (found := iso_date("".join(element.itertext()))):
            return found
    return ""


def _damaged(what: str, where: str) -> NoReturn:
    raise FoundryError(f"the EPUB is damaged: {what}", where=where, mend="get the file again")
