"""What is printed around a work of a collection: title, dateline, attribution, salutation, signature, notes.

    >>> parts = parts_of(under_the_heading, collection)
    >>> parts.title, parts.date, parts.attribution, parts.text[:12]
    ('General Introduction', '1787-10-27', 'HAMILTON', 'AFTER an une')

Read line by line, since some editions set these lines apart by empty lines and some do not, and break long ones.
"""

from __future__ import annotations

import datetime as dt
import re
from collections import Counter
from dataclasses import dataclass, field
from typing import NamedTuple

from foundry_pipeline.declarations.collections import Collection

HEADER_LINES = 40  # printed lines under a heading among which the text must begin
_DATELINE = (
    r"(?:For|From)\s+(?:[Tt]he\s+)?(?:[\w.'’-]+\s+){0,4}?"
    r"(?:Journal|Fournal|Packet|Advertiser|Edition|Gazette|Chronicle|Herald|Mercury|Courant|Post|Register|Intelligencer)\b"
)
_MONTH_NAMES = "january february march april may june july august september october november december"
_MONTHS = _MONTH_NAMES.split()
_MONTH = "(?P<month>" + "|".join(f"{m[:3]}(?:{m[3:]}|\\.)?" for m in _MONTHS) + "|sept\\.?)"
_WEEKDAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
_DATES = (
    re.compile(rf"\b{_MONTH}\s+(?P<day>\d{{1,2}})(?:st|nd|rd|th)?\s*,?\s+(?P<year>1[5-9]\d\d|20\d\d)\b", re.I),
    re.compile(
        rf"\b(?P<day>\d{{1,2}})(?:st|nd|rd|th)?(?:\s+of)?\s+{_MONTH}\s*,?\s+(?P<year>1[5-9]\d\d|20\d\d)\b", re.I
    ),
    re.compile(r"\b(?P<year>1[5-9]\d\d|20\d\d)-(?P<month>\d\d)-(?P<day>\d\d)\b"),
)
_WEEKDAY = re.compile(rf"\b({'|'.join(_WEEKDAYS)})\b", re.I)
_ORNAMENT = re.compile(r"(?:[*•·~_=#—–+-]\s*){3,}|\*|\* ?\* ?\*")
_FOOTNOTE = re.compile(r"(?:FNA\d+-@)?[\[(]?(?P<mark>\d{1,3}|[*†‡§]{1,3})[\])]?[.:]?\s+(?=\S)")
_NOTE_LINE = re.compile(r"\*\S.*|\[.*\]|\((?=(?:\S+\s+){6,}).*\.\)", re.S)


@dataclass(frozen=True)
class Parts:
    """A work's own text and what stood around it; `attribution` is the declared line, "" if none was found."""

    text: str
    title: str = ""
    dateline: str = ""
    date: str = ""
    attribution: str = ""
    header: str = ""
    notes: tuple[str, ...] = ()
    counts: Counter[str] = field(default_factory=Counter)
    remarks: tuple[str, ...] = ()


class _Header(NamedTuple):
    lines: list[str]
    body: str


def parts_of(under: str, collection: Collection, *, heading_title: str = "") -> Parts:
    """Read what stands under one heading."""
    counts: Counter[str] = Counter()
    remarks: list[str] = []
    lines = under.split("\n")
    header, body = _header(lines, collection)
    told, rest = _attribution(header, collection)
    body, after = _signed(body, collection)
    blocks, dropped = _own_blocks(body, collection, counts)
    notes = [*dropped]
    if collection.footnotes == "apart":
        blocks, feet = _footnotes(blocks)
        after = [*feet, *after]
    else:
        blocks, after = (
            [*blocks, *(b for b in after if _FOOTNOTE.match(b))],
            [b for b in after if not _FOOTNOTE.match(b)],
        )
    if not told and blocks:  # some editions sign a work with its author's name
        last, others = blocks[-1], blocks[:-1]
        if (end := _named(last, collection)) and others:
            told, blocks = end, others
    counts["notes set apart"] = sum(1 for b in after if _FOOTNOTE.match(b))
    counts["words after the signature"] = sum(len(b.split()) for b in after)
    title_lines, dateline, date, about = _titled(rest, collection)
    notes.extend(about.notes)
    remarks.extend(about.remarks)
    title = " ".join(" ".join(title_lines).split()).strip(" .")
    return Parts(
        text="\n\n".join(blocks),
        title=heading_title or title,
        dateline=dateline,
        date=date,
        attribution=told,
        header=" / ".join(line.strip() for line in header if line.strip()),
        notes=(*notes, *after),
        counts=Counter({name: count for name, count in counts.items() if count}),
        remarks=tuple(remarks),
    )


