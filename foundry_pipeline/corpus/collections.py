"""One text that holds many works, divided into them.

    >>> split = split_collection(text, collection, author="James Madison", role="primary", where="18.txt")
    >>> [(w.number, w.author, w.date) for w in split.works[:2]], [v.number for v in split.variants]
    ([('1', 'Alexander Hamilton', '1787-10-27'), ('2', 'John Jay', '1787-10-31')], ['70'])

A work runs from its heading to the next. Headings that a table of contents repeats are told by the few words under them;
a work that is printed twice is one work and a variant, which is named and kept beside it. Around a work's own text its
number, title, dateline, attribution, salutation, signature and notes are read off and set apart. Nothing is passed over:
a work without author or date, a gap in the numbers, two texts under one number are errors that name the work.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import NoReturn

from foundry_pipeline.corpus.work_parts import Parts, parts_of
from foundry_pipeline.declarations.collections import Attribution, Collection, Work
from foundry_pipeline.declarations.common import Role
from foundry_pipeline.errors import DeclarationError

ALIKE = (
    0.3  # shared words of the shorter: two printings of one work share most, two works some 0.2 to 0.5 of common words
)
_ROMAN = {"i": 1, "v": 5, "x": 10, "l": 50, "c": 100, "d": 500, "m": 1000}


@dataclass(frozen=True)
class CollectedWork:
    """One work as the collection prints it.

    `date` is ISO, or "" where nobody knows it. `printing` counts from 1 where a work is printed more than once; `alike`
    is the share of its words that a variant has in common with the printing that is the document.
    """

    number: str
    title: str
    author: str
    role: Role
    date: str
    text: str
    attribution: str = ""
    dateline: str = ""
    notes: tuple[str, ...] = ()
    printing: int = 1
    alike: float = 1.0


@dataclass(frozen=True)
class Split:
    """A divided collection: `works` in order of number, `variants` beside them, `counts` and `remarks` on the way."""

    works: tuple[CollectedWork, ...]
    variants: tuple[CollectedWork, ...]
    counts: dict[str, int] = field(default_factory=dict)
    remarks: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Piece:
    """A heading and the text under it, up to the next heading."""

    key: str
    title: str
    text: str
    words: int
    at: int


def split_collection(text: str, collection: Collection, *, author: str, role: Role, where: str) -> Split:
    """Divide a text; `author` and `role` are the manifest's. Raises DeclarationError naming what does not fit the rule."""
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    pieces, before, inside = _pieces(text, collection, where)
    listed = _contents(pieces, collection.shortest)
    counts: Counter[str] = Counter({"words before the first work": before, "headings in running text": inside})
    counts["lines of contents"] = len(listed)
    printed: dict[str, list[_Piece]] = {}
    for index, piece in enumerate(pieces):
        if index not in listed:
            printed.setdefault(piece.key, []).append(piece)
    _complete(printed, collection, where)
    known = _known(collection, printed, where)
    remarks: list[str] = []
    works: list[CollectedWork] = []
    variants: list[CollectedWork] = []
    unattributed: list[str] = []
    for key in sorted(printed, key=_order):
        fact = known.get(key, Work())
        versions = []
        for printing, piece in enumerate(printed[key], start=1):
            parts = parts_of(piece.text, collection, heading_title=piece.title)
            counts.update(parts.counts)
            remarks.extend(f"{key}: {remark}" for remark in parts.remarks)
            versions.append(_work(key, parts, fact, collection, author, role, printing, unattributed))
        if fact.prefer > len(versions):
            _refuse(
                f"printing {fact.prefer} of work {key} is preferred, there are {len(versions)}",
                f"{where}, `works`",
                "correct `prefer`",
            )
        chosen = versions.pop(fact.prefer - 1)
        if not chosen.text:
            _refuse(f"work {key} has a heading and no text", where, "correct `heading`, or the file")
        works.append(chosen)
        variants.extend(_variant(v, chosen, where) for v in versions)
    if unattributed:
        counts["works without attribution"] = len(unattributed)
        if collection.unattributed == "refuse":
            _refuse(
                f"no attribution was found for {len(unattributed)} works: {'; '.join(unattributed[:5])}",
                where,
                "add the line to `attributions`, name the author under `works`, or set `unattributed: apart`",
            )
    remarks.extend(
        f"{v.number} is printed {v.printing} times over; printing {v.printing} shares {v.alike:.0%} of its words"
        for v in variants
    )
    counts["variants"] = len(variants)
    return Split(tuple(works), tuple(variants), {n: c for n, c in counts.items() if c}, tuple(remarks))


