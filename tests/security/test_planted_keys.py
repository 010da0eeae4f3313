"""Keys and passwords are planted, everything is run that writes, and all that was written is searched."""

from __future__ import annotations

import base64
import json
import sqlite3
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests.pipeline.test_claude_teacher import TEACHER
from tests.project import Project, make_project

KEY, PASSWORD = "planted-key-0123456789abcdef", "planted password/ä"
QUOTED = "planted%20password%2F%C3%A4"


class Echo(BaseHTTPRequestHandler):
    """The worst of servers: it repeats the key in its error, or sends elsewhere."""

    elsewhere = ""
    seen: list[str]

    def do_POST(self) -> None:
        self.seen.append(str(self.headers))
        self.rfile.read(int(self.headers.get("content-length") or 0))
        given = [v for k, v in self.headers.items() if k.lower() in ("authorization", "x-api-key")]
        told = {"type": "error", "error": {"type": "invalid_request_error", "message": f"bad: {given}"}}
        body = json.dumps(told).encode()
        self.send_response(307 if self.elsewhere else 400)
        if self.elsewhere:
            self.send_header("Location", self.elsewhere + self.path)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Nothing on the terminal."""


def echo(elsewhere: str = "") -> tuple[ThreadingHTTPServer, list[str], str]:
    handler = type("Handler", (Echo,), {"elsewhere": elsewhere, "seen": []})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server, handler.seen, f"http://127.0.0.1:{server.server_address[1]}"


@pytest.fixture(scope="module")
def outcome(tmp_path_factory: pytest.TempPathFactory) -> tuple[Project, list[str], dict[str, list[str]]]:
    folder = tmp_path_factory.mktemp("planted")
    project = make_project(folder / "project")
    tiny = (project.root / "assets/profiles/tiny.yaml").read_text().replace("profile: tiny", "profile: served")
    start, end = tiny.index("teacher:\n"), tiny.index("filters:")
    (project.root / "assets/profiles/served.yaml").write_text(tiny[:start] + TEACHER + tiny[end:])
    key = folder / "key"  # outside the project, which is searched
    key.write_text(KEY + "\n")
    key.chmod(0o600)
    other, strayed, there = echo()
    sender, sent, away = echo(elsewhere=there)
    echoing, seen, url = echo()
    project.profile = "served"
    project.extra = {
        "ANTHROPIC_API_KEY_FILE": str(key),
        "OPENAI_API_KEY": KEY[::-1],
        "ANTHROPIC_BASE_URL": url,
        "FOUNDRY_LEDGER_URL": f"postgresql://foundry:{QUOTED}@127.0.0.1:1/scores?connect_timeout=1",
    }
    said = []
    try:
        done = project.materialize("*keeper_teacher_responses")
        assert done.returncode != 0
        said.append(done.stdout)
        project.extra["ANTHROPIC_BASE_URL"] = away
        said.append(project.materialize("keeper_teacher_responses").stdout)
        said.append(project.run("foundry", "scores").stdout)
    finally:
        for server in (other, sender, echoing):
            server.shutdown()
            server.server_close()
    return project, said, {"echo": seen, "sender": sent, "elsewhere": strayed}


def secrets() -> list[bytes]:
    plain = [KEY, KEY[::-1], PASSWORD, QUOTED]
    return [
        form
        for s in plain
        for form in (s.encode(), base64.b64encode(s.encode())[:16], json.dumps(s).strip('"').encode())
    ]


def test_the_keys_were_really_in_use(outcome) -> None:
    _, said, asked = outcome
    assert any(KEY in headers for headers in asked["echo"])
    assert "[key removed]" in said[0]
    assert "400 bad request" in said[0]


def test_nothing_that_was_printed_holds_one(outcome) -> None:
    _, said, _ = outcome
    assert not [s for text in said for s in secrets() if s in text.encode()]
    assert "127.0.0.1:1" in said[2]  # the ledger's place is told, without its password


def test_nothing_that_was_written_holds_one(outcome) -> None:
    """Store, cache of answers, Dagster's home with event logs and compute logs, manifests, reports."""
    project, _, _ = outcome
    files = [p for p in project.root.rglob("*") if p.is_file()]
    assert any(".dagster" in p.parts and p.suffix == ".db" for p in files)
    assert any("compute_logs" in p.parts for p in files)
    assert any(".foundry" in p.parts for p in files)
    assert [(p, s) for p in files for s in secrets() if s in p.read_bytes()] == []


def test_the_history_holds_the_error_without_the_key(outcome) -> None:
    project, _, _ = outcome
    rows = []
    for path in project.root.glob(".dagster/**/*.db"):
        with sqlite3.connect(f"file:{path}?mode=ro", uri=True) as connection:
            if connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'event_logs'").fetchone():
                rows += [event for (event,) in connection.execute("SELECT event FROM event_logs")]
    assert any("400 bad request" in event for event in rows)
    assert not any(KEY in event for event in rows)


def test_a_server_that_sends_elsewhere_is_not_followed(outcome) -> None:
    _, said, asked = outcome
    assert asked["sender"]
    assert asked["elsewhere"] == []
    assert "redirect" in said[1]


def test_the_environment_is_in_no_process_list(outcome) -> None:
    """Keys reach scripts by the environment, never by arguments: the specs on disk have been searched above."""
    from foundry_pipeline.launch import script_command

    assert KEY not in " ".join(script_command("x", Path("spec.json")))
