"""The trainer under its guards: stopped, rolled back, resumed, unchanged.

On a model of two layers with random weights, but for the collapse itself: a model that knows nothing has nothing to lose.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from training_examples import Quiet, hyperparameters, small_pairs

from foundry_pipeline.declarations.guards import Guards
from foundry_pipeline.errors import Collapsed
from foundry_pipeline.launch import read_json, run_script
from foundry_pipeline.training import train
from foundry_pipeline.training.guards import Finding
from foundry_pipeline.training.plan import MODULE
from tests.unit.export.tiny_model import write_tiny

HOT = {"learning_rate": 0.05, "epochs": 3}


@pytest.fixture(scope="module")
def tiny(dense: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny(tmp_path_factory.mktemp("tiny"), dense)


@pytest.fixture(autouse=True)
def _own_settings() -> Iterator[None]:
    """The trainer sets its process up for itself; other tests share this one."""
    import torch

    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(False)


Make = Callable[..., dict[str, Any]]


@pytest.fixture
def spec_for(tiny: Path, tmp_path: Path) -> Make:
    """A spec with guards, for a training in this process; `work` lies below the test's folder."""
    parquet = tmp_path / "pairs.parquet"
    pl.DataFrame(small_pairs()).write_parquet(parquet)

    def make(work: str, guards: dict[str, Any] | None, **changes: Any) -> dict[str, Any]:
        from dataclasses import asdict

        values = asdict(hyperparameters(**changes))
        (tmp_path / work).mkdir(exist_ok=True)
        told = {} if guards is None else {"guards": Guards.model_validate(guards).model_dump(mode="json")}
        return {
            "run": "small", "base_dir": str(tiny), "base_hash": "b" * 64, "dataset_parquet": str(parquet),
            "dataset_hash": "d" * 64, "method": values["method"], "declared": {}, "effective": values, "seed": 42,
            "threads": 1, "save_every_steps": 2, "work": str(tmp_path / work), **told,
        }  # fmt: skip

    return make


def weights(work: str) -> str:
    return hashlib.sha256((Path(work) / "result" / "adapter_model.safetensors").read_bytes()).hexdigest()


def test_a_learning_rate_of_a_twentieth_is_stopped_within_twenty_steps(spec_for: Make, dense: Path) -> None:
    spec = {**spec_for("hot", {}, **HOT), "base_dir": str(dense)}
    with pytest.raises(Collapsed) as caught:
        train.run(spec, Quiet())
    record = read_json(Path(spec["work"]) / "collapse.json")
    assert record["steps"] == 21
    assert record["step"] <= 20
    assert record["rule"] in ("kl", "chosen_logp", "not_finite")
    assert [row["step"] for row in record["history"]] == list(range(1, record["step"] + 1))
    assert record["told"] in caught.value.what
    assert f"step {record['step']} of 21" in caught.value.what
    assert "learning rate 0.05" in caught.value.what
    assert "assets/runs/small.yaml" in caught.value.where
    assert "learning_rate" in caught.value.mend
    assert not (Path(spec["work"]) / "checkpoints").exists()
    assert not (Path(spec["work"]) / "result").exists()
    # What it came to say is there to read.
    assert [set(sample) for sample in record["samples"]] == [{"prompt", "answer"}] * 4
    assert "distinct_2" in record["history"][-1]
    # The same is not trained again to find the same.
    session = Quiet()
    with pytest.raises(Collapsed, match="collapsed at step"):
        train.run(spec, session)
    assert session.said == []


@pytest.mark.parametrize("method", ["orpo", "dpo"])
def test_being_watched_changes_no_bit_and_is_told(spec_for: Make, method: str) -> None:
    guards = {"kl": {"every_steps": 3, "pairs": 3}, "probes": {"every_steps": 5, "max_tokens": 8}}
    watched, alone = spec_for("watched", guards, method=method), spec_for("alone", None, method=method)
    facts, bare = train.run(watched, Quiet()), train.run(alone, Quiet())
    assert weights(watched["work"]) == weights(alone["work"])
    assert [row["loss"] for row in facts["history"]] == [row["loss"] for row in bare["history"]]
    measured = {row["step"]: row["kl"] for row in facts["history"] if "kl" in row}
    assert list(measured) == [3, 6, 9, 12, 14]
    assert all(value > 0 for value in measured.values())
    assert measured[14] > measured[3]
    assert facts["kl_to_base"] == measured[14]
    assert [row["step"] for row in facts["history"] if "distinct_2" in row] == [5, 10, 14]
    assert facts["guard_warnings"] == facts["roll_backs"] == 0
    assert [sample["prompt"] for sample in facts["guards"]["samples"]] == [
        "What of the union?", "What of the senate?", "What of the treaty?", "What of the census?",
    ]  # fmt: skip
    assert "kl" not in bare["history"][-1]


