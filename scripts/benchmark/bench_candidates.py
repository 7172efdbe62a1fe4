"""What the benchmark compares, as processes: started, waited for, weighed, and always ended by their ids."""

from __future__ import annotations

import ctypes
import http.client
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import attrs
import psutil

from .bench_load import CheckedClient, WrongAnswer

START_TIMEOUT_S = 30.0
STOP_TIMEOUT_S = 15.0
_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None)
_named_ports: set[int] = set()


class CandidateFailed(Exception):
    """A candidate did not start, or died."""


@attrs.frozen(kw_only=True)
class Candidate:
    """One thing to measure.

    name:    as `--only` selects it. title: as the table shows it.
    command: (port it must listen on, port of the backend, a folder of its own) -> command line.
    """

    name: str
    title: str
    command: Callable[[int, int, Path], list[str]]


def _module(name: str, *arguments: str) -> list[str]:
    return [sys.executable, "-m", f"mcp_gateway.scripts.benchmark.{name}", *arguments]


def _gateway(cells: int, *, embedded: bool = False, profile: Path | None = None) -> Callable[[int, int, Path], list[str]]:
    def command(port: int, backend_port: int, folder: Path) -> list[str]:
        config = folder / "gateway.toml"
        config.write_text(
            f"""\
[gateway]
port = {port}
cells = {cells}
max_share_per_address = 1.0
state_dir = "{folder / "state"}"

[actor_system]
admin_port = {free_port()}

[transports.http_sse]
max_connections = 10_000

[transports.websocket]
max_connections = 10_000

[[backends]]
name = "bench"
prefix = ""
replicas = ["http://127.0.0.1:{backend_port}/mcp"]
"""
        )
        arguments = ["serve", "--config", str(config)] + ["--embedded"] * embedded
        python = [sys.executable] if profile is None else [sys.executable, "-m", "cProfile", "-o", str(profile)]
        return [*python, str(Path(sys.executable).with_name("mcp-gateway")), *arguments]

    return command


def candidates(profile: Path | None = None) -> list[Candidate]:
    """All of them, in the order of the table. profile: where a cProfile of the embedded gateway goes."""
    return [
        Candidate(
            name="direct",
            title="the backend itself",
            command=lambda port, _backend, _folder: _module("fast_backend", "--port", str(port)),
        ),
        Candidate(
            name="proxy",
            title="bare Tornado proxy",
            command=lambda port, backend, _folder: _module(
                "bare_proxy", "--port", str(port), "--backend", f"http://127.0.0.1:{backend}/mcp"
            ),
        ),
        Candidate(name="embedded", title="gateway, embedded", command=_gateway(1, embedded=True, profile=profile)),
        Candidate(name="node1", title="gateway, node of one cell", command=_gateway(1)),
        Candidate(name="node2", title="gateway, node of two cells", command=_gateway(2)),
    ]


class Running:
    """A started candidate with all its processes.

    startup_s: from its start to the first right answer to a tools/call.
    """

    def __init__(self, candidate: Candidate, backend_port: int, folder: Path) -> None:
        self.candidate = candidate
        self.port = free_port()
        self.startup_s = 0.0
        self._known: dict[int, psutil.Process] = {}
        folder.mkdir(parents=True, exist_ok=True)
        command = candidate.command(self.port, backend_port, folder)
        self._output = folder / "output.txt"
        started = time.monotonic()
        with self._output.open("ab") as output:
            # A bench that is killed takes its candidates along: each gets SIGTERM when its parent dies.
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
                preexec_fn=lambda: _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM),
            )
        try:
            self._wait_for_first_answer(started + START_TIMEOUT_S)
        except BaseException:
            self.stop()
            raise
        self.startup_s = time.monotonic() - started

    @property
    def pid(self) -> int:
        return self._process.pid

    def _wait_for_first_answer(self, deadline: float) -> None:
        while True:
            if self._process.poll() is not None:
                raise CandidateFailed(f"{self.candidate.name} ended with code {self._process.returncode}: {self._last_output()}")
            try:
                with CheckedClient(self.port, legacy=False) as client:
                    client.call_echo("first")
                return
            except (OSError, http.client.HTTPException, WrongAnswer) as failure:
                if time.monotonic() > deadline:
                    why = f"{failure!r}; {self._last_output()}"
                    raise CandidateFailed(f"{self.candidate.name} did not answer within {START_TIMEOUT_S:g} s: {why}") from None
            time.sleep(0.005)

    def _last_output(self) -> str:
        return self._output.read_text(errors="replace")[-1500:].strip()

    def check(self, *, legacy: bool) -> None:
        """A few calls whose answers must be right.

        Raises: WrongAnswer, OSError.
        """
        with CheckedClient(self.port, legacy=legacy) as client:
            client.open_session()
            for number in range(10):
                client.call_echo(f"before {number} — ü")

    def processes(self) -> list[psutil.Process]:
        """Every live process of this candidate. Ones seen before stay known, even when they have lost their parent."""
        try:
            root = psutil.Process(self._process.pid)
            for process in [root, *root.children(recursive=True)]:
                self._known[process.pid] = process
        except psutil.NoSuchProcess:
            pass
        return [process for process in self._known.values() if _is_alive(process)]

    def pss_bytes(self) -> int:
        """Memory of all processes, shared pages divided among those who share them (Linux: PSS)."""
        return sum(process.memory_full_info().pss for process in self.processes())

    def cpu_s(self) -> float:
        """Processor time that its processes have taken so far, to a hundredth of a second each."""
        times = [process.cpu_times() for process in self.processes()]
        return sum(each.user + each.system for each in times)

    def stop(self) -> list[int]:
        """End it: SIGTERM to the first process, SIGKILL by id to what is left after 15 s. Returns the ids of such leftovers."""
        self.processes()
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        _, alive = psutil.wait_procs([process for process in self._known.values() if _is_alive(process)], timeout=1.0)
        for process in alive:
            try:
                process.kill()
            except psutil.NoSuchProcess:
                continue
        return [process.pid for process in alive]


def _is_alive(process: psutil.Process) -> bool:
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def free_port() -> int:
    """A port nobody listens on, and none we named before: the system may offer a port again before its user has bound it."""
    while True:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port: int = probe.getsockname()[1]
        if port not in _named_ports:
            _named_ports.add(port)
            return port
