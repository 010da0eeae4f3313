"""What every format gives: a text with its paragraphs, what the file says of itself, and what was met on the way.

    >>> invisible("safe\\u202etxt.exe")
    {'bidirectional controls': 1}

Nothing unseen is taken out of a text here. A reader counts it, the sources say it, and only a recorded cleaning rule of
the manifest removes it (`find: "[\\u202a-\\u202e\\u2066-\\u2069]"`), so that no hostile text is hidden on the way in.
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class FormatDocument:
    """A text as its file holds it.

    `text` has its paragraphs separated by empty lines; for plain text it is the file's own, letter for letter. `date` is
    ISO where the format has a field for the date of the text and the file fills it (never the date of the file), else
    empty. `encoding` says how bytes became letters. `counts` says how often something was left out, mended or met that
    a reader of the text should know of; a name with a count of 0 does not stand there.
    """

    text: str
    kind: str
    title: str = ""
    date: str = ""
    author: str = ""
    encoding: str = ""
    name: str = ""
    counts: Mapping[str, int] = field(default_factory=dict)


# Unicode TR 36 and 39; "Trojan Source" (Boucher and Anderson, 2021) for the first row.
_INVISIBLE = {
    "bidirectional controls": "\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069",
    "zero-width characters": "\u034f\u180e\u200b-\u200d\u2060-\u2064\ufeff",
    "tag characters": "\U000e0000-\U000e007f\U000e0100-\U000e01ef",
    "control characters": "\x00-\x08\x0b\x0e-\x1f\x7f-\x84\x86-\x9f",
    "soft hyphens": "\u00ad",
    "replacement characters": "\ufffd",
}
_CLASSES = {name: re.compile(f"[{characters}]") for name, characters in _INVISIBLE.items()}
_ANY = re.compile(f"[{''.join(_INVISIBLE.values())}]")


def invisible(text: str) -> dict[str, int]:
    """How many characters of each class that a reader does not see; classes without any are left out."""
    if _ANY.search(text) is None:
        return {}
    found = {name: sum(1 for _ in pattern.finditer(text)) for name, pattern in _CLASSES.items()}
    return {name: count for name, count in found.items() if count}


def counted(text: str, counts: Mapping[str, int] | None = None) -> dict[str, int]:
    """A reader's own counts and the text's invisible characters, without zeros."""
    return {name: count for name, count in {**(counts or {}), **invisible(text)}.items() if count}


_ISO_DATE = re.compile(r"(\d{4})(?:[-/](\d{1,2})(?:[-/](\d{1,2}))?)?(?![\d])")


def iso_date(said: object) -> str:
    """The ISO date (YYYY-MM-DD, YYYY-MM or YYYY) that a field of a file opens with; "" for anything else."""
    if isinstance(said, dt.date):  # a datetime too
        return said.isoformat()[:10]
    match = _ISO_DATE.match(str(said).strip())
    if match is None:
        return ""
    parts = [p for p in match.groups() if p is not None]
    try:
        dt.date(int(parts[0]), *(int(p) for p in (parts[1:] + ["1", "1"])[:2]))
    except ValueError:
        return ""
    return "-".join([parts[0], *(p.zfill(2) for p in parts[1:])])


def paragraphs(blocks: list[str]) -> str:
    """Blocks as one text, an empty line between two, blank ones left out."""
    return "\n\n".join(block for block in (b.strip() for b in blocks) if block)
