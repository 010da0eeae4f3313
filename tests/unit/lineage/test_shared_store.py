"""A store behind a URL: whole or absent, first writer wins, nothing sent or fetched twice, every trouble told and mended."""

from __future__ import annotations

import json
import threading
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from foundry_pipeline.errors import DamagedArtifact, FoundryError, StoreAway
from foundry_pipeline.lineage.bucket import Bucket, parse_options
from foundry_pipeline.lineage.objects import shown_url
from foundry_pipeline.lineage.shared_store import SharedStore
from foundry_pipeline.lineage.store import Store
from foundry_pipeline.lineage.traffic_log import read_traffic
from foundry_pipeline.lineage.trimming import trim
from foundry_pipeline.settings import store_places
from tests.servers.s3 import BUCKET, NAME, S3, SECRET, s3_server
from tests.unit.test_store import fields

# A client that gives up at once: how often it repeats a request is not what is tested here.
QUICK: dict[str, Any] = {"config_kwargs": {"connect_timeout": 2, "read_timeout": 5, "retries": {"max_attempts": 1}}}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3]:
    with s3_server(tmp_path_factory.mktemp("s3")) as running:
        yield running


@dataclass
class World:
    """A prefix of its own in the bucket; every `machine()` is an empty cache beside the others."""

    server: S3
    folder: Path
    prefix: str = field(default_factory=lambda: uuid.uuid4().hex)
    said: list[str] = field(default_factory=list)

    def bucket(self, **options: Any) -> Bucket:
        given = {"key": NAME, "secret": SECRET, "endpoint_url": self.server.server.url, **options}
        return Bucket(f"s3://{BUCKET}/{self.prefix}", given)

    def machine(self, name: str = "one", **options: Any) -> SharedStore:
        return SharedStore(self.folder / name, self.bucket(**options), say=self.said.append)

    def files(self, name: str, **texts: str) -> Path:
        folder = self.folder / f"made-{name}"
        folder.mkdir()
        for file, text in texts.items():
            (folder / f"{file}.txt").write_text(text)
        return folder

    def objects(self) -> list[str]:
        found = self.server.client.list_objects_v2(Bucket=BUCKET, Prefix=f"{self.prefix}/").get("Contents", ())
        return [item["Key"].removeprefix(f"{self.prefix}/") for item in found]

    def put(self, key: str, data: bytes) -> None:
        self.server.client.put_object(Bucket=BUCKET, Key=f"{self.prefix}/{key}", Body=data)


@pytest.fixture
def world(server: S3, tmp_path: Path) -> Iterator[World]:
    yield World(server, tmp_path)
    server.configure(dead=False, dead_after=None)


def test_another_machine_finds_it_and_fetches_what_it_asks_for(world: World) -> None:
    made = world.machine().publish(world.files("a", a="hello", b="x" * 5000), record=fields())
    assert (
        made.content_hash
        == Store(world.folder / "local")
        .publish(world.files("same", a="hello", b="x" * 5000), record=fields())
        .content_hash
    )
    other = world.machine("two")
    record = other.record("a" * 64)
    assert record is not None
    assert record.content_hash == made.content_hash
    found = other.open(record.content_hash)
    assert found.sizes() == {"a.txt": 5, "b.txt": 5000}
    assert other.bucket.traffic().downloaded_files == 0
    assert found.file("a.txt").read_text() == "hello"
    assert other.bucket.traffic().downloaded_files == 1
    assert (found.payload / "b.txt").read_text() == "x" * 5000
    # The file that was here already was not fetched again.
    assert other.bucket.traffic().downloaded_files == 2
    # From here on it is a store of its own: FOUNDRY_STORE may point to the cache.
    assert Store(other.root).open(made.content_hash).manifest["name"] == "thing"
    again = world.machine("two")
    assert (again.open(made.content_hash).payload / "a.txt").read_text() == "hello"
    assert again.bucket.traffic().downloaded_files == 0


def test_the_manifest_comes_last_and_the_index_after_it(world: World) -> None:
    seen = len(world.server.requests())
    world.machine().publish(world.files("a", a="one", b="two"), record=fields())
    written = [r["path"].rsplit("/", 1)[-1] for r in world.server.requests(seen) if r["event"] == "PUT"]
    assert sorted(written[:2]) == ["a.txt", "b.txt"]
    assert written[2:] == ["manifest.json", f"{'a' * 64}.json"]


