"""What the client says without a question: a notification, a response, the end of its session."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from mcp_gateway.actors.messages.calls import CallAnswered, CallFailed
from mcp_gateway.transports.ports.edge_port import AnswerSink, Exchange
from mcp_gateway.transports.ports.failure import Fate
from mcp_gateway.transports.ports.request_kind import RequestKind
from mcp_gateway.transports.protocol.mcp.jsonrpc import Message
from mcp_gateway.transports.protocol.sealed.session import UpstreamSession

from .conversation import Conversation
from .desk import CallWish, Desk

_TOLD: Final = "told"


class TellServers(Conversation):
    """What the client says without a question (a notification, a response, the end of its session): passed on, acknowledged."""

    def __init__(
        self, exchange: Exchange, sink: AnswerSink, desk: Desk, messages: Iterable[tuple[str, Message | None]], kind: RequestKind
    ) -> None:
        super().__init__(exchange, sink, desk)
        self._messages = list(messages)
        self._kind = kind
        self._accepted = 0
        self._failure: CallFailed | None = None
        self._upstream_s = 0.0
        self._session = exchange.session
        self._calls: dict[int, tuple[str, Message | None, UpstreamSession | None]] = {}
        self._has_refreshed: set[str] = set()
        self._is_told = True

    def _start(self) -> None:
        if self._kind is RequestKind.TERMINATE and self._session is not None:
            self._session = self.desk.refresh_session(self._session)  # what another cell has opened since ends as well
            self._messages = [(upstream.backend, None) for upstream in self._session.upstreams]
            self._is_told = self.desk.end_session(self.exchange, self._session, _TOLD)
        for backend, message in self._messages:
            self._tell(backend, message)
        self._acknowledge_when_done()

    def retry(self, backend: str) -> None:
        """Every cell refuses the session now."""
        self._is_told = True
        self._acknowledge_when_done()

    def _tell(self, backend: str, message: Message | None) -> None:
        # One backend that hangs must not hold up what the client says to the others, nor its farewell.
        is_bounded = len(self._messages) > 1 or self._kind is RequestKind.TERMINATE
        deadline_s = self.desk.fan_out_deadline_s(self.exchange, backend) if is_bounded else None
        call_id = self._call(
            CallWish(message=message, kind=self._kind, backend=backend, session=self._session, deadline_s=deadline_s)
        )
        self._calls[call_id] = backend, message, self._upstream(backend)

    def _upstream(self, backend: str) -> UpstreamSession | None:
        return self._session.upstream(backend) if self._session is not None else None

    def _on_answer(self, answer: CallAnswered) -> None:
        self._accepted += 1
        self._upstream_s = max(self._upstream_s, answer.upstream_s)
        self._acknowledge_when_done()

    def _on_failure(self, failure: CallFailed) -> None:
        backend, message, used = self._calls[failure.call_id]
        if failure.why.fate is Fate.SESSION_LOST and self._is_open_elsewhere(backend, used):
            self._tell(backend, message)
            return
        self._failure = failure
        self._acknowledge_when_done()

    def _is_open_elsewhere(self, backend: str, used: UpstreamSession | None) -> bool:
        """Whether another cell has opened the session again: there the server may have asked what this answers. Once for each."""
        if self._session is None or backend in self._has_refreshed:
            return False
        self._has_refreshed.add(backend)
        self._session = self.desk.refresh_session(self._session)
        return self._upstream(backend) not in (used, None)

    def _acknowledge_when_done(self) -> None:
        if self._open_calls or not self._is_told:
            return
        if self._kind is RequestKind.TERMINATE:
            self._answer(200, b"", {}, "", self._upstream_s)
        elif self._failure is not None and not self._accepted and self._failure.why.fate is not Fate.SESSION_LOST:
            self._refuse(self._refusal_for(self._failure), self._failure.backend)
        else:
            self._answer(202, b"", {}, "", self._upstream_s)
