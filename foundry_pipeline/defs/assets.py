"""One asset for each stage of the chain.

An asset asks the chain for its stage and returns what is there: the data version is the content hash, so building the
same inputs again gives the same version and costs nothing.
"""

# Dagster reads the annotations of a compute function as objects: no `from __future__ import annotations` here.

from collections.abc import Iterator, Set
from functools import partial
from typing import Any

import dagster as dg

from foundry_pipeline.chain.ahead import beside
from foundry_pipeline.chain.engine import Chain, Materialized
from foundry_pipeline.chain.scores import record_scores
from foundry_pipeline.chain.serving_stages import matrix_rows
from foundry_pipeline.chain.stage import Kind
from foundry_pipeline.declarations import Declarations
from foundry_pipeline.defs.automation import condition
from foundry_pipeline.defs.collapse import collapsed, guard_specs, held
from foundry_pipeline.defs.metadata import declared_columns, declared_metadata, describe
from foundry_pipeline.defs.partitions import Placed, dependencies, placed
from foundry_pipeline.defs.run_marks import mark_run
from foundry_pipeline.defs.runner import pipes_runner
from foundry_pipeline.defs.sources import ask_sources, is_fetched, source_checks
from foundry_pipeline.defs.storage import note_node
from foundry_pipeline.docs.descriptions import Descriptions
from foundry_pipeline.errors import Collapsed
from foundry_pipeline.lineage.files import writes_told
from foundry_pipeline.scale.asking import asked_for
from foundry_pipeline.scale.engine import engine

GROUPS: dict[Kind, str] = {
    "sources": "sources",
    "passages": "sources",
    "teacher_responses": "pairs",
    "student_responses": "pairs",
    "introspection": "pairs",
    "candidate_pairs": "pairs",
    "filtered_pairs": "pairs",
    "dataset": "datasets",
    "base_model": "models",
    "adapter": "training",
    "merged": "export",
    "gguf": "export",
    "parity": "export",
    "responses": "evaluation",
    "eval": "evaluation",
    "serving_matrix": "evaluation",
    "judges": "evaluation",
}
KINDS: dict[Kind, set[str]] = {
    "sources": {"parquet", "text"},
    "passages": {"parquet", "polars"},
    "teacher_responses": {"parquet", "bm25", "minilm"},
    "student_responses": {"parquet", "llamacpp"},
    "introspection": {"parquet"},
    "candidate_pairs": {"parquet", "polars"},
    "filtered_pairs": {"parquet", "polars"},
    "dataset": {"parquet", "greatexpectations"},
    "base_model": {"safetensors", "huggingface"},
    "adapter": {"lora", "pytorch", "huggingface"},
    "merged": {"safetensors", "huggingface"},
    "gguf": {"gguf", "llamacpp"},
    "parity": {"parquet", "llamacpp"},
    "responses": {"parquet", "huggingface", "llamacpp"},
    "eval": {"parquet", "judge"},
    "serving_matrix": {"parquet", "polars"},
    "judges": {"parquet", "judge"},
}
Event = dg.MaterializeResult | dg.AssetCheckResult
# On this machine there is one trainer at a time; everything else may run beside it. A cluster counts what is free itself.
POOLS: dict[Kind, str] = {"adapter": "trainer"}


def chain_assets(d: Declarations, chain: Chain, described: Descriptions) -> list[dg.AssetsDefinition]:
    """Every stage of the chain as an asset; the stages of one run under several seeds as its partitions."""
    return [stage_asset(d, chain, asset, described) for asset in placed(chain)]


