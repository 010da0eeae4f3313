"""A training in several launched processes does what one does: on two nodes, with its weights shared out, and killed."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small_base import write_small_base
from training_examples import spec_for

from foundry_pipeline.declarations.compute import Compute
from foundry_pipeline.declarations.guards import Guards
from foundry_pipeline.errors import FoundryError
from foundry_pipeline.launch import read_facts, run_script, script_command, write_spec
from foundry_pipeline.training import distributed
from foundry_pipeline.training.loop import TOKENS_AT_ONCE, passes
from foundry_pipeline.training.plan import MODULE, fingerprint
from foundry_pipeline.training.shared_sum import SharedSum, make_room
from foundry_pipeline.training.team import Team

GUARDS = {"kl": {"every_steps": 3, "action": "warn"}, "probes": {"every_steps": 4, "action": "warn"}}
EXACT = {"precision": "float32", "gradient_accumulation": 4, "epochs": 4}  # windows of four and three pairs, 8 steps


@pytest.fixture(scope="module")
def spec(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("together")
    out = spec_for(write_small_base(folder / "base"), folder, **EXACT) | {"threads": 1}
    return out | {"guards": Guards.model_validate(GUARDS).model_dump(mode="json")}


@pytest.fixture(scope="module")
def alone(spec: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The work folder of the same training in one process."""
    work = tmp_path_factory.mktemp("alone")
    run_script(MODULE, spec, work)
    return work


def weights(work: Path) -> dict[str, Any]:
    from safetensors.torch import load_file

    return load_file(work / "result" / "adapter_model.safetensors")


def assert_same_course(found: dict[str, Any], wanted: dict[str, Any]) -> None:
    assert found["steps"] == wanted["steps"] == 8
    for one, other in zip(found["history"], wanted["history"], strict=True):
        assert one.keys() == other.keys()
        for name in ("loss", "nll", "grad_norm", *(["kl"] if "kl" in one else [])):
            assert one[name] == pytest.approx(other[name], rel=2e-5, abs=1e-7), (one["step"], name)
        assert one["learning_rate"] == other["learning_rate"]


