"""Own-written files in the forms that Project Gutenberg has used, with a collection of 85 numbered papers.

The prose is put together from the phrases below; the authors and the one joint mark are the well-known facts of the
papers. What varies between editions is drawn from a seed: heading style, line ends, contents, notes, missing signatures.
"""

from __future__ import annotations

import datetime as dt
import random
from dataclasses import dataclass

JAY = {2, 3, 4, 5, 64}
JOINT = {18, 19, 20}
MADISON = {10, 14, *range(37, 59), 62, 63}

_NOUNS = (
    "harbour keeper commissioner assembly fleet merchant captain channel pilot lantern province officer island provision "
    "signal vessel magistrate treaty ledger coast tower frontier tariff garrison"
)
NOUNS = _NOUNS.split()
_QUALITIES = (
    "steady distant prudent common jealous public inland equal northern ancient vigilant frugal doubtful separate humble "
    "sufficient tranquil foreign ample defective moderate solemn latent firm"
)
QUALITIES = _QUALITIES.split()
_VERBS = (
    "depends upon|cannot survive without|is seldom the enemy of|will require|must yield to|is mistaken for|may be reconciled "
    "with|derives its force from|has long been suspected by|ought to precede|will in time exhaust|was never intended for"
)
VERBS = _VERBS.split("|")

STYLES = ("arabic", "dotted", "roman", "bare", "wrapped")


def author_line(number: int, wide: bool = True) -> str:
    if number in JAY:
        return "JAY"
    if number in JOINT:
        return "MADISON, with HAMILTON" if wide else "HAMILTON AND MADISON"
    return "MADISON" if number in MADISON else "HAMILTON"


def author(number: int) -> str:
    return {
        "JAY": "John Jay",
        "MADISON": "James Madison",
        "HAMILTON": "Alexander Hamilton",
        "MADISON, with HAMILTON": "James Madison and Alexander Hamilton",
    }[author_line(number)]


def roman(number: int) -> str:
    parts = [(100, "C"), (90, "XC"), (50, "L"), (40, "XL"), (10, "X"), (9, "IX"), (5, "V"), (4, "IV"), (1, "I")]
    out = ""
    for value, sign in parts:
        while number >= value:
            out, number = out + sign, number - value
    return out


def _clause(rng: random.Random) -> str:
    named = [f"the {rng.choice(QUALITIES)} {rng.choice(NOUNS)}" for _ in range(3)]
    return f"{named[0]} of {named[1]} {rng.choice(VERBS)} {named[2]}"


def paragraph(rng: random.Random, sentences: int = 3) -> str:
    made = []
    for _ in range(sentences):
        text = _clause(rng)
        if rng.random() < 0.5:
            text += f", and {_clause(rng)}"
        made.append(text[0].upper() + text[1:] + ".")
    return " ".join(made)


def wrap(text: str, width: int = 70) -> str:
    lines, line = [], ""
    for word in text.split():
        if line and len(line) + 1 + len(word) > width:
            lines.append(line)
            line = word
        else:
            line = f"{line} {word}".strip()
    return "\n".join([*lines, line])


@dataclass(frozen=True)
class Edition:
    """How one edition is printed."""

    style: str = "arabic"
    contents: bool = False
    preface: bool = False
    tight: bool = False  # header lines without empty lines between them
    salutation: bool = True
    signature: bool = True
    brackets: bool = False  # notes as [1] rather than 1.
    note: str = ""  # "", "before", "after": where the transcriber speaks of the two printings of No. 70
    twice: int = 70
    unsigned: tuple[int, ...] = (37,)
    unattributed: tuple[int, ...] = ()
    seed: int = 0
    papers: int = 85


def heading(number: int, style: str) -> str:
    return {
        "arabic": f"FEDERALIST No. {number}",
        "dotted": f"FEDERALIST. No. {number}",
        "roman": f"THE FEDERALIST. No. {roman(number)}.",
        "bare": f"No. {number}",
        "wrapped": f"THE FEDERALIST.\nNo. {roman(number)}.",
    }[style]


def title(number: int) -> str:
    subject = f"The {QUALITIES[number % len(QUALITIES)]} {NOUNS[number % len(NOUNS)]}".title()
    return f"The Same Subject Continued ({subject})" if number % 3 == 0 else f"Concerning {subject} and the Ports"


def day(number: int) -> dt.date:
    return dt.date(1787, 10, 27) + dt.timedelta(days=2 * number)


def venue(number: int) -> str:
    return ("For the Independent Journal", "From the New York Packet", "From MCLEAN's Edition, New York")[number % 3]


