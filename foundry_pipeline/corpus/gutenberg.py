"""A Project Gutenberg file: the work itself, without the header, the licence and the credits around it.

    >>> found = strip_gutenberg("*** START OF THE PROJECT GUTENBERG EBOOK X ***\\nProduced by A. B.\\n\\nDear Sir,\\n"
    ...                         "*** END OF THE PROJECT GUTENBERG EBOOK X ***\\n", where="1.txt")
    >>> found.text, found.credits
    ('Dear Sir,', ('Produced by A. B.',))

Fifty years of files have been marked in several ways, all of them read here: `*** START OF THE (THIS) PROJECT GUTENBERG
EBOOK …***` with and without spaces and over several lines; the "small print" of the 1990s before the text
(`*END*THE SMALL PRINT! FOR PUBLIC DOMAIN ETEXTS*Ver.04.29.93*END*`) or, later, after it; the line `End of (the) Project
Gutenberg('s) …` above or instead of the end marker. A file without a mark is refused, and so is one in which a sentence of
the licence is left between the marks: it is never taken whole. What is set apart (credits, transcriber's notes) is kept
beside the text and counted.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NoReturn

from foundry_pipeline.corpus.formats import FormatDocument, invisible, kind_of, read_format
from foundry_pipeline.corpus.formats.archives import open_archive
from foundry_pipeline.errors import FoundryError


@dataclass(frozen=True)
class GutenbergText:
    """A work and what its file says of it; `text` has `\\n` line ends, `number` is the ebook's ("" if not said)."""

    text: str
    number: str = ""
    title: str = ""
    author: str = ""
    language: str = ""
    credits: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    encoding: str = ""
    counts: dict[str, int] = field(default_factory=dict)


