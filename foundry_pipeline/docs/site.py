"""The documentation site: `index.html`, `manifest.json`, `catalog.json` and a page for each module of code.

    write_site(folder, site_pages(root, manifest, catalog, data))   → folder/index.html

One page holds everything and loads nothing: its own script draws the lineage and searches, and the policy in its head
lets no other script run and no request leave. It is opened from disk, from a web server, or as an attachment.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from foundry_pipeline.docs.code import code_page, module_source
from foundry_pipeline.docs.descriptions import FOLDER
from foundry_pipeline.docs.values import visible
from foundry_pipeline.errors import FoundryError
from foundry_pipeline.reports.pages import write_page

SCRIPTS = ("layout.js", "search.js", "dom.js", "lineage.js", "asset.js", "site.js")
INDEX, MANIFEST, CATALOG = "index.html", "manifest.json", "catalog.json"


def site_pages(
    root: Path, manifest: Mapping[str, Any], catalog: Mapping[str, Any], data: Mapping[str, Any]
) -> dict[str, str]:
    """Path below the site → text. Pure but for the template, so that equal state gives equal bytes."""
    template = root / FOLDER / "site"
    script = "\n".join(["(() => {", '"use strict";', *(_read(template / name) for name in SCRIPTS), "})();"])
    style = _read(template / "site.css")
    environment = _environment(template)
    pages = {
        INDEX: environment.get_template("index.html.jinja").render(
            profile=manifest["profile"],
            style=style,
            script=script,
            script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
            data=embedded(data),
        ),
        MANIFEST: _json(manifest),
        CATALOG: _json(catalog),
    }
    code = environment.get_template("code.html.jinja")
    for module, summary in manifest["modules"].items():
        lines = visible(module_source(module)).split("\n")
        pages[code_page(module)] = code.render(module=module, summary=visible(summary), lines=lines, style=style)
    return pages


def embedded(value: Any) -> str:
    """JSON that may stand inside a <script> element: nothing in it can end that element."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return _encodable(text).replace("<", "\\u003c")


def _json(document: Mapping[str, Any]) -> str:
    """A document with a line for each entry of its parts: quick to write, and a difference of two names what differs."""
    parts = []
    for name, value in document.items():
        if isinstance(value, Mapping) and value:
            entries = ",\n  ".join(f"{_compact(k)}: {_compact(v)}" for k, v in value.items())
            parts.append(f"{_compact(name)}: {{\n  {entries}\n }}")
        else:
            parts.append(f"{_compact(name)}: {_compact(value)}")
    return _encodable("{\n " + ",\n ".join(parts) + "\n}\n")


def _compact(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False)


def _encodable(text: str) -> str:
    """JSON whose lone surrogates, which have no bytes, are written as escapes: the same to every reader of it."""
    return text.encode("utf-8", "backslashreplace").decode()


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise FoundryError(
            f"a part of the site's template cannot be read ({error.strerror})",
            where=str(path),
            mend="put the file back from the project's repository",
        ) from error


def _environment(folder: Path) -> Any:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    _read(folder / "index.html.jinja")
    _read(folder / "code.html.jinja")
    return Environment(
        loader=FileSystemLoader(folder),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def write_site(folder: Path, pages: Mapping[str, str], *, again: str = "foundry docs") -> Path:
    """Write the pages, drop pages of code that are no longer among them, and return the path of index.html.

    Each file is put in place whole. Raises FoundryError where the folder holds other things, or cannot be written.
    """
    if folder.exists() and not _ours(folder):
        raise FoundryError(
            "that folder holds other things than a documentation site",
            where=str(folder),
            mend="name a new or an empty folder: foundry docs --to DIR",
        )
    # Last, so that a site that could not be written whole is not taken for one.
    for path in sorted(pages, key=lambda p: (p == INDEX, p)):
        write_page(folder / path, pages[path], what="the documentation site", again=again)
    for old in sorted((folder / "code").glob("*.html")):
        if old.relative_to(folder).as_posix() not in pages:
            old.unlink()
    return folder / INDEX


def _ours(folder: Path) -> bool:
    """Whether a folder is empty or holds a site that was written here before."""
    if not folder.is_dir():
        return False
    names = {p.name for p in folder.iterdir() if not p.name.startswith(".")}
    return names <= {INDEX, MANIFEST, CATALOG, "code"}
