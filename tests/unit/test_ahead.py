"""Stages made while a script is waited for: found by their own assets, errors left to them, nothing left running."""

import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from foundry_pipeline.chain.ahead import beside, in_order
from foundry_pipeline.chain.engine import Chain
from foundry_pipeline.chain.stage import BuildContext, Built, Kind, Stage
from foundry_pipeline.errors import FoundryError
from foundry_pipeline.lineage.store import Store
from foundry_pipeline.settings import Settings


class Bench:
    """A chain of sources, passages and a teacher's answers, and a base model made by a script."""

    def __init__(self, folder: Path) -> None:
        self.built: list[str] = []
        self.fail: str | None = None
        self.teacher_waits: threading.Event | None = None
        stages = [
            self.stage("a_base_model", "base_model", (), script=True),
            self.stage("a_passages", "passages", ("b_sources",)),
            self.stage("b_sources", "sources", ()),
            self.stage("teacher", "teacher_responses", ("a_passages",)),
            self.stage("pairs", "candidate_pairs", ("teacher",)),
        ]
        self.chain = Chain(
            {s.name: s for s in stages}, Store(folder / "store"), Settings(folder, folder / "store", "x")
        )

    def stage(self, name: str, kind: Kind, inputs: tuple[str, ...], *, script: bool = False) -> Stage:
        def build(ctx: BuildContext) -> Built:
            give_up = time.monotonic() + 30
            while name == "teacher" and self.teacher_waits is not None and not self.teacher_waits.is_set():
                assert time.monotonic() < give_up
                time.sleep(0.01)
            if self.fail == name:
                raise FoundryError("no", where=name, mend="none")
            if script:
                ctx.script("some.module", {})
            self.built.append(name)
            payload = ctx.work / "payload"
            payload.mkdir()
            (payload / "text").write_text(name + "".join(a.content_hash for a in ctx.inputs.values()))
            return Built(payload)

        return Stage(name, kind, inputs, {"of": name}, ("foundry_pipeline.keys",), build, "")

    def make(self, name: str, script: Callable[[], None] = lambda: None, said: list[str] | None = None) -> Any:
        def run(module: str, spec: Mapping[str, Any], work: Path) -> None:
            (work / "result").mkdir(parents=True)
            (work / "result.json").write_text("{}")
            script()

        ahead = beside(run, self.chain, self.chain.stages, log=(said if said is not None else []).append)
        return self.chain.materialize(name, run_script=ahead, log=print)


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def test_every_stage_stands_behind_its_inputs(bench: Bench) -> None:
    order = in_order(bench.chain, bench.chain.stages)
    assert order.index("b_sources") < order.index("a_passages") < order.index("teacher") < order.index("pairs")
    assert in_order(bench.chain, ["teacher", "b_sources"]) == ["b_sources", "teacher"]


def test_what_needs_no_script_is_made_meanwhile_and_found_afterwards(bench: Bench, tmp_path: Path) -> None:
    said: list[str] = []
    bench.make("a_base_model", said=said)
    assert sorted(bench.built) == ["a_base_model", "a_passages", "b_sources", "teacher"]
    assert [line.split()[1] for line in said] == ["b_sources", "a_passages", "teacher"]
    for name in ("b_sources", "a_passages", "teacher"):
        assert bench.make(name).reused
    assert not bench.make("pairs").reused  # of a kind that waits for its turn
    # Made in their turn, one after the other, they are the same.
    (tmp_path / "other").mkdir()
    turn = Bench(tmp_path / "other")
    for name in ("b_sources", "a_passages", "teacher"):
        done = turn.chain.materialize(name, run_script=lambda *_: None, log=print)
        assert done.artifact.content_hash == bench.chain.require(name).artifact.content_hash


def test_the_script_is_not_ended_before_the_stage_that_is_being_made(bench: Bench) -> None:
    bench.teacher_waits = threading.Event()
    # The script ends first; the teacher goes on only after that.
    bench.make("a_base_model", script=lambda: threading.Timer(0.3, bench.teacher_waits.set).start())  # type: ignore[union-attr]
    assert bench.built[-2:] == ["teacher", "a_base_model"]
    assert not [t for t in threading.enumerate() if t.name == "made ahead"]


def test_an_error_is_told_by_the_asset_whose_it_is(bench: Bench) -> None:
    bench.fail = "a_passages"
    bench.make("a_base_model")
    assert bench.built == ["b_sources", "a_base_model"]
    with pytest.raises(FoundryError, match="no"):
        bench.make("a_passages")
    bench.fail = None
    assert not bench.make("a_passages").reused


def test_a_script_that_fails_leaves_no_lock_behind(bench: Bench) -> None:
    def fail() -> None:
        threading.Timer(0.3, waits.set).start()
        raise FoundryError("the script failed", where="here", mend="again")

    bench.teacher_waits = waits = threading.Event()
    with pytest.raises(FoundryError, match="the script failed"):
        bench.make("a_base_model", script=fail)
    assert bench.make("teacher").reused


def test_an_interrupted_run_stops_at_once_and_goes_on_later(bench: Bench) -> None:
    def interrupt() -> None:
        while bench.chain.resolve("a_passages").record is None:
            time.sleep(0.01)
        raise KeyboardInterrupt

    bench.teacher_waits = threading.Event()  # and is never set
    with pytest.raises(KeyboardInterrupt):
        bench.make("a_base_model", script=interrupt)
    assert not [t for t in threading.enumerate() if t.name == "made ahead"]
    assert bench.built == ["b_sources", "a_passages"]
    bench.teacher_waits = None
    assert not bench.make("teacher").reused


def test_a_teacher_that_is_a_model_waits_for_its_turn(bench: Bench) -> None:
    told = bench.stage("teacher", "teacher_responses", ("a_passages",), script=True)
    bench.chain.stages["teacher"] = told
    bench.make("a_base_model")
    assert sorted(bench.built) == ["a_base_model", "a_passages", "b_sources"]
    assert not bench.make("teacher").reused
