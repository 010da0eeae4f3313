"""The short form of `make fuzz`: every parser, a few inputs each, in this process. And inputs that were findings once."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from hypothesis import HealthCheck, Phase, given, seed, settings

from foundry_pipeline.corpus.formats import read_format
from foundry_pipeline.errors import FoundryError
from tests.conftest import ROOT
from tests.fuzz.mutation import inputs
from tests.fuzz.targets import TARGETS
from tests.unit.corpus.format_samples import zipped


@pytest.mark.parametrize("name", TARGETS)
def test_a_parser_handles_whatever_comes(name):
    target = TARGETS[name]

    def once(data: bytes) -> None:
        target(data)

    few = settings(
        max_examples=25, deadline=None, database=None, suppress_health_check=list(HealthCheck), phases=(Phase.generate,)
    )
    seed(20261122)(few(given(inputs(target.samples(), target.marks))(once)))()


@pytest.mark.parametrize("name", TARGETS)
def test_the_samples_themselves_are_of_the_right_kind(name):
    """A parser that refused its own samples would never be fuzzed beyond its first line."""
    target, ran = TARGETS[name], 0
    for sample in target.samples():
        try:
            target.run(sample)
        except target.may:
            continue
        ran += 1
    assert ran, "every sample was refused"


def test_a_finding_is_found(tmp_path):
    """The campaign itself, on a parser with a planted fault: told, kept, exit code 1."""
    code = (
        "import sys; from tests.fuzz import targets, __main__ as m, work\n"
        "def bad(data):\n    if b'answer' not in data: raise KeyError('planted')\n"
        "t = targets.TARGETS['teacher replies']\n"
        "targets.TARGETS['teacher replies'] = targets.Target(bad, t.samples)\n"
    )
    work = code + f"from pathlib import Path; work.main('teacher replies', 2, 1, Path({str(tmp_path)!r}))"
    done = subprocess.run([sys.executable, "-c", work], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    told = json.loads((tmp_path / "result.json").read_text())
    assert told["findings"][0]["error"].startswith("KeyError: 'planted'")
    assert b"answer" not in (tmp_path / "finding-0.bin").read_bytes()


def test_an_archive_whose_list_lies_before_its_beginning():
    """Found by `make fuzz`: a list of entries that is said to lie further behind puts the entries before the first byte."""
    data = bytearray(zipped({"a.txt": "Dear Sir,"}))
    data[-6:-2] = (int.from_bytes(data[-6:-2], "little") + 1).to_bytes(4, "little")
    with pytest.raises(FoundryError, match="cannot be unpacked"):
        read_format(bytes(data), name="a.zip")
