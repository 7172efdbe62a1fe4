"""The event log of a cell that has no node around it: the same file, written by a thread of its own."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

import msgspec

from mcp_gateway.actors.messages.event_log import StoredEvent
from mcp_gateway.actors.storage.event_store import EventStore
from mcp_gateway.transports.protocol.topics.kept_events import KeptEvents, LostIds
from mcp_gateway.transports.protocol.topics.topic_log import Event, check_topic

from .event_outbox import MOST_UNSTORED_EVENTS

_logger = logging.getLogger(__name__)
_SOURCE: Final = "embedded"


class EmbeddedEventLog:
    """Gives events ids, commits them, and hands them on in order; everything but the disk's part happens on the loop.

    What is published while the disk is busy goes into the next transaction together: nobody waits for more to come, and the loop
    never waits for the disk.

    on_stored: gets events once they are on disk, or in the next turn of the loop where there is none.
    """

    def __init__(self, state_path: Path | None, retention: int, on_stored: Callable[[list[Event]], None]) -> None:
        self._store = EventStore(state_path, retention, _logger.log)
        loaded, self._store.loaded = self._store.loaded, []
        self._log = KeptEvents(retention, (stored.event for stored in loaded), self._store.lost, self._store.last_id)
        self._given_id = self._log.last_id  # the last one, stored or not
        self._on_stored = on_stored
        self._unwritten: list[Event] = []
        self._is_writing = False
        self._writer = None if state_path is None else ThreadPoolExecutor(1, "event-log")

    def publish(self, topic: str, payload: dict[str, Any], timestamp_ms: int) -> None:
        """Raises: InvalidTopic."""
        if len(self._unwritten) >= MOST_UNSTORED_EVENTS:
            _logger.error("the disk takes no events: %s is dropped", topic)
            return
        event = Event(
            id=self._given_id + 1,
            topic=check_topic(topic),
            payload_json=msgspec.json.encode(payload),
            timestamp_ms=timestamp_ms,
        )
        self._given_id = event.id
        self._unwritten.append(event)
        self._write()

    @property
    def last_id(self) -> int:
        """Of the events that have been stored."""
        return self._log.last_id

    @property
    def lost(self) -> LostIds:
        """What is missing of what has been stored."""
        return self._log.lost

    def events_after(self, event_id: int) -> list[Event]:
        """What has been stored after this id, ids ascending."""
        return self._log.after(event_id)

    def close(self) -> None:
        """Wait for the disk, and commit what is left."""
        self._is_writing = True  # nothing new begins
        if self._writer is not None:
            self._writer.shutdown()
        self._store.write(_stored(self._unwritten))
        if self._store.lacks_events:  # there may be room again: after this nobody has them any more
            self._store.mend(_stored([*self.events_after(0), *self._unwritten]), self.lost)
        self._unwritten = []
        self._store.close()

    def _write(self) -> None:
        if self._is_writing or not self._unwritten:
            return
        self._is_writing = True
        events, self._unwritten = self._unwritten, []
        loop = asyncio.get_running_loop()
        if self._writer is None:
            loop.call_soon(self._written, events)
        else:
            kept = self.events_after(0) if self._store.wants_mending else []
            writing = loop.run_in_executor(self._writer, self._commit, events, kept, self.lost)
            writing.add_done_callback(lambda _: self._written(events))

    def _commit(self, events: list[Event], kept: list[Event], lost: LostIds) -> None:
        """In the writer's thread. kept: all older events, where the file has failed and shall be tried again; lost: of these."""
        if not self._store.write(_stored(events)) and self._store.wants_mending:
            self._store.mend(_stored([*kept, *events]), lost)

    def _written(self, events: list[Event]) -> None:
        self._is_writing = False
        for event in events:
            self._log.add(event)
        self._on_stored(events)
        self._write()


def _stored(events: list[Event]) -> list[StoredEvent]:
    return [StoredEvent(event=event, source=_SOURCE, sequence=event.id) for event in events]
