"""The dataset's name is its content, on disk and off it."""

from __future__ import annotations

import contextlib

import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from foundry_pipeline.datasets.content import FACTS_FILE, PAIRS_FILE, dataset_hash, read_dataset, write_dataset
from foundry_pipeline.errors import DamagedArtifact
from foundry_pipeline.pairs.candidates import PAIRS


def test_the_hash_depends_neither_on_row_order_nor_on_column_order_nor_on_other_columns(make_pairs) -> None:
    frame = make_pairs(9)
    expected = dataset_hash(frame)
    assert dataset_hash(frame.reverse()) == expected
    assert dataset_hash(frame.select(*reversed(frame.columns))) == expected
    assert dataset_hash(frame.with_columns(finish_reason=pl.lit("stop"))) == expected
    assert dataset_hash(pl.concat([frame.head(4), frame.tail(5)], rechunk=False)) == expected


@pytest.mark.parametrize("column", list(PAIRS))
def test_every_column_is_in_the_hash(column, make_pairs) -> None:
    frame = make_pairs(3)
    kind = PAIRS[column]
    if kind == pl.String:
        changed = pl.when(pl.int_range(pl.len()) == 1).then(pl.lit("other")).otherwise(pl.col(column))
    elif kind == pl.List(pl.String):
        changed = pl.col(column).list.concat(pl.lit("more").implode())
    else:
        changed = pl.col(column) + 1
    assert dataset_hash(frame.with_columns(changed.alias(column))) != dataset_hash(frame)


def test_a_row_more_or_a_row_twice_is_another_dataset(make_pairs) -> None:
    frame = make_pairs(3)
    hashes = {dataset_hash(f) for f in (frame, frame.head(2), pl.concat([frame, frame.head(1)]), frame.head(0))}
    assert len(hashes) == 4


@given(st.floats(allow_nan=False, allow_infinity=False), st.floats(allow_nan=False, allow_infinity=False))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_floats_count_to_the_last_bit(make_pairs, a: float, b: float) -> None:
    frame = make_pairs(1)
    first, second = (dataset_hash(frame.with_columns(fit=pl.lit(x))) for x in (a, b))
    assert (first == second) == (repr(a) == repr(b))


@pytest.mark.parametrize("score", [float("nan"), float("inf"), float("-inf")])
def test_a_score_that_is_no_number_has_no_hash(make_pairs, score: float) -> None:
    """JSON knows no such number, and an encoder that writes null for it would give two datasets one name."""
    with pytest.raises(ValueError, match="fit is no finite number"):
        dataset_hash(make_pairs(2).with_columns(fit=pl.Series([None, score], dtype=pl.Float64)))


def test_a_dataset_comes_back_as_it_was_written(make_pairs, tmp_path) -> None:
    frame = make_pairs(5)
    written = write_dataset(frame, tmp_path / "d")
    assert written == dataset_hash(frame)
    assert read_dataset(tmp_path / "d").equals(frame)
    again = write_dataset(frame, tmp_path / "e")
    assert again == written
    for name in (PAIRS_FILE, FACTS_FILE):
        assert (tmp_path / "d" / name).read_bytes() == (tmp_path / "e" / name).read_bytes()


def test_the_encoding_of_parquet_does_not_matter(make_pairs, tmp_path) -> None:
    frame = make_pairs(5)
    write_dataset(frame, tmp_path)
    frame.reverse().write_parquet(tmp_path / PAIRS_FILE, compression="snappy", row_group_size=2)
    assert read_dataset(tmp_path).sort("pair_id").equals(frame.sort("pair_id"))


def _rewrite(path, frame: pl.DataFrame) -> None:
    frame.write_parquet(path / PAIRS_FILE)


@pytest.mark.parametrize(
    ("file", "damage"),
    [
        (PAIRS_FILE, lambda p, f: (p / PAIRS_FILE).unlink()),
        (PAIRS_FILE, lambda p, f: (p / PAIRS_FILE).write_bytes(b"")),
        (PAIRS_FILE, lambda p, f: (p / PAIRS_FILE).write_bytes((p / PAIRS_FILE).read_bytes()[:200])),
        (PAIRS_FILE, lambda p, f: _rewrite(p, f.head(4))),
        (PAIRS_FILE, lambda p, f: _rewrite(p, f.with_columns(chosen=pl.lit("Another answer.")))),
        (PAIRS_FILE, lambda p, f: _rewrite(p, f.drop("chosen"))),
        (FACTS_FILE, lambda p, f: (p / FACTS_FILE).unlink()),
        (FACTS_FILE, lambda p, f: (p / FACTS_FILE).write_text("{")),
        (FACTS_FILE, lambda p, f: (p / FACTS_FILE).write_text("[]")),
    ],
)
def test_damage_names_the_file_and_the_mend(file, damage, make_pairs, tmp_path) -> None:
    frame = make_pairs(5)
    write_dataset(frame, tmp_path)
    damage(tmp_path, frame)
    with pytest.raises(DamagedArtifact) as caught:
        read_dataset(tmp_path, name="keeper_dataset_v1")
    assert file in caught.value.what
    assert caught.value.where.endswith(file)
    assert caught.value.mend == "foundry repair keeper_dataset_v1"


def test_a_flipped_byte_is_noticed_wherever_it_is(make_pairs, tmp_path) -> None:
    frame = make_pairs(5)
    write_dataset(frame, tmp_path)
    whole = (tmp_path / PAIRS_FILE).read_bytes()
    for at in range(0, len(whole), max(1, len(whole) // 80)):
        (tmp_path / PAIRS_FILE).write_bytes(whole[:at] + bytes([whole[at] ^ 0xFF]) + whole[at + 1 :])
        # Either the byte carries nothing, or the damage is named; never other rows, never a traceback.
        with contextlib.suppress(DamagedArtifact):
            assert dataset_hash(read_dataset(tmp_path)) == dataset_hash(frame)
