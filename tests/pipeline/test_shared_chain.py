"""The chain with its artifacts on an S3-compatible server: the same hashes, and a second machine that builds nothing.

By default the chain to its dataset (its base model, built locally before, is sent); `make shared-store` runs it whole, with
training, export, answers and evaluation, which takes as long as the chain does.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.project import DATA, Project, contents, make_project, share_base_model
from tests.servers.s3 import S3, SECRET, s3_server

pytestmark = pytest.mark.chain

WEIGHTS = (".gguf", ".safetensors")
WHOLE = bool(os.environ.get("WHOLE_CHAIN"))
LAST = "keeper_first_serving_matrix" if WHOLE else "keeper_dataset_v1"


@dataclass
class Machines:
    """One bucket; `one` has built the chain into it, `other()` is a machine that has nothing yet."""

    server: S3
    folder: Path
    one: Project
    said: str

    def expected(self, built: Project) -> dict[str, str]:
        """Asset → content hash of the local chain, as far as it is run here."""
        return {name: content for name, content in contents(built).items() if WHOLE or name in DATA}

    def other(self, name: str) -> Project:
        project = make_project(self.folder / name)
        project.extra = self.server.environment
        return project

    def fetched(self, since: int) -> list[str]:
        """Paths of the payload files that were read from the bucket."""
        lines = self.server.requests(since)
        return [r["path"] for r in lines if r["event"] == "GET" and "/artifacts/" in r["path"]]

    def written(self, since: int) -> list[str]:
        return [r["path"] for r in self.server.requests(since) if r["event"] in ("PUT", "POST", "DELETE")]


@pytest.fixture(scope="module")
def machines(built: Project, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machines]:
    folder = tmp_path_factory.mktemp("shared")
    with s3_server(folder / "server") as server:
        one = make_project(folder / "one")
        one.extra = server.environment
        # Built on this machine before there was a bucket: it is sent, not built again.
        share_base_model(built, one)
        done = one.materialize(f"*{LAST}")
        assert done.returncode == 0, done.stdout[-6000:]
        yield Machines(server, folder, one, done.stdout)


def test_the_hashes_are_those_of_a_local_chain(machines: Machines, built: Project) -> None:
    lines = [json.loads(machines.server.get(key)) for key in machines.server.keys("index/")]
    assert {line["name"]: line["content_hash"] for line in lines} == machines.expected(built)
    assert contents(machines.one) == machines.expected(built)
    for content in set(machines.expected(built).values()):
        here = json.loads((built.store / "artifacts" / content / "manifest.json").read_text())
        there = json.loads(machines.server.get(f"artifacts/{content}/manifest.json"))
        assert there["files"] == here["files"]
    # Nothing of the keys stands in what was written, or said.
    assert SECRET not in machines.said
    for path in machines.one.root.rglob("*"):
        if path.is_file() and path.suffix not in WEIGHTS:
            assert SECRET.encode() not in path.read_bytes(), path


def test_a_second_machine_builds_nothing_and_fetches_no_weights(machines: Machines, built: Project) -> None:
    two, seen = machines.other("two"), len(machines.server.requests())
    done = two.materialize(f"*{LAST}")
    assert done.returncode == 0, done.stdout[-6000:]
    assert done.stdout.count("nothing to do, found by its inputs") == len(machines.expected(built))
    assert "built in" not in done.stdout
    assert machines.written(seen) == []
    read = machines.fetched(seen)
    assert read
    assert [path for path in read if path.endswith(WEIGHTS)] == []
    whole = sum(p.stat().st_size for p in (built.store / "artifacts").rglob("*") if p.is_file())
    told = json.loads(two.run("foundry", "store", "status", "--json").stdout)
    assert told["builds"] == len(machines.expected(built))
    assert 0 < told["traffic"]["downloaded_bytes"] < whole / 50
    assert told["traffic"].get("uploaded_bytes", 0) == 0
    # Once more: what is here is not asked for again.
    seen = len(machines.server.requests())
    assert two.materialize(f"*{LAST}").returncode == 0
    assert [path for path in machines.fetched(seen) if not path.endswith(".json")] == []


def test_what_reads_the_store_reads_it_from_there(machines: Machines) -> None:
    three = machines.other("three")
    commands = [("versions", "keeper_dataset_v1"), ("checks", "keeper_dataset_v1"), ("docs",)]
    if WHOLE:
        scored = three.materialize("keeper_first_eval")
        assert scored.returncode == 0, scored.stdout[-4000:]
        rows = json.loads(three.run("foundry", "scores", "--json").stdout)
        score = (rows if isinstance(rows, list) else rows["scores"])[0]["score_id"]
        commands += [
            ("trace", "keeper_first_eval"),
            ("replay", score),
            ("report", "keeper_first"),
            ("matrix", "keeper_first"),
            ("parity", "keeper_first"),
        ]
    for command in commands:
        done = three.run("foundry", *command)
        assert "Traceback" not in done.stdout, (command, done.stdout[-3000:])
        assert done.returncode == 0, (command, done.stdout[-3000:])
    assert not [path for path in three.store.rglob("*") if path.suffix in WEIGHTS]
    fetched = three.run("foundry", "store", "fetch", "keeper_passages")
    assert fetched.returncode == 0, fetched.stdout
    assert (Path(fetched.stdout.strip().splitlines()[-1]) / "passages.parquet").is_file()
    assert not [path for path in three.store.rglob("*") if path.suffix in WEIGHTS]


def test_a_store_that_is_away_is_told_and_loses_nothing(machines: Machines) -> None:
    four = machines.other("four")
    machines.server.configure(dead=True)
    try:
        told = four.run("foundry", "status")
    finally:
        machines.server.configure(dead=False)
    assert told.returncode == 1
    assert "does not answer" in told.stdout
    assert "Traceback" not in told.stdout
    assert four.run("foundry", "status").returncode == 0
