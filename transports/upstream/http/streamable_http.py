"""Streamable HTTP towards servers: every revision from 2025-03-26 on, over kept-alive connections."""

from __future__ import annotations

import asyncio
import codecs
import contextlib
import time
from collections.abc import Coroutine
from typing import Any, Final

import attrs
import msgspec
from msgspec.structs import replace

from mcp_gateway.config.backend_settings import BackendSettings
from mcp_gateway.transports.ports.failure import Fate
from mcp_gateway.transports.ports.loop_turns import NextTurn
from mcp_gateway.transports.ports.request_kind import RequestKind
from mcp_gateway.transports.ports.strategies import ReplicaTarget, url_of
from mcp_gateway.transports.ports.upstream_port import (
    CredentialRefused,
    EventHandler,
    Stray,
    UpstreamAnswer,
    UpstreamConversation,
    UpstreamError,
    UpstreamRequest,
    ignore_events,
    only_legacy,
    refuses_credential,
)
from mcp_gateway.transports.protocol.eras.own_requests import INITIALIZED, PROBE_ID, discover, initialize, ping
from mcp_gateway.transports.protocol.eras.server_era import ServerEra, may_be_modern
from mcp_gateway.transports.protocol.framing.pieces import Pieces, joined
from mcp_gateway.transports.protocol.framing.sse import EventStreamParser, EventTooLarge
from mcp_gateway.transports.protocol.mcp import jsonrpc
from mcp_gateway.transports.protocol.mcp.error_codes import MODERN_ERRORS, error_code
from mcp_gateway.transports.protocol.mcp.jsonrpc import Notification, Request, Response
from mcp_gateway.transports.protocol.mcp.modern_rules import encoded_header
from mcp_gateway.transports.protocol.mcp.revisions import (
    ITEM_MEMBER,
    NEWEST,
    NEWEST_LEGACY,
    READING_METHODS,
    is_modern,
    negotiated_with_server,
)

from .answer_reading import EVENT_STREAM, RESULT_FRAME, Said, media_type, read_refusal, read_said
from .client_tls import ClientTls
from .dropped_messages import DroppedMessages
from .failure_text import FailureLog
from .http1_client import Asking, CannotConnect, Http1Client
from .own_messages import OwnMessages
from .plain_exchange import PlainExchange
from .same_origin import MAX_REDIRECTS, LedAstray, address_within_origin, is_redirect
from .server_connection import Answer, ExchangeCut
from .server_words import ServerWords, retry_after_s
from .session_sign import SessionSign

# A lost connection does not tell whether a tool has run; these may be asked again in any case.
_REPEATABLE: Final = READING_METHODS | {"initialize", "ping"}
_RETRY_S: Final = 1.0  # where a server that ends a stream does not say when to come back
_SHORTEST_RETRY_S: Final = 0.1
_LONGEST_PING_S: Final = 5.0
_REFUSAL_S: Final = 5.0  # longest wait for the body of a refusal, which a stream of its own has no deadline for
_WORDS_IN_TEXT: Final = 200  # characters; there is more in the error's data


class _Unfinished(UpstreamError):
    """A stream has ended before its response. event_id: where it can be read on, "" for nowhere. retry_s: if it told."""

    def __init__(self, text: str, event_id: str, retry_s: float | None) -> None:
        super().__init__(Fate.CUT, text)
        self.event_id = event_id
        self.retry_s = retry_s


class _RefusedByStatus(UpstreamError):
    """A status that is no success, without a JSON-RPC answer for us."""

    def __init__(self, fate: Fate, text: str, status: int, error: bytes, wait_s: float | None) -> None:
        super().__init__(fate, text, error=error, retry_after_s=wait_s)
        self.status = status


@attrs.frozen
class _ProbeSession:
    id: str
    revision: str


class StreamableHttpUpstream:
    """Registry strategy for http(s) replicas."""

    name = "streamable_http_upstream"
    schemes = frozenset({"http", "https"})

    def connect(self, target: ReplicaTarget, era: ServerEra | None = None) -> UpstreamConversation:
        backend, url = target.backend, url_of(target.address)
        era = era or ServerEra(backend.protocol)
        return StreamableHttpConversation(backend, target.replica_id, url, target.max_message_bytes, era)