def stage_asset(d: Declarations, chain: Chain, placed: Placed, described: Descriptions) -> dg.AssetsDefinition:
    stage = placed.first

    @dg.asset(
        name=placed.name,
        deps=dependencies(chain, placed),
        partitions_def=placed.partitions,
        group_name=GROUPS[stage.kind],
        kinds=KINDS[stage.kind],
        owners=list(described.owners(d, stage, GROUPS[stage.kind])),
        description=described.asset(d, stage),
        code_version=chain.code_version(stage),
        metadata={**declared_metadata(d, stage), **declared_columns(stage.kind, described)},
        tags={"character": stage.character} if stage.character else {},
        automation_condition=condition(stage.kind),
        pool=POOLS.get(stage.kind) if engine() == "local" else None,
        check_specs=[*source_checks(d, stage), *guard_specs(placed)],
    )
    def asset(context: dg.AssetExecutionContext, pipes: dg.PipesSubprocessClient) -> Iterator[Event]:
        with writes_told(chain.settings.store):
            yield from events(context, pipes)

    def events(context: dg.AssetExecutionContext, pipes: dg.PipesSubprocessClient) -> Iterator[Event]:
        note_node(context)
        stage = placed.asked(context)
        mark_run(context.instance, context.run_id)
        checked = ask_sources(d, chain, stage, log=context.log.info, warn=context.log.warning)
        told: dict[str, Any] = {"log": context.log.info, "manifest": lambda: {"run_id": context.run_id}}
        run_script = pipes_runner(context, pipes, partial(asked_for, d, stage))
        if stage.kind == "base_model":
            run_script = beside(run_script, chain, of_this_run(d, chain, context), **told)
        try:
            done = chain.materialize(stage.name, run_script=run_script, **told)
        except Collapsed:
            # What is yielded is in the asset's history, also when the step fails afterwards.
            if (fallen := collapsed(d, chain, stage)) is not None:
                yield fallen
            raise
        said = "nothing to do, found by its inputs" if done.reused else f"built in {done.seconds:.1f} s"
        context.log.info(f"{stage.name} {done.artifact.content_hash[:12]}: {said}")
        extra = after(d, chain, done, selected(context))
        yield dg.MaterializeResult(
            data_version=dg.DataVersion(done.artifact.content_hash),
            metadata={**describe(done, described), **extra},
            check_results=[*checked, *held(stage, done)],
        )

    return asset


def selected(context: dg.AssetExecutionContext) -> set[str]:
    """Names of the assets of this very run."""
    return {key.to_user_string() for key in context.job_def.asset_layer.selected_asset_keys}


def of_this_run(d: Declarations, chain: Chain, context: dg.AssetExecutionContext) -> list[str]:
    """Stages of this very run that may be made before their turn: a character's whose sources have to be asked first wait."""
    stages = [chain.stages[name] for name in sorted(selected(context) & chain.stages.keys())]
    return [s.name for s in stages if s.character and not is_fetched(d.characters[s.character])]


def after(d: Declarations, chain: Chain, done: Materialized, assets: Set[str]) -> dict[str, Any]:
    """What follows a finished dataset (its export and card), evaluation (ledger rows, once; report) and matrix (report).

    `assets` are those of the same run of Dagster.
    """
    if done.stage.kind == "dataset":
        from foundry_pipeline.chain.dataset_exports import export
        from foundry_pipeline.reports.checks_page import checks_path

        return {
            "card and Hugging Face folder": dg.MetadataValue.path(str(export(d, chain, done.stage.name))),
            # Written by the checks, which run next.
            "page of its checks": dg.MetadataValue.path(str(checks_path(chain.settings.reports, done.stage.name))),
        }
    if done.stage.kind == "serving_matrix":
        from foundry_pipeline.reports.run_report import write_report
        from foundry_pipeline.reports.serving import matrix_markdown

        # Anew: an evaluation by itself wrote it before there was a matrix.
        report = write_report(chain, d, done.stage.name.removesuffix("_serving_matrix"))
        table = dg.MetadataValue.md(matrix_markdown(matrix_rows(done, chain.store)))
        return {"serving matrix": table, "report": dg.MetadataValue.path(str(report))}
    if done.stage.kind != "eval":
        return {}
    from foundry_pipeline.reports.run_report import report_path, write_report

    added = record_scores(chain, d, done)
    report = report_path(chain.settings.reports, done.stage.name.removesuffix("_eval"))
    # The matrix, where it follows at once, would only write it anew, and whole.
    if f"{done.stage.asset.removesuffix('_eval')}_serving_matrix" not in assets:
        write_report(chain, d, done.stage.name.removesuffix("_eval"))
    return {"ledger rows added": added, "report": dg.MetadataValue.path(str(report))}
