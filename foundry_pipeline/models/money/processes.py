"""Which process wrote a row, and whether it is still at work: told apart from a later one of the same number."""

from __future__ import annotations

import os
from pathlib import Path


def process_mark() -> str:
    """This process, told apart from a later one of the same number by when it started."""
    return f"{os.uname().nodename}:{os.getpid()}:{_started(os.getpid())}"


def _started(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rsplit(")", 1)[1].split()[19]
    except OSError:
        return ""


def lives(mark: str) -> bool:
    """Whether the process of a mark may still be at work; one of another machine is taken to be."""
    node, pid, started = mark.rsplit(":", 2)
    if node != os.uname().nodename:
        return True
    if started:
        return _started(int(pid)) == started
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