class StreamableHttpConversation:
    """The wire to one replica. How many exchanges run at once is the connection pool's business."""

    def __init__(self, backend: BackendSettings, replica: str, url: str, max_message_bytes: int, era: ServerEra) -> None:
        self._backend = backend
        self._era = era
        self._url = url
        self._words = ServerWords(backend)
        self._failures = FailureLog(replica, self._words)
        self._own = OwnMessages(DroppedMessages(backend.name, replica))
        self.max_message_bytes = max_message_bytes
        self._http = Http1Client(
            url,
            {"Accept": "application/json, text/event-stream", "Accept-Encoding": "identity", "User-Agent": "mcp-gateway"},
            ClientTls.of(backend),
        )
        self.deadlines = self._http.deadlines
        self.sending, self.hearing = NextTurn(), NextTurn()
        self._probe_session: _ProbeSession | None = None

    # ---- exchanges

    def exchange(self, request: UpstreamRequest, on_event: EventHandler) -> Coroutine[Any, Any, UpstreamAnswer]:
        """Where the server may be asked at once, and one answer ends it, that needs no task."""
        if request.kind is RequestKind.REQUEST and request.on_open is None and not self._is_of_other_era(request):
            return PlainExchange(self, request, self._own.of(request, on_event))
        return self._exchange(request, on_event)

    async def _exchange(self, request: UpstreamRequest, on_event: EventHandler) -> UpstreamAnswer:
        with self._own.of(request, on_event) as hear:
            return await self.speak(request, hear)

    def ask(self, request: UpstreamRequest) -> Asking:
        assert request.message is not None
        body = jsonrpc.encode(request.message)
        may_repeat = _may_repeat(request.message)
        return self._http.request("POST", self._url, self._headers(request), body, request.timeout_s, may_repeat=may_repeat)

    async def speak(self, request: UpstreamRequest, on_event: EventHandler, begun: Asking | None = None) -> UpstreamAnswer:
        headers = self._headers(request)
        message = request.message
        if message is None:
            if request.kind is RequestKind.STREAM:
                return await self._listen(headers, request, on_event)
            return await self._speak("DELETE", b"", headers, request, on_event)
        if self._is_of_other_era(request):
            raise only_legacy()
        body = jsonrpc.encode(message)
        give_up_s = time.monotonic() + (request.timeout_s or float("inf"))
        if not _is_in_session(request):
            return await self._post(body, give_up_s, headers, request, on_event, begun)
        try:
            answer = await self._post(body, give_up_s, headers, request, on_event, begun)
        except UpstreamError as error:
            await self._check_session(_sign_of(error), request, give_up_s)
            raise
        await self._check_session(_sign_of(answer), request, give_up_s)
        return answer

    def _is_of_other_era(self, request: UpstreamRequest) -> bool:
        return self._era.speaks_modern is False and is_modern(request.revision)

    async def _post(
        self,
        body: bytes,
        give_up_s: float,
        headers: dict[str, str],
        request: UpstreamRequest,
        on_event: EventHandler,
        begun: Asking | None,
    ) -> UpstreamAnswer:
        try:
            return await self._speak("POST", body, headers, request, on_event, begun)
        except _Unfinished as cut:
            if not cut.event_id or is_modern(request.revision):
                raise
            return await self._read_on(cut, give_up_s, request, on_event)
        except UpstreamError as error:
            assert request.message is not None
            cause = error.__cause__
            if isinstance(cause, ExchangeCut) and cause.before_answer and _may_repeat(request.message):
                return await self._speak("POST", body, headers, request, on_event)
            raise

    async def _check_session(self, sign: SessionSign | None, request: UpstreamRequest, give_up_s: float) -> None:
        """Where the server may have meant that it does not know the session, a ping in it tells.

        Source: MCP 2025-11-25, basic/transports, "Session Management" asks for 404; servers say it in many ways.

        Raises: UpstreamError with SESSION_LOST: the request was refused as every other one in this session is.
        """
        if sign is None or not _is_in_session(request):
            return
        left_s = min(_LONGEST_PING_S, give_up_s - time.monotonic())
        if left_s > 0 and sign.is_confirmed_by(await self._ping_sign(request, left_s)):
            raise UpstreamError(Fate.SESSION_LOST, "the server does not know the session")

    async def _ping_sign(self, request: UpstreamRequest, timeout_s: float) -> SessionSign | None:
        """How the server refuses a ping in the session of the request; None where it does not."""
        ask = replace(
            request, kind=RequestKind.REQUEST, message=ping(PROBE_ID), timeout_s=timeout_s, on_open=None, last_event_id=None
        )
        assert ask.message is not None
        try:
            return _sign_of(await self._speak("POST", jsonrpc.encode(ask.message), self._headers(ask), ask, ignore_events))
        except UpstreamError as error:
            return _sign_of(error)

    async def _listen(self, headers: dict[str, str], request: UpstreamRequest, on_event: EventHandler) -> UpstreamAnswer:
        """A server that serves no GET at all may answer 404 as well: whether it has lost the session, a ping tells."""
        try:
            return await self._speak("GET", b"", headers, request, on_event)
        except _RefusedByStatus as error:
            await self._check_session(_sign_of(error), request, time.monotonic() + _LONGEST_PING_S)
            if error.status != 404:
                raise
            raise UpstreamError(Fate.REFUSED, "the server offers no such stream", reason="unknown_method") from None

    async def _read_on(
        self, cut: _Unfinished, give_up_s: float, request: UpstreamRequest, on_event: EventHandler
    ) -> UpstreamAnswer:
        """Poll for the rest of an answer whose stream the server has ended.

        Source: MCP 2025-11-25, basic/transports, "Sending Messages to the Server", item 6, and "Resumability and Redelivery".
        """
        event_id, retry_s = cut.event_id, _RETRY_S if cut.retry_s is None else cut.retry_s
        while True:
            await asyncio.sleep(min(max(retry_s, _SHORTEST_RETRY_S), max(0.0, give_up_s - time.monotonic())))
            left_s = give_up_s - time.monotonic()
            if left_s <= 0:
                raise UpstreamError(Fate.TIMED_OUT, "the server did not answer in time")
            rest = replace(request, timeout_s=left_s, last_event_id=event_id, on_open=None)
            headers = {
                **self._headers(replace(rest, kind=RequestKind.STREAM, message=None)),
                "Accept": "text/event-stream",
            }
            try:
                return await self._speak("GET", b"", headers, rest, on_event)
            except _Unfinished as again:
                event_id, retry_s = again.event_id, retry_s if again.retry_s is None else again.retry_s
            except UpstreamError as error:
                if error.failure.reason == "upstream_timeout":
                    raise
                # Also where the session is lost: the call may have run.
                raise UpstreamError(Fate.CUT, cut.failure.text) from error

    async def _speak(
        self,
        verb: str,
        body: bytes,
        headers: dict[str, str],
        request: UpstreamRequest,
        on_event: EventHandler,
        begun: Asking | None = None,
    ) -> UpstreamAnswer:
        """begun: where it was sent already."""
        url = self._url
        started_s = time.monotonic()
        try:
            for _ in range(MAX_REDIRECTS + 1):
                left_s = request.timeout_s and max(0.001, request.timeout_s - (time.monotonic() - started_s))
                may_repeat = request.message is not None and _may_repeat(request.message)
                asking = self._http.request(verb, url, headers, body, left_s, may_repeat=may_repeat)
                if begun is not None:
                    asking, begun = begun.within(left_s), None
                async with asking as response:
                    if not is_redirect(verb, response.status):
                        return await self._read(response, request, on_event)
                    url = address_within_origin(url, response.headers.get("location", ""))
            raise LedAstray("the server redirects too often")
        except LedAstray as error:
            raise UpstreamError(Fate.BROKEN, str(error)) from None
        except CannotConnect as error:
            text = f"cannot connect: {self._failures.note(error.__cause__ or error)}"
            raise UpstreamError(Fate.UNREACHABLE, text) from error
        except TimeoutError as error:
            raise UpstreamError(Fate.TIMED_OUT, "the server did not answer in time") from error
        except (ExchangeCut, EventTooLarge, ValueError) as error:
            fate = Fate.CUT if isinstance(error, ExchangeCut) else Fate.BROKEN
            raise UpstreamError(fate, f"the connection failed: {self._failures.note(error)}") from error

    async def _read(self, response: Answer, request: UpstreamRequest, on_event: EventHandler) -> UpstreamAnswer:
        status = response.status
        content_type = media_type(response.headers)
        session_id = response.headers.get("mcp-session-id")
        if self._backend.gets_tokens and refuses_credential(status, response.headers.get("www-authenticate", "")):
            raise CredentialRefused(status, dict(response.headers))
        if not 200 <= status < 300:
            return await self._read_refusal(response, content_type == EVENT_STREAM, request, on_event)
        if request.kind in (RequestKind.MESSAGE, RequestKind.TERMINATE):
            return UpstreamAnswer(status, None, session_id)
        if content_type == EVENT_STREAM:
            return await self._read_events(response, request, on_event, session_id)
        problem = f"the server answered with status {status} and {content_type or 'no body'}"
        if not isinstance(request.message, Request):
            raise UpstreamError(Fate.BROKEN, problem)
        content = await self._whole(response)
        said = read_said(content, request.message.id)
        self._note_foreign(said)
        if said.answer is None:
            is_said = content_type == "application/json" and status == 200
            problem = f"the server's answer is {said.problem}" if is_said else problem
            raise UpstreamError(Fate.BROKEN, problem, error=self._words.error(said.error, joined(content)))
        for message in said.beside:
            await on_event(message, None)
        return UpstreamAnswer(200, said.answer, session_id)

    async def _read_events(
        self, response: Answer, request: UpstreamRequest, on_event: EventHandler, session_id: str | None
    ) -> UpstreamAnswer:
        if request.on_open is not None:
            request.on_open()
        parser = EventStreamParser(self.max_message_bytes)
        own_id = request.message.id if isinstance(request.message, Request) else jsonrpc.NULL
        last_id, retry_s = request.last_event_id or "", None
        try:
            async for chunk in response.parts():
                for event in parser.feed(chunk):
                    last_id = last_id if event.event_id is None else event.event_id
                    retry_s = retry_s if event.retry_ms is None else event.retry_ms / 1000
                    if event.event != "message":
                        continue
                    if not event.data:
                        await on_event(None, event.event_id)
                        continue
                    said = read_said(event.data, own_id)
                    if said.foreign_count:
                        self._note_foreign(said)
                    for number, message in enumerate(said.beside, start=1):
                        await on_event(message, event.event_id if number == len(said.beside) else None)
                    if own_id == jsonrpc.NULL:
                        continue  # nothing that a stream without a request could answer
                    if said.answer is not None:
                        response.let_end()
                        return UpstreamAnswer(200, said.answer, session_id)
                    if said.foreign is not None or not said.beside:
                        text = f"the server sent an event that is {said.problem}"
                        raise UpstreamError(Fate.BROKEN, text, error=self._words.error(said.error, event.data))
        except ExchangeCut as error:
            if request.kind is not RequestKind.REQUEST or not last_id:
                raise
            raise _Unfinished(f"the connection failed: {self._failures.note(error)}", last_id, retry_s) from error
        if request.kind is RequestKind.REQUEST:
            raise _Unfinished("the server ended its stream without a response", last_id, retry_s)
        return UpstreamAnswer(200, None, session_id)

    def _note_foreign(self, said: Said) -> None:
        for _ in range(said.foreign_count):
            self._own.dropped.note(Stray.RESPONSE, "a response to another request than its own")

    async def _whole(self, response: Answer) -> Pieces:
        """A large result is a piece of its own."""
        limit = self.max_message_bytes
        if response.content_length is not None and response.content_length > limit:
            raise UpstreamError(Fate.BROKEN, f"the answer is larger than {limit} bytes")
        if response.content_length is not None:
            return _without_mark(await response.read_framed(RESULT_FRAME))
        parts, size = [], 0
        async for part in response.parts():
            size += len(part)
            if size > limit:
                raise UpstreamError(Fate.BROKEN, f"the answer is larger than {limit} bytes")
            parts.append(part)
        return _without_mark(b"".join(parts))

    async def _refusal_body(self, response: Answer) -> bytes:
        """What can be had of it: the status says enough without."""
        try:
            async with asyncio.timeout(_REFUSAL_S):
                return joined(await self._whole(response))
        except (UpstreamError, ExchangeCut, TimeoutError):
            return b""

    async def _read_refusal(
        self, response: Answer, is_event_stream: bool, request: UpstreamRequest, on_event: EventHandler
    ) -> UpstreamAnswer:
        """A JSON-RPC answer is an answer whatever its status; all else is a failure of the exchange.

        No clause of MCP says what status an answer has. Of one that is refused with 4xx any error is taken for the answer: many
        servers write an id of their own where they have not read the request's.
        """
        status = response.status
        own_id = request.message.id if isinstance(request.message, Request) else jsonrpc.NULL
        content = await self._refusal_body(response)
        said = read_refusal(content, own_id, is_event_stream=is_event_stream)
        error, answer = said.error, said.answer
        is_client_fault = 400 <= status < 500
        # A modern server that knows no handshake, where a legacy one may have been.
        has_no_sessions = is_client_fault and not is_modern(request.revision) and error_code(error) in MODERN_ERRORS
        if has_no_sessions and not self._era.speaks_modern:
            self._era.forget()
        is_over = status == 404 and request.kind is RequestKind.TERMINATE
        if request.session_id is not None and (has_no_sessions or is_over):
            raise UpstreamError(Fate.SESSION_LOST, "the server does not know the session")
        if status == 405 and request.message is None:
            raise UpstreamError(Fate.REFUSED, "the server offers no such stream", reason="unknown_method")
        is_result = answer is not None and bool(answer.result)
        if is_modern(request.revision) and is_client_fault and not is_result and not may_be_modern(error):
            if not self._era.speaks_modern:
                raise only_legacy()
            if status == 400:
                self._era.forget()  # what a legacy server says to any modern request
        if answer is None and error and is_client_fault:
            answer = Response(own_id, b"", error)
        # A server that fails at what it does not know has told nothing of its era.
        is_discovery = isinstance(request.message, Request) and request.message.method == "server/discover"
        if answer is not None and isinstance(request.message, Request) and (is_client_fault or not is_discovery):
            for message in said.beside:
                await on_event(message, None)
            return UpstreamAnswer(status, answer)
        fate = Fate.REFUSED if is_client_fault else Fate.BROKEN
        shown = self._words.text(error or content)[:_WORDS_IN_TEXT]
        text = f"the server answered with status {status}{': ' if shown else ''}{shown}"
        wait_s = retry_after_s(response.headers.get("retry-after"), time.time())
        raise _RefusedByStatus(fate, text, status, self._words.error(error, content), wait_s)

    def _headers(self, request: UpstreamRequest) -> dict[str, str]:
        headers = {**self._backend.headers, **request.headers}
        message = request.message
        if message is not None:
            headers["Content-Type"] = "application/json"
        elif request.kind is RequestKind.STREAM:
            headers["Accept"] = "text/event-stream"
            if request.last_event_id is not None:
                headers["Last-Event-ID"] = request.last_event_id
        if request.session_id is not None:
            headers["Mcp-Session-Id"] = request.session_id
        if not (isinstance(message, Request) and message.method == "initialize"):
            headers["MCP-Protocol-Version"] = request.revision
        if is_modern(request.revision) and isinstance(message, Request | Notification):
            headers["Mcp-Method"] = message.method
            member = ITEM_MEMBER.get(message.method)
            if member is not None:
                item = jsonrpc.members(message.params).get(member)
                headers["Mcp-Name"] = encoded_header(msgspec.json.decode(item, type=str)) if item is not None else ""
        return headers

    # ---- probes

    async def probe(self, timeout_s: float) -> None:
        """`server/discover` to a modern server; `ping` in a session of our own to one that only knows the handshake."""
        deadline_s = time.monotonic() + timeout_s
        failure: UpstreamError | None = None
        if self._era.speaks_modern is not False:
            try:
                answer = await self._ask(discover(PROBE_ID), NEWEST, None, timeout_s)
                self._era.observe(answer.response, answer.status)
            except UpstreamError as error:
                if error.fate is Fate.UNSUPPORTED:
                    self._era.decide(speaks_modern=False)
                elif self._era.speaks_modern is not None or error.fate not in (Fate.BROKEN, Fate.REFUSED):
                    raise
                failure = error
            if self._era.speaks_modern:
                return
        if self._era.speaks_modern is False:
            if not await self._probe_by_ping(deadline_s):
                self._era.refuse_handshake()
            return
        # It may fail at what it does not know, and serve its own clients well.
        takes_handshake = False
        with contextlib.suppress(UpstreamError):
            takes_handshake = await self._probe_by_ping(deadline_s)
        if failure is not None and not takes_handshake:
            raise failure
        self._era.decide(speaks_modern=not takes_handshake)

    async def _probe_by_ping(self, deadline_s: float) -> bool:
        """Whether the server serves the gateway in a session, as one of the legacy era does."""
        left_s = max(0.1, deadline_s - time.monotonic())
        session = self._probe_session
        if session is not None:
            try:
                await self._ask(ping(PROBE_ID), session.revision, session.id, left_s)
                return True
            except UpstreamError as error:
                if error.fate is not Fate.SESSION_LOST:
                    await self._end_probe_session(min(1.0, deadline_s - time.monotonic()))
                    raise
                self._probe_session = None
        proposed = NEWEST_LEGACY if self._backend.protocol == "auto" else self._backend.protocol
        opened = await self._ask(initialize(PROBE_ID, proposed), proposed, None, left_s)
        if opened.session_id is not None:
            self._probe_session = session = _ProbeSession(opened.session_id, _negotiated(opened, proposed))
            initialized = UpstreamRequest(
                kind=RequestKind.MESSAGE,
                message=INITIALIZED,
                revision=session.revision,
                session_id=session.id,
                timeout_s=left_s,
            )
            await self.exchange(initialized, ignore_events)
        return opened.response is not None and bool(opened.response.result)

    async def _ask(self, message: Request, revision: str, session_id: str | None, timeout_s: float) -> UpstreamAnswer:
        request = UpstreamRequest(
            kind=RequestKind.REQUEST, message=message, revision=revision, session_id=session_id, timeout_s=timeout_s
        )
        return await self.exchange(request, ignore_events)

    async def _end_probe_session(self, timeout_s: float) -> None:
        session, self._probe_session = self._probe_session, None
        if session is not None and timeout_s > 0:
            request = UpstreamRequest(
                kind=RequestKind.TERMINATE, revision=session.revision, session_id=session.id, timeout_s=timeout_s
            )
            with contextlib.suppress(UpstreamError):  # the server forgets an idle session by itself
                await self.exchange(request, ignore_events)

    async def close(self) -> None:
        await self._end_probe_session(1.0)
        await self._http.close()


def _negotiated(opened: UpstreamAnswer, proposed: str) -> str:
    """The revision that the server has chosen, which is to be named from then on: it may refuse any other."""
    try:
        assert opened.response is not None
        return negotiated_with_server(msgspec.json.decode(opened.response.result, type=dict[str, Any])["protocolVersion"])
    except (KeyError, ValueError, RecursionError):
        return proposed


def _without_mark(body: Pieces) -> Pieces:
    """Some servers write a byte order mark. What stands in pieces begins otherwise."""
    return body.removeprefix(codecs.BOM_UTF8) if isinstance(body, bytes) else body


def _may_repeat(message: jsonrpc.Message) -> bool:
    return not isinstance(message, Request) or message.method in _REPEATABLE


def _is_in_session(request: UpstreamRequest) -> bool:
    return request.session_id is not None and not is_modern(request.revision)


def _sign_of(outcome: UpstreamAnswer | UpstreamError) -> SessionSign | None:
    if isinstance(outcome, UpstreamAnswer):
        return SessionSign.of(outcome.status, outcome.response.error) if outcome.response is not None else None
    return SessionSign.of(outcome.status, outcome.failure.error) if isinstance(outcome, _RefusedByStatus) else None
