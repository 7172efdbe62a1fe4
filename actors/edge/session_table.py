"""The sessions this cell has seen: what changed since their id was sealed, which were ended, how many there are. Pure."""

from __future__ import annotations

import itertools
from collections import OrderedDict

import msgspec

from mcp_gateway.transports.ports.shared_budget import SharedBudget
from mcp_gateway.transports.protocol.sealed.session import SessionFacts, SessionState, UpstreamSession

_ENDED_REMEMBERED = 100_000
"""Some 150 bytes each."""


class SessionTable:
    """{session key: newest state}, the least recently used first; at most max_sessions are kept, and of one holder's its share.

    A session that is forgotten here lives on in its sealed id. One that was ended is refused, here and in cells that are told.
    """

    def __init__(self, max_sessions: int, idle_timeout_s: float, largest_share: float = 1.0) -> None:
        self._budget = SharedBudget(max_sessions, largest_share)
        self._idle_timeout_s = idle_timeout_s
        self._states: OrderedDict[str, tuple[SessionState, float]] = OrderedDict()
        self._of_holder: dict[str, OrderedDict[str, None]] = {}  # keys in the same order
        self._ended: OrderedDict[str, None] = OrderedDict()  # the first that was ended first
        self._ended_before = 0  # how many of them were there when some were forgotten last
        self._revisions: dict[str, int] = {}  # that were counted before

    def __len__(self) -> int:
        return len(self._states)

    def find(self, key: str, now_s: float) -> SessionState | None:
        """The newest state of a session that was used here within the idle timeout."""
        known = self._states.get(key)
        return None if known is None or now_s - known[1] >= self._idle_timeout_s else known[0]

    def use(self, state: SessionState, now_s: float) -> list[SessionState]:
        """Note that the session is alive; gives those that had to make room. One that was ended stays ended."""
        if state.key in self._ended:
            return []
        known = self._states.get(state.key)
        forgotten = [] if known is not None else self._make_room(state.holder)
        if known is None:
            self._budget.take(state.holder)
        of_holder = self._of_holder.setdefault(state.holder, OrderedDict())
        self._states[state.key] = (known[0] if known is not None else state, now_s)
        of_holder[state.key] = None
        self._states.move_to_end(state.key)
        of_holder.move_to_end(state.key)
        return forgotten

    @property
    def most_of_holder(self) -> int:
        """How many sessions one holder may have."""
        return self._budget.largest_share

    def _make_room(self, newcomer: str) -> list[SessionState]:
        """For one session more of a holder: it makes room itself at its share, else who holds most does.

        Where nobody holds two, the one that was not used for the longest time goes.
        """
        forgotten = []
        while not self._budget.has_room(newcomer):
            holder = newcomer
            if self._budget.held_by(newcomer) < self._budget.largest_share:
                holder = max(self._of_holder, key=self._budget.held_by)
            is_shared_evenly = holder != newcomer and self._budget.held_by(holder) == 1
            keys = self._states if is_shared_evenly else self._of_holder[holder]
            forgotten.append(self._drop(next(iter(keys))))
        return forgotten

    def _drop(self, key: str) -> SessionState:
        state, _ = self._states.pop(key)
        self._budget.give_back(state.holder)
        of_holder = self._of_holder[state.holder]
        del of_holder[key]
        if not of_holder:
            del self._of_holder[state.holder]
        return state

    def known(self, key: str) -> SessionState | None:
        """The session's state here, however long it was not used."""
        known = self._states.get(key)
        return None if known is None else known[0]

    def newest(self, most: int) -> list[tuple[SessionState, float]]:
        """(state, when it was used) of those used last, the latest first."""
        return list(itertools.islice(reversed(self._states.values()), most))

    def replace(self, state: SessionState) -> None:
        """Set the state of a session that is known here."""
        known = self._states.get(state.key)
        if known is not None:
            self._states[state.key] = (state, known[1])

    def replace_upstream(self, key: str, upstream: UpstreamSession) -> SessionState | None:
        """Set the session's conversation with one backend after a repair; gives the new state, None for an unknown session."""
        known = self._states.get(key)
        if known is None:
            return None
        state, used_s = known
        others = tuple(each for each in state.upstreams if each.backend != upstream.backend)
        renewed = msgspec.structs.replace(state, upstreams=(*others, upstream))
        self._states[key] = (renewed, used_s)
        return renewed

    def replace_facts(self, key: str, facts: SessionFacts) -> SessionState | None:
        """Set what the client has asked for; gives the new state, None for an unknown session."""
        known = self._states.get(key)
        if known is None:
            return None
        state, used_s = known
        changed = msgspec.structs.replace(state, facts=facts)
        self._states[key] = (changed, used_s)
        return changed

    def end(self, key: str) -> None:
        """Refuse this session from now on."""
        if key in self._states:
            self._drop(key)
        self._ended[key] = None
        if len(self._ended) > _ENDED_REMEMBERED:
            self._ended.popitem(last=False)
            self._ended_before = max(0, self._ended_before - 1)

    def forget_ended(self) -> None:
        """Of the sessions that had ended when this was called before."""
        for _ in range(self._ended_before):
            self._ended.popitem(last=False)
        self._ended_before = len(self._ended)

    def is_ended(self, key: str) -> bool:
        return key in self._ended

    def forget_idle(self, now_s: float) -> list[SessionState]:
        """Drop sessions that were not used for the idle timeout, and give them."""
        dropped = []
        while self._states:
            key, (_, used_s) = next(iter(self._states.items()))
            if now_s - used_s < self._idle_timeout_s:
                break
            dropped.append(self._drop(key))
        return dropped

    def assert_consistent(self) -> None:
        """Check what must hold after every call; for tests."""
        counts = {holder: len(keys) for holder, keys in self._of_holder.items()}
        assert all(self._budget.held_by(holder) == count for holder, count in counts.items())
        assert sum(counts.values()) == len(self._states) == self._budget.held <= self._budget.limit
        assert all(0 < count <= self._budget.largest_share for count in counts.values())
        assert 0 <= self._ended_before <= len(self._ended) <= _ENDED_REMEMBERED
        order = list(self._states)
        assert all(list(keys) == sorted(keys, key=order.index) for keys in self._of_holder.values())

    def count_by_revision(self) -> dict[str, int]:
        """Of each revision that has ever had a session here: a gauge that is set to nothing any more stays where it was."""
        counts = self._revisions = dict.fromkeys(self._revisions, 0)
        for state, _ in self._states.values():
            counts[state.revision] = counts.get(state.revision, 0) + 1
        return counts
