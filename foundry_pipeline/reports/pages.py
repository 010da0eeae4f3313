"""Pages that are whole: a reader sees the old one or the new one."""

from __future__ import annotations

import os
import uuid
from contextlib import suppress
from pathlib import Path

from foundry_pipeline.errors import FoundryError


def write_page(path: Path, page: str, *, again: str) -> Path:
    """Put a page in place and return where it is. Raises FoundryError, naming the command to repeat, where it cannot."""
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("w", encoding="utf-8") as handle:
            handle.write(page)
            handle.flush()
            os.fsync(handle.fileno())
        temporary.replace(path)
    except OSError as error:
        with suppress(OSError):  # there may be no folder that it could lie in
            temporary.unlink()
        raise FoundryError(
            f"the page cannot be written ({error.strerror})",
            where=str(path),
            mend=f"free some space or make the folder writable, then: {again}",
        ) from error
    return path
