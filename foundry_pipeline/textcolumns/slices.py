"""A long frame, read a slice at a time, by as many threads as the machine lends: order kept, memory bounded.

    >>> frame = pl.DataFrame({"text": ["a war", "no war here", "peace"]})
    >>> [len(t.words) for t in in_slices(lambda part, lexicon: read_texts(part["text"], lexicon), frame, rows=2)]
    [5, 1]

Polars and NumPy let go of the interpreter while they work, so two threads read in little more than half the time. Each
thread has a lexicon of its own and keeps it, so that what was learnt of one frame serves the next.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cache
from typing import TypeVar

import polars as pl

from foundry_pipeline.textcolumns.lexicon import Lexicon, shared_lexicon

T = TypeVar("T")
ROWS = 8192


def in_slices(work: Callable[[pl.DataFrame, Lexicon], T], frame: pl.DataFrame, rows: int | None = None) -> Iterator[T]:
    """`work` of each slice of `frame` (at most `rows` long; ROWS if None), in the order of the slices.

    At most one slice more than there are threads is held at a time. What `work` raises is raised here, for the first
    slice that raised; slices that were not begun are not read then.
    """
    parts = frame.iter_slices(rows or ROWS)
    if frame.height <= (rows or ROWS):
        yield from (work(part, shared_lexicon()) for part in parts)
        return
    readers, threads = _readers()
    ahead: deque[Future[T]] = deque()
    try:
        for part in parts:
            ahead.append(readers.submit(lambda one: work(one, shared_lexicon()), part))
            if len(ahead) > threads:
                yield ahead.popleft().result()
        while ahead:
            yield ahead.popleft().result()
    finally:
        for left in ahead:
            left.cancel()


@cache
def _readers() -> tuple[ThreadPoolExecutor, int]:
    """The threads that read, and how many they are. As Polars' own, they do not outlive a fork; nothing here forks."""
    threads = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return ThreadPoolExecutor(threads, thread_name_prefix="reads-texts"), threads
