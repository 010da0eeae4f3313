"""A server that speaks the Messages, Message Batches and token-count interface of Claude, faults included.

    python -m tests.servers.claude_server CONFIG.json LOG.jsonl

Marks in a prompt ask for what a user can meet: `[refuse]`, `[long]` (cut at max_tokens), `[room]` (cut below 1,000 of
them), `[loose]` (JSON in a fence, with a comma too many), `[bad]` (400), `[huge]` (413).
Faults by chance: 400 401 403 413 429 500 529 timeout cut not_json no_usage thinking pause late429 twice (the whole reply
once more behind itself); of results of a batch: duplicate missing errored expired canceled (they come in any order always).
"""

from __future__ import annotations

import datetime as dt
import json
import random
import sys
import threading
import time
from pathlib import Path
from typing import Any

from tests.servers.base import Handler, State, fingerprint, fitting, serve, tokens, words

ERRORS = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    500: "api_error",
    529: "overloaded_error",
}
ZERO = {"input": 0, "output": 0, "cache_write": 0, "cache_read": 0}


class ClaudeState(State):
    """Besides: which prefixes are in the prompt cache, and the batches."""

    def __init__(self, config: dict[str, Any], log: Path) -> None:
        super().__init__(config, log)
        self.prefixes: set[str] = set()
        self.batches: dict[str, dict[str, Any]] = {}
        self.ending = threading.Lock()  # two may ask for a batch's results at once: it has come to an end only once


def texts(content: Any) -> str:
    return content if isinstance(content, str) else "".join(block.get("text", "") for block in content)


def prompt_counts(state: ClaudeState, body: dict[str, Any]) -> tuple[dict[str, int], str]:
    """Tokens of a prompt by how they are billed, and the prefix that is in the cache once it has been answered."""
    system = body.get("system") or []
    system = [{"type": "text", "text": system}] if isinstance(system, str) else system
    marks = [i for i, block in enumerate(system) if "cache_control" in block]
    total = sum(tokens(b["text"]) for b in system) + sum(tokens(texts(m["content"])) for m in body["messages"])
    if not marks:
        return {**ZERO, "input": total}, ""
    held = 0
    with state.lock:
        for mark in marks:
            prefix = fingerprint([block["text"] for block in system[: mark + 1]])
            if prefix in state.prefixes:
                held = sum(tokens(b["text"]) for b in system[: mark + 1])
    marked = sum(tokens(b["text"]) for b in system[: marks[-1] + 1])
    return (
        {**ZERO, "input": total - marked, "cache_write": marked - held, "cache_read": held},
        json.dumps([fingerprint([b["text"] for b in system[: m + 1]]) for m in marks]),
    )


