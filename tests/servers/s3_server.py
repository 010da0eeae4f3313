"""An S3-compatible server for the tests: moto's, as a process of its own, with faults in front of it and a log of what came.

    config: {"key": "…", "dead": false, "dead_after": 40}

`key`: any other access key is refused. `dead`, `dead_after`: always, or after so many requests, every connection is dropped
without a word.
It is read for every request, so that a test may change it while the server runs.
The log has a line for each request: method, path, status, bytes in and out.
"""

from __future__ import annotations

import json
import logging
import socket
import sys
import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

_REFUSED = (
    b'<?xml version="1.0" encoding="UTF-8"?><Error><Code>InvalidAccessKeyId</Code>'
    b"<Message>The AWS Access Key Id you provided does not exist in our records.</Message></Error>"
)


class Front:
    """WSGI in front of moto: counts, refuses, dies."""

    def __init__(self, app: Callable[..., Iterable[bytes]], config: Path, log: Path) -> None:
        self.app, self.config_path, self._log = app, config, log.open("a", encoding="utf-8")
        self.lock, self.seen = threading.Lock(), 0

    def __call__(self, environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        config = json.loads(self.config_path.read_text())
        with self.lock:
            self.seen += 1
            seen = self.seen
            (self.config_path.parent / "seen").write_text(str(seen))
        size = int(environ.get("CONTENT_LENGTH") or 0)
        method, path = environ["REQUEST_METHOD"], environ["PATH_INFO"]
        if config.get("dead"):
            environ["werkzeug.socket"].shutdown(socket.SHUT_RDWR)
            return []
        if config.get("dead_after") is not None and seen > int(config["dead_after"]):
            environ["werkzeug.socket"].shutdown(socket.SHUT_RDWR)
            return []
        key = config.get("key")
        if key is not None and f"Credential={key}/" not in environ.get("HTTP_AUTHORIZATION", ""):
            environ["wsgi.input"].read(size)
            start("403 Forbidden", [("Content-Type", "application/xml"), ("Content-Length", str(len(_REFUSED)))])
            return [_REFUSED]
        told: dict[str, str] = {}

        def noting(status: str, headers: list[tuple[str, str]], *rest: Any) -> Any:
            told["status"] = status.split()[0]
            return start(status, headers, *rest)

        body = b"".join(self.app(environ, noting))
        with self.lock:
            line = {"event": method, "path": path, "status": told.get("status"), "in": size, "out": len(body)}
            self._log.write(json.dumps(line) + "\n")
            self._log.flush()
        return [body]


def main(argv: list[str]) -> None:
    """Serve until killed: CONFIG.json LOG.jsonl [PORT]; the port is told on stdout."""
    from moto.moto_server.werkzeug_app import DomainDispatcherApplication, MotoRequestHandler, create_backend_app
    from werkzeug.serving import make_server

    logging.getLogger("werkzeug").setLevel(logging.CRITICAL)
    front = Front(DomainDispatcherApplication(create_backend_app), Path(argv[0]), Path(argv[1]))
    port = int(argv[2]) if len(argv) > 2 else 0
    server = make_server("127.0.0.1", port, front, threaded=True, request_handler=MotoRequestHandler)
    print(server.server_address[1], flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main(sys.argv[1:])
