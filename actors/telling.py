"""What the client says without a question: a notification, a response, the end of its session."""

from __future__ import annotations

from collections.abc import Iterable

from mcp_gateway.transports.downstream.edge_port import AnswerSink, Exchange
from mcp_gateway.transports.protocol.jsonrpc import Message

from .conversation import Conversation, Desk
from .messages import CallAnswered, CallFailed, CallKind


class Tell(Conversation):
    """What the client says without a question (a notification, a response, the end of its session): passed on, acknowledged."""

    def __init__(
        self, exchange: Exchange, sink: AnswerSink, desk: Desk, messages: Iterable[tuple[str, Message | None]], kind: CallKind
    ) -> None:
        super().__init__(exchange, sink, desk)
        self._messages = list(messages)
        self._kind = kind
        self._accepted = 0
        self._failure: CallFailed | None = None
        self._upstream_s = 0.0

    def _start(self) -> None:
        if self._kind is CallKind.TERMINATE and self.exchange.session is not None:
            self.desk.end_session(self.exchange.session)
        # One backend that hangs must not hold up what the client says to the others, nor its farewell.
        is_bounded = len(self._messages) > 1 or self._kind is CallKind.TERMINATE
        for backend, message in self._messages:
            deadline_s = self.desk.fan_out_deadline_s(self.exchange, backend) if is_bounded else None
            self._call(message, kind=self._kind, backend=backend, session=self.exchange.session, deadline_s=deadline_s)
        self._acknowledge_when_done()

    def _on_answer(self, answer: CallAnswered) -> None:
        self._accepted += 1
        self._upstream_s = max(self._upstream_s, answer.upstream_s)
        self._acknowledge_when_done()

    def _on_failure(self, failure: CallFailed) -> None:
        self._failure = failure
        self._acknowledge_when_done()

    def _acknowledge_when_done(self) -> None:
        if self._open_calls:
            return
        if self._kind is CallKind.TERMINATE:
            self._answer(200, b"", {}, "", self._upstream_s)
        elif self._failure is not None and not self._accepted and not self._failure.is_session_lost:
            self._refuse(self._refusal_for(self._failure), self._failure.backend)
        else:
            self._answer(202, b"", {}, "", self._upstream_s)