def message(state: ClaudeState, body: dict[str, Any], flavour: str = "") -> tuple[dict[str, Any], dict[str, int]]:
    """The answer to a body, and what it is billed for."""
    key = fingerprint(body)
    asked = texts(body["messages"][-1]["content"])
    counts, prefix = prompt_counts(state, body)
    count = int(state.config.get("words", 30))
    wanted = (body.get("output_config") or {}).get("format")
    text = json.dumps(fitting(wanted["schema"], key, count)) if wanted else words(key, count)
    stop = "end_turn"
    if "[refuse]" in asked:
        text, stop = "", "refusal"
    elif "[long]" in asked or ("[room]" in asked and body["max_tokens"] < 1000):
        text, stop = text[: len(text) // 2], "max_tokens"
    elif "[loose]" in asked:
        text = f"```json\n{text[:-1]},}}\n```"
    elif flavour == "pause":
        stop = "pause_turn"
    content: list[dict[str, Any]] = [{"type": "text", "text": text}] if text else []
    if flavour == "thinking":
        content.insert(0, {"type": "thinking", "thinking": "Let me see.", "signature": "c2ln"})
    counts["output"] = min(body["max_tokens"], tokens(text))
    if prefix:
        with state.lock:
            state.prefixes.update(json.loads(prefix))
    answer = {
        "id": f"msg_{key[:20]}",
        "type": "message",
        "role": "assistant",
        "model": body["model"],
        "content": content,
        "stop_reason": stop,
        "stop_sequence": None,
        "usage": {
            "input_tokens": counts["input"],
            "cache_creation_input_tokens": counts["cache_write"],
            "cache_read_input_tokens": counts["cache_read"],
            "output_tokens": counts["output"],
            "service_tier": "standard",
        },
    }
    return answer, counts


class ClaudeHandler(Handler):
    state: ClaudeState  # type: ignore[misc]
    state_class = ClaudeState

    def error(self, status: int, text: str = "", headers: dict[str, str] | None = None) -> None:
        name = ERRORS[status]
        said = text or f"simulated {name}"
        if self.state.config.get("echo_key"):
            said += f" for key {self.headers.get('x-api-key') or self.headers.get('authorization')}"
        self.send_json(
            status,
            {"type": "error", "error": {"type": name, "message": said}, "request_id": "req_fault"},
            {"request-id": "req_fault", **(headers or {})},
        )

    def do_GET(self) -> None:
        path, _, query = self.path.partition("?")
        if path == "/_test/account":
            return self.send_json(200, self.state.account())
        if not self.authorized():
            return self.error(401, "invalid x-api-key")
        if path == "/v1/messages/batches":
            with self.state.lock:
                listed = [self.batch_view(b) for b in reversed(self.state.batches.values())]
            return self.send_json(200, {"data": listed, "has_more": False, "first_id": None, "last_id": None})
        parts = path.strip("/").split("/")
        if parts[:3] == ["v1", "messages", "batches"] and len(parts) in (4, 5):
            with self.state.lock:
                batch = self.state.batches.get(parts[3])
            if batch is None:
                return self.error(404, "no such batch")
            if len(parts) == 4:
                return self.retrieve(batch)
            if parts[4] == "results":
                return self.results(batch)
        return self.error(404, "no such path")

    def do_POST(self) -> None:
        body = self.body()
        if not self.authorized():
            self.state.note("refused", path=self.path)
            return self.error(401, "invalid x-api-key")
        if not self.headers.get("anthropic-version"):
            return self.error(400, "anthropic-version: header is required")
        path = self.path.partition("?")[0]
        if path == "/v1/messages":
            return self.messages(body)
        if path == "/v1/messages/count_tokens":
            counts, _ = prompt_counts(self.state, body)
            return self.send_json(200, {"input_tokens": sum(counts.values())})
        if path == "/v1/messages/batches":
            return self.create_batch(body)
        return self.error(404, "no such path")

    # -- messages ------------------------------------------------------------------------------------------------

    def messages(self, body: dict[str, Any]) -> None:
        state, key = self.state, fingerprint(body)
        attempt = state.attempt(key)
        state.note("received", key=key, attempt=attempt)
        if problem := unacceptable(body):
            return self.error(*problem)
        fault = state.fault(key, attempt)
        self.slow(key)
        headers = {"request-id": f"req_{key[:12]}_{attempt}"}
        if fault.isdigit():
            wait = {"retry-after": str(state.config.get("retry_after", 0.02))} if fault == "429" else {}
            state.note("fault", key=key, fault=fault)
            return self.error(int(fault), headers=wait)
        if fault == "late429":
            state.note("fault", key=key, fault=fault)
            return self.error(429, headers={"retry-after": "3600"})
        answer, counts = message(state, body, fault)
        if fault in ("timeout", "cut", "not_json"):
            state.bill("lost", counts)
            state.note("fault", key=key, fault=fault)
            if fault == "timeout":
                return self.hang()
            if fault == "cut":
                return self.send_cut(answer, headers)
            return self.send(200, b"<html><body>Welcome to our portal</body></html>", kind="text/html")
        if fault == "no_usage":
            del answer["usage"]
        state.bill("without_usage" if fault == "no_usage" else "delivered", counts)
        self.send_json(200, answer, headers)
        text = "".join(block.get("text", "") for block in answer["content"])
        state.note("answered", key=key, fault=fault, text=fingerprint(text))
        if fault == "twice":
            self.send_json(200, answer, headers)

    # -- batches -------------------------------------------------------------------------------------------------

    def create_batch(self, body: dict[str, Any]) -> None:
        state = self.state
        identifier = f"msgbatch_{len(state.batches) + 1:04d}"
        batch = {"id": identifier, "requests": body["requests"], "created": time.time()}
        ids = [r["custom_id"] for r in body["requests"]]
        if len(set(ids)) != len(ids) or not ids or any(len(i) > 64 for i in ids):
            return self.error(400, "custom_id must be unique and at most 64 characters")
        with state.lock:
            state.batches[identifier] = batch
        state.note("batch", id=identifier, keys=[fingerprint(r["params"]) for r in body["requests"]])
        if state.config.get("lose_created") and len(state.batches) == 1:
            # The batch is there, its creator never hears of it.
            self.close_connection = True
            return None
        return self.send_json(200, self.batch_view(batch))

    def batch_view(self, batch: dict[str, Any]) -> dict[str, Any]:
        ended = time.time() - batch["created"] >= float(self.state.config.get("batch_seconds", 0.1))
        created = dt.datetime.fromtimestamp(batch["created"], dt.UTC)
        count = len(batch["requests"])
        return {
            "id": batch["id"],
            "type": "message_batch",
            "processing_status": "ended" if ended else "in_progress",
            "request_counts": {
                "processing": 0 if ended else count,
                "succeeded": count if ended else 0,
                "errored": 0,
                "canceled": 0,
                "expired": 0,
            },
            "created_at": created.isoformat(),
            "expires_at": (created + dt.timedelta(hours=24)).isoformat(),
            "ended_at": dt.datetime.now(dt.UTC).isoformat() if ended else None,
            "archived_at": None,
            "cancel_initiated_at": None,
            "results_url": f"http://{self.headers['host']}/v1/messages/batches/{batch['id']}/results"
            if ended
            else None,
        }

    def retrieve(self, batch: dict[str, Any]) -> None:
        self.state.note("retrieved", id=batch["id"])
        fault = self.state.fault(batch["id"], self.state.attempt(batch["id"]))
        if fault in ("429", "500", "529"):
            return self.error(int(fault))
        return self.send_json(200, self.batch_view(batch))

    def results(self, batch: dict[str, Any]) -> None:
        """JSON lines in an order of their own; what each request came to is fixed when they are first asked for."""
        state = self.state
        with state.ending:
            if "lines" not in batch:
                lines = [line for request in batch["requests"] for line in self.result_lines(batch, request)]
                random.Random(f"{state.config.get('seed', 0)}/{batch['id']}").shuffle(lines)
                batch["lines"] = lines
        data = "".join(json.dumps(line) + "\n" for line in batch["lines"]).encode()
        attempt = state.attempt(f"{batch['id']}/results")
        if state.config.get("cut_results") and attempt == 1:
            self.send_response(200)
            self.send_header("content-type", "application/x-jsonl")
            self.send_header("content-length", str(len(data)))
            self.end_headers()
            self.wfile.write(data[: len(data) * 2 // 3])
            self.wfile.flush()
            self.close_connection = True
            return
        self.send(200, data, kind="application/x-jsonl")
        state.note("results", id=batch["id"], lines=len(batch["lines"]))

    def result_lines(self, batch: dict[str, Any], request: dict[str, Any]) -> list[dict[str, Any]]:
        state, key = self.state, fingerprint(request["params"])
        fault = state.fault(f"batch/{key}", state.attempt(f"batch/{key}"))
        name = request["custom_id"]
        if fault in ("expired", "canceled"):
            return [{"custom_id": name, "result": {"type": fault}}]
        if fault == "errored":
            error = {"type": "error", "error": {"type": "api_error", "message": "simulated"}}
            return [{"custom_id": name, "result": {"type": "errored", "error": error}}]
        if problem := unacceptable(request["params"]):
            error = {"type": "error", "error": {"type": ERRORS[problem[0]], "message": problem[1]}}
            return [{"custom_id": name, "result": {"type": "errored", "error": error}}]
        answer, counts = message(state, request["params"], fault)
        answer["usage"]["service_tier"] = "batch"
        state.bill("lost" if fault == "missing" else "delivered", counts, batch=True)
        if fault == "missing":
            return []
        state.note("answered", key=key, fault=fault, batch=batch["id"])
        line = {"custom_id": name, "result": {"type": "succeeded", "message": answer}}
        return [line, line] if fault == "duplicate" else [line]


def unacceptable(body: dict[str, Any]) -> tuple[int, str] | None:
    """What the interface refuses, whatever the script says."""
    if unknown := {"temperature", "top_k", "top_p", "seed"} & body.keys():
        return 400, f"{', '.join(sorted(unknown))}: Extra inputs are not permitted"
    if sum("cache_control" in b for b in body.get("system") or [] if isinstance(b, dict)) > 4:
        return 400, "A maximum of 4 blocks with cache_control may be provided"
    asked = texts(body["messages"][-1]["content"])
    if "[bad]" in asked:
        return 400, "messages.0: simulated bad request"
    if "[huge]" in asked:
        return 413, "Request exceeds the maximum size"
    return None


if __name__ == "__main__":
    threading.stack_size(512 * 1024)
    serve(ClaudeHandler, sys.argv[1:])
