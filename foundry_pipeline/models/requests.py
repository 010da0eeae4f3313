"""What is asked of a model, of which model, and what came back.

    request = ChatRequest("gt-01", (("user", "What is a faction?"),), max_tokens=160, temperature=0.7, top_k=40,
                          top_p=0.95, seed=7)
    group_hashes(model, [request], environment)  # → one SHA-256 per request: the key of its reply in the cache

Sampling means the same in every backend: keep the `top_k` likeliest tokens (0: all), of these the fewest whose
probabilities, renormalized, add up to `top_p`, then divide by the temperature and draw. Temperature 0 takes the
likeliest token and leaves the other parameters aside. This is llama.cpp's order; `transformers` would divide by the
temperature first and so keep another nucleus.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, Protocol

from foundry_pipeline.declarations.assets import Sampling
from foundry_pipeline.errors import FoundryError
from foundry_pipeline.lineage.hashing import digest

Backend = Literal["llama_cpp", "transformers"]
FinishReason = Literal["stop", "length"]
BACKEND_CODE: dict[Backend, tuple[str, ...]] = {
    "llama_cpp": (
        "foundry_pipeline.models.llama_backend",
        "foundry_pipeline.models.chat",
        "foundry_pipeline.models.vocabulary",
    ),
    "transformers": (
        "foundry_pipeline.models.hf_backend",
        "foundry_pipeline.models.chat",
        "foundry_pipeline.models.sampling",
    ),
}
"""The modules whose code makes a backend's answers: part of every request's hash, and of the stages that ask."""


@dataclass(frozen=True)
class ChatRequest:
    """One conversation to be continued by the assistant.

    `messages` are (role, content); `seed` is unsigned, 32 bits; `max_tokens` bounds the answer, not the prompt.
    """

    request_id: str
    messages: tuple[tuple[str, str], ...]
    max_tokens: int
    temperature: float
    top_k: int
    top_p: float
    seed: int

    def __post_init__(self) -> None:
        problem = None
        if not self.messages or not all(content.strip() for _, content in self.messages):
            problem = "it has no message, or an empty one"
        elif self.max_tokens < 1:
            problem = f"max_tokens is {self.max_tokens}; at least 1 is needed"
        elif self.temperature < 0 or self.top_k < 0 or not 0 < self.top_p <= 1:
            problem = f"temperature {self.temperature}, top_k {self.top_k}, top_p {self.top_p} are out of range"
        elif not 0 <= self.seed < 2**32:
            problem = f"seed {self.seed} does not fit in 32 unsigned bits"
        if problem:
            raise FoundryError(
                f"a request cannot be made: {problem}",
                where=f"request {self.request_id}",
                mend="correct the prompt or the `sampling` of the declaration that it comes from",
            )

    def chat(self) -> list[dict[str, str]]:
        """The messages in the shape that chat templates take."""
        return [{"role": role, "content": content} for role, content in self.messages]

    def asked(self) -> dict[str, Any]:
        """What bears on the answer: everything but the name under which it is asked for."""
        content = asdict(self)
        del content["request_id"]
        return content


@dataclass(frozen=True)
class ModelRef:
    """Weights by path and by content hash; only the hashes identify them. `title` is what a page shows."""

    backend: Backend
    path: str
    content_hash: str
    adapter_path: str | None
    adapter_hash: str | None
    title: str


@dataclass(frozen=True)
class Reply:
    """An answer. `seconds` is how long it took from the start of its group; None where only the text was kept."""

    request_id: str
    request_hash: str
    text: str
    finish_reason: FinishReason
    prompt_tokens: int
    completion_tokens: int
    seconds: float | None = None


class ChatBackend(Protocol):
    """A model that answers a group of requests at once; equal groups give equal replies."""

    def load(self) -> None:
        """Read the weights; once is enough, and `answer` does it where nobody has."""
        ...

    def environment(self) -> dict[str, Any]:
        """What besides model and requests the answers depend on: library versions, own code, processor,
        threads, cache mode."""
        ...

    def answer(self, requests: Sequence[ChatRequest], hashes: Sequence[str]) -> list[Reply]:
        """Replies in the order of the requests, under the given hashes. Raises FoundryError for a prompt too long."""
        ...

    def close(self) -> None: ...


def group_hashes(
    model: ModelRef, requests: Sequence[ChatRequest], *, environment: Mapping[str, Any], group_size: int
) -> list[str]:
    """SHA-256 (hex) of each request of one group.

    Batched decoding is not a function of one request: the shape of a batch decides in which order numbers are added,
    and the last bit of a sum decides between two tokens of almost equal weight. So the key of a reply covers the whole
    group, its own place in it, and the environment (see ChatBackend.environment). The request's name is left out.
    """
    group = digest(
        {
            "model": model.content_hash,
            "adapter": model.adapter_hash,
            "backend": model.backend,
            "environment": dict(environment),
            "group_size": group_size,
            "requests": [request.asked() for request in requests],
        }
    )
    return [digest({"group": group, "place": i, **request.asked()}) for i, request in enumerate(requests)]


def request_seed(seed: int, request_id: str) -> int:
    """A seed of its own for each request (32 bits, from SHA-256), so that equal questions draw different noise."""
    return int(digest([seed, request_id])[:8], 16)


class Question(Protocol):
    """Anything with a name and a text: a prompt of the suite or of the training set."""

    @property
    def id(self) -> str: ...
    @property
    def text(self) -> str: ...


def evaluation_requests(prompts: Iterable[Question], sampling: Sampling, *, max_tokens: int) -> list[ChatRequest]:
    """One request per prompt, in order, as a lone user message; `max_tokens` is the bound that holds in the profile."""
    return [
        ChatRequest(
            request_id=prompt.id,
            messages=(("user", prompt.text),),
            max_tokens=max_tokens,
            temperature=sampling.temperature,
            top_k=sampling.top_k,
            top_p=sampling.top_p,
            seed=request_seed(sampling.seed, prompt.id),
        )
        for prompt in prompts
    ]
