"""The process that scripts start warm from: it loads the libraries once, and every start is a fork of it.

    python -m foundry_pipeline.fork_server CONTROL OTHER PARENT     started by `warm.py`, which says when and what for

It answers on the socket CONTROL, whose OTHER end it hands on, so that scripts can ask for scripts. A start is one message
of file descriptors: a socket to talk about this start, a file that holds the start as JSON, standard input, output and
error, and those that the script is given besides:

    {"module": "foundry_pipeline.training.peer", "arguments": ["spec.json", "1", "2", "9"], "folder": "/project",
     "environment": {…}, "keep": [9], "ignored": []}

`ignored` are signals that the asking process ignores (a shell's job in the background ignores SIGINT): a start hands that on.
On its socket the start is answered with two integers of eight bytes: the process id, then, when the script has ended,
its exit code (negative: the signal that ended it). Each byte sent there is the number of a signal to the script; when
the other end is closed, because the process that asked has ended or lost interest, the script is killed.

A fork takes the thread that makes it and no other, so this process has only one, and takes no parallel step before it
forks: neither OpenMP nor a BLAS has made its threads, and no GPU has been touched.

It ends when PARENT does, and its scripts end with it, as every script does with its parent (`launch.die_with_parent`).
"""

from __future__ import annotations

import array
import contextlib
import ctypes
import fcntl
import gc
import importlib
import json
import os
import runpy
import selectors
import signal
import socket
import sys
from dataclasses import dataclass
from typing import Any

# With what transformers loads only when it is asked for it: a Llama is what most runs train.
LIBRARIES = ("torch", "transformers", "transformers.models.llama.modeling_llama", "peft", "threadpoolctl")
MOST_DESCRIPTORS = 32  # in one message
_FEWEST = 5  # of its two and the three standard ones
_PR_SET_PDEATHSIG = 1  # linux/prctl.h


@dataclass(frozen=True)
class _Child:
    """A script at work: its process, the descriptor that tells its end, and the socket of who asked for it."""

    pid: int
    ended: int
    asked: socket.socket

    def watch(self, chosen: selectors.BaseSelector) -> None:
        self._say(self.pid)
        for thing in (self.ended, self.asked):
            chosen.register(thing, selectors.EVENT_READ, self)
        _alive.add(self)

    def look(self, chosen: selectors.BaseSelector, *, ended: bool) -> None:
        """Tell its end, or hand on the signals that were sent for it; who has gone leaves it killed."""
        if ended:
            _, status = os.waitpid(self.pid, 0)
            self._say(os.waitstatus_to_exitcode(status))
            chosen.unregister(self.ended)
            os.close(self.ended)
            with contextlib.suppress(KeyError):
                chosen.unregister(self.asked)
            self.asked.close()
            _alive.remove(self)
            return
        try:
            numbers = self.asked.recv(64)
        except ConnectionError:
            numbers = b""
        for number in numbers or (signal.SIGKILL,):
            os.kill(self.pid, number)  # not waited for yet, so that its number is still its own
        if not numbers:
            chosen.unregister(self.asked)

    def _say(self, number: int) -> None:
        with contextlib.suppress(OSError):  # nobody is left to hear it
            self.asked.send(number.to_bytes(8, "little", signed=True))


_alive: set[_Child] = set()
_set_by_libraries: dict[str, str] = {}  # variables of the environment that loading a library sets


def serve(control: socket.socket, parent: int) -> dict[str, Any]:
    """Fork a child for every message until `parent` ends. Returns in the children only: what each is to be."""
    # A terminal's Ctrl-C comes here too; a script decides itself what to do about it, and must not be killed meanwhile.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    gone = os.pidfd_open(parent)
    _load()
    chosen = selectors.DefaultSelector()
    chosen.register(gone, selectors.EVENT_READ)
    chosen.register(control, selectors.EVENT_READ)
    while True:
        ready = [key for key, _ in chosen.select()]
        if os.getppid() != parent:  # `gone` is what woke us, or it ended before we asked for that
            os._exit(0)
        for key in ready:
            child: _Child | None = key.data
            if child is not None and child in _alive:
                child.look(chosen, ended=key.fd == child.ended)
        if any(key.fileobj is control for key in ready):
            given = _receive(control)
            server = os.getpid()
            pid = _fork() if len(given) >= _FEWEST else None
            if pid == 0:
                chosen.close()
                for thing in (control, *(child.asked for child in _alive)):
                    thing.close()
                for fd in (gone, *(child.ended for child in _alive)):
                    os.close(fd)
                return _become(given, server)
            # Where there is no child, who asked sees its socket closed.
            asked = socket.socket(fileno=os.dup(given[0])) if pid else None
            for fd in given:
                os.close(fd)
            if pid and asked:
                _Child(pid, os.pidfd_open(pid), asked).watch(chosen)


