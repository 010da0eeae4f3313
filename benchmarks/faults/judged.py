"""What is held after a fault: recovery by the command that the message names, and the comparison with the undisturbed run.

story = Story(world, project, servers)
story.recover()             # runs the goal; where it fails, what the message names; then the goal again
story.verdict()             # → Outcome
"""

from __future__ import annotations

import hashlib
import json
import re
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.faults.world import GOAL, Reference, World, materialize, money, replies, scores
from foundry_pipeline.chain.mending import MENDABLE, faults
from foundry_pipeline.errors import FoundryError
from foundry_pipeline.lineage.store import Store
from foundry_pipeline.settings import Settings
from tests.project import Project, children_running, contents
from tests.servers.base import fingerprint
from tests.servers.running import Server

_COMMANDS = re.compile(
    r"(foundry (?:repair|retry) [\w.-]+|foundry sources refresh [\w.-]+|dagster asset materialize --select (?:'[^']*'|\S+)"
    r"|rm (?:'[^']+'|[^\s;#`]+)|mv [^\s;#`]+ [^\s;#`]+|foundry doctor\b)"
)
# What a message asks for besides a command: that the surroundings be put right, or that one waits.
_PLAIN = ("same command", "disk space", "free some space", "writable", "wait for it")
SCRIPTS = (
    "foundry_pipeline.training.train",
    "foundry_pipeline.models.generate",
    "foundry_pipeline.models.generate_many",
    "foundry_pipeline.evaluation.evaluate",
)


@dataclass
class Outcome:
    """What became of one fault. The four counts are what must be zero; `found` says what else fell short."""

    lost: int = 0
    paid_twice: int = 0
    bypassed: int = 0
    different: int = 0
    noticed: str = "nothing"
    mended_by: list[str] = field(default_factory=list)
    found: list[str] = field(default_factory=list)

    @property
    def good(self) -> bool:
        return not (self.lost or self.paid_twice or self.bypassed or self.different or self.found)


