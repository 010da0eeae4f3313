"""Figures of a dataset, held to counts done by hand."""

from __future__ import annotations

import polars as pl
import pytest

from foundry_pipeline.datasets.shape import shape, token_counter, tokens
from foundry_pipeline.errors import FoundryError
from tests.prepared import tiny_tokenizer


def test_figures_by_hand(make_pairs) -> None:
    frame = make_pairs(3, categories=["ground_truth"]).with_columns(upsample=pl.Series([1, 2, 3], dtype=pl.Int64))
    found = shape(frame)
    assert (found["rows"], found["shown"], found["tokens"]) == (3, 6, None)
    assert found["origins"] == {"base": {"rows": 3, "shown": 6}}
    assert found["shown_times"] == {str(n): {"rows": 1, "shown": n} for n in (1, 2, 3)}
    assert found["passages"] == 3
    by_hand = [len(text.replace("?", "").split()) for text in frame["prompt"]]
    assert found["words"]["prompt"]["mean"] == pytest.approx(sum(by_hand) / 3)
    assert found["voice_contrast"]["mean"] == pytest.approx(float(frame["voice_contrast"].mean()), abs=1e-4)


def test_an_empty_dataset_has_a_shape(make_pairs) -> None:
    found = shape(make_pairs(0))
    assert (found["rows"], found["shown"], found["passages"], found["voice_contrast"]) == (0, 0, 0, None)
    assert found["words"] == {"prompt": None, "chosen": None, "rejected": None}


def test_supervised_rows_have_no_rejected_words(make_pairs) -> None:
    frame = make_pairs(2).with_columns(rejected=pl.lit(None, pl.String), voice_contrast=pl.lit(None, pl.Float64))
    assert shape(frame)["words"]["rejected"] is None


def test_tokens_count_the_prompt_with_each_side_and_rows_as_often_as_shown(make_pairs, tmp_path) -> None:
    path = tmp_path / "tokenizer.json"
    path.write_text(tiny_tokenizer())
    count = token_counter(path)
    assert count(["one two, three", ""]) == [4, 0]
    frame = make_pairs(2).with_columns(
        prompt=pl.lit("a b"), chosen=pl.lit("a b c"), rejected=pl.Series(["a", None]),
        upsample=pl.Series([2, 1], dtype=pl.Int64),
    )  # fmt: skip
    found = tokens(frame, count)
    assert found["rows"] == (2 + 3 + 2 + 1) + (2 + 3)
    assert found["shown"] == 2 * (2 + 3 + 2 + 1) + (2 + 3)


@pytest.mark.parametrize("content", ["", "{}", "not json"])
def test_a_damaged_tokenizer_is_named(content: str, tmp_path) -> None:
    path = tmp_path / "tokenizer.json"
    path.write_text(content)
    with pytest.raises(FoundryError, match="tokenizer cannot be read"):
        token_counter(path)
    with pytest.raises(FoundryError, match="tokenizer cannot be read"):
        token_counter(tmp_path / "nowhere.json")
