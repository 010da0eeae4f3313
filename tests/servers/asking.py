"""What tests of remote generation share: a price table of their own, requests, and the script as a user's run starts it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stderr
from dataclasses import asdict
from pathlib import Path
from typing import Any

from foundry_pipeline.declarations.judging import AnyJudge
from foundry_pipeline.declarations.remote import RemoteService
from foundry_pipeline.errors import FoundryError
from foundry_pipeline.evaluation.model_judge import Ask, judge_ref
from foundry_pipeline.launch import ScriptSession, write_json
from foundry_pipeline.models.cache import ResponseCache
from foundry_pipeline.models.generate import request_lines
from foundry_pipeline.models.generate import run as generate_run
from foundry_pipeline.models.money.spending import open_spending
from foundry_pipeline.models.remote import remote_ref
from foundry_pipeline.models.remote.answering import answer_all
from foundry_pipeline.models.requests import ChatRequest, ModelRef, Reply
from tests.servers.running import KEY, ROOT, Server

MODEL = "claude-test-1"
# The server's own prices; the table below says the same to the client.
PRICES = {"input": "3", "output": "15", "cache_write": "3.75", "cache_read": "0.3", "batch_factor": "0.5"}
SYSTEM = (("You keep the harbour light, and speak as its keeper. " * 20, True),)


def price_table(folder: Path) -> Path:
    """A price table that knows the test model."""
    rows = [
        {"provider": p, "model": MODEL, **PRICES, "valid_from": "2020-01-01", "source": "test"}
        for p in ("anthropic", "openai")
    ]
    path = folder / "prices.yaml"
    path.write_text(json.dumps({"checked": "2020-01-01", "prices": rows}), encoding="utf-8")
    return path


def ask_for(count: int, *, system: bool = True, text: str = "Question {i} to the keeper?") -> list[ChatRequest]:
    """So many requests of one job."""
    return [
        ChatRequest(f"q{i:03}", (("user", text.format(i=i)),), 64, 0.7, 40, 0.95, i, system=SYSTEM if system else ())
        for i in range(count)
    ]


def claude(**remote: Any) -> ModelRef:
    given = {"timeout_seconds": 5.0, "max_wait_seconds": 5.0, "attempts": 8, "poll_seconds": 0.05} | remote
    return remote_ref("anthropic", MODEL, remote=RemoteService(**given))


def spec_for(folder: Path, model: ModelRef, requests: list[ChatRequest], *, budget: str = "5") -> dict[str, Any]:
    """A spec of the generation script, as written by hand from its docstring."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "requests.jsonl").write_text(request_lines(requests), encoding="utf-8")
    return {
        "model": asdict(model),
        "requests": str(folder / "requests.jsonl"),
        "cache": str(folder / "responses.db"),
        "work": str(folder / "work"),
        "money": {
            "ledger": str(folder / "money.db"),
            "prices": str(price_table(folder)),
            "project_usd": budget,
            "asset": "keeper_teacher_responses",
        },
    }


def judging(folder: Path, declared: AnyJudge, *, budget: str = "5") -> Ask:
    """How a judge's requests are put: response cache and budget in `folder`, then the server that the environment names."""
    folder.mkdir(parents=True, exist_ok=True)
    money = {
        "ledger": str(folder / "money.db"),
        "prices": str(price_table(folder)),
        "project_usd": budget,
        "asset": "e",
    }

    def ask(requests: Sequence[ChatRequest]) -> list[Reply]:
        return answer_all(
            judge_ref(declared),
            requests,
            cache=ResponseCache(folder / "responses.db"),
            spending=open_spending(money),
            run="r",
            progress=lambda *args, **metrics: None,
        )

    return ask


def environment(server: Server | None, **extra: str) -> dict[str, str]:
    """The environment of a run against a server."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("ANTHROPIC_", "OPENAI_", "FOUNDRY_"))}
    asked = {} if server is None else {"ANTHROPIC_API_KEY": KEY, "ANTHROPIC_BASE_URL": server.url}
    return {**kept, **asked, "PYTHONPATH": str(ROOT), **extra}


def start(spec: dict[str, Any], server: Server | None, **extra: str) -> subprocess.Popen[str]:
    """The script as a process; what it says is appended to `said.log` beside its requests."""
    folder = Path(spec["requests"]).parent
    (folder / "spec.json").write_text(json.dumps(spec), encoding="utf-8")
    with (folder / "said.log").open("a") as said:
        return subprocess.Popen(
            [sys.executable, "-m", "foundry_pipeline.models.generate", str(folder / "spec.json")],
            cwd=folder,
            env=environment(server, **extra),
            stdout=said,
            stderr=said,
        )


def run(spec: dict[str, Any], server: Server | None, **extra: str) -> int:
    """The script's work in this process, which costs no start of another: the exit code that it would end with."""
    folder = Path(spec["requests"]).parent
    work = Path(spec["work"])
    with (folder / "said.log").open("a") as log, redirect_stderr(log), surroundings(environment(server, **extra)):
        try:
            write_json(work / "result.json", generate_run(spec, ScriptSession(None)))
        except FoundryError as error:
            print(f"error: {error}", file=log)
            write_json(work / "error.json", {"what": error.what, "where": error.where, "mend": error.mend})
            return 1
    return 0


@contextmanager
def surroundings(variables: dict[str, str]) -> Iterator[None]:
    """This process under another environment."""
    before = dict(os.environ)
    try:
        os.environ.clear()
        os.environ.update(variables)
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def said(spec: dict[str, Any]) -> str:
    return (Path(spec["requests"]).parent / "said.log").read_text(encoding="utf-8")


def facts(spec: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((Path(spec["work"]) / "result.json").read_text(encoding="utf-8"))
    return found


def files_with(folder: Path, secret: str, *, but: tuple[str, ...] = ()) -> list[str]:
    """Files below a folder in which a text stands, as bytes of any file, databases and logs included."""
    return [
        str(path)
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name not in but and secret.encode() in path.read_bytes()
    ]
