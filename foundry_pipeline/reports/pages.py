"""What the project's own pages have in common: how a template becomes a page, and how a page comes to lie where it is read."""

from __future__ import annotations

import os
import uuid
from collections.abc import Mapping
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from foundry_pipeline.errors import FoundryError

if TYPE_CHECKING:
    from jinja2 import Environment


def render_page(template: str, filters: Mapping[str, Any], values: Mapping[str, Any]) -> str:
    """A page of a template in this folder. Every value is escaped; a name that is not given is an error."""
    return _environment(tuple(filters.items())).get_template(template).render(values)


@lru_cache(maxsize=8)
def _environment(filters: tuple[tuple[str, Any], ...]) -> Environment:
    """One for each set of filters: templates are compiled once a process, which takes longer than to render them."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= dict(filters)
    return environment


def write_page(path: Path, page: str, *, what: str, again: str) -> Path:
    """Put a page in place whole (a reader sees the old one or the new one) and return where it is.

    Raises FoundryError, naming the command to repeat, where it cannot.
    """
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
            f"{what} cannot be written ({error.strerror})",
            where=str(path),
            mend=f"free some space or make the folder writable, then: {again}",
        ) from error
    return path
