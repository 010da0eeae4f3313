"""Loaded by every Python process whose clock libfaketime moves (its folder leads PYTHONPATH there).

libfaketime 0.9.10 refuses the absolute wait on the monotonic clock by which Python from 3.11 on sleeps: `time.sleep` raises
"Invalid argument". Here it sleeps by `select`; the clock stays the moved one.
"""

import select
import time


def _sleep(seconds: float) -> None:
    if seconds < 0:
        raise ValueError("sleep length must be non-negative")
    select.select([], [], [], seconds)


time.sleep = _sleep