class Story:
    """One fault in one copy of the project, from what was done to it to the verdict."""

    def __init__(self, world: World, project: Project, goal: str = GOAL, *, alone: bool = False) -> None:
        self.world, self.project, self.goal, self.alone = world, project, goal, alone
        self.more: dict[str, str] = {}
        self.outcome = Outcome()
        # Before anything happens: what is stored now must be there afterwards, and is not asked for.
        self.replies, self.scores, self.money = replies(project), scores(project), money(project)
        self.names = {*contents(project), goal}  # what stands afterwards as the undisturbed run has it
        if goal == GOAL and not alone:
            self.names |= set(self.reference.contents)
        self.undo: Callable[[], None] = lambda: None
        self.changed: set[str] = set()  # rows of money that the fault itself leaves open
        self.servers: list[Server] = []
        # Texts that are stored, by when this was seen: a request for one of them that comes later is one too many.
        self.stored_since = dict.fromkeys((fingerprint(row[1]) for row in self.replies.values()), 0.0)

    @property
    def reference(self) -> Reference:
        return self.world.reference

    def run(self, command: tuple[str, ...] | str, seconds: float = 400) -> tuple[int, str]:
        return self.world.nursery.run(
            command, self.project.root, self.world.environment(self.project, **self.more), seconds
        )

    def recover(self, *, rounds: int = 6, first: tuple[int, str] | None = None) -> None:
        """Bring the chain to its goal as a user does who follows the messages."""
        goal = materialize(self.goal, alone=self.alone)
        for turn in range(rounds):
            code, text = first if turn == 0 and first is not None else self.run(goal)
            if code == 0:
                return
            commands, plain = mends(text)
            if turn == 0:
                self.outcome.noticed = _first_error(text)
            if not commands and not plain:
                self.outcome.found.append(f"the message names no command: {text.strip()[-600:]}")
                return
            self.undo()
            for command in commands:
                if command.startswith(("rm ", "mv ")) and str(self.project.root) not in command:
                    self.outcome.found.append(f"a command outside the project is named: {command}")
                    return
                if command.startswith("dagster") and f"*{self.goal}" in command:
                    continue
                self.outcome.mended_by.append(command.replace(str(self.project.root), "."))
                done, said = self.run(command)
                if done != 0 and not command.startswith(("dagster", "foundry doctor")):
                    self.outcome.found.append(f"`{command}` failed: {said.strip()[-400:]}")
                if done != 0 and "Traceback" in said and command.startswith("foundry"):
                    self.outcome.found.append(f"`{command}` ended in a traceback")
            if not commands:
                self.outcome.mended_by.append("the same command")
        self.outcome.found.append(f"not mended after {rounds} rounds: {text.strip()[-800:]}")

    def doctor(self) -> None:
        """What no command on the way has noticed, `foundry doctor` does; what it names is done."""
        for _ in range(3):
            wrong = self.wrong()
            if not wrong:
                return
            code, text = self.run(("foundry", "doctor", "--json"))
            try:
                told = json.loads(text[text.index("{") :])
            except ValueError:
                self.outcome.found.append(f"foundry doctor failed ({code}): {text.strip()[-400:]}")
                return
            named = [c for f in told["findings"] if not f["ok"] for c in _COMMANDS.findall(f.get("mend", ""))]
            named = [c for c in named if c.startswith("foundry repair")]
            if not named:
                if wrong := self.wrong():
                    self.outcome.found.append(f"doctor is silent about: {wrong}")
                return  # a second copy that is gone begins anew as soon as anything opens the database
            if self.outcome.noticed == "nothing":
                self.outcome.noticed = f"by foundry doctor: {wrong[0][:90]}"
            for command in dict.fromkeys(named):
                self.outcome.mended_by.append(command)
                self.run(command)
            self.recover()
        if wrong := self.wrong():
            self.outcome.found.append(f"still wrong after the doctor's commands: {wrong}")

    def wrong(self) -> list[str]:
        """What is wrong in the store, by this campaign's own look at every file."""
        settings = Settings(self.project.root, self.project.store, self.project.profile)
        out = []
        for what in MENDABLE:
            try:
                out += [f"{what}: {text}" for text in faults(settings, what)]
            except FoundryError as error:
                out.append(f"{what}: {error.what}")
        store = Store(self.project.store)
        try:
            for record in store.records():
                store.open(record.content_hash, name=record.name)
        except FoundryError as error:
            out.append(error.what)
        return out

    def verdict(self) -> Outcome:
        """Compare with the undisturbed run."""
        out = self.outcome
        self.doctor()
        now = contents(self.project)
        wanted = {name: content for name, content in self.reference.contents.items() if name in self.names}
        for name, content in wanted.items():
            if now.get(name) != content:
                out.different += 1
                out.found.append(f"{name} is {str(now.get(name))[:12]}, undisturbed {content[:12]}")
        self._answers()
        self._ledgers()
        self._left_behind()
        return out

    def _answers(self) -> None:
        now = replies(self.project)
        for key, row in self.replies.items():
            if now.get(key) != row:
                self.outcome.lost += 1
                self.outcome.found.append(f"the stored answer {key[:12]} is {'gone' if key not in now else 'another'}")
        delivered: dict[str, int] = {}
        for server in self.servers:
            for line in server.events("received"):
                text = self.reference.answered.get(line["key"])
                if text in self.stored_since and line["at"] > self.stored_since[text]:
                    self.outcome.paid_twice += 1
                    self.outcome.found.append(f"asked again though stored: {line['key'][:12]}")
            for line in server.events("answered"):
                delivered[line["key"]] = delivered.get(line["key"], 0) + 1
        self.outcome.paid_twice += sum(
            max(0, count - 1 - self.in_flight.get(key, 0)) for key, count in delivered.items()
        )

    @property
    def in_flight(self) -> dict[str, int]:
        """How often the answer to a request could not be stored, because what had asked was killed while it came in."""
        return getattr(self, "_in_flight", {})

    def killed(self) -> None:
        """To be called right after a kill: what was delivered and is not stored was under way, and nothing else was."""
        kept = {fingerprint(row[1]) for row in replies(self.project).values()}
        now = time.time()
        self.stored_since = dict.fromkeys(kept, now) | self.stored_since
        found: dict[str, int] = {}
        for server in self.servers:
            for line in server.events("answered"):
                if line.get("text") not in kept:
                    found[line["key"]] = found.get(line["key"], 0) + 1
        self._in_flight = found

    def _ledgers(self) -> None:
        now = scores(self.project)
        if self.scores:
            if now != self.scores:
                self.outcome.lost += 1
                self.outcome.found.append(_difference("score ledger", self.scores, now))
        elif self.goal == GOAL and now.keys() != self.reference.scores.keys():
            self.outcome.lost += 1
            self.outcome.found.append(_difference("score ledger", self.reference.scores, now))
        paid = money(self.project)
        for key, row in self.money.items():
            if paid.get(key) != row and key not in self.changed:
                self.outcome.lost += 1
                self.outcome.found.append(f"the row of money {key[:12]} is {'gone' if key not in paid else 'another'}")
        settled = [row["request_hash"] for row in paid.values() if row["state"] == "settled" and row["reserved"] > 0]
        if len(settled) != len(set(settled)):
            self.outcome.paid_twice += len(settled) - len(set(settled))
            self.outcome.found.append("an answer is settled twice in the ledger of money")
        if open_rows := [r for r in paid.values() if r["state"] == "reserved"]:
            self.outcome.found.append(f"{len(open_rows)} rows of money are still reserved")

    def _left_behind(self) -> None:
        torn = [p.name for p in (self.project.store / "artifacts").glob(".*")]
        if torn:
            self.outcome.found.append(f"left in artifacts: {torn[:3]}")
        for module in SCRIPTS:
            if alive := children_running(module, self.project.root):
                self.outcome.found.append(f"{module} lives on as {alive}")


