"""The NATS servers of a cluster under test: three that are one, each killed and started again by itself."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from .gateway_under_test import free_port
from .namespaces import Machine
from .servers import ServerFailed

NATS: Final = ("nats/0", "nats/1", "nats/2")
_PROGRAM: Final = Path(sys.executable).parent / "nats-server"
_START_TIMEOUT_S: Final = 20.0


class NatsServers:
    """folder: for what they keep and log. places: {name: host and port where clients come in}. machines: where each runs."""

    def __init__(self, folder: Path, machines: Sequence[Machine]) -> None:
        self._machines = dict(zip(NATS, machines, strict=True))
        self.places = {name: (machine.back, free_port()) for name, machine in self._machines.items()}
        self._folder = folder
        self._routes = {name: f"{machine.back}:{free_port()}" for name, machine in self._machines.items()}
        self._running: dict[str, subprocess.Popen[bytes]] = {}

    def start_all(self) -> None:
        """Raises: ServerFailed"""
        for name in NATS:
            self.start(name)
        deadline_s = time.monotonic() + _START_TIMEOUT_S
        for name in NATS:
            while not self._listens(name):
                if time.monotonic() > deadline_s or self._running[name].poll() is not None:
                    raise ServerFailed(f"{name} does not listen")
                time.sleep(0.05)

    def start(self, name: str) -> None:
        """Raises: ServerFailed"""
        config = self._folder / f"{name.replace('/', '-')}.conf"
        host, port = self.places[name]
        others = ", ".join(f'"nats://{place}"' for other, place in self._routes.items() if other != name)
        # Clients learn of no other address than theirs: they would go around the links that are cut.
        config.write_text(
            f'server_name = "{config.stem}"\nlisten = "{host}:{port}"\n'
            f'log_file = "{self._folder / config.stem}.log"\n'
            f'jetstream {{ store_dir = "{self._folder / config.stem}", sync_interval = always }}\n'
            f'cluster {{ name = "chaos", listen = "{self._routes[name]}", routes = [{others}], no_advertise = true }}\n'
        )
        command = [*self._machines[name].enter(), str(_PROGRAM), "-c", str(config)]
        try:
            self._running[name] = subprocess.Popen(command, start_new_session=True)
        except OSError as error:
            raise ServerFailed(f"{_PROGRAM} cannot be started: {error.strerror}; `./scripts/test` installs it") from error

    def kill(self, name: str) -> None:
        if (process := self._running.pop(name, None)) is not None:
            process.kill()
            process.wait()

    @property
    def running(self) -> list[str]:
        return [*self._running]

    def stop_all(self) -> None:
        for name in self.running:
            self.kill(name)

    def _listens(self, name: str) -> bool:
        try:
            with socket.create_connection(self.places[name], 1.0):
                return True
        except OSError:
            return False
