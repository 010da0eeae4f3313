"""What can go wrong with one request, and what each thing deserves.

`retry` asks again, `request` gives this request up, `run` ends the whole run (a wrong key fails every request alike).
`billed` says whether the provider may have charged for it: an error status is not charged, an answer that was lost on
the way may be.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from foundry_pipeline.errors import FoundryError
from foundry_pipeline.keys import redact
from foundry_pipeline.models.remote.service import KEYS
from foundry_pipeline.models.requests import Backend

Deserves = Literal["retry", "request", "run"]


@dataclass(frozen=True)
class Failure:
    """Why an attempt gave no answer. `kind` is what failures are counted by; `wait` what the server asked for."""

    kind: str
    message: str
    deserves: Deserves
    billed: bool = False
    wait: float | None = None
    mend: str = ""
    request_id: str = ""

    def told(self) -> str:
        name = f" (request-id {self.request_id})" if self.request_id else ""
        return f"{self.kind}: {self.message}{name}"


class AttemptFailed(Exception):
    """An attempt that failed; carries what is known of it."""

    def __init__(self, failure: Failure) -> None:
        self.failure = failure
        super().__init__(failure.told())


class RunEnded(FoundryError):
    """Something that would fail every further request alike: a key that is refused, a wait that is too long."""


_SHORT = 300


def shown(text: str) -> str:
    """A server's words, on one line, without keys and control characters, and not too long."""
    line = " ".join("".join(c if c.isprintable() else " " for c in redact(text)).split())
    return line if len(line) <= _SHORT else line[: _SHORT - 1] + "…"


def of_status(
    status: int, message: str, *, provider: Backend, wait: float | None = None, request_id: str = "", model: str = ""
) -> Failure:
    """What an HTTP error status means. See the providers' tables of errors."""
    said = shown(message) or "no reason given"

    def failure(kind: str, deserves: Deserves, mend: str = "") -> Failure:
        return Failure(f"{status} {kind}", said, deserves, wait=wait, mend=mend, request_id=shown(request_id))

    key = KEYS[provider]
    if status == 401:
        return failure("authentication", "run", f"export {key}=<a key that is valid>, then run the same command again")
    if status == 402:
        return failure("billing", "run", "settle the account with the provider, then run the same command again")
    if status == 403:
        return failure("permission", "run", f"use a key ({key}) whose account may use {model or 'this model'}")
    if status == 404:
        return failure("not found", "run", f"correct the model id {model!r} or the address of the server")
    if status == 413:
        return failure("too large", "request", "shorten the prompt: fewer passages in view, or shorter ones")
    if status in (408, 409, 429) or status >= 500:
        kinds = {408: "timeout", 409: "conflict", 429: "rate limit", 529: "overloaded"}
        return failure(kinds.get(status, "server error"), "retry")
    if 300 <= status < 400:
        return failure("redirect", "run", "correct the address of the server: it sends elsewhere")
    return failure("bad request", "request", "correct what the message names in the declaration of the request")


def malformed(message: str, *, kind: str = "malformed answer", request_id: str = "") -> Failure:
    """A success status around something that is no answer: asked again, and perhaps billed."""
    return Failure(kind, shown(message), "retry", billed=True, request_id=shown(request_id))
