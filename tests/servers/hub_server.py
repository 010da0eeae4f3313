"""A model hub of one's own: repositories, large files by the LFS batch protocol, commits as lines of JSON.

    config: {"key": "…", "taken": ["owner/name"]}     repositories of others, which nobody here may write to

What was committed lies in the log's folder under `repositories/<owner>/<name>/`, put there when a commit names it. Large
files are those whose names end in .gguf or .safetensors.
"""

from __future__ import annotations

import base64
import hashlib
import json
from pathlib import Path
from typing import Any, ClassVar

from tests.servers.base import Handler, serve

LARGE = (".gguf", ".safetensors")


class Hub(Handler):
    """Answers what `huggingface_hub` asks to make a repository and to commit into it."""

    folder: ClassVar[Path]

    def do_POST(self) -> None:
        path, raw = self.path.split("?")[0], self.rfile.read(int(self.headers.get("content-length") or 0))
        self.state.note("request", method="POST", path=path)
        if not self.authorized():
            self.say(401, {"error": "Invalid username or password."})
            return
        if path == "/api/repos/create":
            told = json.loads(raw)
            repo = f"{told['organization']}/{told['name']}"
            if repo in self.state.config.get("taken", []):
                self.say(403, {"error": f"You don't have the rights to create a model under {told['organization']}"})
                return
            self.state.note("repository", repo=repo, told=told)
            self.say(200, {"url": f"{self.root()}/{repo}", "id": repo})
        elif path == "/api/validate-yaml":
            self.say(200, {"errors": [], "warnings": []})
        elif "/preupload/" in path:
            files = [
                {
                    "path": f["path"],
                    "uploadMode": "lfs" if f["path"].endswith(LARGE) else "regular",
                    "shouldIgnore": False,
                    "oid": None,
                }
                for f in json.loads(raw)["files"]
            ]
            self.say(200, {"files": files})
        elif path.endswith("/info/lfs/objects/batch"):
            objects = [{**o, "actions": self.actions(o)} for o in json.loads(raw)["objects"]]
            self.say(200, {"transfer": "basic", "objects": objects})
        elif "/commit/" in path:
            self.commit(path.split("/api/models/")[1].split("/commit/")[0], raw)
        else:
            self.say(404, {"error": f"nothing at {path}"})

    def do_PUT(self) -> None:
        data = self.rfile.read(int(self.headers.get("content-length") or 0))
        oid = self.path.rsplit("/", 1)[1]
        if hashlib.sha256(data).hexdigest() != oid:
            self.say(400, {"error": "these bytes are others"})
            return
        self.state.note("large file", oid=oid, size=len(data))
        (self.folder / "objects").mkdir(exist_ok=True)
        (self.folder / "objects" / oid).write_bytes(data)
        self.say(200, {})

    def do_GET(self) -> None:
        self.state.note("request", method="GET", path=self.path)
        self.say(404, {"error": f"nothing at {self.path}"})

    def actions(self, wanted: dict[str, Any]) -> dict[str, Any]:
        return {"upload": {"href": f"{self.root()}/objects/{wanted['oid']}", "header": {}}}

    def commit(self, repo: str, raw: bytes) -> None:
        lines = [json.loads(line) for line in raw.splitlines()]
        home = self.folder / "repositories" / repo
        for line in lines:
            kind, value = line["key"], line["value"]
            if kind == "header":
                message = value["summary"]
                continue
            place = home / value["path"]
            place.parent.mkdir(parents=True, exist_ok=True)
            large = kind == "lfsFile"
            place.write_bytes(
                (self.folder / "objects" / value["oid"]).read_bytes() if large else base64.b64decode(value["content"])
            )
        oid = hashlib.sha1(raw).hexdigest()
        self.state.note("commit", repo=repo, message=message, files=len(lines) - 1)
        self.say(200, {"commitUrl": f"{self.root()}/{repo}/commit/{oid}", "commitOid": oid, "pullRequestUrl": None})

    def root(self) -> str:
        return f"http://{self.headers['host']}"

    def say(self, status: int, value: Any) -> None:
        headers = {"X-Error-Message": value["error"]} if "error" in value else {}
        self.send(status, json.dumps(value).encode(), headers=headers)


if __name__ == "__main__":
    import sys

    Hub.folder = Path(sys.argv[2]).parent
    serve(Hub, sys.argv[1:])
