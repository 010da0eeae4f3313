"""What a terminal or a reader could be misled by is written out, and nothing else is touched."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from foundry_pipeline.plain import plain

# Sequences that steer a terminal, marks that turn the direction of reading, signs that take no room, lone surrogates.
DANGEROUS = ["\x1b[31m", "\x9b2J", "\x00", "\x07", "\x08", "\u202e", "\u2066", "\u200b", "\ufeff", "\ud800", "\u061c"]


@given(st.text() | st.lists(st.sampled_from([*DANGEROUS, "a", "\n", "\t"])).map("".join))
def test_nothing_that_could_be_obeyed_or_hides_is_left(text: str) -> None:
    shown = plain(text)
    assert "\n" not in shown
    kinds = {c: unicodedata.category(c) for c in shown}
    assert not [
        c for c, kind in kinds.items() if kind in ("Cc", "Cs", "Cn") or (kind == "Cf" and c not in "\u200c\u200d")
    ]
    shown.encode("utf-8")  # and it can be printed


@given(st.text(alphabet=st.characters(categories=("L", "N", "P", "S", "Zs"))))
def test_plain_text_stays_as_it_is(text: str) -> None:
    assert plain(text) == text


@given(st.text(), st.integers(1, 20))
def test_the_limit_holds(text: str, limit: int) -> None:
    shown = plain(text, limit)
    assert len(shown) <= limit
    assert shown == plain(text) or shown.endswith("…")


@pytest.mark.parametrize("mark", DANGEROUS)
def test_what_was_there_can_still_be_read(mark: str) -> None:
    assert "\\" in plain(f"a{mark}b")


def test_ten_megabytes_cost_what_is_shown_of_them() -> None:
    assert len(plain("\u202e" * 10_000_000, 80)) == 80
