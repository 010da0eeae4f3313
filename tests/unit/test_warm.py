"""Warm starts: a fork is what a start of its own would be, it ends as one does, and nothing outlives what it was for."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from foundry_pipeline import warm
from foundry_pipeline.defs.pipes import PatientReader
from foundry_pipeline.defs.runner import pipes_runner
from foundry_pipeline.launch import ScriptFailed, read_facts, run_script, script_environment
from tests.project import wait_for

pytestmark = pytest.mark.skipif(not warm._possible({}), reason="scripts start the plain way on this machine")

ROOT = Path(__file__).resolve().parents[2]
TOLD = """
import json, os, random, resource, signal, sys, threading
from foundry_pipeline.launch import die_with_parent, limit_threads
die_with_parent()
limit_threads(2)
import numpy, threadpoolctl, torch, transformers.models.llama.modeling_llama, peft
counts = []
other = threading.Thread(target=lambda: counts.append((torch.get_num_threads(), float(torch.ones(4).sum()))))
other.start()
other.join()
threads = len(os.listdir("/proc/self/task"))
# A product large enough for every thread there is.
torch.manual_seed(7)
a = torch.rand(700, 700)
pools = {(p["internal_api"], p["num_threads"]) for p in threadpoolctl.threadpool_info()}
with open("/proc/self/smaps_rollup") as file:
    before = file.read().split("AnonHugePages:")[1].split()[0]
large = torch.ones(2**24)
with open("/proc/self/smaps_rollup") as file:
    pages = int(file.read().split("AnonHugePages:")[1].split()[0]) - int(before) > 2**15
print(json.dumps({
    "arguments": sys.argv, "folder": os.getcwd(), "name": __name__, "path": sys.path[:2], "executable": sys.executable,
    "environment": {k: v for k, v in os.environ.items() if not k.startswith("FOUNDRY_")},
    "threads": [torch.get_num_threads(), counts, sorted(pools)],
    "products": [float((a @ a).sum()), float((a.bfloat16() @ a.bfloat16()).sum()), float((a.numpy() @ a.numpy()).sum())],
    "signals": [str(signal.getsignal(n)) for n in (signal.SIGINT, signal.SIGTERM, signal.SIGPIPE, signal.SIGCHLD)],
    "blocked": [int(n) for n in signal.pthread_sigmask(signal.SIG_BLOCK, [])],
    "shown": open("/proc/self/cmdline").read().rstrip("\\0").split("\\0"),
    "reads": sys.stdin.read(), "buffered": [sys.stdout.line_buffering, sys.stderr.line_buffering],
    "given": os.read(int(sys.argv[2]), 5).decode(), "pages": pages and bool(large[0]),
    "limits": [resource.getrlimit(n) for n in range(16)], "group": [os.getpgid(0), os.getsid(0)],
    "open": sorted(os.path.basename(os.readlink(f"/proc/self/fd/{fd}")).split(":")[0] for fd in os.listdir("/proc/self/fd")
                   if os.path.exists(f"/proc/self/fd/{fd}")),
}))
print(json.dumps({"peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, "random": [
    random.random(), numpy.random.rand(), float(torch.Generator().seed())]}))
sys.exit(7)
"""
SCRIPT = """
import os, sys, time
from pathlib import Path
from foundry_pipeline.launch import ScriptFailed, atomic_folder, run_script, script_main
from foundry_pipeline import warm
def run(spec, session):
    Path(spec["work"], "pids").write_text(f"{os.getpid()} {os.getppid()}")
    session.log("begun")
    session.progress(2, 2, loss=0.1)
    if below := spec.get("below"):
        warm.computes_with_torch = lambda module, spec: True
        run_script("some_script", {"sleep": 60}, Path(below))
    try:
        time.sleep(spec.get("sleep", 0))
    finally:
        Path(spec["work"], "cleaned").touch()
    with atomic_folder(Path(spec["work"]) / "result"):
        return {"warm": "torch" in sys.modules, "result": 1 / spec.get("divide_by", 1)}
if __name__ == "__main__":
    sys.exit(script_main(run))
"""
OWNER = """
import sys
from pathlib import Path
from foundry_pipeline import warm
from foundry_pipeline.launch import run_script
warm.computes_with_torch = lambda module, spec: True
run_script("some_script", {{"below": {below!r}}}, Path({work!r}))
"""


@pytest.fixture(scope="module", autouse=True)
def _own_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A server that finds the scripts of this file, in place of one that other files' tests may have started."""
    folder = tmp_path_factory.mktemp("modules")
    (folder / "some_script.py").write_text(SCRIPT)
    (folder / "told.py").write_text(TOLD)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), str(folder)]))
        patch.setattr(warm, "_server", None)
        patch.setattr(warm, "computes_with_torch", lambda module, spec: True)
        yield
        if warm._server is not None:
            warm._server.end()


