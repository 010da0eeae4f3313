"""Scripts in processes of their own: results, errors, locks, signals, and an end with their parent."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable
from pathlib import Path

import dagster as dg
import pytest

from foundry_pipeline.defs.pipes import PatientReader, lines
from foundry_pipeline.errors import DamagedArtifact, FoundryError, Locked
from foundry_pipeline.launch import (
    ORPHANED,
    PARENT_VARIABLE,
    ScriptFailed,
    atomic_folder,
    let_waiting_threads_sleep,
    read_facts,
    run_script,
    script_command,
    work_lock,
    write_json,
    write_spec,
)

ROOT = Path(__file__).resolve().parents[2]

HEADER = """
import os, sys, time
from pathlib import Path
from foundry_pipeline.launch import atomic_folder, leave, script_main
"""
FOOTER = """
if __name__ == "__main__":
    leave(script_main(run))
"""
STARTER = """
from pathlib import Path
from foundry_pipeline.launch import run_script
run_script({name!r}, {{}}, Path({work!r}))
"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], str]:
    """Writes a script module with the given `run` and returns the name to start it by."""
    folder = tmp_path / "modules"
    folder.mkdir()
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), str(folder)]))

    def write(body: str) -> str:
        (folder / "some_script.py").write_text(HEADER + textwrap.dedent(body) + FOOTER)
        return "some_script"

    return write


