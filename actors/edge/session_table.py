"""The sessions this cell has seen: what changed since their id was sealed, which were ended, how many there are. Pure."""

from __future__ import annotations

from collections import OrderedDict

import msgspec

from mcp_gateway.transports.protocol.sealed.session import SessionFacts, SessionState, UpstreamSession

_ENDED_REMEMBERED = 100_000


class SessionTable:
    """{session key: newest state}, the least recently used first; at most max_sessions are kept.

    A session that is forgotten here lives on in its sealed id. One that was ended is refused, here and in cells that are told.
    """

    def __init__(self, max_sessions: int, idle_timeout_s: float) -> None:
        self._max_sessions = max_sessions
        self._idle_timeout_s = idle_timeout_s
        self._states: OrderedDict[str, tuple[SessionState, float]] = OrderedDict()
        self._ended: OrderedDict[str, None] = OrderedDict()

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
        self._states[state.key] = (known[0] if known is not None else state, now_s)
        self._states.move_to_end(state.key)
        forgotten = []
        while len(self._states) > self._max_sessions:
            forgotten.append(self._states.popitem(last=False)[1][0])
        return forgotten

    def known(self, key: str) -> SessionState | None:
        """The session's state here, however long it was not used."""
        known = self._states.get(key)
        return None if known is None else known[0]

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
        self._states.pop(key, None)
        self._ended[key] = None
        if len(self._ended) > _ENDED_REMEMBERED:
            self._ended.popitem(last=False)

    def is_ended(self, key: str) -> bool:
        return key in self._ended

    def forget_idle(self, now_s: float) -> list[SessionState]:
        """Drop sessions that were not used for the idle timeout, and give them."""
        dropped = []
        while self._states:
            key, (state, used_s) = next(iter(self._states.items()))
            if now_s - used_s < self._idle_timeout_s:
                break
            del self._states[key]
            dropped.append(state)
        return dropped

    def count_by_revision(self) -> dict[str, int]:
        counts: dict[str, int] = {}
        for state, _ in self._states.values():
            counts[state.revision] = counts.get(state.revision, 0) + 1
        return counts
