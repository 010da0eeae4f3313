"""The chosen side by a model: prompts → views → requests → replies → responses and drops.

    views, drops = teacher_views(prompts, passages, retriever, teacher, character)
    requests = teacher_requests(views, teacher, character, constitution)
    replies = generate(teacher_ref(teacher, …), requests, …)
    responses, dropped, raw, facts = generated_responses(views, drops, replies, teacher)

A view is a prompt with the passages that fit it. The result depends on neither the order of the prompts nor that of
the passages: requests stand in the order of prompt_id.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import polars as pl

from foundry_pipeline.declarations.assets import HubModel, PypiModel
from foundry_pipeline.declarations.common import Sampling
from foundry_pipeline.declarations.generation import (
    ClaudeTeacher,
    GeneratedTeacher,
    LocalGgufTeacher,
    OpenAITeacher,
    inside,
)
from foundry_pipeline.declarations.sources import Character
from foundry_pipeline.errors import FoundryError
from foundry_pipeline.lineage.hashing import file_hash
from foundry_pipeline.models.base import pypi_file
from foundry_pipeline.models.remote import remote_ref
from foundry_pipeline.models.requests import ChatRequest, ModelRef, Reply, request_seed
from foundry_pipeline.pairs import Schema
from foundry_pipeline.pairs.teachers.frames import Retriever, answers_and_drops, check_inputs, found_for, nothing_fits
from foundry_pipeline.pairs.teachers.prompts import SCHEMA, Shown, constitution_block, view_block
from foundry_pipeline.pairs.teachers.replies import Answer, parse_reply

ALWAYS_GROUNDED = frozenset({"source_enriched"})
"""Origins whose answers must rest on a passage whatever the category: that is what they are for."""

RAW: Schema = {
    "prompt_id": pl.String,
    "reply": pl.String,
    "finish_reason": pl.String,
    "fault": pl.String,
    "passages_in_view": pl.List(pl.String),
    "prompt_tokens": pl.Int64,
    "completion_tokens": pl.Int64,
    "request_hash": pl.String,
}
"""Every reply as it came, usable or not; `fault` is null where it was used."""


@dataclass(frozen=True)
class View:
    """A prompt and the passages shown with it, best first."""

    prompt_id: str
    category: str
    difficulty: str
    origin: str
    prompt: str
    shown: tuple[Shown, ...]
    needs_passage: bool
    best_fit: float | None


def is_structured(teacher: GeneratedTeacher) -> bool:
    """Whether the teacher replies by schema."""
    return getattr(teacher, "reply_format", "json") == "json"


def teacher_title(teacher: GeneratedTeacher) -> str:
    """The name that a pair carries: kind and model, such as `claude:claude-sonnet-5-5`."""
    if isinstance(teacher, LocalGgufTeacher):
        return f"local_gguf:{teacher.model or Path(teacher.path or '').name}"
    assert isinstance(teacher, ClaudeTeacher | OpenAITeacher)
    return f"{teacher.kind}:{teacher.model}"


def teacher_sampling(teacher: GeneratedTeacher) -> Sampling:
    """How replies are drawn. Claude takes no sampling parameter: its values stand for the provider's own."""
    if isinstance(teacher, ClaudeTeacher):
        return Sampling(temperature=1.0, top_k=0, top_p=1.0, max_tokens=teacher.max_tokens)
    assert isinstance(teacher, OpenAITeacher | LocalGgufTeacher)
    return teacher.sampling


def gguf_file(teacher: LocalGgufTeacher, models: Mapping[str, PypiModel | HubModel], root: Path) -> Path:
    """The file of a local teacher. Raises FoundryError where it is missing or no packaged GGUF."""
    where = "assets/profiles/, field `teacher`"
    if teacher.model is not None:
        model = models.get(teacher.model)
        if not isinstance(model, PypiModel):
            allowed = ", ".join(sorted(n for n, m in models.items() if isinstance(m, PypiModel))) or "none is declared"
            raise FoundryError(
                f"`{teacher.model}` is no model of kind pypi_gguf", where=where, mend=f"name one of: {allowed}"
            )
        return pypi_file(model)
    path = Path(inside(str(root), teacher.path or ""))
    if not path.is_file():
        raise FoundryError(f"the teacher's file is not there: {path.name}", where=where, mend=f"put it at {path}")
    return path


def teacher_fingerprint(
    teacher: GeneratedTeacher, models: Mapping[str, PypiModel | HubModel], root: Path
) -> dict[str, str]:
    """What identifies a teacher that lies outside the declarations: a local file's hash."""
    if not isinstance(teacher, LocalGgufTeacher):
        return {}
    path = gguf_file(teacher, models, root)
    found = file_hash(path)
    if teacher.sha256 is not None and found != teacher.sha256:
        raise FoundryError(
            f"{path.name} is not the file that is declared: its SHA-256 is {found}",
            where="assets/profiles/, field `teacher.sha256`",
            mend="put the declared file there, or declare this one's hash",
        )
    return {path.name: found}


def teacher_ref(teacher: GeneratedTeacher, models: Mapping[str, PypiModel | HubModel], root: Path) -> ModelRef:
    """The model behind a teacher. Raises FoundryError for a local file that is missing or not the declared one."""
    title = teacher_title(teacher)
    if isinstance(teacher, LocalGgufTeacher):
        path = gguf_file(teacher, models, root)
        content = next(iter(teacher_fingerprint(teacher, models, root).values()))
        return ModelRef("llama_cpp", str(path), content, None, None, title)
    assert isinstance(teacher, ClaudeTeacher | OpenAITeacher)
    backend: Literal["anthropic", "openai"] = "anthropic" if isinstance(teacher, ClaudeTeacher) else "openai"
    revision = teacher.revision if isinstance(teacher, OpenAITeacher) else ""
    return remote_ref(backend, teacher.model, title=title, revision=revision, remote=teacher.remote)


