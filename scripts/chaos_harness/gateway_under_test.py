"""The gateway that is put to the test: started with a configuration of its own, found as processes, weighed, and ended."""

from __future__ import annotations

import asyncio
import contextlib
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import aiohttp
import psutil

from .clients import modern_meta
from .fault_kinds import ALONE, BACKENDS, DEMO, EMBEDDED, LOCAL, NODE, PAIR, PROBE_S, REQUEST_TIMEOUT_S
from .history import Stopped, Weighed
from .namespaces import Machine

START_TIMEOUT_S: Final = 90.0
DRAIN_S: Final = 5.0
STOP_S: Final = DRAIN_S + 8.0
COMMAND_TIMEOUT_S: Final = 45.0
PROBE_TIMEOUT_S: Final = 2.0
PRODUCT: Final = (sys.executable, "-m", "mcp_gateway.scripts.command_line")
_TITLE: Final = "mcp-gateway: "
_GUARD_TITLE: Final = f"{_TITLE}stdio-guard"
_PORTS: Final = (12_000, 30_000)
"""Below those that the system gives away by itself: a server that is down for a while finds its own free."""


class GatewayFailed(Exception):
    """It did not start, or is not there any more, and nobody has asked for that."""


def free_port() -> int:
    while True:
        port = random.SystemRandom().randrange(*_PORTS)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("127.0.0.1", port))
            return port


