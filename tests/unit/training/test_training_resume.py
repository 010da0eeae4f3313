"""The real trainer on the real model: killed, torn and out of room, it still ends with the same bytes."""

from __future__ import annotations

import hashlib
import json
import os
import random
import resource
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from foundry_pipeline.declarations.guards import Guards
from foundry_pipeline.errors import Locked
from foundry_pipeline.launch import read_facts, read_json, run_script, script_command, work_lock, write_spec
from foundry_pipeline.training.plan import MODULE
from tests.unit.export.tiny_model import write_tiny
from tests.warm import WarmStart


def hashes(work: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted((work / "result").iterdir())}


def steps_seen(work: Path) -> int:
    file = work / "metrics.jsonl"
    lines = file.read_text().splitlines() if file.is_file() else []
    return max((json.loads(line)["step"] for line in lines if line.endswith("}")), default=0)


@pytest.fixture(scope="module")
def warm() -> Iterator[WarmStart]:
    """For trainings that are stopped on the way. What they are compared with starts cold, and so does what ends them."""
    with WarmStart() as started:
        yield started


def start_and_stop(warm: WarmStart, spec: dict[str, Any], work: Path, step: int, number: signal.Signals) -> int:
    """Start a training, send it a signal once it has done `step` steps, and return its exit code."""
    process = warm.start(MODULE, write_spec(spec, work))
    try:
        end = time.monotonic() + 120
        while steps_seen(work) < step:
            assert process.poll() is None, "ended before it could be stopped"
            assert time.monotonic() < end, "too slow"
            time.sleep(0.005)
        process.send_signal(number)
        return process.wait(timeout=20)
    finally:
        process.kill()
        process.wait()


