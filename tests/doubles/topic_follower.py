"""A client that follows a topic as a browser's EventSource does: it comes back by itself with the last id that it has seen."""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import threading
from collections.abc import Callable
from typing import Any

import attrs

RETRY_S = 0.05


@attrs.frozen
class Followed:
    event_id: int
    topic: str
    payload: Any


class TopicFollower:
    """Use as a context manager. events: of the topic; gaps: (first, last) ids; connects: how often it has had a stream."""

    def __init__(self, url: str, topic: str = "all") -> None:
        self._host = url.removeprefix("http://")
        self._path = f"/mcp/sse/events/{topic}"
        self._is_over = threading.Event()
        self._socket: Any = None
        self._last_id: str | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.events: list[Followed] = []
        self.gaps: list[tuple[int, int]] = []
        self.refusals: list[int] = []
        self.connects = 0

    def __enter__(self) -> TopicFollower:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        with contextlib.suppress(OSError, AttributeError):
            self._socket.shutdown(socket.SHUT_RDWR)  # closing it would not wake the thread that reads
        self._thread.join(5)

    def seen(self, topic: str) -> list[int]:
        """The numbers `n` of the events of a topic, in the order in which they came."""
        return [event.payload["n"] for event in self.events if event.topic == topic]

    def has_seen(self, topic: str, number: int) -> Callable[[], bool]:
        return lambda: number in self.seen(topic)

    def _run(self) -> None:
        while not self._is_over.is_set():
            # Cut off, or closed by the test.
            with contextlib.suppress(OSError, http.client.HTTPException, ValueError, AttributeError):
                self._follow()
            self._is_over.wait(RETRY_S)

    def _follow(self) -> None:
        connection = http.client.HTTPConnection(self._host, timeout=30)
        try:
            headers = {"Accept": "text/event-stream"} | ({} if self._last_id is None else {"Last-Event-ID": self._last_id})
            connection.request("GET", self._path, headers=headers)
            self._socket = connection.sock
            answer = connection.getresponse()
            if answer.status != 200:
                self.refusals.append(answer.status)
                return
            self.connects += 1
            fields: dict[str, str] = {}
            while line := answer.readline():
                name, _, value = line.decode().rstrip("\n").partition(": ")
                if name:
                    fields[name] = value
                else:
                    self._take(fields)
                    fields = {}
        finally:
            connection.close()

    def _take(self, fields: dict[str, str]) -> None:
        self._last_id = fields.get("id", self._last_id)
        data = json.loads(fields.get("data", "{}"))
        if fields.get("event") == "vsm_event":
            self.events.append(Followed(int(fields["id"]), data["event_type"], data["payload"]))
        elif fields.get("event") == "gap":
            self.gaps.append((data["first_id"], data["last_id"]))
