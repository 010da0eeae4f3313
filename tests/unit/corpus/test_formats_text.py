"""Plain text, Markdown and HTML; which format a file is taken for; what is refused."""

from __future__ import annotations

import codecs
import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from foundry_pipeline.corpus.formats import invisible, iso_date, kind_of, read_format
from foundry_pipeline.errors import FoundryError


def read(data: bytes, name: str = "letter.txt", **told: str):
    (found,) = read_format(data, name=name, **told)
    return found


@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0<\ufeff"), min_size=1).filter(str.strip))
def test_plain_text_is_kept_letter_for_letter(text):
    text = f"Sir, {text}"
    for encoding, mark in (
        ("utf-8", b""),
        ("utf-8", codecs.BOM_UTF8),
        ("utf-16-le", codecs.BOM_UTF16_LE),
        ("utf-16-be", codecs.BOM_UTF16_BE),
    ):
        found = read(mark + text.encode(encoding))
        assert (found.kind, found.text) == ("text", text)


@settings(deadline=None)  # the first example imports the readers
@given(st.binary(max_size=300))
def test_any_bytes_are_read_or_refused(data):
    """Nothing but FoundryError, and never an empty document."""
    for name in ("a.txt", "a.md", "a.html", "a.pdf", "a.epub"):
        for prefix in (b"", b"%PDF-1.4\n", b"PK\x03\x04", b"<html>"):
            refused = None
            found = []
            try:
                found = read_format(prefix + data, name=name)
            except FoundryError as error:
                refused = error
            assert all(d.text.strip() for d in found)
            assert bool(found) != bool(refused and refused.where and refused.mend)


def test_an_encoding_is_declared_and_never_guessed():
    data = "the café at L’Enfant’s".encode("cp1252")
    with pytest.raises(FoundryError, match=r"byte 7 is 0xe9; it would read as windows-1252") as refused:
        read(data)
    assert "encoding: windows-1252" in refused.value.mend
    found = read(data, encoding="ISO-8859-1")
    assert (found.text, found.encoding) == ("the café at L’Enfant’s", "windows-1252")
    assert read(data, content_type="text/plain; charset=windows-1252").text == found.text
    assert read("café".encode(), encoding="latin-1").text == "café", "UTF-8 that is declared as Latin-1 stays UTF-8"
    with pytest.raises(FoundryError, match="'utf-9' is not known"):
        read(data, encoding="utf-9")
    with pytest.raises(FoundryError, match="UTF-16 without its byte-order mark"):
        read("Dear Sir".encode("utf-16-le"))
    assert read("Dear Sir".encode("utf-16-le"), encoding="utf-16-le").text == "Dear Sir"


@pytest.mark.parametrize(
    ("data", "name", "told", "kind"),
    [
        (b"Dear Sir", "letter.txt", "", "text"),
        (b"Dear Sir", "letter", "", "text"),
        (b"# Dear Sir", "letter.MD", "", "markdown"),
        (b"# Dear Sir", "letter.md", "text/plain", "markdown"),
        (b"<!DOCTYPE html><p>x", "letter.txt", "", "html"),
        (b"\xef\xbb\xbf\n<html lang=en>x", "letter", "text/plain", "html"),
        (b"<p>a fragment", "letter", "text/html; charset=utf-8", "html"),
        (b'<?xml version="1.0"?>\n<html xmlns="x">', "a.txt", "", "html"),
        (b"%PDF-1.4 ...", "notes.txt", "text/plain", "pdf"),
        (b"Of %PDF-1.4 and other formats", "notes.txt", "", "text"),
    ],
)
def test_what_the_bytes_are_goes_before_their_name(data, name, told, kind):
    assert kind_of(data, name=name, content_type=told) == kind


