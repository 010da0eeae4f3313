"""Small files in binary formats, made byte by byte, so that the tests need no writer of these formats."""

from __future__ import annotations

import io
import zipfile

Placed = tuple[float, float, str]
"""x, y, text of a printed line."""


def pdf(pages: list[list[Placed]], *, size: float = 11, title: str = "", extra: bytes = b"") -> bytes:
    """A PDF of Helvetica lines; a page without lines has no text."""
    objects: list[bytes] = [b"<< /Type /Catalog /Pages 2 0 R >>", b""]
    font = 3
    objects.append(b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica /Encoding /WinAnsiEncoding >>")
    kids = []
    for lines in pages:
        drawn = b"".join(
            b"BT /F1 %g Tf 1 0 0 1 %g %g Tm (%s) Tj ET\n" % (size, x, y, _escaped(text)) for x, y, text in lines
        )
        objects.append(b"<< /Length %d >>\nstream\n%s\nendstream" % (len(drawn), drawn))
        content = len(objects)
        objects.append(
            b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 595 842] /Contents %d 0 R "
            b"/Resources << /Font << /F1 %d 0 R >> >> >>" % (content, font)
        )
        kids.append(len(objects))
    objects[1] = b"<< /Type /Pages /Count %d /Kids [%s] >>" % (len(kids), b" ".join(b"%d 0 R" % k for k in kids))
    objects.append(b"<< /Title (%s) /CreationDate (D:20010101000000Z) >>" % _escaped(title))
    return _numbered(objects, extra)


def _escaped(text: str) -> bytes:
    return text.encode("cp1252").replace(b"\\", b"\\\\").replace(b"(", b"\\(").replace(b")", b"\\)")


def _numbered(objects: list[bytes], extra: bytes) -> bytes:
    out, places = bytearray(b"%PDF-1.4\n"), []
    for number, body in enumerate(objects, start=1):
        places.append(len(out))
        out += b"%d 0 obj\n%s\nendobj\n" % (number, body)
    table = len(out)
    out += b"xref\n0 %d\n0000000000 65535 f \n" % (len(objects) + 1)
    out += b"".join(b"%010d 00000 n \n" % place for place in places)
    out += b"trailer\n<< /Size %d /Root 1 0 R /Info %d 0 R %s>>\n" % (len(objects) + 1, len(objects), extra)
    return bytes(out + b"startxref\n%d\n%%%%EOF\n" % table)


def column(text_lines: list[str], *, x: float = 72, top: float = 740, leading: float = 14) -> list[Placed]:
    return [(x, top - i * leading, line) for i, line in enumerate(text_lines) if line]


CONTAINER = (
    '<?xml version="1.0"?><container version="1.0" xmlns="urn:oasis:names:tc:opendocument:xmlns:container"><rootfiles>'
    '<rootfile full-path="OEBPS/book.opf" media-type="application/oebps-package+xml"/></rootfiles></container>'
)


def package(items: str, spine: str, *, guide: str = "", more: str = "") -> str:
    return (
        '<?xml version="1.0" encoding="UTF-8"?><package xmlns="http://www.idpf.org/2007/opf" version="3.0">'
        '<metadata xmlns:dc="http://purl.org/dc/elements/1.1/" xmlns:opf="http://www.idpf.org/2007/opf">'
        f"<dc:title>Letters of a Keeper</dc:title><dc:creator>The Keeper</dc:creator><dc:date>2005-01-01</dc:date>{more}</metadata>"
        f"<manifest>{items}</manifest><spine>{spine}</spine>{guide}</package>"
    )


def item(name: str, properties: str = "", media: str = "application/xhtml+xml") -> str:
    extra = f' properties="{properties}"' if properties else ""
    return f'<item id="{name.partition(".")[0]}" href="{name}" media-type="{media}"{extra}/>'


def page(body: str) -> str:
    return (
        '<?xml version="1.0" encoding="utf-8"?><!DOCTYPE html>'
        f'<html xmlns="http://www.w3.org/1999/xhtml"><head><title>x</title></head><body>{body}</body></html>'
    )


def epub(files: dict[str, str | bytes] | None = None) -> bytes:
    """An EPUB 3; without `files`, one with a cover, a contents page and two chapters out of order in the archive."""
    if files is None:
        names = ("cover.xhtml", "nav.xhtml", "two.xhtml", "one.xhtml", "aside.xhtml")
        items = "".join(item(n, "nav" if n == "nav.xhtml" else "") for n in names)
        spine = '<itemref idref="cover"/><itemref idref="nav"/><itemref idref="one"/><itemref idref="two"/>'
        spine += '<itemref idref="aside" linear="no"/>'
        files = {
            "META-INF/container.xml": CONTAINER,
            "OEBPS/book.opf": package(
                items, spine, guide='<guide><reference type="cover" href="cover.xhtml"/></guide>'
            ),
            "OEBPS/cover.xhtml": page("<p>COVER</p>"),
            "OEBPS/nav.xhtml": page("<ol><li>CONTENTS</li></ol>"),
            "OEBPS/two.xhtml": page("<h1>The second</h1><p>The lamp&nbsp;was lit.</p>"),
            "OEBPS/one.xhtml": page("<h1>The first</h1><p>The oil was <i>spent</i>.</p>"),
            "OEBPS/aside.xhtml": page("<p>ASIDE</p>"),
        }
    return zipped({"mimetype": "application/epub+zip", **files})


def zipped(files: dict[str, str | bytes]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(zipfile.ZipInfo(name), content, compress_type=zipfile.ZIP_DEFLATED)
    return out.getvalue()