def test_what_is_there_is_not_sent_again(world: World) -> None:
    world.machine().publish(world.files("a", a="one", b="two"), record=fields())
    other = world.machine("two")
    other.publish(world.files("b", a="one", b="two"), record=fields("b" * 64, "other"))
    spent = other.bucket.traffic()
    assert (spent.uploaded_files, spent.found_files) == (0, 2)
    assert len([k for k in world.objects() if k.endswith(".txt")]) == 2


def test_of_two_writers_of_the_same_inputs_the_first_wins(world: World) -> None:
    one, two = world.machine(), world.machine("two")
    first = one.publish(world.files("a", a="first"), record=fields())
    second = two.publish(world.files("b", a="second"), record=fields())
    assert second.content_hash == first.content_hash
    assert two.record("a" * 64).content_hash == first.content_hash
    assert second.file("a.txt").read_text() == "first"
    assert any("another machine was first" in text for text in world.said)


def test_writers_of_one_content_in_other_bytes_do_not_mix(world: World) -> None:
    """A dataset's hash is over its rows: two versions of Parquet may write them differently."""
    one, two = world.machine(), world.machine("two")
    ready = threading.Barrier(2)

    def write(store: SharedStore, text: str) -> None:
        source = world.files(text, a=text, b=text * 2)
        ready.wait()
        store.publish(source, record=fields(), content_hash="c" * 64)

    threads = [threading.Thread(target=write, args=pair) for pair in ((one, "left"), (two, "right"))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    read = world.machine("three").open("c" * 64)
    a, b = (read.payload / name for name in ("a.txt", "b.txt"))
    assert (a.read_text(), b.read_text()) in {("left", "leftleft"), ("right", "rightright")}
    assert one.record("a" * 64).content_hash == two.record("a" * 64).content_hash == "c" * 64


def test_a_large_file_goes_in_parts_and_is_proven_by_its_mark(world: World) -> None:
    source = world.folder / "large"
    source.mkdir()
    (source / "w.bin").write_bytes(bytes(range(256)) * (110 << 12))  # 110 MiB: parts of 50
    store = world.machine()
    made = store.publish(source, record=fields())
    entry = store.bucket.entries(f"artifacts/{made.content_hash}/")
    assert any(e.tag.endswith("-3") for e in entry.values())
    assert store.bucket.traffic().downloaded_bytes < 100_000  # proven without reading it back
    assert world.machine("two").open(made.content_hash).file("w.bin").stat().st_size == 110 << 20
    lines = [line for line in read_traffic(store.root / "traffic.jsonl") if line["what"] == "sent"]
    assert lines[0]["uploaded_files"] == 1
    assert lines[0]["uploaded_bytes"] > 110 << 20
    assert lines[0]["requests"] >= 8


@pytest.mark.parametrize("harm", ["cut", "another", "gone", "manifest", "no manifest", "escaping"])
def test_damage_in_the_bucket_is_named_and_mended_by_a_rebuild(world: World, harm: str) -> None:
    made = world.machine().publish(world.files("a", a="hello", b="world"), record=fields())
    manifest_key = f"artifacts/{made.content_hash}/manifest.json"
    key = next(k for k in world.objects() if k.endswith("a.txt"))
    manifest = json.loads(world.machine("x").bucket.read(manifest_key))
    if harm == "cut":
        world.put(key, b"hell")
    elif harm == "another":
        world.put(key, b"hallo")
    elif harm == "gone":
        world.server.client.delete_object(Bucket=BUCKET, Key=f"{world.prefix}/{key}")
    elif harm == "manifest":
        manifest["files"]["a.txt"] = "0" * 64
        world.put(manifest_key, json.dumps(manifest).encode())
    elif harm == "escaping":
        manifest["files"]["../../a.txt"] = manifest["files"].pop("a.txt")
        world.put(manifest_key, json.dumps(manifest).encode())
    else:
        world.server.client.delete_object(Bucket=BUCKET, Key=f"{world.prefix}/{manifest_key}")
    other = world.machine("two")
    record = other.record("a" * 64)
    with pytest.raises(DamagedArtifact, match="foundry repair thing"):
        other.reuse(record)
    done = other.repair(made.content_hash)
    assert done
    assert other.record("a" * 64) is None
    again = other.publish(world.files("again", a="hello", b="world"), record=fields())
    assert again.content_hash == made.content_hash
    assert (world.machine("three").open(made.content_hash).payload / "a.txt").read_text() == "hello"
    if harm in ("cut", "another"):
        assert any(k.startswith("quarantine/") and k.endswith("a.txt") for k in world.objects())


def test_damage_in_the_bucket_is_mended_from_a_whole_copy(world: World) -> None:
    store = world.machine()
    made = store.publish(world.files("a", a="hello"), record=fields())
    world.put(next(k for k in world.objects() if k.endswith("a.txt")), b"hallo")
    assert "sent again" in world.machine().repair(made.content_hash)[0]
    assert world.machine("two").open(made.content_hash).file("a.txt").read_text() == "hello"
    assert world.machine("two").repair(made.content_hash) == []


def test_a_damaged_copy_here_is_set_aside_and_fetched_again(world: World) -> None:
    store = world.machine()
    made = store.publish(world.files("a", a="hello"), record=fields())
    (store.folder(made.content_hash) / "payload" / "a.txt").write_text("hallo")
    with pytest.raises(DamagedArtifact):
        world.machine().open(made.content_hash)
    said = world.machine().repair(made.content_hash)
    assert "set aside" in said[0]
    assert "fetched from there" in said[1]
    assert world.machine().open(made.content_hash).file("a.txt").read_text() == "hello"


@pytest.mark.parametrize("after", range(0, 10, 3))
def test_a_store_that_dies_on_the_way_leaves_nothing_half_and_is_gone_on_with(world: World, after: int) -> None:
    """The server dies after so many requests of a publication; the same publication afterwards goes on from there."""
    store = world.machine(**QUICK)
    store.record("a" * 64)
    source = world.files("a", a="one", b="two", c="three")
    world.server.configure(dead_after=world.server.count() + after)
    with pytest.raises(StoreAway, match="repeat the same command"):
        store.publish(source, record=fields())
    world.server.configure(dead_after=None)
    arrived = [key for key in world.objects() if key.endswith(".txt")]
    if any(key.startswith("index/") for key in world.objects()):
        reader = world.machine("reader")
        found = reader.record("a" * 64)
        assert (reader.open(found.content_hash).payload / "c.txt").read_text() == "three"
    again = world.machine()
    made = again.reuse(again.record("a" * 64))
    assert again.bucket.traffic().uploaded_files == 3 - len(arrived)
    assert (world.machine("two").open(made.content_hash).payload / "b.txt").read_text() == "two"
    assert world.machine().pending() == []


def test_a_fetch_that_is_cut_off_goes_on_with_what_it_has(world: World) -> None:
    texts = {f"f{i}": f"{i}" * 3000 for i in range(12)}
    made = world.machine().publish(world.files("a", **texts), record=fields())
    other = world.machine("two", **QUICK)
    artifact = other.open(made.content_hash)
    world.server.configure(dead_after=world.server.count() + 6)
    with pytest.raises(StoreAway):
        _ = artifact.payload
    world.server.configure(dead_after=None)
    assert not (other.folder(made.content_hash)).exists()
    arrived = len(list((other.root / "parts").rglob("*.txt")))
    assert 0 < arrived < 12
    again = world.machine("two")
    assert len(list(again.open(made.content_hash).payload.glob("*.txt"))) == 12
    assert again.bucket.traffic().downloaded_files == 12 - arrived


def test_a_cache_without_room_says_so_and_keeps_nothing_half(world: World, full_disk: Path) -> None:
    made = world.machine().publish(world.files("a", a="x" * 3_000_000), record=fields())
    cramped = SharedStore(full_disk / "cache", world.bucket())
    with pytest.raises(FoundryError, match=r"no room in the cache(.|\n)*foundry store trim"):
        _ = cramped.open(made.content_hash).payload
    assert not list((full_disk / "cache").rglob("manifest.json"))


def test_a_verdict_is_seen_by_every_machine(world: World) -> None:
    made = world.machine().publish(world.files("a", a="x"), record=fields())
    other = world.machine("two").open(made.content_hash)
    assert other.read_note("verdict.json") is None
    made.write_note("verdict.json", {"passed": True})
    assert json.loads(other.read_note("verdict.json")) == {"passed": True}
    made.write_note("verdict.json", {"passed": False})
    assert json.loads(other.read_note("verdict.json")) == {"passed": False}


def test_what_was_built_in_a_folder_is_pushed_with_its_verdict(world: World) -> None:
    local = Store(world.folder / "one")
    made = local.publish(world.files("a", a="x"), record=fields())
    made.write_note("verdict.json", {"passed": True})
    store = world.machine()
    waiting = store.pending()
    assert [r.content_hash for r in waiting] == [made.content_hash]
    # It counts as built here before it is sent, and not elsewhere.
    assert store.record("a" * 64) is not None
    assert world.machine("two").record("a" * 64) is None
    store.share(waiting[0])
    assert store.pending() == []
    other = world.machine("two")
    assert json.loads(other.open(made.content_hash).read_note("verdict.json")) == {"passed": True}


def test_only_proven_copies_are_dropped_from_the_cache(world: World) -> None:
    store = world.machine()
    sent = store.publish(world.files("a", a="sent"), record=fields())
    spoiled = store.publish(world.files("b", a="spoiled"), record=fields("b" * 64, "other"))
    alone = Store(store.root).publish(world.files("c", a="alone"), record=fields("d" * 64, "third"))
    key = next(k for k in world.objects() if spoiled.content_hash in k and k.endswith("a.txt"))
    world.put(key, b"SPOILED")
    kept, freed, count = trim(world.machine())
    assert (count, freed) == (1, 4)
    assert {text[:12] for text in kept} == {spoiled.content_hash[:12], alone.content_hash[:12]}
    assert not store.folder(sent.content_hash).exists()
    assert world.machine().open(sent.content_hash).file("a.txt").read_text() == "sent"


def test_troubles_are_told_with_what_mends_them_and_without_the_secret(world: World) -> None:
    gone = SharedStore(world.folder / "x", Bucket("s3://no-such-bucket/x", world.bucket()._options))
    wrong = world.machine("y", key="another-name")
    away = world.machine("z", endpoint_url="http://127.0.0.1:9", **QUICK)
    told = {}
    for name, store in (("gone", gone), ("wrong", wrong), ("away", away)):
        with pytest.raises(StoreAway) as caught:
            store.record("a" * 64)
        told[name] = str(caught.value)
        assert SECRET not in told[name]
        assert "mend:" in told[name]
    assert "no such bucket" in told["gone"]
    assert "refuses the key" in told["wrong"]
    assert "does not answer" in told["away"]


@pytest.mark.parametrize(
    ("given", "what"),
    [
        ("s3://", "names no bucket"),
        ("s3:///x", "names no bucket"),
        ("sftp://me:hidden@host/x", "holds a password"),
    ],
)
def test_addresses_that_cannot_be_used_are_refused(given: str, what: str, tmp_path: Path) -> None:
    with pytest.raises(FoundryError, match=what) as caught:
        store_places(given, "", tmp_path)
    assert "hidden" not in str(caught.value)


def test_places_of_store_and_cache(tmp_path: Path) -> None:
    assert store_places("", "", tmp_path) == (tmp_path / ".foundry", "")
    assert store_places("", str(tmp_path / "ignored"), tmp_path) == (tmp_path / ".foundry", "")
    assert store_places(f"file://{tmp_path}/a%20b", "", tmp_path) == (tmp_path / "a b", "")
    assert store_places("s3://b/p/", "", tmp_path) == (tmp_path / ".foundry", "s3://b/p")
    assert store_places("gs://b", str(tmp_path / "c"), tmp_path) == (tmp_path / "c", "gs://b")
    assert shown_url("s3://name@b/p?secret=1") == "s3://b/p"
    for text in ("[1]", "{", '"x"'):
        with pytest.raises(FoundryError, match="not a JSON object"):
            parse_options(text)
    with pytest.raises(FoundryError):
        Bucket("nosuchprotocol://b/p").entries("x/")


@pytest.mark.parametrize("url", ["memory://store", "dir"])
def test_other_file_systems_hold_the_same(world: World, url: str, tmp_path: Path) -> None:
    """One that writes objects whole, and one that writes beside and renames, both without marks of content."""
    base = url + uuid.uuid4().hex if url.startswith("memory") else f"local://{tmp_path}/there"

    def machine(name: str) -> SharedStore:
        return SharedStore(tmp_path / name, Bucket(base))

    one = machine("one")
    made = one.publish(world.files("a", a="hello", b="world"), record=fields())
    two = machine("two")
    assert two.record("a" * 64).content_hash == made.content_hash
    assert (two.open(made.content_hash).payload / "b.txt").read_text() == "world"
    other = machine("three").publish(world.files("b", a="another"), record=fields())
    assert other.content_hash == made.content_hash
    assert not [k for k in one.bucket.entries("artifacts/") if "/." in k]
