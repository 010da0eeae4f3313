"""How far a transfer is, in a line every few seconds.

>>> lines = []
>>> meter = Meter("madison_r2_gguf: sending", 2_000_000, lines.append)
>>> meter.more(2_000_000); meter.done(); lines[0].startswith("madison_r2_gguf: sending 2 of 2 MB")
True
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor

_AT_ONCE = 4
_SECONDS = 5.0
_WORTH_TELLING = 1_000_000  # bytes; less has arrived before anybody reads about it


class Meter:
    """Counts bytes from several threads; says how many of `total` are done at most every five seconds, and at the end."""

    def __init__(self, what: str, total: int, say: Callable[[str], None]) -> None:
        self.what, self.total, self._say = what, total, say
        self._done, self._started = 0, time.monotonic()
        self._said = self._started
        self._lock = threading.Lock()

    def more(self, size: int) -> None:
        with self._lock:
            self._done += size
            now = time.monotonic()
            if now - self._said < _SECONDS:
                return
            self._said = now
            rate = self._done / max(now - self._started, 1e-9)
            left = max(0.0, (self.total - self._done) / rate) if rate else 0.0
        self._say(f"{self._line()}, {left:.0f} s left")

    def done(self) -> None:
        if self.total >= _WORTH_TELLING:
            self._say(f"{self._line()} in {time.monotonic() - self._started:.1f} s")

    def _line(self) -> str:
        return f"{self.what} {min(self._done, self.total) / 1e6:,.0f} of {self.total / 1e6:,.0f} MB"


def each(items: Iterable[str], do: Callable[[str], None]) -> None:
    """Do it for every item, some at once; the first failure ends what has not begun, and is raised."""
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        waiting = [pool.submit(do, item) for item in items]
        try:
            for one in waiting:
                one.result()
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
