"""The code behind an asset: the function that builds it and the modules that its version covers, as pages to read.

built_by(stage)         → Function(module='foundry_pipeline.chain.data_stages', name='build_sources', line=55, source=…)
modules_of(stage)       → ('foundry_pipeline.corpus.cleaning', …)
code_page(module)       → 'code/foundry_pipeline.corpus.cleaning.html'
"""

from __future__ import annotations

import inspect
import re
import textwrap
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from foundry_pipeline.chain.stage import Stage
from foundry_pipeline.errors import FoundryError

_DOCSTRING = re.compile(r'(?:\s*#[^\n]*\n)*\s*[rR]?"""(.*?)"""', re.DOTALL)


@dataclass(frozen=True)
class Function:
    """A function and where it stands; `line` counts from 1."""

    module: str
    name: str
    line: int
    source: str


def built_by(stage: Stage) -> Function:
    """The function that builds a stage, without what is bound to its arguments."""
    build = stage.build.func if isinstance(stage.build, partial) else stage.build
    return _function(build)


@cache
def _function(build: Callable[..., Any]) -> Function:
    lines, line = inspect.getsourcelines(build)
    return Function(build.__module__, build.__qualname__, line, textwrap.dedent("".join(lines)))


def modules_of(stage: Stage) -> tuple[str, ...]:
    """The modules whose code the stage's version covers, sorted."""
    return tuple(sorted(set(stage.code)))


def code_page(module: str) -> str:
    """Path of a module's page below the site."""
    return f"code/{module}.html"


@cache
def module_source(module: str) -> str:
    """A module's text. Raises FoundryError where there is none to read (compiled, or not installed)."""
    spec = find_spec(module)
    if spec is None or spec.origin is None or not spec.origin.endswith(".py"):
        raise FoundryError(f"the module {module} has no source to show", mend="make setup")
    return Path(spec.origin).read_text(encoding="utf-8")


def module_summary(module: str) -> str:
    """The first paragraph of a module's docstring in one line; empty where it has none."""
    # Not by `ast`, which takes half a second for a hundred modules of which only the first lines are wanted.
    found = _DOCSTRING.match(module_source(module))
    return " ".join(found[1].split("\n\n")[0].split()) if found else ""
