"""Builders of the left half of the chain: sources, passages, responses of teacher and students, pairs, datasets."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import polars as pl

from foundry_pipeline.chain.model_stages import base_asset, dense_dir, generate_in_child
from foundry_pipeline.chain.stage import BuildContext, Built, Stage
from foundry_pipeline.corpus.cleaning import clean_frame
from foundry_pipeline.corpus.connectors import read_source, source_fingerprint
from foundry_pipeline.corpus.passages import cut_passages
from foundry_pipeline.datasets.content import write_dataset
from foundry_pipeline.datasets.recipes import build_dataset, scaled, selection_order
from foundry_pipeline.declarations import CharacterFiles, Declarations
from foundry_pipeline.declarations.assets import Dataset, Sampling
from foundry_pipeline.errors import FoundryError
from foundry_pipeline.lineage.store import Artifact
from foundry_pipeline.models.requests import ModelRef
from foundry_pipeline.pairs.candidates import candidate_pairs
from foundry_pipeline.pairs.filters import apply_filters
from foundry_pipeline.pairs.student import student_answers, student_requests
from foundry_pipeline.pairs.teacher import primary_source_responses, prompts_frame

# Modules that decide which pairs pass.
FILTERING = ("pairs.filters", "pairs.candidates", "pairs.duplicates", "pairs.overlap", "textstats")


def _payload(ctx: BuildContext) -> Path:
    folder = ctx.work / "payload"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def read_frame(artifact: Artifact, name: str) -> pl.DataFrame:
    return pl.read_parquet(artifact.payload / f"{name}.parquet")


# -- sources and passages ------------------------------------------------------------------------------------------


def build_sources(ctx: BuildContext, *, files: CharacterFiles) -> Built:
    rows: list[dict[str, Any]] = []
    held_out = set(files.character.held_out_documents)
    for manifest in files.manifests.values():
        for document in read_source(manifest, base=files.folder / "manifests"):
            rows.append(
                {
                    "document_id": document.document_id,
                    "source": manifest.source,
                    "role": manifest.role,
                    "author": manifest.author,
                    "title": document.title,
                    "date": document.date,
                    "url": document.url,
                    "license": manifest.license,
                    "raw": document.raw,
                    "raw_sha256": document.raw_sha256,
                    "held_out": document.document_id in held_out,
                }
            )
    if unknown := held_out - {row["document_id"] for row in rows}:
        raise FoundryError(
            f"held-out documents that no source has: {', '.join(sorted(unknown))}; their text would be trained on",
            where=f"sources/{files.character.character}/character.yaml, field `held_out_documents`",
            mend=f"name one of: {', '.join(sorted(row['document_id'] for row in rows))}",
        )
    payload = _payload(ctx)
    frame = pl.DataFrame(rows).sort("document_id")
    frame.write_parquet(payload / "documents.parquet")
    return Built(payload, {"documents": frame.height, "words": int(frame["raw"].str.split(" ").list.len().sum())})


def _external_sources(files: CharacterFiles) -> dict[str, str]:
    return {m.source: source_fingerprint(m, files.folder / "manifests") for m in files.manifests.values()}


def build_passages(ctx: BuildContext, *, files: CharacterFiles, sources: str) -> Built:
    documents, changes = clean_frame(list(files.manifests.values()), read_frame(ctx.inputs[sources], "documents"))
    passages = cut_passages(documents)
    payload = _payload(ctx)
    documents.write_parquet(payload / "documents.parquet")
    changes.write_parquet(payload / "changes.parquet")
    passages.write_parquet(payload / "passages.parquet")
    return Built(payload, {"passages": passages.height, "changes": changes.height})


def training_passages(passages: pl.DataFrame) -> pl.DataFrame:
    """The character's own passages that a pair may be made from: not another's, not held out."""
    return passages.filter((pl.col("role") == "primary") & ~pl.col("held_out"))


# -- pairs ---------------------------------------------------------------------------------------------------------


def build_teacher(ctx: BuildContext, *, files: CharacterFiles, teacher: Any, passages: str, threads: int) -> Built:
    from foundry_pipeline.corpus.retrieval import Retriever

    if teacher.kind != "primary_source":
        raise FoundryError(
            f"the teacher `{teacher.kind}` is declared but not built yet",
            where="assets/profiles/, field `teacher.kind`",
            mend="set `kind: primary_source`, or use the profile `laptop`",
        )
    own = training_passages(read_frame(ctx.inputs[passages], "passages"))
    prompts = prompts_frame(files.training_prompts)
    retriever = Retriever(own, threads=threads)
    responses, drops = primary_source_responses(prompts, own, retriever, teacher, files.character)
    payload = _payload(ctx)
    responses.write_parquet(payload / "responses.parquet")
    drops.write_parquet(payload / "drops.parquet")
    return Built(
        payload, {"prompts": len(files.training_prompts), "answered": responses.height, "dropped": drops.height}
    )


def student_demand(
    datasets: Mapping[str, Dataset], student: str, *, size_factor: float, overdraw: float
) -> dict[str, int]:
    """Origin → how many prompts a student is asked: the most that one recipe wants of it, and some for the filters.

    A student that a recipe draws a whole dataset's rejected answers from is asked whatever that dataset is made of.
    """

    def origins(name: str) -> set[str]:
        parts = datasets[name].parts
        inner = {o for p in parts if p.dataset for o in origins(p.dataset)}
        return inner | {p.origin for p in parts if p.origin}

    most: dict[str, int] = {}
    asked: set[str] = set()
    for name, dataset in datasets.items():
        for part in dataset.parts:
            if part.origin is not None and part.pairs is not None:
                rows = scaled(part.pairs, size_factor) * part.rows_per_item
                most[part.origin] = max(most.get(part.origin, 0), rows)
                if student in part.students:
                    asked.add(part.origin)
            elif part.rejected_from == student:
                asked |= origins(part.dataset or name)
    return {origin: math.ceil(most[origin] * overdraw) for origin in sorted(asked)}


def wanted_responses(responses: pl.DataFrame, wanted: dict[str, int], floors: dict[str, int]) -> pl.DataFrame:
    """The teacher's responses that students are asked about: so many of each origin, every student the same ones."""
    ordered = responses.with_columns(pair_id=pl.col("teacher_request_hash"))
    parts = [
        selection_order(ordered.filter(pl.col("origin") == origin), floors).head(count).drop("pair_id")
        for origin, count in wanted.items()
    ]
    return pl.concat(parts) if parts else responses.clear()


