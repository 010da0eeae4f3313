"""One request and its answer over the wire, for both SDKs: bounded in time and size, every fault told apart.

    data, request_id = exchange(anthropic, lambda: client.messages.with_streaming_response.create(**body), …)

The SDKs' own parsing is passed by: it turns a body that is no JSON into a bare error and a missing field into nothing.
Their retries are off, so that each attempt is known to the ledger of money.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable
from typing import Any

from foundry_pipeline.models.remote.failures import AttemptFailed, Failure, malformed, of_status, shown
from foundry_pipeline.models.remote.retry import asked_wait
from foundry_pipeline.models.requests import Backend

LARGEST_ANSWER = 64 * 2**20  # bytes; the longest answer of today's models is below one megabyte
# Raised before the request had left this machine, so that nothing can have been billed.
_NEVER_SENT = {"ConnectError", "ConnectTimeout", "PoolTimeout", "UnsupportedProtocol", "ProxyError", "InvalidURL"}


def exchange(
    sdk: Any, send: Callable[[], Any], *, provider: Backend, model: str, timeout: float
) -> tuple[dict[str, Any], str]:
    """The JSON object of a successful answer and its request id.

    `send` returns the SDK's context manager of a streamed response. Raises AttemptFailed.
    """
    data, request_id = fetch(sdk, send, provider=provider, model=model, timeout=timeout)
    return json_object(data, request_id), request_id


def fetch(sdk: Any, send: Callable[[], Any], *, provider: Backend, model: str, timeout: float) -> tuple[bytes, str]:
    """The whole body of a successful answer, at most LARGEST_ANSWER bytes within `timeout` seconds."""
    import httpx2

    deadline = time.monotonic() + timeout
    try:
        with send() as response:
            request_id = response.headers.get("request-id") or response.headers.get("x-request-id") or ""
            return _read(response.http_response.iter_bytes(), deadline), request_id
    except sdk.APIStatusError as error:
        raise AttemptFailed(status_failure(error, provider=provider, model=model)) from None
    except sdk.APIConnectionError as error:
        raise AttemptFailed(of_connection(error.__cause__ or error)) from None
    except (httpx2.HTTPError, httpx2.InvalidURL, httpx2.StreamError) as error:
        raise AttemptFailed(of_connection(error)) from None


def status_failure(error: Any, *, provider: Backend, model: str) -> Failure:
    """What an SDK's status error stands for."""
    headers = error.response.headers
    return of_status(
        error.status_code,
        _reason(error),
        provider=provider,
        wait=asked_wait(headers),
        request_id=headers.get("request-id") or headers.get("x-request-id") or "",
        model=model,
    )


def _read(chunks: Iterable[bytes], deadline: float) -> bytes:
    held = bytearray()
    for chunk in chunks:
        held += chunk
        if len(held) > LARGEST_ANSWER:
            raise AttemptFailed(malformed(f"an answer of more than {LARGEST_ANSWER} bytes", kind="answer too large"))
        if time.monotonic() > deadline:
            raise AttemptFailed(
                Failure("timeout", "the answer trickled in and was not whole in time", "retry", billed=True)
            )
    return bytes(held)


def json_object(data: bytes, request_id: str = "") -> dict[str, Any]:
    """A JSON object, strictly: no NaN, nothing behind it. Raises AttemptFailed."""

    def refuse(name: str) -> None:
        raise ValueError(f"{name} is no JSON")

    try:
        value = json.loads(data.decode("utf-8"), parse_constant=refuse)
    except (ValueError, RecursionError) as error:
        start = shown(data[:80].decode("utf-8", "replace"))
        raise AttemptFailed(
            malformed(f"a body that is no JSON ({error}): {start!r}", kind="no JSON", request_id=request_id)
        ) from None
    if not isinstance(value, dict):
        raise AttemptFailed(malformed(f"a {type(value).__name__} where an object belongs", request_id=request_id))
    return value


def _reason(error: Any) -> str:
    """The message inside an error body, or what there is of the body."""
    body = error.body
    if isinstance(body, dict):
        inner = body.get("error", body)
        if isinstance(inner, dict) and isinstance(inner.get("message"), str):
            return str(inner["message"])
        return json.dumps(body, default=str)
    return str(body or "")


def of_connection(cause: BaseException) -> Failure:
    """A connection that failed: before anything was sent, or after, when it may have been answered and billed."""
    name = type(cause).__name__
    sent = name not in _NEVER_SENT
    if "Timeout" in name:
        return Failure("timeout", shown(f"no answer in time ({name})"), "retry", billed=sent)
    return Failure("connection", shown(f"{name}: {cause}" if str(cause) else name), "retry", billed=sent)
