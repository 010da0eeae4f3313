"""Tokens in the form the model meets at inference; rows held out without leaks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from training_examples import small_pairs

from foundry_pipeline.errors import FoundryError
from foundry_pipeline.training.plan import validation_rows
from foundry_pipeline.training.tokens import Example, columns, load_examples, render, split


@pytest.fixture(scope="module")
def tokenizer(dense: Path) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(dense, local_files_only=True)


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    pl.DataFrame(rows).write_parquet(path)
    return path


def test_prompt_and_answer_are_what_generation_sees_and_must_end_with(tokenizer: Any) -> None:
    prompt, answer = render(tokenizer, "What of the union?", " It must stand. ")
    asked = tokenizer.apply_chat_template(
        [{"role": "user", "content": "What of the union?"}], tokenize=False, add_generation_prompt=True
    )
    assert prompt == asked
    assert answer.endswith("It must stand. <|im_end|>")
    assert answer.count("<|im_end|>") == 1


def test_rows_keep_every_token_and_long_ones_are_counted(tokenizer: Any, tmp_path: Path) -> None:
    rows = small_pairs()
    rows[1]["rejected"] = "word " * 400
    kept, dropped = load_examples(write(tmp_path / "p.parquet", rows), tokenizer, "orpo", 128)
    assert [entry["pair_id"] for entry in dropped] == [rows[1]["pair_id"]]
    assert dropped[0]["tokens"] > 400
    assert len(kept) == 5
    end = tokenizer.eos_token_id
    for example, row in zip(kept, [row for row in rows if row is not rows[1]], strict=True):
        assert tokenizer.decode(example.chosen) == row["chosen"] + "<|im_end|>"
        assert tokenizer.decode(example.rejected) == row["rejected"] + "<|im_end|>"
        assert (example.chosen[-1], example.rejected[-1]) == (end, end)
        assert example.length <= 128


def test_the_order_does_not_depend_on_the_file(tokenizer: Any, tmp_path: Path) -> None:
    rows = small_pairs()
    there, _ = load_examples(write(tmp_path / "a.parquet", rows), tokenizer, "orpo", 128)
    back, _ = load_examples(write(tmp_path / "b.parquet", rows[::-1]), tokenizer, "orpo", 128)
    assert there == back


def test_fine_tuning_rows_need_no_rejected_side(tokenizer: Any, tmp_path: Path) -> None:
    rows = [{name: value for name, value in row.items() if name != "rejected"} for row in small_pairs()]
    kept, _ = load_examples(write(tmp_path / "p.parquet", rows), tokenizer, "sft", 128)
    row = columns(kept[0], "sft")
    assert row["input_ids"] == [*kept[0].prompt, *kept[0].chosen]
    assert row["labels"] == [-100] * len(kept[0].prompt) + list(kept[0].chosen)


@pytest.mark.parametrize(
    ("change", "message"), [({"chosen": None}, "without text"), ({"chosen": " "}, "without text"), (None, "missing")]
)
def test_unusable_rows_are_refused(tokenizer: Any, tmp_path: Path, change: dict[str, Any] | None, message: str) -> None:
    rows = small_pairs()
    if change is None:
        for row in rows:
            del row["rejected"]
    else:
        rows[0] |= change
    with pytest.raises(FoundryError, match=message):
        load_examples(write(tmp_path / "p.parquet", rows), tokenizer, "orpo", 128)


def test_nothing_left_is_an_error_that_names_the_setting(tokenizer: Any, tmp_path: Path) -> None:
    with pytest.raises(FoundryError, match="none of 6 rows") as caught:
        load_examples(write(tmp_path / "p.parquet", small_pairs()), tokenizer, "orpo", 16)
    assert "max_length" in caught.value.mend


def test_orpo_columns_learn_from_answers_alone() -> None:
    row = columns(Example("p", "q", 1, (1, 2), (3, 4, 5), (6,)), "orpo")
    assert row["chosen_input_ids"] == [1, 2, 3, 4, 5]
    assert row["chosen_labels"] == [-100, -100, 3, 4, 5]
    assert row["rejected_labels"] == [-100, -100, 6]
    assert row["rejected_attention_mask"] == [1, 1, 1]


examples = st.lists(st.tuples(st.integers(0, 30), st.integers(1, 3)), min_size=1, max_size=60).map(
    lambda rows: [Example(f"p{i}", f"q{prompt}", up, (1,), (2,), (3,)) for i, (prompt, up) in enumerate(rows)]
)


@given(rows=examples, fraction=st.floats(0, 0.49), seed=st.integers(0, 5))
def test_no_prompt_stands_on_both_sides_and_nothing_is_lost(rows: list[Example], fraction: float, seed: int) -> None:
    training, validation = split(rows, fraction, seed)
    assert not {row.prompt_id for row in training} & {row.prompt_id for row in validation}
    assert sorted(row.pair_id for row in training + validation) == sorted(
        row.pair_id for row in rows for _ in range(row.upsample)
    )
    assert len(validation) <= validation_rows(len(training) + len(validation), fraction)
    assert split(rows, fraction, seed) == (training, validation)


def test_with_single_prompts_exactly_the_declared_share_is_held_out() -> None:
    voice = [Example(f"v{i}", f"v{i}", 2, (1,), (2,), (3,)) for i in range(399)]
    base = [Example(f"b{i}", f"b{i}", 1, (1,), (2,), (3,)) for i in range(475)]
    training, validation = split(base + voice, 0.1, 42)
    assert (len(training), len(validation)) == (1145, 128)
