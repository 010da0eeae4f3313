"""The short form of the campaign of faults (`make faults`): one fault of a few kinds, from a world without a model."""

from __future__ import annotations

import json
import random
import sqlite3
from pathlib import Path

import pytest

from benchmarks.faults import damage
from benchmarks.faults.judged import Outcome, Story, mends
from benchmarks.faults.nursery import Nursery
from benchmarks.faults.table import write_table
from benchmarks.faults.world import World, replies

pytestmark = pytest.mark.chain


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    made = World(tmp_path_factory.mktemp("faults") / "world", Nursery())
    made.prepare(lambda text: None, places=("data",))
    return made


def test_a_stored_answer_that_was_edited_is_noticed_mended_and_not_asked_for_again(
    world: World, tmp_path: Path
) -> None:
    """Their artifact's line in the index is gone as well, so that the answers are read again."""
    with world.servers(tmp_path / "servers", {}) as servers:
        story = Story(world, world.copy("data", tmp_path / "project"), goal="keeper_dataset_v1")
        story.servers = list(servers.values())
        connection = sqlite3.connect(story.project.store / "responses.db")
        connection.execute("UPDATE replies SET text = replace(text, 'harbour', 'garbour')")
        connection.commit()
        connection.close()
        assert replies(story.project) != story.replies
        for path in (story.project.store / "index").iterdir():
            if json.loads(path.read_text())["name"] == "keeper_teacher_responses":
                path.unlink()
        story.recover()
        outcome = story.verdict()
    assert outcome.good, outcome
    assert "foundry repair responses" in outcome.mended_by


def test_a_damaged_history_of_runs_is_moved_aside_by_the_command_that_is_named(world: World, tmp_path: Path) -> None:
    with world.servers(tmp_path / "servers", {}) as servers:
        story = Story(world, world.copy("data", tmp_path / "project"), goal="keeper_dataset_v1")
        story.servers = list(servers.values())
        (story.project.root / ".dagster/history/runs.db").write_bytes(b"no pages of a database" * 500)
        story.recover()
        outcome = story.verdict()
    assert outcome.good, outcome
    assert outcome.noticed.startswith("Dagster's history of runs is damaged")
    assert outcome.mended_by[0].startswith("mv ./.dagster ./.dagster.damaged-")


def test_an_index_line_that_was_harmed_comes_back(world: World, tmp_path: Path) -> None:
    told, outcome = damage.named(".foundry/index/*.json")(world, tmp_path, random.Random(5))
    assert outcome.good, (told, outcome)
    assert outcome.mended_by


def test_the_campaign_sees_what_falls_short(world: World, tmp_path: Path) -> None:
    """A lost answer, another hash and a row that is gone are counted: a campaign that finds nothing has looked."""
    story = Story(world, world.copy("data", tmp_path / "project"), goal="keeper_dataset_v1")
    story.doctor = lambda: None  # type: ignore[method-assign]
    for name, table in (("responses.db", "replies"), ("money.db", "entries")):
        connection = sqlite3.connect(story.project.store / name)
        connection.execute(f"DELETE FROM {table}")
        connection.commit()
        connection.close()
    line = next((story.project.store / "index").glob("*.json"))
    line.write_text(line.read_text().replace('"content_hash": "', '"content_hash": "0'))
    outcome = story.verdict()
    assert outcome.lost == len(story.replies) + len(story.money)
    assert outcome.different == 1


def test_commands_are_read_from_messages() -> None:
    text = (
        "error: x is damaged\n  where: /a\n  mend:  foundry repair keeper_dataset_v1   # and so on\n"
        "  mend:  mv /p/.dagster /p/.dagster.damaged-1   # then run the same command again\n"
        "  mend:  free disk space, then run the same command again\n"
    )
    assert mends(text) == (["foundry repair keeper_dataset_v1", "mv /p/.dagster /p/.dagster.damaged-1"], True)
    assert mends("Traceback (most recent call last):") == ([], False)


def test_the_table_tells_what_was_not_run_and_what_fell_short(tmp_path: Path) -> None:
    bad = Outcome(lost=1, found=["gone | with a bar"])
    row = {"kind": "cache", "number": 0, "what": "w", "seconds": 1.0, **bad.__dict__, "good": bad.good}
    path = write_table([row], [("cache", "c"), ("raylet", "r")], {"raylet": "no Ray"}, 1, tmp_path / "t.md")
    text = path.read_text()
    assert "1 faults, 0 as they should be; 1 lost" in text
    assert "not run: no Ray" in text
    assert "## What fell short" in text
