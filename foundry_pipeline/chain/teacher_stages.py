"""Stages of the chosen side: the teacher's responses, of whichever kind the profile declares, and introspection data.

A generated teacher works in a process of its own (`models.generate`), so that it can be killed and goes on from the
answers it has. Introspection is a stage where the teacher is a model and the character declares what to reflect on;
elsewhere supervised rows are the character's own passages.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import polars as pl

from foundry_pipeline.chain.frames import held_out_texts, payload_folder, read_frame, suite_texts
from foundry_pipeline.chain.generation import generate_in_child
from foundry_pipeline.chain.stage import BuildContext, Built, Demand, Stage
from foundry_pipeline.corpus.passages import own_passages
from foundry_pipeline.datasets.mixture import scaled
from foundry_pipeline.declarations import CharacterFiles, Declarations
from foundry_pipeline.declarations.assets import Dataset, Filters, Profile
from foundry_pipeline.declarations.generation import GeneratedTeacher, LocalGgufTeacher, PrimarySourceTeacher
from foundry_pipeline.lineage.hashing import digest
from foundry_pipeline.lineage.store import Artifact
from foundry_pipeline.models.remote.service import fingerprint
from foundry_pipeline.models.requests import BACKEND_CODE, ChatRequest, ModelRef, Reply
from foundry_pipeline.pairs import introspection
from foundry_pipeline.pairs.overlap import OverlapIndex
from foundry_pipeline.pairs.teachers.frames import Retriever, prompts_frame
from foundry_pipeline.pairs.teachers.generated import (
    View,
    generated_responses,
    teacher_fingerprint,
    teacher_ref,
    teacher_requests,
    teacher_sampling,
    teacher_title,
    teacher_views,
)
from foundry_pipeline.pairs.teachers.primary_source import primary_source_responses
from foundry_pipeline.pairs.teachers.prompts import constitution_block, view_block

_PASSAGE_BYTES = 1200  # of a passage of 160 words with its marks, for an estimate before there are passages
_CODE = ("pairs.teachers.frames", "corpus.retrieval", "corpus.minilm", "textstats")
_GENERATED_CODE = (
    *("pairs.teachers.prompts", "pairs.teachers.replies", "pairs.teachers.generated"),
    *("models.generate", "models.requests"),
)


def _modules(*names: str) -> tuple[str, ...]:
    return tuple(f"foundry_pipeline.{name}" for name in names)


def _retriever(own: pl.DataFrame, threads: int) -> Retriever | None:
    from foundry_pipeline.corpus.retrieval import Retriever as Hybrid

    return Hybrid(own, threads=threads) if own.height else None


# -- the teacher's responses ---------------------------------------------------------------------------------------


def build_primary_source(
    ctx: BuildContext, *, files: CharacterFiles, teacher: PrimarySourceTeacher, passages: str, threads: int
) -> Built:
    from foundry_pipeline.corpus.embeddings import KeptVectors
    from foundry_pipeline.corpus.retrieval import Retriever as Hybrid

    own = own_passages(read_frame(ctx.inputs[passages], "passages"))
    prompts = prompts_frame(files.training_prompts)
    # With as many threads as the judge embeds with, who then finds these passages' vectors there.
    retriever = Hybrid(own, encoder=KeptVectors(ctx.settings.vectors_path, threads=max(1, threads // 2)))
    retriever.read(prompts.filter(pl.col("category").is_in(list(teacher.serves)))["prompt"])
    responses, drops = primary_source_responses(prompts, own, retriever, teacher, files.character)
    payload = payload_folder(ctx)
    responses.write_parquet(payload / "responses.parquet")
    drops.write_parquet(payload / "drops.parquet")
    return Built(
        payload, {"prompts": len(files.training_prompts), "answered": responses.height, "dropped": drops.height}
    )


def teacher_asks(
    inputs: Mapping[str, Artifact], *, files: CharacterFiles, profile: Profile, passages: str, root: Path
) -> tuple[ModelRef, list[ChatRequest]]:
    """Model and requests of a generated teacher, given the passages."""
    teacher = profile.teacher
    assert isinstance(teacher, GeneratedTeacher)
    views, _ = _views(prompts_frame(files.training_prompts), inputs[passages], files, teacher, profile.threads)
    requests = teacher_requests(views, teacher, files.character, files.constitution)
    return teacher_ref(teacher, profile.models, root), requests


def _views(
    prompts: pl.DataFrame, passages: Artifact, files: CharacterFiles, teacher: GeneratedTeacher, threads: int
) -> tuple[list[View], list[tuple[str, str, str, str, float | None]]]:
    own = own_passages(read_frame(passages, "passages"))
    return teacher_views(prompts, own, _retriever(own, threads), teacher, files.character)


def build_generated(ctx: BuildContext, *, files: CharacterFiles, profile: Profile, passages: str, root: Path) -> Built:
    teacher = profile.teacher
    assert isinstance(teacher, GeneratedTeacher)
    prompts = prompts_frame(files.training_prompts)
    views, dropped = _views(prompts, ctx.inputs[passages], files, teacher, profile.threads)
    requests = teacher_requests(views, teacher, files.character, files.constitution)
    replies, facts = generate_in_child(
        ctx,
        teacher_ref(teacher, profile.models, root),
        requests,
        folder="teacher",
        threads=profile.threads,
        group=profile.generation_group,
        precision=profile.precision,
    )
    responses, drops, raw, counts = generated_responses(views, dropped, replies, teacher)
    payload = payload_folder(ctx)
    responses.write_parquet(payload / "responses.parquet")
    drops.write_parquet(payload / "drops.parquet")
    raw.write_parquet(payload / "replies.parquet")
    kept = {"prompts": prompts.height, "answered": responses.height, "dropped": drops.height}
    return Built(payload, {**facts, **counts, **kept})


def teacher_stage(d: Declarations, character: str, passages: str) -> Stage:
    """The teacher's responses of one character, under the profile's teacher."""
    files, profile = d.characters[character], d.profile
    teacher = profile.teacher
    declaration: dict[str, Any] = {
        "teacher": teacher.model_dump(mode="json"),
        "prompts": [p.model_dump(mode="json") for p in files.training_prompts],
        "character": files.character.model_dump(mode="json"),
    }
    name = f"{character}_teacher_responses"
    if isinstance(teacher, PrimarySourceTeacher):
        return Stage(
            name,
            "teacher_responses",
            (passages,),
            declaration,
            _modules(*_CODE, "pairs.teachers.primary_source"),
            partial(build_primary_source, files=files, teacher=teacher, passages=passages, threads=profile.threads),
            character,
        )
    given: dict[str, Any] = {"files": files, "profile": profile, "passages": passages, "root": d.root}
    remote = not isinstance(teacher, LocalGgufTeacher)
    return Stage(
        name,
        "teacher_responses",
        (passages,),
        {**declaration, **_asked_how(teacher, profile), "constitution": digest(files.constitution)},
        _generated_code(teacher),
        partial(build_generated, **given),
        character,
        external=partial(_outside, teacher, profile, d.root),
        shown={"teacher": teacher_title(teacher)},
        requests=partial(teacher_asks, **given) if remote else None,
        demand=partial(_teacher_demand, files, profile, d.root) if remote else None,
    )


def _asked_how(teacher: GeneratedTeacher, profile: Profile) -> dict[str, Any]:
    """What the declarations say of how a teacher is asked, without what does not bear on its answers."""
    declared = teacher.model_dump(mode="json")
    if "remote" in declared:
        declared["remote"] = {k: declared["remote"][k] for k in ("base_url", "service", "effort", "sampling")}
    local = {"threads": profile.threads, "group": profile.generation_group}
    return {"teacher": declared, **(local if isinstance(teacher, LocalGgufTeacher) else {})}


def _generated_code(teacher: GeneratedTeacher) -> tuple[str, ...]:
    local = BACKEND_CODE["llama_cpp"] if isinstance(teacher, LocalGgufTeacher) else ()
    return (*_modules(*_CODE, *_GENERATED_CODE), *local)


def _outside(teacher: GeneratedTeacher, profile: Profile, root: Path) -> dict[str, str]:
    """What identifies the teacher beyond the declarations: a local file's hash, or the server in force."""
    if isinstance(teacher, LocalGgufTeacher):
        return teacher_fingerprint(teacher, profile.models, root)
    return fingerprint(teacher_ref(teacher, profile.models, root))