def flip_a_byte(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def last_step(work: Path) -> int:
    return max(int(path.name[5:]) for path in (work / "checkpoints").glob("step-*"))


def test_killed_torn_and_out_of_room_it_ends_with_the_same_bytes(
    make_spec: Callable[..., dict[str, Any]], warm: WarmStart, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    spec = make_spec()  # 7 rows × 2 epochs = 14 steps, a checkpoint after every second one
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    run_script(MODULE, spec, whole)
    facts = read_facts(whole)
    assert facts["steps"] == 14
    assert facts["resumed_from"] == []
    assert [row["step"] for row in facts["history"]] == list(range(1, 15))

    # in the first epoch, in order; the lock and the checkpoints stay usable
    assert start_and_stop(warm, spec, broken, 3, signal.SIGTERM) == 143
    # in the second epoch, by force
    assert start_and_stop(warm, spec, broken, 9, signal.SIGKILL) == -signal.SIGKILL
    with pytest.raises(Locked), work_lock(broken), work_lock(broken, wait_seconds=0):
        pass
    torn = last_step(broken)
    flip_a_byte(broken / "checkpoints" / f"step-{torn}" / "optimizer.pt")

    # no room: the adapter of 5 MB still fits, the optimizer's state of 10 MB does not
    def bound() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (7 * 2**20, 7 * 2**20))

    out_of_room = subprocess.run(
        script_command(MODULE, write_spec(spec, broken)), preexec_fn=bound, capture_output=True, text=True, timeout=120
    )
    assert out_of_room.returncode == 1
    assert f"checkpoint step-{torn} is skipped: optimizer.pt is damaged" in out_of_room.stderr
    assert "could not write" in read_json(broken / "error.json")["what"]
    assert last_step(broken) == torn - 2
    assert not (broken / "result").exists()

    run_script(MODULE, spec, broken)
    resumed = read_facts(broken)
    assert hashes(broken) == hashes(whole)
    assert sorted(hashes(broken)) == ["adapter_config.json", "adapter_model.safetensors"]
    assert resumed["history"] == facts["history"]
    assert resumed["resumed_from"][-2:] == [torn - 2, torn - 2]
    assert not (broken / "checkpoints").exists()

    # a finished one is not done again
    run_script(MODULE, spec, broken)
    assert read_facts(broken) == resumed
    assert "already trained" in capfd.readouterr().err

    config = read_json(broken / "result" / "adapter_config.json")
    assert config["base_model_name_or_path"] == "b" * 64
    assert config["target_modules"] == sorted(config["target_modules"])
    assert str(tmp_path) not in (broken / "result" / "adapter_config.json").read_text()


def test_killed_at_ten_random_steps_it_ends_with_the_same_bytes(
    make_spec: Callable[..., dict[str, Any]], dense: Path, warm: WarmStart, tmp_path: Path
) -> None:
    """On a model of two layers, guards and probes at work, so that what they remember has to survive as well."""
    warns = {"kl": {"every_steps": 4, "action": "warn"}, "probes": {"every_steps": 5, "action": "warn"}}
    guards = Guards.model_validate(warns)
    spec = make_spec(epochs=20) | {"base_dir": str(write_tiny(tmp_path / "tiny", dense)), "save_every_steps": 3}
    spec["guards"] = guards.model_dump(mode="json")
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    run_script(MODULE, spec, whole)
    steps = read_facts(whole)["steps"]
    assert steps == 140
    chosen = sorted(random.Random(20).sample(range(1, steps - 5), 10))
    for step in chosen:
        assert start_and_stop(warm, spec, broken, step, signal.SIGKILL) == -signal.SIGKILL
    run_script(MODULE, spec, broken)
    assert hashes(broken) == hashes(whole)
    facts, undisturbed = read_facts(broken), read_facts(whole)
    assert len(facts["resumed_from"]) == 10
    assert facts["history"] == undisturbed["history"]
    for name in ("events", "samples"):
        assert facts["guards"][name] == undisturbed["guards"][name]


@pytest.mark.parametrize("method", ["dpo", "sft"])
def test_the_other_methods_train(
    method: str, make_spec: Callable[..., dict[str, Any]], warm: WarmStart, tmp_path: Path
) -> None:
    from safetensors.numpy import load_file

    spec = make_spec(method=method, epochs=1, validation_fraction=0.2)
    assert warm.start(MODULE, write_spec(spec, tmp_path / "work")).wait(timeout=120) == 0
    facts = read_facts(tmp_path / "work")
    assert (facts["rows_per_epoch"], facts["validation_rows"], facts["steps"]) == (5, 2, 5)
    assert facts["validation_loss"] > 0
    weights = load_file(tmp_path / "work" / "result" / "adapter_model.safetensors")
    # LoRA's second matrices start at zero: that they are not any more means that something was learned
    assert all(abs(value).max() > 0 for name, value in weights.items() if "lora_B" in name)


def test_two_processes_do_what_one_does(make_spec: Callable[..., dict[str, Any]], tmp_path: Path) -> None:
    from safetensors.numpy import load_file

    spec = make_spec(gradient_accumulation=4, epochs=2)  # windows of four and three pairs
    together, alone = tmp_path / "together", tmp_path / "alone"
    run_script(MODULE, spec, together)
    run_script(MODULE, {**spec, "threads": 1}, alone)
    facts, single = read_facts(together), read_facts(alone)
    assert (facts["world_size"], single["world_size"]) == (2, 1)
    assert facts["steps"] == single["steps"] == 4
    for one, other in zip(facts["history"], single["history"], strict=True):
        assert one["loss"] == pytest.approx(other["loss"], rel=5e-3)  # products in bfloat16, added in another order
        assert one["grad_norm"] == pytest.approx(other["grad_norm"], rel=5e-2)
    assert load_file(together / "result" / "adapter_model.safetensors").keys() == (
        load_file(alone / "result" / "adapter_model.safetensors").keys()
    )


def test_a_lost_process_ends_the_training_and_the_next_one_goes_on(
    make_spec: Callable[..., dict[str, Any]], dense: Path, warm: WarmStart, tmp_path: Path
) -> None:
    spec = make_spec(gradient_accumulation=2, epochs=8)  # 32 steps
    spec["base_dir"] = str(write_tiny(tmp_path / "tiny", dense))
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    run_script(MODULE, spec, whole)
    process = subprocess.Popen(
        script_command(MODULE, write_spec(spec, broken)), stderr=subprocess.PIPE, text=True, errors="replace"
    )
    peers: list[int] = []
    try:
        end = time.monotonic() + 120
        while steps_seen(broken) < 3:
            assert process.poll() is None, "ended before it could be disturbed"
            assert time.monotonic() < end, "too slow"
            time.sleep(0.005)
        peers = children(process.pid)
        assert len(peers) == 1
        os.kill(peers[0], signal.SIGKILL)
        _, told = process.communicate(timeout=60)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 1
    assert "training together failed" in told
    assert "run the same command again" in told
    run_script(MODULE, spec, broken)
    assert hashes(broken) == hashes(whole)
    assert 2 <= read_facts(broken)["resumed_from"][0] < 32
    # and the other way round: no process outlives the one that started it
    other = tmp_path / "other"
    script = warm.start(MODULE, write_spec(spec, other))
    try:
        while steps_seen(other) < 1:
            assert script.poll() is None
            time.sleep(0.005)
        peers = children(script.pid)
    finally:
        script.kill()
        script.wait()
    assert len(peers) == 1
    end = time.monotonic() + 10
    while Path(f"/proc/{peers[0]}").exists() and "Z" not in Path(f"/proc/{peers[0]}/stat").read_text().split()[2]:
        assert time.monotonic() < end, "a training process outlived its parent"
        time.sleep(0.05)


def children(pid: int) -> list[int]:
    """Processes that `pid` has started, of whichever of its threads."""
    found = [path.read_text() for path in Path(f"/proc/{pid}/task").glob("*/children")]
    return [int(child) for text in found for child in text.split()]
