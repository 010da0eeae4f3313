"""Asking a server for one document: paced, conditional, bounded, and without believing what comes back.

    >>> with Fetcher(limits, pace=Pace(folder), hosts=allowed) as fetcher:
    ...     answer = fetcher.get(url, into=folder / "one", etag='"abc"', last_modified="")
    >>> answer.status, answer.requests
    ('unchanged', 1)

A body goes to a file as it comes, hashed on the way, so that its size costs no memory. Retried: 5xx, 408, 429 whose
Retry-After is short, timeouts, and bodies that end before their announced length. Everything else is an error that says
what to do; a challenge or captcha page is recognised and never kept as a text.
"""

from __future__ import annotations

import hashlib
import os
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NoReturn, Self
from urllib.parse import urlsplit

from foundry_pipeline.corpus.addresses import PUBLISHED, FetchError, joined
from foundry_pipeline.corpus.challenges import challenged, page_where_data_was_asked
from foundry_pipeline.corpus.connecting import guarded_client, judge_address
from foundry_pipeline.corpus.pace import Pace, Refused, refused
from foundry_pipeline.declarations.network import FetchLimits, check_url
from foundry_pipeline.lineage.store import disk_error

if TYPE_CHECKING:
    import httpx2

Expect = Literal["json", "text", "any"]
_ACCEPT: dict[Expect, str] = {
    "json": "application/json, text/plain;q=0.5",
    "text": "text/plain, application/zip;q=0.9, text/*;q=0.8, */*;q=0.5",
    "any": "*/*",
}
_REDIRECTS = (301, 302, 303, 307, 308)
_AGAIN = (408, 425, 429, 500, 502, 503, 504, 520, 522, 524)
_HEAD = 64 * 1024  # bytes that tell what kind of page has come
_BLOCK = 3600.0  # seconds: how long the Library of Congress blocks whom it has answered 429 without saying how long


class NoAnswer(FetchError):
    """A document whose server did not give one, however often it was asked: others there may fare no better."""


class _Again(Exception):
    """An attempt that may succeed when repeated; `after` is the server's own wish in seconds, if it has one."""

    def __init__(self, what: str, *, after: float | None = None, too_many: bool = False) -> None:
        super().__init__(what)
        self.what, self.after, self.too_many = what, after, too_many


@dataclass(frozen=True)
class Answer:
    """What came of asking for one document; `path` and what describes it are set where there is new content."""

    status: Literal["content", "unchanged", "vanished"]
    requests: int
    final_url: str
    path: Path | None = None
    sha256: str = ""
    bytes: int = 0
    content_type: str = ""
    etag: str = ""
    last_modified: str = ""


