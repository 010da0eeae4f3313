"""When assets are built without being asked.

Rebuild only on a new data version upstream (or new code, or when missing); retrain only when, besides, the blocking
checks of the dataset have passed. The sensor that evaluates these conditions is stopped until a user starts it.
"""

from __future__ import annotations

from typing import Any

import dagster as dg

from foundry_pipeline.chain.stage import Kind

# Any: `since_last_handled` is declared for a type that the union operator does not return.
_SOMETHING: Any = (
    dg.AutomationCondition.any_deps_match(dg.AutomationCondition.data_version_changed())
    | dg.AutomationCondition.newly_missing()
    | dg.AutomationCondition.code_version_changed()
)
_CHANGED: dg.AutomationCondition[Any] = _SOMETHING.since_last_handled()

REBUILD = (
    _CHANGED
    & ~dg.AutomationCondition.any_deps_missing()
    & ~dg.AutomationCondition.any_deps_in_progress()
    & ~dg.AutomationCondition.in_progress()
).with_label("rebuild on a new data version")

# `all_deps_blocking_checks_passed` looks at the last time that a check ran, be it on another version: between a dataset's
# materialization and its checks it would still see the pass of the version before. A check counts as out of date from the
# moment its dataset is written until it has run again.
_OUT_OF_DATE: Any = dg.AutomationCondition.any_deps_match(dg.AutomationCondition.newly_updated()).since(
    dg.AutomationCondition.newly_updated()
)
_JUDGED: dg.AutomationCondition[Any] = dg.AutomationCondition.all_deps_match(
    dg.AutomationCondition.all_checks_match(
        dg.AutomationCondition.check_passed() & ~_OUT_OF_DATE, blocking_only=True
    ).with_label("all blocking checks passed on this version")
).with_label("all upstream blocking checks passed on their present versions")

RETRAIN = (REBUILD & _JUDGED).with_label("retrain on a new data version that passed its checks")


def condition(kind: Kind) -> dg.AutomationCondition | None:
    """Sources follow the schedule, base models do not change by themselves, adapters and answers wait for checks."""
    if kind in ("sources", "base_model"):
        return None
    return RETRAIN if kind in ("adapter", "responses") else REBUILD


def sensor() -> dg.AutomationConditionSensorDefinition:
    return dg.AutomationConditionSensorDefinition(
        "foundry_automation",
        target=dg.AssetSelection.all(),
        default_status=dg.DefaultSensorStatus.STOPPED,
        minimum_interval_seconds=60,
    )


def weekly_sources(selection: dg.AssetSelection) -> dg.ScheduleDefinition:
    """Read the sources again on Monday mornings; nothing downstream moves unless a text has changed."""
    job = dg.define_asset_job("refresh_sources", selection=selection)
    return dg.ScheduleDefinition(
        name="weekly_sources",
        job=job,
        cron_schedule="0 5 * * 1",
        execution_timezone="UTC",
        default_status=dg.DefaultScheduleStatus.STOPPED,
    )


def weekly_audit() -> dg.ScheduleDefinition:
    """Ask on Monday mornings whether an advisory is known of an installed package; the run fails where one is, and where
    nobody could be asked: silence is no pass."""

    @dg.op(name="known_vulnerabilities")
    def known_vulnerabilities() -> None:
        from foundry_pipeline.cli.audit import ask

        found = ask()
        if found.code:
            raise dg.Failure(
                found.told(),
                metadata={
                    "advisories": dg.MetadataValue.json(found.known),
                    "not asked of": dg.MetadataValue.json(found.unasked),
                },
                allow_retries=False,
            )
        dg.get_dagster_logger().info(found.told())

    @dg.job(name="audit_packages", description="Known vulnerabilities of the installed packages: `foundry audit`.")
    def audit_packages() -> None:
        known_vulnerabilities()

    return dg.ScheduleDefinition(
        name="weekly_audit",
        job=audit_packages,
        cron_schedule="30 5 * * 1",
        execution_timezone="UTC",
        default_status=dg.DefaultScheduleStatus.STOPPED,
    )
