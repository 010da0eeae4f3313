"""A sign of life of the run that waits for a script, where the script can see it.

with Lease(work) as lease:          # work/.lease is written every few seconds until the block ends
    …                               # `node.watch_lease(lease.path)` in the script, on whatever machine
"""

from __future__ import annotations

import contextlib
import threading
import uuid
from pathlib import Path

_EVERY = 5.0


class Lease:
    """Renewed by a thread of this process; nobody has to remember it, and it ends with the process however that dies."""

    def __init__(self, work: Path) -> None:
        self.path = work.resolve() / ".lease"
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._renew, name="lease", daemon=True)

    def _renew(self) -> None:
        while True:
            # What cannot be written now (a full or absent disk) is tried again: the script bears with it for minutes.
            with contextlib.suppress(OSError):
                self.path.write_text(uuid.uuid4().hex, encoding="utf-8")
            if self._over.wait(_EVERY):
                return

    def __enter__(self) -> Lease:
        self.path.write_text(uuid.uuid4().hex, encoding="utf-8")
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()
        self.path.unlink(missing_ok=True)