def _pieces(text: str, collection: Collection, where: str) -> tuple[list[_Piece], int, int]:
    """All headings with what stands under them, the words before the first, and how many were only running text."""
    pattern = re.compile(rf"^[ \t]*(?:{collection.heading})[ \t]*$", re.M)
    found: list[tuple[re.Match[str], str]] = []
    inside = 0
    for match in pattern.finditer(text):
        if match.start() == match.end():
            _refuse("`heading` matches an empty line", where, "let it match at least one character")
        if _in_running_text(text, match):
            inside += 1
        else:
            found.append((match, _key(match)))
    if not found:
        _refuse(f"no heading matches {collection.heading!r}", where, "correct `heading`")
    ends = [match.start() for match, _ in found[1:]] + [len(text)]
    pieces = []
    for (match, key), end in zip(found, ends, strict=True):
        under = text[match.end() : end]
        pieces.append(_Piece(key, _title(match), under, len(under.split()), match.start()))
    return pieces, len(text[: found[0][0].start()].split()), inside


def _in_running_text(text: str, match: re.Match[str]) -> bool:
    """A reference that happens to fill a line: a line of prose goes right before it and goes on in lower case after."""
    start, end = match.start() - 1, match.end() + 1
    stop = text.find("\n", end)
    above = text[text.rfind("\n", 0, max(0, start)) + 1 : max(0, start)].strip()
    below = text[end : stop if stop >= 0 else len(text)].strip()
    return bool(above) and bool(below) and (below[0].islower() or above[-1] in ",;-—" or above[-1].islower())


def _key(match: re.Match[str]) -> str:
    groups = match.groupdict()
    number = groups.get("number")
    if number:
        value = arabic(number)
        return str(value) if value is not None else _slug(number)
    return _slug(groups.get("title") or match.group())


def arabic(number: str) -> int | None:
    """The value of an Arabic or a well-formed Roman numeral; None for anything else."""
    number = number.strip(" .").lower()
    if number.isascii() and number.isdigit():
        return int(number)
    if not re.fullmatch(r"m*(cm|cd|d?c{0,4})(xc|xl|l?x{0,4})(ix|iv|v?i{0,4})", number) or not number:
        return None
    values = [_ROMAN[c] for c in number]
    return sum(-v if v < after else v for v, after in zip(values, [*values[1:], 0], strict=True))


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "_", text.lower()).strip("_")[:60]


def _title(match: re.Match[str]) -> str:
    return " ".join((match.groupdict().get("title") or "").split()).strip(" .")


def _order(key: str) -> tuple[int, int, str]:
    return (0, int(key), "") if key.isdigit() else (1, 0, key)


def _contents(pieces: list[_Piece], shortest: int) -> set[int]:
    """Which headings are lines of a table of contents.

    Few words under it, and the same work with its text elsewhere. The last line of such a table has whatever follows the
    table under it (a preface, say), so a heading that ends a run of two or more such lines belongs to it as well.
    """
    longest: dict[str, int] = {}
    for piece in pieces:
        longest[piece.key] = max(longest.get(piece.key, 0), piece.words)
    listed = {i for i, p in enumerate(pieces) if p.words < shortest <= longest[p.key]}
    for index in sorted(listed):
        after = index + 1
        if index - 1 in listed and after < len(pieces) and after not in listed:
            again = any(i > after and p.key == pieces[after].key for i, p in enumerate(pieces))
            if again and _follows(pieces[index].key, pieces[after].key):
                listed.add(after)
    return listed


