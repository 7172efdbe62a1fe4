"""What the benchmark compares, as processes: started, waited for, weighed, and always ended by their ids."""

from __future__ import annotations

import contextlib
import ctypes
import http.client
import json
import shutil
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
    tool:    what `echo` is called there.
    """

    name: str
    title: str
    command: Callable[[int, int, Path], list[str]]
    tool: str = "echo"


def _module(name: str, *arguments: str) -> list[str]:
    return [sys.executable, "-m", f"mcp_gateway.scripts.benchmark.{name}", *arguments]


def _gateway(
    cells: int,
    *,
    embedded: bool = False,
    profile: Path | None = None,
    backends: int = 1,
    is_stdio: bool = False,
    tables: str = "",
) -> Callable[[int, int, Path], list[str]]:
    """backends: how many, all with the one server behind them; of several the tools are called `b0__echo` and so on.

    is_stdio: the server is a process of the gateway's own, beside the one at `backend_port`. tables: more of its file.
    """

    def command(port: int, backend_port: int, folder: Path) -> list[str]:
        config = folder / "gateway.toml"
        at_http = f'replicas = ["http://127.0.0.1:{backend_port}/mcp"]'
        where = f"command = {json.dumps(_module('fast_backend', '--stdio'))}" if is_stdio else at_http
        servers = "\n".join(
            f"""\
[[backends]]
name = "b{number}"
{'prefix = ""' if backends == 1 else ""}
{where}
"""
            for number in range(backends)
        )
        config.write_text(
            f"""\
[gateway]
port = {port}
cells = {cells}
max_share_per_address = 1.0
max_session_bytes = 65_536
state_dir = "{folder / "state"}"

[actor_system]
admin_port = {free_port()}

[transports.http_sse]
max_connections = 10_000

[transports.websocket]
max_connections = 10_000

[transports.streamable_http]
max_sessions = 20_000

{servers}
{tables}
"""
        )
        arguments = ["serve", "--config", str(config)] + ["--embedded"] * embedded
        python = [sys.executable] if profile is None else [sys.executable, "-m", "cProfile", "-o", str(profile)]
        return [*python, str(Path(sys.executable).with_name("mcp-gateway")), *arguments]

    return command


def _nginx(port: int, backend_port: int, folder: Path) -> list[str]:
    config = folder / "nginx.conf"
    config.write_text(
        f"""\
daemon off; master_process off; pid {folder}/nginx.pid; error_log {folder}/error.log;
events {{ worker_connections 4096; }}
http {{
  access_log off; client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy;
  upstream backend {{ server 127.0.0.1:{backend_port}; keepalive 256; }}
  server {{
    listen 127.0.0.1:{port};
    location / {{ proxy_pass http://backend; proxy_http_version 1.1; proxy_set_header Connection ""; proxy_buffering off; }}
  }}
}}
"""
    )
    return ["nginx", "-c", str(config), "-e", str(folder / "error.log")]


def candidates(profile: Path | None = None) -> list[Candidate]:
    """All of them, in the order of the table. profile: where a cProfile of the embedded gateway goes."""
    proxies = [
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
    ]
    if shutil.which("nginx"):
        proxies.append(Candidate(name="nginx", title="nginx", command=_nginx))
    return [
        *proxies,
        Candidate(name="embedded", title="gateway, embedded", command=_gateway(1, embedded=True, profile=profile)),
        Candidate(name="node1", title="gateway, node of one cell", command=_gateway(1)),
        Candidate(name="node2", title="gateway, node of two cells", command=_gateway(2)),
    ]


def server(more_tools: int) -> Candidate:
    """The backend itself, with so many tools beside its own."""
    return Candidate(
        name="server",
        title="the backend itself",
        command=lambda port, _backend, _folder: _module("fast_backend", "--port", str(port), "--more-tools", str(more_tools)),
    )


def with_backends(count: int) -> Candidate:
    """An embedded gateway before so many backends."""
    title = f"gateway, embedded, {count} backends"
    return Candidate(
        name=f"embedded-{count}",
        title=title,
        command=_gateway(1, embedded=True, backends=count),
        tool="echo" if count == 1 else "b0__echo",
    )


def over_stdio() -> Candidate:
    """An embedded gateway before a server of standard input and output."""
    return Candidate(name="stdio", title="gateway, embedded, with its server", command=_gateway(1, embedded=True, is_stdio=True))


def node_of_cluster(name: str, nats_url: str, key_file: Path) -> Candidate:
    """A node of one cell, which the others know by this name."""
    tables = f'[cluster]\nurl = "{nats_url}"\nnode = "{name}"\nkey_file = "{key_file}"\n'
    return Candidate(name=name, title=f"gateway, {name} of a cluster", command=_gateway(1, tables=tables))


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
                with CheckedClient(self.port, legacy=False, tool=self.candidate.tool) as client:
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
        with CheckedClient(self.port, legacy=legacy, tool=self.candidate.tool) as client:
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
        """Processor time that its live processes and threads have taken so far."""
        return sum(_thread_cpu_s(process.pid) for process in self.processes())

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


def _thread_cpu_s(pid: int) -> float:
    """Source: Linux, Documentation/scheduler/sched-stats.rst; `stat` knows hundredths of a second only."""
    nanoseconds = 0
    for task in Path(f"/proc/{pid}/task").glob("*/schedstat"):
        with contextlib.suppress(OSError):  # it has just ended
            nanoseconds += int(task.read_text().split()[0])
    return nanoseconds / 1e9


def free_port() -> int:
    """A port nobody listens on, and none we named before: the system may offer a port again before its user has bound it."""
    while True:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port: int = probe.getsockname()[1]
        if port not in _named_ports:
            _named_ports.add(port)
            return port
