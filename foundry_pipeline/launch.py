"""Long work runs in a process of its own: `python -m module SPEC.json`, with or without Dagster.

A script writes only into `spec["work"]`, a folder that outlives kills and is used again to resume. It ends by
writing `work/result/` (the payload, put there whole by one rename) and `work/result.json` (facts: metrics,
durations, library versions). The caller publishes `result/`.

Child side, the whole of a script's `__main__`:

    def run(spec: dict[str, Any], session: ScriptSession) -> dict[str, Any]:
        with atomic_folder(Path(spec["work"]) / "result") as folder:
            (folder / "answer.txt").write_text("42\\n")
            session.progress(1, 1, answers=1)
        return {"answers": 1}                       # becomes work/result.json

    if __name__ == "__main__":
        leave(script_main(run))

Parent side: `run_script("foundry_pipeline.training.train", {...}, work)`, or any `ScriptRunner` in its place.

A child never outlives its parent: the kernel kills it when the thread that started it ends (prctl(2),
PR_SET_PDEATHSIG), and a watching thread ends it when its parent process changes. That matters because a trainer
whose run was killed would otherwise go on beside its replacement; `work_lock` refuses a second writer as well.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import errno
import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn, Protocol

from foundry_pipeline import errors
from foundry_pipeline.errors import FoundryError, Locked
from foundry_pipeline.warm import THREADS, start_script

PARENT_VARIABLE = "FOUNDRY_PARENT_PID"
PIPES_VARIABLES = ("DAGSTER_PIPES_CONTEXT", "DAGSTER_PIPES_MESSAGES")
ORPHANED = 137  # what a shell shows for a process ended by SIGKILL
_PR_SET_PDEATHSIG = 1  # linux/prctl.h
_WATCH_SECONDS = 0.5
_LINE_SECONDS = 2.0  # between progress lines where the output is not a terminal
_LOG_SECONDS = 10.0  # between progress entries in Dagster's event log: each is a database row
_MESSAGE_SECONDS = 1.0  # between custom messages to Dagster
_TAIL_LINES = 25
_CANNOT_WRITE = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO}


class ScriptFailed(FoundryError):
    """A script that ended without its result."""


class ScriptRunner(Protocol):
    """Runs a script to its end. Raises FoundryError when it fails; returns when `work/result/` is there."""

    def __call__(self, module: str, spec: Mapping[str, Any], work: Path) -> None: ...


# --------------------------------------------------------------------------------------------- files, whole or not


def write_json(path: Path, content: Any) -> None:
    """Write `content` as JSON with sorted keys; a reader sees the old file or the new one, never half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with temporary.open("w", encoding="utf-8") as file:
            json.dump(content, file, ensure_ascii=False, indent=2, sort_keys=True, allow_nan=False)
            file.write("\n")
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def read_json(path: Path) -> Any:
    """The content of a JSON file. Raises FoundryError that names the file when it is missing or not JSON."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise FoundryError("file not found", where=str(path), mend="give the path of an existing JSON file") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise FoundryError(f"not JSON: {error}", where=str(path), mend=f"rm {path}   # and run again") from error


@contextlib.contextmanager
def atomic_folder(target: Path) -> Iterator[Path]:
    """Yield an empty folder beside `target` that becomes `target` when the block ends well, and vanishes otherwise.

    An earlier `target` is replaced. Files are flushed to disk before the rename, so that a power cut cannot leave
    a complete name over incomplete content.
    """
    temporary = target.with_name(f".{target.name}.partial")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    try:
        yield temporary
        sync_tree(temporary)
        replace_folder(temporary, target)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def replace_folder(source: Path, target: Path) -> None:
    """Rename the folder `source` to `target`; an earlier `target` is moved aside first, then deleted."""
    aside = target.with_name(f".{target.name}.replaced")
    shutil.rmtree(aside, ignore_errors=True)
    if target.exists():
        target.rename(aside)
    source.rename(target)
    _sync(target.parent)
    shutil.rmtree(aside, ignore_errors=True)


def sync_tree(folder: Path) -> None:
    """Flush every file below `folder`, and the folders themselves, to disk."""
    for path in sorted(folder.rglob("*")):
        _sync(path)
    _sync(folder)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def work_lock(folder: Path, wait_seconds: float = 10.0) -> Iterator[None]:
    """Hold `folder/.lock`; one writer at a time. Raises Locked, naming the holder's pid, after `wait_seconds`.

    The lock is the kernel's (flock(2)): it ends with its holder however that dies, so a stale file refuses nobody.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / ".lock"
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        give_up = time.monotonic() + wait_seconds
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= give_up:
                    holder = os.pread(descriptor, 32, 0).decode("ascii", "replace").strip() or "unknown"
                    raise Locked(
                        f"another process (pid {holder}) is writing here",
                        where=str(folder),
                        mend=f"wait for it to end, or stop it: kill {holder}",
                    ) from None
                time.sleep(0.1)
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode("ascii"), 0)
        yield
    finally:
        os.close(descriptor)  # releases the lock; the file stays, since removing it would let two holders in


