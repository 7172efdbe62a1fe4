"""The MCP servers behind the gateway as processes: started, killed, stopped, told how to behave, and cut off."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Final

from .fault_kinds import ALONE, LOCAL, PAIR, REPLICAS
from .gateway_under_test import free_port
from .tool_server import Mode, mode_path

_START_TIMEOUT_S: Final = 15.0
ISOLATED: Final = "pair-1"
"""The server that is in a network namespace of its own, where root may make one."""


class ServerFailed(Exception):
    """A server of the harness itself did not start."""


def may_isolate() -> bool:
    return os.geteuid() == 0 and shutil.which("ip") is not None


class Namespace:
    """A network namespace with one cable into it, which can be pulled. Raises: ServerFailed where the kernel has none."""

    def __init__(self) -> None:
        number = os.getpid() % 200 + 20
        self._name = f"chaos{os.getpid()}"
        self._cable = f"chaos{os.getpid() % 100_000}"
        self.host = f"10.213.{number}.2"
        try:
            self._ip("netns", "add", self._name)
            self._ip("link", "add", self._cable, "type", "veth", "peer", "name", "inside", "netns", self._name)
            self._ip("addr", "add", f"10.213.{number}.1/24", "dev", self._cable)
            self._ip("link", "set", self._cable, "up")
            self._ip("-n", self._name, "addr", "add", f"{self.host}/24", "dev", "inside")
            self._ip("-n", self._name, "link", "set", "inside", "up")
        except ServerFailed:
            self.remove()
            raise

    def enter(self) -> list[str]:
        """What a command is put behind to run in it."""
        return ["ip", "netns", "exec", self._name]

    def cut(self, is_cut: bool) -> None:
        """The cable is pulled at the far end: on this one packets go nowhere, and nobody is told."""
        self._ip("-n", self._name, "link", "set", "inside", "down" if is_cut else "up")

    def remove(self) -> None:
        with contextlib.suppress(ServerFailed):
            self._ip("netns", "del", self._name)

    @staticmethod
    def _ip(*arguments: str) -> None:
        done = subprocess.run(["ip", *arguments], capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise ServerFailed(f"ip {' '.join(arguments)}: {done.stderr.strip()}")


class Servers:
    """All of them. folder: where they write down what they run, and read how to behave.

    addresses: {backend: its replicas, or the command of the stdio server}, as a configuration has them.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        self.namespace: Namespace | None = None
        if may_isolate():
            with contextlib.suppress(ServerFailed):
                self.namespace = Namespace()
        names = (*REPLICAS[PAIR], *REPLICAS[ALONE])
        self._places = {name: (self._host(name), free_port()) for name in names}
        addresses = {name: f"http://{host}:{port}/mcp" for name, (host, port) in self._places.items()}
        self.addresses = {backend: [addresses[name] for name in REPLICAS[backend]] for backend in (PAIR, ALONE)}
        self.addresses[LOCAL] = self._command(REPLICAS[LOCAL][0])

    def _host(self, name: str) -> str:
        return self.namespace.host if self.namespace is not None and name == ISOLATED else "127.0.0.1"

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
