"""Assets and their history as the documentation site reads them: the resolved graph, and Dagster's own instance."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from typing import Any

import dagster as dg
from dagster._core.storage.asset_check_execution_record import (
    AssetCheckExecutionRecord,
    AssetCheckExecutionRecordStatus,
)

from foundry_pipeline.docs.nodes import AssetNode, CheckNode, CheckResult, History, Version
from foundry_pipeline.errors import FoundryError

DATA_VERSION = "dagster/data_version"


def asset_nodes(definitions: dg.Definitions) -> list[AssetNode]:
    """Every asset of the resolved graph, in the order of their names, checks likewise."""
    graph = definitions.resolve_asset_graph()
    checks: dict[str, list[CheckNode]] = {}
    for check in graph.asset_check_keys:
        spec = graph.get_check_spec(check)
        declared = CheckNode(check.name, spec.description or "", bool(spec.blocking))
        checks.setdefault(check.asset_key.to_user_string(), []).append(declared)
    out = []
    for key in graph.get_all_asset_keys():
        node = graph.get(key)
        name = key.to_user_string()
        condition = node.automation_condition
        out.append(
            AssetNode(
                name=name,
                group=node.group_name or "",
                kinds=tuple(sorted(node.kinds)),
                owners=tuple(node.owners),
                description=node.description or "",
                parents=tuple(sorted(k.to_user_string() for k in node.parent_keys)),
                code_version=node.code_version,
                pool=min(node.pools) if node.pools else None,
                automation=condition.get_label() if condition is not None else None,
                partitions=tuple(_partitions(node)),
                tags={k: v for k, v in sorted(node.tags.items()) if not k.startswith("dagster/")},
                checks=tuple(sorted(checks.get(name, []), key=lambda c: c.name)),
                declared=node.is_materializable,
            )
        )
    return sorted(out, key=lambda n: n.name)


def _partitions(node: Any) -> Sequence[str]:
    """Partition keys of an asset; none for one whose partitions are known only while it runs."""
    partitions = node.partitions_def
    if partitions is None or isinstance(partitions, dg.DynamicPartitionsDefinition):
        return ()
    keys: Sequence[str] = partitions.get_partition_keys()
    return keys


def histories(instance: dg.DagsterInstance, nodes: Sequence[AssetNode]) -> dict[str, History]:
    """What the instance remembers of each asset. Reads only; raises FoundryError where its database cannot be read."""
    import sqlalchemy as sa

    try:
        return _histories(instance, nodes)
    except sa.exc.DBAPIError as error:
        raise FoundryError(
            f"Dagster's history cannot be read ({error.orig})",
            where=str(instance.root_directory) if instance.is_persistent else "the instance",
            mend="put its backup in place, or move the damaged folder aside: the store still knows what is built",
        ) from error


def _histories(instance: dg.DagsterInstance, nodes: Sequence[AssetNode]) -> dict[str, History]:
    keys = {n.name: dg.AssetKey.from_user_string(n.name) for n in nodes}
    records = {r.asset_entry.asset_key: r.asset_entry for r in instance.get_asset_records(list(keys.values()))}
    checks = instance.event_log_storage.get_latest_asset_check_execution_by_key(
        [dg.AssetCheckKey(keys[n.name], c.name) for n in nodes for c in n.checks]
    )
    out = {}
    for n in nodes:
        entry = records.get(keys[n.name])
        latest = entry.last_materialization_record if entry is not None else None
        last = _version(latest.event_log_entry) if latest is not None else None
        ran = {c.name: checks.get(dg.AssetCheckKey(keys[n.name], c.name)) for c in n.checks}
        versions = _seen(instance, keys[n.name], [r for r in ran.values() if r is not None], latest)
        out[n.name] = History(
            last,
            _by_partition(instance, keys[n.name]) if n.partitions else {},
            {name: _result(instance, r, last, versions) for name, r in ran.items() if r is not None},
        )
    return out


def _at(timestamp: float) -> str:
    return dt.datetime.fromtimestamp(timestamp, dt.UTC).isoformat(timespec="seconds")


def _version(entry: dg.EventLogEntry) -> Version:
    made = entry.asset_materialization
    tags: Mapping[str, str] = (made.tags or {}) if made is not None else {}
    return Version(tags.get(DATA_VERSION, ""), _at(entry.timestamp), entry.run_id)


def _by_partition(instance: dg.DagsterInstance, key: dg.AssetKey) -> dict[str, Version]:
    storage_ids = instance.event_log_storage.get_latest_storage_id_by_partition(
        key, dg.DagsterEventType.ASSET_MATERIALIZATION
    )
    if not storage_ids:
        return {}
    wanted = dg.AssetRecordsFilter(asset_key=key, storage_ids=sorted(storage_ids.values()))
    found = {r.storage_id: r.event_log_entry for r in _materializations(instance, wanted, len(storage_ids))}
    return {p: _version(found[i]) for p, i in sorted(storage_ids.items()) if i in found}


def _materializations(
    instance: dg.DagsterInstance, wanted: dg.AssetRecordsFilter, limit: int
) -> list[dg.EventLogRecord]:
    out: list[dg.EventLogRecord] = []
    cursor: str | None = None
    while len(out) < limit:
        page = instance.fetch_materializations(wanted, limit=min(1000, limit - len(out)), cursor=cursor)
        out += page.records
        cursor = page.cursor
        if not page.has_more:
            break
    return out


def _seen(
    instance: dg.DagsterInstance, key: dg.AssetKey, ran: Sequence[AssetCheckExecutionRecord], latest: Any
) -> dict[int, str]:
    """Storage id of a materialization that a check looked at → the data version that it had."""
    known = {latest.storage_id: _version(latest.event_log_entry).data_version} if latest is not None else {}
    targets = {t for r in ran if (t := _target(r)) is not None} - known.keys()
    if targets:
        wanted = dg.AssetRecordsFilter(asset_key=key, storage_ids=sorted(targets))
        found = _materializations(instance, wanted, len(targets))
        known |= {r.storage_id: _version(r.event_log_entry).data_version for r in found}
    return known


def _target(record: AssetCheckExecutionRecord) -> int | None:
    said = _evaluation(record)
    return said.target_materialization_data.storage_id if said and said.target_materialization_data else None


def _unsaid(instance: dg.DagsterInstance, record: AssetCheckExecutionRecord) -> str:
    """What became of a check that said nothing: it broke, waits for its turn, or was passed over by a run that ended."""
    if record.status != AssetCheckExecutionRecordStatus.PLANNED:
        return "error"
    run = instance.get_run_by_id(record.run_id)
    return "skipped" if run is None or run.is_finished else "planned"


def _evaluation(record: AssetCheckExecutionRecord) -> dg.AssetCheckEvaluation | None:
    """What the check said, or None while there is but the plan to run it."""
    said = record.evaluation
    return said if isinstance(said, dg.AssetCheckEvaluation) else None


def _result(
    instance: dg.DagsterInstance, record: AssetCheckExecutionRecord, last: Version | None, versions: Mapping[int, str]
) -> CheckResult:
    said = _evaluation(record)
    if said is None:
        outcome = _unsaid(instance, record)
    else:
        failed = "failed" if said.severity == dg.AssetCheckSeverity.ERROR else "warned"
        outcome = "passed" if said.passed else failed
    target, on_latest = _target(record), None
    if last is not None and record.run_id == last.run_id:
        on_latest = True
    elif last is not None and target is not None and target in versions:
        on_latest = versions[target] == last.data_version
    told = dict(said.metadata) if said is not None else {}
    return CheckResult(
        outcome=outcome,
        at=_at(record.event.timestamp if record.event is not None else record.create_timestamp),
        run_id=record.run_id,
        on_latest=on_latest,
        description=(said.description or "") if said is not None else "",
        observed=_told(told, "observed", "auc"),
        bound=_told(told, "bound"),
    )


def _told(metadata: Mapping[str, Any], *names: str) -> str:
    """The first of these that a check said, in one line."""
    for name in names:
        if name in metadata:
            value = metadata[name].value
            number = f"{value:.4g}" if isinstance(value, float) else str(value)
            return (number if name in ("observed", "bound") else f"{name} {number}")[:300]
    return ""
