"""A server that speaks chat completions of the OpenAI protocol, as vLLM or llama.cpp do, faults included.

    python -m tests.servers.openai_server CONFIG.json LOG.jsonl

`models` in the config lists what it serves (a LoRA adapter is a model of its own name); the answer depends on the model,
the conversation, the seed and the temperature, as that of a real one does.
"""

from __future__ import annotations

import json
import sys
from typing import Any

from tests.servers.base import Handler, fingerprint, fitting, serve, tokens, words


class OpenAIHandler(Handler):
    def error(self, status: int, text: str, headers: dict[str, str] | None = None) -> None:
        self.send_json(status, {"error": {"message": text, "type": "error", "code": None}}, headers)

    def do_GET(self) -> None:
        if self.path == "/_test/account":
            return self.send_json(200, self.state.account())
        if self.path.endswith("/models"):
            listed = [{"id": name, "object": "model"} for name in self.state.config.get("models", [])]
            return self.send_json(200, {"object": "list", "data": listed})
        return self.error(404, "no such path")

    def do_POST(self) -> None:
        body = self.body()
        if not self.authorized():
            return self.error(401, "Incorrect API key provided")
        if not self.path.endswith("/chat/completions"):
            return self.error(404, "no such path")
        state, key = self.state, fingerprint(body)
        attempt = state.attempt(key)
        state.note("received", key=key, attempt=attempt, model=body["model"])
        served = state.config.get("models")
        if served and body["model"] not in served:
            return self.error(404, f"The model `{body['model']}` does not exist.")
        self.slow(key)
        fault = state.fault(key, attempt)
        if fault.isdigit():
            wait = {"retry-after": str(state.config.get("retry_after", 0.02))} if fault == "429" else {}
            state.note("fault", key=key, fault=fault)
            return self.error(int(fault), "simulated", wait)
        answer, counts = completion(state.config, body, key)
        if fault in ("timeout", "cut", "not_json"):
            state.bill("lost", counts)
            state.note("fault", key=key, fault=fault)
            if fault == "timeout":
                return self.hang()
            if fault == "cut":
                return self.send_cut(answer, {})
            return self.send(200, b"upstream closed", kind="text/plain")
        if fault == "no_usage":
            del answer["usage"]
        state.bill("without_usage" if fault == "no_usage" else "delivered", counts)
        headers = {"x-request-id": f"req-{key[:12]}-{attempt}"}
        self.send_json(200, answer, headers)
        text = fingerprint(answer["choices"][0]["message"]["content"] or "")
        state.note("answered", key=key, fault=fault, text=text)
        if fault == "twice":
            self.send_json(200, answer, headers)
        return None


def completion(config: dict[str, Any], body: dict[str, Any], key: str) -> tuple[dict[str, Any], dict[str, int]]:
    count = int(config.get("words", 30))
    wanted = (body.get("response_format") or {}).get("json_schema")
    text = json.dumps(fitting(wanted["schema"], key, count)) if wanted else words(key, count)
    asked = body["messages"][-1]["content"]
    finish = "length" if "[long]" in asked else "stop"
    message: dict[str, Any] = {"role": "assistant", "content": text}
    if "[refuse]" in asked:
        message = {"role": "assistant", "content": None, "refusal": "I cannot help with that."}
    prompt = sum(tokens(m["content"]) for m in body["messages"])
    counts = {"input": prompt, "output": tokens(text)}
    answer = {
        "id": f"chatcmpl-{key[:16]}",
        "object": "chat.completion",
        "model": body["model"],
        "choices": [{"index": 0, "message": message, "finish_reason": finish}],
        "usage": {"prompt_tokens": prompt, "completion_tokens": counts["output"]},
    }
    return answer, counts


if __name__ == "__main__":
    serve(OpenAIHandler, sys.argv[1:])