def server_pid() -> int:
    assert warm._server is not None
    assert warm._server._process is not None
    return warm._server._process.pid


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def begun(work: Path) -> list[int]:
    """The script's own number and its parent's, once it works."""
    wait_for(lambda: (work / "pids").is_file() and (work / "pids").read_text().count(" ") == 1, seconds=60)
    return [int(part) for part in (work / "pids").read_text().split()]


def sleeping(work: Path, **more: Any) -> warm.WarmScript:
    work.mkdir(exist_ok=True)
    spec = work / "spec.json"
    spec.write_text(json.dumps({"work": str(work), "sleep": 60, **more}))
    script = warm.start_warm("some_script", [str(spec)], script_environment())
    assert script is not None
    assert begun(work) == [script.pid, server_pid()]
    return script


def told(start: Callable[[int, int], Any]) -> tuple[int, dict[str, Any], dict[str, Any]]:
    heard, said = os.pipe()
    given, giving = os.pipe()
    os.write(giving, b"given")
    script = start(said, given)
    for fd in (said, given, giving):
        os.close(fd)
    with open(heard) as output:
        one, other = output.read().splitlines()
    return script.wait(), json.loads(one), json.loads(other)


def test_a_fork_is_what_a_start_of_its_own_would_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FOUNDRY_PROFILE", "tiny")
    environment = script_environment() | {"THP_MEM_ALLOC_ENABLE": "1"}

    def forked(said: int, given: int) -> warm.Started:
        script = warm.start_warm("told", ["two words", str(given)], environment, said, [given])
        assert script is not None
        return script

    def plain(said: int, given: int) -> warm.Started:
        switched = environment | {warm.SWITCH: "0"}
        return warm.start_script("told", ["two words", str(given)], {}, switched, output=said, pass_fds=[given])

    code, found, chance = told(forked)
    _, _, chance_again = told(forked)
    plain_code, wanted, _ = told(plain)
    assert code == plain_code == 7
    # Besides what any process has: the way to the server, for scripts that this one starts.
    found["open"].remove("socket")
    assert found == wanted
    assert all(a != b for a, b in zip(chance["random"], chance_again["random"], strict=True))
    # Its memory is counted from the libraries on, as in a process that has loaded them, not from what others took.
    assert chance["peak"] < 2 * 2**20
    # A job in the background ignores what a terminal's Ctrl-C sends, and so does what it starts.
    usual = {number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        _, found, _ = told(forked)
        _, wanted, _ = told(plain)
    finally:
        for number, handler in usual.items():
            signal.signal(number, handler)
    assert found["signals"] == wanted["signals"]
    assert wanted["signals"][:2] == ["1", "1"]


def test_a_fork_ends_as_a_script_does(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    run_script("some_script", {}, tmp_path / "good")
    assert read_facts(tmp_path / "good") == {"result": 1.0, "warm": True}
    assert "begun" in capfd.readouterr().err
    with pytest.raises(ScriptFailed, match=r"(?s)exit code 1.*ZeroDivisionError"):
        run_script("some_script", {"divide_by": 0}, tmp_path / "bad")
    for number, code, cleaned in ((signal.SIGTERM, 143, True), (signal.SIGINT, 130, True), (signal.SIGKILL, -9, False)):
        script = sleeping(tmp_path / number.name)
        assert script.poll() is None
        with pytest.raises(subprocess.TimeoutExpired):
            script.wait(timeout=0.01)
        os.kill(script.pid, number) if number == signal.SIGKILL else script.send_signal(number)
        assert script.wait(timeout=20) == script.poll() == code
        assert (tmp_path / number.name / "cleaned").exists() == cleaned
        script.kill()  # after its end: nothing
        assert not Path(f"/proc/{script.pid}").exists()


def test_dagster_hears_a_fork_and_learns_how_it_ended(tmp_path: Path) -> None:
    @dg.asset
    def thing(context):  # type: ignore[no-untyped-def]  # Dagster cannot read a quoted annotation here
        run = pipes_runner(context, dg.PipesSubprocessClient(message_reader=PatientReader()), lambda spec: None)  # type: ignore[arg-type,return-value]
        run("some_script", {}, tmp_path / "good")
        with pytest.raises(ScriptFailed, match="exit code 1"):
            run("some_script", {"divide_by": 0}, tmp_path / "bad")
        return dg.MaterializeResult()

    with dg.DagsterInstance.ephemeral() as instance:
        outcome = dg.materialize([thing], instance=instance)
        lines = [r.event_log_entry.user_message for r in instance.get_records_for_run(outcome.run_id).records]
    assert outcome.success
    assert read_facts(tmp_path / "good")["warm"]
    assert any(line.startswith("2/2") for line in lines)


def test_many_at_once_leave_nothing_behind(tmp_path: Path) -> None:
    def held() -> list[int]:
        return [len(os.listdir(f"/proc/{pid}/fd")) for pid in ("self", server_pid())]

    first = sleeping(tmp_path / "first")
    before = held()
    first.kill()
    assert first.wait() == -9
    scripts = [sleeping(tmp_path / str(number)) for number in range(4)]
    for number, script in enumerate(scripts):
        script.kill() if number % 2 else script.terminate()
    assert [script.wait() for script in scripts] == [143, -9, 143, -9]
    forgotten = sleeping(tmp_path / "forgotten").pid  # nobody holds it any more
    wait_for(lambda: not Path(f"/proc/{forgotten}").exists(), seconds=10)
    last = sleeping(tmp_path / "last")
    assert held() == before
    assert Path(f"/proc/{server_pid()}/task/{server_pid()}/children").read_text().split() == [str(last.pid)]
    # A terminal's Ctrl-C, and a request to end that goes to all processes, is for the scripts.
    os.kill(server_pid(), signal.SIGINT)
    os.kill(server_pid(), signal.SIGTERM)
    last.terminate()
    assert last.wait() == 143


@pytest.mark.parametrize(
    "changed",
    [
        {warm.SWITCH: "0"},
        {"FOUNDRY_ENGINE": "ray"},
        {"WORLD_SIZE": "2"},
        {"MALLOC_ARENA_MAX": "1"},
        {"LD_PRELOAD": ""},
    ],
)
def test_what_the_server_cannot_give_starts_the_plain_way(
    changed: dict[str, str], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    spec = tmp_path / "spec.json"
    spec.write_text(json.dumps({"work": str(tmp_path)}))
    script = warm.start_script("some_script", [str(spec)], {}, script_environment() | changed)
    assert isinstance(script, subprocess.Popen)
    assert script.wait() == 0
    assert not read_facts(tmp_path)["warm"]
    differs = {"MALLOC_ARENA_MAX", "LD_PRELOAD"} & set(changed)
    assert ("starts by itself" in capfd.readouterr().err) == bool(differs)


def test_other_limits_and_a_gpu_start_the_plain_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    sleeping(tmp_path / "one").kill()
    given = ("some_script", [str(tmp_path / "one" / "spec.json")], script_environment())
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft - 1, hard))
    try:
        assert warm.start_warm(*given) is None
        assert "differs in RLIMIT_NOFILE" in capfd.readouterr().err
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    monkeypatch.setattr(warm, "_GPUS", (str(tmp_path),))
    assert not warm._possible({})


def test_scripts_that_compute_without_torch_are_not_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = WANTED
    monkeypatch.setattr(warm, "computes_with_torch", wanted)
    gguf, dense = {"model": {"backend": "llama_cpp"}}, {"model": {"backend": "transformers"}}
    assert [wanted("foundry_pipeline.models.generate", spec) for spec in (gguf, dense, {})] == [False, True, False]
    many = [{"jobs": {"a": gguf}}, {"jobs": {"a": gguf, "b": dense}}]
    assert [wanted("foundry_pipeline.models.generate_many", spec) for spec in many] == [False, True]
    stages = [
        {"stage": "merge"},
        {"stage": "dense", "model": {"kind": "hub"}},
        {"stage": "dense", "model": {"kind": "pypi_gguf"}},
    ]
    assert [wanted("foundry_pipeline.export.export", spec) for spec in stages] == [True, False, True]
    alone, launched = {"compute": {"device": "cpu"}}, {"compute": {"processes": 2}}
    assert [wanted("foundry_pipeline.training.train", spec) for spec in (alone, launched, {})] == [True, False, True]
    assert not wanted("foundry_pipeline.export.converter", {})


def test_everything_dies_with_the_process_that_it_was_started_for(tmp_path: Path) -> None:
    """kill -9 of the script between kills what it started; kill -9 of the first process kills all, the server with them."""
    work, below = tmp_path / "work", tmp_path / "below"
    between = sleeping(work, below=str(below))
    script, parent = begun(below)
    assert parent == server_pid()
    os.kill(between.pid, signal.SIGKILL)
    assert between.wait() == -9
    wait_for(lambda: not alive(script), seconds=5)

    work, below = tmp_path / "again", tmp_path / "below again"
    owner = subprocess.Popen([sys.executable, "-c", textwrap.dedent(OWNER.format(work=str(work), below=str(below)))])
    between_pid, server = begun(work)
    script, parent = begun(below)
    assert parent == server != server_pid()
    os.kill(owner.pid, signal.SIGKILL)
    owner.wait()
    wait_for(lambda: not any(alive(pid) for pid in (between_pid, script, server)), seconds=5)


def test_a_killed_server_is_told_and_replaced(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    script = sleeping(tmp_path / "running")
    server = server_pid()
    os.kill(server, signal.SIGKILL)
    assert script.wait(timeout=10) == -signal.SIGKILL
    assert "some_script: the process that it is a fork of was ended" in capfd.readouterr().err
    wait_for(lambda: not alive(script.pid), seconds=5)
    run_script("some_script", {}, tmp_path / "plain")
    assert not read_facts(tmp_path / "plain")["warm"]
    assert "some_script starts by itself" in capfd.readouterr().err
    run_script("some_script", {}, tmp_path / "warm")
    assert read_facts(tmp_path / "warm")["warm"]
    assert server_pid() != server


WANTED = warm.computes_with_torch  # as it is before the fixture above replaces it