def _teacher_demand(files: CharacterFiles, profile: Profile, root: Path) -> Demand:
    teacher = profile.teacher
    assert isinstance(teacher, GeneratedTeacher)
    asked = [p for p in files.training_prompts if p.category in teacher.serves]
    longest = max((len(p.text.encode()) for p in asked), default=0)
    return _demand(len(asked), longest, files, teacher, profile, root)


def _demand(
    requests: int, prompt_bytes: int, files: CharacterFiles, teacher: GeneratedTeacher, profile: Profile, root: Path
) -> Demand:
    common = constitution_block(files.character, files.constitution, teacher, structured=True)
    system = len((common + view_block("base", ())).encode()) + teacher.passages_in_view * _PASSAGE_BYTES
    model = teacher_ref(teacher, profile.models, root)
    return Demand(model, requests, system + prompt_bytes, teacher_sampling(teacher).max_tokens)


# -- introspection -------------------------------------------------------------------------------------------------


def introspection_wanted(datasets: Mapping[str, Dataset], profile: Profile) -> tuple[int, int]:
    """(reflections, dialogues) to ask for: the most that one supervised dataset wants, and some for the filter."""
    reflections = dialogues = 0
    for dataset in datasets.values():
        parts = [p for p in dataset.parts if dataset.method == "sft" and p.origin == introspection.ORIGIN]
        wanted = [(p, scaled(p.pairs or 0, profile.size_factor)) for p in parts]
        reflections = max(reflections, sum(n for p, n in wanted if p.rows_per_item == 1))
        dialogues = max(dialogues, sum(n for p, n in wanted if p.rows_per_item > 1))
    return math.ceil(reflections * profile.overdraw), math.ceil(dialogues * profile.overdraw)


