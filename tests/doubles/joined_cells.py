"""The forwarding of several cells on one loop, joined by links that can be cut, so that a test decides what arrives."""

from __future__ import annotations

import asyncio
import functools
import pickle
from typing import Any

from mcp_gateway.actors.forwarding.forwarding import Forwarding


class JoinedCells:
    """cells: {name: its Forwarding}. hung: cells that take no messages any more. sent: (from, to, message) of all.

    is_unsent: what is said of messages to such cells.
    """

    def __init__(self, *names: str, cells_of_a_node: int | None = None) -> None:
        self.is_unsent = False
        self.incarnations = dict.fromkeys(names, 1)
        self.hung: set[str] = set()
        self.sent: list[tuple[str, str, Any]] = []
        self.wanted: list[tuple[str, str]] = []  # (cell, thing)
        self.cells = {name: Forwarding(_Link(self, name), name, cells_of_a_node or len(names)) for name in names}
        self.announce()

    def announce(self) -> None:
        for name, cell in self.cells.items():
            cell.cells_changed({other: each for other, each in self.incarnations.items() if other != name})

    def kill(self, name: str) -> None:
        """The cell ends: its tasks stop, nothing reaches it, the others are told."""
        del self.incarnations[name]
        self.cells.pop(name).close()
        self.announce()

    def start_again(self, name: str, incarnation: int) -> Forwarding:
        self.incarnations[name] = incarnation
        self.cells[name] = Forwarding(_Link(self, name), name, 2)
        self.announce()
        return self.cells[name]


class _Link:
    """Implements the part of `NodeLink` that forwarding uses. What travels is pickled, as between processes."""

    def __init__(self, node: JoinedCells, name: str) -> None:
        self._node = node
        self._name = name

    def forward(self, cell_name: str, message: object) -> None:
        node = self._node
        if cell_name not in node.incarnations:
            raise LookupError(f"{cell_name} does not run")
        node.sent.append((self._name, cell_name, message))
        loop = asyncio.get_running_loop()
        if cell_name in node.hung:
            failed = functools.partial(node.cells[self._name].failed, is_unsent=node.is_unsent)
            loop.call_soon(failed, cell_name, (message,))
        else:
            copy = pickle.loads(pickle.dumps(message))
            loop.call_soon(lambda: cell_name in node.cells and node.cells[cell_name].deliver(self._name, copy))

    def want(self, thing: str) -> None:
        self._node.wanted.append((self._name, thing))

    def publish(self, topic: str, payload: dict[str, Any], timestamp_ms: int) -> None:
        raise AssertionError("forwarding publishes nothing")

    def request_stop(self, reason: str) -> None:
        raise AssertionError("forwarding stops nothing")
