"""Ports for the servers of a test."""

from __future__ import annotations

import os
import random
import socket
from collections import deque
from pathlib import Path

_FIRST, _DEFAULT_END = 10_000, 32_768
_MIN_CHOICE = 1_000
_lately: deque[int] = deque(maxlen=50)  # given out here


def free_port() -> int:
    """A port of this machine on which nobody listens, for a server that is told its port before it binds it.

    It lies below those that the system gives to clients and to servers that name none, where it can: in between, and while the
    server is started again, one of those would otherwise now and then get it. Test runs side by side share none either, and
    none is given out again soon: a server that is away for a moment comes back to its own.
    """
    workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    while True:
        port = random.SystemRandom().randrange(_FIRST + worker, _end(), workers)
        if port in _lately:
            continue
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            _lately.append(port)
            return port


def _end() -> int:
    """The first port that the system gives away by itself. Source: ip(7), ip_local_port_range."""
    try:
        first = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    except OSError:
        return _DEFAULT_END
    return first if first >= _FIRST + _MIN_CHOICE else _DEFAULT_END
