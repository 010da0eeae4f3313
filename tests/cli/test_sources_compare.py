"""`foundry sources compare` in the project as shipped: two documents side by side, by exit code and output."""

from __future__ import annotations

import json
import os
import re
import subprocess

from tests.project import BIN, ROOT


def compare(*arguments: str) -> subprocess.CompletedProcess[str]:
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("FOUNDRY_", "DAGSTER_"))}
    command = [str(BIN / "foundry"), "sources", "compare", *arguments]
    return subprocess.run(command, cwd=ROOT, env=kept, capture_output=True, text=True, timeout=120, check=False)


def test_two_documents_are_compared():
    done = compare("annual_message_1812", "annual_message_1813", "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert (found["document_a"], found["document_b"]) == ("annual_message_1812", "annual_message_1813")
    assert sum(found["counts"].values()) == len(found["differences"]) > 100
    assert {d["kind"] for d in found["differences"]} <= {"spelling", "punctuation", "case", "word", "missing"}
    shown = compare("annual_message_1812", "annual_message_1812", "--cleaned")
    assert shown.returncode == 0
    assert "100.00% of words equal; differences: none" in shown.stdout


def test_an_unknown_document_is_named():
    done = compare("annual_message_1812", "annual_message_1818\x1b[31m")
    assert done.returncode == 1
    assert "no source has a document `annual_message_1818" in done.stderr
    assert re.search(r"did you mean `annual_message_18\d\d`\?", done.stderr)
    assert "\x1b" not in done.stderr
    assert not done.stdout
