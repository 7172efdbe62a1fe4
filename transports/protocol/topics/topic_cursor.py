"""What one subscriber of a topic gets next: a place in the shared log, and how much is on its way. Pure."""

from __future__ import annotations

from typing import Final, Protocol

import attrs

from .topic_log import Event, Page, TopicPattern

AHEAD_GRACE_S: Final = 5.0
"""How long a place beyond the end of the log is waited for: another cell was faster, or the id is of another log."""


class ReadableLog(Protocol):
    """The log as a cursor sees it.

    is_caught_up:   False while the cell still waits for what the log had before: what is here is in order, but is not all.
    ids_never_fall: whoever comes with an id that is not here yet was at another node, which has more.
    """

    @property
    def last_id(self) -> int: ...

    @property
    def is_caught_up(self) -> bool: ...

    @property
    def ids_never_fall(self) -> bool: ...

    def read(self, after_id: int, pattern: TopicPattern, limit: int) -> Page: ...


@attrs.frozen(kw_only=True)
class Portion:
    """What the subscriber shall be sent now: first the gap, then the events.

    gap:       first and last id that are lost, see `topic_log.Page`; None when nothing is.
    has_more:  taking again, in another turn, may give more at once.
    lag_began: it has not taken what it was sent, and more waits for it: told once, until it has caught up.
    wait_s:    its place is beyond the end of the log: take again after so many seconds, even if there is no news; 0: on news.
    """

    events: tuple[Event, ...] = ()
    gap: tuple[int, int] | None = None
    has_more: bool = False
    lag_began: bool = False
    wait_s: float = 0.0


_NOTHING: Final = Portion()
_LAG_BEGAN: Final = Portion(lag_began=True)


class TopicCursor:
    """A subscriber's place in the log. It holds no events: who is slow lags behind and reads on from the log.

    after_id:      the last event that the subscriber has seen, perhaps on another connection; None starts with what comes next.
    max_in_flight: events handed out and not reported as `flushed`, at most.
    """

    __slots__ = ("_after_id", "_ahead_since_s", "_in_flight", "_is_lagging", "_max_in_flight", "_pattern")

    def __init__(self, pattern: TopicPattern, *, after_id: int | None, max_in_flight: int) -> None:
        self._pattern = pattern
        self._after_id = after_id
        self._max_in_flight = max_in_flight
        self._in_flight = 0
        self._is_lagging = after_id is not None  # a backlog from before it came is not its slowness
        self._ahead_since_s: float | None = None

    @property
    def after_id(self) -> int | None:
        """Everything up to here was handed out, or is not wanted; None until the start is known."""
        return self._after_id

    @property
    def in_flight(self) -> int:
        return self._in_flight

    def take(self, log: ReadableLog, now_s: float) -> Portion:
        """Hand out what follows, as far as there is room; call it on news, and after `flushed`."""
        after_id = self._place(log, now_s)
        if after_id is None:
            since_s = self._ahead_since_s
            return _NOTHING if since_s is None else Portion(wait_s=max(0.0, since_s + AHEAD_GRACE_S - now_s))
        room = self._max_in_flight - self._in_flight
        if room <= 0:
            return self._look_ahead(log, after_id)
        page = log.read(after_id, self._pattern, room)
        self._after_id = page.next_id
        self._in_flight += len(page.events)
        if not page.has_more:
            self._is_lagging = False
        return Portion(events=page.events, gap=page.gap, has_more=page.has_more)

    def flushed(self, event_count: int) -> None:
        """The subscriber's socket has taken so many events."""
        self._in_flight -= event_count

    def _place(self, log: ReadableLog, now_s: float) -> int | None:
        """Where to read on; None while that cannot be known."""
        if not log.is_caught_up and (self._after_id is None or self._after_id > log.last_id):
            return None
        if self._after_id is None:
            self._after_id = log.last_id
        if self._after_id <= log.last_id:
            self._ahead_since_s = None
        elif log.ids_never_fall:
            return None
        elif self._ahead_since_s is None:
            self._ahead_since_s = now_s
            return None
        elif now_s < self._ahead_since_s + AHEAD_GRACE_S:
            return None
        else:
            self._after_id = 0  # of a log that is no more: this subscriber has seen nothing of the one there is
        return self._after_id

    def _look_ahead(self, log: ReadableLog, after_id: int) -> Portion:
        """There is no room: find out whether that keeps anything from the subscriber."""
        if self._is_lagging:
            return _NOTHING
        page = log.read(after_id, self._pattern, 1)
        if page.events or page.gap:
            self._is_lagging = True
            return _LAG_BEGAN
        self._after_id = page.next_id
        return Portion(has_more=page.has_more)