def teacher_views(
    prompts: pl.DataFrame,
    passages: pl.DataFrame,
    retriever: Retriever | None,
    teacher: GeneratedTeacher,
    character: Character,
) -> tuple[list[View], list[tuple[str, str, str, str, float | None]]]:
    """(views in the order of prompt_id, drops as rows of DROPS) of `prompts` (columns PROMPTS).

    A prompt is dropped when its category is not served, or when it needs a passage and none fits. `retriever` may be
    None only where there is no passage. Raises FoundryError for passages that may not be trained on, an unknown
    origin, an id that occurs twice, and a retriever over other passages.
    """
    check_inputs(prompts, passages, character)
    rows = {r["passage_id"]: r for r in passages.select("passage_id", "document_id", "date", "text").rows(named=True)}
    views: list[View] = []
    drops: list[tuple[str, str, str, str, float | None]] = []
    for row in prompts.sort("prompt_id").iter_rows(named=True):
        category, origin = row["category"], row["origin"]
        if category not in teacher.serves:
            reason = teacher.cannot_serve.get(category, "not among the categories that the teacher serves")
            drops.append((row["prompt_id"], origin, category, f"category not served: {reason}", None))
            continue
        fitting: list[tuple[str, float]] = []
        best: float | None = None
        if retriever is not None and teacher.passages_in_view:
            fitting, best = found_for(row["prompt"], retriever, teacher.passages_in_view, teacher.min_fit, rows)
        needs = origin in ALWAYS_GROUNDED or teacher.needs_passage.get(category, True)
        if needs and not fitting:
            drops.append((row["prompt_id"], origin, category, nothing_fits(best), best))
            continue
        shown = tuple(
            Shown(p, rows[p]["document_id"], rows[p]["date"] or "", rows[p]["text"], fit)
            for p, fit in sorted(fitting, key=lambda f: (-f[1], f[0]))
        )
        views.append(View(**row, shown=shown, needs_passage=needs, best_fit=best))
    return views, drops


def teacher_requests(
    views: Sequence[View], teacher: GeneratedTeacher, character: Character, constitution: str
) -> list[ChatRequest]:
    """One request for each view, in order. The first system block is the same in all of them, and worth caching."""
    structured = is_structured(teacher)
    common = constitution_block(character, constitution, teacher, structured=structured)
    sampling = teacher_sampling(teacher)
    return [
        ChatRequest(
            request_id=view.prompt_id,
            messages=(("user", view.prompt),),
            max_tokens=sampling.max_tokens,
            temperature=sampling.temperature,
            top_k=sampling.top_k,
            top_p=sampling.top_p,
            seed=request_seed(sampling.seed, view.prompt_id),
            system=((common, True), (view_block(view.origin, view.shown), False)),
            schema=SCHEMA if structured else "",
        )
        for view in views
    ]


def generated_responses(
    views: Sequence[View],
    dropped: Sequence[tuple[str, str, str, str, float | None]],
    replies: Sequence[Reply],
    teacher: GeneratedTeacher,
) -> tuple[pl.DataFrame, pl.DataFrame, pl.DataFrame, dict[str, Any]]:
    """(responses with columns RESPONSES, drops with columns DROPS, replies as they came with columns RAW, counts).

    `dropped` are the prompts that were not asked; `replies` are in the order of `views`, FoundryError where they are
    not. Counts: prompts without a passage that were answered, and unusable replies by kind of fault.
    """
    if [r.request_id for r in replies] != [v.prompt_id for v in views]:
        raise FoundryError(
            "the replies are not those to the requests",
            where="the teacher's generation",
            mend="run the same command again",
        )
    title, structured = teacher_title(teacher), is_structured(teacher)
    rows: list[dict[str, Any]] = []
    drops, raw = list(dropped), []
    for view, reply in zip(views, replies, strict=True):
        got = parse_reply(
            reply.text,
            reply.finish_reason,
            shown=len(view.shown),
            bounds=(teacher.min_words, teacher.max_words),
            needs_passage=view.needs_passage,
            structured=structured,
        )
        usage = (reply.prompt_tokens, reply.completion_tokens, reply.request_hash)
        fault = None if isinstance(got, Answer) else got.kind
        in_view = [s.passage_id for s in view.shown]
        raw.append((view.prompt_id, reply.text, reply.finish_reason, fault, in_view, *usage))
        if not isinstance(got, Answer):
            drops.append((view.prompt_id, view.origin, view.category, f"teacher's reply: {got.reason}", view.best_fit))
            continue
        used = [view.shown[n - 1] for n in got.passages]
        rows.append(
            {
                "prompt_id": view.prompt_id,
                "origin": view.origin,
                "category": view.category,
                "difficulty": view.difficulty,
                "prompt": view.prompt,
                "chosen": got.text,
                "passage_ids": [s.passage_id for s in used],
                "fit": max((s.fit for s in used), default=None),
                "teacher": title,
                "teacher_request_hash": reply.request_hash,
            }
        )
    faults = Counter(row[3] for row in raw if row[3] is not None)
    facts = {
        "answered_without_passage": sum(not row["passage_ids"] for row in rows),
        "unusable_replies": dict(sorted(faults.items())),
    }
    return *answers_and_drops(rows, drops), pl.DataFrame(raw, RAW, orient="row").sort("prompt_id"), facts