def test_two_nodes_of_two_processes_take_the_steps_of_one(spec: dict[str, Any], alone: Path, tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    shared = spec | {"compute": {"processes": 2, "nodes": 2, "rendezvous": f"127.0.0.1:{port}"}}
    work = tmp_path / "nodes"
    line = script_command(MODULE, write_spec(shared, work))
    second = subprocess.Popen(line, env=os.environ | {distributed.NODE_VARIABLE: "1"}, stderr=subprocess.DEVNULL)
    try:
        run_script(MODULE, shared, work)
        assert second.wait(timeout=60) == 0
    finally:
        second.kill()
        second.wait()
    facts = read_facts(work)
    assert facts["world_size"] == 4
    assert facts["compute"] == {"processes": 2, "nodes": 2, "attention": "blocks", "gradient_checkpointing": False}
    assert_same_course(facts, read_facts(alone))
    wanted = weights(alone)
    for name, found in weights(work).items():
        assert (found.dtype, found.shape) == (wanted[name].dtype, wanted[name].shape)
        assert float((found - wanted[name]).abs().max()) < 1e-5
    assert not {"RANK", "WORLD_SIZE"} & set(os.environ)


def test_shared_out_weights_killed_and_resumed_take_the_steps_of_whole_ones(
    spec: dict[str, Any], alone: Path, tmp_path: Path
) -> None:
    shared = spec | {"compute": {"processes": 2, "sharding": "fsdp", "gradient_checkpointing": True}}
    work = tmp_path / "shared"
    process = subprocess.Popen(script_command(MODULE, write_spec(shared, work)), stderr=subprocess.DEVNULL)
    try:
        end = time.monotonic() + 240
        while len(told(work)) < 5:
            assert process.poll() is None, "ended before it could be killed"
            assert time.monotonic() < end, "too slow"
            time.sleep(0.01)
        workers = descendants(process.pid)
        process.send_signal(signal.SIGKILL)
        process.wait()
    finally:
        process.kill()
        process.wait()
    assert len(workers) == 2
    for pid in workers:  # they die with the launcher
        while alive(pid):
            assert time.monotonic() < end, "a training process outlived its launcher"
            time.sleep(0.05)
    before = told(work)
    run_script(MODULE, shared, work)
    facts = read_facts(work)
    assert facts["resumed_from"] == [4 if len(before) < 6 else 6]
    # what was done before, and done again from the checkpoint on, is the same to the bit
    assert facts["history"][: len(before)] == before
    assert_same_course(facts, read_facts(alone))
    assert facts["guards"]["samples"] == read_facts(alone)["guards"]["samples"]
    # the adapter is whole: the same names, types and shapes as ever, and the same description of it
    assert {n: (t.dtype, t.shape) for n, t in weights(work).items()} == {
        n: (t.dtype, t.shape) for n, t in weights(alone).items()
    }
    config = "adapter_config.json"
    assert (work / "result" / config).read_bytes() == (alone / "result" / config).read_bytes()


def told(work: Path) -> list[dict[str, Any]]:
    """The figures of the steps that are done, as written down."""
    file = work / "metrics.jsonl"
    lines = file.read_text().splitlines() if file.is_file() else []
    return [json.loads(line) for line in lines if line.endswith("}")]


def descendants(pid: int) -> list[int]:
    found = [int(child) for path in Path(f"/proc/{pid}/task").glob("*/children") for child in path.read_text().split()]
    return found + [below for child in found for below in descendants(child)]


def alive(pid: int) -> bool:
    with contextlib.suppress(FileNotFoundError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


sizes = st.lists(st.integers(1, TOKENS_AT_ONCE + 500), min_size=1, max_size=9)


@given(sizes, st.integers(1, 9), st.booleans())
def test_every_row_counts_once_however_many_share_them(lengths: list[int], size: int, in_step: bool) -> None:
    examples = [SimpleNamespace(tokens=n) for n in lengths]
    made = []
    for rank in range(size):
        team = Team(rank, size, [])
        team.in_step = in_step
        made.append(list(passes(range(len(lengths)), examples, team)))  # type: ignore[arg-type]
    counted = [i for one in made for group, counts in one if counts for i in group]
    assert sorted(counted) == list(range(len(lengths)))
    if in_step:
        assert len({len(one) for one in made}) == 1
        assert all(group for one in made for group, _ in one)
    else:
        assert all(counts for one in made for _, counts in one)


@given(st.integers(1, 4), st.integers(1, 40), st.integers(0, 2**32))
@settings(max_examples=40, deadline=None)
def test_numbers_in_shared_memory_are_summed_as_often_as_asked(size: int, count: int, seed: int) -> None:
    handle, together = make_room(), threading.Barrier(size)
    if handle is None:
        pytest.skip("memory without a name is Linux's")
    given_ = torch.randn(2, size, count, generator=torch.Generator().manual_seed(seed))

    def process(rank: int) -> list[torch.Tensor]:
        room = SharedSum(handle, rank, size, count, lambda: together.wait(timeout=60) and None)
        assert room.holds(room.own)
        assert not room.holds(torch.zeros(count))
        found = []
        for round_ in given_:
            room.own.copy_(round_[rank])
            room.add()
            found.append(room.own.clone())
        return found

    try:
        with ThreadPoolExecutor(size) as pool:
            every = list(pool.map(process, range(size)))
    finally:
        os.close(handle)
    for at, round_ in enumerate(given_):
        wanted = round_[0].clone()
        for numbers in round_[1:]:
            wanted += numbers
        assert all(torch.equal(found[at], wanted) for found in every)


def test_what_cannot_be_shared_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    for wrong, told in (
        ({"nodes": 2, "processes": 2}, "rendezvous"),
        ({"rendezvous": "a:1"}, "several `nodes`"),
        ({"sharding": "fsdp"}, "two `processes`"),
        ({"sharding": "fsdp", "processes": 2, "weights": "nf4"}, "not shared out"),
        ({"processes": 2, "nodes": 2, "rendezvous": "a:99999"}, "port"),
        ({"processes": 0}, "greater than or equal to 1"),
    ):
        with pytest.raises(ValueError, match=told):
            Compute.model_validate(wrong)
    two = Compute(processes=1, nodes=2, rendezvous="trainer-0:29500")
    with pytest.raises(FoundryError, match="started in 1 processes, declared for 2"):
        distributed.require_declared(two, None)
    with pytest.raises(FoundryError, match="started in 3 processes, declared for 1"):
        distributed.require_declared(Compute(), distributed.Place(0, 3, 0, 3))
    monkeypatch.setenv(distributed.NODE_VARIABLE, "2")
    with pytest.raises(FoundryError, match="no node of 2"):
        distributed.command(MODULE, Path("spec.json"), two)
    monkeypatch.setenv(distributed.NODE_VARIABLE, "1")
    line = distributed.command(MODULE, Path("spec.json"), two)
    told = {line[i]: line[i + 1] for i in range(len(line) - 1) if line[i].startswith("--")}
    assert (told["--nnodes"], told["--node-rank"], told["--master-addr"]) == ("2", "1", "trainer-0")
    assert told["--master-port"] == "29500"


def test_a_gpu_that_is_not_there_is_said_to_be_missing() -> None:
    import torch

    from foundry_pipeline.training.machine import training_device

    if torch.cuda.is_available():
        with pytest.raises(FoundryError, match="a GPU is needed for process 99"):
            training_device("cuda", 99)
    else:
        assert training_device("auto", 3) == "cpu"
        with pytest.raises(FoundryError, match="sees 0"):
            training_device("cuda")


def test_where_it_runs_enters_its_fingerprint_and_where_nodes_meet_does_not(
    spec: dict[str, Any],
) -> None:
    plain = {n: v for n, v in spec.items() if n != "guards"}
    four = plain | {"compute": {"processes": 2, "nodes": 2, "rendezvous": "a:1"}}
    elsewhere = plain | {"compute": {"processes": 2, "nodes": 2, "rendezvous": "b:2"}}
    assert fingerprint(plain, {}) == fingerprint(plain | {"compute": {}}, {})
    assert fingerprint(four, {}) == fingerprint(elsewhere, {}) != fingerprint(plain, {})