class GatewayUnderTest:
    """One gateway, of either form, at one address: an embedded one is started again at it, as a service manager would do.

    command: what starts it; `serve` and the other commands are put behind. servers: {backend: addresses, or a command}.
    tables:  of its configuration, beside those that all runs have.
    beside:  names of processes that it has by that. machine: where it runs.
    """

    def __init__(
        self,
        folder: Path,
        form: str,
        cells: int,
        servers: dict[str, list[str]],
        command: Sequence[str] = PRODUCT,
        tables: str = "",
        beside: frozenset[str] = frozenset(),
        machine: Machine | None = None,
    ) -> None:
        self._machine = machine or Machine()
        self._beside = beside
        self.form = form
        self.cells = cells if form == NODE else 1
        self.port = free_port()
        self.url = f"http://{self._machine.front}:{self.port}"
        self.log_path = folder / "gateway.log"
        self.state_path = folder / "state"
        self._command = [*command]
        self._config = folder / "gateway.toml"
        self._admin_port = free_port()
        self._config.write_text(self._settings(servers) + tables)
        self._process: subprocess.Popen[str] | None = None
        self._seen: set[psutil.Process] = set()

    def _settings(self, servers: dict[str, list[str]]) -> str:
        return f"""\
[gateway]
host = "{self._machine.front}"
port = {self.port}
cells = {self.cells}
request_timeout = {REQUEST_TIMEOUT_S}
health_check_interval = {PROBE_S}
drain_timeout = {DRAIN_S}
max_share_per_address = 1.0                # its clients all come from this machine
state_dir = "{self.state_path}"

[actor_system]
admin_port = {self._admin_port}

[[backends]]
name = "{PAIR}"
replicas = {servers[PAIR]}

[[backends]]
name = "{ALONE}"
replicas = {servers[ALONE]}

[[backends]]
name = "{LOCAL}"
command = {servers[LOCAL]}

[[backends]]
name = "{DEMO}"
builtin = "demo"
"""

    # ---- its life

    async def start(self) -> None:
        """Return when it serves.

        Raises: GatewayFailed
        """
        embedded = ["--embedded"] if self.form == EMBEDDED else []
        command = [*self._machine.enter(), *self._command, "serve", "--config", str(self._config), *embedded]
        self._process = self._spawn(command)
        deadline_s = time.monotonic() + START_TIMEOUT_S
        while not await self.answers(DEMO, "start"):
            if self._process.poll() is not None or time.monotonic() > deadline_s:
                raise GatewayFailed(f"the gateway did not start; see {self.log_path}")
            await asyncio.sleep(0.05)

    def _spawn(self, command: list[str]) -> subprocess.Popen[str]:
        """Raises: GatewayFailed"""
        with self.log_path.open("a") as log:
            try:
                return subprocess.Popen(command, stdout=log, stderr=log, text=True, start_new_session=True)
            except OSError as error:
                raise GatewayFailed(f"{command[0]} cannot be started: {error.strerror}") from error

    async def start_again(self) -> None:
        """After its process was killed."""
        self._launcher.wait()
        await self.start()

    @property
    def _launcher(self) -> subprocess.Popen[str]:
        assert self._process is not None
        return self._process

    async def stop(self) -> Stopped:
        """SIGTERM, and SIGKILL for what is left of it, or of anything that it has ever started."""
        self.tree()
        began_s = time.monotonic()
        self._launcher.send_signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            await asyncio.to_thread(self._launcher.wait, STOP_S + 10)
        took_s, exit_code = time.monotonic() - began_s, self._launcher.poll()
        left = [process for process in self._seen if _runs(process)]
        self.kill()
        for process in left:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        return Stopped(took_s=took_s, allowed_s=STOP_S, exit_code=exit_code, left_over=len(left), at_s=time.monotonic())

    def kill(self) -> None:
        """End it and all that it has started, whatever state it is in."""
        if self._process is not None:
            for process in self.tree():
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.kill()
            self._process.kill()
            self._process.wait()

    def check_that_it_runs(self) -> None:
        """Raises: GatewayFailed."""
        if self._launcher.poll() is not None:
            raise GatewayFailed(f"the gateway has ended with {self._launcher.returncode}; see {self.log_path}")

    # ---- its processes

    def tree(self) -> list[psutil.Process]:
        """Its first process, and everything below that now."""
        try:
            first = psutil.Process(self._launcher.pid)
            found = [process for process in (first, *first.children(recursive=True)) if _runs(process)]
        except psutil.NoSuchProcess:
            return []
        self._seen.update(found)
        return found

    def processes(self) -> dict[str, psutil.Process]:
        """{name: process} of those that it always has; servers and their guards are none of them."""
        return {name: process for name, process in self.own_processes() if name in self._expected}

    def own_processes(self) -> Iterator[tuple[str, psutil.Process]]:
        """(name, process) of all that are the gateway's own, what an upgrade has added among them, but for guards."""
        for process in self.tree():
            with contextlib.suppress(psutil.Error):
                title = " ".join(process.cmdline()).strip()
                if title.startswith(_TITLE) and title != _GUARD_TITLE:
                    yield title.removeprefix(_TITLE), process

    @property
    def _expected(self) -> frozenset[str]:
        if self.form == EMBEDDED:
            return frozenset({"embedded"})
        own = {"launcher", "admin", "node-supervisor", "event-log", *self._beside}
        return frozenset({*own, *(f"cell/{index}" for index in range(self.cells))})

    def is_whole(self) -> bool:
        return self._expected <= self.processes().keys()

    def process(self, target: str) -> psutil.Process | None:
        """Of this name; "gateway" is the one that serves, alone or as a cell."""
        own = self.processes()
        return own.get("embedded" if self.form == EMBEDDED else "cell/0") if target == "gateway" else own.get(target)

    def local_servers(self) -> list[psutil.Process]:
        """Processes of the stdio server."""
        found = []
        for process in self.tree():
            with contextlib.suppress(psutil.Error):
                if "--name" in process.cmdline() and _TITLE not in process.cmdline()[0]:
                    found.append(process)
        return found

    def weigh(self) -> Weighed:
        memory_bytes = descriptors = 0
        for _, process in self.own_processes():
            with contextlib.suppress(psutil.Error):
                memory_bytes += process.memory_full_info().pss
                descriptors += process.num_fds()
        files = sum(1 for path in self.state_path.rglob("*") if path.is_file())
        return Weighed(
            processes=len(self.processes()),
            memory_bytes=memory_bytes,
            descriptors=descriptors,
            files=files,
            at_s=time.monotonic(),
        )

    # ---- conversations

    async def command(self, *arguments: str) -> None:
        """One of its own commands, to its end; what it says is not wanted."""
        where = ("--state-dir", str(self.state_path), "--admin-port", str(self._admin_port))
        process = await asyncio.create_subprocess_exec(
            *self._machine.enter(), *self._command, *arguments, *where, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        try:
            async with asyncio.timeout(COMMAND_TIMEOUT_S):
                await process.wait()
        except TimeoutError:
            process.kill()

    async def answers(self, backend: str, user: str) -> bool:
        """Whether a call that reads succeeds at this backend now, on a connection of its own."""
        name = f"{backend}__echo" if backend == DEMO else f"{backend}__read"
        arguments = {"message": "well?"} if backend == DEMO else {"argument": ""}
        params = {"name": name, "arguments": arguments, "_meta": modern_meta()}
        body = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}
        headers = {"MCP-Protocol-Version": "2026-07-28", "Mcp-Method": "tools/call", "Mcp-Name": name}
        headers["Accept"] = "application/json, text/event-stream"
        try:
            async with (
                asyncio.timeout(PROBE_TIMEOUT_S),
                aiohttp.ClientSession() as http,
                http.post(f"{self.url}/mcp?user_id={user}", json=body, headers=headers) as response,
            ):
                return response.status == 200 and b'"result"' in await response.read()
        except (OSError, aiohttp.ClientError, TimeoutError):
            return False

    async def all_answer(self, backends: Sequence[str] = BACKENDS) -> bool:
        """Several users each where there are several replicas, so that every one is asked."""
        users = {backend: 4 if backend == PAIR else 1 for backend in backends}
        asked = [(backend, f"probe-{number}") for backend, count in users.items() for number in range(count)]
        return all([await self.answers(backend, user) for backend, user in asked])


def _runs(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
