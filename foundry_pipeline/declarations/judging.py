"""Who judges: typed pieces of profiles.

    judge: claude                       # rubric-local, or a name from `judges`
    judges:
      claude:
        kind: claude
        model: claude-sonnet-5-5
        repeats: 1
        remote: {concurrency: 8, batch: true, effort: medium}
      second:
        kind: openai                    # any server that speaks the OpenAI protocol
        model: qwen3-32b
        remote: {base_url: "http://127.0.0.1:8000/v1", free: true}

What is declared here is hashed into the judge's version, which stands beside every score.
"""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from foundry_pipeline.declarations.common import Declaration
from foundry_pipeline.declarations.remote import RemoteService

RUBRIC_LOCAL = "rubric-local"


class RemoteJudge(Declaration):
    """What every judge that is a model declares."""

    model: str = Field(min_length=1)
    max_tokens: int = Field(default=4096, ge=256, description="bound of one reply, thinking included")
    rejudgings: int = Field(
        default=1, ge=0, le=5, description="how often a reply that cannot be read is asked for again, and only that one"
    )
    rejudge_max_tokens: int = Field(default=8192, ge=256, description="bound of a reply that is asked for again")
    repeats: int = Field(
        default=1, ge=1, le=20, description="replies to each answer, whose means are the score; their agreement is told"
    )
    remote: RemoteService = RemoteService()

    @model_validator(mode="after")
    def _more_room(self) -> Self:
        if self.rejudge_max_tokens < self.max_tokens:
            raise ValueError("rejudge_max_tokens is less than max_tokens: a reply that was cut off would be cut again")
        return self


class ClaudeJudge(RemoteJudge):
    """Claude, through the Messages or the Message Batches interface; the key is read from ANTHROPIC_API_KEY."""

    kind: Literal["claude"]


class OpenAIJudge(RemoteJudge):
    """A server that speaks the OpenAI protocol and answers by schema (vLLM, SGLang, Ollama, llama.cpp, OpenAI)."""

    kind: Literal["openai"]
    revision: str = Field(default="", description="whatever tells two states of the server's model apart")
    temperature: float = Field(default=0.0, ge=0, description="sent where `remote.sampling` allows it")


AnyJudge = Annotated[ClaudeJudge | OpenAIJudge, Field(discriminator="kind")]
