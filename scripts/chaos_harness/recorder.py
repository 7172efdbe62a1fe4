"""Where clients and faults write what they see: one history, on one clock."""

from __future__ import annotations

import itertools
import time

import attrs

from .history import Asked, Ended, History, Record


@attrs.define
class Recorder:
    """history: what was written so far. Made for one loop: nobody else writes to it."""

    history: History = attrs.field(factory=History)
    _call_ids: itertools.count[int] = attrs.field(factory=lambda: itertools.count(1))

    def now_s(self) -> float:
        """Of the machine's monotonic clock, which servers in other processes read too."""
        return time.monotonic()

    def add(self, record: Record) -> None:
        self.history.add(record)

    def asked(self, client: str, backend: str, argument: str, within_s: float, *, is_bound: bool = False) -> int:
        """A call has begun; its id."""
        call_id, now_s = next(self._call_ids), self.now_s()
        deadline_s = now_s + within_s
        asked = Asked(
            call_id=call_id,
            client=client,
            backend=backend,
            argument=argument,
            at_s=now_s,
            deadline_s=deadline_s,
            is_bound=is_bound,
        )
        self.add(asked)
        return call_id

    def ended(self, call_id: int, outcome: str) -> None:
        self.add(Ended(call_id=call_id, outcome=outcome, at_s=self.now_s()))
