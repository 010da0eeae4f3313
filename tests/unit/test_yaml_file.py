"""YAML is read by libyaml; what PyYAML's own parser reads, it reads the same."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st

from foundry_pipeline.declarations.yaml_file import _Fast, _load, _Plain, read_text, read_yaml
from foundry_pipeline.errors import DeclarationError
from tests.conftest import ROOT

_SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20) | st.dates()
_VALUES = st.recursive(
    _SCALARS, lambda v: st.lists(v, max_size=4) | st.dictionaries(st.text(max_size=8), v, max_size=4)
)
# No `!` and no byte order mark: a lone one of either is read as nothing by one parser and as a text by the other.
_MARKS = st.text(alphabet=" \n\t:-?[]{},&*|>'\"%@#<=~aA01.\u0085\x07é🙂", max_size=40)


def same_if_read(text: str) -> None:
    try:
        plain = _load(text, _Plain)
    except (yaml.YAMLError, RecursionError):
        return
    assert repr(read_text(text)) == repr(plain)


def test_libyaml_is_in_use() -> None:
    assert yaml.__with_libyaml__
    assert issubclass(_Fast, yaml.CSafeLoader)


@pytest.mark.parametrize("path", sorted(p for f in ("assets", "sources") for p in (ROOT / f).rglob("*.yaml")), ids=str)
def test_shipped_files_say_the_same_either_way(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert yaml.load(text, Loader=_Fast) == yaml.load(text, Loader=_Plain)


@settings(max_examples=150, deadline=None)
@given(_VALUES, st.sampled_from((None, True, False)), st.integers(0, 400), _MARKS)
def test_values_and_damaged_values_are_the_same(value: object, flow: bool | None, at: int, put: str) -> None:
    text = yaml.safe_dump(value, allow_unicode=True, default_flow_style=flow)
    assert repr(read_text(text)) == repr(yaml.load(text, Loader=_Plain))
    at %= len(text) + 1
    same_if_read(text[:at] + put + text[at:])


@settings(max_examples=300, deadline=None)
@example("[?]")
@given(_MARKS)
def test_marks_without_sense_are_the_same(text: str) -> None:
    same_if_read(text)


@pytest.mark.parametrize("text", ["[" * 100_000, "{a: " * 100_000, "- " * 100_000 + "1", "? " * 100_000])
def test_nesting_beyond_reason_is_refused_by_name(tmp_path: Path, text: str) -> None:
    (tmp_path / "deep.yaml").write_text(text)
    with pytest.raises(DeclarationError, match=r"(?s)nested too deeply.*deep\.yaml"):
        read_yaml(tmp_path / "deep.yaml")


def test_nesting_is_no_fault_in_itself(tmp_path: Path) -> None:
    (tmp_path / "deep.yaml").write_text("[" * 900 + "]" * 900)
    found, depth = read_yaml(tmp_path / "deep.yaml"), 0
    while found:
        found, depth = found[0], depth + 1
    assert depth == 899


def test_a_fault_shows_its_line(tmp_path: Path) -> None:
    (tmp_path / "x.yaml").write_text("good: 1\nrun: [1, 2\nnext: 3\n")
    with pytest.raises(DeclarationError, match=r"(?s)line 3, column 5:\n +next: 3\n +\^"):
        read_yaml(tmp_path / "x.yaml")
