"""What every remote provider offers: the body it is sent, the answer it gave, and the key under which that is kept."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from foundry_pipeline.errors import FoundryError
from foundry_pipeline.keys import without_keys
from foundry_pipeline.lineage.hashing import digest
from foundry_pipeline.models.money.prices import Usage
from foundry_pipeline.models.remote.service import service_name
from foundry_pipeline.models.requests import ChatRequest, FinishReason, ModelRef, Reply


@dataclass(frozen=True)
class Answer:
    """What a provider answered. `usage` is None where it told none, or nonsense: such an answer has no price."""

    text: str
    finish_reason: FinishReason
    usage: Usage | None

    def reply(self, request_id: str, request_hash: str, *, cost: int | None, seconds: float | None = None) -> Reply:
        usage = self.usage or Usage(0, 0)
        return Reply(
            request_id=request_id,
            request_hash=request_hash,
            # Half a surrogate pair, which JSON can carry, could be written neither to the cache nor to a table.
            text=without_keys(self.text).encode("utf-16", "surrogatepass").decode("utf-16", "replace"),
            finish_reason=self.finish_reason,
            prompt_tokens=usage.prompt,
            completion_tokens=usage.output,
            seconds=seconds,
            cache_read_tokens=usage.cache_read,
            cache_write_tokens=usage.cache_write,
            cost=cost,
        )


class RemoteClient(Protocol):
    """One provider's server, asked by several threads at once."""

    def ask(self, body: dict[str, Any]) -> Answer:
        """The answer to a body. Raises AttemptFailed."""
        ...

    def count_tokens(self, body: dict[str, Any]) -> int | None:
        """Tokens of the prompt as the provider counts them; None where it has no such service."""
        ...

    def told(self) -> dict[str, Any]:
        """What is worth knowing of the servers afterwards; no part of any hash."""
        ...

    def close(self) -> None: ...


def body_of(model: ModelRef, request: ChatRequest) -> dict[str, Any]:
    """What is sent for a request: the whole of it, and nothing but."""
    if model.backend == "anthropic":
        from foundry_pipeline.models.remote.anthropic_messages import message_body

        return message_body(model, request)
    from foundry_pipeline.models.remote.openai_compatible import completion_body

    return completion_body(model, request)


def client_of(model: ModelRef, *, log: Callable[[str], None] = lambda text: None) -> RemoteClient:
    """A client for the model's server or servers, with the key from the environment."""
    if model.backend == "anthropic":
        from foundry_pipeline.models.remote.anthropic_messages import ClaudeClient

        return ClaudeClient(model)
    if (model.remote or {}).get("batch"):
        raise FoundryError(
            "`batch` is the Message Batches interface of Claude; this server has none",
            where=f"{model.title}, field `remote.batch`",
            mend="set `batch: false` for this model",
        )
    from foundry_pipeline.models.remote.openai_compatible import OpenAIClient

    return OpenAIClient(model, log=log)


def request_identity(model: ModelRef, request: ChatRequest) -> str:
    """SHA-256 (hex) of a request: the model, the body that is sent, and the seed; the hash that a reply bears.

    The seed bears on it also where it is not sent: two samples of one prompt are two requests.
    """
    return digest({"model": model.content_hash, "body": body_of(model, request), "seed": request.seed})


def request_key(model: ModelRef, request: ChatRequest) -> str:
    """The key under which the answer is kept: the request's identity, and the server's where that is not the provider's.

    So a test server's answer is never found in the place of a real one, while data made from equal answers is equal.
    """
    identity, service = request_identity(model, request), service_name(model)
    return digest({"request": identity, "service": service}) if service else identity


def environment(model: ModelRef) -> dict[str, Any]:
    """What is worth knowing of how the answers were asked for; no part of any hash."""
    from importlib.metadata import version

    sampling = (
        "not sent: the interface takes none; the provider's own sampling holds, and a seed only tells samples apart"
        if model.backend == "anthropic"
        else "sent as the server allows"
    )
    return {
        "library": f"{model.backend} {version(model.backend)}",
        "model": model.path,
        "service": service_name(model) or "the provider's own",
        "sampling": sampling,
    }


def whole(value: Any) -> int | None:
    """A count of tokens, or None for what is none."""
    return value if type(value) is int and 0 <= value < 2**40 else None
