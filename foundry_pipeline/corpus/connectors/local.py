"""Files the user has: declared one by one in the manifest, or a folder taken whole.

>>> [item.stem for item in items(Place(manifest, base))]           # documents: {letter: {title: …, date: …}}
['letter']

What is said of a file comes from `documents` in the manifest, a table beside the texts, the file's front matter or its
name, in this order. A file without a date is an error that names it; so are a link out of the folder, two files that
would be one document, and a file that nobody declared.
"""

from __future__ import annotations

import re
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from foundry_pipeline.corpus.connectors.base import Item, Place
from foundry_pipeline.corpus.connectors.file_table import TABLES, file_table
from foundry_pipeline.corpus.connectors.works import works_of
from foundry_pipeline.corpus.formats import FormatDocument, read_format
from foundry_pipeline.corpus.formats.reading import TEXT_SUFFIXES
from foundry_pipeline.corpus.gutenberg import looks_like_gutenberg, read_gutenberg, strip_gutenberg
from foundry_pipeline.declarations.local import LocalText
from foundry_pipeline.declarations.sources import SourceManifest
from foundry_pipeline.errors import DeclarationError, FoundryError
from foundry_pipeline.lineage.hashing import file_hash

FIELDS = ("title", "date", "url", "author", "role", "encoding")
_READABLE = (*TEXT_SUFFIXES, ".zip")


@dataclass(frozen=True)
class _File:
    """A file to be read and what manifest and table say of it."""

    stem: str
    path: Path
    told: Mapping[str, str]


def items(place: Place) -> Iterator[Item]:
    """The texts, read in the format that each file is in."""
    connector, manifest = _connector(place), place.manifest
    undated: list[str] = []
    for file in _files(place):
        where = str(file.path)
        encoding = file.told.get("encoding", "") or connector.encoding
        documents = _documents(_bytes(file.path), connector, where, encoding)
        for document in documents:
            inner = Path(document.name).stem if len(documents) > 1 else ""
            stem = f"{file.stem}_{inner}" if inner else file.stem
            facts = _facts(file, document, inner or file.path.stem, connector, manifest)
            date = facts["date"] or connector.date
            url = facts["url"] or manifest.url
            if connector.collection is not None:
                yield from works_of(document.text, connector.collection, place=place, where=where, url=url, date=date)
            elif not date:
                undated.append(f"{where}, {document.name}" if inner else where)
            else:
                yield Item(
                    stem,
                    where,
                    document.text,
                    title=facts["title"] or manifest.title,
                    date=date,
                    url=url,
                    author=facts["author"],
                    role=facts["role"],
                    remarks=_remarks(document, facts["author"] or manifest.author),
                )
    if undated:
        _undeclared(
            f"{len(undated)} texts have no date: {', '.join(undated[:10])}",
            place,
            "put the date at the head of the name (`1788-06-01_to-a-friend.txt`), in the front matter, in `documents.csv` "
            "(columns file,title,date) beside the texts, or under `documents` in the manifest",
        )


def facts(place: Place) -> dict[str, Any]:
    """Of every file its name, hash and declared facts."""
    # By name, not by place: a project that was moved or cloned holds the same texts.
    files = sorted((f.stem, f.path.suffix, _hash(f.path), sorted(f.told.items())) for f in _files(place))
    return {"version": "", "files": files}


def _connector(place: Place) -> LocalText:
    connector = place.manifest.connector
    assert isinstance(connector, LocalText)
    return connector


# ---- which files ----


def _files(place: Place) -> list[_File]:
    connector = _connector(place)
    root = place.base / connector.path
    if not connector.documents and not connector.include and not root.is_file():
        _undeclared("no document is declared", place, "add `<file stem>: {title: …, date: …}`, or `include: ['*.txt']`")
    if root.is_file():
        folder, paths = root.parent, {root.stem: root}
    elif root.is_dir():
        folder = root
        paths = _taken(root, place) if connector.include else _declared(root, place)
    else:
        what = "the folder of texts is missing"
        raise FoundryError(what, where=str(root), mend=f"mkdir -p '{root}' and put the texts there")
    table = file_table(folder, stems=frozenset(paths)) if connector.include else {}
    unknown = sorted(set(connector.documents) - set(paths))
    if unknown:
        raise FoundryError(
            f"a declared text cannot be read (no file `{unknown[0]}` with an ending such as .txt, .md or .pdf)",
            where=str(folder / f"{unknown[0]}.txt"),
            mend=f"put the text there, or take `{unknown[0]}` out of the manifest",
        )
    found = []
    for stem, path in sorted(paths.items()):
        told = {**table.get(stem, {}), **connector.documents.get(stem, {})}
        strange = sorted(set(told) - set(FIELDS))
        if strange:
            _undeclared(f"`{stem}` has the unknown field `{strange[0]}`", place, f"use {', '.join(FIELDS)}")
        if told.get("role", "") not in ("", "primary", "control", "joint"):
            _undeclared(f"`{stem}` has the unknown role {told['role']!r}", place, "use primary, control or joint")
        _within(path, folder, connector)
        found.append(_File(stem, path, told))
    return found


