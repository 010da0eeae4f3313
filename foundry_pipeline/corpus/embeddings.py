"""Sentence embeddings that are kept: a text is embedded once, however many evaluations read it.

    vectors = KeptVectors(store / "vectors.db", threads=1)
    vectors.embed(["The Union, Sir, …", …])        # (n, 384), float32; only what is new goes through the encoder

A vector depends on its text, the encoder's package, torch and the number of threads alone, which is what it is kept
under. What is damaged in the file is computed anew, so the file may be deleted at any time.
"""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Iterator, Sequence
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from foundry_pipeline.corpus.minilm import DIMENSIONS, ENCODER_PACKAGE, ENCODER_VERSION, load_encoder
from foundry_pipeline.lineage.sqlite_file import SqliteFile, transaction

if TYPE_CHECKING:
    from numpy.typing import NDArray

_AT_ONCE = 500  # keys in one question, rows in one transaction: a kill loses at most so many vectors
_SUM = 8  # bytes of the check sum behind each vector


class KeptVectors:
    """The bundled encoder with a memory in `path`, which processes may share. The encoder is loaded when it is needed.

    Raises FoundryError where the file cannot be used, or the encoder's package is missing.
    """

    def __init__(self, path: Path, *, threads: int) -> None:
        self._threads = threads
        self._made_by = f"{ENCODER_PACKAGE} {ENCODER_VERSION}, torch {metadata.version('torch')}, {threads} threads\0"
        self._file = SqliteFile(
            path,
            what="file of kept embeddings",
            version=1,
            lay_out=_lay_out,
            lost=f"rm '{path}'   # embeddings are made anew",
        )

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Unit vectors, shape (n, 384), float32, equal to the encoder's own."""
        keys = {
            text: hashlib.sha256((self._made_by + text).encode("utf-8", "surrogatepass")).digest() for text in texts
        }
        with self._file.connection() as connection:
            known = dict(_read(connection, list(keys.values())))
        new = [text for text, key in keys.items() if key not in known]
        for at in range(0, len(new), _AT_ONCE):
            part = new[at : at + _AT_ONCE]
            made = load_encoder(self._threads).embed(part)
            rows = [(keys[text], _sealed(vector.tobytes())) for text, vector in zip(part, made, strict=True)]
            with self._file.connection() as connection, transaction(connection):
                connection.executemany("INSERT OR REPLACE INTO vectors VALUES (?, ?)", rows)
            known |= {keys[text]: vector for text, vector in zip(part, made, strict=True)}
        out = np.empty((len(texts), DIMENSIONS), dtype=np.float32)
        for row, text in enumerate(texts):
            out[row] = known[keys[text]]
        return out


def _lay_out(connection: sqlite3.Connection) -> None:
    connection.execute("CREATE TABLE vectors (key BLOB PRIMARY KEY, vector BLOB) WITHOUT ROWID")


def _read(connection: sqlite3.Connection, keys: Sequence[bytes]) -> Iterator[tuple[bytes, NDArray[np.float32]]]:
    """What the file holds of these keys, whole."""
    for at in range(0, len(keys), _AT_ONCE):
        part = keys[at : at + _AT_ONCE]
        marks = ",".join("?" * len(part))
        for key, blob in connection.execute(f"SELECT key, vector FROM vectors WHERE key IN ({marks})", part):
            body = blob[:-_SUM]
            if len(body) == 4 * DIMENSIONS and _sealed(body) == blob:
                yield key, np.frombuffer(body, dtype=np.float32)


def _sealed(body: bytes) -> bytes:
    return body + hashlib.sha256(body).digest()[:_SUM]