def build_student(
    ctx: BuildContext,
    *,
    student: str,
    teacher: str,
    base: str,
    adapter: str | None,
    start: str | None,
    sampling: dict[str, Any],
    wanted: dict[str, int],
    floors: dict[str, int],
    threads: int,
    group: int,
    precision: str,
) -> Built:
    responses = wanted_responses(read_frame(ctx.inputs[teacher], "responses"), wanted, floors)
    requests = student_requests(responses, Sampling.model_validate(sampling))
    if adapter is None:
        art = ctx.inputs[base]
        gguf = art.payload / "base.gguf"
        model = ModelRef("llama_cpp", str(gguf), art.manifest["files"][gguf.name], None, None, "base")
    else:
        art, lora = ctx.inputs[start or base], ctx.inputs[adapter]
        model = ModelRef(
            "transformers", str(dense_dir(art)), art.content_hash, str(lora.payload), lora.content_hash, adapter
        )
    replies, facts = generate_in_child(
        ctx, model, requests, folder="students", threads=threads, group=group, precision=precision
    )
    frame, counts = student_answers(replies, student=student)
    payload = _payload(ctx)
    frame.write_parquet(payload / "responses.parquet")
    return Built(payload, {**facts, **counts})


def build_candidates(
    ctx: BuildContext,
    *,
    files: CharacterFiles,
    teacher: str,
    student: str,
    wanted: dict[str, int],
    floors: dict[str, int],
) -> Built:
    responses = wanted_responses(read_frame(ctx.inputs[teacher], "responses"), wanted, floors)
    frame = candidate_pairs(responses, read_frame(ctx.inputs[student], "responses"), files.character)
    payload = _payload(ctx)
    frame.write_parquet(payload / "pairs.parquet")
    return Built(payload, {"pairs": frame.height})


