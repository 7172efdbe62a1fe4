"""Which sessions live, and what has become of them: the table of this cell in front of the journal of the node."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Mapping

from mcp_gateway.actors.storage.session_journal import SessionJournal
from mcp_gateway.transports.protocol.sealed.session import SessionFacts, SessionState, UpstreamSession

from .present_clients import UsedSession
from .session_table import SessionTable

_LONGEST_NOTE_S = 10.0
_ENDED_LEAST_S = 300.0
"""So long a session that has ended is known as such, however soon idle ones end: some of its calls may still run.

A known gap: a call that runs for longer, and than the idle timeout, brings its session back until it ends.
"""
_LEAST_LEAVING = 50
_LEAVING_SHARE = 0.1
"""Of the sessions that have expired, how many at a time: their servers are told one by one, each of its own, and 5,000 sessions
that were opened together had 80 MB taken for 20,000 such calls at once."""


class SessionKeeper:
    """Answers from memory where it can; asks the journal about sessions that this cell has not seen, or has forgotten.

    A session that nobody has used for the idle timeout is over, in whichever cell. So is the one longest unused of a holder that
    opens more than its share, and of who holds most when max_sessions is reached; the journal counts those of the whole node.
    It learns of use with a delay, `note_s`, which is added to the timeout.

    In a cluster each node keeps the sessions that were opened there, and judges when they are over. Those of other nodes are
    served as their ids tell until their own node says otherwise, which is told of their use.

    node: the name of this one in its cluster.
    """

    def __init__(
        self,
        journal: SessionJournal,
        max_sessions: int,
        idle_timeout_s: float,
        *,
        is_alone: bool,
        largest_share: float = 1.0,
        node: str = "",
    ) -> None:
        self._journal = journal
        self._max_sessions = max_sessions
        self._idle_timeout_s = idle_timeout_s
        self._node = node
        self._is_alone = is_alone  # the only cell: what it has forgotten nobody else uses
        self._table = SessionTable(max_sessions, idle_timeout_s, largest_share)
        self.note_s = min(_LONGEST_NOTE_S, idle_timeout_s / 4)
        self._noted_s = self._told_s = self._forgot_s = float("-inf")
        self._used: dict[str, int] = {}  # {key: when, in ms since the epoch}: what the journal is still to be told
        self._used_elsewhere: dict[str, dict[str, int]] = {}  # {node: {key: when}}: what other nodes are still to be told
        self._leaving: deque[SessionState] = deque()  # expired, and not given by `sweep` yet
        self._unwritten: set[str] = set()  # keys of sessions whose newest state the journal has missed

    def __len__(self) -> int:
        return len(self._table)

    def find(self, sealed: SessionState, now_s: float) -> SessionState | None:
        """The newest state of the session whose id was presented; None where it is over. sealed: as its id tells."""
        known = self._table.find(sealed.key, now_s)
        if known is not None:
            return known
        if self._table.is_ended(sealed.key):
            return None
        if sealed.node != self._node:
            return sealed if self._table.known(sealed.key) is None else None
        if not self._journal.is_durable:
            return sealed if sealed.issued_ms >= self._used_since_ms() else None
        found = self._journal.read(sealed.key, self._used_since_ms())
        if found is None and sealed.issued_ms < self._journal.began_ms:
            # The journal was begun anew: it cannot tell, so the time since the id was made must do.
            found = sealed if sealed.issued_ms >= self._used_since_ms() else None
        return found

    def open(self, state: SessionState, now_s: float) -> list[SessionState]:
        """Keep a new session; gives those that had to make room for it."""
        evicted = self._journal.insert(state, _now_ms(), self._max_sessions, self._table.most_of_holder)
        forgotten = self._table.use(state, now_s)
        for each in forgotten:
            self._journal.forget(each.key)
        if not self._journal.is_durable and self._is_alone:
            evicted = forgotten
        for each in evicted:
            self._table.end(each.key)
        return evicted

    def use(self, state: SessionState, now_s: float) -> SessionState:
        """Note that the session is alive; gives its newest state. One that was ended stays ended."""
        self._table.use(state, now_s)
        if state.node == self._node:
            self._used[state.key] = _now_ms()
        else:
            self._used_elsewhere.setdefault(state.node, {})[state.key] = _now_ms()
        return self._table.find(state.key, now_s) or state

    def take_used_elsewhere(self, now_s: float) -> dict[str, dict[str, int]]:
        """{node: {key: when, in ms since the epoch}} of sessions of other nodes that were used here; nothing before `note_s`."""
        if now_s - self._told_s < self.note_s:
            return {}
        self._told_s = now_s
        used, self._used_elsewhere = self._used_elsewhere, {}
        return used

    def note_use(self, used_ms: Mapping[str, int]) -> None:
        """Sessions of this node were used at another one."""
        self._used.update(used_ms)

    def refresh(self, state: SessionState) -> SessionState:
        """The newest state that any cell knows: another one may have repaired the session."""
        found = None if state.key in self._unwritten else self._journal.read(state.key, 0)
        if found is None:  # the journal cannot tell: what this cell knows must do
            return self._table.known(state.key) or state
        self._table.replace(found)
        return found

    def changed_elsewhere(self, state: SessionState) -> None:
        """Another cell has changed a session. state: as it is there; what others have changed as well the journal may know."""
        if self._table.known(state.key) is not None:
            found = None if state.key in self._unwritten else self._journal.read(state.key, 0)
            self._table.replace(found or state)

    def replace_upstream(self, key: str, upstream: UpstreamSession) -> SessionState | None:
        """Set the session's conversation with one backend after a repair; gives the new state, None for an unknown session."""
        return self._journaled(self._table.replace_upstream(key, upstream))

    def replace_facts(self, key: str, facts: SessionFacts) -> SessionState | None:
        """Set what the client has asked for; gives the new state, None for an unknown session."""
        return self._journaled(self._table.replace_facts(key, facts))

    def known(self, key: str) -> SessionState | None:
        """A session that this cell has seen, as it is here."""
        return self._table.known(key)

    def end(self, key: str) -> None:
        """Refuse this session from now on."""
        self._table.end(key)
        self._journal.delete(key)

    def is_ended(self, key: str) -> bool:
        return self._table.is_ended(key)

    def sweep(self, now_s: float) -> list[SessionState]:
        """Tell the journal who is in use, and give sessions that have expired, the first first; call it every second or so.

        All of them are over at once; where they are many, it gives a part of them at a time.
        """
        self._leaving.extend(self._expired(now_s))
        count = max(_LEAST_LEAVING, int(len(self._leaving) * _LEAVING_SHARE))
        return [self._leaving.popleft() for _ in range(min(count, len(self._leaving)))]

    def _expired(self, now_s: float) -> list[SessionState]:
        idle = self._table.forget_idle(now_s)
        self._forget_ended(now_s)
        if self._journal.catch_up(_now_ms()):
            self._write_again()
        if now_s - self._noted_s < self.note_s:
            return [] if self._journal.is_durable or not self._is_alone else self._end_all(idle)
        self._noted_s = now_s
        if self._journal.touch(self._used):
            self._used.clear()
        if self._journal.is_durable:
            return self._end_all(self._journal.expire(self._used_since_ms()))
        return self._end_all(idle) if self._is_alone else []

    def _forget_ended(self, now_s: float) -> None:
        """A session that the journal does not know is over anyway when its id is older than the idle timeout. Of one of another
        node nobody can tell so: in a cluster those that have ended only make room for one another.
        """
        kept_s = max(_ENDED_LEAST_S, self._idle_timeout_s + 2 * self.note_s)
        if not self._node and now_s - self._forgot_s >= kept_s:
            self._forgot_s = now_s
            self._table.forget_ended()

    def newest(self, most: int, now_s: float) -> list[UsedSession]:
        """Those that this cell has seen used last, the latest first."""
        return [UsedSession(state, now_s - used_s) for state, used_s in self._table.newest(most)]

    def count_by_revision(self) -> dict[str, int]:
        return self._table.count_by_revision()

    def close(self) -> None:
        self._journal.touch(self._used)
        self._journal.close()

    def _end_all(self, states: list[SessionState]) -> list[SessionState]:
        for state in states:
            self._table.end(state.key)
        return states

    def _journaled(self, state: SessionState | None) -> SessionState | None:
        if state is not None:
            self._unwritten.discard(state.key)
            if not self._journal.replace(state):
                self._unwritten.add(state.key)
        return state

    def _write_again(self) -> None:
        """What the journal has missed; no more tries once it is found busy, because each holds this cell up."""
        for key in list(self._unwritten):
            state = self._table.known(key)
            if state is not None and not self._journal.replace(state):
                return
            self._unwritten.discard(key)

    def _used_since_ms(self) -> int:
        if self._idle_timeout_s == float("inf"):
            return 0
        return _now_ms() - int((self._idle_timeout_s + 2 * self.note_s) * 1000)


def _now_ms() -> int:
    return int(time.time() * 1000)
