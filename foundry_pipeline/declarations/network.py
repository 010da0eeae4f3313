"""Connectors whose texts are fetched: what is asked of a remote place, and the limits that are kept while asking.

    connector:
      kind: founders
      author_names: ["Madison, James"]
      select: {authors: ["Madison, James"], date_from: 1787-05-01, date_to: 1788-07-01}
      fetch: {requests_per_second: 5}

Nothing here is ever taken from what a server answers: which hosts may be asked, how fast, how often and how much is
declared by the user, with a default for each.
"""

from __future__ import annotations

import datetime as dt
from ipaddress import IPv6Address
from typing import Annotated, Literal, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, model_validator

from foundry_pipeline.declarations.collections import ISO_DATE, Collection
from foundry_pipeline.declarations.common import Declaration, Role


def check_url(url: str) -> str:
    """An http or https URL with a host and without a password; raises ValueError saying what is wrong with it."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https"):
        raise ValueError(
            f"{parts.scheme or 'no scheme'}: only http and https are fetched; for a file use `kind: local`"
        )
    if not parts.hostname:
        raise ValueError("the URL names no host")
    if parts.username or parts.password:
        raise ValueError(
            "a URL may not carry a user name or password: it would be shown in reports and kept with the text"
        )
    if any(ord(c) <= 32 or ord(c) == 127 for c in url):
        raise ValueError("the URL holds a space or a control character; write them as %20 and the like")
    parts.port  # noqa: B018  (raises ValueError for a port that is none)
    return url


def check_host(host: str) -> str:
    """A host alone, in the form that hosts are compared in; raises ValueError for a URL, a port, a pattern."""
    host = host.strip().lower().removeprefix("[").removesuffix("]").rstrip(".")
    named = all(
        part and part.isascii() and part.replace("-", "").replace("_", "").isalnum() for part in host.split(".")
    )
    if not named:
        try:
            IPv6Address(host)
        except ValueError as error:
            raise ValueError("a host by itself is expected, such as `mirror.lan`, `10.0.0.7` or `::1`") from error
    return host


Url = Annotated[str, AfterValidator(check_url)]


class FetchLimits(Declaration):
    """How a source is asked: slowly, a bounded number of times, for a bounded number of bytes."""

    requests_per_second: float = Field(default=1.0, gt=0, le=50, description="per host, over all sources and processes")
    timeout_seconds: float = Field(default=60, gt=0, le=3600, description="without a byte, before it counts as failed")
    max_seconds: float = Field(default=1800, gt=0, description="for the whole body of one document")
    retries: int = Field(default=4, ge=0, le=20, description="after 5xx, 429, a timeout, a cut or malformed body")
    backoff_seconds: float = Field(
        default=1.0, ge=0, le=60, description="first wait; each further one is twice as long"
    )
    max_wait_seconds: float = Field(default=120, ge=0, description="a longer Retry-After is an error, not a sleep")
    max_megabytes: float = Field(default=256, gt=0, description="of one document, unpacked; more is refused")
    max_redirects: int = Field(default=5, ge=0, le=20)
    every_hours: float = Field(
        default=0, ge=0, description="a build asks again only after this long; `foundry sources refresh` always asks"
    )
    private_hosts: tuple[Annotated[str, AfterValidator(check_host)], ...] = Field(
        default=(), description="hosts that may lie on this machine or in a private network; any other there is refused"
    )
    contact: str = Field(
        default="", max_length=200, description="address or page shown to the server with each request"
    )


class UrlDocument(Declaration):
    """One document at a URL, with the facts that the file may not carry itself."""

    url: Url
    title: str = ""
    date: str = Field(
        default="", pattern=ISO_DATE, description="YYYY-MM-DD, YYYY-MM or YYYY; needed unless the file says it"
    )
    author: str = Field(default="", description="the manifest's author where empty")
    role: Role | None = Field(default=None, description="the manifest's role where empty")


class UrlText(Declaration):
    """Documents at any URL: text, Markdown, HTML, PDF or EPUB."""

    kind: Literal["url"]
    documents: dict[str, UrlDocument] = Field(min_length=1, description="stem of the id → where and what it is")
    encoding: str = Field(default="", description="of plain text that is not UTF-8 and whose server does not say")
    fetch: FetchLimits = FetchLimits()


class FoundersSelection(Declaration):
    """Which records of the metadata list are read; every condition given must hold."""

    authors: tuple[str, ...] = Field(default=(), description="any of these, as the list writes them: `Madison, James`")
    recipients: tuple[str, ...] = Field(default=(), description="any of these")
    date_from: dt.date | None = Field(default=None, description="first day")
    date_to: dt.date | None = Field(default=None, description="last day")
    projects: tuple[str, ...] = Field(default=(), description="any of these editions: `Madison Papers`")
    at_most: int | None = Field(default=None, ge=1, description="the first so many by date; the rest is counted")
    exclude: tuple[str, ...] = Field(default=(), description="ids of documents that are not to be read")

    @model_validator(mode="after")
    def _selects(self) -> Self:
        if not (self.authors or self.recipients or self.projects or self.date_from or self.date_to):
            raise ValueError("an empty selection would read all 180,000 documents; name authors, dates or projects")
        return self


class FoundersLetters(Declaration):
    """Founders Online: documents by id, or selected from its metadata list, through `API/docdata/{id}`."""

    kind: Literal["founders"]
    base: Url = "https://founders.archives.gov"
    author_names: tuple[str, ...] = Field(
        min_length=1, description="how the edition writes the manifest's author; other authors' texts are kept apart"
    )
    documents: tuple[str, ...] = Field(default=(), description="ids such as `Madison/01-10-02-0178`")
    select: FoundersSelection | None = None
    metadata: str = Field(
        default="Metadata/founders-online-metadata.json",
        description="the list, relative to `base`; or a file beside the manifest as `file:founders-online-metadata.json`",
    )
    answers: str = Field(
        default="", description="folder beside the manifest with API answers saved as <project>/<id>.json; read instead"
    )
    dates: dict[str, str] = Field(default={}, description="id → date of a document that the edition gives none")
    undated: Literal["refuse", "skip"] = Field(
        default="refuse", description="an undated document is an error, or left out and counted"
    )
    fetch: FetchLimits = FetchLimits(requests_per_second=5, every_hours=20)

    @model_validator(mode="after")
    def _asks(self) -> Self:
        if bool(self.documents) == (self.select is not None):
            raise ValueError("give either `documents` or `select`")
        for identifier in (*self.documents, *self.dates):
            check_founders_id(identifier)
        if self.fetch.requests_per_second > 10:
            raise ValueError("`fetch.requests_per_second` is above what Founders Online asks for, at most 10")
        return self


def check_founders_id(identifier: str) -> str:
    """An id such as `Madison/01-10-02-0178`; raises ValueError for what would be another path on the server or here."""
    parts = identifier.split("/")
    plain = all(part and part not in (".", "..") and part.replace("-", "").replace("_", "").isalnum() for part in parts)
    if len(parts) != 2 or not plain or not identifier.isascii():
        raise ValueError(f"{identifier[:80]!r} is no document id; one looks like `Madison/01-10-02-0178`")
    return identifier


class LocFacts(Declaration):
    """Facts of one item that the catalogue lacks or has wrong."""

    title: str = ""
    date: str = Field(default="", pattern=ISO_DATE)
    author: str = ""
    role: Role | None = None


class LocItems(Declaration):
    """Library of Congress: items by id, or the results of a search, with their full text."""

    kind: Literal["loc"]
    base: Url = "https://www.loc.gov"
    author_names: tuple[str, ...] = Field(
        min_length=1, description="how the catalogue writes the manifest's author: `Madison, James, 1751-1836`"
    )
    items: tuple[str, ...] = Field(default=(), description="ids such as `mjm023001`")
    search: str = Field(
        default="", description="path and query below `base`: `/collections/james-madison-papers/?dates=1787/1788`"
    )
    at_most: int = Field(default=200, ge=1, le=100_000, description="items of a search; more is an error, not a cut")
    exclude: tuple[str, ...] = Field(default=(), description="ids of items that are not to be read")
    hosts: tuple[str, ...] = Field(
        default=("tile.loc.gov", "cdn.loc.gov"), description="where full texts may lie besides `base`"
    )
    facts: dict[str, LocFacts] = Field(default={}, description="item id → what the catalogue lacks")
    # The strictest published limit is 10 requests in 10 seconds, with a block of an hour beyond 200 in a minute
    # (https://www.loc.gov/apis/json-and-yaml/working-within-limits/); newspapers have 20 a minute.
    fetch: FetchLimits = FetchLimits(requests_per_second=0.9, every_hours=20)

    @model_validator(mode="after")
    def _asks(self) -> Self:
        if bool(self.items) == bool(self.search):
            raise ValueError("give either `items` or `search`")
        for item in (*self.items, *self.facts):
            if not item or not item.isascii() or not item.replace(".", "").replace("-", "").replace("_", "").isalnum():
                raise ValueError(f"{item[:80]!r} is no item id; one looks like `mjm023001`")
        if self.search and not self.search.startswith("/"):
            raise ValueError("`search` is a path below `base` and begins with /")
        newspapers = "newspapers" in self.search or "chronicling-america" in self.search
        if self.fetch.requests_per_second > (0.33 if newspapers else 1.0) and self.base == "https://www.loc.gov":
            limit = "0.33 (newspapers: 20 a minute)" if newspapers else "1"
            raise ValueError(f"`fetch.requests_per_second` is above the Library's published limit, {limit}")
        return self


class GutenbergText(Declaration):
    """A Project Gutenberg ebook: from a mirror, through the harvest page, or a file the user has."""

    kind: Literal["gutenberg"]
    book: int = Field(ge=1, description="number of the ebook")
    mirror: Url | None = Field(
        default=None, description="root of a mirror that holds the main collection, e.g. with /1/4/0/1404/"
    )
    harvest: Url | None = Field(
        default=None,
        description="the page for robots: https://www.gutenberg.org/robot/harvest?filetypes[]=txt&langs[]=en",
    )
    path: str = Field(default="", description="a file beside the manifest: .txt, .html, .epub or .zip")
    file: str = Field(
        default="", pattern=r"^([\w.-]+/)*[\w.-]*$", description="path on the mirror where it is not one of the usual"
    )
    hosts: tuple[str, ...] = Field(
        default=("aleph.pglaf.org", "aleph.gutenberg.org", "gutenberg.pglaf.org", "www.gutenberg.lib.md.us"),
        description="hosts that the harvest page may lead to",
    )
    most_pages: int = Field(default=1000, ge=1, description="of the harvest page, before the search is given up")
    title: str = Field(default="", description="of a single work; the file's own where empty")
    date: str = Field(default="", pattern=ISO_DATE, description="YYYY-MM-DD, YYYY-MM or YYYY of a single work")
    encoding: str = Field(default="", description="where the file's header does not say and it is not UTF-8")
    collection: Collection | None = Field(default=None, description="how the file is divided into works")
    fetch: FetchLimits = FetchLimits(requests_per_second=0.5)  # "wget -w 2" is what the site asks robots for

    @model_validator(mode="after")
    def _from(self) -> Self:
        given = [name for name in ("mirror", "harvest", "path") if getattr(self, name)]
        if len(given) != 1:
            raise ValueError("give one of `mirror`, `harvest` and `path`")
        if ".." in self.file.split("/"):
            raise ValueError("`file` is a path below the mirror")
        if self.harvest and urlsplit(self.harvest).path.rstrip("/") != "/robot/harvest":
            raise ValueError("`harvest` is the address of the page /robot/harvest")
        if self.collection is None and not self.date:
            raise ValueError("a single work needs its `date`: when it was written or published")
        return self
