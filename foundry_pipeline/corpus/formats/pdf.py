"""PDF: the text layer, put back into paragraphs.

    >>> read_pdf(data, where="letter.pdf").text
    'Dear Sir,\\n\\nI have received your favour of the first instant, …'

A page holds lines at places, not paragraphs. Lines are joined into paragraphs by the space above them, by their indent
and by short last lines; words hyphenated at a line's end are made whole; page numbers and running heads (the same top or
bottom line, but for its number, on several pages) are left out. All of it is counted. A PDF without a text layer (a
scan) and an encrypted one are errors that say so. The document's dates are those of the file, never of the text, and
are not used.
"""

from __future__ import annotations

import io
import re
from collections import Counter
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING, Any, NoReturn

from foundry_pipeline.corpus.formats.document import FormatDocument, counted, paragraphs
from foundry_pipeline.errors import FoundryError

if TYPE_CHECKING:
    from pypdf import PdfReader

PAGES = 5_000
_INDENT = 60  # points: further to the right is another column

_PAGE_NUMBER = re.compile(r"[\[(\s–—-]*(?:page\s+)?(?:\d{1,4}|[ivxlc]{1,7})(?:\s+of\s+\d{1,4})?[\])\s–—.-]*", re.I)
_NUMBER = re.compile(r"\d+|\b[ivxlc]+\b", re.I)
_HYPHEN = re.compile(r"[^\W\d_]{2,}-$")
_ENDS = re.compile(r"[.!?:;][\"'’”)\]]*\d{0,2}$")
_WORD = re.compile(r"[^\W\d_]+(?:-[^\W\d_]+)*")


@dataclass
class _Line:
    text: str
    x: float
    y: float
    size: float


def read_pdf(data: bytes, *, where: str) -> FormatDocument:
    """The text of a PDF; raises FoundryError for a damaged, encrypted, scanned or endless one."""
    from pypdf.errors import PdfReadError, PyPdfError

    try:
        reader = _open(data, where)
        pages = [_lines(page) for page in reader.pages]
        about = reader.metadata
        title, author = (str(about.title or ""), str(about.author or "")) if about else ("", "")
    except FoundryError:
        raise
    except (PdfReadError, PyPdfError) as error:
        _refuse(f"the PDF is damaged ({error})", where, "get the file again")
    except (
        RecursionError,
        ValueError,
        KeyError,
        TypeError,
        IndexError,
        AttributeError,
        OverflowError,
        OSError,
    ) as error:
        # pypdf lets a malformed object surface as whatever it broke; none of these can come from a sound file.
        _refuse(f"the PDF is damaged ({type(error).__name__}: {error})", where, "get the file again")
    counts: Counter[str] = Counter(pages=len(pages))
    empty = sum(not page for page in pages)
    if empty == len(pages):
        _refuse(
            "the PDF has no text layer: its pages are pictures",
            where,
            f"ocrmypdf '{where}' with-text.pdf, look the result over, and use that",
        )
    counts["pages without text"] = empty
    _furniture(pages, counts)
    text = paragraphs(_joined(pages, counts))
    if not text:
        _refuse("the PDF holds page numbers and no text", where, "look at the file")
    return FormatDocument(
        text, "pdf", title=" ".join(title.split()), author=" ".join(author.split()), counts=counted(text, counts)
    )


def _open(data: bytes, where: str) -> PdfReader:
    from pypdf import PdfReader

    reader = PdfReader(io.BytesIO(data), strict=False)
    if reader.is_encrypted:
        _refuse("the PDF is encrypted", where, f"qpdf --decrypt --password=… '{where}' open.pdf, and use that")
    if len(reader.pages) == 0:
        _refuse("the PDF has no page", where, "get the file again")
    if len(reader.pages) > PAGES:
        _refuse(f"the PDF has {len(reader.pages)} pages, more than {PAGES}", where, "divide it")
    return reader


def _lines(page: Any) -> list[_Line]:
    """The page's lines in the order in which it draws them, which keeps columns apart."""
    lines: list[_Line] = []
    open_line: list[_Line] = []

    def visit(text: str, cm: list[float], tm: list[float], font: Any, size: float) -> None:
        x = tm[4] * cm[0] + tm[5] * cm[2] + cm[4]
        y = tm[4] * cm[1] + tm[5] * cm[3] + cm[5]
        height = abs(size * (tm[3] or 1.0) * (cm[3] or 1.0)) or 10.0
        for index, part in enumerate(text.split("\n")):
            if index:
                open_line.clear()
            if not part.strip():
                if open_line:
                    open_line[-1].text += part
                continue
            if open_line:
                open_line[-1].text += part
            else:
                open_line.append(_Line(part, x, y, height))
                lines.append(open_line[-1])

    page.extract_text(visitor_text=visit)
    for line in lines:
        line.text = " ".join(line.text.split())
    return [line for line in lines if line.text]


