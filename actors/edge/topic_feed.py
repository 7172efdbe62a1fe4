"""The events of the node as a cell holds them for its clients, who follow topics at their own pace."""

from __future__ import annotations

import asyncio
import itertools
import logging
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from mcp_gateway.actors.messages.events import PublishEvent
from mcp_gateway.transports.protocol.topics.kept_events import NOTHING_LOST, LostIds
from mcp_gateway.transports.protocol.topics.retained_events import RetainedEvents
from mcp_gateway.transports.protocol.topics.topic_log import Event, Page, TopicPattern

_logger = logging.getLogger(__name__)

_FOLLOWERS_PER_TURN = 50
_TURN_S = 0.003
"""Followers told in one turn of the loop, and the processor's time for them: thousands, each with large events to encode, must
not hold up everybody else's requests."""

_MOST_PAGES = 1_000
"""Reads that are remembered until there is news: followers of one pattern wait at one place, and ask the same."""


class CellTopicFeed:
    """Implements `edge_port.TopicFeed`. Filled by the edge actor; outlives it, so a restarted edge asks only for what is missing.

    is_caught_up: whether everything is here that the log had when this cell joined it; before that, nobody can say what is new.
    outgoing:     events to publish; the edge takes them out.
    """

    def __init__(self, retention: int, wake_edge: Callable[[], None], *, ids_never_fall: bool = False) -> None:
        self.ids_never_fall = ids_never_fall
        self.is_caught_up = False
        self.outgoing: deque[PublishEvent] = deque()
        self._log = RetainedEvents(retention)
        self._pages: dict[tuple[int, TopicPattern, int], Page] = {}
        self._wake_edge = wake_edge
        self._followers: dict[int, Callable[[], None]] = {}
        self._to_tell: dict[int, Callable[[], None]] = {}
        self._is_telling = False
        self._keys = itertools.count()

    # ---- for handlers

    @property
    def last_id(self) -> int:
        return self._log.last_id

    def read(self, after_id: int, pattern: TopicPattern, limit: int) -> Page:
        """As `RetainedEvents.read`; a pattern is matched once for all who follow it from one place."""
        page = self._pages.get((after_id, pattern, limit))
        if page is None:
            page = self._log.read(after_id, pattern, limit)
            if len(self._pages) < _MOST_PAGES:
                self._pages[after_id, pattern, limit] = page
        return page

    def forget_reads(self) -> None:
        """A pattern matches other topics from now on, as where its reader may follow others."""
        self._pages.clear()

    def follow(self, on_news: Callable[[], None]) -> Callable[[], None]:
        key = next(self._keys)
        self._followers[key] = on_news

        def stop_following() -> None:
            self._followers.pop(key, None)
            self._to_tell.pop(key, None)

        return stop_following

    def publish(self, topic: str, payload: Mapping[str, Any]) -> None:
        self.outgoing.append(PublishEvent(topic=topic, payload=payload))
        if len(self.outgoing) == 1:
            self._wake_edge()

    # ---- for the edge

    def take(self, events: Iterable[Event], is_caught_up: bool, lost: LostIds = NOTHING_LOST, last_id: int = 0) -> None:
        """Keep what is new, and tell the followers in turns of the loop to come. lost, last_id: see `EventsLogged`."""
        has_news = last_id > self.last_id or (is_caught_up and not self.is_caught_up)
        self.is_caught_up = is_caught_up or self.is_caught_up
        self._log.lose(lost)
        for event in events:
            if event.id > self._log.last_id:
                self._log.add(event)
                has_news = True
        self._log.skip_to(last_id)
        if has_news:
            self._pages.clear()
        if has_news and self._followers:
            self._to_tell.update(self._followers)
            self._tell_soon()

    def _tell_soon(self) -> None:
        if not self._is_telling:
            self._is_telling = True
            asyncio.get_running_loop().call_soon(self._tell)

    def _tell(self) -> None:
        self._is_telling = False
        end_s = time.thread_time() + _TURN_S
        for key in list(itertools.islice(self._to_tell, _FOLLOWERS_PER_TURN)):
            on_news = self._to_tell.pop(key, None)
            if on_news is None:
                continue  # it stopped following because of what one before it did
            try:
                on_news()
            except Exception:
                _logger.exception("a follower of topics failed")
            if time.thread_time() >= end_s:
                break
        if self._to_tell:
            self._tell_soon()
