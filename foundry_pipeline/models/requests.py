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

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, Protocol

from foundry_pipeline.declarations.assets import Sampling
from foundry_pipeline.errors import FoundryError
from foundry_pipeline.lineage.hashing import digest

Backend = Literal["llama_cpp", "transformers", "anthropic", "openai"]
FinishReason = Literal["stop", "length", "refusal"]
REMOTE: frozenset[Backend] = frozenset({"anthropic", "openai"})
"""Backends that are asked over the network, one request at a time: see `models/remote/`."""
BACKEND_CODE: dict[Backend, tuple[str, ...]] = {
    "llama_cpp": (
        "foundry_pipeline.models.llama_backend",
        "foundry_pipeline.models.llama_sampling",
        "foundry_pipeline.models.chat",
        "foundry_pipeline.models.vocabulary",
    ),
    "transformers": (
        "foundry_pipeline.models.hf_backend",
        "foundry_pipeline.models.hf_decode",
        "foundry_pipeline.models.cpu_products",
        "foundry_pipeline.models.chat",
        "foundry_pipeline.models.sampling",
    ),
}
"""The modules whose code makes a local backend's answers: part of every request's hash, and of the stages that ask.

Remote answers are known by the very body that is sent, so that no change of code asks, and pays, again by itself."""


@dataclass(frozen=True)
class ChatRequest:
    """One conversation to be continued by the assistant.

    `messages` are (role, content); `seed` is unsigned, 32 bits; `max_tokens` bounds the answer, not the prompt.
    `system` are instructions and material in front of the conversation, in blocks of (text, worth caching by the
    provider); a local model gets them as one system message. `schema` is the JSON schema of the answer as JSON text,
    empty for free text. Both bear on the hash only where they are set.
    """

    request_id: str
    messages: tuple[tuple[str, str], ...]
    max_tokens: int
    temperature: float
    top_k: int
    top_p: float
    seed: int
    system: tuple[tuple[str, bool], ...] = ()
    schema: str = ""

    def __post_init__(self) -> None:
        problem = None
        if not self.messages or not all(content.strip() for _, content in self.messages):
            problem = "it has no message, or an empty one"
        elif not all(text.strip() for text, _ in self.system):
            problem = "a system block is empty"
        elif self.system and any(role == "system" for role, _ in self.messages):
            problem = "it has system blocks and a system message besides; one place is enough"
        elif self.schema and not _is_object(self.schema):
            problem = "its schema is no JSON object"
        elif not _is_text([self.request_id, *(t for m in self.messages for t in m), *(t for t, _ in self.system)]):
            problem = "its text holds half a character (a lone surrogate), which cannot be written down"
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
        """The messages in the shape that chat templates take; system blocks become one system message in front."""
        system = [("system", "\n\n".join(text for text, _ in self.system))] if self.system else []
        return [{"role": role, "content": content} for role, content in (*system, *self.messages)]

    def asked(self) -> dict[str, Any]:
        """What bears on the answer: everything but the name under which it is asked for, and what is not set."""
        content = asdict(self)
        del content["request_id"]
        for name in ("system", "schema"):
            if not content[name]:
                del content[name]
        return content


def _is_text(parts: list[str]) -> bool:
    try:
        "".join(parts).encode()
    except UnicodeEncodeError:
        return False
    return True


def _is_object(text: str) -> bool:
    try:
        return isinstance(json.loads(text), dict)
    except ValueError:
        return False


@dataclass(frozen=True)
class ModelRef:
    """Weights by path and by content hash; only the hashes identify them. `title` is what a page shows.

    Of a remote model `path` is the model id, `content_hash` a digest of provider, model id and declared revision, and
    `remote` how it is asked (a `RemoteService` as plain data): `foundry_pipeline.models.remote.remote_ref` makes one.
    """

    backend: Backend
    path: str
    content_hash: str
    adapter_path: str | None
    adapter_hash: str | None
    title: str
    remote: dict[str, Any] | None = None


@dataclass(frozen=True)
class Reply:
    """An answer. `seconds` is how long it took from the start of its group; None where only the text was kept.

    `prompt_tokens` counts the whole prompt; of these `cache_read_tokens` came from the provider's cache and
    `cache_write_tokens` were written to it. `cost` is what was paid, in picodollars (1e-12 USD, so that every price
    per million tokens is whole); None for a local model, and for an answer whose usage the provider did not tell.
    """

    request_id: str
    request_hash: str
    text: str
    finish_reason: FinishReason
    prompt_tokens: int
    completion_tokens: int
    seconds: float | None = None
    cache_read_tokens: int = 0
    cache_write_tokens: int = 0
    cost: int | None = None


class ChatBackend(Protocol):
    """A local model that answers a group of requests at once; equal groups give equal replies."""

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