def suite_texts(files: CharacterFiles) -> list[str]:
    return [p.text for p in files.suite.prompts]


def held_out_texts(passages: pl.DataFrame) -> list[str]:
    return passages.filter(pl.col("held_out"))["text"].to_list()


def build_filtered(ctx: BuildContext, *, files: CharacterFiles, filters: Any, candidates: str, passages: str) -> Built:
    kept, dropped = apply_filters(
        read_frame(ctx.inputs[candidates], "pairs"),
        filters,
        suite_texts=suite_texts(files),
        held_out_texts=held_out_texts(read_frame(ctx.inputs[passages], "passages")),
        character=files.character,
    )
    payload = _payload(ctx)
    kept.write_parquet(payload / "pairs.parquet")
    dropped.write_parquet(payload / "dropped.parquet")
    return Built(payload, {"kept": kept.height, "dropped": dropped.height})


# -- datasets ------------------------------------------------------------------------------------------------------


def build_dataset_version(
    ctx: BuildContext,
    *,
    dataset: Dataset,
    profile: Any,
    files: CharacterFiles,
    filtered: str,
    passages: str,
    students: dict[str, str],
    parents: tuple[str, ...],
) -> Built:
    frame, facts = build_dataset(
        dataset,
        profile=profile,
        filtered=read_frame(ctx.inputs[filtered], "pairs"),
        character=files.character,
        other_students={run: read_frame(ctx.inputs[asset], "responses") for run, asset in students.items()},
        datasets={name: read_frame(ctx.inputs[name], "pairs") for name in parents},
        passages=read_frame(ctx.inputs[passages], "passages"),
    )
    payload = _payload(ctx)
    content_hash = write_dataset(frame, payload)
    return Built(payload, facts, content_hash=content_hash)


