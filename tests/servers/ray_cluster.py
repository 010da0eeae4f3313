"""A real Ray cluster of several nodes on this host, each node with a loopback address of its own.

Everything it starts carries a mark in its environment, by which it is found and ended afterwards, however a test went.
"""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

MARK = "FOUNDRY_TEST_CLUSTER"
BIN = Path(sys.executable).parent


class RayNodes:
    """A cluster: `address` of its job server, `environment` for who uses it, and its nodes by loopback address."""

    def __init__(self, environment: dict[str, str], *, memory_gib: int = 4) -> None:
        # Ray makes sockets below this folder: a path of pytest's would be too long for them.
        self.folder = Path(tempfile.mkdtemp(prefix="ray-"))
        self.mark, self._token = uuid.uuid4().hex, secrets.token_hex(32)
        self._nodes: dict[str, subprocess.Popen[bytes]] = {}
        self._port, self._dashboard = _free_port("127.0.0.2"), _free_port("127.0.0.2")
        self._given, self._memory = environment, memory_gib * 1024**3

    @property
    def address(self) -> str:
        return f"http://127.0.0.2:{self._dashboard}"

    @property
    def environment(self) -> dict[str, str]:
        """What a user of this cluster sets."""
        return {
            "FOUNDRY_ENGINE": "ray",
            "FOUNDRY_RAY_ADDRESS": self.address,
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": self._token,
            "RAY_USAGE_STATS_ENABLED": "0",
        }

    def start(self, ip: str, *, cpus: int, head: bool = False) -> None:
        """Start a node; a head is waited for until its job server answers."""
        where = ["--head", "--port", str(self._port), "--dashboard-host", ip, "--dashboard-port", str(self._dashboard)]
        if not head:
            where = ["--address", f"127.0.0.2:{self._port}"]
        command = [str(BIN / "ray"), "start", "--block", *where, "--node-ip-address", ip, "--num-cpus", str(cpus)]
        # What a node has of memory is declared: a small one, since tests share the machine.
        command += ["--memory", str(self._memory), "--object-store-memory", str(80 * 1024**2)]
        command += ["--include-log-monitor", "false", "--temp-dir", str(self.folder / ip), "--disable-usage-stats"]
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("FOUNDRY_", "DAGSTER_", "RAY_"))}
        environment = {**kept, **self._given, **self.environment, MARK: self.mark}
        environment |= {"PATH": f"{BIN}{os.pathsep}{kept.get('PATH', '')}", "RAY_enable_metrics_collection": "0"}
        with (self.folder / f"{ip}.log").open("ab") as log:
            self._nodes[ip] = subprocess.Popen(
                command, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )
        if head:
            self._answers(ip)

    def _answers(self, ip: str) -> None:
        until = time.monotonic() + 120
        asked = urllib.request.Request(
            f"{self.address}/api/version", headers={"Authorization": f"Bearer {self._token}"}
        )
        while True:
            with suppress(OSError), urllib.request.urlopen(asked, timeout=5):
                return
            told = (self.folder / f"{ip}.log").read_text(errors="replace")
            assert self._nodes[ip].poll() is None, told[-3000:]
            assert time.monotonic() < until, told[-3000:]
            time.sleep(0.2)

    def raylet(self, ip: str) -> int:
        """Process id of a node's raylet."""
        for pid in _marked(self.mark):
            command = _read(pid, "cmdline")
            if b"raylet/raylet" in command and f"--node_ip_address={ip}".encode() in command:
                return pid
        raise AssertionError(f"no raylet of {ip}")

    def kill_node(self, ip: str) -> None:
        """kill -9 of a node's raylet, as when a machine loses power but for what it had started."""
        os.kill(self.raylet(ip), signal.SIGKILL)

    def stop(self) -> None:
        """End every process of the cluster; raises AssertionError where one is left."""
        for process in reversed(self._nodes.values()):
            process.terminate()
        for process in self._nodes.values():
            with suppress(subprocess.TimeoutExpired):
                process.wait(timeout=15)
        for _ in range(40):
            left = _marked(self.mark)
            for pid in left:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            for process in self._nodes.values():
                process.poll()
            if not left:
                break
            time.sleep(0.1)
        shutil.rmtree(self.folder, ignore_errors=True)
        assert not _marked(self.mark)


def _free_port(ip: str) -> int:
    with socket.socket() as probe:
        probe.bind((ip, 0))
        return int(probe.getsockname()[1])


def _read(pid: int, name: str) -> bytes:
    try:
        return Path(f"/proc/{pid}/{name}").read_bytes()
    except OSError:
        return b""


def _marked(mark: str) -> list[int]:
    """Living processes that carry the mark."""
    wanted = f"{MARK}={mark}".encode()
    pids = [int(p.name) for p in Path("/proc").iterdir() if p.name.isdigit()]
    found = [pid for pid in pids if wanted in _read(pid, "environ").split(b"\0")]
    return [pid for pid in found if _read(pid, "stat").rpartition(b")")[2].split()[:1] not in ([], [b"Z"])]


@contextmanager
def ray_cluster(
    environment: dict[str, str], *, cpus: int = 2, nodes: int = 2, memory_gib: int = 4
) -> Iterator[RayNodes]:
    """A cluster of so many nodes with so many processors each, at 127.0.0.2, 127.0.0.3, …; it ends with the block."""
    cluster = RayNodes(environment, memory_gib=memory_gib)
    try:
        cluster.start("127.0.0.2", cpus=cpus, head=True)
        for number in range(1, nodes):
            cluster.start(f"127.0.0.{2 + number}", cpus=cpus)
        yield cluster
    finally:
        cluster.stop()
