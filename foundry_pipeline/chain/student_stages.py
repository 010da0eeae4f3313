"""Stages of the rejected side: what students answer to the prompts that the teacher answered.

A student is `base` or a run. It answers on this machine (a packaged base through llama.cpp, one from a hub through
transformers, a run through transformers with its adapter), unless the profile names a server that has it; a run's
answers always depend on its adapter.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import polars as pl

from foundry_pipeline.chain.frames import payload_folder, read_frame
from foundry_pipeline.chain.generation import MANY_CODE, generate_divided, generate_in_child
from foundry_pipeline.chain.model_stages import base_asset, dense_dir
from foundry_pipeline.chain.stage import BuildContext, Built, Stage
from foundry_pipeline.datasets.mixture import scaled
from foundry_pipeline.datasets.recipes import selection_order
from foundry_pipeline.declarations import Declarations
from foundry_pipeline.declarations.assets import Dataset, HubModel
from foundry_pipeline.declarations.common import Sampling
from foundry_pipeline.declarations.generation import StudentServer
from foundry_pipeline.lineage.store import Artifact
from foundry_pipeline.models.remote import remote_ref
from foundry_pipeline.models.remote.service import fingerprint
from foundry_pipeline.models.requests import BACKEND_CODE, ChatRequest, ModelRef
from foundry_pipeline.pairs.student import student_answers, student_requests

BASE = "base"


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


def student_model(
    inputs: Mapping[str, Artifact],
    *,
    student: str,
    base: str,
    adapter: str | None,
    start: str | None,
    server: StudentServer | None,
) -> ModelRef:
    """The model behind a student: on the profile's server where that names it, else on this machine."""
    if server is not None and student in server.models:
        return served_model(server, student, adapter_hash=inputs[adapter].content_hash if adapter else "")
    if adapter is None:
        art = inputs[base]
        if "base.gguf" not in art.manifest["files"]:  # weights from a hub come without one
            return ModelRef("transformers", str(dense_dir(art)), art.content_hash, None, None, BASE)
        gguf = art.file("base.gguf")
        return ModelRef("llama_cpp", str(gguf), art.manifest["files"][gguf.name], None, None, BASE)
    art, lora = inputs[start or base], inputs[adapter]
    return ModelRef(
        "transformers", str(dense_dir(art)), art.content_hash, str(lora.payload), lora.content_hash, adapter
    )


def served_model(server: StudentServer, student: str, *, adapter_hash: str = "") -> ModelRef:
    """A student on a server; a run is known by its adapter's hash, so that a retrained one is asked anew."""
    revision = adapter_hash or server.revision
    name = server.models[student]
    return remote_ref("openai", name, title=f"{student} as {name}", revision=revision, remote=server.remote)


def student_asks(
    inputs: Mapping[str, Artifact],
    *,
    teacher: str,
    sampling: dict[str, Any],
    wanted: dict[str, int],
    floors: dict[str, int],
    **which: Any,
) -> tuple[ModelRef, list[ChatRequest]]:
    """Model and requests of a student, given the teacher's responses."""
    responses = wanted_responses(read_frame(inputs[teacher], "responses"), wanted, floors)
    return student_model(inputs, **which), student_requests(responses, Sampling.model_validate(sampling))


def build_student(
    ctx: BuildContext,
    *,
    student: str,
    threads: int,
    group: int,
    precision: str,
    at_once: int,
    **asked: Any,
) -> Built:
    model, requests = student_asks(ctx.inputs, student=student, **asked)
    how: dict[str, Any] = {"threads": threads, "group": group, "precision": precision}
    if model.backend == "transformers" and min(at_once, len(requests)) > 1:
        replies, facts = generate_divided(ctx, model, requests, at_once=at_once, **how)
    else:
        # llama.cpp divides a group among its threads by itself; a server has its own ways.
        replies, facts = generate_in_child(ctx, model, requests, folder="students", **how)
    frame, counts = student_answers(replies, student=student)
    payload = payload_folder(ctx)
    frame.write_parquet(payload / "responses.parquet")
    return Built(payload, {**facts, **counts})


def student_asset(character: str, student: str) -> str:
    """Name of the asset with a student's answers."""
    return f"{character}_student_responses" + ("" if student == BASE else f"_{student.removeprefix(character + '_')}")


def student_stage(d: Declarations, character: str, student: str, datasets: Mapping[str, Dataset]) -> Stage:
    """The answers of one student."""
    profile = d.profile
    teacher = f"{character}_teacher_responses"
    floors: dict[str, int] = {str(c): n for c, n in sorted(profile.teacher.serves.items())}
    wanted = student_demand(datasets, student, size_factor=profile.size_factor, overdraw=profile.overdraw)
    asked: dict[str, Any] = {
        "sampling": profile.student_sampling.model_dump(mode="json"),
        "wanted": wanted,
        "floors": floors,
    }
    machine: dict[str, Any] = {
        "threads": profile.threads,
        "group": profile.generation_group,
        "precision": profile.precision,
        "at_once": profile.generating_at_once,
    }
    base, adapter, start = base_asset(d.base_model(profile.student)), None, None
    if student != BASE:
        run = d.runs[student]
        start = f"{run.start_from}_merged" if run.start_from else base_asset(d.base_model(run.base))
        adapter = f"{student}_adapter"
    server = profile.student_server if profile.student_server and student in profile.student_server.models else None
    external: Callable[[], dict[str, str]] = dict
    if server is not None:
        needs = (teacher, *([adapter] if adapter else []))
        how: dict[str, Any] = {"server": [server.models[student], server.revision], **asked}
        external = partial(_server_in_force, server, student)
    else:
        needs = (teacher, *([start, adapter] if start and adapter else [base]))
        how = {**asked, **machine}
    dense = adapter is not None or isinstance(profile.models[d.base_model(profile.student)], HubModel)
    backend = () if server else BACKEND_CODE["transformers" if dense else "llama_cpp"]
    given = {"student": student, "teacher": teacher, "base": base, "adapter": adapter, "start": start, **asked}
    return Stage(
        student_asset(character, student),
        "student_responses",
        tuple(dict.fromkeys(needs)),
        {"student": "adapter" if adapter else BASE, **how},
        (
            "foundry_pipeline.pairs.student",
            *MANY_CODE,
            "foundry_pipeline.models.requests",
            *backend,
        ),
        partial(build_student, **given, **machine, server=server),
        character,
        external=external,
        requests=partial(student_asks, **given, server=server) if server else None,
    )


def _server_in_force(server: StudentServer, student: str) -> dict[str, str]:
    return fingerprint(served_model(server, student))