def test_a_warning_is_told_once_and_stops_nothing(spec_for: Make) -> None:
    session = Quiet()
    guards = {"kl": {"action": "warn", "every_steps": 2, "max_nats": 1e-9}, "probes": None}
    facts = train.run(spec_for("warned", guards, epochs=1), session)
    assert facts["steps"] == 7
    assert facts["guard_warnings"] == 1
    (event,) = facts["guards"]["events"]
    assert (event["rule"], event["done"], event["step"]) == ("kl", "warned", 2)
    assert [line for line in session.said if "warning at step 2" in line]


def test_rolled_back_it_goes_on_slower_from_the_last_good_checkpoint(spec_for: Make) -> None:
    guards = {"kl": {"action": "roll_back", "every_steps": 3, "max_jump": 0.002}, "roll_back": {"rate_factor": 0.1}}
    changes = {"learning_rate": 5e-3, "scheduler": "constant", "epochs": 1}
    spec = spec_for("back", {**guards, "probes": None}, **changes)
    session = Quiet()
    facts = train.run(spec, session)
    assert [row["step"] for row in facts["history"]] == list(range(1, 8))
    back = facts["guards"]["events"]
    assert back
    assert facts["roll_backs"] == len(back) <= 2
    assert {event["done"] for event in back} == {"rolled back"}
    assert back[0]["step"] == 3
    assert back[0]["to_step"] == 2  # saved after every second step; the third was never saved
    assert back[0]["learning_rate"] == pytest.approx(5e-4)
    assert facts["history"][2]["learning_rate"] == pytest.approx(5e-3 * 0.1 ** sum(e["to_step"] == 2 for e in back))
    # The live figures hold each step once.
    live = [json.loads(line) for line in (Path(spec["work"]) / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in live] == list(range(1, 8))

    # Killed before, between and after the roll-backs it ends with the same bytes and the same story.
    cut = spec_for("cut", {**guards, "probes": None}, **changes)
    for at in (2, 5):
        with pytest.raises(KeyboardInterrupt):
            train.run(cut, Quiet(cut_at=at))
    resumed = train.run(cut, Quiet())
    assert resumed["resumed_from"] != []
    assert weights(cut["work"]) == weights(spec["work"])
    assert resumed["history"] == facts["history"]
    assert resumed["guards"]["events"] == back


def test_a_checkpoint_that_went_wrong_twice_gives_way_to_the_one_before(
    spec_for: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A checkpoint's own last update shows a step later: what follows from it goes wrong however slow it is."""

    def judge(history: list[dict[str, float]], guards: Guards) -> list[Finding]:
        return [Finding("kl", "roll_back", 5, "made up", 9.0, 1.0)] if len(history) == 5 else []

    monkeypatch.setattr("foundry_pipeline.training.watch.judge", judge)
    spec = spec_for("twice", {"kl": {"action": "roll_back"}, "probes": None, "roll_back": {"times": 2}}, epochs=1)
    with pytest.raises(Collapsed, match="after 2 roll-backs"):
        train.run(spec, Quiet())
    record = read_json(Path(spec["work"]) / "collapse.json")
    assert [event["to_step"] for event in record["events"]] == [4, 2]
    assert [row["step"] for row in record["history"]] == [1, 2, 3, 4, 5]
    # What was kept of the third attempt is measured wherever it could have been gone back to.
    assert [row["step"] for row in record["history"] if "kl" in row] == [2, 4]


def test_rolled_back_too_often_it_has_collapsed(spec_for: Make) -> None:
    guards = {"kl": {"action": "roll_back", "every_steps": 1, "max_nats": 1e-12}, "roll_back": {"times": 2}}
    spec = spec_for("often", guards, learning_rate=1e-3, scheduler="constant", warmup_fraction=0.0)
    with pytest.raises(Collapsed, match="after 2 roll-backs"):
        train.run(spec, Quiet())
    record = read_json(Path(spec["work"]) / "collapse.json")
    assert [(event["done"], event["to_step"]) for event in record["events"]] == [("rolled back", 0)] * 2
    assert [event["learning_rate"] for event in record["events"]] == pytest.approx([5e-4, 2.5e-4])


def test_a_process_beside_comes_to_the_same_verdict_and_says_nothing(
    spec_for: Make, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    guards = {"kl": {"action": "roll_back", "every_steps": 2, "pairs": 3, "max_nats": 1e-6}, "roll_back": {"times": 1}}
    spec = {**spec_for("team", guards, **HOT, gradient_accumulation=2), "threads": 2}
    with pytest.raises(Collapsed, match="after 1 roll-back: "):
        run_script(MODULE, spec, tmp_path / "team")
    told = capfd.readouterr().err
    assert "training process 1" not in told
    assert told.count("collapsed at step") == 1
    assert read_json(tmp_path / "team" / "error.json")["type"] == "Collapsed"
    (event,) = read_json(tmp_path / "team" / "collapse.json")["events"]
    assert (event["done"], event["step"], event["to_step"]) == ("rolled back", 2, 0)