_EBOOK = r"project\s+gutenberg"
_START = re.compile(rf"^[ \t]*\*{{2,}}[ \t]*start\s+of\s+(?:the|this)\s+(?:copyrighted\s+)?{_EBOOK}", re.I | re.M)
_END = re.compile(rf"^[ \t]*\*{{2,}}[ \t]*end\s+of\s+(?:the|this)\s+(?:copyrighted\s+)?{_EBOOK}", re.I | re.M)
# A marker with a long title runs on until its closing stars.
_MARKER_END = re.compile(r"\*{3,}[ \t]*$", re.M)
_SMALL_START = re.compile(r"^[ \t]*\*{2,}[ \t]*start\s*\*+\s*the\s+small\s+print", re.I | re.M)
_SMALL_END = re.compile(r"^[ \t]*\*+[ \t]*end[ \t]*\*?\s*the\s+small\s+print", re.I | re.M)
_SOFT_END = re.compile(
    rf"^[ \t]*(?:\*+[ \t]*)?(?:this\s+is\s+the\s+)?end\s+of\s+(?:the\s+|this\s+)?{_EBOOK}(?:['’]s\b|\s+e-?(?:text|book)\b|\s+edition|\s+of\b|\s*[,:.*]|[ \t]*$)",
    re.I | re.M,
)
_LICENCE_START = re.compile(
    r"^[ \t]*\*{2,}[ \t]*start:?\s+full\s+licen[cs]e|^[ \t]*(?:\*+[ \t]*)?this\s+file\s+should\s+be\s+named\s+\S+\.(?:txt|zip)",
    re.I | re.M,
)
# Sentences that stand in no work, only in headers and licences of one time or another.
_LICENCE = re.compile(
    r"project\s+gutenberg(?:-tm|\s*\(tm\)|™|\s+literary\s+archive|\s+licen[cs]e|\s+association)|the\s+full\s+project\s+gutenberg"
    r"|the\s+(?:legal\s+)?[\"“]?small\s+print!|limited\s+warranty[;,]\s+disclaimer\s+of\s+damages|etexts\s+readable\s+by\s+both\s+humans"
    r"|this\s+ebook\s+is\s+for\s+the\s+use\s+of\s+anyone\s+anywhere|world\s+of\s+free\s+plain\s+vanilla\s+electronic\s+texts",
    re.I,
)
_FIELD = re.compile(r"^(Title|Author|Language|Character set encoding):[ \t]*(.*(?:\n[ \t]+\S.*)*)", re.I | re.M)
_NUMBER = re.compile(r"\[?\b(?:ebook|etext|e-text)\s*(?:#|no\.?\s*)(\d{1,6})\]?", re.I)
_CHARSET = re.compile(rb"^character set encoding:[ \t]*([\w.:()-]+)", re.I | re.M)
_CREDIT = re.compile(
    r"[\[(]?(?:produced\s+by|(?:this|the)\s+(?:project\s+gutenberg\s+)?(?:e-?text|ebook|file|etext\s+edition)\s+(?:was|is|were)?\s*"
    r"(?:first\s+)?(?:prepared|produced|provided|typed|scanned|transcribed|created|made|proofread|posted|released|converted)\b"
    r"|e-?text\s+(?:prepared|produced|scanned)\s+by|prepared\s+by|scanned\s+(?:and\s+\w+\s+)?by|transcribed\s+(?:by|from)\b|typed\s+by"
    r"|proofread\s+by|html\s+version\s+by|(?:the\s+)?(?:project\s+gutenberg\s+)?online\s+distributed\s+proofread|updated:|credits:"
    r"|this\s+is\s+the\s+project\s+gutenberg\b|project\s+gutenberg['’]s\s|note:\s+project\s+gutenberg|images?\s+(?:of\s+the\s+original|generously|provided)"
    r"|special\s+thanks\s+to|most\s+recently\s+updated)",
    re.I,
)
_NOTE = re.compile(r"[\s|+*_=\[({-]*transcriber(?:['’]?s)?(?:['’])?\s+notes?\b", re.I)
_NAMES = ("Gutenberg", "GUTENBERG", "gutenberg", "SMALL PRINT", "Small Print", "small print")
_CREDIT_BLOCKS = 12  # how far from the top credits are looked for
_LONGEST_MARKER = 2_000  # characters of a title that a start marker may run on for
_NEAR = 80  # lines: how far above the end marker the line "End of Project Gutenberg's …" may stand


def read_gutenberg(data: bytes, *, where: str, encoding: str = "") -> GutenbergText:
    """The work in a Gutenberg file: text (in the encoding its header names), HTML, EPUB, or a zip with one of them.

    Raises FoundryError as `strip_gutenberg` and `read_format` do.
    """
    document = _document(data, where, encoding)
    return strip_gutenberg(document.text, where=where, encoding=document.encoding)


def looks_like_gutenberg(text: str) -> bool:
    """Whether a text carries a mark of Project Gutenberg, so that it must not be taken whole."""
    if not any(name in text for name in _NAMES):  # a plain search, which 200 MB take 0.1 s of
        return False
    return bool(_START.search(text) or _END.search(text) or _SMALL_END.search(text) or _LICENCE.search(text))


