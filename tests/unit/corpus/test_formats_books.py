"""PDF, EPUB and zip archives: honest ones are read, hostile ones refused before they do anything."""

from __future__ import annotations

import io
import struct
import zipfile

import pytest
from format_samples import CONTAINER, column, epub, item, package, page, pdf, zipped

from foundry_pipeline.corpus.formats import read_format
from foundry_pipeline.corpus.formats.archives import Limits, open_archive
from foundry_pipeline.errors import FoundryError


def read(data: bytes, name: str):
    (found,) = read_format(data, name=name)
    return found


# ---- PDF ----


def test_pdf_lines_become_paragraphs():
    pages = []
    for number, place in enumerate(("northern coast", "southern coast", "upper lakes", "lower lakes"), start=1):
        lines = [f"The commissioners of the {place} have long been sensible of the incon-"]
        lines += [
            "venience which attends a well-",
            "known harbour without a signal, and of",
            f"its danger to the {place}.",
        ]
        body = column(lines, top=760)
        body += [(90, 690, f"It cannot be denied that the expense of the {place} is considerable, and")]
        body += [(72, 676, "that the revenue will bear it.")]
        body += column(
            [f"A well-known harbour on the {place} is a safe harbour, and so is one", f"not well-known to {place}."],
            top=640,
        )
        pages.append([(200, 810, f"THE PAPERS OF THE COAST {number}"), *body, (300, 30, f"- {number} -")])
    found = read(pdf(pages, title="Papers"), "papers.pdf")
    blocks = found.text.split("\n\n")
    assert blocks[:3] == [
        "The commissioners of the northern coast have long been sensible of the inconvenience which attends a well-known "
        "harbour without a signal, and of its danger to the northern coast.",
        "It cannot be denied that the expense of the northern coast is considerable, and that the revenue will bear it.",
        "A well-known harbour on the northern coast is a safe harbour, and so is one not well-known to northern coast.",
    ]
    assert len(blocks) == 12
    assert (found.title, found.date) == ("Papers", ""), "a file's date is not its text's"
    assert {k: found.counts[k] for k in ("running heads", "page numbers", "divided words joined")} == {
        "running heads": 4,
        "page numbers": 4,
        "divided words joined": 4,
    }


def test_pdf_keeps_a_closing_that_many_pages_share():
    pages = [
        column([f"Letter {n} upon the oil."] + ["And so on, and so forth."] * n + ["Yours, &c."]) for n in range(1, 6)
    ]
    assert read(pdf(pages), "a.pdf").text.count("Yours, &c.") == 5


def test_pdf_columns_are_read_one_after_the_other():
    left, right = (
        [f"left {i} of the first column, and so on" for i in range(20)],
        [f"right {i} of the second column" for i in range(20)],
    )
    found = read(pdf([column(left) + column(right, x=320)]), "a.pdf")
    assert " ".join(found.text.split()) == " ".join(left + right)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (pdf([[], []]), "no text layer"),
        (pdf([[(72, 700, "x")]])[:200], "damaged|no page"),
        (b"%PDF-1.7\n%%EOF", "damaged"),
        (b"%PDF-1.4\n" + b"\x00\xff" * 500, "damaged"),
    ],
)
def test_pdf_without_text_is_an_error(data, said):
    with pytest.raises(FoundryError, match=said) as refused:
        read(data, "scan.pdf")
    assert refused.value.where == "scan.pdf"


def test_encrypted_pdf_is_an_error():
    from pypdf import PdfReader, PdfWriter

    writer = PdfWriter(clone_from=PdfReader(io.BytesIO(pdf([[(72, 700, "secret")]]))))
    writer.encrypt("password", algorithm="RC4-128")
    out = io.BytesIO()
    writer.write(out)
    with pytest.raises(FoundryError, match="is encrypted"):
        read(out.getvalue(), "a.pdf")


# ---- EPUB ----


def test_epub_is_its_chapters_in_reading_order():
    found = read(epub(), "letters.epub")
    assert found.text == "The first\n\nThe oil was spent.\n\nThe second\n\nThe lamp\u00a0was lit."
    assert (found.title, found.author, found.date) == ("Letters of a Keeper", "The Keeper", "")
    assert found.counts["lists and covers"] == 3


def test_epub_dates_the_text_only_where_it_says_so():
    more = '<dc:date opf:event="original-publication">1788-06</dc:date>'
    files = {
        "META-INF/container.xml": CONTAINER,
        "OEBPS/book.opf": package(item("one.xhtml"), '<itemref idref="one"/>', more=more),
        "OEBPS/one.xhtml": page("<p>Dear Sir</p>"),
    }
    assert read(epub(files), "a.epub").date == "1788-06"


