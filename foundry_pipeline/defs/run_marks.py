"""Which process is at work on a run, noted on the run itself.

Dagster tells a process by its number and by when it last reported. A clock that was set meanwhile makes a living process
look like a later one of the same number; a mark counts in ticks since the machine started, which nobody sets.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from foundry_pipeline.models.money.processes import process_mark

if TYPE_CHECKING:
    from dagster import DagsterInstance

PROCESS_TAG = "foundry/process"
_marked: set[tuple[str, str]] = set()


def mark_run(instance: DagsterInstance, run_id: str) -> None:
    """Note this process on a run, once."""
    mark = process_mark()
    if (run_id, mark) not in _marked:
        instance.add_run_tags(run_id, {PROCESS_TAG: mark})
        _marked.add((run_id, mark))
