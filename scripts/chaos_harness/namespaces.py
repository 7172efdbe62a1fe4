"""Network namespaces where root may make them: a server behind a cable that is pulled, and machines with one network behind."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from collections.abc import Sequence
from typing import Final

LOOPBACK: Final = "127.0.0.1"


class NoNamespace(Exception):
    """The kernel has none, or not for us."""


def may_isolate() -> bool:
    return os.geteuid() == 0 and shutil.which("ip") is not None


def _ip(*arguments: str) -> None:
    """Raises: NoNamespace"""
    done = subprocess.run(["ip", *arguments], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise NoNamespace(f"ip {' '.join(arguments)}: {done.stderr.strip()}")


def _own_number() -> int:
    """Part of the addresses of this process: others run beside it."""
    return os.getpid() % 200 + 20


class Namespace:
    """A network namespace with one cable into it, which can be pulled. Raises: NoNamespace."""

    def __init__(self) -> None:
        number = _own_number()
        self._name = f"chaos{os.getpid()}"
        self._cable = f"chaos{os.getpid() % 100_000}"
        self.host = f"10.213.{number}.2"
        try:
            _ip("netns", "add", self._name)
            _ip("link", "add", self._cable, "type", "veth", "peer", "name", "inside", "netns", self._name)
            _ip("addr", "add", f"10.213.{number}.1/24", "dev", self._cable)
            _ip("link", "set", self._cable, "up")
            _ip("-n", self._name, "addr", "add", f"{self.host}/24", "dev", "inside")
            _ip("-n", self._name, "link", "set", "inside", "up")
        except NoNamespace:
            self.remove()
            raise

    def enter(self) -> list[str]:
        """What a command is put behind to run in it."""
        return ["ip", "netns", "exec", self._name]

    def cut(self, is_cut: bool) -> None:
        """The cable is pulled at the far end: on this one packets go nowhere, and nobody is told."""
        _ip("-n", self._name, "link", "set", "inside", "down" if is_cut else "up")

    def remove(self) -> None:
        with contextlib.suppress(NoNamespace):
            _ip("netns", "del", self._name)


class Machine:
    """What runs there has two addresses: `front`, for clients and servers, and `back`, for what nodes and NATS say to each other.

    Without a namespace it is this machine, which cannot be cut off.
    """

    def __init__(
        self, front: str = LOOPBACK, back: str = LOOPBACK, namespace: str = "", cable: str = "", switch: str = ""
    ) -> None:
        self.front, self.back = front, back
        self._namespace = namespace
        self._cable, self._switch = cable, switch

    def enter(self) -> list[str]:
        """What a command is put behind to run there."""
        return ["ip", "netns", "exec", self._namespace] if self._namespace else []

    @property
    def can_be_cut_off(self) -> bool:
        return bool(self._namespace)

    def cut(self, is_cut: bool) -> None:
        """Its cable of the network behind, pulled out of the switch: packets of either side go nowhere, and nobody is told."""
        _ip("link", "set", self._cable, *(["nomaster"] if is_cut else ["master", self._switch]))


class Machines:
    """So many, each a network namespace, and two switches that join them with this one. Raises: NoNamespace.

    host, back: addresses of this one in front and behind.
    """

    def __init__(self, count: int) -> None:
        process, number = os.getpid(), _own_number()
        self._switches = {"f": f"cf{process}", "b": f"cb{process}"}
        networks = {"f": f"10.214.{number}", "b": f"10.215.{number}"}
        self.host, self.back = f"{networks['f']}.1", f"{networks['b']}.1"
        self._namespaces: list[str] = []
        self.all: Sequence[Machine] = []
        try:
            for side, switch in self._switches.items():
                _ip("link", "add", switch, "type", "bridge")
                _ip("addr", "add", f"{networks[side]}.1/24", "dev", switch)
                _ip("link", "set", switch, "up")
            for place in range(count):
                name = f"chaos{process}-{place}"
                _ip("netns", "add", name)
                self._namespaces.append(name)
                _ip("-n", name, "link", "set", "lo", "up")
                for side, switch in self._switches.items():
                    _ip("link", "add", f"{switch}x{place}", "type", "veth", "peer", "name", side, "netns", name)
                    _ip("link", "set", f"{switch}x{place}", "master", switch, "up")
                    _ip("-n", name, "addr", "add", f"{networks[side]}.{place + 2}/24", "dev", side)
                    _ip("-n", name, "link", "set", side, "up")
            self.all = [
                Machine(
                    front=f"{networks['f']}.{place + 2}",
                    back=f"{networks['b']}.{place + 2}",
                    namespace=name,
                    cable=f"{self._switches['b']}x{place}",
                    switch=self._switches["b"],
                )
                for place, name in enumerate(self._namespaces)
            ]
        except NoNamespace:
            self.remove()
            raise

    def remove(self) -> None:
        for name in self._namespaces:
            with contextlib.suppress(NoNamespace):
                _ip("netns", "del", name)
        for switch in self._switches.values():
            with contextlib.suppress(NoNamespace):
                _ip("link", "del", switch)


def machines(count: int) -> Machines | None:
    """None where they cannot be had."""
    if may_isolate():
        with contextlib.suppress(NoNamespace):
            return Machines(count)
    return None
