"""A declared order is what training sees, and what it sees again after it was stopped in the middle of an epoch."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from foundry_pipeline.declarations import Declarations, load
from foundry_pipeline.training.curriculum import SOURCE_GROUNDED, epoch_order, windows
from foundry_pipeline.training.plan import fingerprint, training_spec
from tests.project import ROOT

origins = st.lists(st.sampled_from(["base", "voice", SOURCE_GROUNDED]), max_size=40)


@given(st.sampled_from(["shuffle", "source_first"]), origins, st.integers(0, 2**32), st.integers(0, 10))
def test_every_row_is_shown_once_and_source_grounded_ones_first(order, found, seed, epoch) -> None:
    drawn = epoch_order(order, found, seed=seed, epoch=epoch)
    assert sorted(drawn) == list(range(len(found)))
    assert drawn == epoch_order(order, found, seed=seed, epoch=epoch)
    shown = [found[i] == SOURCE_GROUNDED for i in drawn]
    if order == "source_first":
        assert shown == sorted(shown, reverse=True)


def test_a_shuffle_mixes_the_origins() -> None:
    found = ["base"] * 20 + [SOURCE_GROUNDED] * 20
    first = [found[i] for i in epoch_order("shuffle", found, seed=1, epoch=0)[:20]]
    assert set(first) == {"base", SOURCE_GROUNDED}


def test_seed_and_epoch_both_change_the_order() -> None:
    found = ["base"] * 20 + [SOURCE_GROUNDED] * 20
    orders = [epoch_order("source_first", found, seed=s, epoch=e) for s, e in ((1, 0), (1, 1), (2, 0))]
    assert len({tuple(o[:20]) for o in orders}) == 3
    # Drawn once and written down: another machine, or another Python, must give the same.
    assert epoch_order("source_first", ["base", SOURCE_GROUNDED] * 4, seed=42, epoch=0) == FIRST


FIRST = [5, 7, 3, 1, 0, 4, 2, 6]


@given(origins, st.integers(1, 3), st.integers(1, 5))
def test_steps_run_through_the_epochs_in_order(found: list[str], epochs: int, size: int) -> None:
    """So that a training taken up at step n sees `windows[n:]`, which an undisturbed one would have seen."""
    steps = windows("source_first", found, seed=7, epochs=epochs, size=size)
    assert all(0 < len(step) <= size for step in steps)
    assert [row for step in steps for row in step] == [
        row for epoch in range(epochs) for row in epoch_order("source_first", found, seed=7, epoch=epoch)
    ]


@pytest.fixture(scope="module")
def declared() -> Declarations:
    return load(ROOT, "laptop")


def test_an_order_makes_another_training_and_the_default_leaves_it_as_it_was(declared: Declarations) -> None:
    run = declared.runs["madison_r2"]
    given = {"base_dir": Path("b"), "base_hash": "b", "dataset_parquet": Path("p"), "dataset_hash": "d"}
    marks = {
        o: fingerprint(training_spec(run, declared.profile, order=o, **given), {}) for o in ("shuffle", "source_first")
    }
    before = {k: v for k, v in training_spec(run, declared.profile, **given).items() if k != "order"}
    assert fingerprint(before, {}) == marks["shuffle"] != marks["source_first"]


def test_the_order_is_the_datasets_and_reaches_the_stage(declared: Declarations, tmp_path: Path) -> None:
    from foundry_pipeline.chain.graph import build_chain
    from foundry_pipeline.settings import Settings

    changed = declared.datasets["madison_dataset_v6"].model_copy(update={"order": "source_first"})
    other = Declarations(**{**declared.__dict__, "datasets": {**declared.datasets, "madison_dataset_v6": changed}})
    before, after = (build_chain(d, Settings(ROOT, tmp_path, "laptop")).stages for d in (declared, other))
    assert after["madison_r2_adapter"].declaration == {
        **before["madison_r2_adapter"].declaration,
        "order": "source_first",
    }
    assert after["madison_dataset_v6"].declaration == before["madison_dataset_v6"].declaration, "the rows are the same"
