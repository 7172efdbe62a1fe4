"""Tells a service manager such as systemd how this process is: ready, reloading, stopping, alive.

Source: sd_notify(3) and sd_watchdog_enabled(3), systemd 252.
"""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import MutableMapping
from typing import Final

_VARIABLES: Final = ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID")
_LONGEST_STATUS: Final = 300


class ServiceManager:
    """The socket that this process was started with; without one, nobody is told anything.

    watchdog_s: how often `alive` must be called at least, None where nobody watches.
    """

    def __init__(self, address: str, watchdog_s: float | None) -> None:
        self._address = address
        self.watchdog_s = watchdog_s
        self._alive_due_s = 0.0

    @classmethod
    def taken_from(cls, environment: MutableMapping[str, str]) -> ServiceManager:
        """The one that the variables name, which are removed: servers that are started from here are not this service."""
        address, period_us, pid = (environment.pop(name, "") for name in _VARIABLES)
        is_watched = period_us.isascii() and period_us.isdigit() and int(period_us) > 0 and pid in ("", str(os.getpid()))
        return cls(address, int(period_us) / 2_000_000 if is_watched else None)

    def ready(self, status: str) -> None:
        """It serves, or serves again after `reloading`. status: one line for people."""
        self._tell("READY=1", _status(status))

    def reloading(self) -> None:
        self._tell("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1_000}")

    def stopping(self) -> None:
        self._tell("STOPPING=1", "STATUS=draining")

    def says(self, status: str) -> None:
        self._tell(_status(status))

    def alive(self, now_s: float) -> None:
        """Whatever must not hang has just been seen at work; told as often as the manager asks for it."""
        if self.watchdog_s is not None and now_s >= self._alive_due_s:
            self._alive_due_s = now_s + self.watchdog_s / 2
            self._tell("WATCHDOG=1")

    def _tell(self, *lines: str) -> None:
        """A manager that has gone, or does not read, holds nothing up."""
        if not self._address:
            return
        address = f"\0{self._address[1:]}" if self._address.startswith("@") else self._address
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
            sender.setblocking(False)
            sender.sendto("\n".join(lines).encode(errors="replace"), address)


def _status(text: str) -> str:
    return f"STATUS={' '.join(text.split())[:_LONGEST_STATUS]}"
