"""Declarations and front matter that somebody else has written: data, bounded, and never a traceback."""

from __future__ import annotations

import datetime as dt
import resource
import time
from pathlib import Path

import pytest

from foundry_pipeline.corpus.formats.markdown import front_matter
from foundry_pipeline.declarations.yaml_file import UnreadableYaml, read_text, read_yaml
from foundry_pipeline.errors import DeclarationError, FoundryError

BOMB = "\n".join(
    [
        "a: &a [x,x,x,x,x,x,x,x,x]",
        *(f"{b}: &{b} [{','.join([f'*{a}'] * 9)}]" for a, b in zip("abcdefgh", "bcdefghi", strict=True)),
    ]
)
BAD = {
    "an object": "!!python/object/apply:os.system ['touch /tmp/owned']",
    "a name": "!!python/name:os.system",
    "a module": "!!python/module:os",
    "a bomb of aliases": BOMB,
    "itself": "&a [*a]",
    "depth": "[" * 100_000,
    "depth by indent": "\n".join(" " * n + "a:" for n in range(3000)),
    "a key twice": "a: 1\na: 2",
    "a list as a key": "? [a]\n: 1",
    "a mapping as a key": "{{a: 1}: 2}",
    "an endless number": "a: " + "9" * 5000,
    "the 40th day": "a: 2026-13-40",
    "no timestamp": "!!timestamp tomorrow",
    "no integer": "!!int ''",
    "no float": "!!float x",
    "no bool": "!!bool perhaps",
    "no base 64": "!!binary 'é'",
    "a merge of a text": "<<: text",
    "an unknown alias": "a: *b",
    "two documents": "a: 1\n---\nb: 2",
    "a control character": "a: \x01",
    "too long": "a: " + "x" * (16 << 20),
}


@pytest.mark.parametrize("name", BAD)
def test_what_is_no_data_is_an_error_with_the_file_named(name, tmp_path):
    path = tmp_path / "r2.yaml"
    path.write_text(BAD[name])
    started = time.process_time()
    with pytest.raises(DeclarationError, match="not readable as YAML") as found:
        read_yaml(path)
    assert found.value.where == str(path)
    assert time.process_time() - started < 10
    assert not Path("/tmp/owned").exists()


def test_an_alias_that_is_used_as_meant_is_read():
    assert read_text("a: &a {x: 1}\nb: *a\nc: [*a]") == {"a": {"x": 1}, "b": {"x": 1}, "c": [{"x": 1}]}
    assert read_text("") is None
    assert read_text("when: 2026-11-22") == {"when": dt.date(2026, 11, 22)}


@pytest.mark.parametrize("name", ["a bomb of aliases", "no timestamp", "a list as a key", "itself", "no integer"])
def test_front_matter_is_read_by_the_same_rules(name):
    with pytest.raises(FoundryError, match="front matter is no YAML"):
        front_matter(f"---\n{BAD[name]}\n---\nDear Sir,", where="letter.md")


def test_a_bomb_costs_no_memory():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(UnreadableYaml, match="aliases are written out"):
        read_text(BOMB)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000
