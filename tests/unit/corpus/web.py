"""What the tests of fetched sources share: a running site, a store, a manifest."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from foundry_pipeline.corpus.connectors import RawDocument, read_source, source_fingerprint
from foundry_pipeline.corpus.connectors.base import Place
from foundry_pipeline.corpus.refresh import refresh_source
from foundry_pipeline.corpus.session import Report
from foundry_pipeline.corpus.snapshot import Snapshot
from foundry_pipeline.declarations.sources import SourceManifest
from foundry_pipeline.lineage.store import Store
from tests.servers.source_server import Site

QUICK = {"requests_per_second": 50, "backoff_seconds": 0.01, "timeout_seconds": 5, "retries": 2}
QUICK |= {"private_hosts": ["127.0.0.1"]}  # where the test's own site is


@dataclass
class Web:
    """A site and a project's store; `base` is the folder of manifests."""

    site: Site
    base: Path
    store: Store

    def manifest(self, connector: dict[str, Any], document_id: str = "{stem}", **facts: Any) -> SourceManifest:
        quick = {**QUICK, **({"requests_per_second": 10} if connector["kind"] == "founders" else {})}
        fetch = {**quick, **connector.pop("fetch", {})}
        about = {"source": "acts", "title": "Acts", "author": "James Madison", "license": "public domain"}
        return SourceManifest.model_validate(
            {**about, **facts, "document_id": document_id, "connector": {**connector, "fetch": fetch}}
        )

    def refresh(self, manifest: SourceManifest) -> Report:
        return refresh_source(manifest, character="madison", base=self.base, store=self.store)

    @property
    def snapshots(self) -> Path:
        return self.store.root / "sources" / "madison"

    def snapshot(self, manifest: SourceManifest) -> Snapshot:
        return Place(manifest, self.base, self.snapshots).snapshot

    def read(self, manifest: SourceManifest) -> list[RawDocument]:
        return read_source(manifest, base=self.base, snapshots=self.snapshots)

    def fingerprint(self, manifest: SourceManifest) -> str:
        return source_fingerprint(manifest, self.base, snapshots=self.snapshots)


def states(report: Report) -> dict[str, str]:
    return {o.key: o.state for o in report.outcomes}


def web(folder: Path, site: Site) -> Web:
    """A fresh project in a folder, beside a site on which nothing lies yet."""
    base = folder / "manifests"
    base.mkdir()
    site.begin_anew()
    return Web(site, base, Store(folder / "store"))


def urls(net: Web, *paths: str, fetch: dict | None = None, **told) -> SourceManifest:
    """A source of these paths of the site, a document each, named by its file."""
    documents = {Path(p).stem: {"url": net.site.url(p), "date": "1788-06-01", **told} for p in paths}
    return net.manifest({"kind": "url", "documents": documents, "fetch": fetch or {}})
