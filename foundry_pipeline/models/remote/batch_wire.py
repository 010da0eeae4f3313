"""The four calls of the Message Batches interface, each asked again where that may help: make, look, list, results."""

from __future__ import annotations

import contextlib
import datetime as dt
import json
from collections.abc import Callable, Iterator
from typing import Any, TypeVar
from urllib.parse import urlsplit

from foundry_pipeline.models.money.batches import BatchBook, OpenBatch
from foundry_pipeline.models.remote.anthropic_messages import ClaudeClient
from foundry_pipeline.models.remote.attempts import Asker
from foundry_pipeline.models.remote.exchange import exchange, of_connection, status_failure
from foundry_pipeline.models.remote.failures import AttemptFailed, Failure, malformed

T = TypeVar("T")
_BATCHES = "/v1/messages/batches"
_SKEW = dt.timedelta(minutes=10)  # by which the server's clock may differ from ours
_STREAMED = {"X-Stainless-Raw-Response": "stream"}  # what the SDK's own with_streaming_response sends


class BatchWire:
    """Batches of one account. Every call raises AttemptFailed once its attempts are used up, and RunEnded as usual."""

    def __init__(self, asker: Asker, client: ClaudeClient) -> None:
        self._asker, self._client = asker, client
        self._attempts = int((asker.model.remote or {}).get("attempts", 6))
        self._results: dict[str, str] = {}

    def create(
        self, requests: list[dict[str, Any]], find: Callable[[], bool], book: BatchBook, batch: OpenBatch
    ) -> str | None:
        """The id of a new batch; None where `find` met one that an attempt had made without our hearing of it."""
        for attempt in range(1, self._attempts + 1):
            self._asker.line.wait()
            try:
                made = self._exchange(
                    lambda: self._client.client.messages.batches.with_streaming_response.create(
                        requests=requests,  # type: ignore[arg-type]
                        timeout=self._client.timeout,
                    )
                )
                return _identifier(made)
            except AttemptFailed as error:
                failure = error.failure
            if failure.billed and find():
                return None
            if failure.deserves != "retry" or attempt == self._attempts:
                book.lost(batch, billed=failure.billed)
                self._asker.end_run(failure)
                raise AttemptFailed(failure)
            try:
                self._asker.end_run(failure)
            except BaseException:
                book.lost(batch, billed=False)
                raise
            self._asker.rest(failure, attempt)
        raise AssertionError("no attempt was made")

    def ended(self, identifier: str) -> bool:
        """Whether the batch's results are there."""

        def look() -> bool:
            found = self._exchange(
                lambda: self._client.client.messages.batches.with_streaming_response.retrieve(
                    identifier, timeout=self._client.timeout
                )
            )
            status = found.get("processing_status")
            if status not in ("in_progress", "canceling", "ended"):
                raise AttemptFailed(malformed("a batch without a processing_status"))
            self._results[identifier] = str(found.get("results_url") or "")
            return bool(status == "ended")

        return self._again(look)

    def candidates(self, batch: OpenBatch, known: set[str]) -> list[str]:
        """Batches that may be one whose id we never heard: made about then, unknown here. Oldest first."""
        since = dt.datetime.fromisoformat(batch.created_at) - _SKEW

        def look() -> list[str]:
            found: list[tuple[str, str]] = []
            after: str | None = None
            while True:
                page = self._page(after)
                listed = page.get("data")
                if not isinstance(listed, list):
                    raise AttemptFailed(malformed("a list of batches without data"))
                fresh = [b for b in listed if isinstance(b, dict) and _made(b) >= since]
                found += [(str(b["created_at"]), _identifier(b)) for b in fresh if _count(b) == len(batch.entries)]
                last = page.get("last_id")
                # Newest first: where a page reaches back beyond the day in question, so do all that follow.
                if not page.get("has_more") or len(fresh) < len(listed) or not isinstance(last, str):
                    return [name for _, name in sorted(found) if name not in known]
                after = last

        return self._again(look)

    def _page(self, after: str | None) -> dict[str, Any]:
        """The newest hundred batches, or the next hundred after one."""
        begin: Any = {"after_id": after} if after else {}
        return self._exchange(
            lambda: self._client.client.messages.batches.with_streaming_response.list(
                limit=100, timeout=self._client.timeout, **begin
            )
        )

    def results(self, identifier: str) -> Iterator[dict[str, Any]]:
        """Every line of results, as it comes; a stream that breaks off is begun again. Lines may come repeatedly."""
        for attempt in range(1, self._attempts + 1):
            self._asker.line.wait()
            try:
                yield from self._lines(identifier)
                return
            except AttemptFailed as error:
                failure = error.failure
            self._give_up_or_rest(failure, attempt)

    def _lines(self, identifier: str) -> Iterator[dict[str, Any]]:
        import httpx2

        client = self._client.client
        options: Any = {"headers": {**_STREAMED, "Accept": "application/binary"}, "timeout": self._client.timeout}
        try:
            response: Any = client.get(self._address(identifier), cast_to=object, options=options)
            with contextlib.closing(response):
                rest = b""
                for chunk in response.http_response.iter_bytes():
                    *lines, rest = (rest + chunk).split(b"\n")
                    for line in lines:
                        if line.strip():
                            # A whole line that cannot be read will not get better: its request counts as missing.
                            yield _line(line) or {}
                if rest.strip():
                    last = _line(rest)
                    if last is None:
                        raise AttemptFailed(malformed("the results break off within a line"))
                    yield last
        except self._client.sdk.APIStatusError as error:
            raise AttemptFailed(status_failure(error, provider="anthropic", model=self._asker.model.path)) from None
        except self._client.sdk.APIConnectionError as error:
            raise AttemptFailed(of_connection(error.__cause__ or error)) from None
        except (httpx2.HTTPError, httpx2.StreamError) as error:
            raise AttemptFailed(of_connection(error)) from None

    def _address(self, identifier: str) -> str:
        """Where the results are: as the server says, but never on another server, since the key travels along."""
        told = self._results.get(identifier, "")
        own, other = urlsplit(str(self._client.client.base_url)), urlsplit(told)
        if (own.scheme, own.netloc) == (other.scheme, other.netloc):
            return told
        return f"{_BATCHES}/{identifier}/results"

    def _exchange(self, send: Callable[[], Any]) -> dict[str, Any]:
        data, _ = exchange(
            self._client.sdk,
            send,
            provider="anthropic",
            model=self._asker.model.path,
            timeout=self._client.timeout,
        )
        return data

    def _again(self, call: Callable[[], T]) -> T:
        for attempt in range(1, self._attempts + 1):
            self._asker.line.wait()
            try:
                return call()
            except AttemptFailed as error:
                failure = error.failure
            self._give_up_or_rest(failure, attempt)
        raise AssertionError("no attempt was made")

    def _give_up_or_rest(self, failure: Failure, attempt: int) -> None:
        # A batch that the server does not know concerns that batch only.
        if not failure.kind.startswith("404"):
            self._asker.end_run(failure)
        if failure.deserves != "retry" or attempt == self._attempts:
            raise AttemptFailed(failure)
        self._asker.rest(failure, attempt)


def _line(data: bytes) -> dict[str, Any] | None:
    try:
        value = json.loads(data.decode("utf-8"))
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _identifier(batch: dict[str, Any]) -> str:
    name = batch.get("id")
    if not isinstance(name, str) or not name or not all(c.isalnum() or c in "_-" for c in name):
        raise AttemptFailed(malformed("a batch without an id"))
    return name


def _made(batch: dict[str, Any]) -> dt.datetime:
    try:
        made = dt.datetime.fromisoformat(str(batch.get("created_at")))
    except ValueError:
        raise AttemptFailed(malformed("a batch without the time of its making")) from None
    return made if made.tzinfo else made.replace(tzinfo=dt.UTC)


def _count(batch: dict[str, Any]) -> int:
    counts = batch.get("request_counts")
    return sum(v for v in counts.values() if type(v) is int) if isinstance(counts, dict) else -1
