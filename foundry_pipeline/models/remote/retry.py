"""When to ask again: exponential back-off with full jitter, and the server's own `retry-after` where it gives one.

    pause(attempt=3, wait=None, random=0.5)      # 2.0 seconds: half of 0.5 × 2³
    retry_after("7")                             # 7.0
    retry_after("Wed, 21 Oct 2026 07:28:00 GMT") # seconds from now, at least 0

Full jitter: M. Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog, 2015.
"""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Mapping
from email.utils import parsedate_to_datetime

FIRST_SECONDS = 0.5
LONGEST_SECONDS = 30.0


def pause(*, attempt: int, wait: float | None, random: float) -> float:
    """Seconds before the try after `attempt` (1, 2, …). A wait the server asked for is kept, and a little more."""
    spread = min(LONGEST_SECONDS, FIRST_SECONDS * 2.0**attempt) * random
    return spread if wait is None else wait + min(spread, 1.0)


def retry_after(value: str | None, *, now: dt.datetime | None = None) -> float | None:
    """Seconds of a `retry-after` header, in seconds or as a date; None for one that is absent or unreadable."""
    if value is None:
        return None
    try:
        seconds = float(value)
    except ValueError:
        try:
            date = parsedate_to_datetime(value)
        except (TypeError, ValueError):
            return None
        if date.tzinfo is None:
            date = date.replace(tzinfo=dt.UTC)
        seconds = (date - (now or dt.datetime.now(dt.UTC))).total_seconds()
    return max(0.0, seconds) if math.isfinite(seconds) else None


def asked_wait(headers: Mapping[str, str]) -> float | None:
    """What a response asks for: `retry-after-ms` before `retry-after`."""
    milliseconds = retry_after(headers.get("retry-after-ms"))
    return milliseconds / 1000 if milliseconds is not None else retry_after(headers.get("retry-after"))
