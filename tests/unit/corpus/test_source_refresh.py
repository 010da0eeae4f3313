"""Refreshing a source from a real server: what counts as new, and that nothing is lost, whatever happens on the way."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from textwrap import dedent

import pytest

from foundry_pipeline.corpus.snapshot import NotFetched
from foundry_pipeline.errors import DamagedArtifact, Locked
from tests.unit.corpus.web import states, urls


@pytest.mark.parametrize(
    "marks",
    [
        {"etag": '"v1"'},
        {"etag": 'W/"v1"'},
        {"last_modified": "Mon, 01 Jun 2026 09:00:00 GMT"},
        {"etag": '"v1"', "last_modified": "Mon, 01 Jun 2026 09:00:00 GMT"},
    ],
)
def test_an_unchanged_document_costs_one_request_and_no_body(net, marks):
    net.site.put("/letter.txt", "Dear Sir,", **marks)
    manifest = urls(net, "/letter.txt")
    assert states(net.refresh(manifest)) == {"letter": "new"}
    first, fetched = net.fingerprint(manifest), net.snapshot(manifest).record("letter").fetched_at
    report = net.refresh(manifest)
    assert states(report) == {"letter": "unchanged"}
    assert (report.requests, net.site.asked()) == (1, [200, 304])
    assert net.fingerprint(manifest) == first
    assert net.snapshot(manifest).record("letter").fetched_at == fetched
    assert net.read(manifest)[0].raw == "Dear Sir,"


def test_without_marks_the_hash_decides(net):
    net.site.put("/letter.txt", "Dear Sir,")
    manifest = urls(net, "/letter.txt")
    net.refresh(manifest)
    before = net.fingerprint(manifest)
    assert states(net.refresh(manifest)) == {"letter": "unchanged"}
    assert net.site.asked() == [200, 200]
    assert net.fingerprint(manifest) == before
    net.site.put("/letter.txt", "Dear Madam,")
    assert states(net.refresh(manifest)) == {"letter": "changed"}
    assert net.fingerprint(manifest) != before
    assert net.read(manifest)[0].raw == "Dear Madam,"


@pytest.mark.parametrize("status", [404, 410])
def test_a_vanished_document_is_marked_and_stays_readable(net, status):
    net.site.put("/a.txt", "First.", etag='"1"')
    net.site.put("/b.txt", "Second.", etag='"1"')
    manifest = urls(net, "/a.txt", "/b.txt")
    net.refresh(manifest)
    before = net.fingerprint(manifest)
    net.site.fail("/a.txt", {"status": status})
    report = net.refresh(manifest)
    assert states(report) == {"a": "vanished", "b": "unchanged"}
    assert not report.failed
    assert net.snapshot(manifest).record("a").vanished_at
    assert sorted(d.raw for d in net.read(manifest)) == ["First.", "Second."]
    assert net.fingerprint(manifest) == before
    report = net.refresh(manifest)  # the server has it again
    assert states(report) == {"a": "unchanged", "b": "unchanged"}
    assert report.outcomes[0].note == "back again"
    assert not net.snapshot(manifest).record("a").vanished_at


def test_a_declared_document_that_never_was_there_fails(net):
    net.site.put("/a.txt", "First.")
    manifest = urls(net, "/a.txt", "/typo.txt")
    report = net.refresh(manifest)
    assert states(report) == {"a": "new", "typo": "failed"}
    assert report.failed
    with pytest.raises(NotFetched, match="has not been fetched yet") as refused:
        net.read(manifest)
    assert refused.value.mend == "foundry sources refresh madison --source acts"


def test_nothing_is_fetched_by_reading(net):
    net.site.put("/a.txt", "First.")
    manifest = urls(net, "/a.txt")
    for use in (net.read, net.fingerprint):
        with pytest.raises(NotFetched):
            use(manifest)
    assert net.site.asked() == []


def test_another_declaration_is_told_from_what_was_fetched(net):
    net.site.put("/a.txt", "First.")
    net.site.put("/b.txt", "Second.")
    net.refresh(urls(net, "/a.txt"))
    with pytest.raises(NotFetched, match="asks for other documents"):
        net.read(urls(net, "/a.txt", "/b.txt"))
    # A fact or a limit is nothing that is asked of the server.
    assert net.read(urls(net, "/a.txt", title="Another title", fetch={"retries": 3}))[0].title == "Another title"
    net.refresh(urls(net, "/b.txt"))
    assert [d.raw for d in net.read(urls(net, "/b.txt"))] == ["Second."]


@pytest.mark.parametrize("fault", [{"status": 500}, {"cut": True}, {"status": 403}, {"captcha": True}, {"status": 202}])
def test_a_failure_keeps_the_last_good_content(net, fault):
    net.site.put("/a.txt", "First.")
    net.site.put("/b.txt", "Second.")
    manifest = urls(net, "/a.txt", "/b.txt")
    net.refresh(manifest)
    net.site.put("/a.txt", "First, changed.")
    net.site.fail("/a.txt", *[fault] * 9)
    report = net.refresh(manifest)
    assert report.failed
    assert sorted(d.raw for d in net.read(manifest)) == ["First.", "Second."]
    assert not list((net.snapshot(manifest).folder / "content").glob("*.tmp"))


def test_200_megabytes_pass_through_little_memory(net, tmp_path):
    """Fetched in a process of its own, whose peak is taken; the body never lies in memory.

    Not `ru_maxrss`: a child starts with the peak of the process that forked it.
    """
    big = tmp_path / "big.txt"
    block = ("It is of great importance in a republic. " * 25_000).encode()
    with big.open("wb") as handle:
        for _ in range(200):
            handle.write(block[:1_000_000])
    net.site.put("/big.txt", big)
    code = dedent(
        """
        import json, re, sys; from pathlib import Path
        from foundry_pipeline.corpus.refresh import refresh_source
        from foundry_pipeline.declarations.sources import SourceManifest
        from foundry_pipeline.lineage.store import Store
        manifest = SourceManifest.model_validate(json.loads(sys.argv[1]))
        report = refresh_source(manifest, character="madison", base=Path("."), store=Store(Path(sys.argv[2])))
        peak = re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())
        print(json.dumps([report.counts, int(peak[1])]))
        """
    )
    manifest = urls(net, "/big.txt")
    done = subprocess.run(
        [sys.executable, "-c", code, manifest.model_dump_json(), str(net.store.root)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    counts, kilobytes = json.loads(done.stdout)
    assert counts["new"] == 1
    assert kilobytes < 250_000
    record = net.snapshot(manifest).record("big")
    assert (record.bytes, record.sha256) == (200_000_000, hashlib.sha256(block[:1_000_000] * 200).hexdigest())


def test_a_kill_loses_nothing_and_the_next_refresh_goes_on(net, tmp_path):
    paths = [f"/{n:02}.txt" for n in range(30)]
    for path in paths:
        net.site.put(path, f"Text {path}", etag='"1"')
    manifest = urls(net, *paths, fetch={"requests_per_second": 20})
    net.refresh(urls(net, *paths))
    before = net.fingerprint(manifest)
    for path in paths:
        net.site.put(path, f"Text {path}, changed", etag='"2"')
    code = dedent(
        """
        import json, sys; from pathlib import Path
        from foundry_pipeline.corpus.refresh import refresh_source
        from foundry_pipeline.declarations.sources import SourceManifest
        from foundry_pipeline.lineage.store import Store
        manifest = SourceManifest.model_validate(json.loads(sys.argv[1]))
        refresh_source(manifest, character="madison", base=Path("."), store=Store(Path(sys.argv[2])))
        """
    )
    asked = len(net.site.asked())
    process = subprocess.Popen([sys.executable, "-c", code, manifest.model_dump_json(), str(net.store.root)])
    deadline = time.monotonic() + 30
    while len(net.site.asked()) < asked + 10:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    with pytest.raises(Locked, match="acts"):
        net.refresh(manifest)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    held = [d.raw for d in net.read(manifest)]  # every text is whole: the old one or the new one
    assert all(text in (f"Text {p}", f"Text {p}, changed") for text, p in zip(held, paths, strict=True))
    report = net.refresh(manifest)
    assert not report.failed
    assert 0 < report.requests <= 21
    assert all(d.raw.endswith(", changed") for d in net.read(manifest))
    assert net.fingerprint(manifest) != before
    assert not list(net.snapshot(manifest).folder.glob("incoming/*"))


def test_a_full_disk_loses_nothing(net, full_disk):
    from foundry_pipeline.lineage.store import Store

    net.site.put("/a.txt", "First.")
    net.store = Store(full_disk / "store")
    manifest = urls(net, "/a.txt")
    net.refresh(manifest)
    net.site.put("/a.txt", "x" * 5_000_000)
    report = net.refresh(manifest)
    assert "disk is full" in str(report.error or report.outcomes[-1].note)
    assert report.failed
    assert net.read(manifest)[0].raw == "First."


def test_content_that_was_tampered_with_is_found(net):
    net.site.put("/a.txt", "First.", etag='"1"')
    manifest = urls(net, "/a.txt")
    net.refresh(manifest)
    snapshot = net.snapshot(manifest)
    path = snapshot.content_path(snapshot.record("a").sha256)
    path.write_text("Worst.")
    with pytest.raises(DamagedArtifact, match="is not what was fetched"):
        net.read(manifest)
    assert states(net.refresh(manifest)) == {"a": "unchanged"}  # fetched whole again, not answered by 304
    assert net.site.asked() == [200, 200]
    assert net.read(manifest)[0].raw == "First."
