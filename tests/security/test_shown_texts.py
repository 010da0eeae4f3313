"""Hostile texts where people read them: the terminal, the Dagster UI's Markdown, a spreadsheet."""

from __future__ import annotations

import csv
import io

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from rich.table import Table

from foundry_pipeline.cli import show
from foundry_pipeline.cli.scores import write_csv
from foundry_pipeline.defs.metadata import _preview, _shares, score_table
from foundry_pipeline.reports.markdown import cell

HOSTILE = (
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "![pixel](http://tracker.example/p.png)",
    "[click](javascript:alert(1))",
    "<javascript:alert(1)> <http://tracker.example>",
    "http://tracker.example/p www.tracker.example me@tracker.example",
    "a | b \\| c\n| --- |\n# head",
    "`code` **bold** ~~gone~~ $x$ [^1] - [ ] task",
    "&lt;script&gt; &#60;b&#62; &copy;",
    "\\![a](b) \\<b>",
    "\x1b]0;owned\x07\x1b[2J\u202egnp.exe\x9b31m",
)


def rendered(markdown: str) -> list[str]:
    """Kinds of what a renderer makes of it, raw HTML allowed, links recognised: the most obedient reader there is."""
    reader = MarkdownIt("gfm-like", {"html": True, "linkify": False})
    tokens = reader.parse(markdown)
    return [t.type for block in tokens for t in (block, *(block.children or []))]


ACTIVE = {
    "html_inline",
    "html_block",
    "image",
    "link_open",
    "code_inline",
    "strong_open",
    "em_open",
    "s_open",
    "heading_open",
}


@pytest.mark.parametrize("text", HOSTILE)
def test_a_preview_in_the_dagster_ui_holds_nothing_active(text):
    frame = pl.DataFrame({"prompt": [text], "chosen": [text], "origin": [text]})
    for markdown in (_preview(frame), _shares(frame, "origin")):
        kinds = rendered(markdown)
        assert "table_open" in kinds
        assert not ACTIVE & set(kinds)
        assert kinds.count("tr_open") == 2
        assert not any(ord(c) < 32 and c != "\n" for c in markdown)
        assert "://" not in markdown


def test_a_score_table_holds_nothing_active():
    overall = {"mean": 1.0, "low": 0.0, "high": 2.0}
    mode = {"overall": overall, "categories": {}, "critical_failures": 0, "nats_per_token": None}
    for text in HOSTILE:
        kinds = rendered(score_table({"judge": {"name": text}, "modes": {text: mode}}))
        assert not ACTIVE & set(kinds)
        assert kinds.count("tr_open") == 2


@given(st.text(max_size=60))
def test_a_cell_reads_as_its_text(text):
    """What the renderer shows is the text itself (on one line, with what steers a terminal written out)."""
    from foundry_pipeline.plain import plain

    reader = MarkdownIt("gfm-like", {"html": True, "linkify": False})
    (inline,) = [t for t in reader.parse(f"| a |\n|---|\n| {cell(text, 1000)} |") if t.type == "inline"][1:] or [None]
    shown = "" if inline is None else "".join(t.content for t in inline.children)
    assert shown == " ".join(plain(text.replace("\n", " ").replace("\r", " ")).split())


@pytest.mark.parametrize("text", HOSTILE)
def test_a_terminal_is_never_obeyed(text, capsys):
    table = Table(title=text)
    table.add_column(text)
    table.add_row(text)
    console = show.console()
    console.print(table)
    console.print(text)
    show.line(text)
    out = capsys.readouterr().out
    assert not any(c in out for c in "\x1b\x07\x9b\x9d\u202e")


def test_a_spreadsheet_runs_nothing(capsys):
    evil = '=HYPERLINK("http://x.example","y")'
    rows = [{"run": evil, "@group": {"+name": " \t-1+1", "=b": "＝1"}, "n": -1.5, "plain": "Madison"}]
    write_csv(rows)
    head, cells = csv.reader(io.StringIO(capsys.readouterr().out))
    assert not any(c.lstrip()[:1] in tuple("=+-@＝") for c in (*head, *cells) if c != "-1.5")
    assert "Madison" in cells
