"""What went between this machine and the shared store, kept: one line for each artifact sent or fetched.

    {"at": "…", "what": "sent", "name": "madison_r2_gguf", "content": "5b…", "seconds": 3.1,
     "requests": 14, "uploaded_files": 4, "uploaded_bytes": 632112000, "found_files": 0, …}

Look-ups (index, notes, listings) that belong to no transfer are written as one line `"what": "looked up"` when the process
ends; a process that is killed leaves them out.
"""

from __future__ import annotations

import atexit
import contextlib
import datetime as dt
import json
import threading
from pathlib import Path
from typing import Any

from foundry_pipeline.lineage.bucket import Bucket
from foundry_pipeline.lineage.objects import Traffic


class TrafficLog:
    """Appends to one file; lines of several processes do not mix. A log that cannot be written stops nothing."""

    def __init__(self, path: Path, bucket: Bucket) -> None:
        self.path, self.bucket = path, bucket
        self._told = Traffic()
        self._lock = threading.Lock()
        atexit.register(self.rest)

    def note(self, what: str, name: str, content: str, before: Traffic, seconds: float) -> None:
        """Write what has gone to and fro since `before`, if anything was moved."""
        spent = self.bucket.traffic().since(before)
        if not spent.uploaded_files + spent.downloaded_files + spent.found_files:
            return
        with self._lock:
            self._told = Traffic(**{k: v + getattr(self._told, k) for k, v in spent.as_dict().items()})
        self._write({"what": what, "name": name, "content": content, "seconds": round(seconds, 3), **spent.as_dict()})

    def rest(self) -> None:
        """Write what no line has told yet."""
        with self._lock:
            now = self.bucket.traffic()
            spent, self._told = now.since(self._told), now
        if spent.requests > 0:
            self._write({"what": "looked up", **spent.as_dict()})

    def _write(self, line: dict[str, Any]) -> None:
        at = dt.datetime.now(dt.UTC).isoformat(timespec="seconds")
        with contextlib.suppress(OSError):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("a", encoding="utf-8") as handle:
                handle.write(json.dumps({"at": at, **line}) + "\n")


def read_traffic(path: Path) -> list[dict[str, Any]]:
    """Every line of a log; a line that was cut off by a kill is left out."""
    out = []
    with contextlib.suppress(OSError):
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
            with contextlib.suppress(ValueError):
                if isinstance(found := json.loads(line), dict):
                    out.append(found)
    return out
