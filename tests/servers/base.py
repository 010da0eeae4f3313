"""What the protocol servers of the tests share: HTTP, faults drawn from a seed, an account of its own, a log.

A server is a process of its own (`running.py` starts it). It answers from the request alone, so that equal requests get
equal answers. Which fault an attempt meets is drawn from (seed, request, number of the attempt): it does not depend on
the order in which requests come in. Every request received and every answer delivered is a line of the log; what an
answer costs is booked by the server itself, from its own price list.

    config: {"seed": 7, "key": "…", "faults": {"429": 0.1, "cut": 0.05}, "most_faults": 3, "retry_after": 0.02,
             "slow": 0.0, "wait": 0.0, "hang": 3.0, "words": 30, "prices": {"input": "2", "output": "10", …}}
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import random
import sys
import threading
import time
from collections import Counter
from decimal import Decimal
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

_TEXT = (
    "the harbour keeper wrote that no vessel ought to leave while a gale stood from the north and that every lamp "
    "upon the quay should be trimmed before dusk because men who trust a neglected light trust nothing at all"
)
WORDS = _TEXT.split()


def fingerprint(body: Any) -> str:
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()


def tokens(text: str) -> int:
    """A tokenizer of a kind: a quarter of the bytes, at least one."""
    return max(1, len(text.encode()) // 4)


def words(seed: str, count: int) -> str:
    """A sentence or more, the same for the same seed."""
    draw = random.Random(seed)
    text = " ".join(draw.choice(WORDS) for _ in range(count))
    return f"{text.capitalize()}."


def fitting(schema: dict[str, Any], seed: str, count: int, name: str = "") -> Any:
    """A value that a JSON schema allows."""
    if "enum" in schema:
        return schema["enum"][0]
    if "const" in schema:
        return schema["const"]
    if "anyOf" in schema:
        return fitting(schema["anyOf"][0], seed, count, name)
    kind = schema.get("type", "string")
    if isinstance(kind, list):
        kind = "null" if "null" in kind else kind[0]
    if kind == "object":
        return {k: fitting(v, f"{seed}/{k}", count, k) for k, v in schema.get("properties", {}).items()}
    if kind == "array":
        return [fitting(schema.get("items", {}), f"{seed}/0", count, name)]
    number = round(random.Random(f"{seed}/number").uniform(0, 10), 1)
    return {"integer": schema.get("minimum", 1), "number": number, "boolean": False, "null": None}.get(
        kind, words(seed, count)
    )


class State:
    """All that the server knows; guarded by one lock."""

    def __init__(self, config: dict[str, Any], log: Path) -> None:
        self.config, self.lock = config, threading.Lock()
        self.seen: Counter[str] = Counter()
        self.billed: dict[str, Decimal] = {"delivered": Decimal(0), "lost": Decimal(0), "without_usage": Decimal(0)}
        self.answers = 0
        self._log = log.open("a", encoding="utf-8")

    def note(self, event: str, **fields: Any) -> None:
        with self.lock:
            self._log.write(json.dumps({"event": event, "at": time.time(), **fields}) + "\n")
            self._log.flush()

    def attempt(self, key: str) -> int:
        with self.lock:
            self.seen[key] += 1
            return self.seen[key]

    def fault(self, key: str, attempt: int) -> str:
        """The fault of this attempt, or an empty string."""
        if attempt > int(self.config.get("most_faults", 3)):
            return ""
        draw = random.Random(f"{self.config.get('seed', 0)}/{key}/{attempt}").random()
        for name, share in self.config.get("faults", {}).items():
            if draw < share:
                return str(name)
            draw -= share
        return ""

    def bill(self, kind: str, usage: dict[str, int], *, batch: bool = False) -> None:
        """Book an answer at the server's own prices (USD per million tokens)."""
        prices = {name: Decimal(str(value)) for name, value in self.config.get("prices", {}).items()}
        amount = sum((prices.get(name, Decimal(0)) * count for name, count in usage.items()), Decimal(0)) / Decimal(
            1_000_000
        )
        with self.lock:
            self.billed[kind] += amount * (prices.get("batch_factor", Decimal(1)) if batch else 1)
            self.answers += kind == "delivered"

    def account(self) -> dict[str, Any]:
        with self.lock:
            return {"answers": self.answers, **{name: str(amount) for name, amount in self.billed.items()}}


class Handler(BaseHTTPRequestHandler):
    """HTTP/1.1 with kept connections; subclasses route."""

    protocol_version = "HTTP/1.1"
    state: ClassVar[State]

    def log_message(self, format: str, *args: Any) -> None:
        return

    def body(self) -> Any:
        """The JSON of a request. A client that died while sending has asked nothing: ConnectionAbortedError."""
        length = int(self.headers.get("content-length") or 0)
        raw = self.rfile.read(length)
        if len(raw) < length:
            raise ConnectionAbortedError("the request ended before its body did")
        return json.loads(raw or b"null")

    def authorized(self) -> bool:
        key = self.state.config.get("key")
        given = self.headers.get("x-api-key") or (self.headers.get("authorization") or "").removeprefix("Bearer ")
        return key is None or given == key

    def send(
        self, status: int, data: bytes, *, headers: dict[str, str] | None = None, kind: str = "application/json"
    ) -> None:
        self.send_response(status)
        for name, value in {"content-type": kind, "content-length": str(len(data)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)
        self.wfile.flush()

    def send_json(self, status: int, value: Any, headers: dict[str, str] | None = None) -> None:
        self.send(status, json.dumps(value).encode(), headers=headers)

    def send_cut(self, value: Any, headers: dict[str, str]) -> None:
        """Promise a whole body, deliver half of it, and hang up."""
        data = json.dumps(value).encode()
        self.send_response(200)
        for name, text in {"content-type": "application/json", "content-length": str(len(data)), **headers}.items():
            self.send_header(name, text)
        self.end_headers()
        self.wfile.write(data[: len(data) // 2])
        self.wfile.flush()
        self.close_connection = True

    def hang(self) -> None:
        """Say nothing for longer than the client waits, then hang up."""
        time.sleep(float(self.state.config.get("hang", 3.0)))
        self.close_connection = True

    def slow(self, key: str) -> None:
        time.sleep(float(self.state.config.get("wait", 0.0)))
        most = float(self.state.config.get("slow", 0.0))
        if most:
            time.sleep(random.Random(f"slow/{key}").random() * most)


def serve(handler: type[Handler], argv: list[str]) -> None:
    """Run until killed: CONFIG.json LOG.jsonl [PORT]; the port is told on stdout."""
    handler.state = make_state(handler, json.loads(Path(argv[0]).read_text()), Path(argv[1]))

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        request_queue_size = 128

        def handle_error(self, request: Any, client_address: Any) -> None:
            if not isinstance(sys.exc_info()[1], ConnectionError):
                super().handle_error(request, client_address)

    server = Server(("127.0.0.1", int(argv[2]) if len(argv) > 2 else 0), handler)
    print(server.server_address[1], flush=True)
    with contextlib.suppress(KeyboardInterrupt):
        server.serve_forever(poll_interval=0.05)


def make_state(handler: type[Handler], config: dict[str, Any], log: Path) -> State:
    kind: type[State] = getattr(handler, "state_class", State)
    return kind(config, log)
