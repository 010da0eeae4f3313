"""216 answers judged by a model at 50 at a time: how much the project adds to what the server takes.

    python -m benchmarks.judging [ANSWERS] [AT_ONCE]

A server of its own answers each request after half a second. The floor is what that makes for so many requests, so many
at a time; beside it the same bodies are posted by bare threads that neither store, nor count money, nor read a reply.
"""

from __future__ import annotations

import json
import math
import sys
import tempfile
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from foundry_pipeline.declarations.judging import OpenAIJudge
from foundry_pipeline.declarations.remote import RemoteService
from foundry_pipeline.declarations.sources import Character, EvaluationPrompt
from foundry_pipeline.evaluation.model_judge import ModelJudge, judge_ref
from foundry_pipeline.models.remote.client import body_of
from tests.servers.asking import environment, judging, surroundings
from tests.servers.running import running

SECONDS = 0.5


def main(answers: int = 216, at_once: int = 50) -> None:
    someone = Character(
        character="someone", name="Someone", born="1801-01-01", died="1869-12-31", owners=("team:bench",),
        period_markers=(), anachronisms=(),
    )  # fmt: skip
    prompt = EvaluationPrompt(
        id="gt-01", category="ground_truth", difficulty="easy", text="How is the light tended?", stance="By oil.", opposed="By nobody."
    )  # fmt: skip
    remote = RemoteService(free=True, concurrency=at_once)
    declared = OpenAIJudge(kind="openai", model="judge", remote=remote)
    items = [(prompt, f"I measure the oil for the night numbered {i}.") for i in range(answers)]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with (
            running("openai", folder / "server", wait=SECONDS) as server,
            surroundings(environment(None, OPENAI_BASE_URL=server.url)),
        ):
            judge = ModelJudge(declared, someone, "He keeps the light. " * 500, judging(folder, declared))
            requests = judge.requests(items)
            bare = _bare(server.url, [body_of(judge_ref(declared), request) for request in requests], at_once)
            began = time.monotonic()
            judge.prepare(items)
            here = time.monotonic() - began
            began = time.monotonic()
            again = ModelJudge(declared, someone, "He keeps the light. " * 500, judging(folder, declared))
            again.prepare(items)
            stored = time.monotonic() - began
    floor = math.ceil(answers / at_once) * SECONDS
    print(f"{answers} judgments, {at_once} at a time, {SECONDS} s each: floor {floor:.2f} s")
    print(
        f"bare threads {bare:.2f} s · here {here:.2f} s ({here / floor:.2f} of the floor) · stored replies {stored:.2f} s"
    )


def _bare(url: str, bodies: list[dict], at_once: int) -> float:
    def post(body: dict) -> None:
        request = urllib.request.Request(
            f"{url}/chat/completions", json.dumps(body).encode(), {"content-type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=60) as answer:
            json.load(answer)

    began = time.monotonic()
    with ThreadPoolExecutor(at_once) as pool:
        list(pool.map(post, bodies))
    return time.monotonic() - began


if __name__ == "__main__":
    main(*[int(argument) for argument in sys.argv[1:]])