def build_introspection(
    ctx: BuildContext,
    *,
    files: CharacterFiles,
    profile: Profile,
    filters: Filters,
    passages: str,
    root: Path,
    wanted: tuple[int, int],
) -> Built:
    teacher, declared = profile.teacher, files.introspection
    assert isinstance(teacher, GeneratedTeacher)
    assert declared is not None
    model = teacher_ref(teacher, profile.models, root)
    ngram = filters.suite_overlap_ngram
    held_out = held_out_texts(read_frame(ctx.inputs[passages], "passages"))
    sieve = introspection.Sieve(
        files.character, filters, OverlapIndex(suite_texts(files), ngram), OverlapIndex(held_out, ngram)
    )
    rounds: list[dict[str, Any]] = []

    def ask(requests: Sequence[ChatRequest], *, batch: bool = False) -> list[Reply]:
        # A round of a dialogue waits for the one before it: a batch interface would make hours of minutes.
        remote = {**model.remote, "batch": batch and model.remote["batch"]} if model.remote else None
        replies, facts = generate_in_child(
            ctx,
            ModelRef(**{**model.__dict__, "remote": remote}),
            list(requests),
            folder=f"round-{len(rounds)}",
            threads=profile.threads,
            group=profile.generation_group,
            precision=profile.precision,
        )
        rounds.append(facts)
        return replies

    outcome = introspection.Outcome()
    lonely = introspection.chosen_prompts(declared.reflections, wanted[0], kind="reflection")
    spoken = introspection.chosen_prompts(declared.dialogues, wanted[1], kind="dialogue")
    own = own_passages(read_frame(ctx.inputs[passages], "passages"))
    retriever = _retriever(own, profile.threads)

    def views(chosen: Sequence[Any]) -> list[View]:
        prompts = introspection.prompt_rows(chosen)
        found, dropped = teacher_views(prompts, own, retriever, teacher, files.character)
        for prompt_id, _, _, reason, _ in dropped:
            template, topic = next((t.id, x.id) for i, t, x in chosen if i == prompt_id)
            fault = introspection.Fault("not_asked", reason)
            outcome.drop(prompt_id, prompt_id.split("-", 1)[0], template, topic, fault, "")
        return found

    if lonely_views := views(lonely):
        requests = teacher_requests(lonely_views, teacher, files.character, files.constitution)
        replies = ask(requests, batch=True)
        introspection.reflections(lonely, lonely_views, replies, teacher, sieve, outcome)
    introspection.dialogues(
        spoken, views(spoken), ask, teacher, files.character, files.constitution, declared, sieve, outcome
    )
    rows, dropped = outcome.frames()
    payload = payload_folder(ctx)
    introspection.as_pairs(rows, files.character).write_parquet(payload / "pairs.parquet")
    rows.write_parquet(payload / "rows.parquet")
    dropped.write_parquet(payload / "dropped.parquet")
    counts = {
        "reflections": rows.filter(pl.col("dialogue").is_null()).height,
        "dialogues": rows["dialogue"].drop_nulls().n_unique(),
        "dialogue_rows": rows["dialogue"].drop_nulls().len(),
        "dropped": dropped.height,
        "by_prompt": outcome.by_prompt(),
    }
    return Built(payload, {**_summed(rounds), **counts})


