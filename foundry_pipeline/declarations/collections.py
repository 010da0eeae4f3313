"""How one file that holds many works is divided: `collection:` of a connector.

heading: 'FEDERALIST\\.? No\\. (?P<number>\\d+)'
attributions: {HAMILTON: Alexander Hamilton, MADISON: James Madison, "MADISON, with HAMILTON": {role: joint, …}}
salutation: 'To the People of the State of New York'
signature: PUBLIUS
"""

from __future__ import annotations

import re
from typing import Literal

from pydantic import Field, field_validator

from foundry_pipeline.declarations.common import Declaration, Role

ISO_DATE = r"^(\d{4}(-\d{2}(-\d{2})?)?)?$"


class Attribution(Declaration):
    """Whose a work with a certain attribution line is."""

    author: str
    role: Role | None = Field(
        default=None, description="default: the manifest's role for its own author, `control` for any other"
    )


class Work(Declaration):
    """What is known of a work of a collection beyond (or against) what its file prints."""

    author: str = ""
    role: Role | None = None
    title: str = ""
    date: str = Field(default="", pattern=ISO_DATE, description="YYYY-MM-DD, or YYYY-MM, or YYYY")
    prefer: int = Field(
        default=1, ge=1, description="which printing is the document where a work is printed more than once"
    )
    reason: str = Field(default="", description="where this is known from")


class Collection(Declaration):
    """The rule that divides a text into its works.

    Patterns are Python regular expressions. A heading stands on lines of its own; `\\s+` in it may run over a line end.
    """

    heading: str = Field(
        description="a work's heading, from line start to line end; group `number` (Arabic or Roman) and `title` if it has them"
    )
    expect: int | None = Field(
        default=None, ge=1, description="how many works the collection has; another number is refused"
    )
    missing: tuple[int, ...] = Field(default=(), description="numbers that this edition is known not to have")
    shortest: int = Field(
        default=50,
        ge=1,
        description="words: a shorter piece is a line of the table of contents if its work stands elsewhere",
    )
    attributions: dict[str, str | Attribution] = Field(
        default={}, description="attribution line → author; empty: every work is the manifest's author's"
    )
    unattributed: Literal["refuse", "apart"] = Field(
        default="refuse",
        description="a work without attribution: an error, or kept apart (role `joint`, author unknown)",
    )
    dateline: str = Field(
        default="", description="where and when it was printed; default: For/From the … Journal, Packet, …"
    )
    salutation: str = Field(default="", description="the address above the text; not part of it")
    signature: str = Field(default="", description="the name below the text; what follows it are notes, kept apart")
    drop: tuple[str, ...] = Field(
        default=(), description="paragraphs that are an editor's or transcriber's, whole matches"
    )
    footnotes: Literal["apart", "keep"] = Field(
        default="apart", description="notes at a work's end: beside its text or in it"
    )
    date: str = Field(
        default="", pattern=ISO_DATE, description="date of works that neither print one nor have one in `works`"
    )
    works: dict[str, Work] = Field(default={}, description="number, range (`49-57`) or title → what is known of it")
    stem: str = Field(default="{number}", description="name of a work, for `{stem}` in the manifest's id pattern")

    @field_validator("heading", "dateline", "salutation", "signature")
    @classmethod
    def _pattern(cls, value: str) -> str:
        return _compiled(value)

    @field_validator("drop")
    @classmethod
    def _patterns(cls, values: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(_compiled(value) for value in values)

    @field_validator("stem")
    @classmethod
    def _stem(cls, value: str) -> str:
        try:
            names = value.format(number="1") != value.format(number="2")
        except (KeyError, IndexError, ValueError) as error:
            raise ValueError(f"cannot be filled in ({error}); use only {{number}}") from error
        if not names:
            raise ValueError("must hold {number}: works would share a name")
        return value


def _compiled(value: str) -> str:
    try:
        re.compile(value)
    except re.error as error:
        raise ValueError(f"is no regular expression: {error}") from error
    return value