def _header(lines: list[str], collection: Collection) -> _Header:
    """The lines above the text, and the text. It begins after the salutation, else after the attribution, else after the
    short blocks that are left when neither is printed."""
    near = _first_lines(lines, HEADER_LINES)
    if collection.salutation:
        for index in near:
            # A salutation may be broken over two lines, and the text may begin on its last one.
            for width in (1, 2):
                joined = " ".join(line.strip() for line in lines[index : index + width])
                match = re.match(rf"\W*(?:{collection.salutation})[.:,;]?[ \t]*", joined)
                if match is not None:
                    return _Header(lines[:index], "\n".join([joined[match.end() :], *lines[index + width :]]))
    for index in near:
        for width in (1, 2):
            if _named(" ".join(lines[index : index + width]), collection):
                return _Header(lines[: index + width], "\n".join(lines[index + width :]))
    taken = 0
    block: list[str] = []
    for index in range(len(lines) + 1):
        line = lines[index] if index < len(lines) else ""
        if line.strip():
            block.append(line)
            continue
        if block and (len(" ".join(block).split()) > 25 or taken >= 4 * HEADER_LINES):
            break
        if block and not _is_header(" ".join(block), collection, first=not any(x.strip() for x in lines[:taken])):
            break
        block, taken = [], index
    return _Header(lines[:taken], "\n".join(lines[taken:]))


def _first_lines(lines: list[str], count: int) -> list[int]:
    return [i for i, line in enumerate(lines) if line.strip()][:count]


def _is_header(block: str, collection: Collection, *, first: bool) -> bool:
    """Whether a short block above an unmarked text is a title (the first one, without a full stop) or a dateline."""
    if re.match(rf"\W*(?:{collection.dateline or _DATELINE})", block.strip()):
        return True
    if any(pattern.search(block) for pattern in _DATES) and len(block.split()) < 15:
        return True
    return first and not re.search(r"[.:;,]$", block.strip())


def _named(line: str, collection: Collection) -> str:
    """The declared attribution that a line is, regardless of case and punctuation; "" if it is none."""
    said = _letters(line)
    for name in collection.attributions:
        if said and said in (_letters(name), f"by {_letters(name)}", f"author {_letters(name)}"):
            return name
    return ""


def _letters(text: str) -> str:
    return " ".join(re.findall(r"[^\W\d_]+", text.casefold()))


def _attribution(header: list[str], collection: Collection) -> tuple[str, list[str]]:
    """The attribution among the header's lines, and the other lines."""
    for width in (2, 1):
        for index in range(len(header)):
            run = header[index : index + width]
            if len(run) == width and all(line.strip() for line in run):
                name = _named(" ".join(run), collection)
                if name:
                    return name, [*header[:index], "", *header[index + width :]]
    return "", header


def _signed(body: str, collection: Collection) -> tuple[str, list[str]]:
    """The text above the last signature and the blocks below it."""
    if not collection.signature:
        return body, []
    name = rf"(?:{collection.signature})"
    alone = list(re.finditer(rf"^[ \t]*{name}[.,;]?[ \t]*$", body, re.M))
    # Run into a note that follows it, or at the end of the last line of the text.
    joined = alone or list(
        re.finditer(rf"^[ \t]*{name}[.,;]?(?=[ \t]+\S)|(?<=[.?!\"”’)\d])[ \t]+{name}[.,;]?[ \t]*$", body, re.M)
    )
    if not joined:
        return body, []
    mark = joined[-1]
    return body[: mark.start()], _blocks(body[mark.end() :])


