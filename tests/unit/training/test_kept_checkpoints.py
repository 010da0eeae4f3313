"""Adapters of named steps: kept by the real trainer, the same after a kill, and nothing else changed by them."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from small_base import write_small_base
from training_examples import Quiet, hyperparameters, small_pairs

from foundry_pipeline.launch import ScriptSession, write_json
from foundry_pipeline.training import train
from foundry_pipeline.training.checkpoints import seal
from foundry_pipeline.training.keep import Keeper, kept_step

NAMED = {"checkpoint-150": [150, 861], "checkpoint-half": [1, 2]}  # steps 2 and 7 of 14


@pytest.mark.parametrize(
    ("step", "of", "steps", "kept"),
    [(150, 861, 861, 150), (150, 861, 72, 13), (150, 861, 3, 1), (150, 861, 1, 1), (861, 861, 72, 72), (1, 8, 4, 1)],
)
def test_the_same_share_of_the_way_at_any_size(step: int, of: int, steps: int, kept: int) -> None:
    assert kept_step(step, of, steps) == kept


@given(of=st.integers(1, 2000), share=st.floats(0, 1), steps=st.integers(1, 2000))
def test_a_kept_step_is_a_step_of_the_training(of: int, share: float, steps: int) -> None:
    assert 1 <= kept_step(max(1, round(of * share)), of, steps) <= steps


def test_what_is_torn_missing_or_of_another_training_is_lost(tmp_path: Path) -> None:
    def write(folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "adapter.bin").write_bytes(b"weights")

    keeper = Keeper(tmp_path, "mark", {"checkpoint-a": 3, "checkpoint-b": 5})
    assert keeper.lost(2) is None
    assert keeper.lost(3) == "checkpoint-a"
    keeper.keep(2, write)
    assert not (tmp_path / "kept").exists()
    keeper.keep(3, write)
    assert keeper.lost(4) is None
    assert keeper.lost(5) == "checkpoint-b"
    assert Keeper(tmp_path, "another", {"checkpoint-a": 3}).lost(3) == "checkpoint-a"
    (tmp_path / "kept/checkpoint-a/adapter.bin").write_bytes(b"weightz")
    assert keeper.lost(3) == "checkpoint-a"
    (tmp_path / "kept/checkpoint-a.json").write_bytes(b'{"fingerprint": "ma')
    assert keeper.lost(3) == "checkpoint-a"


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_small_base(tmp_path_factory.mktemp("base"))


@pytest.fixture(autouse=True)
def _own_settings() -> Iterator[None]:
    """The trainer sets its process up for itself; other tests share this one."""
    import torch

    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(False)


@pytest.fixture
def trained(base: Path, tmp_path: Path) -> Callable[..., Any]:
    """Runs the trainer in this process, in a folder of the test's, with these named checkpoints."""
    parquet = tmp_path / "pairs.parquet"
    pl.DataFrame(small_pairs()).write_parquet(parquet)

    def run(work: str, named: dict[str, list[int]], session: ScriptSession | None = None) -> dict[str, Any]:
        spec = {
            "run": "small", "base_dir": str(base), "base_hash": "b" * 64, "dataset_parquet": str(parquet),
            "dataset_hash": "d" * 64, "method": "orpo", "declared": {}, "effective": asdict(hyperparameters()),
            "seed": 42, "threads": 1, "save_every_steps": 3, "work": str(tmp_path / work), "checkpoints": named,
        }  # fmt: skip
        (tmp_path / work).mkdir(exist_ok=True)
        write_json(tmp_path / work / "spec.json", spec)
        return train.run(spec, session or Quiet())

    return run


def files(folder: Path) -> dict[str, str]:
    found = sorted(p for p in folder.rglob("*") if p.is_file())
    return {p.relative_to(folder).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest() for p in found}


LAST = ("adapter_config.json", "adapter_model.safetensors")


def test_named_steps_are_kept_and_training_is_what_it_was(trained: Callable[..., Any], tmp_path: Path) -> None:
    facts = trained("named", NAMED)
    plain = trained("plain", {})
    assert facts["steps"] == 14
    assert facts["checkpoints"] == {"checkpoint-150": 2, "checkpoint-half": 7}
    assert "checkpoints" not in plain
    assert [h["loss"] for h in facts["history"]] == [h["loss"] for h in plain["history"]]
    kept, without = files(tmp_path / "named/result"), files(tmp_path / "plain/result")
    assert without == {name: kept[name] for name in LAST}
    assert kept.keys() == {*LAST, *(f"checkpoints/{n}/{name}" for n in NAMED for name in LAST)}
    weights = [kept[LAST[1]], *(kept[f"checkpoints/{n}/{LAST[1]}"] for n in NAMED)]
    assert len(set(weights)) == 3, "three steps, three adapters"


def test_a_kept_adapter_is_that_of_a_training_stopped_there(trained: Callable[..., Any], tmp_path: Path) -> None:
    """Step 2 of 14, against the training's own checkpoint of that step."""
    from safetensors.torch import load_file

    with pytest.raises(KeyboardInterrupt):
        trained("cut", {"checkpoint-3": [3, 14]}, Quiet(cut_at=5))
    own = load_file(str(tmp_path / "cut/checkpoints/step-3/adapter.safetensors"))
    kept = load_file(str(tmp_path / "cut/kept/checkpoint-3/adapter_model.safetensors"))
    assert len(own) == len(kept)
    for name, weight in own.items():
        assert weight.equal(kept[name.replace(".default.", ".")])


def test_killed_before_and_after_it_ends_with_the_same_bytes(trained: Callable[..., Any], tmp_path: Path) -> None:
    trained("whole", NAMED)
    for at in (2, 6, 8):  # on the step that is kept, before the other, and after both
        with pytest.raises(KeyboardInterrupt):
            trained("broken", NAMED, Quiet(cut_at=at))
    # what was kept of step 7 is gone: the checkpoint of step 9 must not be taken up
    with pytest.raises(KeyboardInterrupt):
        trained("broken", NAMED, Quiet(cut_at=11))
    shutil.rmtree(tmp_path / "broken/kept/checkpoint-half")
    session = Quiet()
    facts = trained("broken", NAMED, session)
    assert any("checkpoint-half" in text and "step-9" in text for text in session.said), session.said
    assert facts["resumed_from"][-1] == 6
    assert files(tmp_path / "broken/result") == files(tmp_path / "whole/result")


def test_seals_of_trainings_are_of_no_use_to_a_keeper(tmp_path: Path) -> None:
    """A folder that only looks kept: a checkpoint of the trainer's under the same name."""
    partial = tmp_path / "partial"
    partial.mkdir()
    (partial / "adapter.safetensors").write_bytes(b"x")
    (tmp_path / "kept").mkdir()
    seal(partial, tmp_path / "kept", 3, "mark", 0.0)
    assert Keeper(tmp_path, "mark", {"checkpoint-a": 3}).lost(3) == "checkpoint-a"
