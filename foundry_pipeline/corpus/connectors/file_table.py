"""A table of facts beside a folder of texts: `documents.csv` or `documents.yaml`.

file,title,date
to-a-friend,To a friend,1788-06-01

to-a-friend: {title: To a friend, date: 1788-06-01}
"""

from __future__ import annotations

import csv
import datetime as dt
import io
from pathlib import Path
from typing import NoReturn

import yaml

from foundry_pipeline.declarations.yaml_file import read_text
from foundry_pipeline.errors import DeclarationError

TABLES = ("documents.csv", "documents.yaml", "documents.yml")
_LARGEST = 16 << 20


def file_table(folder: Path, *, stems: frozenset[str]) -> dict[str, dict[str, str]]:
    """File stem → its facts; {} without a table. A file may be named with its ending.

    Raises DeclarationError for two tables, one that cannot be read, a row without a file or for a file that is not there,
    and a file with two rows.
    """
    present = [folder / name for name in TABLES if (folder / name).is_file()]
    if not present:
        return {}
    path = present[0]
    if len(present) > 1:
        _bad(f"{present[0].name} and {present[1].name} are both there", path, "keep one of them")
    if path.stat().st_size > _LARGEST:
        _bad(f"the table is larger than {_LARGEST:,} bytes", path, "shorten it")
    try:
        text = path.read_bytes().decode("utf-8-sig")
        rows = _csv(text, path) if path.suffix == ".csv" else _yaml(text, path)
    except (OSError, UnicodeDecodeError, csv.Error, yaml.YAMLError, ValueError, RecursionError) as error:
        _bad(f"the table cannot be read ({' '.join(str(error).split())})", path, "correct it, as UTF-8")
    found: dict[str, dict[str, str]] = {}
    for name, facts in rows:
        stem = name if name in stems else str(Path(name).with_suffix("")).replace("/", "_")
        if stem not in stems:
            _bad(
                f"the table names {name!r}, which is not among the texts",
                path,
                "correct the name, or put the text there",
            )
        if stem in found:
            _bad(f"the table has two rows for {stem!r}", path, "keep one of them")
        found[stem] = facts
    return found


def _csv(text: str, path: Path) -> list[tuple[str, dict[str, str]]]:
    reader = csv.DictReader(io.StringIO(text), strict=True)
    if "file" not in (reader.fieldnames or []):
        _bad("the table has no column `file`", path, "name the columns file,title,date")
    rows = []
    for row in reader:
        if None in row or None in row.values():
            _bad(f"line {reader.line_num} has not as many fields as the head", path, "put text with commas in quotes")
        facts = {k: v.strip() for k, v in row.items() if k != "file" and v.strip()}
        if not row["file"].strip():
            _bad(f"line {reader.line_num} names no file", path, "fill the column `file`")
        rows.append((row["file"].strip(), facts))
    return rows


def _yaml(text: str, path: Path) -> list[tuple[str, dict[str, str]]]:
    loaded = read_text(text)
    if not isinstance(loaded, dict) or not all(isinstance(v, dict) for v in loaded.values()):
        _bad("the table is no mapping of files to facts", path, "write `<file>: {title: …, date: …}`")
    return [(str(name), {str(k): _plain(v, path) for k, v in facts.items()}) for name, facts in loaded.items()]


def _plain(value: object, path: Path) -> str:
    if not isinstance(value, str | int | float | dt.date):
        _bad("a fact in the table is a list or a mapping", path, "write `<file>: {title: …, date: …}`")
    return value.isoformat()[:10] if isinstance(value, dt.date) else str(value)


def _bad(what: str, path: Path, mend: str) -> NoReturn:
    raise DeclarationError(what, where=str(path), mend=mend)