def wait_for(condition: Callable[[], bool], seconds: float = 10.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "did not happen in time"
        time.sleep(0.02)


def alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


GARBLED = """
def run(spec, session):
    session._pipes._message_channel.write_message({"method": "nonsense", "params": {}})
    with atomic_folder(Path(spec["work"]) / "result"):
        return {}
"""
GOOD = """
    def run(spec, session):
        with atomic_folder(Path(spec["work"]) / "result") as folder:
            (folder / "answer.txt").write_text(str(spec["number"] + 1))
        session.log("one line")
        session.progress(1, 2, loss=0.123456)
        session.progress(2, 2, loss=0.1)
        return {"answer": spec["number"] + 1, "threads": os.environ["OMP_NUM_THREADS"]}
"""
BUSY = """
    def run(spec, session):
        import threading, torch
        square = torch.randn(900, 900)
        def work():
            while True:
                square @ square
        for _ in range(2):
            threading.Thread(target=work, daemon=True).start()
        Path(spec["work"], "pid").write_text(str(os.getpid()))
        time.sleep(60)
"""
SLEEPER = """
    def run(spec, session):
        Path(spec["work"], "pid").write_text(str(os.getpid()))
        try:
            time.sleep(60)
        finally:
            Path(spec["work"], "cleaned").touch()
        return {}
"""


def test_a_script_leaves_result_and_facts(
    module: Callable[[str], str], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    work = tmp_path / "work"
    run_script(module(GOOD), {"number": 41, "threads": 2}, work)
    assert (work / "result" / "answer.txt").read_text() == "42"
    assert read_facts(work) == {"answer": 42, "threads": "2"}
    shown = capfd.readouterr().err
    assert "one line" in shown
    assert "2/2" in shown
    assert "loss 0.1" in shown


def test_an_error_arrives_in_the_parent_as_it_was_raised(module: Callable[[str], str], tmp_path: Path) -> None:
    name = module("""
        from foundry_pipeline.errors import DamagedArtifact
        def run(spec, session):
            raise DamagedArtifact("weights differ", where="base/x", mend="build it again")
    """)
    with pytest.raises(DamagedArtifact) as caught:
        run_script(name, {}, tmp_path / "work")
    assert (caught.value.what, caught.value.where, caught.value.mend) == ("weights differ", "base/x", "build it again")


def test_a_crash_shows_the_last_lines(module: Callable[[str], str], tmp_path: Path) -> None:
    with pytest.raises(ScriptFailed, match=r"(?s)exit code 1.*ZeroDivisionError"):
        run_script(module("def run(spec, session): return {'x': 1 / 0}"), {}, tmp_path / "work")


def test_an_earlier_error_is_not_shown_for_a_later_crash(module: Callable[[str], str], tmp_path: Path) -> None:
    work = tmp_path / "work"
    write_json(work / "error.json", {"type": "Locked", "what": "old", "where": "", "mend": ""})
    with pytest.raises(ScriptFailed, match="ZeroDivisionError"):
        run_script(module("def run(spec, session): return {'x': 1 / 0}"), {}, work)


def test_no_result_is_a_failure(module: Callable[[str], str], tmp_path: Path) -> None:
    with pytest.raises(ScriptFailed, match="without a result"):
        run_script(module("def run(spec, session): return {}"), {}, tmp_path / "work")


def test_a_full_disk_is_told_in_plain_words(module: Callable[[str], str], tmp_path: Path) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("needs /dev/full")
    name = module("""
        def run(spec, session):
            with open("/dev/full", "w") as file:
                file.write("x" * 100_000)
            return {}
    """)
    with pytest.raises(FoundryError, match=os.strerror(errno.ENOSPC)) as caught:
        run_script(name, {}, tmp_path / "work")
    assert "free disk space" in caught.value.mend


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_ends_a_script_in_order(
    module: Callable[[str], str], tmp_path: Path, number: signal.Signals, code: int
) -> None:
    work = tmp_path / "work"
    process = subprocess.Popen(script_command(module(SLEEPER), write_spec({}, work)))
    wait_for((work / "pid").exists)
    process.send_signal(number)
    assert process.wait(timeout=10) == code
    assert (work / "cleaned").exists()


def test_a_signal_ends_a_script_in_order_whose_thread_is_within_torch(
    module: Callable[[str], str], tmp_path: Path
) -> None:
    """Python that takes itself apart meanwhile is aborted: `terminate called without an active exception`."""
    work = tmp_path / "work"
    spec = write_spec({}, work)
    script = subprocess.Popen([sys.executable, "-m", module(BUSY), str(spec)], stderr=subprocess.PIPE, text=True)
    wait_for(lambda: (work / "pid").exists() and (work / "pid").read_text() != "", seconds=60)
    time.sleep(0.3)
    script.send_signal(signal.SIGTERM)
    _, said = script.communicate(timeout=60)
    assert (script.returncode, "terminate called" in said) == (143, False)


def test_a_child_dies_with_its_parent(module: Callable[[str], str], tmp_path: Path) -> None:
    work = tmp_path / "work"
    name = module(SLEEPER)
    starter = STARTER.format(name=name, work=str(work))
    parent = subprocess.Popen([sys.executable, "-c", starter])
    wait_for(lambda: (work / "pid").exists() and (work / "pid").read_text() != "")
    child = int((work / "pid").read_text())
    assert alive(child)
    parent.kill()
    parent.wait()
    wait_for(lambda: not alive(child), seconds=5)
    with work_lock(work, wait_seconds=1):  # and its lock went with it
        pass


def test_a_child_whose_parent_was_gone_before_it_asked_ends_at_once(
    module: Callable[[str], str], tmp_path: Path
) -> None:
    work = tmp_path / "work"
    environment = os.environ | {PARENT_VARIABLE: "999999999"}
    ended = subprocess.run(script_command(module(SLEEPER), write_spec({}, work)), env=environment, timeout=20)
    assert ended.returncode == ORPHANED
    assert not (work / "pid").exists()


def test_an_interrupted_parent_stops_its_child(module: Callable[[str], str], tmp_path: Path) -> None:
    work = tmp_path / "work"
    name = module(SLEEPER)
    starter = STARTER.format(name=name, work=str(work))
    parent = subprocess.Popen([sys.executable, "-c", starter], stderr=subprocess.DEVNULL)
    wait_for(lambda: (work / "pid").exists() and (work / "pid").read_text() != "")
    child = int((work / "pid").read_text())
    parent.send_signal(signal.SIGINT)
    assert parent.wait(timeout=60) != 0
    assert not alive(child)
    assert (work / "cleaned").exists()


def test_a_second_writer_is_refused_by_pid(tmp_path: Path) -> None:
    holder = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import sys, time; from pathlib import Path; from foundry_pipeline.launch import work_lock\n"
            "with work_lock(Path(sys.argv[1])): print('held', flush=True); time.sleep(60)",
            str(tmp_path),
        ],
        stdout=subprocess.PIPE,
        cwd=ROOT,
    )
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(Locked, match=f"pid {holder.pid}"), work_lock(tmp_path, wait_seconds=0.3):
            pass
    finally:
        holder.kill()
        holder.wait()
    with work_lock(tmp_path, wait_seconds=1):
        assert (tmp_path / ".lock").read_text() == f"{os.getpid()}\n"


def test_a_folder_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    target = tmp_path / "result"

    def fill(folder: Path, text: str) -> None:
        (folder / "a").write_text(text)
        if text == "bad":
            raise ValueError(text)

    with atomic_folder(target) as folder:
        fill(folder, "first")
        assert not target.exists()
    with pytest.raises(ValueError, match="bad"), atomic_folder(target) as folder:
        fill(folder, "bad")
    assert (target / "a").read_text() == "first"
    with atomic_folder(target) as folder:
        (folder / "b").touch()
    assert [path.name for path in target.iterdir()] == ["b"]
    assert [path.name for path in tmp_path.iterdir()] == ["result"]


