"""`foundry judge parse` as a user runs it: a line for every line, bad ones named, nothing that stops it half-way."""

from __future__ import annotations

import json
import os
import random
import subprocess
from pathlib import Path
from typing import Any

from tests.unit.evaluation.reply_samples import OVERALL, drawn, mutated, reply


def parse(folder: Path, *arguments: str, given: bytes = b"") -> tuple[int, list[dict[str, Any]], str]:
    done = subprocess.run(
        ["foundry", "judge", "parse", *arguments], cwd=folder, input=given, capture_output=True, env=os.environ
    )
    rows = [json.loads(line) for line in done.stdout.decode("ascii").splitlines()]
    return done.returncode, rows, done.stderr.decode()


def line(identifier: Any, text: Any, stop: Any = "end_turn") -> bytes:
    return json.dumps({"id": identifier, "stop_reason": stop, "text": text}).encode()


def test_every_line_of_a_file_gets_its_own_and_a_bad_one_costs_no_other(tmp_path: Path) -> None:
    lines = [
        b"\xef\xbb\xbf" + line("a", reply()),
        line(2, f"```json\n{reply()}\n```") + b"\r",
        b"",
        line("cut", reply(), "max_tokens"),
        b'{"id": "torn", "stop_re',
        b'\xff\xfe{"id"',
        b"[1, 2]",
        b"[" * 5_000,
        b'{"id": 1, "text": "x"}',
        b'{"id": 1, "id": 2, "stop_reason": "stop", "text": "x"}',
        b'{"id": 1e999, "stop_reason": "stop", "text": "x"}',
        b'{"id": NaN, "stop_reason": "stop", "text": "x"}',
        line("half", reply(critical_failures=["\ud800"])),
        line("none", None),
        line("\ud800", reply(voice=11)),
    ]
    (tmp_path / "replies.jsonl").write_bytes(b"\n".join(lines))
    code, rows, said = parse(tmp_path, "replies.jsonl")
    assert code == 0, said
    assert rows[:3] == [
        {"id": "a", "status": "scored", "overall": OVERALL, "reason": None},
        {"id": 2, "status": "repaired", "overall": OVERALL, "reason": "code fence"},
        {"id": "cut", "status": "unscored", "overall": None, "reason": "cut off (stop_reason max_tokens)"},
    ]
    bad = [row for row in rows if "line" in row]
    assert [row["line"] for row in bad] == [5, 6, 7, 8, 9, 10, 11, 12]
    assert {row["status"] for row in bad} == {"unscored"}
    assert [(row["id"], row["status"]) for row in rows[-3:]] == [
        ("half", "scored"),
        ("none", "unscored"),
        ("\ud800", "unscored"),
    ]
    assert "8 lines of the file are no replies" in said


def test_fuzzed_replies_come_through_stdin_with_details(tmp_path: Path) -> None:
    draw = random.Random(5)
    texts = [mutated(draw, drawn(draw)) for _ in range(500)]
    code, rows, said = parse(
        tmp_path, "-", "--details", given=b"\n".join(line(i, text) for i, text in enumerate(texts))
    )
    assert (code, [row["id"] for row in rows]) == (0, list(range(500))), said
    for row in rows:
        scored = row["status"] != "unscored"
        assert scored == (row["overall"] is not None) == (row["voice"] is not None)
        assert scored or row["reason"]
        assert (row["mended"] is not None) == (row["status"] == "repaired")


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    code, rows, said = parse(tmp_path, "nowhere.jsonl")
    assert (code, rows) == (1, [])
    assert "nowhere.jsonl" in said
    assert "Traceback" not in said
