"""Gutenberg files in their several forms: the work, the whole work, and no sentence of the licence."""

from __future__ import annotations

import pytest
from format_samples import epub, page, zipped
from gutenberg_sample import FORMS, LICENCE, SMALL_PRINT, gutenberg_file
from hypothesis import given, settings
from hypothesis import strategies as st

from foundry_pipeline.corpus.gutenberg import looks_like_gutenberg, read_gutenberg, strip_gutenberg
from foundry_pipeline.errors import FoundryError

WORK = "LETTERS OF A KEEPER\n\n" + "\n\n".join(
    f"Letter {n}. The lamp was lit and the oil was spent." for n in range(30)
)
PARAGRAPH = st.text("abc ,;'END*OF#[]", min_size=1, max_size=80).map(
    lambda t: f"The keeper {' '.join(t.split())} wrote."
)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("ends", ["\n", "\r\n"])
def test_every_form_gives_the_work(form, ends):
    found = strip_gutenberg(gutenberg_file(WORK, form).replace("\n", ends), where="18.txt")
    assert found.text == WORK
    assert found.counts["words before the text"] > 10
    if form not in ("small print",):
        assert (found.number, found.title) == ("18", "The Papers of the Coast")
        assert found.author == "Alexander Hamilton John Jay James Madison"
    if form not in ("the", "small print after"):
        assert found.credits
        assert "Keeper" in found.credits[0]


@settings(deadline=None)
@given(st.lists(PARAGRAPH, min_size=20, max_size=40), st.sampled_from(FORMS))
def test_no_paragraph_is_lost(paragraphs, form):
    work = "\n\n".join(paragraphs)
    assert strip_gutenberg(gutenberg_file(work, form), where="x").text == work


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (WORK, "no marker of Project Gutenberg"),
        (gutenberg_file(WORK).partition("Letter 20")[0], "no end marker: it is cut short"),
        (gutenberg_file(WORK).partition("\n\n\nLETTERS")[2], "an end marker and no start marker"),
        (gutenberg_file(WORK, "this") + gutenberg_file(WORK, "this"), "2 works of Project Gutenberg"),
        (gutenberg_file(""), "no text between"),
        (gutenberg_file(WORK + "\n\nthe Project Gutenberg-tm License"), "a sentence of the licence is left in line 63"),
        (gutenberg_file(SMALL_PRINT.replace("*", "") + WORK), "a sentence of the licence is left"),
        (SMALL_PRINT, "an end marker and no start marker"),
    ],
)
def test_what_cannot_be_told_apart_is_refused(text, said):
    with pytest.raises(FoundryError, match=said) as refused:
        strip_gutenberg(text, where="18.txt")
    assert refused.value.where == "18.txt"
    assert refused.value.mend


def test_a_line_about_the_end_of_an_inner_volume_is_no_end():
    """The line stands far above the end marker: what follows it is the next volume."""
    work = f"{WORK}\n\nEnd of Project Gutenberg's Letters, Volume 1\n\n" + "\n\n".join(
        f"Second {n}." for n in range(90)
    )
    found = strip_gutenberg(gutenberg_file(work), where="x")
    assert "Second 89." in found.text
    assert "Gutenberg" not in found.text
    assert found.counts["lines of Project Gutenberg inside"] == 1


def test_notes_of_the_transcriber_are_set_apart():
    text = (
        "[Transcriber's Note: the spelling is kept.\n\nSo are the lamps.]\n\n"
        f"{WORK}\n\n[Transcriber's note: a line is blotted here.]\n\nYours.\n\nTranscriber's Notes:\n\nPage 3: lmap is now lamp.\n\nPage 9: oyl."
    )
    found = strip_gutenberg(gutenberg_file(text), where="x")
    assert found.text == f"{WORK}\n\nYours."
    assert len(found.notes) == 3
    assert "So are the lamps." in found.notes[0]
    assert "oyl" in found.notes[2]


def test_the_header_names_the_encoding():
    text = gutenberg_file(WORK.replace("lamp", "lampé")).replace(
        "Language: English", "Language: English\n\nCharacter set encoding: ISO-8859-1"
    )
    found = read_gutenberg(text.encode("latin-1"), where="x.txt")
    assert found.encoding == "windows-1252"
    assert "lampé" in found.text
    with pytest.raises(FoundryError, match="not UTF-8"):
        read_gutenberg(gutenberg_file("lampé" + WORK).encode("latin-1"), where="x.txt")


def test_from_an_archive_and_from_markup():
    text = gutenberg_file(WORK)
    data = zipped(
        {"18/18.txt": "ascii " + text, "18/18-0.txt": text, "18/18-8.txt": "eight bits " + text, "18/cover.jpg": "x"}
    )
    assert read_gutenberg(data, where="18.zip").text == WORK
    html = "".join(f"<p>{block}</p>" for block in text.split("\n\n") if block.strip())
    assert read_gutenberg(page(html).encode(), where="18.html").text == WORK
    with pytest.raises(FoundryError, match=r"holds no \.txt"):
        read_gutenberg(zipped({"a.html": "<p>x"}), where="18.zip")
    with pytest.raises(FoundryError, match="no marker"):
        read_gutenberg(epub(), where="a.epub")


def test_marks_are_recognised():
    assert looks_like_gutenberg(gutenberg_file(WORK))
    assert looks_like_gutenberg(LICENCE)
    assert not looks_like_gutenberg("Gutenberg printed a bible; the project took years.")
