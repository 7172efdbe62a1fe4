"""The GET stream of a session: what its servers say on their own."""

from __future__ import annotations

from mcp_gateway.transports.downstream.edge_port import AnswerSink, Exchange

from .conversation import Conversation, Desk, outer_event_id, outer_message
from .messages import CallAnswered, CallEvent, CallFailed, CallKind


class SessionStream(Conversation):
    """The GET stream of a session: what its servers say on their own. Opened again when a server ends it, until the session ends.

    Source: MCP 2025-11-25, basic/transports, "Listening for Messages from the Server".
    """

    RETRY_S = 1.0

    def __init__(self, exchange: Exchange, sink: AnswerSink, desk: Desk) -> None:
        super().__init__(exchange, sink, desk)
        self._backend_of: dict[int, str] = {}
        self._last_event_ids: dict[str, str] = {}

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

    def _is_merged(self) -> bool:
        return not self.exchange.endpoint and any(naming.prefix for naming in self.desk.namings(""))

    def _listen(self, backend: str) -> None:
        assert self.exchange.session is not None
        session = self.desk.use_session(self.exchange.session)
        call_id = self._call(
            None,
            kind=CallKind.STREAM,
            backend=backend,
            session=session,
            deadline_s=float("inf"),
            last_event_id=self._last_event_ids.get(backend),
        )
        self._backend_of[call_id] = backend

    def _on_event(self, event: CallEvent) -> None:
        if event.event_id is not None:
            self._last_event_ids[event.backend] = event.event_id
        naming = None
        if self._is_merged():
            naming = next((each for each in self.desk.namings("") if each.backend == event.backend), None)
        self._forward(event, outer_message(naming, event.message), outer_event_id(naming, event.event_id))

    def _on_answer(self, answer: CallAnswered) -> None:
        self.desk.retry_later(self.exchange, self.RETRY_S, self._backend_of.pop(answer.call_id))

    def _on_failure(self, failure: CallFailed) -> None:
        backend = self._backend_of.pop(failure.call_id)
        if failure.reason != "unknown_method":  # the server offers no such stream (405): nothing to wait for
            self.desk.retry_later(self.exchange, self.RETRY_S, backend)

    def retry(self, backend: str) -> None:
        assert self.exchange.session is not None
        if self.desk.is_session_ended(self.exchange.session):
            self.end()
        elif not self._is_over:
            self._listen(backend)