def mends(text: str) -> tuple[list[str], bool]:
    """Commands that the messages in an output name, once each in order, and whether one asks for what no command does."""
    lines = [m.group(1).strip() for m in re.finditer(r"mend:\s+(.+)", text)]
    commands: list[str] = []
    for line in dict.fromkeys(lines):
        commands += _COMMANDS.findall(line.partition("  #")[0].partition("   #")[0])
    plain = any(word in line for line in lines for word in _PLAIN)
    return list(dict.fromkeys(commands)), plain


def _first_error(text: str) -> str:
    """The sentence in front of the first `mend:`."""
    lines = text.splitlines()
    for at, line in enumerate(lines):
        if re.match(r"\s+(where|mend):\s", line):
            back = at - 1
            while back > 0 and re.match(r"\s+where:\s", lines[back]):
                back -= 1
            return re.sub(r"^.*?(?:Error|Refused|Artifact|Locked|Failed|Ended|error): ", "", lines[back]).strip()[:140]
    return text.strip()[-140:]


def _difference(what: str, wanted: dict, now: dict) -> str:
    lost, more = wanted.keys() - now.keys(), now.keys() - wanted.keys()
    changed = sum(now[k] != wanted[k] for k in wanted.keys() & now.keys())
    return f"{what}: {len(lost)} rows lost, {len(more)} too many, {changed} changed"


def seed_of(seed: int, kind: str, number: int) -> int:
    """The seed of one fault: the same whatever else is run."""
    return int(hashlib.sha256(f"{seed}/{kind}/{number}".encode()).hexdigest()[:12], 16)


def put_in_place(path: Path, data: bytes) -> None:
    """Damage by replacing: what shares the old file by a hard link keeps it."""
    beside = path.with_name(f".{path.name}.damage")
    beside.write_bytes(data)
    beside.replace(path)
