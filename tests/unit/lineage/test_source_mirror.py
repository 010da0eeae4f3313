"""Fetched source texts in a shared store: a second machine has them without asking, and the later refresh counts."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from foundry_pipeline.corpus.snapshot import Fetched, Snapshot, snapshot_folder
from foundry_pipeline.errors import DamagedArtifact
from foundry_pipeline.lineage.shared_store import SharedStore
from tests.servers.s3 import S3, s3_server
from tests.unit.lineage.test_shared_store import World


@pytest.fixture(scope="module")
def bucket_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3]:
    with s3_server(tmp_path_factory.mktemp("s3")) as running:
        yield running


@pytest.fixture
def world(bucket_server: S3, tmp_path: Path) -> World:
    return World(bucket_server, tmp_path)


def refreshed(store: SharedStore, at: str, **texts: str) -> Snapshot:
    """What a whole refresh at that time leaves: its documents, and the snapshot that names them."""
    snapshot = Snapshot(snapshot_folder(store.root, "keeper") / "letters", command="foundry sources refresh keeper")
    incoming = snapshot.temporary()
    for key, text in texts.items():
        data = text.encode()
        (incoming / key).write_bytes(data)
        sha = hashlib.sha256(data).hexdigest()
        record = Fetched(key, f"https://x/{key}", "text", "present", at, at, sha256=sha, bytes=len(data))
        snapshot.keep(record, incoming / key)
    snapshot.complete(asked="asked", keys=texts, left_out={}, requests=1, now=at)
    return snapshot


def read(store: SharedStore) -> dict[str, str]:
    snapshot = Snapshot(snapshot_folder(store.root, "keeper") / "letters", command="")
    return {r.key: snapshot.data(r).decode() for r in snapshot.documents("asked")}


def test_a_second_machine_reads_what_the_first_has_fetched(world: World) -> None:
    one, two = world.machine(), world.machine("two")
    two.bring_sources("keeper")
    assert not (two.root / "sources").exists()
    refreshed(one, "2026-01-01T00:00:00+00:00", a="first", b="second")
    one.sync_sources("keeper")
    two = world.machine("two")
    two.bring_sources("keeper")
    assert read(two) == {"a": "first", "b": "second"}
    assert not [key for key in world.objects() if "incoming" in key]
    # Nothing moves when nothing has changed.
    again = world.machine("two")
    again.sync_sources("keeper")
    assert (again.bucket.traffic().uploaded_files, again.bucket.traffic().downloaded_files) == (0, 0)


def test_the_later_refresh_counts_on_both(world: World) -> None:
    one, two = world.machine(), world.machine("two")
    refreshed(one, "2026-01-01T00:00:00+00:00", a="old", b="same")
    one.sync_sources("keeper")
    refreshed(two, "2026-02-01T00:00:00+00:00", a="new", b="same")
    two.bring_sources("keeper")  # looks, and neither takes the older nor sends the newer
    assert read(two)["a"] == "new"
    assert read(world.machine()) == {"a": "old", "b": "same"}
    two.sync_sources("keeper")
    sent = two.bucket.traffic().uploaded_files
    assert sent == 4  # one text, two records, one snapshot; the other text is there
    one = world.machine()
    one.bring_sources("keeper")
    assert read(one) == {"a": "new", "b": "same"}


def test_a_text_that_is_not_what_it_is_called_is_refused(world: World) -> None:
    one = world.machine()
    refreshed(one, "2026-01-01T00:00:00+00:00", a="first")
    one.sync_sources("keeper")
    key = next(k for k in world.objects() if "/content/" in k)
    world.put(key, b"forged")
    two = world.machine("two")
    with pytest.raises(DamagedArtifact, match="not what was fetched"):
        two.bring_sources("keeper")
    assert not list((two.root / "sources").rglob("snapshot.json"))