def _follows(key: str, after: str) -> bool:
    return not (key.isdigit() and after.isdigit()) or int(after) == int(key) + 1


def _complete(printed: dict[str, list[_Piece]], collection: Collection, where: str) -> None:
    numbers = sorted(int(key) for key in printed if key.isdigit())
    if numbers:
        gaps = sorted(set(range(numbers[0], numbers[-1] + 1)) - set(numbers) - set(collection.missing))
        if gaps:
            _refuse(
                f"works {', '.join(map(str, gaps[:20]))} are missing between {numbers[0]} and {numbers[-1]}",
                where,
                "correct `heading` (their headings may be printed otherwise), or declare them as `missing`",
            )
    if collection.expect is not None and len(printed) != collection.expect:
        _refuse(
            f"{len(printed)} works were found, {collection.expect} are expected", where, "correct `heading` or `expect`"
        )


def _known(collection: Collection, printed: dict[str, list[_Piece]], where: str) -> dict[str, Work]:
    """What is declared of each work, ranges spelled out; a later entry adds to an earlier one."""
    known: dict[str, Work] = {}
    for name, work in collection.works.items():
        span = re.fullmatch(r"(\d+)\s*[-–]\s*(\d+)", name.strip())
        keys = (
            [str(n) for n in range(int(span[1]), int(span[2]) + 1)]
            if span
            else [name if name in printed else _slug(name)]
        )
        unknown = [key for key in keys if key not in printed]
        if unknown:
            _refuse(
                f"`works` names {', '.join(unknown)}, which the text does not have",
                where,
                "correct the number or title",
            )
        for key in keys:
            told = work.model_dump(exclude_defaults=True)
            known[key] = known.get(key, Work()).model_copy(update=told)
    return known


def _work(
    key: str,
    parts: Parts,
    fact: Work,
    collection: Collection,
    author: str,
    role: Role,
    printing: int,
    unattributed: list[str],
) -> CollectedWork:
    whose = Attribution(author=author, role=role)
    if fact.author:
        whose = Attribution(author=fact.author, role=fact.role)
    elif parts.attribution:
        said = collection.attributions[parts.attribution]
        whose = Attribution(author=said) if isinstance(said, str) else said
    elif collection.attributions:
        unattributed.append(f"{key} (above its text stands: {parts.header[-160:]!r})")
        whose = Attribution(author="unknown", role="joint")
    own: Role = role if whose.author == author else "control"
    return CollectedWork(
        number=key,
        title=fact.title or parts.title,
        author=whose.author,
        role=fact.role or whose.role or own,
        date=fact.date or parts.date or collection.date,
        text=parts.text,
        attribution=parts.attribution,
        dateline=parts.dateline,
        notes=parts.notes,
        printing=printing,
    )


def _variant(variant: CollectedWork, chosen: CollectedWork, where: str) -> CollectedWork:
    a, b = Counter(_words(variant.text)), Counter(_words(chosen.text))
    alike = sum((a & b).values()) / max(1, min(sum(a.values()), sum(b.values())))
    if alike < ALIKE:
        _refuse(
            f"two works are numbered {chosen.number} and share only {alike:.0%} of their words: they are not one work",
            where,
            "correct the number in the file, or `heading`",
        )
    return replace(variant, alike=round(alike, 4))


def _words(text: str) -> Iterator[str]:
    return (m.group().lower() for m in re.finditer(r"[^\W\d_]+", text))


def _refuse(what: str, where: str, mend: str) -> NoReturn:
    raise DeclarationError(what, where=where, mend=mend)
