"""A folder for the world outside, written whole or not at all.

    write_export(Path("madison_r2"), marker="provenance.json", fill=lambda folder: …)   # fill writes into a fresh folder

An export lies where its user wants it, so nothing there is touched unless an earlier export wrote it, which is known by
its `marker`. Two processes may write the same export at once, and both be right.
"""

from __future__ import annotations

import errno
import shutil
import uuid
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from foundry_pipeline.errors import FoundryError
from foundry_pipeline.launch import cannot_write, sync_tree
from foundry_pipeline.lineage.hashing import folder_files

LARGE = 1_000_000_000  # bytes from which comparing two folders takes longer than it is worth


def write_export(target: Path, *, marker: str, fill: Callable[[Path], None], what: str) -> Path:
    """Write the folder that `fill` fills, or nothing; an earlier export at `target` is replaced. Returns `target`.

    `what` names the kind of export in an error. Raises FoundryError when `target` holds something that no export wrote,
    or when the disk takes no more.
    """
    if target.exists() and not (target.is_dir() and (not any(target.iterdir()) or (target / marker).is_file())):
        raise FoundryError(
            f"this holds something that is not an export of {what}; it is left as it is",
            where=str(target),
            mend="name an empty folder, or one that does not exist",
        )
    target = target.resolve()
    # Names of their own: two processes may write one export at the same time, and both be right.
    fresh, aside = (target.with_name(f".{target.name}.{uuid.uuid4().hex}") for _ in range(2))
    try:
        fresh.mkdir(parents=True)
        fill(fresh)
        if target.is_dir() and _size(fresh) < LARGE and folder_files(fresh) == folder_files(target):
            return target
        sync_tree(fresh)
        with suppress(FileNotFoundError):
            target.rename(aside)
        fresh.rename(target)
    except OSError as error:
        if error.errno in (errno.ENOTEMPTY, errno.EEXIST) and (target / marker).is_file():
            return target  # another process has just put it there
        if aside.is_dir() and not target.exists():
            aside.rename(target)
        raise cannot_write(error, target) from error
    finally:
        for left in (fresh, aside):
            shutil.rmtree(left, ignore_errors=True)
    return target


def _size(folder: Path) -> int:
    return sum(p.stat().st_size for p in folder.rglob("*") if p.is_file())
