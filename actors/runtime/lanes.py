"""Lanes between processes: one unacknowledged transmit per target, what queues meanwhile goes with the next one. Pure.

Thespian stops all traffic of a sender with 20 unacknowledged messages, whoever their targets are:
with a window of one, a hung target costs one of these slots and nobody else notices.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any, Final

import attrs

from mcp_gateway.actors.messages.weight import weight_bytes

_HEAVIEST_BYTES: Final = 60 * 1024 * 1024
"""Packets take a little more, see `packet_seal`."""


@attrs.frozen(kw_only=True)
class Batch:
    """Any actor with lanes -> another: messages that queued while an earlier transmit was under way, oldest first."""

    items: tuple[Any, ...] = attrs.field(repr=False)


@attrs.define(eq=False)
class _Lane:
    target: Any
    queue: deque[Any] = attrs.field(factory=deque)
    is_busy: bool = False


class Lanes:
    """The outbound queues of one actor. Not thread-safe: it belongs to the thread that runs the actor.

    transmit(target, message, on_result): start one transmit; calls on_result(error) once, from the same thread, with None when
        the target's transport has taken the message (not: when it was handled) and otherwise a short reason.
    on_undeliverable(target, messages, reason): gets messages that were given up: refused by the transport, or more than
        max_queued of them waiting ("overflow"), or too large for any packet ("too large"). Never silently lost.
    max_batch, max_batch_bytes: of one transmit; a message that is heavier goes alone.
    """

    def __init__(
        self,
        transmit: Callable[[Any, Any, Callable[[str | None], None]], None],
        on_undeliverable: Callable[[Any, tuple[Any, ...], str], None],
        *,
        max_batch: int = 256,
        max_batch_bytes: int = 1_000_000,
        max_queued: int = 20_000,
    ) -> None:
        self._transmit = transmit
        self._on_undeliverable = on_undeliverable
        self._max_batch = max_batch
        self._max_batch_bytes = max_batch_bytes
        self._max_queued = max_queued
        self._lanes: dict[str, _Lane] = {}
        self._fresh: list[str] = []  # idle lanes that got mail since the last flush

    def __len__(self) -> int:
        """Lanes that carry or hold something."""
        return len(self._lanes)

    def queue(self, key: str, target: Any, message: Any) -> None:
        """Put the message at the end of the target's lane; `flush` starts it. key names the target, which may be unhashable."""
        if weight_bytes(message) > _HEAVIEST_BYTES:
            self._on_undeliverable(target, (message,), "too large")
            return
        lane = self._lanes.get(key)
        if lane is None:
            lane = self._lanes[key] = _Lane(target)
        if len(lane.queue) >= self._max_queued:
            self._on_undeliverable(target, (message,), "overflow")
            return
        lane.queue.append(message)
        if not lane.is_busy and len(lane.queue) == 1:
            self._fresh.append(key)

    def flush(self) -> None:
        """Start a transmit on every idle lane that has mail: called once per handled message, so a burst becomes one batch."""
        while self._fresh:
            self._start(self._fresh.pop())

    def flush_all(self) -> None:
        """Hand everything to the transport whatever the window: the actor is about to end."""
        self._fresh.clear()
        for key, lane in list(self._lanes.items()):
            lane.is_busy = False
            while lane.queue:
                self._start(key)
                lane.is_busy = False

    def _start(self, key: str) -> None:
        lane = self._lanes.get(key)
        if lane is None or lane.is_busy:
            return
        if not lane.queue:
            del self._lanes[key]
            return
        items = self._next_items(lane.queue)
        lane.is_busy = True
        message = items[0] if len(items) == 1 else Batch(items=items)
        self._transmit(lane.target, message, lambda error: self._finish(key, lane, items, error))

    def _next_items(self, queue: deque[Any]) -> tuple[Any, ...]:
        items = [queue.popleft()]
        total_bytes = weight_bytes(items[0])
        while queue and len(items) < self._max_batch:
            total_bytes += weight_bytes(queue[0])
            if total_bytes > self._max_batch_bytes:
                break
            items.append(queue.popleft())
        return tuple(items)

    def _finish(self, key: str, lane: _Lane, items: tuple[Any, ...], error: str | None) -> None:
        lane.is_busy = False
        if error is not None:
            self._on_undeliverable(lane.target, items, error)
        if self._lanes.get(key) is lane:
            self._start(key)
        self.flush()  # on_undeliverable may have queued answers
