"""The GET stream of a session: what its servers say on their own."""

from __future__ import annotations

import time
from collections import Counter

from mcp_gateway.actors.messages.calls import CallAnswered, CallEvent, CallFailed
from mcp_gateway.transports.ports.edge_port import AnswerSink, Exchange
from mcp_gateway.transports.ports.failure import Fate
from mcp_gateway.transports.ports.request_kind import RequestKind
from mcp_gateway.transports.protocol.mcp.change_notifications import LIST_CHANGES
from mcp_gateway.transports.protocol.merging.naming import Naming
from mcp_gateway.transports.protocol.sealed.session import SessionState

from .conversation import Conversation, outer_event_id
from .desk import CallWish, Desk
from .session_repair import Repair, SessionRepair


class SessionStream(Conversation):
    """The GET stream of a session: what its servers say on their own. Opened again when a server ends it, until the session ends.

    Source: MCP 2025-11-25, basic/transports, "Listening for Messages from the Server".
    """

    RETRY_S = 1.0
    LONGEST_RETRY_S = 10.0
    """Of a server that does not open the session: the wait doubles up to this."""

    def __init__(self, exchange: Exchange, sink: AnswerSink, desk: Desk) -> None:
        super().__init__(exchange, sink, desk)
        self._backends: set[str] = set()  # those that it listens to, or will
        self._backend_of: dict[int, str] = {}
        self._last_event_ids: dict[str, str] = {}
        self._used_sessions: dict[str, SessionState] = {}
        self._repairs: dict[str, SessionRepair] = {}
        self._refused: Counter[str] = Counter()  # attempts to open the session that failed in a row
        self._vain: Counter[str] = Counter()  # how often in a row the session was opened again and nothing was heard then
        self._listens_since_s: dict[str, float] = {}
        self._late: set[str] = set()  # whose lists the client has not seen

    def _start(self) -> None:
        assert self.exchange.session is not None
        self._has_begun = True
        self.sink.begin({})
        backends = [upstream.backend for upstream in self.exchange.session.upstreams]
        if self.exchange.last_event_id is not None:
            backend, _, event_id = self.exchange.last_event_id.partition(":")
            if not self._is_merged():
                backend, event_id = backends[0], self.exchange.last_event_id
            self._last_event_ids[backend] = event_id
        for backend in backends:
            self._listen(backend)
        for naming in self.desk.namings(self.exchange):
            if naming.backend not in self._backends:  # it was away, or late, when the session began
                self._await(naming.backend, self.RETRY_S)

    def _await(self, backend: str, delay_s: float) -> None:
        """Listen to a backend where the session is not open: that opens it."""
        self._backends.add(backend)
        self._late.add(backend)
        self.desk.retry_later(self.exchange, delay_s, backend)

    def _is_merged(self) -> bool:
        return not self.exchange.endpoint and any(naming.prefix for naming in self.desk.namings(self.exchange))

    def _naming(self, backend: str) -> Naming | None:
        if not self._is_merged():
            return None
        return self.desk.merged_naming(backend)

    def _listen(self, backend: str) -> None:
        assert self.exchange.session is not None
        self._backends.add(backend)
        session = self._used_sessions[backend] = self.desk.use_session(self.exchange.session)
        self._listens_since_s[backend] = time.monotonic()
        call_id = self._call(
            CallWish(
                message=None,
                kind=RequestKind.STREAM,
                backend=backend,
                session=session,
                deadline_s=float("inf"),
                last_event_id=self._last_event_ids.get(backend),
            )
        )
        self._backend_of[call_id] = backend
        if backend in self._late and session.upstream(backend) is not None:
            self._late.discard(backend)
            self._tell_changes()

    def _on_event(self, event: CallEvent) -> None:
        is_of_stream = event.call_id in self._backend_of  # and not of a repair, whose answers may come with events, too
        if is_of_stream:
            del self._vain[event.backend]
        if is_of_stream and event.event_id is not None:
            self._last_event_ids[event.backend] = event.event_id
        naming = self._naming(event.backend)
        forward = self._forward if naming is None else self._forward_merged
        forward(event, self._outer(naming, event, self._used_sessions.get(event.backend)), outer_event_id(naming, event.event_id))

    def _on_answer(self, answer: CallAnswered) -> None:
        repair = self._repair_with(answer.call_id)
        if repair is not None:
            self._on_repair(repair, repair.answered(answer))
        elif answer.call_id in self._backend_of:
            del self._vain[self._backend_of[answer.call_id]]
            self.desk.retry_later(self.exchange, self.RETRY_S, self._backend_of.pop(answer.call_id))

    def _on_failure(self, failure: CallFailed) -> None:
        repair = self._repair_with(failure.call_id)
        if repair is not None:
            self._on_repair(repair, repair.failed(failure))
            return
        backend = self._backend_of.pop(failure.call_id, None)
        if backend is not None and time.monotonic() - self._listens_since_s[backend] > self.LONGEST_RETRY_S:
            del self._vain[backend]  # a quiet stream, that was there all the same
        if backend is None or failure.why.reason == "unknown_method":  # the server offers no such stream: nothing to wait for
            return
        if not self._keeps(backend):
            return
        if failure.why.fate is Fate.SESSION_LOST:
            self._repair(backend)
        else:
            self.desk.retry_later(self.exchange, self.RETRY_S, backend)

    # ---- a server that has lost the session

    def _repair(self, backend: str) -> None:
        """Open it again: a client that only listens would never find out."""
        assert self.exchange.session is not None
        if self.desk.is_session_ended(self.exchange.session):
            self.end()
            return
        repair = SessionRepair(self._call, self._dismiss, self.desk, self._used_sessions[backend], backend, self._naming(backend))
        self._repairs[backend] = repair
        self._on_repair(repair, repair.start())

    def _repair_with(self, call_id: int) -> SessionRepair | None:
        return next((repair for repair in self._repairs.values() if repair.owns(call_id)), None)

    def _on_repair(self, repair: SessionRepair, progress: Repair) -> None:
        if progress is Repair.GOING_ON:
            return
        del self._repairs[repair.backend]
        self._last_event_ids.pop(repair.backend, None)
        if progress is not Repair.DONE:
            self.desk.retry_later(self.exchange, self._delay_s(self._refused[repair.backend]), repair.backend)
            self._refused[repair.backend] += 1
            return
        del self._refused[repair.backend]
        self._vain[repair.backend] += 1
        if self._vain[repair.backend] == 1:
            self._listen(repair.backend)
        else:  # a server may open sessions without end, and know none of them
            self.desk.retry_later(self.exchange, self._delay_s(self._vain[repair.backend] - 2), repair.backend)

    def _delay_s(self, doublings: int) -> float:
        return min(self.LONGEST_RETRY_S, self.RETRY_S * 2.0 ** min(doublings, 16))

    def session_renewed(self, session: SessionState) -> None:
        """Listen where the session is now: the server where it was may hold the old stream open and say nothing more."""
        for call_id, backend in list(self._backend_of.items()):
            if session.upstream(backend) != self._used_sessions[backend].upstream(backend):
                del self._backend_of[call_id]
                self._cancel(call_id)
                self._last_event_ids.pop(backend, None)
                self._listen(backend)

    def retry(self, backend: str) -> None:
        assert self.exchange.session is not None
        if self.desk.is_session_ended(self.exchange.session):
            self.end()
        elif not self._is_over and self._keeps(backend):
            self._listen(backend)

    # ---- other backends

    def backends_changed(self) -> None:
        """Listen to those that are new, which opens the session there, and have the client ask for the lists again."""
        for naming in self.desk.namings(self.exchange):
            if naming.backend not in self._backends:
                self._await(naming.backend, 0.0)
        self._tell_changes()

    def _tell_changes(self) -> None:
        for method in LIST_CHANGES if self._is_merged() else ():
            self._tell_change(method, b"")

    def _keeps(self, backend: str) -> bool:
        """Whether the backend is configured; one that was removed is forgotten."""
        if any(naming.backend == backend for naming in self.desk.namings(self.exchange)):
            return True
        self._backends.discard(backend)
        return False