# ------------------------------------------------------------------------------------------------------ child side


class ScriptSession:
    """What a script says while it works: on stderr, and to Dagster when Dagster started it."""

    def __init__(self, pipes: Any | None) -> None:
        self._pipes = pipes
        self._terminal = sys.stderr.isatty()
        self._started = time.monotonic()
        self._said = {"line": float("-inf"), "log": float("-inf"), "message": float("-inf")}
        self._open_line = False
        # Under Dagster its run; alone, this process.
        self.run_id: str = f"process-{uuid.uuid4().hex[:12]}" if pipes is None else str(pipes.run_id)

    def log(self, message: str) -> None:
        """One line for people."""
        self._end_line()
        print(message, file=sys.stderr, flush=True)
        if self._pipes is not None:
            self._pipes.log.info(message)

    def progress(self, done: int, total: int, **metrics: float | int | str) -> None:
        """`done` of `total` units are finished. `metrics` are shown beside it, numbers to four digits.

        Safe to call as often as one likes: lines and messages are thinned out, except the last one.
        """
        now = time.monotonic()
        elapsed = now - self._started
        left = f", {_clock(elapsed / done * (total - done))} left" if 0 < done < total else ""
        shown = "".join(f" {name} {_short(value)}" for name, value in metrics.items())
        line = f"{done}/{total} [{_clock(elapsed)}{left}]{shown}"
        last = done >= total
        if self._terminal:
            print(f"\r\033[K{line}", end="", file=sys.stderr, flush=True)
            self._open_line = True
            if last:
                self._end_line()
        elif self._due("line", now, _LINE_SECONDS) or last:
            print(line, file=sys.stderr, flush=True)
        if self._pipes is None:
            return
        if self._due("message", now, _MESSAGE_SECONDS) or last:
            self._pipes.report_custom_message({"progress": {"done": done, "total": total, "metrics": metrics}})
        if self._due("log", now, _LOG_SECONDS) or last:
            self._pipes.log.info(line)

    def _due(self, name: str, now: float, seconds: float) -> bool:
        if now - self._said[name] < seconds:
            return False
        self._said[name] = now
        return True

    def _end_line(self) -> None:
        if self._open_line:
            print(file=sys.stderr, flush=True)
            self._open_line = False


def _clock(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes:02}:{rest:02}"


def _short(value: float | int | str) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


@contextlib.contextmanager
def script_session() -> Iterator[ScriptSession]:
    """Tie this process to its parent, turn SIGTERM and SIGINT into an orderly end, and report to Dagster if there.

    SIGTERM ends the process with exit code 143 and SIGINT with 130, after `finally` blocks have run; a repeated
    signal within five seconds is the same request (a terminal and Dagster both send one), a later one ends at once.
    To be called from the main thread, before heavy libraries are loaded.
    """
    die_with_parent()
    _end_on_signals()
    if PIPES_VARIABLES[0] not in os.environ:
        yield ScriptSession(None)
        return
    from dagster_pipes import open_dagster_pipes

    with open_dagster_pipes() as pipes:
        yield ScriptSession(pipes)


