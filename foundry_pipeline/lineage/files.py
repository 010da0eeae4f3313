"""Writing on a local disk: whole or not at all, and a failed write told as what it is.

write_json(folder / "verdict.json", {"passed": True})
move_folder(finished, place)      # synced, then renamed
"""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from foundry_pipeline import launch
from foundry_pipeline.errors import FoundryError

_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)


def write_json(path: Path, value: Any) -> None:
    """Write JSON whole or not at all; a full or read-only disk is told as such."""
    try:
        launch.write_json(path, value)
    except OSError as error:
        raise disk_error(error, path) from error


def disk_error(error: OSError, path: Path) -> FoundryError:
    """What a failed write is told as: a full disk, a store that may not be written, or something else."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return FoundryError(
            "the disk is full; nothing half-written was kept",
            where=str(path),
            mend="free some space (`foundry doctor` shows what the store holds), then repeat the same command",
        )
    if error.errno in (errno.EROFS, errno.EACCES, errno.EPERM):
        return FoundryError(
            f"the store cannot be written ({error.strerror})",
            where=str(path),
            mend="make the folder writable (or set FOUNDRY_STORE to another one), then run the same command again",
        )
    return FoundryError(f"writing failed: {error}", where=str(path), mend="repeat the same command")


@contextmanager
def writes_told(where: Path) -> Iterator[None]:
    """Whatever a full or read-only disk makes fail within the block is raised as FoundryError, like the store's own."""
    try:
        yield
    except Exception as error:
        # Polars gives the number in its message only, in errors of its own.
        number = getattr(error, "errno", None) or next((n for n in _DISK if f"(os error {n})" in str(error)), None)
        if isinstance(error, FoundryError) or number not in _DISK:
            raise
        place = getattr(error, "filename", None) or where
        raise disk_error(OSError(number, os.strerror(number)), Path(str(place))) from error


def move_folder(source: Path, target: Path) -> None:
    """Sync a folder's files and rename it; copied file by file where the two lie on different file systems."""
    for path in source.rglob("*"):
        if path.is_file():
            with path.open("rb") as handle:
                os.fsync(handle.fileno())
    try:
        source.rename(target)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        for path in sorted(source.rglob("*")):
            place = target / path.relative_to(source)
            if path.is_dir():
                place.mkdir(parents=True, exist_ok=True)
                continue
            place.parent.mkdir(parents=True, exist_ok=True)
            with path.open("rb") as reading, place.open("wb") as writing:
                shutil.copyfileobj(reading, writing)
                writing.flush()
                os.fsync(writing.fileno())