def _load() -> None:
    """Load the libraries; while it takes, the kernel ends this process with the thread that waits for it."""
    prctl = ctypes.CDLL(None).prctl
    prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    before = dict(os.environ)
    gc.disable()  # there is next to no garbage, and the search for it is a fifth of the time
    for name in LIBRARIES:
        importlib.import_module(name)
    gc.freeze()  # nor do the children search through all of this
    gc.enable()
    _set_by_libraries.update({n: v for n, v in os.environ.items() if before.get(n) != v})
    prctl(_PR_SET_PDEATHSIG, 0, 0, 0, 0)  # that thread may end before this process is done with


def _receive(control: socket.socket) -> list[int]:
    _, data, _, _ = control.recvmsg(1, socket.CMSG_SPACE(MOST_DESCRIPTORS * 4), socket.MSG_CMSG_CLOEXEC)
    given = array.array("i")
    for _, _, content in data:
        given.frombytes(content)
    return list(given)


def _fork() -> int | None:
    try:
        return os.fork()
    except OSError:
        return None  # no memory, or too many processes: a start of its own says so


def _become(given: list[int], server: int) -> dict[str, Any]:
    """In a fork: have everything as a process of its own start has it, and return what to run."""
    from foundry_pipeline.launch import PARENT_VARIABLE

    _, request, *streams = given
    with open(request, "rb") as file:
        start: dict[str, Any] = json.load(file)
    targets = [0, 1, 2, *start["keep"]]
    clear = [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, max(targets) + 1) for fd in streams]  # out of each other's way
    for fd in (given[0], *streams):
        os.close(fd)
    for fd, target in zip(clear, targets, strict=True):
        os.dup2(fd, target)
        os.close(fd)
    os.environ.clear()
    os.environ.update(_set_by_libraries | start["environment"])
    os.environ[PARENT_VARIABLE] = str(server)
    os.chdir(start["folder"])
    if not sys.flags.safe_path:
        sys.path[0] = start["folder"]  # as `python -m` has it
    for number, usual in ((signal.SIGINT, signal.default_int_handler), (signal.SIGTERM, signal.SIG_DFL)):
        signal.signal(number, signal.SIG_IGN if number in start["ignored"] else usual)
    sys.stdout.reconfigure(line_buffering=os.isatty(1))  # type: ignore[union-attr]
    # Each process begins elsewhere, where nothing is seeded; Python's own generator sees to it itself.
    sys.modules["numpy"].random.seed()
    sys.modules["torch"].default_generator.seed()
    _be_called([sys.executable, "-m", start["module"], *start["arguments"]])
    return start


def _be_called(command: list[str]) -> None:
    """Show `command` as the command line of this process, in the memory where the kernel looks for it.

    There is as much room as this process's own command line takes, which `warm.py` made long for that.
    """
    with open("/proc/self/stat", "rb") as file:
        begin, end = (int(field) for field in file.read().rpartition(b")")[2].split()[45:47])  # arg_start, arg_end
    if not begin:
        return  # a kernel that does not tell
    shown = b"\0".join(os.fsencode(part) for part in command)[: end - begin - 1]
    ctypes.memmove(begin, shown.ljust(end - begin, b"\0"), end - begin)


if __name__ == "__main__":
    _be_called(sys.orig_argv[:-1])  # without the room
    _other = int(sys.argv[2])
    _start = serve(socket.socket(fileno=int(sys.argv[1])), parent=int(sys.argv[3]))
    from foundry_pipeline import warm

    warm.inherit(_other)
    sys.argv[1:] = _start["arguments"]
    runpy.run_module(_start["module"], run_name="__main__", alter_sys=True)
