"""Everything Dagster sees of one project, gathered from what was declared."""

from __future__ import annotations

import dagster as dg

from foundry_pipeline.chain.engine import Chain
from foundry_pipeline.declarations import Declarations
from foundry_pipeline.defs.assets import chain_assets
from foundry_pipeline.defs.automation import sensor, weekly_audit, weekly_sources
from foundry_pipeline.defs.checks import chain_checks
from foundry_pipeline.defs.partitions import seed_jobs
from foundry_pipeline.defs.pipes import PatientReader
from foundry_pipeline.defs.sources import drop_folder_sensor
from foundry_pipeline.docs.descriptions import load_descriptions


def gathered(d: Declarations, chain: Chain) -> dg.Definitions:
    """Assets, checks, automation, schedule and resources. Raises DeclarationError where a kind has no description."""
    return dg.Definitions(
        assets=chain_assets(d, chain, load_descriptions(d.root)),
        asset_checks=chain_checks(d, chain),
        jobs=seed_jobs(d, chain),
        schedules=[weekly_sources(dg.AssetSelection.groups("sources")), weekly_audit()],
        sensors=[s for s in (sensor(), drop_folder_sensor(d, chain)) if s is not None],
        resources={"pipes": dg.PipesSubprocessClient(message_reader=PatientReader())},
        # One process: sixty small assets take seconds here and minutes in a process each.
        executor=dg.in_process_executor,
        metadata={"profile": chain.settings.profile, "store": chain.store.place},
    )
