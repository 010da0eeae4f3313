"""The world that is broken: a project whose teacher, student and judge are servers, built once and copied for each fault.

    world = World(folder, nursery)
    world.prepare(print)                      # builds the whole chain once, and keeps it at four places of its way
    broken = world.copy("whole", folder)      # hard links where nothing is edited in place, copies elsewhere

Everything is real but small: the model of 135 million parameters, its training, its GGUF files; the servers speak the
protocols of Claude and of OpenAI over HTTP at fixed ports, since an address is part of what an answer is known by.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import socket
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.faults.nursery import Nursery
from tests.pipeline.test_claude_teacher import TEACHER
from tests.project import Project, contents, make_project
from tests.servers.running import KEY, Server, running

GOAL = "keeper_first_eval"
PLACES = {"early": "keeper_passages", "data": "keeper_dataset_v1", "ready": "keeper_first_adapter", "whole": GOAL}
PRICES = {"input": "2", "output": "10", "cache_write": "2.5", "cache_read": "0.1"}
JUDGE = """judge: claude
judges:
  claude: {kind: claude, model: claude-sonnet-5-5, max_tokens: 800, rejudge_max_tokens: 1600,
           remote: {concurrency: 4, effort: low}}
"""
TOPICS = (
    "the oil", "the wick", "the brig", "the ledge", "the gale", "the boat", "your son", "the nine men", "your office",
    "the Board", "your wages", "the chart", "the channel", "the mariner", "the first watch", "the dawn",
)  # fmt: skip
# Trained on invented sentences the model is sure of no next word: of 64 words a quantized copy prefers several others.
PARITY = """parity:
  tokens: 64
  tokens_per_prompt: 16
  bounds: {adapter: {max_kl: 0.01, min_top1: 0.75}, merged: {max_kl: 0.02, min_top1: 0.75}, f16: {max_kl: 0.01, min_top1: 0.75},
           q8_0: {max_kl: 0.05, min_top1: 0.7}, q5_k_m: {max_kl: 0.5, min_top1: 0.4}, q4_k_m: {max_kl: 0.5, min_top1: 0.4}}
"""
LINKED = ("artifacts", "index")
LEFT_OUT = ("exports", "reports", "tensorboard", "docs", "quarantine")


@dataclass
class Reference:
    """What an undisturbed run ends with."""

    contents: dict[str, str]
    replies: dict[str, tuple[Any, ...]]
    scores: dict[str, dict[str, Any]]
    money: dict[str, dict[str, Any]]
    answered: dict[str, str] = field(default_factory=dict)  # key of a request at a server → hash of its answer's text


class World:
    """The project, its servers' ports and what an undisturbed run gave. `folder` is kept between runs of a campaign."""

    def __init__(self, folder: Path, nursery: Nursery) -> None:
        self.folder, self.nursery = folder, nursery
        self.ports: dict[str, int] = {}
        self.reference = Reference({}, {}, {}, {})

    # -- once -----------------------------------------------------------------------------------------------------

    def prepare(self, say: Callable[[str], None], places: Sequence[str] = tuple(PLACES)) -> None:
        """Build what is not there yet, as far as the last of the places; a prepared world is read again."""
        last = places[-1]
        told = self.folder / "world.json"
        if told.is_file():
            found = json.loads(told.read_text())
            self.ports = found["ports"]
            if self._stands(last):
                self.reference = self._look(self._place(last))
                self.reference.answered = found["answered"]
                return
            say("the chain is another than when the world was built: it is built again")
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)
        self.ports = {"claude": _free_port(), "openai": _free_port()}
        project = self.new_project(self.folder / "origin")
        answered: dict[str, str] = {}
        with self.servers(self.folder / "servers", {}) as servers:
            for place in places:
                asset = PLACES[place]
                say(f"building the undisturbed chain as far as {asset}")
                code, text = self.nursery.run(materialize(asset), project.root, self.environment(project))
                if code != 0:
                    raise SystemExit(f"the undisturbed chain cannot be built:\n{text[-4000:]}")
                _copy(project.root, self._place(place).root)
            for server in servers.values():
                answered |= {line["key"]: line.get("text", "") for line in server.events("answered")}
        self.reference = self._look(self._place(last))
        self.reference.answered = answered
        shutil.rmtree(project.root)
        told.write_text(json.dumps({"ports": self.ports, "answered": answered}))

    def _stands(self, place: str) -> bool:
        """Whether what was built is what the present code would build."""
        project = self._place(place)
        code, text = self.nursery.run(("foundry", "status", "--json"), project.root, self.environment(project))
        if code != 0:
            return False
        return any(row["asset"] == PLACES[place] and row["built"] for row in json.loads(text[text.index("[") :]))

    def new_project(self, root: Path) -> Project:
        make_project(root)
        tiny = (root / "assets/profiles/tiny.yaml").read_text().replace("profile: tiny", "profile: served")
        start, end = tiny.index("teacher:\n"), tiny.index("filters:")
        asked = TEACHER.replace("budget: {project_usd: 1, run_usd: 1}\n", "budget: {project_usd: 5}\n")
        served = (tiny[:start] + asked + tiny[end:]).replace("judge: rubric-local\n", JUDGE)
        served = re.sub(r"(?m)^parity: .*\n", PARITY, served)
        (root / "assets/profiles/served.yaml").write_text(served)
        named = root / "sources/keeper/character.yaml"
        named.write_text(named.read_text().replace("name: The Keeper of the North Light", "name: Ephraim Stone"))
        prompts = root / "sources/keeper/prompts/training.yaml"
        more = "".join(
            f"  - {{id: base-gt-1{i:02}, category: {('ground_truth', 'verified_response', 'position_discrimination', 'character_consistency')[i % 4]},"
            f' difficulty: medium, origin: base, text: "What have you to say of {topic}, and of what befell it?"}}\n'
            for i, topic in enumerate(TOPICS)
        )
        prompts.write_text(prompts.read_text() + more)
        return Project(root, profile="served")

    # -- for each fault ---------------------------------------------------------------------------------------------

    def copy(self, place: str, target: Path) -> Project:
        """The project as it stood at a place of its way."""
        _copy(self._place(place).root, target)
        return Project(target, profile="served")

    def environment(self, project: Project, **more: str) -> dict[str, str]:
        """The environment of a command in a copy."""
        kept = {k: v for k, v in project.environment.items() if not k.startswith(("ANTHROPIC_", "OPENAI_"))}
        return kept | {
            "ANTHROPIC_BASE_URL": f"http://127.0.0.1:{self.ports['claude']}",
            "ANTHROPIC_API_KEY": KEY,
            "OPENAI_BASE_URL": f"http://127.0.0.1:{self.ports['openai']}/v1",
            **more,
        }

    @contextlib.contextmanager
    def servers(self, folder: Path, script: dict[str, Any]) -> Iterator[dict[str, Server]]:
        """Teacher's and judge's, and student's server, with faults of a script."""
        with self.server("claude", folder, script) as claude, self.server("openai", folder, script) as openai:
            yield {"claude": claude, "openai": openai}

    @contextlib.contextmanager
    def server(self, kind: str, folder: Path, script: dict[str, Any]) -> Iterator[Server]:
        given: dict[str, Any] = (
            {"words": 45, "prices": PRICES} if kind == "claude" else {"words": 20, "models": ["small-chat"]}
        )
        with running(kind, folder / kind, port=self.ports[kind], **{**given, **script}) as server:
            yield server

    def _place(self, place: str) -> Project:
        return Project(self.folder / "places" / place, profile="served")

    def _look(self, project: Project) -> Reference:
        return Reference(contents(project), replies(project), scores(project), money(project))


