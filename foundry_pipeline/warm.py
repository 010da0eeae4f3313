"""Scripts that compute with torch start warm: as forks of one process that has loaded the libraries (`fork_server.py`).

    script = start_script("foundry_pipeline.training.peer", ["spec.json", "1", "2"], spec, environment)
    script.wait()                       # 0, or as `subprocess.Popen.wait` says it

Loading torch, transformers and peft takes 4 to 5 s of processor time, and a run of the chain starts some fifteen scripts
that need them. The first of them that a process starts makes it start the server, which loads what the script would
have loaded, so that one script alone costs no more than before; scripts that it starts in turn (the second trainer, say)
are forks of the same server. It ends with the process that started it.

A fork computes what a process of its own computes, bit by bit. What such a process reads only when it starts or loads a
library has to be the same in the server: a script whose surroundings (`_surroundings`) are not the server's starts the
plain way, and so does every script

* on a machine with a GPU, or that torch's launcher or Ray starts: a process that has touched a GPU cannot be forked;
* elsewhere than on Linux;
* under FOUNDRY_WARM_START=0, which is there to compare.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import resource
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

PEER = "foundry_pipeline.training.peer"
SWITCH = "FOUNDRY_WARM_START"
# What scripts set for libraries that they load afterwards. In the server all of it is set before; how many threads there
# are, each script tells the loaded libraries (`launch.limit_threads`).
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "POLARS_MAX_THREADS")
LOADED_WITH = {
    **dict.fromkeys(THREADS, "1"),  # so that no library makes threads when it is loaded
    "TOKENIZERS_PARALLELISM": "false",
    "OMP_WAIT_POLICY": "PASSIVE",
    "THP_MEM_ALLOC_ENABLE": "1",
    "HF_HUB_OFFLINE": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "TQDM_DISABLE": "1",
}
# The same for what is loaded in the scripts themselves; the last is set by polars, for itself.
_SET_LATER = {
    *LOADED_WITH,
    "CUBLAS_WORKSPACE_CONFIG",
    "GLOO_SOCKET_IFNAME",
    "GX_ANALYTICS_ENABLED",
    "_RJEM_MALLOC_CONF",
}
_NO_LIBRARY_READS = ("FOUNDRY_", "DAGSTER_", "PYTEST_")
_GPUS = ("/dev/nvidiactl", "/proc/driver/nvidia", "/dev/kfd", "/dev/dxg")
_LAUNCHED = ("LOCAL_RANK", "WORLD_SIZE", "RAY_JOB_ID", "RAY_ADDRESS")
_ROOM = 4096  # bytes for the command line that a fork shows


class WarmScript:
    """A script that was forked: what `subprocess.Popen` is for one of a start of its own, as far as it is asked for here.

    One thread at a time may ask. A script whose object is let go of is killed.
    """

    def __init__(self, args: Sequence[str], pid: int, server: socket.socket) -> None:
        self.args, self.pid = list(args), pid
        self.returncode: int | None = None
        self._server = server

    def wait(self, timeout: float | None = None) -> int:
        """Its exit code, negative for a signal that ended it. Raises subprocess.TimeoutExpired."""
        if self.returncode is None:
            self._server.settimeout(timeout)
            try:
                self._hear(self._server.recv(8))
            except TimeoutError:
                raise subprocess.TimeoutExpired(self.args, timeout or 0) from None
            except ConnectionError:
                self._hear(b"")
        assert self.returncode is not None
        return self.returncode

    def poll(self) -> int | None:
        """Its exit code, or None while it works."""
        try:
            return self.wait(timeout=0)
        except (subprocess.TimeoutExpired, BlockingIOError):
            return None

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            with contextlib.suppress(ConnectionError):  # it has ended since
                self._server.send(bytes([number]))

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def _hear(self, said: bytes) -> None:
        if said:
            self.returncode = int.from_bytes(said, "little", signed=True)
        else:
            # A script dies with its parent, and that is the server.
            self.returncode = -signal.SIGKILL
            print(f"{self.args[2]}: the process that it is a fork of was ended, and it with it", file=sys.stderr)
        self._server.close()


class _Server:
    """The fork server that this process has started, or that this process is a fork of."""

    def __init__(self, control: socket.socket, surroundings: dict[str, Any], process: subprocess.Popen[bytes] | None):
        self._control, self._process = control, process
        self.surroundings = surroundings

    @classmethod
    def begin(cls, environment: Mapping[str, str]) -> _Server:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        given = [str(theirs.fileno()), str(ours.fileno()), str(os.getpid())]
        with theirs:
            process = subprocess.Popen(
                [sys.executable, "-m", "foundry_pipeline.fork_server", *given, " " * _ROOM],
                env={**LOADED_WITH, **environment, **_OVERRIDDEN},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                pass_fds=[theirs.fileno(), ours.fileno()],
            )
        server = cls(ours, _surroundings(environment), process)
        atexit.register(server.end)
        return server

    def fork(self, start: dict[str, Any], descriptors: Sequence[int]) -> WarmScript | None:
        """The script at work, or None where the server has ended or cannot fork."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        told = os.memfd_create("start")
        try:
            os.pwrite(told, json.dumps(start).encode(), 0)
            socket.send_fds(self._control, [b"\0"], [theirs.fileno(), told, *descriptors])
            theirs.close()
            pid = ours.recv(8)
        except BaseException as error:
            ours.close()  # what may have been started for it is killed
            if isinstance(error, ConnectionError):
                return None
            raise
        finally:
            os.close(told)
            theirs.close()
        if not pid:
            ours.close()
            return None
        command = [sys.executable, "-m", start["module"], *start["arguments"]]
        return WarmScript(command, int.from_bytes(pid, "little"), ours)

    def ended(self) -> bool:
        return self._process is not None and self._process.poll() is not None

    def end(self) -> None:
        """End it with all that were forked from it, if it is this process's own."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        self._control.close()


_OVERRIDDEN = {
    n: v for n, v in LOADED_WITH.items() if n not in ("OMP_WAIT_POLICY", "THP_MEM_ALLOC_ENABLE", "TQDM_DISABLE")
}
_lock = threading.Lock()
_server: _Server | None = None


class Started(Protocol):
    """A script at work, as `subprocess.Popen` shows it."""

    pid: int

    def wait(self, timeout: float | None = None) -> int: ...
    def poll(self) -> int | None: ...
    def send_signal(self, number: int) -> None: ...
    def terminate(self) -> None: ...
    def kill(self) -> None: ...


def start_script(
    module: str,
    arguments: Sequence[str],
    spec: Mapping[str, Any],
    environment: Mapping[str, str],
    *,
    output: int | None = None,
    pass_fds: Sequence[int] = (),
) -> Started:
    """`python -m module …`, warm where it can be. It writes to the descriptor `output`, by default where this process does,
    reads nothing, and is given the descriptors `pass_fds` besides; `spec` is the one that its arguments name."""
    if computes_with_torch(module, spec) and _possible(environment):
        script = start_warm(module, arguments, environment, output, pass_fds)
        if script is not None:
            return script
    command = [sys.executable, "-m", module, *arguments]
    return subprocess.Popen(
        command, env=environment, stdin=subprocess.DEVNULL, stdout=output, stderr=output, pass_fds=pass_fds
    )


def start_warm(
    module: str,
    arguments: Sequence[str],
    environment: Mapping[str, str],
    output: int | None = None,
    pass_fds: Sequence[int] = (),
) -> WarmScript | None:
    """A script as a fork of the server, which is started where there is none; None where it has to start the plain way."""
    global _server
    with _lock:
        if _server is None and module == PEER:
            return None  # alone it gains nothing
        server = _server = _server or _Server.begin(environment)
    wanted = _surroundings(environment)
    if other := sorted(n for n in wanted | server.surroundings if wanted.get(n) != server.surroundings.get(n)):
        print(f"{module} starts by itself: what it is given differs in {', '.join(other)}", file=sys.stderr)
        return None
    what = {
        "module": module,
        "arguments": list(arguments),
        "environment": dict(environment),
        "folder": os.getcwd(),
        "keep": list(pass_fds),
        "ignored": [n for n in (signal.SIGINT, signal.SIGTERM) if signal.getsignal(n) is signal.SIG_IGN],
    }
    with open(os.devnull, "rb") as nothing:
        streams = (nothing.fileno(), 1, 2) if output is None else (nothing.fileno(), output, output)
        script = server.fork(what, [*streams, *pass_fds])
    if script is None:
        print(f"{module} starts by itself: the process that keeps its libraries loaded could not fork", file=sys.stderr)
        with _lock:
            if _server is server and server.ended():
                _server = None  # the next script gets another
    return script


def computes_with_torch(module: str, spec: Mapping[str, Any]) -> bool:
    """Whether a script loads torch, by what its spec asks of it; the others start as they always did."""
    name = module.removeprefix("foundry_pipeline.")
    if name in (
        "training.peer",
        "export.parity",
        "evaluation.evaluate",
        "evaluation.rejudge",
        "evaluation.heldout_modes",
    ):
        return True
    if name == "training.train":
        compute = spec.get("compute") or {}  # several processes are torch's launcher's, which is another program
        return int(compute.get("processes") or 1) * int(compute.get("nodes") or 1) == 1
    if name == "models.generate":
        return spec.get("model", {}).get("backend") == "transformers"
    if name == "models.generate_many":  # for the scripts that it starts
        return any(computes_with_torch("models.generate", job) for job in spec.get("jobs", {}).values())
    if name == "export.export":
        return spec.get("stage") != "dense" or spec["model"].get("kind") == "pypi_gguf"  # the other kind is fetched
    return False


def inherit(control: int) -> None:
    """In a fork: ask the same server."""
    global _server
    ours = socket.socket(fileno=control)
    ours.set_inheritable(False)
    _server = _Server(ours, _surroundings(os.environ), None)


def _possible(environment: Mapping[str, str]) -> bool:
    return (
        sys.platform == "linux"
        and environment.get(SWITCH) != "0"
        and environment.get("FOUNDRY_ENGINE", "local") in ("", "local")
        and not any(name in environment for name in _LAUNCHED)
        and not any(Path(device).exists() for device in _GPUS)
    )


def _surroundings(environment: Mapping[str, str]) -> dict[str, Any]:
    """What a process has from its start, and a fork from the server."""
    read = {n: v for n, v in environment.items() if n not in _SET_LATER and not n.startswith(_NO_LIBRARY_READS)}
    limits = {n: resource.getrlimit(number) for n, number in vars(resource).items() if n.startswith("RLIMIT_")}
    return {
        **read,
        **limits,
        "umask": Path("/proc/self/status").read_text().partition("Umask:")[2].split()[0],
        "processors": os.sched_getaffinity(0),
        "priority": os.getpriority(os.PRIO_PROCESS, 0),
    }


def _forget() -> None:
    """A fork that is no start has no server: it is not the process that the server ends with."""
    global _server, _lock
    _server, _lock = None, threading.Lock()


os.register_at_fork(after_in_child=_forget)
