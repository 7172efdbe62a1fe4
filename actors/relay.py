"""One request for one backend: tried again elsewhere while it is safe, its session opened again when it was lost."""

from __future__ import annotations

from mcp_gateway.transports.downstream.edge_port import AnswerSink, Exchange
from mcp_gateway.transports.protocol import jsonrpc
from mcp_gateway.transports.protocol.jsonrpc import Notification, Request, Response
from mcp_gateway.transports.protocol.naming import Naming, outer_result
from mcp_gateway.transports.protocol.refusals import Refused

from .conversation import Conversation, Desk, has_turned_away, may_go_elsewhere, outer_event_id, outer_message
from .messages import CallAnswered, CallEvent, CallFailed, CallKind
from .session_opening import opened_session

INITIALIZED = Notification("notifications/initialized", b"")


class Relay(Conversation):
    """One request for one backend: tried again elsewhere while it is safe, its session opened again when it was lost."""

    def __init__(self, exchange: Exchange, sink: AnswerSink, desk: Desk, backend: str, kind: CallKind = CallKind.REQUEST) -> None:
        super().__init__(exchange, sink, desk)
        self._backend = backend
        self._kind = kind
        self._session = exchange.session
        self._excluded: frozenset[str] = frozenset()
        self._has_reopened = False
        self._initialize_call = 0
        self._initialized_call = 0
        self._reopened_at = ""

    def _start(self) -> None:
        self._call(self.exchange.message, kind=self._kind, backend=self._backend, session=self._session, excluded=self._excluded)

    def _on_answer(self, answer: CallAnswered) -> None:
        if answer.call_id == self._initialize_call:
            self._on_reopened(answer)
        elif answer.call_id == self._initialized_call:
            self._start()
        else:
            self._deliver(answer)

    def _deliver(self, answer: CallAnswered) -> None:
        if answer.response is None:
            if self._has_begun:
                self._answer(200, b"", {}, answer.backend, answer.upstream_s)
            else:
                text = "the server ended its stream without a response"
                self._refuse(Refused("upstream_failed", text, request_id=self._request_id()), answer.backend)
            return
        response = answer.response
        naming = self._naming(answer.backend)
        if naming is not None and response.result:
            response = Response(response.id, outer_result(naming, response.result), b"")
        self._answer(answer.status, jsonrpc.encode_response(response), {}, answer.backend, answer.upstream_s)

    def _on_event(self, event: CallEvent) -> None:
        naming = self._naming(event.backend)
        self._forward(event, outer_message(naming, event.message), outer_event_id(naming, event.event_id))

    def _on_failure(self, failure: CallFailed) -> None:
        has_session = self._session is not None and self._session.upstream(failure.backend) is not None
        can_go_elsewhere = not self._has_begun and may_go_elsewhere(failure, self._excluded)
        if has_turned_away(failure):
            self._excluded |= {failure.replica}
        # A server that is only busy keeps its sessions: opening them elsewhere would lose what it holds for its clients.
        is_unreachable = can_go_elsewhere and failure.reason != "pool_exhausted"
        if failure.call_id in (self._initialize_call, self._initialized_call):
            if can_go_elsewhere:
                self._reopen(failure.backend)
                return
        elif failure.is_session_lost or (has_session and is_unreachable):
            may_reopen = self._session is not None and not self.desk.is_session_ended(self._session)
            if may_reopen and not self._has_reopened:
                self._reopen(failure.backend)
                return
        elif can_go_elsewhere and not has_session:
            self._start()
            return
        self._refuse(self._refusal_for(failure), failure.backend)

    def _reopen(self, backend: str) -> None:
        """Open the session at this backend again, with the client's own parameters.

        Safe: the server said that it does not know the session, or was never reached, so the request did not run.
        """
        assert self._session is not None
        self._has_reopened = True
        self._reopened_at = backend
        request = Request(b'"mcp-gateway-reopen"', "initialize", self._session.initialize)
        self._initialize_call = self._call(
            request, backend=backend, session=self._session, opens_session=True, excluded=self._excluded
        )

    def _on_reopened(self, answer: CallAnswered) -> None:
        assert self._session is not None
        opened = opened_session(answer)
        if opened is None:
            text = f"the session at backend {self._reopened_at!r} was lost and could not be opened again"
            self._refuse(Refused("upstream_failed", text, request_id=self._request_id()), answer.backend)
            return
        self._session = self.desk.renew_session(self._session, opened)
        self._initialized_call = self._call(INITIALIZED, kind=CallKind.MESSAGE, backend=self._reopened_at, session=self._session)

    def _naming(self, backend: str) -> Naming | None:
        """How to rename what this backend says, or None where it stands alone."""
        if self.exchange.endpoint:
            return None
        return next((each for each in self.desk.namings("") if each.backend == backend and each.prefix), None)
