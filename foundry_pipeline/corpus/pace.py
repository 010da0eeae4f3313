"""One pace for each host, kept by every process that fetches into the same store.

    >>> pace = Pace(Path(".foundry/sources/.hosts"))
    >>> pace.wait("www.loc.gov", every=1.1)      # sleeps until 1.1 s have passed since anybody's last request to it
    >>> pace.not_before("www.loc.gov", time.time() + 3600, "answered 429")
    >>> pace.wait("www.loc.gov", every=1.1)      # raises Refused, now and in an hour's time in any process

A host that has said when it may be asked again is not asked before, even by another command started meanwhile: each
further request would prolong its block.
"""

from __future__ import annotations

import datetime as dt
import fcntl
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

from foundry_pipeline.errors import FoundryError
from foundry_pipeline.lineage.store import disk_error


class Refused(FoundryError):
    """A host that is not to be asked (any more) for now; whatever else was to be asked of it would fail as well."""


class Pace:
    """Waits between requests to one host; `clock` and `sleep` are the system's unless a test says otherwise."""

    def __init__(
        self, folder: Path, *, clock: Callable[[], float] = time.time, sleep: Callable[[float], None] = time.sleep
    ) -> None:
        self.folder, self._clock, self._sleep = folder, clock, sleep

    def wait(self, host: str, *, every: float) -> None:
        """Sleep until this process may ask; raises Refused if the host has said not to before some later time.

        The turn is taken under a lock, so that two processes share the pace instead of doubling it.
        """

        def turn(state: dict[str, Any]) -> None:
            now = self._clock()
            until = float(state.get("not_before", 0))
            if until > now:
                raise refused(host, until, str(state.get("why", "")))
            # A last request in the future is a clock that was set back, not a reason to wait.
            last = float(state.get("last", 0))
            if now < last + every <= now + every:
                self._sleep(last + every - now)
            state.clear()
            state["last"] = self._clock()

        self._locked(host, turn)

    def not_before(self, host: str, until: float, why: str) -> None:
        """Note that a host is not to be asked before `until` (seconds since the epoch)."""
        self._locked(host, lambda state: state.update(not_before=until, why=why))

    def _locked(self, host: str, change: Callable[[dict[str, Any]], None]) -> None:
        path = self.folder / quote(host, safe="")
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with path.open("a+", encoding="utf-8") as handle:
                fcntl.flock(handle, fcntl.LOCK_EX)
                handle.seek(0)
                state = _state(handle.read())
                change(state)
                handle.seek(0)
                handle.truncate()
                json.dump(state, handle)
        except OSError as error:
            raise disk_error(error, path) from error


def _state(text: str) -> dict[str, Any]:
    """What was noted of a host; a note cut short by a kill counts as none."""
    try:
        found = json.loads(text or "{}")
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def refused(host: str, until: float, why: str) -> Refused:
    when = dt.datetime.fromtimestamp(until, dt.UTC)
    return Refused(
        f"{host} is not to be asked before {when:%Y-%m-%d %H:%M:%S} UTC ({why}); what was fetched before is kept",
        where=host,
        mend=f"repeat the same command after {when:%Y-%m-%d %H:%M} UTC",
    )
