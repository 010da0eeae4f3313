"""Scripts that are started many times only to be killed: the libraries are loaded once, every start is a fork.

    with WarmStart(("torch", "peft")) as warm:
        script = warm.start("foundry_pipeline.training.train", "work/spec.json")     # as `python -m MODULE SPEC`
        script.send_signal(signal.SIGKILL)
        assert script.wait() == -signal.SIGKILL

Each script is a process of its own, with its own `__main__`, and is its parent's child as a script of the pipeline is:
killed, it is gone, and it dies with the parent. What it computes has to be compared with a cold start by the test.
"""

from __future__ import annotations

import importlib
import json
import os
import runpy
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any

from foundry_pipeline.launch import PARENT_VARIABLE, limit_threads

# What transformers loads only when it is asked for it.
MODEL = ("torch", "transformers", "transformers.models.llama.modeling_llama", "peft")


@dataclass(frozen=True)
class Script:
    """One started script; the methods are those of `subprocess.Popen`, as far as tests ask for them."""

    server: WarmStart
    pid: int

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def poll(self) -> int | None:
        return self.server.ask("poll", self.pid)

    def wait(self, timeout: float = 60) -> int:
        deadline = time.monotonic() + timeout
        while (code := self.poll()) is None:
            assert time.monotonic() < deadline, "still running"
            time.sleep(0.01)
        return code


class WarmStart:
    def __init__(self, modules: Sequence[str] = MODEL, threads: int = 2) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.warm", str(threads), *modules],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def start(self, module: str, *arguments: object) -> Script:
        return Script(self, self.ask("start", module, [str(a) for a in arguments]))

    def ask(self, *what: Any) -> Any:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(json.dumps(what), file=self._process.stdin, flush=True)
        return json.loads(self._process.stdout.readline())

    def __enter__(self) -> WarmStart:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._process.communicate(timeout=30)


def _serve(threads: int, modules: Sequence[str]) -> None:
    # As `script_main` does before a script loads anything.
    limit_threads(threads)
    for module in modules:
        importlib.import_module(module)
    ended: dict[int, int] = {}
    for line in sys.stdin:
        what, *rest = json.loads(line)
        if what == "start":
            pid = os.fork()
            if pid == 0:
                _become(*rest)
            answer: int | None = pid
        else:
            (pid,) = rest
            if pid not in ended:
                gone, status = os.waitpid(pid, os.WNOHANG)
                if gone:
                    ended[pid] = os.waitstatus_to_exitcode(status)
            answer = ended.get(pid)
        os.write(1, f"{json.dumps(answer)}\n".encode())


def _become(module: str, arguments: Sequence[str]) -> None:
    """Be the script, and end as it does; nothing of the server is left open to it."""
    nothing = os.open(os.devnull, os.O_RDWR)
    os.dup2(nothing, 0)
    os.dup2(2, 1)
    os.environ[PARENT_VARIABLE] = str(os.getppid())
    sys.argv = [module, *arguments]
    code = 0
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        import traceback

        traceback.print_exc()
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    _serve(int(sys.argv[1]), sys.argv[2:])
