"""Servers that speak the OpenAI protocol, through the `openai` SDK: OpenAI's own, vLLM, SGLang, Ollama, llama.cpp.

    completion_body(model, request)
    → {"model": "madison", "messages": […], "max_tokens": 112, "temperature": 0.7, "top_p": 0.95, "seed": 7, "top_k": 40}

A LoRA adapter that vLLM serves under a name is asked for by that name as the model. OpenAI's own server calls the bound
`max_completion_tokens` and knows no top_k; every other one is sent both names as they are common there.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from foundry_pipeline.models.money.prices import Usage
from foundry_pipeline.models.remote.client import Answer, whole
from foundry_pipeline.models.remote.exchange import exchange
from foundry_pipeline.models.remote.failures import AttemptFailed, malformed
from foundry_pipeline.models.remote.servers import Servers
from foundry_pipeline.models.remote.service import DEFAULTS, address, http_client, quiet_clients, service_of
from foundry_pipeline.models.requests import ChatRequest, FinishReason, ModelRef

_ENDED: dict[str, FinishReason] = {
    "stop": "stop",
    "eos": "stop",
    "eos_token": "stop",
    "stop_sequence": "stop",
    "content_filter": "refusal",
}


def completion_body(model: ModelRef, request: ChatRequest) -> dict[str, Any]:
    """The body of `POST /chat/completions` for a request; equal requests give equal bodies."""
    remote = model.remote or {}
    official = address(model) == DEFAULTS["openai"]
    body: dict[str, Any] = {
        "model": model.path,
        "messages": request.chat(),
        "max_completion_tokens" if official else "max_tokens": request.max_tokens,
    }
    if remote.get("sampling", True):
        body |= {"temperature": request.temperature, "top_p": request.top_p, "seed": request.seed}
        if request.top_k and not official:
            body["top_k"] = request.top_k
    if request.schema:
        body["response_format"] = {
            "type": "json_schema",
            "json_schema": {"name": "answer", "strict": True, "schema": json.loads(request.schema)},
        }
    if effort := remote.get("effort"):
        body["reasoning_effort"] = effort
    return body


def read_completion(completion: dict[str, Any], request_id: str = "") -> Answer:
    """The answer in a chat completion. Raises AttemptFailed for what is none."""
    choices = completion.get("choices")
    choice = choices[0] if isinstance(choices, list) and choices else None
    message = choice.get("message") if isinstance(choice, dict) else None
    if not isinstance(choice, dict) or not isinstance(message, dict):
        raise AttemptFailed(malformed("a completion without a choice", request_id=request_id))
    finish = choice.get("finish_reason")
    if not isinstance(finish, str):
        raise AttemptFailed(malformed("a completion without finish_reason", request_id=request_id))
    usage = read_usage(completion.get("usage"))
    if isinstance(message.get("refusal"), str) and message["refusal"]:
        return Answer(message["refusal"], "refusal", usage)
    return Answer(_text(message.get("content"), request_id), _ENDED.get(finish, "length"), usage)


def _text(content: Any, request_id: str) -> str:
    if content is None:
        return ""
    if isinstance(content, str):
        return content
    parts = content if isinstance(content, list) else [None]
    texts = [p.get("text") if isinstance(p, dict) and p.get("type") == "text" else None for p in parts]
    if not all(isinstance(text, str) for text in texts):
        raise AttemptFailed(malformed("a message whose content is no text", request_id=request_id))
    return "".join(str(text) for text in texts)


def read_usage(usage: Any) -> Usage | None:
    """Token counts of a completion; None where they are missing or no counts. Cached tokens are part of the prompt."""
    if not isinstance(usage, dict):
        return None
    details = usage.get("prompt_tokens_details")
    details = details if isinstance(details, dict) else {}
    prompt, output = whole(usage.get("prompt_tokens")), whole(usage.get("completion_tokens"))
    read, write = whole(details.get("cached_tokens") or 0), whole(details.get("cache_write_tokens") or 0)
    if prompt is None or output is None or read is None or write is None or read + write > prompt:
        return None
    return Usage(prompt - read - write, output, cache_write=write, cache_read=read)


class OpenAIClient:
    """Chat completions of one server, or of several that serve the same model. Safe for threads. A server of one's own needs no key; OpenAI's raises FoundryError without."""

    def __init__(self, model: ModelRef, *, log: Callable[[str], None] = lambda text: None) -> None:
        import openai

        quiet_clients()
        service = service_of(model)
        self._sdk, self._model = openai, model
        self._timeout = float((model.remote or {}).get("timeout_seconds", 300.0))
        self._clients = {
            url: openai.OpenAI(
                api_key=service.key,
                base_url=url,
                max_retries=0,
                timeout=self._timeout,
                http_client=http_client(openai),
            )
            for url in service.base_urls
        }
        self._servers = Servers(service.base_urls, log=log)

    def ask(self, body: dict[str, Any]) -> Answer:
        with self._servers.one() as server:
            return self._ask(self._clients[server.url], body)

    def _ask(self, client: Any, body: dict[str, Any]) -> Answer:
        extra = {"top_k": body["top_k"]} if "top_k" in body else None
        sent = {name: value for name, value in body.items() if name != "top_k"}
        completion, request_id = exchange(
            self._sdk,
            lambda: client.chat.completions.with_streaming_response.create(
                **sent, extra_body=extra, timeout=self._timeout
            ),
            provider="openai",
            model=self._model.path,
            timeout=self._timeout,
        )
        return read_completion(completion, request_id)

    def count_tokens(self, body: dict[str, Any]) -> int | None:
        return None

    def told(self) -> dict[str, Any]:
        return {"servers": servers} if (servers := self._servers.told()) else {}

    def close(self) -> None:
        for client in self._clients.values():
            client.close()
