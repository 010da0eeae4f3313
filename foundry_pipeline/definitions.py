"""Everything Dagster sees, gathered: assets, checks, automation, schedule, resources."""

from __future__ import annotations

import dagster as dg

from foundry_pipeline.chain.graph import load_chain
from foundry_pipeline.defs.assets import chain_assets
from foundry_pipeline.defs.automation import sensor, weekly_sources
from foundry_pipeline.defs.checks import chain_checks
from foundry_pipeline.defs.sources import drop_folder_sensor
from foundry_pipeline.docs.blocks import load_blocks
from foundry_pipeline.settings import load_settings


def build_definitions() -> dg.Definitions:
    """Definitions of the project at the working directory, under the profile the environment names."""
    settings = load_settings()
    declarations, chain = load_chain(settings)
    return dg.Definitions(
        assets=chain_assets(declarations, chain, load_blocks(settings.root, "assets")),
        asset_checks=chain_checks(declarations, chain),
        schedules=[weekly_sources(dg.AssetSelection.groups("sources"))],
        sensors=[s for s in (sensor(), drop_folder_sensor(declarations, chain)) if s is not None],
        resources={"pipes": dg.PipesSubprocessClient()},
        # One process: sixty small assets take seconds here and minutes in a process each.
        executor=dg.in_process_executor,
        metadata={"profile": settings.profile, "store": str(settings.store)},
    )


defs = build_definitions()