def _declared(folder: Path, place: Place) -> dict[str, Path]:
    """The files of the declared stems; raises DeclarationError for a text beside them that nobody declared."""
    connector = _connector(place)
    present = [p for p in sorted(folder.iterdir()) if p.suffix.lower() in _READABLE and not p.name.startswith(".")]
    left = [p.name for p in present if p.stem not in connector.documents and p.stem.lower() != "readme"]
    if left:
        _undeclared(
            f"{', '.join(left[:10])} in {folder} would be passed over in silence",
            place,
            "declare each with its title and date, or move it elsewhere",
        )
    found: dict[str, Path] = {}
    for path in present:
        if path.stem in connector.documents:
            _single(found, path.stem, path)
    for stem, told in connector.documents.items():
        lacking = [field for field in ("title", "date") if not told.get(field) and connector.collection is None]
        # Front matter may give what the manifest does not; plain text has none.
        if lacking and not (
            stem in found and found[stem].suffix.lower() in (".md", ".markdown", ".html", ".htm", ".xhtml")
        ):
            _undeclared(f"`{stem}` has no {' and no '.join(lacking)}", place, "add what is lacking")
    return found


def _taken(folder: Path, place: Place) -> dict[str, Path]:
    """Every file that a pattern of `include` names, by its path below the folder without the ending."""
    found: dict[str, Path] = {}
    for pattern in _connector(place).include:
        matched = [p for p in sorted(folder.glob(pattern)) if not p.is_dir()]
        if not matched:
            _undeclared(f"no file in {folder} matches {pattern!r}", place, "correct `include`, or put the texts there")
        for path in matched:
            relative = path.relative_to(folder)
            if relative.name.lower() in TABLES or any(part.startswith(".") for part in relative.parts):
                continue
            _single(found, "_".join(relative.with_suffix("").parts), path)
    return found


def _single(found: dict[str, Path], stem: str, path: Path) -> None:
    if found.setdefault(stem, path) != path:
        raise DeclarationError(
            f"{found[stem].name} and {path.name} would both be the document `{stem}`",
            where=str(path.parent),
            mend="keep one of them, or rename one",
        )


def _within(path: Path, folder: Path, connector: LocalText) -> None:
    try:
        target = path.resolve(strict=True)
        facts = target.stat()
    except (OSError, RuntimeError) as error:
        _unreadable(path, error)
    if not target.is_relative_to(folder.resolve()):
        raise FoundryError(
            "the file is a link that leads out of its folder", where=str(path), mend="put a copy of the text there"
        )
    if not stat.S_ISREG(facts.st_mode):
        raise FoundryError("this is no file (a pipe, a device or a socket)", where=str(path), mend="put a text there")
    if facts.st_size > connector.largest:
        raise FoundryError(
            f"the file has {facts.st_size:,} bytes, more than {connector.largest:,}",
            where=str(path),
            mend="divide it, or raise `largest` in the manifest",
        )


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        _unreadable(path, error)


def _hash(path: Path) -> str:
    try:
        return file_hash(path)
    except OSError as error:
        _unreadable(path, error)


def _unreadable(path: Path, error: Exception) -> NoReturn:
    reason = error.strerror if isinstance(error, OSError) else str(error)
    raise FoundryError(
        f"a declared text cannot be read ({reason})",
        where=str(path),
        mend=f"put the text at {path} and make it readable, or take it out of the manifest",
    ) from error


# ---- what they say ----


def _documents(data: bytes, connector: LocalText, where: str, encoding: str) -> list[FormatDocument]:
    if connector.format == "gutenberg":
        return [_stripped(read_gutenberg(data, where=where, encoding=encoding))]
    mend = f"declare `encoding: windows-1252`, or: iconv -f WINDOWS-1252 -t UTF-8 '{where}' > fixed.txt && mv fixed.txt '{where}'"
    documents = read_format(data, name=where, encoding=encoding, mend=mend)
    if connector.format == "text":
        return documents
    return [
        _stripped(strip_gutenberg(d.text, where=where, encoding=d.encoding)) if looks_like_gutenberg(d.text) else d
        for d in documents
    ]


def _stripped(found: Any) -> FormatDocument:
    return FormatDocument(
        text=found.text,
        kind="gutenberg",
        title=found.title,
        author=found.author,
        encoding=found.encoding,
        counts=found.counts,
    )


def _facts(
    file: _File, document: FormatDocument, name: str, connector: LocalText, manifest: SourceManifest
) -> dict[str, str]:
    """Title, date, url, author and role of a document, each from the first place that says it."""
    named = re.fullmatch(connector.name_pattern, name)
    groups = named.groupdict() if named else {}
    title = re.sub(r"[_-]+", " ", groups.get("title") or "").strip()
    # Front matter is written by whoever keeps the file; the metadata of a PDF or EPUB by whatever program made it.
    author = file.told.get("author") or (document.author if document.kind == "markdown" else "")
    own = not author or author.casefold().split() == manifest.author.casefold().split()
    return {
        "title": file.told.get("title") or document.title or title[:1].upper() + title[1:],
        "date": file.told.get("date") or document.date or groups.get("date") or "",
        "url": file.told.get("url", ""),
        "author": "" if own else author,
        "role": file.told.get("role", "") or ("" if own else "control"),
    }


def _remarks(document: FormatDocument, author: str) -> str:
    """What the reader of a text should know, in words."""
    said = [f"{count} {name}" for name, count in document.counts.items()]
    if document.encoding not in ("", "utf-8"):
        said.insert(0, f"read as {document.encoding}")
    if document.author and document.author.casefold() != author.casefold():
        said.append(f"the file names {document.author!r} as author")
    return "; ".join(said)


def _undeclared(what: str, place: Place, mend: str) -> NoReturn:
    raise DeclarationError(what, where=f"manifest `{place.manifest.source}`, field `connector.documents`", mend=mend)