def data_stages(d: Declarations, character: str) -> list[Stage]:
    """Stages from sources to datasets of one character."""
    files, profile = d.characters[character], d.profile
    sources, passages = f"{character}_sources", f"{character}_passages"
    teacher, student = f"{character}_teacher_responses", f"{character}_student_responses"
    candidates, filtered = f"{character}_candidate_pairs", f"{character}_filtered_pairs"
    manifests = {m.source: m.model_dump(mode="json", exclude={"cleaning"}) for m in files.manifests.values()}
    who = files.character.model_dump(mode="json")
    suite, filters = suite_texts(files), profile.filters.model_dump(mode="json")
    mine = {n: s for n, s in d.datasets.items() if s.character == character}
    floors: dict[str, int] = {str(c): n for c, n in sorted(profile.teacher.serves.items())}

    def demand(student: str) -> dict[str, Any]:
        wanted = student_demand(mine, student, size_factor=profile.size_factor, overdraw=profile.overdraw)
        return {"wanted": wanted, "floors": floors}

    generation: dict[str, Any] = {
        "sampling": profile.student_sampling.model_dump(mode="json"),
        "threads": profile.threads,
        "group": profile.generation_group,
        "precision": profile.precision,
    }
    generation_code = (
        "foundry_pipeline.pairs.student",
        "foundry_pipeline.models.generate",
        "foundry_pipeline.models.requests",
    )
    base = base_asset(d.base_model(profile.student))
    stages = [
        Stage(
            sources,
            "sources",
            (),
            {"manifests": manifests, "held_out": sorted(files.character.held_out_documents)},
            ("foundry_pipeline.corpus.connectors",),
            partial(build_sources, files=files),
            character,
            external=partial(_external_sources, files),
        ),
        Stage(
            passages,
            "passages",
            (sources,),
            {m.source: [r.model_dump(mode="json") for r in m.cleaning] for m in files.manifests.values()},
            ("foundry_pipeline.corpus.cleaning", "foundry_pipeline.corpus.passages", "foundry_pipeline.textstats"),
            partial(build_passages, files=files, sources=sources),
            character,
        ),
        Stage(
            teacher,
            "teacher_responses",
            (passages,),
            {
                "teacher": profile.teacher.model_dump(mode="json"),
                "prompts": [p.model_dump(mode="json") for p in files.training_prompts],
                "character": who,
            },
            ("foundry_pipeline.pairs.teacher", "foundry_pipeline.corpus.retrieval", "foundry_pipeline.textstats"),
            partial(build_teacher, files=files, teacher=profile.teacher, passages=passages, threads=profile.threads),
            character,
        ),
        Stage(
            student,
            "student_responses",
            (teacher, base),
            {"student": "base", **generation, **demand("base")},
            (*generation_code, "foundry_pipeline.models.llama_backend"),
            partial(
                build_student,
                student="base",
                teacher=teacher,
                base=base,
                adapter=None,
                start=None,
                **generation,
                **demand("base"),
            ),
            character,
        ),
        Stage(
            candidates,
            "candidate_pairs",
            (teacher, student),
            {"character": who, **demand("base")},
            ("foundry_pipeline.pairs.candidates", "foundry_pipeline.textstats"),
            partial(build_candidates, files=files, teacher=teacher, student=student, **demand("base")),
            character,
        ),
        Stage(
            filtered,
            "filtered_pairs",
            (candidates, passages),
            {"filters": filters, "suite": suite, "character": who},
            tuple(f"foundry_pipeline.{m}" for m in FILTERING),
            partial(build_filtered, files=files, filters=profile.filters, candidates=candidates, passages=passages),
            character,
        ),
    ]
    students: dict[str, str] = {}
    for name, dataset in mine.items():
        runs = {r for p in dataset.parts for r in (*p.students, p.rejected_from) if r and r != "base"}
        for run in sorted(runs - students.keys()):
            students[run] = f"{character}_student_responses_{run.removeprefix(character + '_')}"
            start_from = d.runs[run].start_from
            start = f"{start_from}_merged" if start_from else base_asset(d.base_model(d.runs[run].base))
            adapter = f"{run}_adapter"
            stages.append(
                Stage(
                    students[run],
                    "student_responses",
                    tuple(dict.fromkeys((teacher, start, adapter))),
                    {"student": "adapter", **generation, **demand(run)},
                    (*generation_code, "foundry_pipeline.models.hf_backend"),
                    partial(
                        build_student,
                        student=run,
                        teacher=teacher,
                        base=base,
                        adapter=adapter,
                        start=start,
                        **generation,
                        **demand(run),
                    ),
                    character,
                )
            )
        parents = tuple(sorted({p.dataset for p in dataset.parts if p.dataset}))
        needed = {run: students[run] for run in sorted(runs)}
        stages.append(
            Stage(
                name,
                "dataset",
                tuple(dict.fromkeys((filtered, passages, *parents, *needed.values()))),
                {
                    "parts": [p.model_dump(mode="json") for p in dataset.parts],
                    "method": dataset.method,
                    "size_factor": profile.size_factor,
                    "filters": filters,
                    "floors": floors,
                    "character": who,
                },
                tuple(f"foundry_pipeline.{m}" for m in (*FILTERING, "datasets.recipes", "datasets.content")),
                partial(
                    build_dataset_version,
                    dataset=dataset,
                    profile=profile,
                    files=files,
                    filtered=filtered,
                    passages=passages,
                    students=needed,
                    parents=parents,
                ),
                character,
                shown={"recipe": dataset.model_dump(mode="json")},
            )
        )
    return stages