def _blocks(text: str) -> list[str]:
    return [block.strip("\n") for block in re.split(r"\n(?:[ \t]*\n)+", text) if block.strip()]


def _own_blocks(body: str, collection: Collection, counts: Counter[str]) -> tuple[list[str], list[str]]:
    blocks, dropped = [], []
    for block in _blocks(body):
        joined = " ".join(block.split())
        if any(re.fullmatch(pattern, joined) for pattern in collection.drop):
            counts["paragraphs dropped by rule"] += 1
            dropped.append(joined)
        elif _ORNAMENT.fullmatch(joined):
            counts["ornaments"] += 1
        else:
            blocks.append(block.rstrip())
    return blocks, dropped


def _footnotes(blocks: list[str]) -> tuple[list[str], list[str]]:
    """Notes at the end of an unsigned text: a numbered block is one only if the text refers to its number."""
    feet: list[str] = []
    while len(blocks) > 1:
        match = _FOOTNOTE.match(blocks[-1].strip())
        if blocks[-1].lstrip().startswith(("*", "†", "‡")):  # no author's paragraph opens so, marked in the text or not
            feet.insert(0, blocks[-1])
            blocks = blocks[:-1]
            continue
        if match is None:
            break
        mark = re.escape(match["mark"])
        text = "\n\n".join(blocks[:-1])
        refers = rf"\[{mark}\]|\({mark}\)|(?<=[^\W\d_]){mark}(?!\w)|(?<=[.,;:!?\"”’)]){mark}(?!\w)"
        if not re.search(refers, text):
            break
        feet.insert(0, blocks[-1])
        blocks = blocks[:-1]
    return blocks, feet


class _About(NamedTuple):
    notes: list[str]
    remarks: list[str]


def _titled(lines: list[str], collection: Collection) -> tuple[list[str], str, str, _About]:
    """(title lines, dateline, ISO date, notes) of the lines between heading and text."""
    about = _About([], [])
    kept: list[str] = []
    for block in _blocks("\n".join(_noteless(lines, about.notes))):
        joined = " ".join(block.split())
        if any(re.fullmatch(p, joined) for p in collection.drop) or _NOTE_LINE.fullmatch(joined):
            about.notes.append(joined)
        elif not _ORNAMENT.fullmatch(joined):
            kept.append(joined)
    joined = "\n".join(kept)
    start = re.search(rf"(?:^|(?<=[\s.)]))(?:{collection.dateline or _DATELINE})", joined, re.M)
    dated = _date(joined[start.start() :] if start else joined)
    first = start.start() if start else dated[1] if dated else len(joined)
    if dated is None:
        return joined[:first].split("\n"), " ".join(joined[first:].split()), "", about
    day, _, weekday = dated
    if weekday and weekday != _WEEKDAYS[day.weekday()]:
        about.remarks.append(f"{day.isoformat()} was a {_WEEKDAYS[day.weekday()].title()}, not a {weekday.title()}")
    return joined[:first].split("\n"), " ".join(joined[first:].split()), day.isoformat(), about


def _noteless(lines: list[str], notes: list[str]) -> list[str]:
    """Without the lines that are a transcriber's notes; they go to `notes`. Some editions print them without a gap."""
    notes.extend(" ".join(line.split()) for line in lines if _NOTE_LINE.fullmatch(line.strip()))
    return [line for line in lines if not _NOTE_LINE.fullmatch(line.strip())]


def _date(text: str) -> tuple[dt.date, int, str] | None:
    """The first date in a text, where it (with its weekday) starts, and the weekday that stands before it."""
    for pattern in _DATES:
        for match in pattern.finditer(text):
            month = match["month"].lower()
            number = int(month) if month.isdigit() else [m[:3] for m in _MONTHS].index(month[:3]) + 1
            try:
                day = dt.date(int(match["year"]), number, int(match["day"]))
            except ValueError:
                continue
            before = text[max(0, match.start() - 14) : match.start()]
            weekday = _WEEKDAY.search(before)
            start = match.start() - len(before) + weekday.start() if weekday else match.start()
            return day, start, weekday.group().lower() if weekday else ""
    return None