def strip_gutenberg(text: str, *, where: str, encoding: str = "") -> GutenbergText:
    """The work between a file's marks.

    Raises FoundryError if no start is marked, if a file with a modern start has no end (it is cut short), if it holds
    several works one after the other, or if a sentence of the licence is left in what would be returned.
    """
    text = text.replace("\r\n", "\n").replace("\r", "\n").removeprefix("\ufeff")
    start, modern = _body_start(text, where)
    end = _body_end(text, start, modern, where)
    body = text[start:end]
    body, removed = _SOFT_END_LINE.subn("", body)
    blocks = re.split(r"\n(?:[ \t]*\n)+", body.strip("\n"))
    blocks, credits_ = _credits(blocks)
    blocks, notes = _notes(blocks)
    work = "\n\n".join(blocks).strip("\n")
    if not work.strip():
        _refuse("there is no text between the marks of Project Gutenberg", where, "get the file again")
    if (left := _LICENCE.search(work)) is not None:
        line = work.count("\n", 0, left.start()) + 1
        _refuse(
            f"a sentence of the licence is left in line {line} of the text: {' '.join(left.group().split())!r}",
            where,
            "take the header and the licence out of the file by hand and read it as a `local` text",
        )
    head = text[:start]
    told = {m.group(1).lower(): " ".join(m.group(2).split()) for m in reversed(list(_FIELD.finditer(head)))}
    number = _NUMBER.search(head) or _NUMBER.search(text[end:])
    counts = {
        "words before the text": len(head.split()),
        "words after the text": len(text[end:].split()),
        "credits": len(credits_),
        "transcriber's notes": len(notes),
        "lines of Project Gutenberg inside": removed,
        "no end line": int(end == len(text)),
        **invisible(work),
    }
    return GutenbergText(
        text=work,
        number=number.group(1) if number else "",
        title=told.get("title", ""),
        author=told.get("author", ""),
        language=told.get("language", ""),
        credits=tuple(credits_),
        notes=tuple(notes),
        encoding=encoding,
        counts={name: count for name, count in counts.items() if count},
    )


def _document(data: bytes, where: str, encoding: str) -> FormatDocument:
    kind = kind_of(data, name=where)
    if kind == "zip":
        with open_archive(data, where=where) as archive:
            texts = [name for name in archive.names if name.lower().endswith(".txt")]
            # Where one zip holds a work in several encodings, `-0` is UTF-8, `-8` eight bits, the bare name ASCII.
            texts.sort(key=lambda name: (not name.endswith("-0.txt"), not name.endswith("-8.txt"), name))
            if not texts:
                _refuse("the archive holds no .txt file", where, "get the plain text of this ebook")
            inner = archive.read(texts[0])
            return (
                _document(inner, f"{where}, {texts[0]}", encoding)
                if kind_of(inner, name=texts[0]) != "zip"
                else _nested(where)
            )
    declared = encoding
    if kind == "text" and not declared and (told := _CHARSET.search(data[: 1 << 15])) is not None:
        name = told.group(1).decode("ascii", "replace")
        # "ISO-646-US (US-ASCII)" and the like: whatever is meant, it is a part of UTF-8 or of Windows-1252.
        declared = "ascii" if "646" in name or "ascii" in name.lower() else name
    documents = read_format(data, name=where, encoding=declared)
    return documents[0]


def _nested(where: str) -> NoReturn:
    _refuse("the archive holds another archive", where, "unpack it and use the text inside")


def _body_start(text: str, where: str) -> tuple[int, bool]:
    """Where the work begins, and whether a modern marker says so (then an end marker must follow)."""
    starts = [_marker_end(text, m) for m in _START.finditer(text)]
    ends = [m.start() for m in _END.finditer(text)]
    small = [_line_end(text, m.end()) for m in _SMALL_END.finditer(text)]
    if starts:
        if not any(end > starts[0] for end in ends) and _first(_SOFT_END, text, starts[0]) is None:
            _refuse("the file has a start marker and no end marker: it is cut short", where, "get the file again")
        soft = _first(_SOFT_END, text, starts[0])
        first_end = min((e for e in ends if e > starts[0]), default=len(text) if soft is None else soft)
        here = [s for s in starts if s <= first_end]
        _one_work(text, here, [s for s in starts if s > first_end], where)
        # Small print may stand below the marker; the work begins after whichever comes last.
        return max(
            here[-1], *(s for s in small if here[-1] < s < first_end and _small_above(text, here[-1], s)), 0
        ), True
    if small:
        work_after = [s for s in small if len(text[s:].split()) > 50]
        if work_after:
            _one_work(text, work_after[:1], work_after[1:], where)
            return work_after[0], False
    what = "an end marker and no start marker" if ends or small else "no marker of Project Gutenberg"
    _refuse(
        f"the file has {what}, so its licence cannot be told from its text",
        where,
        "get the whole file, or take the licence out by hand and read it as a `local` text",
    )


