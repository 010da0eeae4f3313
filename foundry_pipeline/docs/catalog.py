"""`catalog.json`: what is built, as store, ledger and Dagster's instance know it.

    catalog["assets"]["madison_dataset_v6"]
        → {'state': 'built', 'content_hash': '5b…', 'tables': {'pairs': {'rows': 295, 'columns': {…}}}, 'checks': {…}, …}

`state` is `built` (for the present declarations), `stale` (for others; `why` says which), `collapsed`, `damaged` (its
files are gone or cannot be read) or `not built`. The content of artifacts is not hashed again here: `foundry doctor` and every
build do that. Equal state gives equal bytes: the time at which the catalog is made is not in it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from foundry_pipeline.chain.collapses import collapsed_stage
from foundry_pipeline.chain.engine import Chain, Resolved
from foundry_pipeline.chain.gate import VERDICT, believed
from foundry_pipeline.chain.staleness import why_stale
from foundry_pipeline.docs.nodes import AssetNode, CheckResult, History, Version
from foundry_pipeline.docs.values import as_json
from foundry_pipeline.lineage.named import records_named
from foundry_pipeline.lineage.store import Record

SCHEMA = "foundry-catalog/1"
SCORE = ("mode", "judge", "overall", "overall_low", "overall_high", "critical_failures", "parse_failures", "score_id")


def build_catalog(
    chain: Chain, nodes: Sequence[AssetNode], histories: Mapping[str, History], scores: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """The built state of every asset. `scores` are rows of the ledger. Raises DamagedArtifact for a torn index."""
    memo: dict[str, Resolved] = {}
    found = {name: chain.resolve(name, memo) for name in chain.stages}
    earlier = _earlier(chain, {name for name, r in found.items() if r.record is None})
    by_input: dict[str, list[Mapping[str, Any]]] = {}
    for row in scores:
        by_input.setdefault(str(row["input_hash"]), []).append(row)
    return {
        "schema": SCHEMA,
        "profile": chain.settings.profile,
        "assets": {
            n.name: _asset(chain, found, n, histories.get(n.name, History()), earlier.get(n.name, []), by_input)
            for n in nodes
        },
    }


def _earlier(chain: Chain, names: set[str]) -> dict[str, list[Record]]:
    """Builds for other declarations that the store holds, last built first; only of the assets named."""
    return {name: records_named(chain.store, name)[::-1] for name in names}


def _built_at(record: Record) -> str:
    return str(record.facts.get("built_at", ""))


def _asset(
    chain: Chain,
    found: Mapping[str, Resolved],
    node: AssetNode,
    history: History,
    earlier: Sequence[Record],
    scores: Mapping[str, Sequence[Mapping[str, Any]]],
) -> dict[str, Any]:
    out: dict[str, Any] = {
        "state": "not built",
        "why": [],
        "last_materialization": _version(history.last),
        "partitions": {p: _version(v) for p, v in history.partitions.items()},
        "checks": {c.name: _check(history.checks.get(c.name)) for c in node.checks},
    }
    if node.name not in chain.stages:
        return out
    here = found[node.name]
    if here.record is not None:
        return {**out, "state": "built", **_built(chain, here.record, scores), **_verdicts(chain, here.record, out)}
    fallen = collapsed_stage(chain, here)
    if fallen is not None:
        told = f"collapsed at step {fallen['step']} of {fallen['steps']}: {fallen['told']}"
        return {**out, "state": "collapsed", "why": [told]}
    waits = [f"waits for {name}, which is not built" for name in here.missing if name != node.name]
    if earlier:
        # What Dagster saw last, where it is one of these; else what was built last.
        seen = history.last.data_version if history.last else None
        record = next((r for r in earlier if r.content_hash == seen), earlier[0])
        why = [reason.told() for reason in why_stale(chain, record, memo=dict(found))]
        return {**out, "state": "stale", "why": why or waits, **_built(chain, record, scores)}
    return {**out, "why": waits}


def _built(chain: Chain, record: Record, scores: Mapping[str, Sequence[Mapping[str, Any]]]) -> dict[str, Any]:
    out = {
        "content_hash": record.content_hash,
        "input_hash": record.input_hash,
        "code_version": record.code_version,
        "built_at": _built_at(record),
        "seconds": as_json(record.facts.get("build_seconds")),
        "inputs": {name: way["content"] for name, way in sorted(record.inputs.items())},
        "facts": as_json({k: v for k, v in sorted(record.facts.items()) if isinstance(v, str | int | float | bool)}),
        "scores": [as_json({k: row.get(k) for k in SCORE}) for row in scores.get(record.input_hash, ())],
    }
    try:
        return {**out, **_content(chain, record.content_hash), "cost_usd": _cost(chain, record.content_hash)}
    except OSError as error:
        return {**out, "state": "damaged", "why": [f"its files cannot be read: {error.strerror or error}"]}
    except ValueError as error:
        return {**out, "state": "damaged", "why": [str(error)]}


def _content(chain: Chain, content_hash: str) -> dict[str, Any]:
    """Files with their sizes and tables with their rows. Raises OSError where they are gone, ValueError where torn."""
    import polars as pl

    files = chain.store.sizes(content_hash)
    tables = {}
    for name in (n for n in files if n.endswith(".parquet") and "/" not in n):
        path = chain.store.file(content_hash, name)
        if path is None:
            raise FileNotFoundError(2, f"{name} is not there")
        try:
            frame = pl.scan_parquet(path)
            columns = {name: str(dtype) for name, dtype in frame.collect_schema().items()}
            tables[path.stem] = {"rows": int(frame.select(pl.len()).collect().item()), "columns": columns}
        except pl.exceptions.PolarsError as error:
            raise ValueError(f"{path.name} cannot be read: {str(error).splitlines()[0]}") from error
    return {"bytes": sum(files.values()), "files": files, "tables": tables}


def _cost(chain: Chain, content_hash: str) -> float | None:
    """What the build cost, in USD, as its manifest says."""
    cost = chain.store.read_manifest(content_hash).get("cost_usd")
    return float(cost) if isinstance(cost, int | float) else None


def _verdicts(chain: Chain, record: Record, out: Mapping[str, Any]) -> dict[str, Any]:
    """Checks of which Dagster tells nothing, from the verdict that lies beside the artifact for exactly this content."""
    untold = {name for name, result in out["checks"].items() if result is None}
    if not untold:
        return {}
    try:
        verdict = believed(chain.store.read_note(f"artifacts/{record.content_hash}/{VERDICT}")) or {}
        results = {r["name"]: r for r in verdict["results"]}
    except (OSError, KeyError, TypeError):
        return {}  # training is refused for want of it; here the checks stay untold
    checks = dict(out["checks"])
    for name in sorted(untold & results.keys()):
        r = results[name]
        failed = "failed" if r.get("severity") == "error" else "warned"
        checks[name] = {
            "outcome": "passed" if r.get("passed") else failed,
            "at": None,
            "on_latest": True,
            "told_by": "verdict",
            "description": "",
            "observed": str(r.get("observed", ""))[:300],
            "bound": str(r.get("bound", ""))[:300],
        }
    return {"checks": checks}


def _version(v: Version | None) -> dict[str, Any] | None:
    return None if v is None else {"data_version": v.data_version, "at": v.at, "run_id": v.run_id}


def _check(r: CheckResult | None) -> dict[str, Any] | None:
    if r is None:
        return None
    told = {"outcome": r.outcome, "at": r.at, "on_latest": r.on_latest, "told_by": "Dagster"}
    return {**told, "description": r.description, "observed": r.observed, "bound": r.bound}


def undeclared(manifest: Mapping[str, Any], catalog: Mapping[str, Any]) -> list[str]:
    """Built tables and columns that `tables.yaml` does not have, and declared ones that a built table lacks."""
    out: dict[str, None] = {}
    for name, built in catalog["assets"].items():
        kind = manifest["assets"][name].get("kind")
        if built["state"] != "built" or kind is None:
            continue
        declared = manifest["kinds"][kind]["tables"]
        for table in sorted(declared.keys() - built["tables"].keys()):
            if not declared[table]["optional"]:
                out[f"table `{table}` of kind `{kind}`: declared, but {name} has none"] = None
        for table, held in built["tables"].items():
            if table not in declared:
                out[f"table `{table}` of kind `{kind}` (built in {name}): not in tables.yaml"] = None
                continue
            columns = declared[table]["columns"]
            for column in held["columns"].keys() - columns.keys():
                out[f"column `{column}` of table `{table}` of kind `{kind}` (built in {name}): not in tables.yaml"] = (
                    None
                )
            for column in columns.keys() - held["columns"].keys():
                out[f"column `{column}` of table `{table}` of kind `{kind}`: declared, but {name} has none"] = None
    return sorted(out)
