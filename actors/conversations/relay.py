"""One request for one backend: tried again elsewhere while it is safe, its session opened again when it was lost."""

from __future__ import annotations

from typing import Final

import msgspec
from msgspec import Raw

from mcp_gateway.actors.messages.calls import CallAnswered, CallEvent, CallFailed
from mcp_gateway.transports.ports.edge_port import AnswerSink, Exchange
from mcp_gateway.transports.ports.failure import Fate
from mcp_gateway.transports.ports.request_kind import RequestKind
from mcp_gateway.transports.protocol.mcp import jsonrpc
from mcp_gateway.transports.protocol.mcp.jsonrpc import Request, Response
from mcp_gateway.transports.protocol.mcp.refusals import Refused
from mcp_gateway.transports.protocol.merging.naming import Naming, inner_params, outer_result
from mcp_gateway.transports.protocol.sealed.session import FACT_METHODS

from .conversation import Conversation, has_turned_away, may_go_elsewhere, outer_event_id
from .desk import CallWish, Desk
from .repeat_rules import MAX_PAGES, may_repeat, needs_annotations, next_cursor, only_reads, tool_name, tools_request
from .session_repair import Repair, SessionRepair

_HEDGE: Final = "hedge"


class RelayRequest(Conversation):
    """One request for one backend.

    Sent again only where that is safe: it never reached the server, or the server did not know the session, or the connection
    broke and the request only reads, or its tool is annotated as one that may run twice. One that only reads goes to another
    replica as well after an answer that is none. What a server may have seen is sent again once, within the backend's retry
    budget. A session that was lost is opened again, with the client's own parameters: once, and once more for each change of the
    cells that are there, one of which may have taken it along.

    A request that only reads may be hedged: where one replica takes long, another one is asked as well, within the same budget,
    and the first to say something is listened to.
    Source: Dean, Barroso, "The Tail at Scale", hedged requests.
    """

    def __init__(
        self, exchange: Exchange, sink: AnswerSink, desk: Desk, backend: str, kind: RequestKind = RequestKind.REQUEST
    ) -> None:
        super().__init__(exchange, sink, desk)
        self._backend = backend
        self._kind = kind
        self._session = exchange.session
        self._excluded: frozenset[str] = frozenset()
        self._repair: SessionRepair | None = None
        self._broken: CallFailed | None = None  # how the request itself failed, while we find out whether it may be repeated
        self._first_call = 0
        self._hedge = 0
        self._failed_beside: CallFailed | None = None  # how the one of two calls failed while the other still runs
        self._lookup_call = 0
        self._lookup_pages = 0

    def _start(self) -> None:
        self._first_call = self._call(
            CallWish(
                message=self.exchange.message,
                kind=self._kind,
                backend=self._backend,
                session=self._session,
                excluded=self._excluded,
            )
        )

        after_s = self.desk.hedge_after_s(self._backend)
        if after_s and not self._hedge and self._may_be_hedged():
            self.desk.retry_later(self.exchange, after_s, _HEDGE)

    def _may_be_hedged(self) -> bool:
        message = self.exchange.message
        if self._kind is not RequestKind.REQUEST or self._session is not None:
            return False
        return isinstance(message, Request) and only_reads(message)

    def retry(self, backend: str) -> None:
        is_waiting = self._first_call in self._open_calls and not self._has_begun and not self._is_over
        if backend == _HEDGE and is_waiting and not self._hedge and self.desk.may_retry(self._backend):
            self._hedge = self._call(
                CallWish(message=self.exchange.message, backend=self._backend, excluded=self._excluded, hedges=self._first_call)
            )

    def _on_answer(self, answer: CallAnswered) -> None:
        if self._repair is not None and self._repair.owns(answer.call_id):
            self._on_repair(self._repair.answered(answer), answer.backend)
        elif answer.call_id == self._lookup_call:
            self._on_tools(answer)
        else:
            self._note_facts(answer)
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
        if naming is not None and response.result and not response.is_plain:
            response = Response(response.id, outer_result(naming, response.result), b"")
        body = jsonrpc.encode_in_pieces(response)
        self._answer_once_known(answer.status, body, answer.backend, answer.upstream_s)

    def _on_event(self, event: CallEvent) -> None:
        if self._hedge:
            for call_id in self._open_calls - {event.call_id}:
                self._cancel(call_id)
        naming = self._naming(event.backend)
        self._forward(event, self._outer(naming, event, self._session), outer_event_id(naming, event.event_id))

    def _on_failure(self, failure: CallFailed) -> None:
        if self._hedge and self._open_calls:  # the other one may have an answer
            self._failed_beside = failure
            return
        beside = self._failed_beside
        if beside is not None and beside.replica and not failure.replica:  # there was no other replica to ask
            failure, self._failed_beside = beside, None
        has_session = self._session is not None and self._session.upstream(failure.backend) is not None
        can_go_elsewhere = not self._has_begun and may_go_elsewhere(failure, self._excluded)
        if has_turned_away(failure):
            self._excluded |= {failure.replica}
        # A server that is only busy keeps its sessions: opening them elsewhere would lose what it holds for its clients.
        is_unreachable = can_go_elsewhere and failure.why.reason != "pool_exhausted"
        if self._repair is not None and self._repair.owns(failure.call_id):
            progress = self._repair.failed(failure, self._excluded, can_go_elsewhere=can_go_elsewhere)
            if progress is Repair.UNREACHABLE:
                self._give_up(failure)
            else:
                self._on_repair(progress, failure.backend)
            return
        if failure.why.fate is Fate.SESSION_LOST or (has_session and is_unreachable):
            may_reopen = self._session is not None and not self.desk.is_session_ended(self._session)
            if may_reopen and (self._repair is None or self._repair.may_be_outdated):
                self._reopen(failure.backend)
                return
        elif can_go_elsewhere and not has_session:
            self._go_on()
            return
        elif self._broken is None and not self._has_begun and self._repeat(failure):
            return
        self._give_up(failure)

    def _give_up(self, failure: CallFailed) -> None:
        """Refuse, and say so where the request may have run."""
        is_of_repair = self._repair is not None and self._repair.owns(failure.call_id)
        broken = self._broken or (failure if failure.why.fate.is_cut and not is_of_repair else None)
        refused = self._refusal_for(broken or failure)
        message = self.exchange.message
        if broken is not None and broken.why.fate.is_cut and isinstance(message, Request) and not only_reads(message):
            refused.text += "; the request may have run and was NOT run again"
        self._refuse(refused, failure.backend)

    # ---- repeating

    def _repeat(self, failure: CallFailed) -> bool:
        """Begin to send the request again where that can be safe; False where it cannot.

        Source: MCP 2025-11-25, schema, ToolAnnotations, `readOnlyHint` and `idempotentHint`.
        """
        message = self.exchange.message
        if self._kind is not RequestKind.REQUEST or not isinstance(message, Request):
            return False
        is_for_others = failure.why.fate is Fate.BROKEN and bool(failure.replica) and self._session is None
        if not failure.why.fate.is_cut and not is_for_others:
            return False
        if not only_reads(message) and (is_for_others or not needs_annotations(message)):
            return False
        if not self.desk.may_retry(failure.backend):
            return False
        if is_for_others:  # the same one would most likely answer the same
            self._excluded |= {failure.replica}
        self._broken = failure
        self._go_on()
        return True

    def _go_on(self) -> None:
        """The next step after a failure that was overcome: find out about the tool first where the request may have run."""
        message = self.exchange.message
        if self._broken is not None and isinstance(message, Request) and needs_annotations(message):
            self._look_up(None)
        else:
            self._start()

    def _look_up(self, cursor: Raw | None) -> None:
        assert isinstance(self.exchange.message, Request)
        assert self._broken is not None
        request = tools_request(self.exchange.message, cursor)
        self._lookup_pages += 1
        self._lookup_call = self._call(
            CallWish(message=request, backend=self._broken.backend, session=self._session, excluded=self._excluded)
        )

    def _on_tools(self, answer: CallAnswered) -> None:
        assert isinstance(self.exchange.message, Request)
        assert self._broken is not None
        result = answer.response.result if answer.response is not None else b""
        name = tool_name(self.exchange.message)
        naming = self._naming(answer.backend)
        verdict = may_repeat(result, name if naming is None else naming.inner_name(name)) if result else False
        cursor = next_cursor(result) if verdict is None else None
        if cursor is not None and self._lookup_pages < MAX_PAGES:
            self._look_up(cursor)
        elif verdict:
            self._start()
        else:
            self._give_up(self._broken)

    # ---- the session

    def _reopen(self, backend: str) -> None:
        assert self._session is not None
        self._repair = SessionRepair(self._call, self._dismiss, self.desk, self._session, backend, self._naming(backend))
        self._on_repair(self._repair.start(self._excluded), backend)

    def _on_repair(self, progress: Repair, backend: str) -> None:
        assert self._repair is not None
        if progress is Repair.DONE:
            self._session = self._repair.session
            self._go_on()
        elif progress is Repair.REFUSED:
            text = f"the session at backend {self._repair.backend!r} was lost and could not be opened again"
            self._refuse(Refused("upstream_failed", text, request_id=self._request_id()), backend)

    def _note_facts(self, answer: CallAnswered) -> None:
        """Keep what the server has accepted: after a repair it is told again."""
        message = self.exchange.message
        if self._session is None or not isinstance(message, Request) or message.method not in FACT_METHODS:
            return
        if answer.response is None or not answer.response.result:
            return
        naming = self._naming(answer.backend)
        params = message.params if naming is None else inner_params(naming, message.method, message.params)
        self._session = self._changed = self.desk.note_facts(self._session, answer.backend, message.method, params)

    def _naming(self, backend: str) -> Naming | None:
        """How to rename what this backend says, or None where it stands alone."""
        if self.exchange.endpoint:
            return None
        naming = self.desk.merged_naming(backend)
        return naming if naming is not None and naming.prefix else None


class RelayList(RelayRequest):
    """A list of one backend, without what the client may not use."""

    def _deliver(self, answer: CallAnswered) -> None:
        message, response = self.exchange.message, answer.response
        if isinstance(message, Request) and response is not None and response.result:
            result = self.desk.shown_list(self.exchange, answer.backend, message.method, response.result)
            answer = msgspec.structs.replace(answer, response=Response(response.id, result, b""))
        super()._deliver(answer)
