"""Pairs from a file that anyone may have written: Parquet or JSON lines, as plain texts or as conversations.

    {"prompt": "What is a faction?", "chosen": "By a faction I understand …", "rejected": "A faction is a group."}
    {"prompt": [{"role": "user", "content": "What is a faction?"}], "chosen": [{"role": "assistant", "content": …}], …}
    {"chosen": [{"role": "user", …}, {"role": "assistant", …}], "rejected": [{"role": "user", …}, {"role": "assistant", …}]}

The second and third are TRL's conversational format with explicit and implicit prompt (`conversations.py`).

Nothing of the file is obeyed, and nothing of it is changed: texts are read in one normal form (`normal_form`), and what
is kept is written as it stood.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import polars as pl

from foundry_pipeline.errors import FoundryError
from foundry_pipeline.pairs.conversations import SIDES, kind_of, row_texts, sound

KNOWN = {"finish_reason": pl.String, "prompt_id": pl.String}
_BATCH = 16_384  # lines or rows read at once
_SHOWN = 5  # faults named before the rest is only counted
_PARQUET = b"PAR1"
_WANTED = "give every row `prompt`, `chosen` and `rejected`, each a text or a list of {role, content} messages"


@dataclass(frozen=True)
class PairFile:
    """A file's pairs: columns prompt, chosen, rejected (String, null where missing), and finish_reason, prompt_id where
    the file has them as texts; `places` says where each row stands, by line for JSON lines, by row for Parquet."""

    path: Path
    kind: str
    pairs: pl.DataFrame
    places: pl.Series
    changed: dict[str, int] = field(default_factory=dict)
    """What the normal form changed: kind of change → texts."""

    def place(self, row: int) -> str:
        return f"{'line' if self.kind == 'jsonl' else 'row'} {self.places[row]}"


def normal_form(texts: pl.Series) -> pl.Series:
    """One form of line ends, no outer white space, composed accents (NFC): what is no fault of a pair."""
    stripped = texts.str.replace_all("\r\n?", "\n").str.strip_chars()
    composed = stripped.str.contains("[^\\x00-\\x7f]").fill_null(value=False).arg_true()  # ASCII is composed
    return stripped.scatter(composed, stripped.gather(composed).str.normalize("NFC")) if len(composed) else stripped


def read_pair_file(path: Path) -> PairFile:
    """Read a Parquet or JSON-lines file, which of the two by its first bytes.

    Raises FoundryError naming the line or column when the file is missing, empty, damaged, or of another shape.
    """
    try:
        with path.open("rb") as handle:
            start = handle.read(4)
    except OSError as error:
        raise FoundryError(
            f"cannot be read: {error.strerror or error}", where=str(path), mend="name a Parquet or JSON-lines file"
        ) from error
    if not start.strip():
        raise FoundryError("the file holds no pair", where=str(path), mend=_WANTED)
    kind = "parquet" if start == _PARQUET else "jsonl"
    frame, places = _read_parquet(path) if kind == "parquet" else _read_lines(path)
    if frame.is_empty():
        raise FoundryError("the file holds no pair", where=str(path), mend=_WANTED)
    cleaned = frame.with_columns(normal_form(frame[side]) for side in SIDES)
    return PairFile(path, kind, cleaned, places, _changes(frame, cleaned))


def _changes(before: pl.DataFrame, after: pl.DataFrame) -> dict[str, int]:
    counts = dict.fromkeys(("line ends", "outer white space", "accents composed"), 0)
    for side in SIDES:
        old = before[side]
        ends = old.str.replace_all("\r\n?", "\n")
        bare = ends.str.strip_chars()
        steps = ((old, ends), (ends, bare), (bare, after[side]))
        for name, (first, second) in zip(counts, steps, strict=True):
            counts[name] += int((first != second).sum())
    return {name: count for name, count in counts.items() if count}


class _Faults:
    """What is wrong with a file, place by place; raised in one go."""

    def __init__(self, path: Path, unit: str) -> None:
        self.path, self.unit = path, unit
        self.first: list[str] = []
        self.count = 0

    def add(self, place: int, what: str) -> None:
        self.count += 1
        if self.count <= _SHOWN:
            self.first.append(f"{self.unit} {place}: {what}")

    def stop(self) -> None:
        if self.count:
            more = [f"… and {self.count - _SHOWN} more"] if self.count > _SHOWN else []
            raise FoundryError("\n".join([*self.first, *more]), where=str(self.path), mend=_WANTED)


# -- JSON lines --------------------------------------------------------------------------------------------------------


def _read_lines(path: Path) -> tuple[pl.DataFrame, pl.Series]:
    faults = _Faults(path, "line")
    frames: list[pl.DataFrame] = []
    places: list[int] = []
    columns: dict[str, list[str | None]] = {c: [] for c in (*SIDES, *KNOWN)}
    for number, raw in _lines(path):
        row = _parsed(raw, number, faults)
        if row is None:
            continue
        texts = row_texts(row, partial(faults.add, number))
        places.append(number)
        for side in SIDES:
            columns[side].append(texts[side])
        for name in KNOWN:
            value = row.get(name)
            columns[name].append(sound(value) if isinstance(value, str) else None)
        if len(columns["prompt"]) == _BATCH:
            frames.append(pl.DataFrame(columns, schema=dict.fromkeys(columns, pl.String)))
            columns = {c: [] for c in columns}
    faults.stop()
    frames.append(pl.DataFrame(columns, schema=dict.fromkeys(columns, pl.String)))
    return pl.concat(frames), pl.Series(places, dtype=pl.Int64)


def _lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """(line number, bytes) of every line that is not blank."""
    with path.open("rb") as handle:
        for number, raw in enumerate(handle, 1):
            line = raw.removeprefix(b"\xef\xbb\xbf") if number == 1 else raw
            if line.strip():
                yield number, line.rstrip(b"\r\n")


def _parsed(raw: bytes, number: int, faults: _Faults) -> dict[str, Any] | None:
    try:
        row = json.loads(raw.decode("utf-8"))
    except UnicodeDecodeError as error:
        faults.add(number, f"not UTF-8 at byte {error.start + 1}")
        return None
    except (ValueError, RecursionError) as error:
        what = error.msg if isinstance(error, json.JSONDecodeError) else "nested too deep or a number too long"
        at = f", column {error.colno}" if isinstance(error, json.JSONDecodeError) else ""
        faults.add(number, f"not JSON: {what}{at}")
        return None
    if not isinstance(row, dict):
        faults.add(number, f"{kind_of(row)}, not an object with prompt, chosen and rejected")
        return None
    return row


# -- Parquet -----------------------------------------------------------------------------------------------------------


def _read_parquet(path: Path) -> tuple[pl.DataFrame, pl.Series]:
    try:
        scan = pl.scan_parquet(path, glob=False)
        schema = dict(scan.collect_schema())
        wanted = [c for c in (*SIDES, *KNOWN) if c in schema]
        _check_columns(path, schema)
        frame = scan.select(wanted).collect()
    except (OSError, pl.exceptions.PolarsError) as error:
        first = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise FoundryError(
            f"not a whole Parquet file: {first}", where=str(path), mend="write the file again"
        ) from error
    places = pl.int_range(1, frame.height + 1, eager=True)
    texts = frame.with_columns(
        *(_as_text(frame, c) for c in wanted if not isinstance(schema[c], pl.List)),
        *(pl.lit(None, pl.String).alias(c) for c in KNOWN if c not in wanted or isinstance(schema[c], pl.List)),
    )
    nested = [c for c in SIDES if isinstance(schema.get(c), pl.List)]
    if nested:
        texts = texts.with_columns(_conversations(path, frame.select(c for c in SIDES if c in frame.columns)))
    return texts.select(*SIDES, *KNOWN), places


def _as_text(frame: pl.DataFrame, column: str) -> pl.Expr:
    kind = frame.schema[column]
    textual = kind == pl.String or isinstance(kind, pl.Categorical | pl.Enum)
    return (pl.col(column).cast(pl.String) if textual else pl.lit(None, pl.String)).alias(column)


def _check_columns(path: Path, schema: dict[str, Any]) -> None:
    missing = [c for c in ("chosen", "rejected") if c not in schema]
    if not missing and "prompt" not in schema and not isinstance(schema["chosen"], pl.List):
        missing = ["prompt"]
    if missing:
        raise FoundryError(
            f"no column {' and no column '.join(missing)}; there are: {', '.join(map(str, list(schema)[:20]))}",
            where=str(path),
            mend=_WANTED,
        )
    for side in SIDES:
        kind = schema.get(side, pl.String())
        if not (kind in (pl.String, pl.Null) or isinstance(kind, pl.Categorical | pl.Enum | pl.List)):
            raise FoundryError(f"column {side} is of type {kind}, not text", where=str(path), mend=_WANTED)


def _conversations(path: Path, frame: pl.DataFrame) -> list[pl.Series]:
    faults = _Faults(path, "row")
    columns: dict[str, list[str | None]] = {side: [] for side in SIDES}
    for number, row in enumerate(frame.iter_rows(named=True), 1):
        for side, text in row_texts(row, partial(faults.add, number)).items():
            columns[side].append(text)
    faults.stop()
    return [pl.Series(side, values, dtype=pl.String) for side, values in columns.items()]


# -- writing -----------------------------------------------------------------------------------------------------------


def write_kept(file: PairFile, kept: pl.Series, out: Path) -> None:
    """Write the kept rows, each as it stood in the file, as Parquet or JSON lines by the ending of `out`.

    Written beside and renamed, so that `out` is whole or not there. Raises FoundryError for another ending, for the file
    itself as its own target, or when `out` cannot be written.
    """
    ending = out.suffix.lower()
    if ending not in (".parquet", ".jsonl"):
        raise FoundryError(f"cannot write `{out.name}`", where="--out", mend="end its name in .parquet or .jsonl")
    if out.exists() and out.samefile(file.path):
        raise FoundryError("the kept pairs would replace the file they come from", where=str(out), mend="name another")
    part = out.with_name(out.name + ".part")
    try:
        if file.kind == "jsonl":
            _write_lines(file, kept, part, as_lines=ending == ".jsonl")
        else:
            rows = pl.scan_parquet(file.path, glob=False).with_columns(kept.alias("\0kept"))
            rows = rows.filter(pl.col("\0kept")).drop("\0kept")
            if ending == ".parquet":
                rows.sink_parquet(part)
            else:
                rows.sink_ndjson(part)
        part.replace(out)
    except (OSError, pl.exceptions.PolarsError) as error:
        part.unlink(missing_ok=True)
        first = str(error).splitlines()[0] if str(error) else type(error).__name__
        mend = "name a place with room that can be written"
        raise FoundryError(f"cannot be written: {first}", where=str(out), mend=mend) from error


def _write_lines(file: PairFile, kept: pl.Series, part: Path, *, as_lines: bool) -> None:
    wanted = set(file.places.filter(kept).to_list())
    lines: Iterable[bytes] = (line + b"\n" for number, line in _lines(file.path) if number in wanted)
    if as_lines:
        with part.open("wb") as handle:
            handle.writelines(lines)
    else:
        # Not `read_ndjson`, which makes one text of whatever kinds of value a column holds.
        try:
            frame = pl.DataFrame([json.loads(line) for line in lines], infer_schema_length=None)
        except (TypeError, pl.exceptions.PolarsError) as error:
            raise FoundryError(
                "the rows hold different kinds of value in one column, which Parquet cannot",
                where=str(file.path),
                mend="end the name of --out in .jsonl",
            ) from error
        frame.write_parquet(part)
