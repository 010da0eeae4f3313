"""Claude through the Messages interface of the `anthropic` SDK (2.11).

    message_body(model, request)
    → {"model": "claude-sonnet-5-5", "max_tokens": 512, "messages": [{"role": "user", "content": …}],
       "system": [{"type": "text", "text": …, "cache_control": {"type": "ephemeral"}}],
       "output_config": {"format": {"type": "json_schema", "schema": …}}}

This version of the interface takes neither temperature nor seed, so neither is sent. `stop_reason` is looked at before
the text: an answer that did not come to its own end is `length`, a refusal is `refusal`. Text is gathered from the
blocks of type `text`; the first block may be `thinking`.
"""

from __future__ import annotations

import json
from typing import Any

from foundry_pipeline.models.money.prices import Usage
from foundry_pipeline.models.remote.client import Answer, whole
from foundry_pipeline.models.remote.exchange import exchange
from foundry_pipeline.models.remote.failures import AttemptFailed, malformed
from foundry_pipeline.models.remote.service import http_client, quiet_clients, service_of
from foundry_pipeline.models.requests import ChatRequest, FinishReason, ModelRef

_BREAKPOINTS = 4  # the interface takes no more marks of what to cache
_ENDED: dict[str, FinishReason] = {"end_turn": "stop", "stop_sequence": "stop", "refusal": "refusal"}


def message_body(model: ModelRef, request: ChatRequest) -> dict[str, Any]:
    """The body of `POST /v1/messages` for a request; equal requests give equal bodies."""
    blocks = [*request.system, *((text, False) for role, text in request.messages if role == "system")]
    marked = [i for i, (_, cached) in enumerate(blocks) if cached][-_BREAKPOINTS:]
    body: dict[str, Any] = {
        "model": model.path,
        "max_tokens": request.max_tokens,
        "messages": [{"role": role, "content": text} for role, text in request.messages if role != "system"],
    }
    if blocks:
        body["system"] = [
            {"type": "text", "text": text, **({"cache_control": {"type": "ephemeral"}} if i in marked else {})}
            for i, (text, _) in enumerate(blocks)
        ]
    config: dict[str, Any] = {}
    if request.schema:
        config["format"] = {"type": "json_schema", "schema": json.loads(request.schema)}
    if effort := (model.remote or {}).get("effort"):
        config["effort"] = effort
    if config:
        body["output_config"] = config
    return body


def read_message(message: dict[str, Any], request_id: str = "") -> Answer:
    """The answer in a message of the interface. Raises AttemptFailed for what is none."""
    stop, content = message.get("stop_reason"), message.get("content")
    if not isinstance(stop, str) or not isinstance(content, list):
        raise AttemptFailed(malformed("a message without stop_reason or content", request_id=request_id))
    texts: list[str] = []
    for block in content:
        if not isinstance(block, dict) or not isinstance(block.get("type"), str):
            raise AttemptFailed(malformed("a content block without a type", request_id=request_id))
        if block["type"] == "text":
            if not isinstance(block.get("text"), str):
                raise AttemptFailed(malformed("a text block without text", request_id=request_id))
            texts.append(block["text"])
    # Whatever else stopped it (max_tokens, pause_turn, the context's end), the answer is not whole.
    return Answer("".join(texts), _ENDED.get(stop, "length"), read_usage(message.get("usage")))


def read_usage(usage: Any) -> Usage | None:
    """Token counts of a message; None where they are missing or no counts."""
    if not isinstance(usage, dict):
        return None
    counts = [
        whole(usage.get("input_tokens")),
        whole(usage.get("output_tokens")),
        whole(usage.get("cache_creation_input_tokens") or 0),
        whole(usage.get("cache_read_input_tokens") or 0),
    ]
    if any(count is None for count in counts):
        return None
    return Usage(*[count or 0 for count in counts])


class ClaudeClient:
    """Messages and token counts. Safe for threads. Raises FoundryError where there is no key."""

    def __init__(self, model: ModelRef) -> None:
        import anthropic

        quiet_clients()
        service = service_of(model)
        self.sdk, self._model = anthropic, model
        self.timeout = float((model.remote or {}).get("timeout_seconds", 300.0))
        self.client = anthropic.Anthropic(
            api_key=service.key,
            base_url=service.base_urls[0],
            max_retries=0,
            timeout=self.timeout,
            http_client=http_client(anthropic),
        )

    def ask(self, body: dict[str, Any]) -> Answer:
        message, request_id = exchange(
            self.sdk,
            lambda: self.client.messages.with_streaming_response.create(**body, timeout=self.timeout),
            provider="anthropic",
            model=self._model.path,
            timeout=self.timeout,
        )
        return read_message(message, request_id)

    def count_tokens(self, body: dict[str, Any]) -> int | None:
        kept = {name: body[name] for name in ("model", "messages", "system", "output_config") if name in body}
        counted, request_id = exchange(
            self.sdk,
            lambda: self.client.messages.with_streaming_response.count_tokens(**kept, timeout=self.timeout),
            provider="anthropic",
            model=self._model.path,
            timeout=self.timeout,
        )
        tokens = whole(counted.get("input_tokens"))
        if tokens is None:
            raise AttemptFailed(malformed("a token count without a count", request_id=request_id))
        return tokens

    def told(self) -> dict[str, Any]:
        return {}

    def close(self) -> None:
        self.client.close()
