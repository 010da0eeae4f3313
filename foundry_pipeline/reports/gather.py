"""From a chain to the values of a report: every figure is read from the artifact, by its hash, that it was written in."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import polars as pl

from foundry_pipeline.chain.engine import Chain, Materialized
from foundry_pipeline.chain.gate import read_verdict
from foundry_pipeline.chain.graph import same_here
from foundry_pipeline.chain.parity_stages import measured, parity_asset, verdict_in_force
from foundry_pipeline.chain.serving_stages import matrix_asset, matrix_rows
from foundry_pipeline.declarations import Declarations
from foundry_pipeline.declarations.assets import PypiModel, Run
from foundry_pipeline.errors import FoundryError
from foundry_pipeline.evaluation.comparison import with_verdicts
from foundry_pipeline.lineage.store import Record
from foundry_pipeline.reports.data import (
    BaseModel,
    DataSet,
    ReportData,
    Reported,
    Served,
    Sieve,
    SourceUse,
    Step,
    Training,
)
from foundry_pipeline.reports.gather_probes import gather_probes


def gather(chain: Chain, d: Declarations, run: str) -> ReportData:
    """Everything the report of a run says.

    Raises MissingArtifact, with the command that builds it, when the run has not been evaluated under the present
    declarations, DamagedArtifact when something it is read from was changed, FoundryError for a run that is not
    declared. Artifacts below the evaluation that are gone from the store leave their part of the page out.
    """
    if run not in d.runs:
        raise FoundryError(
            f"no run `{run}` is declared", where="assets/runs/", mend=f"name one of: {', '.join(sorted(d.runs))}"
        )
    declared = d.runs[run]
    files = d.characters[declared.character]
    done = chain.require(f"{run}_eval")
    scores = pl.read_parquet(done.artifact.file("scores.parquet"))
    summary = with_verdicts(json.loads(done.artifact.file("summary.json").read_text(encoding="utf-8")), scores)
    passages = _there(chain, f"{declared.character}_passages")
    pairs = _pairs(chain, declared)
    model = d.profile.models[d.base_model(declared.base)]
    return ReportData(
        run=run,
        description=" ".join(declared.description.split()),
        character=files.character.name,
        character_id=declared.character,
        profile=d.profile.profile,
        profile_description=" ".join(d.profile.description.split()),
        base=BaseModel(declared.base, model.title, model.license, model.parameters, isinstance(model, PypiModel)),
        confidence=d.evaluations[declared.evaluation].confidence,
        summary=summary,
        scores=scores.to_dicts(),
        prompts={p.id: p.text for p in files.suite.prompts},
        evaluated=str(done.record.facts.get("built_at", ""))[:10],
        evaluation_facts=done.record.facts,
        held_out=_held_out_titles(passages, files.character.held_out_documents),
        training=_training(chain, declared),
        dataset=_dataset(chain, d, declared, pairs),
        sieve=_sieve(chain, declared.character),
        sources=_sources(passages, pairs),
        lineage=_lineage(chain, declared, done.record),
        reported=_reported(d, declared),
        served=_served(d, chain, run),
        probed=gather_probes(d, chain, declared),
        same_as=tuple(same_here(d, declared)),
    )


def _there(chain: Chain, name: str) -> Materialized | None:
    """The verified artifact of an asset, or None where it is not declared or no longer built."""
    if name not in chain.stages or chain.resolve(name).record is None:
        return None
    return chain.require(name)


def _pairs(chain: Chain, run: Run) -> pl.DataFrame | None:
    found = _there(chain, run.dataset)
    return None if found is None else pl.read_parquet(found.artifact.file("pairs.parquet"))


def _training(chain: Chain, run: Run) -> Training | None:
    found = _there(chain, f"{run.run}_adapter")
    if found is None:
        return None
    facts, shown = found.record.facts, found.stage.shown
    return Training(
        method=run.method,
        seed=facts.get("seed", run.seed),
        # What this run declares: an equal training of another run may have been found, declared otherwise.
        declared=dict(shown.get("declared") or facts.get("declared", {})),
        effective=dict(facts.get("effective") or shown.get("effective", {})),
        history=list(facts.get("history", [])),
        facts={k: v for k, v in facts.items() if isinstance(v, str | int | float | bool)},
        libraries=dict(facts.get("libraries") or found.artifact.manifest.get("libraries") or {}),
    )


def _dataset(chain: Chain, d: Declarations, run: Run, pairs: pl.DataFrame | None) -> DataSet | None:
    found = _there(chain, run.dataset)
    if found is None or pairs is None:
        return None
    facts = found.record.facts
    counts: dict[str, dict[str, int]] = {}
    for category, origin, rows in pairs.group_by("category", "origin").len().sort("category", "origin").iter_rows():
        counts.setdefault(category, {})[origin] = rows
    contrast = pairs["voice_contrast"].mean()
    return DataSet(
        name=run.dataset,
        description=" ".join(d.datasets[run.dataset].description.split()),
        content_hash=found.artifact.content_hash,
        rows=pairs.height,
        effective_rows=int(pairs["upsample"].sum()),
        counts=counts,
        unserved={c: why for c, why in d.profile.teacher.cannot_serve.items() if c not in counts},
        parts=list(facts.get("parts", [])),
        students=dict(sorted(Counter(pairs["student"].drop_nulls().to_list()).items())),
        voice_contrast=float(contrast) if isinstance(contrast, int | float) else None,
        verdict=read_verdict(found.artifact),
    )


def _sieve(chain: Chain, character: str) -> Sieve | None:
    found = _there(chain, f"{character}_filtered_pairs")
    if found is None:
        return None
    kept = pl.read_parquet(found.artifact.file("pairs.parquet")).height
    dropped = pl.read_parquet(found.artifact.file("dropped.parquet"))
    teacher = _there(chain, f"{character}_teacher_responses")
    unanswered: Counter[str] = Counter()
    if teacher is not None:
        # A reason ends with its own figure in brackets; without it, equal reasons are one.
        reasons = pl.read_parquet(teacher.artifact.file("drops.parquet"))["reason"].to_list()
        unanswered.update(reason.split(" (")[0] for reason in reasons)
    return Sieve(kept + dropped.height, kept, _ranked(Counter(dropped["rule"].to_list())), _ranked(unanswered))


def _ranked(counts: Counter[str]) -> dict[str, int]:
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))


def _held_out_titles(passages: Materialized | None, held_out: tuple[str, ...]) -> tuple[str, ...]:
    if passages is None:
        return held_out
    documents = pl.read_parquet(passages.artifact.file("documents.parquet"))
    rows = {r["document_id"]: (r["title"], r["date"][:4]) for r in documents.iter_rows(named=True)}
    named = {i: title if year in title else f"{title}, {year}" for i, (title, year) in rows.items()}
    return tuple(named.get(i, i) for i in held_out)


def _sources(passages: Materialized | None, pairs: pl.DataFrame | None) -> list[SourceUse]:
    if passages is None:
        return []
    payload = passages.artifact.payload
    documents = pl.read_parquet(payload / "documents.parquet").sort(
        "role", "date", "document_id", descending=[True, False, False]
    )
    table = pl.read_parquet(payload / "passages.parquet")
    home = dict(zip(table["passage_id"], table["document_id"], strict=True))
    cut = Counter(table["document_id"].to_list())
    used: dict[str, set[str]] = {}
    touched: Counter[str] = Counter()
    for passage_ids in pairs["passage_ids"].to_list() if pairs is not None else []:
        known = [p for p in passage_ids or [] if p in home]
        touched.update({home[p] for p in known})
        for p in known:
            used.setdefault(home[p], set()).add(p)
    return [
        SourceUse(
            document_id=r["document_id"],
            title=r["title"].removesuffix(f", {r['date']}"),  # the date has a column of its own
            date=r["date"],
            url=r["url"] or "",
            license=r["license"],
            raw_sha256=r["raw_sha256"],
            role=r["role"],
            held_out=r["held_out"],
            passages=cut[r["document_id"]],
            used=len(used.get(r["document_id"], ())),
            pairs=touched[r["document_id"]],
        )
        for r in documents.iter_rows(named=True)
    ]


def _lineage(chain: Chain, run: Run, record: Record) -> list[Step]:
    """The direct way from the score to the sources, then everything else it stands on, by hash."""
    spine = [
        f"{run.run}_eval",
        f"{run.run}_responses",
        f"{run.run}_adapter",
        run.dataset,
        f"{run.character}_filtered_pairs",
        f"{run.character}_passages",
        f"{run.character}_sources",
    ]
    steps, told = [], set()
    for name in spine:
        found = chain.resolve(name).record if name in chain.stages else None
        if found is not None:
            told.add(found.content_hash)
            steps.append(_step(name, found, spine=True))
    rest: dict[str, Record] = {}
    _upstream(chain, record, rest)
    others = sorted((r for r in rest.values() if r.content_hash not in told), key=lambda r: (r.kind, r.name))
    return [*steps, *(_step(r.name, r, spine=False) for r in others)]


def _upstream(chain: Chain, record: Record, found: dict[str, Record]) -> None:
    for way in record.inputs.values():
        upstream = chain.store.record(way["input"])
        if upstream is not None and upstream.input_hash not in found:
            found[upstream.input_hash] = upstream
            _upstream(chain, upstream, found)


_HOLDS = {
    "sources": "{documents} documents",
    "passages": "{passages} passages",
    "filtered_pairs": "{kept} pairs kept, {dropped} dropped",
    "candidate_pairs": "{pairs} pairs",
    "teacher_responses": "{answered} of {prompts} prompts answered",
    "dataset": "{rows} rows",
    "adapter": "{steps} steps",
    "eval": "{judged} answers judged",
}


def _step(name: str, record: Record, *, spine: bool) -> Step:
    facts: dict[str, Any] = record.facts
    form = _HOLDS.get(record.kind, "")
    try:
        holds = form.format(**facts)
    except KeyError:  # an artifact of an earlier version told less of itself
        holds = ""
    return Step(name, record.kind, record.content_hash, facts.get("build_seconds"), holds, spine)


def _served(d: Declarations, chain: Chain, run: str) -> Served | None:
    matrix, parity = _there(chain, matrix_asset(run)), _there(chain, parity_asset(run))
    gguf = _there(chain, f"{run}_gguf")
    verdict = None if gguf is None else verdict_in_force(d, chain, run, gguf.artifact)
    if matrix is None and parity is None:
        return None
    return Served(
        [] if matrix is None else matrix_rows(matrix, chain.store),
        None if parity is None else measured(parity.artifact),
        verdict,
    )


def _reported(d: Declarations, run: Run) -> Reported | None:
    files = d.characters[run.character]
    rows = [row.model_dump(mode="json") for row in files.reported_scores]
    if not rows:
        return None
    sources = tuple(dict.fromkeys(document.source for document in files.reported if document.scores))
    return Reported(sources, rows, run.reported)
