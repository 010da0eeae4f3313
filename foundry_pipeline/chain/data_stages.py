"""Builders of the left half of the chain: sources, passages, responses of teacher and students, pairs, datasets."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import polars as pl

from foundry_pipeline.chain.frames import held_out_texts, payload_folder, read_frame, suite_texts
from foundry_pipeline.chain.stage import BuildContext, Built, Stage
from foundry_pipeline.chain.student_stages import (
    BASE,
    student_asset,
    student_demand,
    student_stage,
    wanted_responses,
)
from foundry_pipeline.chain.teacher_stages import introspection_stage, teacher_stage
from foundry_pipeline.corpus.cleaning import clean_frame
from foundry_pipeline.corpus.connectors import MODULES as CONNECTORS
from foundry_pipeline.corpus.connectors import read_all, source_fingerprint
from foundry_pipeline.corpus.formats import invisible
from foundry_pipeline.corpus.near_duplicates import link_duplicates
from foundry_pipeline.corpus.passages import cut_passages
from foundry_pipeline.corpus.snapshot import snapshot_folder
from foundry_pipeline.corpus.transcriptions import compare_documents, differences_frame
from foundry_pipeline.datasets.content import write_dataset
from foundry_pipeline.datasets.recipes import build_dataset
from foundry_pipeline.declarations import CharacterFiles, Declarations
from foundry_pipeline.declarations.assets import Dataset
from foundry_pipeline.errors import FoundryError
from foundry_pipeline.pairs.candidates import candidate_pairs
from foundry_pipeline.pairs.filters import MODULES as FILTER_MODULES
from foundry_pipeline.pairs.filters import apply_filters
from foundry_pipeline.pairs.voice_targeted import report as voice_report
from foundry_pipeline.pairs.voice_targeted import targeted_shares
from foundry_pipeline.textcolumns import MODULES as TEXT_MODULES

# Modules that make passages of documents.
CUTTING = ("corpus.cleaning", "corpus.passages", "corpus.near_duplicates", "corpus.transcriptions", "textstats")
# Modules that decide which pairs pass.
FILTERING = tuple(m.removeprefix("foundry_pipeline.") for m in FILTER_MODULES)
# Modules that put a dataset together from them.
ASSEMBLY = ("datasets.recipes", "datasets.mixture", "datasets.dialogues", "datasets.content")


# -- sources and passages ------------------------------------------------------------------------------------------


def build_sources(ctx: BuildContext, *, files: CharacterFiles) -> Built:
    rows: list[dict[str, Any]] = []
    held_out = set(files.character.held_out_documents)
    for manifest in files.manifests.values():
        snapshots = snapshot_folder(ctx.settings.store, files.character.character)
        for document in read_all(manifest, base=files.folder / "manifests", snapshots=snapshots):
            rows.append(
                {
                    "document_id": document.document_id,
                    "source": manifest.source,
                    "role": document.role,
                    "author": document.author,
                    "title": document.title,
                    "date": document.date,
                    "url": document.url,
                    "license": manifest.license,
                    "raw": document.raw,
                    "raw_sha256": document.raw_sha256,
                    "variant_of": document.variant_of,
                    "remarks": document.remarks,
                    "held_out": document.document_id in held_out,
                }
            )
    if unknown := held_out - {row["document_id"] for row in rows}:
        raise FoundryError(
            f"held-out documents that no source has: {', '.join(sorted(unknown))}; their text would be trained on",
            where=f"sources/{files.character.character}/character.yaml, field `held_out_documents`",
            mend=f"name one of: {', '.join(sorted(row['document_id'] for row in rows))}",
        )
    _one_source_each(rows)
    payload = payload_folder(ctx)
    read = pl.DataFrame(rows).sort("document_id")
    frame, variants = read.filter(pl.col("variant_of") == ""), read.filter(pl.col("variant_of") != "")
    frame.write_parquet(payload / "documents.parquet")
    variants.write_parquet(payload / "variants.parquet")
    facts: dict[str, Any] = {
        "documents": frame.height,
        "words": int(frame["raw"].str.split(" ").list.len().sum()),
        "roles": dict(sorted(frame["role"].value_counts().iter_rows())),
    }
    if variants.height:
        facts["variants"] = [f"{r['document_id']} of {r['variant_of']}" for r in variants.iter_rows(named=True)]
    if unseen := {r["document_id"]: found for r in frame.iter_rows(named=True) if (found := invisible(r["raw"]))}:
        facts["invisible_characters"] = unseen
    return Built(payload, facts)


def _one_source_each(rows: list[dict[str, Any]]) -> None:
    home: dict[str, str] = {}
    for row in rows:
        if home.setdefault(row["document_id"], row["source"]) != row["source"]:
            raise FoundryError(
                f"the sources `{home[row['document_id']]}` and `{row['source']}` both have a document `{row['document_id']}`",
                where=f"manifest `{row['source']}`, field `document_id`",
                mend="put the source into the pattern, e.g. `letters_{stem}`",
            )


def _external_sources(files: CharacterFiles, store: Path) -> dict[str, str]:
    base, snapshots = files.folder / "manifests", snapshot_folder(store, files.character.character)
    return {m.source: source_fingerprint(m, base, snapshots=snapshots) for m in files.manifests.values()}


def build_passages(ctx: BuildContext, *, files: CharacterFiles, sources: str) -> Built:
    read = ctx.inputs[sources]
    documents, changes = clean_frame(list(files.manifests.values()), read_frame(read, "documents"))
    linked = link_duplicates(cut_passages(documents), priority={m.source: m.priority for m in files.manifests.values()})
    compared = compare_documents(documents, read_frame(read, "variants"), linked.passages, linked.links)
    payload = payload_folder(ctx)
    documents.write_parquet(payload / "documents.parquet")
    changes.write_parquet(payload / "changes.parquet")
    linked.passages.write_parquet(payload / "passages.parquet")
    linked.links.write_parquet(payload / "links.parquet")
    differences_frame(compared).write_parquet(payload / "differences.parquet")
    facts: dict[str, Any] = {"passages": linked.passages.height, "changes": changes.height, **linked.counts}
    if compared:
        facts["same text twice"] = [
            f"{c.document_a} and {c.document_b}: {c.equal:.1%} of words equal, {len(c.differences)} differences"
            for c in compared
        ]
    return Built(payload, facts)


# -- pairs ---------------------------------------------------------------------------------------------------------


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
    payload = payload_folder(ctx)
    frame.write_parquet(payload / "pairs.parquet")
    return Built(payload, {"pairs": frame.height})


def build_filtered(ctx: BuildContext, *, files: CharacterFiles, filters: Any, candidates: str, passages: str) -> Built:
    kept, dropped = apply_filters(
        read_frame(ctx.inputs[candidates], "pairs"),
        filters,
        suite_texts=suite_texts(files),
        held_out_texts=held_out_texts(read_frame(ctx.inputs[passages], "passages")),
        character=files.character,
    )
    payload = payload_folder(ctx)
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
    introspection: str | None,
) -> Built:
    frame, facts = build_dataset(
        dataset,
        profile=profile,
        filtered=read_frame(ctx.inputs[filtered], "pairs"),
        character=files.character,
        other_students={run: read_frame(ctx.inputs[asset], "responses") for run, asset in students.items()},
        datasets={name: read_frame(ctx.inputs[name], "pairs") for name in parents},
        passages=read_frame(ctx.inputs[passages], "passages"),
        introspection=read_frame(ctx.inputs[introspection], "pairs") if introspection else None,
    )
    if dataset.method == "preference":
        rows = [r for doc in files.reported for r in doc.pairs if _asset_of(files, r.get("dataset")) == dataset.dataset]
        shares = targeted_shares(dataset.parts, facts["parts"])
        facts["voice_targeting"] = voice_report(frame, shares, rows)
    else:
        facts["introspection_from"] = "generated" if introspection else "the character's own passages"
    payload = payload_folder(ctx)
    content_hash = write_dataset(frame, payload)
    return Built(payload, facts, content_hash=content_hash)


def _asset_of(files: CharacterFiles, version: object) -> str:
    return f"{files.character.character}_dataset_{version}"


def data_stages(d: Declarations, character: str, store: Path) -> list[Stage]:
    """Stages from sources to datasets of one character; what was fetched for it lies below `store`."""
    files, profile = d.characters[character], d.profile
    sources, passages = f"{character}_sources", f"{character}_passages"
    teacher, student = f"{character}_teacher_responses", f"{character}_student_responses"
    candidates, filtered = f"{character}_candidate_pairs", f"{character}_filtered_pairs"
    manifests = {m.source: m.model_dump(mode="json", exclude={"cleaning"}) for m in files.manifests.values()}
    who = files.character.model_dump(mode="json")
    suite, filters = suite_texts(files), profile.filters.model_dump(mode="json")
    mine = {n: s for n, s in d.datasets.items() if s.character == character}
    floors: dict[str, int] = {str(c): n for c, n in sorted(profile.teacher.serves.items())}

    introspection = introspection_stage(d, character, passages, mine)
    # With introspection of their own, supervised datasets take no pair, so no student is asked for them.
    paired = {n: s for n, s in mine.items() if introspection is None or s.method != "sft"}
    wanted = student_demand(paired, BASE, size_factor=profile.size_factor, overdraw=profile.overdraw)
    demand: dict[str, Any] = {"wanted": wanted, "floors": floors}
    stages = [
        Stage(
            sources,
            "sources",
            (),
            {"manifests": manifests, "held_out": sorted(files.character.held_out_documents)},
            CONNECTORS,
            partial(build_sources, files=files),
            character,
            external=partial(_external_sources, files, store),
        ),
        Stage(
            passages,
            "passages",
            (sources,),
            {
                "cleaning": {
                    m.source: [r.model_dump(mode="json") for r in m.cleaning] for m in files.manifests.values()
                },
                "priority": {m.source: m.priority for m in files.manifests.values()},
            },
            tuple(f"foundry_pipeline.{m}" for m in CUTTING),
            partial(build_passages, files=files, sources=sources),
            character,
        ),
        teacher_stage(d, character, passages),
        student_stage(d, character, BASE, paired),
        Stage(
            candidates,
            "candidate_pairs",
            (teacher, student),
            {"character": who, **demand},
            ("foundry_pipeline.pairs.candidates", *TEXT_MODULES),
            partial(build_candidates, files=files, teacher=teacher, student=student, **demand),
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
    if introspection is not None:
        stages.append(introspection)
    students: dict[str, str] = {}
    for name, dataset in mine.items():
        runs = {r for p in dataset.parts for r in (*p.students, p.rejected_from) if r and r != "base"}
        for run in sorted(runs - students.keys()):
            students[run] = student_asset(character, run)
            stages.append(student_stage(d, character, run, paired))
        parents = tuple(sorted({p.dataset for p in dataset.parts if p.dataset}))
        needed = {run: students[run] for run in sorted(runs)}
        reflected = introspection.name if introspection is not None and dataset.method == "sft" else None
        deciding = [*FILTERING, *ASSEMBLY]
        deciding += ["pairs.introspection"] if reflected else []
        stages.append(
            Stage(
                name,
                "dataset",
                tuple(dict.fromkeys(i for i in (filtered, passages, *parents, *needed.values(), reflected) if i)),
                {
                    "parts": [p.model_dump(mode="json") for p in dataset.parts],
                    "method": dataset.method,
                    "size_factor": profile.size_of(name),
                    "filters": filters,
                    "floors": floors,
                    "character": who,
                },
                tuple(f"foundry_pipeline.{m}" for m in deciding),
                partial(
                    build_dataset_version,
                    dataset=dataset,
                    profile=profile,
                    files=files,
                    filtered=filtered,
                    passages=passages,
                    students=needed,
                    parents=parents,
                    introspection=reflected,
                ),
                character,
                shown={"recipe": dataset.model_dump(mode="json")},
            )
        )
    return stages
