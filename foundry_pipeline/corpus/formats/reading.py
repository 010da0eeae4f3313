"""Which format a file is in, and its text.

>>> kind_of(b"<!DOCTYPE html><p>Dear Sir,", name="letter.txt")
'html'
"""

from __future__ import annotations

import posixpath
import re
from dataclasses import replace
from typing import NoReturn

from foundry_pipeline.corpus.formats.archives import ARCHIVE_MAGIC, open_archive
from foundry_pipeline.corpus.formats.document import FormatDocument
from foundry_pipeline.corpus.formats.plain import read_plain
from foundry_pipeline.errors import FoundryError

TEXT_SUFFIXES = (".txt", ".text", ".md", ".markdown", ".html", ".htm", ".xhtml", ".pdf", ".epub")

# What opens a file that holds no text we read → what it is.
_FOREIGN = (
    (b"\xd0\xcf\x11\xe0", "an old Word or Office document"),
    (b"{\\rtf", "a rich-text document"),
    (b"\x89PNG", "an image"),
    (b"\xff\xd8\xff", "an image"),
    (b"GIF8", "an image"),
    (b"II*\x00", "an image"),
    (b"MM\x00*", "an image"),
    (b"AT&TFORM", "a DjVu scan"),
    (b"\x7fELF", "a program"),
    (b"MZ", "a program"),
    (b"SQLite format 3", "a database"),
    (b"PAR1", "a Parquet table"),
)
_TYPES = {
    "text/html": "html",
    "application/xhtml+xml": "html",
    "text/markdown": "markdown",
    "text/x-markdown": "markdown",
    "text/plain": "text",
}
_SUFFIXES = {".html": "html", ".htm": "html", ".xhtml": "html", ".md": "markdown", ".markdown": "markdown"}
_MARKUP = re.compile(
    rb"\s*(?:<\?xml[^>]*>\s*)?(?:<!--.*?-->\s*)*(?:<!doctype\s+html|<html[\s>]|<head[\s>]|<body[\s>])", re.I | re.S
)
_CHARSET = re.compile(r"charset\s*=\s*[\"']?([\w.:-]+)", re.I)


def kind_of(data: bytes, *, name: str, content_type: str = "") -> str:
    """`text`, `markdown`, `html`, `pdf`, `epub` or `zip`; raises FoundryError for anything else.

    What the bytes are goes before what the server or the name says; the two decide only among kinds of plain text.
    """
    head = data[:4096].removeprefix(b"\xef\xbb\xbf")
    told = content_type.partition(";")[0].strip().lower()
    if not data:
        _refuse("the file is empty", name, "get it again, or undeclare it")
    if head.lstrip().startswith(b"%PDF-"):
        return "pdf"
    if head.startswith(ARCHIVE_MAGIC[:3]):
        return _zip_kind(data, name)
    if head.startswith(ARCHIVE_MAGIC[3:]) or head[257:262] == b"ustar":
        _refuse("the file is an archive of a kind that is not read", name, "unpack it and use the text files inside")
    for magic, what in _FOREIGN:
        if head.startswith(magic) and (len(magic) > 2 or b"\0" in head):
            _refuse(f"the file is {what}, not text", name, "save its text as UTF-8 .txt, .md or .html")
    if _MARKUP.match(head):
        return "html"
    if head.lstrip().startswith(b"<?xml"):
        _refuse("the file is XML; its tags would be read as words", name, "convert it to HTML or plain text")
    if told == "application/pdf":
        _refuse("the file is declared as PDF and is none", name, "get it again; it may be an error page")
    if told == "application/json" or told.startswith(("image/", "audio/", "video/", "font/")):
        _refuse(
            f"the file is declared as {told}, which is not read as text", name, "give the address of the text itself"
        )
    # A server's `text/plain` says little: it is what is sent for anything, so the name may still say more.
    suffix = _SUFFIXES.get(posixpath.splitext(name.lower())[1], "")
    return _TYPES.get(told, suffix or "text") if told != "text/plain" else suffix or "text"


def read_format(
    data: bytes, *, name: str, content_type: str = "", encoding: str = "", mend: str = ""
) -> list[FormatDocument]:
    """The documents in a file: one, or for a zip archive as many as it has files of text, in order of name.

    `name` is shown in errors and its ending may decide the format; `content_type` is what a server said of it;
    `encoding` is what a manifest declares for text that is not UTF-8. Raises FoundryError as the readers do, and for a
    document without a letter of text.
    """
    kind = kind_of(data, name=name, content_type=content_type)
    charset = _CHARSET.search(content_type)
    encoding = encoding or (charset.group(1) if charset else "")
    if kind == "zip":
        return _zipped(data, name, encoding)
    document = _read(kind, data, name, encoding, mend)
    if _blank(document.text):
        _refuse("the file holds no text", name, "put the text back, or undeclare the document")
    return [replace(document, name=name)]


def _read(kind: str, data: bytes, name: str, encoding: str, mend: str) -> FormatDocument:
    if kind == "markdown":
        from foundry_pipeline.corpus.formats.markdown import read_markdown

        return read_markdown(data, where=name, encoding=encoding)
    if kind == "html":
        from foundry_pipeline.corpus.formats.html import read_html

        return read_html(data, where=name, encoding=encoding)
    if kind == "pdf":
        from foundry_pipeline.corpus.formats.pdf import read_pdf

        return read_pdf(data, where=name)
    if kind == "epub":
        from foundry_pipeline.corpus.formats.epub import read_epub

        return read_epub(data, where=name)
    return read_plain(data, where=name, encoding=encoding, mend=mend)


def _zip_kind(data: bytes, name: str) -> str:
    with open_archive(data, where=name) as archive:
        if "META-INF/container.xml" in archive or ("mimetype" in archive and b"epub" in archive.read("mimetype")):
            return "epub"
        if "[Content_Types].xml" in archive or "mimetype" in archive:
            _refuse("the file is a Word or Office document", name, "save its text as UTF-8 .txt, .md or .html")
    return "zip"


def _zipped(data: bytes, name: str, encoding: str) -> list[FormatDocument]:
    found: list[FormatDocument] = []
    with open_archive(data, where=name) as archive:
        for entry in archive.names:
            if not entry.lower().endswith(TEXT_SUFFIXES) or posixpath.basename(entry).startswith("."):
                # An archive inside an archive is how a small file becomes an endless one; pictures are only pictures.
                if entry.lower().endswith((".zip", ".gz", ".tgz", ".bz2", ".xz", ".7z", ".rar", ".tar")):
                    _refuse(f"the archive holds another archive, {entry!r}", name, "unpack it and use the files inside")
                continue
            content = archive.read(entry)
            inner = f"{name}, {entry}"
            kind = kind_of(content, name=inner)
            if kind == "zip":
                _refuse(f"the archive holds another archive, {entry!r}", name, "unpack it and use the files inside")
            document = _read(kind, content, inner, encoding, "")
            if not _blank(document.text):
                found.append(replace(document, name=entry))
    if not found:
        _refuse("the archive holds no file of text", name, "get another archive")
    return found


def _blank(text: str) -> bool:
    return not text or text.isspace()  # unlike `strip`, without a second copy of a large text


def _refuse(what: str, where: str, mend: str) -> NoReturn:
    raise FoundryError(what, where=where, mend=mend)
