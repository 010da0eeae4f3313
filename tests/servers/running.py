"""Start a protocol server of the tests as a process of its own, and read what it saw.

with running("claude", tmp_path, faults={"429": 0.2}) as server:
    …  server.url, server.log(), server.account()
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
# Not the shape of a provider's key: that would be found by whoever looks for leaked ones in this repository.
KEY = "test-key-0d3a7c51e9f24b68"


@dataclass
class Server:
    """A running server. `url` is what a base address is set to."""

    url: str
    log_file: Path
    process: subprocess.Popen[str]

    def log(self) -> list[dict[str, Any]]:
        """What it received and delivered, in order; a line that is being written is left out."""
        lines = self.log_file.read_text(encoding="utf-8").split("\n")[:-1]
        return [json.loads(line) for line in lines if line]

    def events(self, name: str) -> list[dict[str, Any]]:
        return [line for line in self.log() if line["event"] == name]

    def account(self) -> dict[str, Decimal]:
        """What the server billed, in US dollars: delivered, lost on the way, and delivered without usage."""
        root = self.url.removesuffix("/v1")
        with urllib.request.urlopen(f"{root}/_test/account", timeout=10) as answer:
            return {name: Decimal(value) for name, value in json.loads(answer.read()).items()}


@contextmanager
def running(kind: str, folder: Path, *, port: int = 0, **config: Any) -> Iterator[Server]:
    """A server of that kind (`claude`, `openai`) until the block ends. `key` defaults to KEY for Claude, to none else."""
    folder.mkdir(parents=True, exist_ok=True)
    config.setdefault("key", KEY if kind == "claude" else None)
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    log = folder / "server.jsonl"
    process = subprocess.Popen(
        [sys.executable, "-m", f"tests.servers.{kind}_server", str(folder / "config.json"), str(log), str(port)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        told = process.stdout.readline().strip()
        assert told.isdigit(), f"the {kind} server did not start"
        url = f"http://127.0.0.1:{told}" + ("/v1" if kind == "openai" else "")
        yield Server(url, log, process)
    finally:
        process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()
