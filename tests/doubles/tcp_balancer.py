"""A load balancer that knows of TCP alone: no session, no request. A test says which node new connections go to."""

from __future__ import annotations

import contextlib
import itertools
import selectors
import socket
import threading
from collections.abc import Iterable


class TcpBalancer:
    """Use as a context manager; `url` is where it listens. New connections go to the targets in turn.

    targets: ports of 127.0.0.1.
    """

    def __init__(self, targets: Iterable[int]) -> None:
        self.turn_to(*targets)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()

    def __enter__(self) -> TcpBalancer:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.close()
        self.cut()

    def turn_to(self, *targets: int) -> None:
        """Where new connections go from now on."""
        self._targets = itertools.cycle(targets)

    def cut(self) -> None:
        """End all connections, as a balancer that is started again does."""
        with self._lock:
            for each in self._open:
                with contextlib.suppress(OSError):
                    each.shutdown(socket.SHUT_RDWR)

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._carry, args=(client,), daemon=True).start()

    def _carry(self, client: socket.socket) -> None:
        """One connection, both ways, until either side ends it."""
        with client:
            try:
                server = socket.create_connection(("127.0.0.1", next(self._targets)), 5)
            except OSError:
                return
            with server:
                both = {client: server, server: client}
                with self._lock:
                    self._open.update(both)
                try:
                    self._copy(both)
                finally:
                    with self._lock:
                        self._open.difference_update(both)

    @staticmethod
    def _copy(both: dict[socket.socket, socket.socket]) -> None:
        with selectors.DefaultSelector() as selector, contextlib.suppress(OSError):
            for each in both:
                selector.register(each, selectors.EVENT_READ)
            while True:
                for key, _ in selector.select():
                    source: socket.socket = key.fileobj  # type: ignore[assignment]
                    data = source.recv(65_536)
                    if not data:
                        return
                    both[source].sendall(data)
