"""A real NATS server with JetStream on a free port of loopback, started and ended by the test that needs it."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

from tests.doubles.ports import free_port

_PROGRAM = Path(sys.executable).parent / "nats-server"


class NatsServer:
    """Use as a context manager. What it keeps is in `folder`, so that it may be killed and started again.

    more: options of its command line.
    """

    def __init__(self, folder: Path, *more: str) -> None:
        self._more = more
        self.port = free_port()
        self.url = f"nats://127.0.0.1:{self.port}"
        self.folder = folder
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> NatsServer:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    @property
    def is_running(self) -> bool:
        return self._process is not None

    def start(self) -> None:
        """Return when it takes connections."""
        options = ["-a", "127.0.0.1", "-p", str(self.port), "-js", "-sd", str(self.folder), "-l", str(self.folder) + ".log"]
        self._process = subprocess.Popen([str(_PROGRAM), *options, *self._more])
        deadline_s = time.monotonic() + 20
        while True:
            try:
                with socket.create_connection(("127.0.0.1", self.port), 1) as probe:
                    if probe.recv(4) == b"INFO":
                        return
            except OSError:
                assert self._process.poll() is None, "nats-server has ended"
            assert time.monotonic() < deadline_s, "nats-server does not take connections"
            time.sleep(0.02)

    def kill(self) -> None:
        """As a machine that loses its power does, but for what the disk has."""
        if self._process is not None:
            self._process.send_signal(signal.SIGCONT)
            self._process.kill()
            self._process.wait()
            self._process = None

    def stop(self) -> None:
        """Have it answer nobody, with its connections open: what a network that drops everything looks like."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)