BOMB = '<!DOCTYPE x [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;&a;&a;">]>'


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"META-INF/container.xml": "<oops"}, "XML cannot be read"),
        ({"META-INF/container.xml": "<container/>"}, "names no package"),
        ({"OEBPS/book.opf": f"{BOMB}<package>&b;</package>"}, "declares entities"),
        (
            {"OEBPS/book.opf": '<!DOCTYPE p [<!ENTITY x SYSTEM "file:///etc/passwd">]><package>&x;</package>'},
            "declares entities",
        ),
        ({"OEBPS/one.xhtml": f"{BOMB}<html><body>&b;</body></html>"}, "declares entities"),
        ({"OEBPS/book.opf": package(item("gone.xhtml"), '<itemref idref="gone"/>')}, "is missing"),
        ({"OEBPS/book.opf": package(item("one.xhtml"), '<itemref idref="other"/>')}, "spine names 'other'"),
        ({"OEBPS/one.xhtml": page("")}, "holds no text"),
        (
            {
                "META-INF/encryption.xml": '<encryption xmlns:e="x"><e:CipherReference URI="OEBPS/one.xhtml"/></encryption>'
            },
            "encrypted",
        ),
    ],
)
def test_bad_epub_is_refused(changed, said):
    files: dict[str, str | bytes] = {
        "META-INF/container.xml": CONTAINER,
        "OEBPS/book.opf": package(item("one.xhtml"), '<itemref idref="one"/>'),
        "OEBPS/one.xhtml": page("<p>Dear Sir</p>"),
    }
    assert read(epub(files), "a.epub").text == "Dear Sir"
    with pytest.raises(FoundryError, match=said) as refused:
        read(epub({**files, **changed}), "a.epub")
    assert "a.epub" in refused.value.where


# ---- archives ----


def test_zip_of_texts():
    found = read_format(zipped({"b.md": "# Two", "a.txt": "One", "map.png": "x", "c/": ""}), name="letters.zip")
    assert [(d.name, d.text) for d in found] == [("a.txt", "One"), ("b.md", "Two")]


def _renamed(name: str) -> bytes:
    """A zip whose only entry is called so, which `zipfile` itself would not write."""
    return zipped({"x" * len(name): "Dear Sir"}).replace(b"x" * len(name), name.encode())


def _linked() -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        info = zipfile.ZipInfo("passwd.txt")
        info.external_attr = 0o120777 << 16
        archive.writestr(info, "/etc/passwd")
    return out.getvalue()


def _flagged() -> bytes:
    data = bytearray(zipped({"a.txt": "Dear Sir"}))
    for mark, at in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        data[data.index(mark) + at] |= 1
    return bytes(data)


def _twice() -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("a.txt", "one")
        with pytest.warns(UserWarning, match="Duplicate"):
            archive.writestr("a.txt", "two")
    return out.getvalue()


def _lying() -> bytes:
    """An entry that unpacks to more than the list says."""
    data = bytearray(zipped({"a.txt": "A" * 5000}))
    for mark, at in ((b"PK\x03\x04", 22), (b"PK\x01\x02", 24)):
        data[data.index(mark) + at : data.index(mark) + at + 4] = struct.pack("<I", 10)
    return bytes(data)


def _overlapping() -> bytes:
    data = zipped({"a.txt": "Dear Sir", "b.txt": "Dear Sir"})
    second = data.rindex(b"PK\x01\x02")
    return data[: second + 42] + struct.pack("<I", 0) + data[second + 46 :]


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (_renamed("../../etc/cron.txt"), "points outside"),
        (_renamed("/etc/passwd.txt"), "points outside"),
        (_renamed("..\\windows.txt"), "points outside"),
        (_renamed("C:\\windows.txt"), "points outside"),
        (_linked(), "is a link"),
        (_flagged(), "is encrypted"),
        (_twice(), "more than once"),
        (_lying(), "cannot be unpacked|more than it says"),
        (_overlapping(), "overlaps|cannot be unpacked"),
        (zipped({"a.txt": "A" * 50_000_000}), "zip bomb"),
        (zipped({f"{i}.txt": "x" for i in range(10_001)}), "10001 entries"),
        (zipped({"inner.zip": zipped({"a.txt": "x"})}), "another archive"),
        (zipped({"inner.txt": zipped({"a.txt": "x"})}), "another archive"),
        (zipped({"[Content_Types].xml": "x", "word/document.xml": "x"}), "Word"),
        (zipped({"map.png": "x"}), "no file of text"),
        (zipped({"a.txt": "Dear Sir"})[:-30], "damaged"),
        (b"PK\x03\x04rubbish", "damaged"),
    ],
)
def test_hostile_archive_is_refused(data, said, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FoundryError, match=said) as refused:
        read_format(data, name="letters.zip")
    assert "letters.zip" in refused.value.where
    assert list(tmp_path.iterdir()) == [], "nothing is ever written"


def test_archive_limits_are_kept():
    data = zipped({"a.txt": "One " * 1000, "b.txt": "Two " * 1000})
    with pytest.raises(FoundryError, match="unpacks to 8,000 bytes, more than 6,000"):
        open_archive(data, where="a.zip", limits=Limits(total=6_000))
    with open_archive(data, where="a.zip") as archive:
        assert archive.names == ("a.txt", "b.txt")
        assert archive.read("a.txt") == b"One " * 1000