def die_with_parent() -> None:
    """Ask the kernel for SIGKILL when the parent thread ends, and watch the parent process as well.

    The signal comes when the *thread* that started this process ends, so a parent must start scripts from a thread
    that waits for them, as `run_script` and Dagster do. A parent that died before the request is told by its pid,
    which it left in the environment.
    """
    expected = int(os.environ.pop(PARENT_VARIABLE, "0")) or os.getppid()
    if sys.platform == "linux":
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) != 0:
            number = ctypes.get_errno()
            raise OSError(number, f"prctl(PR_SET_PDEATHSIG): {os.strerror(number)}")
    if os.getppid() != expected:
        os._exit(ORPHANED)

    def watch() -> None:
        while os.getppid() == expected:
            time.sleep(_WATCH_SECONDS)
        os._exit(ORPHANED)

    threading.Thread(target=watch, name="parent-watch", daemon=True).start()


def _end_on_signals() -> None:
    first: list[float] = []

    def end(number: int, _frame: FrameType | None) -> None:
        if not first:
            first.append(time.monotonic())
            raise SystemExit(128 + number)
        if time.monotonic() - first[0] > 5.0:
            os._exit(128 + number)

    signal.signal(signal.SIGTERM, end)
    signal.signal(signal.SIGINT, end)


def limit_threads(threads: int) -> None:
    """Bound every numeric library to `threads`: by the environment those that are loaded afterwards, and in a script that
    started warm those that it was given."""
    for name in THREADS:
        os.environ[name] = str(threads)
    if (torch := sys.modules.get("torch")) is not None:
        from threadpoolctl import threadpool_limits

        torch.set_num_threads(threads)
        threadpool_limits(threads)
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    let_waiting_threads_sleep()