def _small_above(text: str, start: int, small_end: int) -> bool:
    """Whether the small print that ends here also began below the start marker (and is not the licence at the end)."""
    return _SMALL_START.search(text, start, small_end) is not None or len(text[start:small_end].split()) < 3000


def _one_work(text: str, starts: list[int], later: list[int], where: str) -> None:
    between = [len(text[a:b].split()) for a, b in zip(starts, starts[1:], strict=False)]
    if later or any(words > 1000 for words in between):
        _refuse(
            f"the file holds {len(starts) + len(later)} works of Project Gutenberg one after the other",
            where,
            "divide it into one file a work",
        )


def _body_end(text: str, start: int, modern: bool, where: str) -> int:
    hard = _first(_END, text, start)
    soft = _first(_SOFT_END, text, start)
    other = [p for p in (_first(_SMALL_START, text, start), _first(_LICENCE_START, text, start)) if p is not None]
    if hard is not None:
        near = soft is not None and soft < hard and text.count("\n", soft, hard) <= _NEAR
        return min([soft if near and soft is not None else hard, *other])
    return min([soft if soft is not None else len(text), *other])


_SOFT_END_LINE = re.compile(rf"^[ \t]*(?:\*+[ \t]*)?end\s+of\s+(?:the\s+|this\s+)?{_EBOOK}.*$\n?", re.I | re.M)


def _first(pattern: re.Pattern[str], text: str, start: int) -> int | None:
    found = pattern.search(text, start)
    return None if found is None else found.start()


def _marker_end(text: str, marker: re.Match[str]) -> int:
    """The end of a start marker's last line: it may run over several, but not over an empty one."""
    farthest = min(len(text), marker.end() + _LONGEST_MARKER)
    stop = text.find("\n\n", marker.end(), farthest)
    stop = farthest if stop < 0 else stop
    closing = _MARKER_END.search(text, marker.end(), stop)
    return closing.end() if closing is not None else _line_end(text, marker.end())


def _line_end(text: str, position: int) -> int:
    found = text.find("\n", position)
    return len(text) if found < 0 else found


def _credits(blocks: list[str]) -> tuple[list[str], list[str]]:
    """Take out who made the file, near the top."""
    found = [b for b in blocks[:_CREDIT_BLOCKS] if _CREDIT.match(b.strip())]
    kept = [b for i, b in enumerate(blocks) if i >= _CREDIT_BLOCKS or not _CREDIT.match(b.strip())]
    return kept, [" ".join(b.split()) for b in found]


def _notes(blocks: list[str]) -> tuple[list[str], list[str]]:
    """Take out the transcriber's notes: a block, a bracket over several blocks, or the closing part of the file."""
    kept: list[str] = []
    notes: list[str] = []
    rest = iter(enumerate(blocks))
    for index, block in rest:
        if not _NOTE.match(block):
            kept.append(block)
            continue
        note = [block]
        if block.lstrip().startswith("[") and "]" not in block:
            note.extend(_until_closed(b for _, b in rest))
        elif len(block.split()) <= 4 and index > 0.8 * len(blocks):  # a heading of its own, at the end of the file
            note.extend(b for _, b in rest)
        elif len(block.split()) <= 4:
            following = next(rest, None)
            note.extend([following[1]] if following else [])
        notes.append("\n\n".join(note))
    return kept, notes


def _until_closed(blocks: Iterator[str]) -> Iterator[str]:
    for _, block in zip(range(200), blocks, strict=False):
        yield block
        if "]" in block:
            return


def _refuse(what: str, where: str, mend: str) -> NoReturn:
    raise FoundryError(what, where=where, mend=mend)
