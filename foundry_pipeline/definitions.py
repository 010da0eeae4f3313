"""Everything Dagster sees, for the project at the working directory."""

from __future__ import annotations

import dagster as dg

from foundry_pipeline.chain.graph import load_chain
from foundry_pipeline.defs.gathered import gathered
from foundry_pipeline.launch import let_waiting_threads_sleep
from foundry_pipeline.settings import load_settings


def build_definitions() -> dg.Definitions:
    """Definitions of the project at the working directory, under the profile the environment names."""
    let_waiting_threads_sleep()  # the teacher's sentence encoder works in this process
    return gathered(*load_chain(load_settings()))


defs = build_definitions()