def paper(number: int, edition: Edition, printing: int = 1) -> tuple[str, list[str]]:
    """One paper as printed, and its own paragraphs."""
    rng = random.Random(f"{edition.seed}-{number}")
    own = [paragraph(rng, rng.randint(2, 4)) for _ in range(rng.randint(3, 5))]
    if printing == 2:
        own = [p.replace("cannot", "can not").replace("the", "ye", 1) for p in own] + [paragraph(rng)]
    noted = number % 5 == 0
    if noted:
        mark = "[1]" if edition.brackets else "1"
        own[0] = own[0][:-1] + "." + mark
    weekday = day(number).strftime("%A")
    written = day(number).strftime("%B ") + f"{day(number).day}, {day(number).year}"
    head = [heading(number, edition.style), wrap(title(number), 40), f"{venue(number)}. {weekday}, {written}."]
    if number not in edition.unattributed:
        head.append(author_line(number))
    if edition.note == "before" and number == edition.twice and printing == 1:
        head.insert(1, "(There are two slightly different printings of No. 70 included here.)")
    parts = ["\n".join(head)] if edition.tight else head
    if edition.salutation:
        parts.append("To the People of the State of New York:")
    parts.extend(wrap(p) for p in own)
    if edition.signature and number not in edition.unsigned:
        parts.append("PUBLIUS.")
    if noted:
        parts.append(("[1] " if edition.brackets else "1. ") + "Vide the report of the pilots, volume the second.")
    if edition.note == "after" and number == edition.twice - 1:
        parts.append("*There are two slightly different printings of No. 70 included here.")
    return "\n\n".join(parts), own


def body(edition: Edition) -> str:
    parts = ["THE PAPERS OF THE COAST\n\nBy Alexander Hamilton, John Jay, and James Madison"]
    if edition.contents:
        lines = [f"{heading(n, edition.style)}\n{title(n)}\n" for n in range(1, edition.papers + 1)]
        parts.append("CONTENTS\n\n" + "\n".join(lines))
    if edition.preface:
        rng = random.Random("preface")
        parts.append("PREFACE\n\n" + "\n\n".join(wrap(paragraph(rng, 4)) for _ in range(5)))
    for number in range(1, edition.papers + 1):
        parts.append(paper(number, edition)[0])
        if number == edition.twice:
            parts.append(paper(number, edition, printing=2)[0])
    return "\n\n\n\n".join(parts)


LICENCE = """

Updated editions will replace the previous one--the old editions will be renamed.

*** START: FULL LICENSE ***

THE FULL PROJECT GUTENBERG LICENSE
PLEASE READ THIS BEFORE YOU DISTRIBUTE OR USE THIS WORK

Section 1. General Terms of Use and Redistributing Project Gutenberg-tm electronic works
"""
HEAD = """The Project Gutenberg EBook of The Papers of the Coast, by
Alexander Hamilton and John Jay and James Madison

This eBook is for the use of anyone anywhere at no cost and with almost no restrictions whatsoever.

Title: The Papers of the Coast

Author: Alexander Hamilton
        John Jay
        James Madison

Release Date: August, 1991  [EBook #18]

Language: English

"""
SMALL_PRINT = """***START**THE SMALL PRINT!**FOR PUBLIC DOMAIN ETEXTS**START***
Why is this "Small Print!" statement here? You know: lawyers.
LIMITED WARRANTY; DISCLAIMER OF DAMAGES
This "Small Print!" by Charles B. Kramer, Attorney
*END*THE SMALL PRINT! FOR PUBLIC DOMAIN ETEXTS*Ver.04.29.93*END*
"""
FORMS = ("the", "this", "tight", "long", "small print", "small print after")


def gutenberg_file(text: str, form: str = "the") -> str:
    """`text` with the header and licence of one of the forms."""
    credit = "Produced by A. Keeper and the Distributed Pilots\n\n\n\n"
    if form == "the":
        start, end = "*** START OF THE PROJECT GUTENBERG EBOOK 18 ***", "*** END OF THE PROJECT GUTENBERG EBOOK 18 ***"
        return f"{HEAD}{start}\n\n\n{text}\n\n{end}\n{LICENCE}"
    if form == "this":
        name = "PROJECT GUTENBERG EBOOK THE PAPERS OF THE COAST ***"
        soft = "End of the Project Gutenberg EBook of The Papers of the Coast, by\nAlexander Hamilton"
        return f"{HEAD}*** START OF THIS {name}\n\n\n{credit}{text}\n\n\n{soft}\n\n*** END OF THIS {name}\n{LICENCE}"
    if form == "tight":
        name = "PROJECT GUTENBERG EBOOK THE PAPERS OF THE COAST***"
        return f"{HEAD}***START OF THE {name}\n\n\nE-text prepared by A. Keeper\n\n\n{text}\n\n\n***END OF THE {name}\n{LICENCE}"
    if form == "long":
        name = "PROJECT GUTENBERG EBOOK THE PAPERS OF THE\nCOAST, WITH THE LETTERS OF THE KEEPERS ***"
        return f"{HEAD}*** START OF THIS {name}\n\n{credit}{text}\n\n*** END OF THIS {name}\n{LICENCE}"
    soft = "End of Project Gutenberg's Etext of The Papers of the Coast\n"
    if form == "small print":
        old = "**The Project Gutenberg Etext of The Papers of the Coast**\n\n*****This file should be named coast10.txt*****\n\n"
        return f"{old}{SMALL_PRINT}\n\n\n\nThis etext was prepared by A. Keeper.\n\n\n{text}\n\n\n\n{soft}"
    head = f"{HEAD}*** START OF THE PROJECT GUTENBERG EBOOK, THE PAPERS OF THE COAST ***\n\n\n"
    return f"{head}{text}\n\n\n{soft}\n{SMALL_PRINT}"
