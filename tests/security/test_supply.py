"""Locks, bill of materials, and the question for known vulnerabilities, against a real local advisory server."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from packaging.utils import canonicalize_name

from foundry_pipeline.cli import audit as auditing
from tests.conftest import ROOT

BIN = Path(sys.executable).parent


def test_every_lock_fits_what_is_declared():
    done = subprocess.run([sys.executable, "scripts/locks.py", "--check"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_a_lock_that_does_not_fit_is_told(tmp_path):
    """A pin that moved, a hash that went missing, an address: each is named."""
    for name in ("pyproject.toml", "constraints.txt"):
        (tmp_path / name).write_text((ROOT / name).read_text())
    (tmp_path / "scripts").mkdir()
    (tmp_path / "scripts/locks.py").write_text((ROOT / "scripts/locks.py").read_text())
    (tmp_path / "locks").mkdir()
    for path in (ROOT / "locks").glob("*.txt"):
        (tmp_path / "locks" / path.name).write_text(path.read_text())
    lock = tmp_path / "locks/base.txt"
    text = lock.read_text().replace("pypdf==7.1.0", "pypdf==7.0.9")
    lock.write_text("--index-url https://example.org/simple\n" + text + "nohash==1\n")
    done = subprocess.run([sys.executable, "scripts/locks.py", "--check"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 1
    for said in (
        "pypdf 7.0.9, and constraints.txt has 7.1.0",
        "pypdf 7.0.9 is not ==7.1.0",
        "nohash has no hash",
        "names a place",
    ):
        assert said in done.stderr


def test_both_builds_of_torch_are_allowed():
    for name in ("base", "dev"):
        text = (ROOT / f"locks/{name}.txt").read_text()
        entry = (
            text[text.index("\ntorch==") :].split("\n", 2)[1]
            + text[text.index("\ntorch==") :].split("\ntorchvision")[0]
        )
        cpu = [line.split()[1] for line in (ROOT / "locks/torch-builds.txt").read_text().splitlines() if "+cpu" in line]
        assert cpu
        assert all(f"--hash=sha256:{sha}" in entry for sha in cpu)
        assert "nvidia-" not in text  # a CPU build wants none of it
    assert "nvidia-" in (ROOT / "locks/cuda.txt").read_text()


class Advisories(BaseHTTPRequestHandler):
    """What osv.dev answers: an advisory on one package, nothing on the others."""

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
        evil = {
            "id": "PYSEC-2026-1", "aliases": ["CVE-2026-0001"], "summary": "x", "modified": "2026-01-01T00:00:00Z",
            "affected": [{"package": {"name": "evil", "ecosystem": "PyPI"}, "ranges": [{"type": "ECOSYSTEM", "events": [{"introduced": "0"}, {"fixed": "1.3"}]}]}],
        }  # fmt: skip
        body = json.dumps({"vulns": [evil]} if asked["package"]["name"] == "evil" else {}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Nothing on the terminal."""


@pytest.fixture(scope="module")
def advisories():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Advisories)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}/v1/query"
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize(
    ("packages", "code", "said"),
    [
        ({"good": "1.0"}, 0, "no known vulnerability in 1 packages"),
        ({"good": "1.0", "evil": "1.2"}, 1, "1 known vulnerabilities in 1 of 2 packages"),
    ],
)
def test_what_an_advisory_server_knows(packages, code, said, advisories, monkeypatch, capsys):
    monkeypatch.setenv("FOUNDRY_OSV_URL", advisories)
    monkeypatch.setattr(auditing, "installed", lambda: packages)
    found = auditing.ask()
    assert (found.code, found.told().startswith(said)) == (code, True), found
    auditing._table(found)
    out = capsys.readouterr().out
    assert said in out
    assert ("CVE-2026-0001" in out and "1.3" in out) == bool(code)


def test_a_server_that_does_not_answer_is_no_pass(monkeypatch):
    monkeypatch.setenv("FOUNDRY_OSV_URL", "http://127.0.0.1:1/v1/query")
    monkeypatch.setattr(auditing, "installed", lambda: {"good": "1.0"})
    found = auditing.ask()
    assert found.code == 2
    assert "NOT CHECKED" in found.told()
    assert "no pass" in found.told()


def test_the_schedule_fails_where_something_is_known_and_where_nobody_answers(advisories, monkeypatch):
    import dagster as dg

    from foundry_pipeline.defs.automation import weekly_audit

    schedule = weekly_audit()
    assert schedule.default_status == dg.DefaultScheduleStatus.STOPPED
    monkeypatch.setenv("FOUNDRY_OSV_URL", advisories)
    outcomes = {}
    for name in ("good", "evil", "nobody"):
        if name == "nobody":
            monkeypatch.setenv("FOUNDRY_OSV_URL", "http://127.0.0.1:1/v1/query")
        monkeypatch.setattr(auditing, "installed", lambda name=name: {name: "1.0"})
        outcomes[name] = schedule.job.execute_in_process(raise_on_error=False).success
    assert outcomes == {"good": True, "evil": False, "nobody": False}


def test_a_package_that_nobody_knows_is_no_pass():
    found = auditing.Audit("PyPI's advisories", 2, unasked=["ours 1.0"])
    assert (found.code, "1 packages (ours 1.0). This is no pass" in found.told()) == (2, True)


def test_the_bill_of_materials_names_every_package_and_no_place(tmp_path):
    out = tmp_path / "sbom.json"
    done = subprocess.run(
        [str(BIN / "foundry"), "sbom", "--out", str(out)], cwd=ROOT, capture_output=True, text=True, timeout=300,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    told = json.loads(out.read_text())
    assert told["bomFormat"] == "CycloneDX"
    held = {canonicalize_name(c["name"]): c["version"].partition("+")[0] for c in told["components"]}
    assert set(auditing.installed().items()) <= set(held.items())
    assert "file:" not in out.read_text()