class Fetcher:
    """Asks on behalf of one source.

    `allowed` judges every URL before it is asked, redirects included, and raises FetchError for one that is not to be
    asked. Counts its requests in `requests`. Raises FetchError for a document, Refused for a whole host.
    """

    def __init__(
        self,
        limits: FetchLimits,
        *,
        pace: Pace,
        allowed: Callable[[str], None] = lambda url: None,
        clock: Callable[[], float] = time.time,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.limits, self.requests = limits, 0
        self._pace, self._allowed, self._clock, self._sleep = pace, allowed, clock, sleep
        agent = "foundry-pipeline/0.1" + (f" ({limits.contact})" if limits.contact else "")
        self._client = guarded_client(
            allowed=limits.private_hosts,
            timeout=limits.timeout_seconds,
            # Only what the standard library undoes in bounded pieces.
            headers={"User-Agent": agent, "Accept-Encoding": "gzip, deflate"},
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()

    def get(self, url: str, *, into: Path, etag: str = "", last_modified: str = "", expect: Expect = "any") -> Answer:
        """Ask for a document; `etag` and `last_modified` are those of the content held, empty if none is.

        New content is written to the file `into`, synced.
        """
        before = self.requests
        wait, waited, last = self.limits.backoff_seconds, 0.0, _Again("")
        for attempt in range(self.limits.retries + 1):
            try:
                return self._follow(url, into, etag, last_modified, expect, before)
            except _Again as again:
                last = again
            pause = wait * random.uniform(0.8, 1.2) if last.after is None else last.after
            waited += last.after or 0.0
            if waited > self.limits.max_wait_seconds:
                self._stop(url, last.after or 0.0, last.what)
            if attempt < self.limits.retries:
                self._sleep(pause)
            wait *= 2
        if last.too_many:
            self._stop(url, _BLOCK, f"{last.what}, {self.limits.retries + 1} times")
        raise NoAnswer(
            f"no answer after {self.limits.retries + 1} attempts; the last one: {last.what}",
            where=url,
            mend="look whether the address opens in a browser, then repeat the same command; what was fetched is kept",
        )

    def _stop(self, url: str, seconds: float, why: str) -> NoReturn:
        """Leave the host alone for that long, in every process."""
        host, until = urlsplit(url).netloc, self._clock() + seconds
        self._pace.not_before(host, until, why)
        raise refused(host, until, why)

    # -- one attempt ---------------------------------------------------------------------------------------------

    def _follow(self, url: str, into: Path, etag: str, last_modified: str, expect: Expect, before: int) -> Answer:
        """One attempt, through redirects."""
        here = url
        for _ in range(self.limits.max_redirects + 1):
            self._judge(url, here)
            found = self._ask(here, into, etag, last_modified, expect, before)
            if isinstance(found, Answer):
                return found
            here = joined(here, found)
        raise FetchError(
            f"more than {self.limits.max_redirects} redirects, the last to {here[:200]}",
            where=url,
            mend="declare the address that the document is really at, or raise `fetch.max_redirects`",
        )

    def _judge(self, first: str, here: str) -> None:
        try:
            check_url(here)
        except ValueError as error:
            raise FetchError(f"not an address to fetch: {error}", where=here[:200], mend="correct the URL") from error
        self._allowed(here)
        judge_address(here, first=first, allowed=self.limits.private_hosts)

    def _ask(self, url: str, into: Path, etag: str, last_modified: str, expect: Expect, before: int) -> Answer | str:
        """One request: an answer, or the address that it redirects to."""
        import httpx2

        headers = {"Accept": _ACCEPT[expect]}
        if etag:
            headers["If-None-Match"] = etag
        if last_modified:
            headers["If-Modified-Since"] = last_modified
        host = urlsplit(url).netloc
        self._pace.wait(host, every=max(1 / self.limits.requests_per_second, PUBLISHED.get(host.lower(), 0.0)))
        self.requests += 1
        try:
            with self._client.stream("GET", url, headers=headers) as response:
                if response.status_code in _REDIRECTS:
                    return self._location(response, url)
                return self._read(response, url, into, expect, before, conditional=bool(etag or last_modified))
        except httpx2.InvalidURL as error:
            raise FetchError(f"not an address to fetch: {error}", where=url[:200], mend="correct the URL") from error
        except httpx2.TimeoutException as error:
            raise _Again(f"nothing came for {self.limits.timeout_seconds:g} s ({type(error).__name__})") from error
        except httpx2.DecodingError as error:
            raise _Again(f"the compressed body cannot be unpacked ({error})") from error
        except httpx2.TransportError as error:
            raise _Again(f"{type(error).__name__}: {error}") from error

    @staticmethod
    def _location(response: httpx2.Response, url: str) -> str:
        location = response.headers.get("location", "")
        if not location:
            raise FetchError(f"a redirect ({response.status_code}) to nowhere", where=url, mend="declare another URL")
        return location

    def _read(
        self, response: httpx2.Response, url: str, into: Path, expect: Expect, before: int, *, conditional: bool
    ) -> Answer:
        status = response.status_code
        marks = response.headers.get("etag", ""), response.headers.get("last-modified", "")
        if status == 304 and conditional:
            return Answer("unchanged", self.requests - before, url, etag=marks[0], last_modified=marks[1])
        if status in (404, 410):
            return Answer("vanished", self.requests - before, url)
        if status in _AGAIN:
            after = _retry_after(response, self._clock())
            raise _Again(f"answered {status} {response.reason_phrase}", after=after, too_many=status == 429)
        if status == 200:
            sha256, size = self._write(response, url, into)
            with into.open("rb") as handle:
                self._look(response, handle.read(_HEAD), url, expect)
            if not size:
                raise _Again("answered 200 with an empty body")
            kind = response.headers.get("content-type", "")
            return Answer("content", self.requests - before, url, into, sha256, size, kind, *marks)
        self._look(response, _beginning(response), url, "any")
        _refuse(response, url)

    def _look(self, response: httpx2.Response, head: bytes, url: str, expect: Expect) -> None:
        """Raise for a page that asks for a person, or a page of any kind where data was asked for."""
        sign = challenged(response.status_code, response.headers, head)
        if sign:
            host = urlsplit(url).netloc
            raise Refused(
                f"{host} answered with a check for people instead of the document ({sign})",
                where=url,
                mend="open the address in a browser; if it shows there, save the file and read it with `kind: local`, "
                "or ask again later and more slowly (`fetch.requests_per_second`)",
            )
        if expect != "any" and page_where_data_was_asked(response.headers, head):
            raise FetchError(
                f"a web page came where {'JSON' if expect == 'json' else 'a text file'} was asked for",
                where=url,
                mend="open the address in a browser: it may have moved, or the site may be closed for repairs",
            )

    def _write(self, response: httpx2.Response, url: str, into: Path) -> tuple[str, int]:
        """The body, to a file: SHA-256 and size in bytes."""
        encoding = response.headers.get("content-encoding", "identity").strip().lower()
        if encoding not in ("", "identity", "gzip", "x-gzip", "deflate"):
            raise FetchError(
                f"compressed as {encoding[:40]!r}, which was not offered", where=url, mend="use another URL"
            )
        most = int(self.limits.max_megabytes * 1_000_000)
        announced = response.headers.get("content-length", "")
        if announced.isdigit() and int(announced) > most:
            self._too_big(url, int(announced))
        hashed, size, started = hashlib.sha256(), 0, time.monotonic()
        try:
            with into.open("wb") as handle:
                for piece in response.iter_bytes():  # as it comes, or a slow one could not be told
                    size += len(piece)
                    if time.monotonic() - started > self.limits.max_seconds:
                        raise _Again(f"the body came too slowly: {size:,} bytes in {self.limits.max_seconds:g} s")
                    if size > most:
                        self._too_big(url, size)
                    hashed.update(piece)
                    handle.write(piece)
                handle.flush()
                os.fsync(handle.fileno())
        except OSError as error:
            raise disk_error(error, into) from error
        if encoding in ("", "identity") and announced.isdigit() and size != int(announced):
            raise _Again(f"the body was cut: {size} of {announced} bytes came")
        return hashed.hexdigest(), size

    def _too_big(self, url: str, size: int) -> NoReturn:
        raise FetchError(
            f"the document has {size:,} bytes or more, above the limit of {self.limits.max_megabytes:g} MB",
            where=url,
            mend="raise `fetch.max_megabytes` in the manifest if the document is meant to be so large",
        )


def _beginning(response: httpx2.Response) -> bytes:
    head = b""
    for piece in response.iter_bytes():
        head += piece
        if len(head) >= _HEAD:
            break
    return head[:_HEAD]


def _refuse(response: httpx2.Response, url: str) -> NoReturn:
    status = response.status_code
    mends = {
        400: "correct the address in the manifest",
        401: "the document is not public; fetch it yourself and read it with `kind: local`",
        403: "the server does not let programs read this; save the page in a browser and read it with `kind: local`",
        451: "the document is withheld for legal reasons; take it out of the manifest",
    }
    raise FetchError(
        f"the server answered {status} {response.reason_phrase}".rstrip(),
        where=url,
        mend=mends.get(status, "open the address in a browser and correct the manifest"),
    )


def _retry_after(response: httpx2.Response, now: float) -> float | None:
    """Seconds that the server asks to wait (delta-seconds or an HTTP date), or None where it does not say."""
    text = response.headers.get("retry-after", "").strip()
    if text.isascii() and text.isdigit():
        return float(text[:12])
    try:
        return max(0.0, parsedate_to_datetime(text).timestamp() - now)
    except (TypeError, ValueError, OverflowError, OSError):
        return None
