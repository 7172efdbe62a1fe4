"""`initialize`: a session at every backend of the endpoint, sealed into one."""

from __future__ import annotations

import msgspec

from mcp_gateway.actors.messages.calls import CallAnswered, CallFailed
from mcp_gateway.transports.ports.edge_port import AnswerSink, Exchange
from mcp_gateway.transports.ports.failure import Fate
from mcp_gateway.transports.ports.hash_keys import holder_of, principal_of
from mcp_gateway.transports.protocol.mcp import jsonrpc
from mcp_gateway.transports.protocol.mcp.jsonrpc import Request, Response
from mcp_gateway.transports.protocol.mcp.refusals import Refused
from mcp_gateway.transports.protocol.merging.merged_server import common_revision, merged_initialize
from mcp_gateway.transports.protocol.sealed.kept_handshake import kept_handshake, kept_user
from mcp_gateway.transports.protocol.sealed.session import MAX_ID_CHARACTERS, SessionState, UpstreamSession

from .conversation import Conversation, may_go_elsewhere, stands_alone_for
from .desk import CallWish, Desk


class OpenSession(Conversation):
    """`initialize`: opens a session at every backend of the endpoint and seals them into one.

    Raises: Refused with too_large for what no session has room for.

    A backend that is starting is left out like any that is late, unless nobody else has opened a session: then the first of those
    that are starting is waited for, as long as the client itself waits.
    """

    def __init__(self, exchange: Exchange, sink: AnswerSink, desk: Desk) -> None:
        super().__init__(exchange, sink, desk)
        message = exchange.message
        assert isinstance(message, Request)
        try:
            self._kept = kept_handshake(message.params)  # before any server is asked: one that has no room opens nothing
        except Refused as refused:
            refused.request_id = message.id
            raise
        self._key = exchange.hash_keys["session"]
        self._namings = desk.namings(exchange)
        self._backend_of: dict[int, str] = {}
        self._answers: dict[str, CallAnswered] = {}
        self._failures: dict[str, CallFailed] = {}
        self._excluded: dict[str, frozenset[str]] = {}
        self._slow: set[str] = set()  # those that were starting
        self._is_waiting = len(self._namings) == 1  # for those that are starting, as long as the client waits

    def _start(self) -> None:
        for naming in self._namings:
            self._ask(naming.backend)

    def _ask(self, backend: str) -> None:
        deadline_s = None if self._is_waiting else self.desk.fan_out_deadline_s(self.exchange, backend)
        excluded = self._excluded.get(backend, frozenset())
        message = self.exchange.message
        wish = CallWish(message=message, backend=backend, opens_session=True, excluded=excluded, deadline_s=deadline_s)
        call_id = self._call(wish)
        self._backend_of[call_id] = backend

    def _on_answer(self, answer: CallAnswered) -> None:
        self._answers[answer.backend] = answer
        self.desk.note_punctuality(answer.backend, was_late=False)
        self._conclude()

    def _on_failure(self, failure: CallFailed) -> None:
        backend = self._backend_of[failure.call_id]
        tried = self._excluded.get(backend, frozenset())
        if may_go_elsewhere(failure, tried):
            self._excluded[backend] = tried | {failure.replica}
            self._ask(backend)
            return
        if failure.why.reason == "upstream_timeout":
            self.desk.note_punctuality(backend, was_late=True)
        if failure.why.fate is Fate.STARTING:
            self._slow.add(backend)
        self._failures[backend] = failure
        self._conclude()

    def _conclude(self) -> None:
        opened = {backend: opened_session(answer) for backend, answer in self._answers.items()}
        upstreams = tuple(each for each in (opened.get(naming.backend) for naming in self._namings) if each is not None)
        if self._is_waiting and upstreams:
            for call_id in list(self._open_calls):
                self._cancel(call_id)
        if self._open_calls:
            return
        if not upstreams and not self._is_waiting and self._starting():
            self._is_waiting = True
            for backend in self._starting():
                del self._failures[backend]
                self._ask(backend)
            return
        request_id = self._request_id() or jsonrpc.NULL
        if not upstreams:
            self._refuse_all(request_id)
            return
        if stands_alone_for(self.exchange, self._namings):
            answer = self._answers[upstreams[0].backend]
            assert answer.response is not None
            revision, body = told_revision(answer), jsonrpc.encode_response(answer.response)
        else:
            answers = [self._answers[each.backend] for each in upstreams]
            revision = common_revision(self.exchange.revision, (told_revision(answer) for answer in answers))
            results = [(answer.backend, _decoded_result(answer)) for answer in answers]
            more_come = not self._slow <= {each.backend for each in upstreams}
            merged = merged_initialize(results, revision, self.desk.server_info, more_come=more_come)
            if instructions := self.desk.instructions(self.exchange):
                merged["instructions"] = instructions
            body = jsonrpc.encode_result(request_id, merged)
        state = SessionState(
            self._key,
            self.exchange.address,
            revision,
            kept_user(self.exchange.hash_keys.get("user", "")),
            self._kept,
            upstreams,
            holder=holder_of(self.exchange.hash_keys),
            principal=principal_of(self.exchange.hash_keys),
        )
        try:
            headers = {"Mcp-Session-Id": self.desk.issue_session(state)}
        except Refused as refused:
            for upstream in upstreams:
                self._dismiss(state, upstream.backend)
            refused.request_id = request_id
            self._refuse(refused, "")
            return
        backend = upstreams[0].backend if len(upstreams) == 1 else ""
        self._answer(200, body, headers, backend, max(answer.upstream_s for answer in self._answers.values()))

    def _starting(self) -> list[str]:
        return [backend for backend, failure in self._failures.items() if failure.why.fate is Fate.STARTING]

    def _refuse_all(self, request_id: bytes) -> None:
        refusing = next((answer for answer in self._answers.values() if answer.response and answer.response.error), None)
        if refusing is not None and refusing.response is not None:
            error = Response(request_id, b"", refusing.response.error)
            self._answer(refusing.status, jsonrpc.encode_response(error), {}, refusing.backend, refusing.upstream_s)
        elif self._failures:
            starting = [self._failures[backend] for backend in self._starting()]
            failure = (starting or list(self._failures.values()))[0]
            refused = self._refusal_for(failure)
            if starting:
                refused.text = "; ".join(each.why.text for each in starting)
            self._refuse(refused, failure.backend)
        else:
            self._refuse(Refused("upstream_failed", "no backend opened a session", request_id=request_id), "")


def opened_session(answer: CallAnswered) -> UpstreamSession | None:
    """The upstream session that an answer to `initialize` opened, or None where it is an error or malformed, and where it has no
    use: an id that is longer than one of ours may be.
    """
    if answer.response is None or not answer.response.result:
        return None
    try:
        revision = told_revision(answer)
    except (KeyError, msgspec.DecodeError, RecursionError):
        return None
    if len(answer.upstream_session_id or "") > MAX_ID_CHARACTERS:
        return None
    return UpstreamSession(answer.backend, answer.replica, answer.upstream_session_id, answer.upstream_revision or revision)


def told_revision(answer: CallAnswered) -> str:
    """The revision that the answer to `initialize` tells the client.

    Raises: KeyError, msgspec.DecodeError, RecursionError where it tells none.
    """
    revision = _decoded_result(answer)["protocolVersion"]
    return msgspec.convert(revision, str)


def _decoded_result(answer: CallAnswered) -> dict[str, object]:
    assert answer.response is not None
    result: dict[str, object] = msgspec.json.decode(answer.response.result)
    return result
