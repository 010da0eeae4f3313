"""A web server in a process of its own, as the places that texts come from behave.

    with serve(tmp_path) as site:
        site.put("/letter.txt", "Dear Sir,", etag='"1"')
        site.fail("/letter.txt", {"status": 503}, {"cut": True})     # the next two answers
        … site.url("/letter.txt") …
        site.log()                                                   # every request: path, headers, status

It keeps ETag and Last-Modified as HTTP asks (304), and on request fails as real ones do: 429 with Retry-After, a firewall's
empty 202, a captcha page, a body that ends before its length, one that drips, redirects.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

CAPTCHA = """<!DOCTYPE html><html><head><title>Please verify</title><script src="https://geo.captcha-delivery.com/c.js">
</script></head><body><p>Please complete the captcha to go on.</p></body></html>"""


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    folder: Path
    served: dict[str, int] = {}

    def do_GET(self) -> None:
        path = unquote(self.path)
        if path == "/-/begin-anew":
            self.served.clear()
            return self._send(204, b"", {})
        route = self._route(path)
        number = self.served[path] = self.served.get(path, 0) + 1
        faults = route.get("faults", []) if route else []
        fault = faults[number - 1 - route["since"]] if route and 0 <= number - 1 - route["since"] < len(faults) else {}
        self._answer(route, fault)

    def _route(self, path: str) -> dict[str, Any] | None:
        file = self.folder / "routes" / quote(path, safe="")
        return json.loads(file.read_text()) if file.is_file() else None

    def _answer(self, route: dict[str, Any] | None, fault: dict[str, Any]) -> None:
        if route is None:
            return self._send(404, b"<html><body>not found</body></html>", {"Content-Type": "text/html"})
        headers = {"Content-Type": route.get("content_type", "text/plain; charset=utf-8"), **fault.get("headers", {})}
        if "location" in fault:
            return self._send(fault.get("status", 302), b"", {"Location": fault["location"]})
        if "status" in fault:
            return self._send(fault["status"], fault.get("body", "").encode(), headers)
        if fault.get("captcha"):
            return self._send(200, CAPTCHA.encode(), {"Content-Type": "text/html"})
        body = Path(route["file"]).read_bytes()
        for name in ("etag", "last_modified"):
            if route.get(name):
                headers[{"etag": "ETag", "last_modified": "Last-Modified"}[name]] = route[name]
        fresh = route.get("etag") and self.headers.get("If-None-Match") == route["etag"]
        dated = route.get("last_modified") and self.headers.get("If-Modified-Since") == route["last_modified"]
        if fresh or (dated and not self.headers.get("If-None-Match")):
            return self._send(304, b"", headers)
        if fault.get("cut"):
            self._send(200, body[: len(body) // 2], headers, length=len(body))
            self.close_connection = True
            return None
        if fault.get("drip"):
            self._head(200, headers, len(body))
            for index in range(len(body)):
                self.wfile.write(body[index : index + 1])
                self.wfile.flush()
                time.sleep(fault["drip"])
            return None
        if fault.get("hang"):
            time.sleep(fault["hang"])
        return self._send(200, body, headers)

    def _send(self, status: int, body: bytes, headers: dict[str, str], length: int | None = None) -> None:
        self._head(status, headers, len(body) if length is None else length)
        self.wfile.write(body)

    def _head(self, status: int, headers: dict[str, str], length: int) -> None:
        self._note(status)
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        if status not in (204, 304):
            self.send_header("Content-Length", str(length))
        self.end_headers()

    def _note(self, status: int) -> None:
        if status == 204:
            return
        line = {"path": unquote(self.path), "status": status, "headers": dict(self.headers), "at": time.time()}
        with (self.folder / "log.jsonl").open("a") as log:
            log.write(json.dumps(line) + "\n")

    def log_message(self, *_: Any) -> None:
        """Nothing on the terminal: the log is a file."""


class Site:
    """The tests' side: what lies on the server, and what was asked of it."""

    def __init__(self, folder: Path, port: int) -> None:
        self.folder, self.port = folder, port

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.port}{path}"

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self.port}"

    def put(self, path: str, body: str | bytes | Path, **route: Any) -> str:
        """Let a body lie at a path; returns its URL. `etag`, `last_modified` and `content_type` as given."""
        if not isinstance(body, Path):
            file = self.folder / "bodies" / f"{time.time_ns()}"
            file.write_bytes(body.encode() if isinstance(body, str) else body)
            body = file
        self._write(path, {"file": str(body), **route})
        return self.url(path)

    def json(self, path: str, value: Any, **route: Any) -> str:
        return self.put(path, json.dumps(value), content_type="application/json", **route)

    def remove(self, path: str) -> None:
        (self.folder / "routes" / quote(path, safe="")).unlink()

    def fail(self, path: str, *faults: dict[str, Any]) -> None:
        """Let the next answers at a path be these."""
        file = self.folder / "routes" / quote(path, safe="")
        route = json.loads(file.read_text()) if file.is_file() else {"file": os.devnull}
        self._write(path, {**route, "faults": list(faults), "since": sum(e["path"] == path for e in self.log())})

    def _write(self, path: str, route: dict[str, Any]) -> None:
        file = self.folder / "routes" / quote(path, safe="")
        temporary = file.with_name(f"{file.name}.new")
        temporary.write_text(json.dumps({"since": 0, **route}))
        temporary.replace(file)

    def log(self) -> list[dict[str, Any]]:
        file = self.folder / "log.jsonl"
        return [json.loads(line) for line in file.read_text().splitlines()] if file.is_file() else []

    def begin_anew(self) -> None:
        """Nothing lies here and nothing was asked, as at first: a process serves many tests."""
        for path in [*self.folder.glob("routes/*"), *self.folder.glob("bodies/*"), self.folder / "log.jsonl"]:
            path.unlink(missing_ok=True)
        urllib.request.urlopen(self.url("/-/begin-anew")).read()

    def asked(self, path: str | None = None) -> list[int]:
        """Statuses of the answers so far, at one path or at all."""
        return [e["status"] for e in self.log() if path in (None, e["path"])]


@contextmanager
def serve(folder: Path) -> Iterator[Site]:
    """A running server; everything it knows and notes lies below `folder`."""
    for name in ("routes", "bodies"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    process = subprocess.Popen(
        [sys.executable, str(Path(__file__).resolve()), str(folder)], stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        yield Site(folder, int(process.stdout.readline()))
    finally:
        process.kill()
        process.wait()


def main() -> None:
    Handler.folder = Path(sys.argv[1])
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    print(server.server_address[1], flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
