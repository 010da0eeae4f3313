"""Several servers of one model: each request goes to the one with the least under way, a dead one is left out.

    servers = Servers(["http://a:8000/v1", "http://b:8000/v1"], log=log)
    with servers.one() as server:      # AttemptFailed raised inside is counted against it
        …  server.url
    servers.told()                     # {"http://a:8000/v1": {"answered": 31, "failed": 0}, "http://b:8000/v1": {…}}

A server is left out after a connection that could not be made, or after STRIKES failures in a row that are its own (a
lost connection, no answer in time, a status of 5xx); first for FIRST_SECONDS, then twice as long each time, and one
request at a time finds out whether it is back. One that refuses every request alike (a wrong key, an unknown model) is
left out for good while others answer. Where all are out the one that may be back soonest is asked: how often a request
is tried, and when a run gives up, stays what it is with one server.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

from foundry_pipeline.models.remote.failures import AttemptFailed, Failure

FIRST_SECONDS, LONGEST_SECONDS, STRIKES = 2.0, 60.0, 3
_NEVER = float("inf")


@dataclass
class Server:
    """One server and how it has done. `out_until`: on the monotonic clock; 0 while it is in service."""

    url: str
    under_way: int = 0
    answered: int = 0
    failed: int = 0
    strikes: int = 0
    pauses: int = 0
    out_until: float = 0.0


class Servers:
    """Safe for threads. `now` is the clock (seconds), for tests."""

    def __init__(
        self,
        urls: Sequence[str],
        *,
        log: Callable[[str], None] = lambda text: None,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._all = [Server(url) for url in urls]
        self._log, self._now = log, now
        self._lock = threading.Lock()

    @contextmanager
    def one(self) -> Iterator[Server]:
        """The server to ask now. An AttemptFailed that leaves the block bears on it, and says which server it was."""
        server = self._take()
        try:
            yield server
        except AttemptFailed as error:
            raise AttemptFailed(self._failed(server, error.failure)) from None
        else:
            self._well(server)
        finally:
            with self._lock:
                server.under_way -= 1

    def _take(self) -> Server:
        with self._lock:
            now = self._now()
            # One that is due to be looked at again is given one request; the rest go to those known to be well.
            usable = [s for s in self._all if s.out_until == 0 or (s.out_until <= now and s.under_way == 0)]
            if not usable:
                usable = [min(self._all, key=lambda s: s.out_until)]
            server = min(usable, key=lambda s: (s.under_way, s.answered + s.failed))
            server.under_way += 1
            return server

    def _well(self, server: Server) -> None:
        with self._lock:
            back = server.out_until != 0
            server.answered += 1
            server.strikes = server.pauses = 0
            server.out_until = 0.0
        if back:
            self._log(f"server {server.url} answers again")

    def _failed(self, server: Server, failure: Failure) -> Failure:
        """The failure as the request meets it, after its server has been judged by it."""
        with self._lock:
            alone = len(self._all) == 1
            others = [s for s in self._all if s is not server and s.out_until == 0]
            own = _is_own(failure)
            server.failed += 1
            server.strikes += own
            was_out = server.out_until != 0
            refuses = failure.deserves == "run"
            if refuses and others:
                server.out_until = _NEVER
                failure = replace(failure, deserves="retry")
            elif own and (failure.kind == "connection" or was_out or server.strikes >= STRIKES):
                pause = min(LONGEST_SECONDS, FIRST_SECONDS * 2**server.pauses)
                server.pauses += 1
                server.out_until = max(server.out_until, self._now() + pause)
            left_out = not was_out and server.out_until != 0
            in_service = sum(s.out_until == 0 for s in self._all)
        if alone:
            return failure
        if left_out:
            rest = f"its work goes to the other {in_service}" if in_service else "no other is in service"
            self._log(f"server {server.url} is left out ({failure.told()}); {rest}")
        mend = failure.mend
        if not in_service:
            mend = f"start one of the servers: {', '.join(s.url for s in self._all)}"
        return replace(failure, message=f"{failure.message} ({server.url})", mend=mend)

    def told(self) -> dict[str, dict[str, int]]:
        """What each server has done, where there are several."""
        if len(self._all) == 1:
            return {}
        with self._lock:
            return {s.url: {"answered": s.answered, "failed": s.failed} for s in self._all}


def _is_own(failure: Failure) -> bool:
    """Whether a failure speaks of its server and not of the request."""
    return failure.kind in ("connection", "timeout", "no JSON") or "server error" in failure.kind