def test_json_is_replaced_whole(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "x.json"
    write_json(path, {"b": 1, "a": "é"})
    with pytest.raises(TypeError):
        write_json(path, {"a": object()})
    assert json.loads(path.read_text()) == {"a": "é", "b": 1}
    assert [entry.name for entry in path.parent.iterdir()] == ["x.json"]


def test_a_wrong_call_has_exit_code_2(module: Callable[[str], str]) -> None:
    ended = subprocess.run([sys.executable, "-m", module(GOOD)], capture_output=True, text=True)
    assert ended.returncode == 2
    assert "usage" in ended.stderr


ENDING = """
import atexit, sys
from foundry_pipeline.launch import leave
class Held:
    def __del__(self):
        print("taken apart")
held = [Held()]
held.append(held)
atexit.register(print, "exit function", flush=True)
print("not flushed yet", end=" ")
leave(7)
"""


def test_a_script_leaves_with_its_output_and_nothing_is_taken_apart() -> None:
    ended = subprocess.run([sys.executable, "-c", ENDING], capture_output=True, text=True)
    assert (ended.returncode, ended.stdout, ended.stderr) == (7, "not flushed yet exit function\n", "")


def test_dagster_hears_progress_and_the_end(module: Callable[[str], str], tmp_path: Path) -> None:
    work = tmp_path / "work"
    name = module(GOOD)
    heard: list[object] = []

    @dg.asset
    def thing(context):  # type: ignore[no-untyped-def]  # Dagster cannot read a quoted annotation here
        client = dg.PipesSubprocessClient(message_reader=PatientReader())
        done = client.run(context=context, command=script_command(name, write_spec({"number": 1}, work)))
        heard.extend(done.get_custom_messages())
        return done.get_materialize_result()

    with dg.DagsterInstance.ephemeral() as instance:
        outcome = dg.materialize([thing], instance=instance)
        assert outcome.success
        lines = [record.event_log_entry.user_message for record in instance.get_records_for_run(outcome.run_id).records]
    assert {"progress": {"done": 2, "total": 2, "metrics": {"loss": 0.1}}} in heard
    assert any(line.startswith("2/2") for line in lines)
    assert read_facts(work)["answer"] == 2


def test_lines_are_read_whole_and_to_the_last(tmp_path: Path) -> None:
    """Between two looks the file grows, by half a line too; what was written just before the end is not lost."""
    file, ended = tmp_path / "messages", threading.Event()
    file.touch()
    growth = iter(['{"a":', ' 1}\n{"b": "\u00fc"}\n', '{"c": 3}\n{"torn'])

    def wait(seconds: float) -> bool:
        with file.open("a", encoding="utf-8") as stream:
            stream.write(next(growth))
        if next(left) == 0:
            ended.set()
        return ended.is_set()

    left = iter((2, 1, 0))
    assert [json.loads(line) for line in lines(file, ended, wait)] == [{"a": 1}, {"b": "\u00fc"}, {"c": 3}]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_what_a_script_says_that_no_one_understands_fails_its_run(module: Callable[[str], str], tmp_path: Path) -> None:
    """A message that Dagster does not know is reported as its own reader reports it, and the step still ends."""
    name = module(GARBLED)

    @dg.asset
    def thing(context):  # type: ignore[no-untyped-def]  # Dagster cannot read a quoted annotation here
        client = dg.PipesSubprocessClient(message_reader=PatientReader())
        client.run(context=context, command=script_command(name, write_spec({}, tmp_path / "work")))

    with dg.DagsterInstance.ephemeral() as instance:
        outcome = dg.materialize([thing], instance=instance, raise_on_error=False)
        events = [record.event_log_entry for record in instance.get_records_for_run(outcome.run_id).records]
    assert any("reads a script's messages" in (event.user_message or "") for event in events)


@pytest.mark.parametrize(("said", "kept"), [(None, "PASSIVE"), ("ACTIVE", "ACTIVE")])
def test_waiting_threads_sleep_unless_the_user_says_otherwise(
    said: str | None, kept: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    if said:
        monkeypatch.setenv("OMP_WAIT_POLICY", said)
    let_waiting_threads_sleep()
    assert os.environ["OMP_WAIT_POLICY"] == kept
