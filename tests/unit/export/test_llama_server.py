"""The exported file in llama.cpp's own server: one greedy question over HTTP gets the pipeline's answer."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from foundry_pipeline.models.llama_backend import BATCH, LlamaBackend
from foundry_pipeline.models.requests import ChatRequest, ModelRef

ASKED = ("What is a faction?", "Of what use is a second chamber, when the first is chosen by the people?")
TOKENS = 40


@pytest.fixture(scope="module")
def server(tiny_gguf: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of `python -m llama_cpp.server` on the quantized file, in the pipeline's configuration for one request."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    options = {
        "model": tiny_gguf / "q4_k_m.gguf", "n_ctx": 256, "n_batch": BATCH, "n_ubatch": BATCH, "n_threads": 2,
        "n_threads_batch": 2, "flash_attn": True, "host": "127.0.0.1", "port": port,
    }  # fmt: skip
    log = (tmp_path_factory.mktemp("server") / "log").open("w+")
    process = subprocess.Popen(
        [sys.executable, "-m", "llama_cpp.server", *(str(x) for n, v in options.items() for x in (f"--{n}", v))],
        env={**os.environ, "CUDA_VISIBLE_DEVICES": ""},
        stdout=log,
        stderr=log,
    )
    address = f"http://127.0.0.1:{port}/v1"
    try:
        give_up = time.monotonic() + 120
        while True:
            try:
                urllib.request.urlopen(f"{address}/models", timeout=5).close()
                break
            except (urllib.error.URLError, OSError):
                log.seek(0)
                said = log.read()[-3000:]
                assert process.poll() is None, said
                assert time.monotonic() < give_up, said
                time.sleep(0.1)
        yield address
    finally:
        process.terminate()
        process.wait(timeout=30)
        log.close()


def over_http(address: str, question: str) -> dict[str, Any]:
    body = {
        "messages": [{"role": "user", "content": question}], "temperature": 0, "max_tokens": TOKENS,
        "repeat_penalty": 1.0,
    }  # fmt: skip
    request = urllib.request.Request(
        f"{address}/chat/completions", json.dumps(body).encode(), {"content-type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=120) as answer:
        return json.loads(answer.read())


@pytest.mark.parametrize("question", ASKED)
def test_one_greedy_request_over_http_is_answered_as_in_the_pipeline(
    server: str, tiny_gguf: Path, question: str
) -> None:
    backend = LlamaBackend(ModelRef("llama_cpp", str(tiny_gguf / "q4_k_m.gguf"), "x", None, None, "tiny"), threads=2)
    request = ChatRequest("one", (("user", question),), TOKENS, 0.0, 0, 1.0, 0)
    try:
        [reply] = backend.answer([request], ["hash"])
    finally:
        backend.close()
    told = over_http(server, question)
    [choice] = told["choices"]
    assert told["usage"]["prompt_tokens"] == reply.prompt_tokens
    assert choice["finish_reason"] == reply.finish_reason
    assert choice["message"]["content"] == reply.text
    assert reply.completion_tokens > 5, "an answer this short shows nothing"