def _furniture(pages: list[list[_Line]], counts: Counter[str]) -> None:
    """Take page numbers and running heads off the first and last two lines of each page."""
    edges: Counter[tuple[bool, str]] = Counter()
    for page in pages:
        edges.update({(top, _head(line)) for top, line in _edges(page)})
    # An edition prints one head on left pages and another on right ones: a third of the pages is a habit.
    needed = max(3, len([p for p in pages if p]) // 3)
    for page in pages:
        for top in (True, False):
            # The second line from the edge is one only below a first one.
            for _ in range(2):
                line = page[0 if top else -1] if page else None
                if line is None or not _is_furniture(line, len(page), edges[(top, _head(line))] >= needed, counts):
                    break
                page.pop(0 if top else -1)


def _is_furniture(line: _Line, lines: int, repeated: bool, counts: Counter[str]) -> bool:
    if lines > 1 and _PAGE_NUMBER.fullmatch(line.text):
        counts["page numbers"] += 1
        return True
    counts["running heads"] += repeated
    return repeated


def _edges(page: list[_Line]) -> list[tuple[bool, _Line]]:
    if len(page) < 4:
        return [(i == 0, line) for i, line in enumerate(page) if i in (0, len(page) - 1)]
    return [(True, page[0]), (True, page[1]), (False, page[-2]), (False, page[-1])]


def _head(line: _Line) -> str:
    # At one height on every page: letters that all end `Yours, &c.` end at many.
    return f"{_NUMBER.sub('#', line.text).casefold()} {round(line.y / 3)}"


def _joined(pages: list[list[_Line]], counts: Counter[str]) -> list[str]:
    lines = [line for page in pages for line in page]
    known = Counter(word.casefold() for line in lines for word in _WORD.findall(line.text))
    usual = _usual_gap(pages)
    widths = [len(line.text) for line in lines]
    full = sorted(widths)[int(len(widths) * 0.75)] if widths else 0
    blocks: list[str] = []
    last = ""
    for page in pages:
        margins = _margins(page)
        above: _Line | None = None
        for line in page:
            margin = max((m for m in margins if m <= line.x + 1), default=line.x)
            if not blocks or _starts(line, above, last, blocks[-1], margin, usual, full):
                blocks.append(line.text)
            else:
                blocks[-1] = _add(blocks[-1], line.text, known, counts)
            above, last = line, line.text
    return blocks


def _margins(page: list[_Line]) -> list[float]:
    """Where the page's columns begin: the places at which most lines do, but for those a little to the right of one."""
    margins: list[float] = []
    for x, count in Counter(round(line.x) for line in page).most_common():
        if count >= 0.1 * len(page) and not any(0 < x - m <= _INDENT for m in margins):
            margins.append(x)
    return margins


def _usual_gap(pages: list[list[_Line]]) -> float:
    """The distance of two lines of one paragraph, as the middle one of all distances, in lines' own heights."""
    gaps = [
        (a.y - b.y) / b.size
        for page in pages
        for a, b in zip(page, page[1:], strict=False)
        if 0 < a.y - b.y < 4 * b.size
    ]
    return median(gaps) if gaps else 1.2


def _starts(line: _Line, above: _Line | None, last: str, before: str, margin: float, usual: float, full: int) -> bool:
    """Whether a line opens a paragraph."""
    ended = bool(_ENDS.search(before))
    indented = 4 <= line.x - margin <= _INDENT
    closed = ended and len(last) < 0.75 * full
    if above is None:  # a page's first line goes on with the page before, unless that ended and it shows
        return closed or (ended and indented)
    gap = (above.y - line.y) / line.size
    if gap > 1.35 * usual:
        return True
    if abs(line.size - above.size) > 0.15 * max(line.size, above.size):
        return True
    if indented and not 4 <= above.x - margin <= _INDENT:
        return True
    if gap < 0:  # the next column
        return closed or (ended and indented)
    if ended:
        return closed
    return before == last and len(before) < 0.5 * full  # a short line alone: a heading


def _add(before: str, line: str, known: Counter[str], counts: Counter[str]) -> str:
    """One line more of a paragraph; a word divided at the line's end is made whole."""
    hyphen = _HYPHEN.search(before)
    rest = _WORD.match(line)
    if hyphen is None or rest is None or not line[0].islower():
        return f"{before} {line}"
    head, tail = hyphen.group()[:-1], rest.group()
    # `well-` + `known`: as one word, unless the text itself writes it with its hyphen more often.
    if known[f"{head}-{tail}".casefold()] > known[f"{head}{tail}".casefold()]:
        return before + line
    counts["divided words joined"] += 1
    return before[:-1] + line


def _refuse(what: str, where: str, mend: str) -> NoReturn:
    raise FoundryError(what, where=where, mend=mend)
