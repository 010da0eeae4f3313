"""A dataset on disk and its name: the hash of its canonical rows.

    <folder>/pairs.parquet    columns PAIRS, in the order of the recipe
    <folder>/dataset.json     {"dataset_hash", "rows"}

The hash covers every column of every row, sorted by pair_id, as canonical JSON; it depends neither on the order of
the rows nor on how Parquet encodes them. Whoever trains on a dataset sorts it first: the order is no content.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import orjson
import polars as pl

from foundry_pipeline.errors import DamagedArtifact
from foundry_pipeline.lineage.store import write_json
from foundry_pipeline.pairs.candidates import PAIRS

PAIRS_FILE, FACTS_FILE = "pairs.parquet", "dataset.json"


def dataset_hash(frame: pl.DataFrame) -> str:
    """SHA-256 (hex) of a dataset's content; columns beside PAIRS do not count. Raises ValueError for a NaN score."""
    frame = frame.select(pl.col(c).cast(t) for c, t in PAIRS.items())
    for column in frame.select(pl.selectors.float()):
        if not column.drop_nulls().is_finite().all():  # JSON has no such number, and orjson would write null
            raise ValueError(f"a {column.name} is no finite number")
    sha = hashlib.sha256(orjson.dumps(list(PAIRS)))
    # Equal ids are ordered by the rest of their rows, so that a defective dataset has one hash too.
    for _, line in sorted((str(row[0]), orjson.dumps(row)) for row in frame.iter_rows()):
        sha.update(b"\n" + line)
    return sha.hexdigest()


def write_dataset(frame: pl.DataFrame, folder: Path) -> str:
    """Write a dataset into `folder` (made if need be) and return its hash."""
    folder.mkdir(parents=True, exist_ok=True)
    frame = frame.select(pl.col(c).cast(t) for c, t in PAIRS.items())
    content = dataset_hash(frame)
    frame.write_parquet(folder / PAIRS_FILE, compression="zstd", statistics=False)
    write_json(folder / FACTS_FILE, {"dataset_hash": content, "rows": frame.height})
    return content


def read_dataset(folder: Path, *, name: str = "") -> pl.DataFrame:
    """The rows of a dataset, after comparing them with the hash they were written under.

    Raises DamagedArtifact, naming the file and the mend, when a file is missing, unreadable or changed. `name` is the
    dataset's name for that message.
    """
    facts = _facts(folder, name)
    path = folder / PAIRS_FILE
    try:
        frame = pl.read_parquet(path)
        found = dataset_hash(frame)
    except (OSError, pl.exceptions.PolarsError, ValueError) as error:
        raise _damaged(f"cannot be read ({str(error).splitlines()[0]})", path, name) from error
    if found != facts["dataset_hash"]:
        raise _damaged(f"holds other rows than it was written with ({found[:12]}, not its own hash)", path, name)
    return frame


def _facts(folder: Path, name: str) -> dict[str, Any]:
    path = folder / FACTS_FILE
    try:
        facts: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        facts["dataset_hash"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise _damaged(f"cannot be read ({error})", path, name) from error
    return facts


def _damaged(what: str, path: Path, name: str) -> DamagedArtifact:
    label = f"dataset {name}" if name else "the dataset"
    mend = f"foundry repair {name}" if name else "foundry repair  # with the dataset's name"
    return DamagedArtifact(f"{label}: {path.name} {what}", where=str(path), mend=mend)
