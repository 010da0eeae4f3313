"""Every parser of what comes from outside, each as a function of bytes that returns, or raises what it may raise.

Whatever else comes out of one is a finding: a traceback for the user of some file.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from foundry_pipeline.errors import FoundryError
from foundry_pipeline.lineage.hashing import folder_hash
from tests.fuzz import samples


@dataclass(frozen=True)
class Target:
    """`marks` are pieces that mean something in the format; `may` what the parser is allowed to raise."""

    run: Callable[[bytes], Any]
    samples: Callable[[], Sequence[bytes]]
    marks: tuple[bytes, ...] = ()
    may: tuple[type[BaseException], ...] = (FoundryError,)

    def __call__(self, data: bytes) -> None:
        with suppress(*self.may):
            self.run(data)


@cache
def place() -> Path:
    """A folder in memory for parsers that read files; gone with the process."""
    import atexit

    folder = Path(tempfile.mkdtemp(prefix="fuzz-", dir="/dev/shm" if Path("/dev/shm").is_dir() else None))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def on_disk(name: str, read: Callable[[Path], Any]) -> Callable[[bytes], Any]:
    def run(data: bytes) -> Any:
        path = place() / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        return read(path)

    return run


def text_of(data: bytes) -> str:
    return data.decode("utf-8", "replace")


# ---- sources ----


def document(name: str) -> Callable[[bytes], Any]:
    def run(data: bytes) -> None:
        from foundry_pipeline.corpus.formats import read_format
        from foundry_pipeline.corpus.gutenberg import looks_like_gutenberg
        from foundry_pipeline.corpus.passages import cut_text

        for found in read_format(data, name=name):
            found.text.encode()  # what is kept has to be Unicode
            looks_like_gutenberg(found.text)
            cut_text(found.text)

    return run


def book(data: bytes) -> None:
    from foundry_pipeline.corpus.gutenberg import read_gutenberg

    read_gutenberg(data, where="book").text.encode()


def catalogue(data: bytes) -> None:
    from foundry_pipeline.corpus.addresses import joined
    from foundry_pipeline.corpus.connectors import founders, loc
    from foundry_pipeline.corpus.connectors.base import parse_json

    value = parse_json(data, where="answer", mend="again")
    with suppress(FoundryError):
        founders._answer(value, "answer", "again")
    "\n".join(loc._pages(value)).encode("utf-8", "replace")
    if isinstance(value, dict):
        item = value.get("item") if isinstance(value.get("item"), dict) else value
        loc._about(item)
        for address in loc._texts(value, item):
            with suppress(FoundryError):
                joined("https://www.loc.gov/", address)


def address(data: bytes) -> None:
    from foundry_pipeline.corpus.addresses import host_of, is_main_gutenberg, is_private, joined
    from foundry_pipeline.declarations.network import check_url

    text = text_of(data)
    with suppress(FoundryError):
        text = joined("https://www.loc.gov/item/1/", text)
    host_of(text)
    is_private(text)
    with suppress(ValueError):
        check_url(text)
        is_main_gutenberg(text)


def table(name: str) -> Callable[[bytes], Any]:
    def read(path: Path) -> None:
        from foundry_pipeline.corpus.connectors.file_table import file_table

        file_table(path.parent, stems=frozenset({"letter"}))

    return on_disk(f"{name.partition('.')[2]}/{name}", read)


def snapshot(data: bytes) -> None:
    from foundry_pipeline.corpus.snapshot import Snapshot

    folder = place() / "snapshot"
    held = Snapshot(folder, command="again")
    held._record_path("letter").parent.mkdir(parents=True, exist_ok=True)
    held._record_path("letter").write_bytes(data)
    (folder / "snapshot.json").write_bytes(data)
    with suppress(FoundryError):
        for found in held.documents("x"):
            held.intact(found)
    record = held.record("letter")
    if record is not None:
        with suppress(FoundryError):
            held.data(record)


# ---- pairs, answers, replies ----


def pairs(name: str) -> Callable[[bytes], Any]:
    def read(path: Path) -> None:
        from foundry_pipeline.pairs.pair_files import read_pair_file

        read_pair_file(path)

    return on_disk(name, read)


def judged(data: bytes) -> None:
    from foundry_pipeline.evaluation.pairwise_model import read_reply as read_preference
    from foundry_pipeline.evaluation.replies import read_reply
    from foundry_pipeline.evaluation.reply_files import read_lines

    reply = read_reply(text_of(data), "end_turn")
    assert reply.overall is None or 0 <= reply.overall <= 10
    for row in read_lines(data.splitlines(), details=True):
        assert row["overall"] is None or 0 <= row["overall"] <= 10
    with suppress(ValueError):
        read_preference(text_of(data))


def wire(data: bytes) -> None:
    from foundry_pipeline.models.remote.anthropic_batches import read_result
    from foundry_pipeline.models.remote.anthropic_messages import read_message
    from foundry_pipeline.models.remote.exchange import json_object
    from foundry_pipeline.models.remote.failures import AttemptFailed
    from foundry_pipeline.models.remote.openai_compatible import read_completion
    from foundry_pipeline.models.remote.retry import retry_after

    retry_after(text_of(data))
    value = json_object(data)
    for read in (read_message, read_completion, read_result):
        with suppress(AttemptFailed):
            read(value).reply("r", "h", cost=None).text.encode()


def taught(data: bytes) -> None:
    from foundry_pipeline.pairs.teachers.replies import parse_question, parse_reply

    text = text_of(data)
    for structured in (True, False):
        parse_reply(text, "stop", shown=3, bounds=(1, 400), structured=structured)
    parse_question(text, "stop", most=60)


@cache
def _madison() -> Any:
    from foundry_pipeline.declarations import load

    return load(samples.ROOT, "laptop").characters["madison"]


def answered(data: bytes) -> None:
    from foundry_pipeline.breaks import character_breaks
    from foundry_pipeline.evaluation.integrity import find_breaks
    from foundry_pipeline.evaluation.judge_prompt import answer_block
    from foundry_pipeline.pairs.teachers.prompts import escaped
    from foundry_pipeline.plain import plain
    from foundry_pipeline.reports.markdown import cell
    from foundry_pipeline.textstats import voice

    text, files = text_of(data)[:20_000], _madison()
    find_breaks(files.character, files.suite.prompts[0], text)
    character_breaks(files.character, text)
    voice(text, ("upon",))
    assert answer_block.__name__
    assert not any(ord(c) < 32 for c in plain(text) + cell(text))
    escaped(text)


# ---- declarations, store, models ----


def declared(path: Path) -> None:
    from foundry_pipeline.declarations import assets, probes, remote, sources
    from foundry_pipeline.declarations.load import _Faults, _parse

    for model in (
        assets.Run,
        assets.Dataset,
        assets.Profile,
        remote.PriceTable,
        sources.Character,
        sources.SourceManifest,
        probes.ProbeSet,
    ):
        _parse(model, path, _Faults(path.parent))


def stored(data: bytes) -> None:
    from foundry_pipeline.lineage.store import Store

    store, name = Store(place() / "store"), "0" * 64
    for path in (store.root / "index" / f"{name}.json", store.folder(name) / "manifest.json"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    (store.folder(name) / "payload").mkdir(exist_ok=True)
    with suppress(FoundryError):
        store.record(name)
    store.open(name)


def gguf(data: bytes) -> None:
    from foundry_pipeline.models.gguf_header import parse_gguf_header

    head = parse_gguf_header(data, where="fuzz")
    assert all(t.start + t.bytes <= len(data) for t in head.tensors.values())


def model_file(name: str) -> Callable[[bytes], Any]:
    def read(path: Path) -> None:
        from foundry_pipeline.models.model_files import check_model_folder

        check_model_folder(path.parent)

    return on_disk(f"model-{name.partition('.')[0]}/{name}", read)


def failures() -> tuple[type[BaseException], ...]:
    from foundry_pipeline.models.remote.failures import AttemptFailed

    return (FoundryError, AttemptFailed)


def _documents(kind: str) -> Callable[[], Sequence[bytes]]:
    return lambda: samples.documents()[kind]


MANIFEST = {
    "name": "a", "kind": "base_model", "input_hash": "0" * 64, "inputs": {}, "declaration": {}, "external": {}, "code_version": "1",
    "facts": {}, "content_hash": "0" * 64, "payload_hash": folder_hash({}), "files": {},
}  # fmt: skip
RECORD = {k: v for k, v in MANIFEST.items() if k not in ("payload_hash", "files")}
CONTENTS = {
    "asked": "x",
    "completed_at": "2026-11-22T00:00:00+00:00",
    "requests": 1,
    "keys": ["letter"],
    "left_out": {},
}
FETCHED = {
    "key": "letter",
    "url": "http://x.org/",
    "kind": "text",
    "status": "present",
    "checked_at": "2026-11-22T00:00:00+00:00",
    "sha256": "0" * 64,
    "bytes": 3,
    "facts": {},
}
CONFIG = {"model_type": "llama", "auto_map": None, "inner": [{"a": {"b": 1}}]}

TARGETS: dict[str, Target] = {
    "source: text": Target(document("letter.txt"), _documents("text")),
    "source: Markdown": Target(document("letter.md"), _documents("markdown"), (b"\n> ", b"\n- ", b"`", b"*", b"[^1]", b"&a [*a]")),
    "source: HTML": Target(document("letter.html"), _documents("html"), (b"<p>", b"<table>", b"<svg>", b"<math>", b"<template>")),
    "source: PDF": Target(document("letter.pdf"), _documents("pdf"), (b"/Filter /FlateDecode", b"/Parent 2 0 R", b"3 0 R", b"<<")),
    "source: EPUB": Target(document("letter.epub"), _documents("epub"), (b"PK\x01\x02", b"PK\x05\x06", b"../")),
    "source: archive": Target(document("letters.zip"), _documents("archive"), (b"PK\x03\x04", b"PK\x01\x02", b"/", b"..")),
    "source: Gutenberg": Target(book, samples.books, (b"*** START OF", b"*** END OF", b"No. 10\n", b"\n\n\n\n")),
    "source: catalogue JSON": Target(catalogue, lambda: samples.as_json(samples.LETTER, samples.ITEM), (b'{"a":', b"null")),
    "source: table CSV": Target(table("documents.csv"), lambda: [b"file,title,date\nletter,To a friend,1788-06-01\n"], (b'""', b"\r")),
    "source: table YAML": Target(table("documents.yaml"), lambda: [b"letter: {title: To a friend, date: 1788-06-01}\n"]),
    "source: snapshot": Target(snapshot, lambda: samples.as_json(FETCHED, CONTENTS)),
    "URLs": Target(address, lambda: [b"http://127.0.0.1:80/a?b#c", b"//[::1]/x", b"https://user:pw@example.org/\xc3\xa9", b"http://0x7f.1"], (b"@", b"[", b"]", b"%00", b":")),
    "pairs: JSON lines": Target(pairs("pairs.jsonl"), samples.pair_lines, (b'{"role":', b"null", b"\n")),
    "pairs: Parquet": Target(pairs("pairs.parquet"), samples.pair_tables, (b"PAR1",)),
    "judge replies": Target(judged, samples.replies, (b"```json", b'"overall":', b'"voice": 11', b"\xe2\x80\x9c")),
    "provider replies": Target(wire, lambda: samples.as_json(samples.MESSAGE, samples.COMPLETION, {"type": "succeeded", "message": samples.MESSAGE}), (b"null", b'{"a":'), failures()),
    "teacher replies": Target(taught, lambda: [*samples.as_json({"passages": [1, 2], "answer": "It is so."}), b"What is a faction?"]),
    "candidate answers": Target(answered, lambda: [samples.PROSE.encode() * 3, b"As an AI, I cannot. " * 5, b"the the the " * 50], (b". ", b"' ", b"I am James ")),
    "declarations": Target(on_disk("declared.yaml", declared), samples.declarations, (b"  - ", b": ", b"'", b"|\n", b"{{")),
    "store: manifest and index": Target(stored, lambda: samples.as_json(MANIFEST, RECORD)),
    "model: GGUF": Target(gguf, lambda: [samples.gguf()]),
    "model: configuration": Target(model_file("config.json"), lambda: [json.dumps(CONFIG).encode()], (b'{"auto_map":', b"[")),
    "model: safetensors": Target(model_file("model.safetensors"), lambda: [b"\x10\0\0\0\0\0\0\0{" + b" " * 14 + b"}"]),
}  # fmt: skip
