"""HAProxy in front of several nodes: one entrance hands out connections to them, another one requests."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import pytest

from tests.doubles.ports import free_port

_START_TIMEOUT_S: Final = 20.0
_PROGRAM: Final = shutil.which("haproxy", path=f"{os.environ.get('PATH', '')}:/usr/sbin")


def skip_without_haproxy() -> None:
    """Skip where there is none; `./scripts/test` installs it where it may, and in CI it must be there."""
    if _PROGRAM is None and os.environ.get("CI", "").lower() != "true":
        pytest.skip("haproxy is not installed")


class HaProxy:
    """Use as a context manager. nodes: {name: port of 127.0.0.1}. folder: an empty one, for its configuration and log.

    by_connection: the address where each connection goes to the next node (TCP).
    by_request:    where each request does, over whatever connections there are (HTTP).
    """

    def __init__(self, folder: Path, nodes: Mapping[str, int]) -> None:
        assert _PROGRAM is not None, "haproxy is not installed"
        ports = {mode: free_port() for mode in ("tcp", "http")}
        self.by_connection, self.by_request = (f"http://127.0.0.1:{port}" for port in ports.values())
        self._ports = [*ports.values()]
        self._config = folder / "haproxy.cfg"
        self._log = folder / "haproxy.log"
        self._config.write_text(_configured(ports, nodes))

    def __enter__(self) -> HaProxy:
        assert _PROGRAM is not None
        with self._log.open("w") as log:
            self._process = subprocess.Popen([_PROGRAM, "-db", "-f", str(self._config)], stdout=log, stderr=log)
        try:
            deadline_s = time.monotonic() + _START_TIMEOUT_S
            while not all(map(_listens, self._ports)):
                assert self._process.poll() is None, self._log.read_text()
                assert time.monotonic() < deadline_s, "haproxy does not listen"
                time.sleep(0.02)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()


def _configured(ports: Mapping[str, int], nodes: Mapping[str, int]) -> str:
    """Source: HAProxy 2.6 Configuration Manual, sections 4.2 (balance, httpchk, timeout tunnel) and 5.2 (check)."""
    servers = "".join(f"  server {name} 127.0.0.1:{port}\n" for name, port in nodes.items())
    entrances = "".join(
        f"frontend {mode}_entrance\n  mode {mode}\n  bind 127.0.0.1:{port}\n  default_backend {mode}_nodes\n"
        f"backend {mode}_nodes\n  mode {mode}\n{servers}"
        for mode, port in ports.items()
    )
    return (
        "defaults\n  balance roundrobin\n  option httpchk GET /health/ready\n  option redispatch\n  option abortonclose\n"
        "  default-server check inter 1s fall 2 rise 1\n"
        f"  timeout connect 5s\n  timeout client 1h\n  timeout server 1h\n  timeout tunnel 1h\n{entrances}"
    )


def _listens(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), 1):
            return True
    except OSError:
        return False
