"""One small file, or several, of every kind that comes from outside; made here, none of them taken from anywhere."""

from __future__ import annotations

import gzip
import io
import json
import struct
from functools import cache
from pathlib import Path

import polars as pl

from tests.unit.corpus.format_samples import column, epub, pdf, zipped
from tests.unit.corpus.gutenberg_sample import Edition, body, gutenberg_file

ROOT = Path(__file__).resolve().parents[2]
PROSE = "Dear Sir,\n\nIt is agreed on all sides that the lamp ought to burn; e.g. in winter.  I am, &c.\n\nJ. M.\n"
HTML = (
    "<!DOCTYPE html><html><head><title>To a friend</title><meta name=author content='A &amp; B'><style>p{}</style></head>"
    "<body><nav><a href='/x'>home</a></nav><article><h1>To a friend</h1><p>Dear <i>Sir</i>,<br>it is so.<table><tr><td>1<td>2"
    "</table><ul><li>a<li>b</ul><blockquote>said</blockquote><pre>a  b</pre><sup>1</sup></article><script>alert(1)</script>"
)
MARKDOWN = (
    "---\ntitle: To a friend\ndate: 1788-06-01\nauthor: &a A\ntags: [*a, b]\n---\n# To a friend\n\nDear *Sir*, [it](http://x)"
    " is `so`.\n\n> said\n\n| a | b |\n|---|---|\n| 1 | 2 |\n\n1. one\n   - two\n\n```\ncode\n```\n<div>html</div>\n![x](y)\n"
)
PAIR = {"prompt": "What is a faction?", "chosen": "By a faction I understand a number.", "rejected": "A group."}
TALK = {
    "prompt": [{"role": "user", "content": "What?"}],
    "chosen": [{"role": "assistant", "content": "This."}],
    "rejected": [{"role": "assistant", "content": [{"type": "text", "text": "That."}]}],
}
JUDGED = {
    "voice": 7, "rhetorical": 6.5, "historical": 5, "position": 4, "integrity": 9, "overall": 6.4,
    "critical_failures": ["anachronism"], "reasoning": "He says \"lamp\"; it's\nso.",
}  # fmt: skip
MESSAGE = {
    "id": "m", "type": "message", "stop_reason": "end_turn", "usage": {"input_tokens": 3, "output_tokens": 4},
    "content": [{"type": "thinking", "thinking": "x"}, {"type": "text", "text": "It is so."}],
}  # fmt: skip
COMPLETION = {
    "choices": [{"finish_reason": "stop", "message": {"role": "assistant", "content": "It is so."}}],
    "usage": {"prompt_tokens": 3, "completion_tokens": 4, "prompt_tokens_details": {"cached_tokens": 1}},
}
LETTER = {
    "title": "To a friend", "permalink": "https://founders.archives.gov/documents/Madison/01", "project": "Madison Papers",
    "authors": ["Madison, James"], "recipients": ["A"], "date-from": "1788-06-01", "date-to": "", "content": "Dear Sir,",
}  # fmt: skip
ITEM = {
    "item": {"title": "Letter", "date": "1788", "dates": [{"1788": "u"}], "contributors": [{"madison, james": "u"}]},
    "resources": [{"fulltext_file": "/text/1.txt"}, {"fulltext_file": None}],
    "segments": [{"full_text": "Dear Sir,"}, {"full_text": "Yours."}],
}


def as_json(*values: object) -> list[bytes]:
    return [json.dumps(v, ensure_ascii=False).encode() for v in values]


def pair_lines() -> list[bytes]:
    return [b"\n".join(as_json(PAIR, TALK)), *as_json(PAIR, TALK)]


@cache
def pair_tables() -> tuple[bytes, ...]:
    out = []
    for rows in ([PAIR] * 3, [TALK]):
        buffer = io.BytesIO()
        pl.DataFrame(rows).write_parquet(buffer, compression="uncompressed")
        out.append(buffer.getvalue())
    return tuple(out)


def replies() -> list[bytes]:
    told = json.dumps(JUDGED, indent=1)
    return [
        told.encode(),
        f"Here it is:\n```json\n{told}\n```".encode(),
        told.replace('"', "'").encode(),
        told[:-20].encode(),
    ]


def books() -> list[bytes]:
    text = body(Edition())
    return [gutenberg_file(text[:6000]).encode(), gutenberg_file(text[-4000:], form="old").encode()]


def archives() -> list[bytes]:
    return [
        zipped({"a.txt": PROSE, "b/c.md": MARKDOWN, "d.html": HTML}),
        zipped({"x.zip": zipped({"a.txt": PROSE})}),
        gzip.compress(PROSE.encode()),
        b"a.txt" + b"\0" * 252 + b"ustar" + b"\0" * 400,
    ]


def documents() -> dict[str, list[bytes]]:
    return {
        "text": [PROSE.encode(), PROSE.encode("utf-16"), PROSE.replace("lamp", "lämp").encode("cp1252")],
        "markdown": [MARKDOWN.encode()],
        "html": [HTML.encode(), HTML.replace("</style>", "</style><meta charset=koi8-r>").encode()],
        "pdf": [pdf([column(PROSE.splitlines()), column(["page two", "- 2 -"])], title="Letter")],
        "epub": [epub()],
        "archive": archives(),
    }


def declarations() -> list[bytes]:
    """Shipped files of every kind, the long ones by their beginning."""
    names = (
        "assets/runs/madison_r2.yaml", "assets/runs/common/qwen.yaml", "assets/profiles/laptop.yaml", "assets/prices.yaml",
        "assets/datasets/madison_dataset_v6.yaml", "sources/madison/character.yaml", "sources/madison/probes.yaml",
        "sources/madison/manifests/annual_messages.yaml", "tests/characters/keeper/sources/keeper/manifests/logbook.yaml",
    )  # fmt: skip
    found = [(ROOT / name).read_bytes()[:2500] for name in names if (ROOT / name).is_file()]
    waiting = sorted((ROOT / "sources/madison/manifests/available").glob("*.yaml"))
    return [*found, *(p.read_bytes()[:2500] for p in waiting)]


@cache
def gguf() -> bytes:
    """A GGUF file of two entries of each kind and one tensor, written by hand."""

    def text(value: str) -> bytes:
        return struct.pack("<Q", len(value.encode())) + value.encode()

    entries = [
        text("general.architecture") + struct.pack("<I", 8) + text("llama"),
        text("llama.block_count") + struct.pack("<II", 4, 2),
        text("general.alignment") + struct.pack("<II", 4, 32),
        text("x.flag") + struct.pack("<I?", 7, True),
        text("tokenizer.ggml.tokens") + struct.pack("<IIQ", 9, 8, 2) + text("a") + text("é"),
        text("tokenizer.ggml.scores") + struct.pack("<IIQ2f", 9, 6, 2, 0.5, 1.5),
    ]
    tensor = text("w") + struct.pack("<IQQIQ", 2, 8, 2, 0, 0)
    head = b"GGUF" + struct.pack("<IQQ", 3, 1, len(entries)) + b"".join(entries) + tensor
    return head + b"\0" * (-len(head) % 32) + b"\1" * 64