def materialize(asset: str, *, alone: bool = False) -> tuple[str, ...]:
    """The command that builds an asset, with everything it needs unless alone."""
    return ("dagster", "asset", "materialize", "--select", asset if alone else f"*{asset}")


def replies(project: Project) -> dict[str, tuple[Any, ...]]:
    """Stored answers by request hash, read past the project's own code."""
    names = "request_hash, text, finish_reason, prompt_tokens, completion_tokens, cost"
    return {row[0]: tuple(row) for row in _select(project.store / "responses.db", f"SELECT {names} FROM replies")}


def scores(project: Project) -> dict[str, dict[str, Any]]:
    """Rows of the score ledger by id."""
    return _rows(project.store / "ledger.db", "scores", "score_id")


def money(project: Project) -> dict[str, dict[str, Any]]:
    """Rows of the ledger of money by id."""
    return _rows(project.store / "money.db", "entries", "entry")


def _rows(path: Path, table: str, key: str) -> dict[str, dict[str, Any]]:
    found = _select(path, f"SELECT * FROM {table}", named=True)
    out = {row[key]: row for row in found}
    assert len(out) == len(found), f"a row of {table} is there twice"
    return out


def _select(path: Path, query: str, *, named: bool = False) -> list[Any]:
    if not path.is_file() or path.stat().st_size == 0:
        return []
    connection = sqlite3.connect(path, timeout=30)
    if named:
        connection.row_factory = sqlite3.Row
    try:
        found = connection.execute(query).fetchall()
    except sqlite3.OperationalError as error:
        if "no such table" in str(error):
            return []
        raise
    finally:
        connection.close()
    return [dict(row) for row in found] if named else found


def _copy(source: Path, target: Path) -> None:
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    for entry in sorted(source.iterdir()):
        if entry.name == ".foundry":
            continue
        if entry.is_dir():
            shutil.copytree(entry, target / entry.name)
        elif not entry.name.startswith("said-"):
            shutil.copy2(entry, target / entry.name)
    (target / ".foundry").mkdir()
    for entry in sorted((source / ".foundry").iterdir()) if (source / ".foundry").is_dir() else ():
        if entry.name in LEFT_OUT:
            continue
        place = target / ".foundry" / entry.name
        if entry.is_dir():
            shutil.copytree(entry, place, copy_function=os.link if entry.name in LINKED else shutil.copy2)
        else:
            shutil.copy2(entry, place)


def own_copy(path: Path) -> Path:
    """Part a file from its hard links, so that damage to it damages nothing else."""
    beside = path.with_name(f".{path.name}.own")
    shutil.copy2(path, beside)
    beside.replace(path)
    return path


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