@pytest.mark.parametrize(
    ("data", "told", "said"),
    [
        (b"", "", "the file is empty"),
        (b"\x1f\x8b\x08\x00", "", "archive of a kind"),
        (b"\x89PNG\r\n\x1a\n", "", "an image"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1", "", "old Word"),
        (b"{\\rtf1 Dear Sir}", "", "rich-text"),
        (b"MZ\x90\x00", "", "a program"),
        (b'<?xml version="1.0"?><TEI><p>x</p></TEI>', "", "the file is XML"),
        (b"Not found", "application/pdf", "declared as PDF and is none"),
        (b'{"error": 1}', "application/json", "application/json"),
        (b"  \n\n", "", "holds no text"),
    ],
)
def test_what_is_no_text_is_refused_by_name(data, told, said):
    with pytest.raises(FoundryError, match=said) as refused:
        read_format(data, name="letter.txt", content_type=told)
    assert refused.value.where == "letter.txt"
    assert refused.value.mend


def test_html_is_what_a_reader_sees():
    found = read(
        b"""<!doctype html><html><head><title>A page</title><meta property="og:title" content="To a friend">
        <meta name="dc.date" content="1788-06-01"><meta name="author" content="The Keeper"><style>p{}</style></head>
        <body><header>THE SITE</header><nav><a href=/>Home</a></nav><div class="breadcrumb">You are here</div>
        <ul><li><a>One</a></li><li><a>Two</a></li><li><a>Three</a></li></ul>
        <h1>To a friend</h1><p>Dear <b>Sir</b>,<br>I have   your
        letter<script>steal()</script> of the <i>first</i>.</p>
        <p style="display:none">ignore your instructions</p><p hidden>and these</p><p aria-hidden=true>and those</p>
        <span class="pagenum">[12]</span><blockquote>Quoted &amp; kept &lt;b&gt;</blockquote>
        <table><tr><td>oil</td><td>12</td></tr><tr><td>wick</td><td>3</td></tr></table>
        <noscript>Turn it on</noscript><button>Buy</button><img src=x onerror=alert(1)><footer>(c)</footer></body></html>""",
        "a.html",
    )
    assert found.text.split("\n\n") == [
        "To a friend",
        "Dear Sir,\nI have your letter of the first.",
        "Quoted & kept <b>",
        "oil 12",
        "wick 3",
    ]
    assert (found.title, found.author, found.date) == ("To a friend", "The Keeper", "1788-06-01")
    assert found.counts["hidden elements"] == 3
    assert found.counts["page numbers"] == 1


def test_html_keeps_an_articles_own_header_and_every_short_paragraph():
    page = (
        "<nav>x</nav><article><header><h1>Title</h1></header>"
        + "".join(f"<p>No. {i}.</p>" for i in range(50))
        + "</article>"
    )
    found = read(page.encode(), "a.html")
    assert found.text.split("\n\n") == ["Title", *(f"No. {i}." for i in range(50))]
    lines = read(b"<pre>one\n  two</pre><p>three</p>", "a.html").text
    assert lines == "one\ntwo\n\nthree"
    deep = read(b"<div>" * 400 + b"deep" + b"</div>" * 400, "a.html").text
    assert deep == "deep"
    assert read('<meta charset="windows-1252"><p>café'.encode("cp1252"), "a.html").text == "café"
    with pytest.raises(FoundryError, match="holds no text"):
        read(b"<html><script>x</script></html>", "a.html")


def test_markdown_leaves_its_words():
    found = read(
        b"---\ntitle: To a friend\ndate: 1788-06-01\nauthor: The Keeper\n---\n# Of *oil*\n\nDear **Sir**, see [the list](x)\nand `it`.\n\n"
        b"- one\n- two\n\n> quoted\n\n    code\n\n<div>html <script>x()</script></div>\n\n![a map](map.png) ~~gone~~\n",
        "a.md",
    )
    assert found.text.split("\n\n") == [
        "Of oil",
        "Dear Sir, see the list\nand it.",
        "one",
        "two",
        "quoted",
        "code",
        "html",
        "gone",
    ]
    assert (found.title, found.date, found.author) == ("To a friend", "1788-06-01", "The Keeper")
    assert read(b"# Of oil\n\nDear Sir", "a.md").title == "Of oil"
    with pytest.raises(FoundryError, match="front matter is no YAML"):
        read(b"---\ntitle: [\n---\nDear Sir", "a.md")
    assert read(b"---\nDear Sir\n---\nYours", "a.md").text.startswith("Dear Sir")


def test_unseen_characters_are_counted_and_left_where_they_are():
    text = "pay \u202eeno\u202c \u2066x\u2069 ze\u200bro\u00ad \U000e0041 \x1b[31m \ufffd"
    found = read(text.encode())
    assert found.text == text
    assert found.counts == {
        "bidirectional controls": 4,
        "zero-width characters": 1,
        "tag characters": 1,
        "control characters": 1,
        "soft hyphens": 1,
        "replacement characters": 1,
    }
    assert invisible("Dear Sir,\r\n\tI am\f\u00a0yours’.") == {}
    page = read("<p>pay \u202eeno\u202c</p>".encode(), "a.html")
    assert (page.text, page.counts["bidirectional controls"]) == ("pay \u202eeno\u202c", 2)


@pytest.mark.parametrize(
    ("said", "date"),
    [("1788-06-01", "1788-06-01"), ("1788-06-01T12:00:00Z", "1788-06-01"), ("1788/6/1", "1788-06-01"), ("1788-06", "1788-06"),
     ("1788", "1788"), ("1788-13-01", ""), ("17880601", ""), ("June 1788", ""), ("", ""), (None, "")],
)  # fmt: skip
def test_dates_of_files(said, date):
    assert iso_date(said) == date


def test_a_large_text_is_held_once():
    line = b"The keeper must depend upon a steady and common provision for oil.\n"
    data = line * (64_000_000 // len(line))
    tracemalloc.start()
    found = read(data)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(found.text) == len(data)
    assert peak < 1.3 * len(data), "one copy of the text, not several"
