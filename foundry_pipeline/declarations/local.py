"""The `local` connector: files the user has, declared one by one or taken from a folder.

connector: {kind: local, path: letters, include: ["*.txt", "*.md"]}      # letters/1788-06-01_to-a-friend.txt
connector: {kind: local, path: federalist.txt, format: gutenberg, collection: {heading: …}}
"""

from __future__ import annotations

import re
from typing import Literal

from pydantic import Field, field_validator

from foundry_pipeline.declarations.collections import ISO_DATE, Collection
from foundry_pipeline.declarations.common import Declaration

TextFormat = Literal["auto", "text", "gutenberg"]


class LocalText(Declaration):
    """Texts in files: plain text, Markdown, HTML, PDF, EPUB, or a zip archive of these.

    With `documents`, each file is declared by its stem. With `include`, every file that a pattern names is read, and its
    facts come from `documents`, a table beside the texts (`documents.csv` or `documents.yaml`), the file's own front
    matter, or its name, the first that says so. `path` may be a single file, too.
    """

    kind: Literal["local"]
    path: str = Field(description="folder or file, relative to the manifest")
    documents: dict[str, dict[str, str]] = Field(
        default={}, description="file stem → {title, date, url, author, role, encoding}"
    )
    include: tuple[str, ...] = Field(
        default=(), description='patterns of files below the folder, e.g. ["*.txt", "**/*.md"]'
    )
    name_pattern: str = Field(
        default=r"(?P<date>\d{4}(?:-\d{2}(?:-\d{2})?)?)(?:[_ -]+(?P<title>.*))?",
        description="what a file's stem says, as groups `date` and `title`",
    )
    encoding: str = Field(default="", description="encoding of texts that are not UTF-8, such as windows-1252")
    format: TextFormat = Field(
        default="auto",
        description="auto: a text that bears the marks of Project Gutenberg is freed of its licence; text: taken as it stands",
    )
    collection: Collection | None = Field(default=None, description="how a text of many works is divided")
    date: str = Field(default="", pattern=ISO_DATE, description="date of texts that nothing else dates")
    largest: int = Field(default=256 << 20, ge=1, description="bytes: a larger file is refused")

    @field_validator("name_pattern")
    @classmethod
    def _pattern(cls, value: str) -> str:
        try:
            groups = set(re.compile(value).groupindex)
        except re.error as error:
            raise ValueError(f"is no regular expression: {error}") from error
        if groups - {"date", "title"}:
            raise ValueError(f"has groups other than `date` and `title`: {', '.join(sorted(groups))}")
        return value

    @field_validator("include")
    @classmethod
    def _inside(cls, values: tuple[str, ...]) -> tuple[str, ...]:
        for value in values:
            if not value or value.startswith(("/", "~")) or ".." in re.split(r"[/\\]", value):
                raise ValueError(f"{value!r} must stay inside the folder")
        return values