def let_waiting_threads_sleep() -> None:
    """A numeric library's thread that waits for another sleeps instead of spinning, where the library is loaded later.

    Alone on the machine this costs little; beside other work spinning threads starve the one they wait for: small
    products took three to eight times as long, and 700 sentence embeddings 138 s of processor time instead of 22.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def script_main(run: Callable[[dict[str, Any], ScriptSession], dict[str, Any]], argv: list[str] | None = None) -> int:
    """Be a script: read the spec named in `argv`, hold the work folder's lock, run, write `work/result.json`.

    `run(spec, session)` writes `work/result/` and returns the facts. The exit code is 0, 1 after a FoundryError
    (shown, and kept in `work/error.json` for the parent), 2 for a wrong call, 130 or 143 after a signal.
    """
    arguments = sys.argv[1:] if argv is None else argv
    if len(arguments) != 1:
        print("usage: python -m MODULE SPEC.json", file=sys.stderr)
        return 2
    work: Path | None = None
    try:
        with script_session() as session:
            spec = read_json(Path(arguments[0]))
            if not isinstance(spec, dict) or "work" not in spec:
                raise FoundryError("a spec is a JSON object with `work`", where=arguments[0], mend="add `work`")
            work = Path(spec["work"])
            limit_threads(int(spec.get("threads", os.cpu_count() or 1)))
            from foundry_pipeline.models.model_files import check_named

            check_named(spec)  # before any library sees a model
            try:
                with work_lock(work):
                    write_json(work / "result.json", run(spec, session))
            except OSError as error:
                if error.errno not in _CANNOT_WRITE:
                    raise
                raise cannot_write(error, error.filename or work) from error
    except FoundryError as error:
        if work is not None:
            record = {"type": type(error).__name__, "what": error.what, "where": error.where, "mend": error.mend}
            with contextlib.suppress(OSError):  # a full disk must not hide the error itself
                write_json(work / "error.json", record)
        print(f"error: {error}", file=sys.stderr, flush=True)
        return 1
    except SystemExit as end:
        # A signal, and all is closed: taken apart now, Python would abort at a thread that is within torch.
        return end.code if isinstance(end.code, int) else 1
    return 0


def leave(code: int) -> NoReturn:
    """End this process with `code`: exit functions run and output is flushed, and the rest is left to the kernel.

    Taking apart an interpreter that holds torch, transformers and peft costs 1.7 s of processor time, and frees nothing
    that does not end with the process. A script has closed its files by then: what it made is under its last name.
    """
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):  # whoever read it has gone
            stream.flush()
    os._exit(code)


def cannot_write(reason: object, where: object) -> FoundryError:
    """The error of a disk that takes no more: what is stored stays good, and the same command goes on from it."""
    return FoundryError(
        f"could not write: {reason}", where=str(where), mend="free disk space, then run the same command again"
    )


# ----------------------------------------------------------------------------------------------------- parent side


def script_command(module: str, spec_file: Path) -> list[str]:
    """The command line that runs `module` on a spec, with this interpreter."""
    return [sys.executable, "-m", module, str(spec_file)]


def script_environment() -> dict[str, str]:
    """The environment a script is started with: this one, this process as its parent, and no Dagster reporting.

    A runner that does report to Dagster adds its own variables on top.
    """
    kept = {name: value for name, value in os.environ.items() if name not in PIPES_VARIABLES}
    return kept | {PARENT_VARIABLE: str(os.getpid())}


def write_spec(spec: Mapping[str, Any], work: Path) -> Path:
    """Write `work/spec.json` with `work` filled in and forget an earlier failure; returns the file's path."""
    path = work.resolve() / "spec.json"
    (work / "error.json").unlink(missing_ok=True)
    write_json(path, {**spec, "work": str(work.resolve())})
    return path


def run_script(module: str, spec: Mapping[str, Any], work: Path) -> None:
    """Run `python -m module work/spec.json` to its end, passing its output on.

    Raises the script's own FoundryError (what, where, mend) when it left one, else ScriptFailed with the last lines
    of its output. When this process is interrupted the script is asked to end (SIGTERM), then made to.
    """
    path = write_spec(spec, work)
    tail: deque[str] = deque(maxlen=_TAIL_LINES)
    heard, said = os.pipe()
    try:
        process = start_script(module, [str(path)], spec, script_environment(), output=said)
    except BaseException:
        os.close(heard)
        raise
    finally:
        os.close(said)
    with open(heard, encoding="utf-8", errors="replace") as output:
        try:
            for line in output:
                tail.append(line)
                sys.stderr.write(line)
                sys.stderr.flush()
            code = process.wait()
        except BaseException:
            process.terminate()
            try:
                process.wait(timeout=10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            raise
    check_ended(module, work, code, "".join(tail))


def check_ended(module: str, work: Path, code: int, tail: str = "") -> None:
    """Raise for a script that ended with `code` other than 0, or with 0 but without `work/result/`."""
    record = work / "error.json"
    if code == 1 and record.is_file():
        error = read_json(record)
        kind = getattr(errors, error["type"], ScriptFailed)
        raise kind(error["what"], where=error["where"], mend=error["mend"])
    said = f"\n{tail.rstrip()}" if tail.strip() else ""
    if code != 0:
        how = f"was ended by signal {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
        raise ScriptFailed(
            f"{module} {how}{said}", where=str(work), mend="run the same command again: it resumes from what is stored"
        )
    if not (work / "result").is_dir():
        raise ScriptFailed(f"{module} ended without a result{said}", where=str(work), mend="report this as a bug")


def read_facts(work: Path) -> dict[str, Any]:
    """What the script reported at its end: `work/result.json`."""
    facts: dict[str, Any] = read_json(work / "result.json")
    return facts
