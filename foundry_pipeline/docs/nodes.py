"""What the documentation knows of Dagster, as plain values: `defs/documented.py` fills them, nothing here imports it."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class CheckNode:
    """A declared check; a failed `blocking` one stops what lies downstream."""

    name: str
    description: str
    blocking: bool


@dataclass(frozen=True)
class AssetNode:
    """A declared asset as Dagster's graph has it. `declared` is false for one that is only named as somebody's input."""

    name: str
    group: str
    kinds: tuple[str, ...]
    owners: tuple[str, ...]
    description: str
    parents: tuple[str, ...]
    code_version: str | None
    pool: str | None
    automation: str | None
    partitions: tuple[str, ...]
    tags: dict[str, str]
    checks: tuple[CheckNode, ...]
    declared: bool = True


@dataclass(frozen=True)
class CheckResult:
    """The last time that a check ran. `outcome` is passed, warned, failed, planned, skipped or error (it never said).

    `on_latest` says that it looked at the data version that the asset has now; None where Dagster does not tell.
    """

    outcome: str
    at: str
    run_id: str
    on_latest: bool | None
    description: str
    observed: str
    bound: str


@dataclass(frozen=True)
class Version:
    """One materialization: its data version, when it was (ISO 8601, UTC) and the run that made it."""

    data_version: str
    at: str
    run_id: str


@dataclass(frozen=True)
class History:
    """What Dagster's instance remembers of one asset."""

    last: Version | None = None
    partitions: dict[str, Version] = field(default_factory=dict)
    checks: dict[str, CheckResult] = field(default_factory=dict)
