"""Which process wrote a row, and whether it is still at work: told apart from a later one of the same number.

process_mark()        "node-a/4f1c…/4026531836:7123:889014": host, boot and process namespace; number; start time
still_at_work(mark)   True or False of a process of this very machine; None of any other: only its heartbeat tells
"""

from __future__ import annotations

import os
from functools import lru_cache
from pathlib import Path


@lru_cache(maxsize=1)
def this_node() -> str:
    """This machine since it was started, and the namespace that process numbers hold in.

    Two containers may bear one host name, and a number of one means nothing in the other.
    """
    return f"{os.uname().nodename}/{this_boot()}/{_namespace()}"


@lru_cache(maxsize=1)
def this_boot() -> str:
    return _line("/proc/sys/kernel/random/boot_id").replace("-", "")[:12]


def _namespace() -> str:
    try:
        return os.readlink("/proc/self/ns/pid").strip("pid:[]")
    except OSError:
        return ""


def _line(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8").strip()
    except OSError:
        return ""


def process_mark() -> str:
    """This process, told apart from a later one of the same number by when it started."""
    return f"{this_node()}:{os.getpid()}:{_started(os.getpid())}"


def boot_of(mark: str) -> str:
    """The boot that a mark was made under; empty in marks that do not say."""
    parts = mark.rsplit(":", 2)[0].split("/")
    return parts[1] if len(parts) == 3 else ""


def _started(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rsplit(")", 1)[1].split()[19]
    except OSError:
        return ""


def still_at_work(mark: str) -> bool | None:
    """Whether the process of a mark is at work; None where it is not one that this process can see."""
    node, pid, started = mark.rsplit(":", 2)
    # Marks of earlier versions hold the host's name alone.
    if node not in (this_node(), os.uname().nodename):
        return None
    if started:
        return _started(int(pid)) == started
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
