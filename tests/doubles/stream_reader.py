"""A client that keeps the event stream of a session or a subscription open, in a thread, and notes what it reads."""

from __future__ import annotations

import http.client
import json
import socket
import threading
from collections.abc import Mapping
from typing import Any


class StreamReader:
    """Opens the stream at once. messages: what has come; is_open: the gateway has not ended it. Use as a context manager."""

    def __init__(self, url: str, headers: Mapping[str, str], body: object = None) -> None:
        host, _, path = url.removeprefix("http://").partition("/")
        self._connection = http.client.HTTPConnection(host, timeout=30)
        sent = None if body is None else json.dumps(body)
        shown = {"Accept": "application/json, text/event-stream", "Content-Type": "application/json", **headers}
        self._connection.request("GET" if sent is None else "POST", f"/{path}", sent, shown)
        self._socket = self._connection.sock
        self._response = self._connection.getresponse()
        assert self._response.status == 200, self._response.read()
        self.messages: list[Any] = []
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        try:
            for line in self._response:
                if line.startswith(b"data: {"):
                    self.messages.append(json.loads(line[6:]))
        except (OSError, http.client.HTTPException):
            return

    @property
    def is_open(self) -> bool:
        return self._thread.is_alive()

    def methods(self) -> list[str]:
        return [message["method"] for message in list(self.messages) if "method" in message]

    def __enter__(self) -> StreamReader:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)
        self._thread.join(5)
        self._connection.close()
