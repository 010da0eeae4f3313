"""Pictures for the README, from what is really there: the report of a run, the lineage in the Dagster UI, the docs site.

python scripts/pictures.py madison_r2      # after `make madison`; needs Chromium
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

from playwright.sync_api import sync_playwright

from foundry_pipeline.cli.docs import write_docs
from foundry_pipeline.settings import load_settings

FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-background-networking",
    "--disable-component-update",
]


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


def main(run: str) -> None:
    settings = load_settings()
    out = settings.root / "docs" / "pictures"
    out.mkdir(parents=True, exist_ok=True)
    port = free_port()
    server = subprocess.Popen(
        [
            str(Path(sys.executable).with_name("dagster-webserver")),
            "-w",
            "workspace.yaml",
            "-h",
            "127.0.0.1",
            "-p",
            str(port),
        ],
        cwd=settings.root,
        env={**os.environ, "DAGSTER_HOME": str(settings.root)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        for _ in range(120):
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/server_info", timeout=2)
                break
            except OSError:
                time.sleep(0.5)
        with sync_playwright() as p:
            browser = p.chromium.launch(executable_path=shutil.which("chromium"), args=FLAGS)
            page = browser.new_page(viewport={"width": 1280, "height": 1500})
            page.goto((settings.reports / f"{run}.html").as_uri())
            page.screenshot(path=out / "report.png")
            page = browser.new_page(viewport={"width": 1800, "height": 1100})
            page.goto(f"http://127.0.0.1:{port}/assets/{run}_eval?view=lineage&lineageScope=upstream&lineageDepth=12")
            page.wait_for_timeout(12_000)
            page.screenshot(path=out / "lineage.png")
            index, _, _ = write_docs()
            page = browser.new_page(viewport={"width": 1280, "height": 1150})
            page.goto(f"{index.as_uri()}#/graph/{run}_eval")
            page.screenshot(path=out / "docs.png")
            browser.close()
    finally:
        server.terminate()
        server.wait(timeout=30)


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "madison_r2")
