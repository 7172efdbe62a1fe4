"""The MCP servers behind the gateway as processes: started, killed, stopped, told how to behave, and cut off."""

from __future__ import annotations

import contextlib
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Final

from .fault_kinds import ALONE, LOCAL, PAIR, REPLICAS
from .gateway_under_test import free_port
from .namespaces import LOOPBACK, Namespace, NoNamespace, may_isolate
from .tool_server import Mode, mode_path

_START_TIMEOUT_S: Final = 15.0
ISOLATED: Final = "pair-1"
"""The server that is in a network namespace of its own, where root may make one."""


class ServerFailed(Exception):
    """A server of the harness itself did not start."""


class Servers:
    """All of them. folder: where they write down what they run, and read how to behave.

    addresses: {backend: its replicas, or the command of the stdio server}, as a configuration has them.
    """

    def __init__(self, folder: Path, host: str = "") -> None:
        """host: where all of them listen; "" for this machine's loopback, and a namespace for one of them where there is one."""
        self._folder = folder
        self._host = host or LOOPBACK
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        self.namespace: Namespace | None = None
        if not host and may_isolate():
            with contextlib.suppress(NoNamespace):
                self.namespace = Namespace()
        names = (*REPLICAS[PAIR], *REPLICAS[ALONE])
        self._places = {name: (self._host_of(name), free_port()) for name in names}
        addresses = {name: f"http://{host}:{port}/mcp" for name, (host, port) in self._places.items()}
        self.addresses = {backend: [addresses[name] for name in REPLICAS[backend]] for backend in (PAIR, ALONE)}
        self.addresses[LOCAL] = self._command(REPLICAS[LOCAL][0])

    def _host_of(self, name: str) -> str:
        return self.namespace.host if self.namespace is not None and name == ISOLATED else self._host

    def _command(self, name: str) -> list[str]:
        module = "mcp_gateway.scripts.chaos_harness.tool_server"
        return [sys.executable, "-m", module, "--name", name, "--folder", str(self._folder)]

    def start_all(self) -> None:
        for name in self._places:
            self.start(name)
        for name in self._places:
            self._wait_for(name)

    def start(self, name: str) -> None:
        host, port = self._places[name]
        inside = self.namespace.enter() if self.namespace is not None and name == ISOLATED else []
        command = [*inside, *self._command(name), "--host", host, "--port", str(port)]
        self._running[name] = subprocess.Popen(command, start_new_session=True)

    def _wait_for(self, name: str) -> None:
        deadline_s = time.monotonic() + _START_TIMEOUT_S
        while True:
            with contextlib.suppress(OSError), socket.create_connection(self._places[name], 1.0):
                return
            if time.monotonic() > deadline_s:
                raise ServerFailed(f"the server {name} does not listen")
            time.sleep(0.05)

    def signal(self, name: str, number: signal.Signals) -> None:
        self._running[name].send_signal(number)
        if number is signal.SIGKILL:
            self._running[name].wait()

    def behave(self, name: str, mode: Mode) -> None:
        path = mode_path(self._folder, name)
        path.with_suffix(".new").write_text(mode.value)
        path.with_suffix(".new").replace(path)

    def stop_all(self) -> None:
        for process in self._running.values():
            process.kill()
            process.wait()
        if self.namespace is not None:
            self.namespace.remove()
