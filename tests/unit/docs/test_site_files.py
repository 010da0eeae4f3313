"""The site's files: nothing in the data can end the script element, nothing foreign is written over, equal gives equal."""

from __future__ import annotations

import ast
import json
from html.parser import HTMLParser
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from foundry_pipeline.chain.graph import load_chain
from foundry_pipeline.docs.code import module_source, module_summary, modules_of
from foundry_pipeline.docs.page_data import LONGEST, Texts, as_yaml, shortened
from foundry_pipeline.docs.site import embedded, write_site
from foundry_pipeline.docs.values import as_json, visible
from foundry_pipeline.errors import FoundryError
from foundry_pipeline.settings import Settings
from tests.conftest import ROOT

HOSTILE = st.sampled_from(["</script>", "<!--", "<script>", "]]>", "\u2028", "\u202e", "\x00", "`", "${x}", "\\"])
TEXTS = st.lists(st.one_of(st.text(max_size=20), HOSTILE), max_size=6).map("".join)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=6,
)


class Scripts(HTMLParser):
    """The text of every script element, as a browser would cut it."""

    def __init__(self) -> None:
        super().__init__()
        self.texts: list[str] = []
        self.inside = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.inside = tag == "script"
        if self.inside:
            self.texts.append("")

    def handle_endtag(self, tag: str) -> None:
        self.inside = False

    def handle_data(self, data: str) -> None:
        if self.inside:
            self.texts[-1] += data


@given(VALUES)
def test_whatever_is_declared_stays_inside_its_element(value: object) -> None:
    whole = as_json(value)
    page = f'<script type="application/json">{embedded(whole)}</script><p>after</p>'
    parser = Scripts()
    parser.feed(page)
    parser.close()
    assert len(parser.texts) == 1
    assert json.loads(parser.texts[0]) == whole


@given(st.text(st.characters(exclude_categories=())))
def test_visible_text_hides_nothing_and_is_stable(text: str) -> None:
    shown = visible(text)
    assert visible(shown) == shown
    assert not set(shown) & set("\x00\x1b\x7f\x9b\u202a\u202e\u2066\u2069\u200f\ufeff")
    assert shown.encode().decode() == shown  # no lone surrogate is left
    assert shown.count("\n") == text.replace("\r\n", "\n").count("\n")


@given(st.lists(TEXTS))
def test_the_same_text_has_one_place(texts: list[str]) -> None:
    held = Texts()
    places = [held.add(t) for t in texts]
    assert [held.all[p] for p in places] == [visible(t) for t in texts]
    assert len(set(held.all)) == len(held.all)


def test_a_long_field_is_cut_at_a_line_and_says_so() -> None:
    text = as_yaml({"suite": [f"question {i}" for i in range(3_000)]})
    cut = shortened(text)
    assert len(cut) < LONGEST + 100
    assert cut.splitlines()[-1].startswith("# …")
    assert text.startswith("\n".join(cut.splitlines()[:-1]))
    assert shortened("short") == "short"


def test_a_folder_that_holds_other_things_is_left_alone(tmp_path: Path) -> None:
    mine = tmp_path / "thesis.txt"
    mine.write_text("mine")
    with pytest.raises(FoundryError, match="holds other things"):
        write_site(tmp_path, {"index.html": "x"})
    with pytest.raises(FoundryError, match="holds other things"):
        write_site(mine, {"index.html": "x"})
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.txt"]


def test_a_site_is_written_over_and_old_code_goes(tmp_path: Path) -> None:
    site = tmp_path / "a" / "site"
    write_site(site, {"index.html": "1", "manifest.json": "{}", "catalog.json": "{}", "code/old.html": "old"})
    index = write_site(site, {"index.html": "2", "manifest.json": "{}", "catalog.json": "{}", "code/new.html": "new"})
    assert index.read_text() == "2"
    assert [p.name for p in (site / "code").iterdir()] == ["new.html"]


def test_a_folder_that_may_not_be_written_is_told(full_disk: Path) -> None:
    with pytest.raises(FoundryError, match="cannot be written"):
        write_site(full_disk / "site", {"index.html": "x" * 4_000_000})


def test_every_module_that_builds_something_says_what_it_is_about(tmp_path: Path) -> None:
    _, chain = load_chain(Settings(ROOT, tmp_path / "store", "laptop"))
    modules = {m for s in chain.stages.values() for m in modules_of(s)}
    for module in sorted(modules):
        told = ast.get_docstring(ast.parse(module_source(module))) or ""
        assert module_summary(module) == " ".join(told.split("\n\n")[0].split()) != "", module
