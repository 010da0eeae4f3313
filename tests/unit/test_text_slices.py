"""A frame read in slices by several threads gives what one thread gives, and passes on what went wrong."""

from __future__ import annotations

import os

import polars as pl
import pytest

from foundry_pipeline.textcolumns import Lexicon, in_slices, read_texts

FRAME = pl.DataFrame({"row": range(100), "text": [f"word{i} and {i % 7} wars" for i in range(100)]})


def rows_of(part: pl.DataFrame, lexicon: Lexicon) -> tuple[list[int], list[str]]:
    texts = read_texts(part["text"], lexicon)
    return part["row"].to_list(), [w for i in range(len(texts)) for w in texts.row_words(i)]


@pytest.mark.parametrize("rows", [1, 7, 99, 100, 1000])
def test_slices_come_in_order_and_whole(rows: int) -> None:
    found = list(in_slices(rows_of, FRAME, rows))
    assert [i for numbers, _ in found for i in numbers] == list(range(100))
    assert [w for _, words in found for w in words] == rows_of(FRAME, Lexicon())[1]
    assert all(len(numbers) <= rows for numbers, _ in found)


def test_an_empty_frame_has_no_slice() -> None:
    assert list(in_slices(rows_of, FRAME.head(0), 7)) == []


def test_no_more_is_begun_than_there_are_threads_for() -> None:
    """So that a long frame is never held whole as numbers."""
    begun, taken = [0], 0

    def begin(part: pl.DataFrame, lexicon: Lexicon) -> int:
        begun[0] += 1
        return part.height

    for _ in in_slices(begin, FRAME, 1):
        taken += 1
        assert begun[0] - taken <= (os.cpu_count() or 1) + 1
    assert taken == begun[0] == 100


def test_the_first_slice_that_fails_is_the_one_that_is_told() -> None:
    def fail(part: pl.DataFrame, lexicon: Lexicon) -> int:
        first: int = part["row"][0]
        if first >= 40:
            raise ValueError(f"row {first}")
        return first

    slices = in_slices(fail, FRAME, 10)
    assert [next(slices) for _ in range(4)] == [0, 10, 20, 30]
    with pytest.raises(ValueError, match="row 40"):
        next(slices)
    assert len(list(in_slices(rows_of, FRAME, 10))) == 10, "the threads serve the next frame"