def _summed(rounds: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Facts of several rounds as one: counts, seconds and money added up; rates, which do not add up, left out."""
    total: Counter[str] = Counter()
    for facts in rounds:
        for name, value in facts.items():
            if isinstance(value, int | float) and not isinstance(value, bool) and "per_second" not in name:
                total[name] += value  # type: ignore[assignment]
    out: dict[str, Any] = {"rounds": len(rounds), **total}
    if rounds and "environment" in rounds[-1]:
        out["environment"] = rounds[-1]["environment"]
    return out


def _introspection_demand(files: CharacterFiles, profile: Profile, root: Path, wanted: tuple[int, int]) -> Demand:
    teacher = profile.teacher
    assert isinstance(teacher, GeneratedTeacher)
    said = wanted[1] * (2 * introspection.TURNS - 1)
    requests = wanted[0] + said
    # Half of a dialogue's longest answers stand before the mean turn.
    spoken = wanted[1] * introspection.TURNS * teacher.max_words * 6
    one = _demand(requests, spoken // max(1, requests) + 200, files, teacher, profile, root)
    if not (one.model.remote or {}).get("batch"):
        return one
    # Dialogues are asked one by one, at twice the price of a batch: counted here as so much longer in the mean.
    weight = (requests + said) / requests
    return replace(
        one, prompt_bytes=math.ceil(one.prompt_bytes * weight), answer_tokens=math.ceil(one.answer_tokens * weight)
    )


def introspection_stage(
    d: Declarations, character: str, passages: str, datasets: Mapping[str, Dataset]
) -> Stage | None:
    """The character's introspection data; None where the teacher is no model, or where nothing wants it."""
    files, profile = d.characters[character], d.profile
    teacher = profile.teacher
    wanted = introspection_wanted(datasets, profile)
    if not isinstance(teacher, GeneratedTeacher) or files.introspection is None or not any(wanted):
        return None
    remote = not isinstance(teacher, LocalGgufTeacher)
    return Stage(
        f"{character}_introspection",
        "introspection",
        (passages,),
        {
            **_asked_how(teacher, profile),
            "prompts": files.introspection.model_dump(mode="json"),
            "wanted": list(wanted),
            "constitution": digest(files.constitution),
            "character": files.character.model_dump(mode="json"),
            "filters": profile.filters.model_dump(mode="json"),
            "suite": suite_texts(files),
        },
        (*_generated_code(teacher), *_modules("pairs.introspection", "pairs.overlap", "pairs.candidates", "breaks")),
        partial(
            build_introspection,
            files=files,
            profile=profile,
            filters=profile.filters,
            passages=passages,
            root=d.root,
            wanted=wanted,
        ),
        character,
        external=partial(_outside, teacher, profile, d.root),
        shown={"teacher": teacher_title(teacher)},
        demand=partial(_introspection_demand, files, profile, d.root, wanted) if remote else None,
    )
