"""A desk and a sink that record what a conversation does with them, and refuse what their contracts forbid."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec
from msgspec import Raw

from mcp_gateway.actors.conversations.conversation import Conversation
from mcp_gateway.actors.conversations.desk import CallWish
from mcp_gateway.actors.messages.calls import CallAnswered, CallEvent, CallFailed
from mcp_gateway.transports.ports.edge_port import Exchange
from mcp_gateway.transports.ports.failure import Failure, Fate
from mcp_gateway.transports.ports.hash_keys import PRINCIPAL
from mcp_gateway.transports.ports.request_kind import RequestKind
from mcp_gateway.transports.protocol.curation.search_tools import Question, SearchedList
from mcp_gateway.transports.protocol.curation.tool_index import ToolIndex
from mcp_gateway.transports.protocol.framing.pieces import Pieces
from mcp_gateway.transports.protocol.mcp.jsonrpc import Message, Notification, Request, Response
from mcp_gateway.transports.protocol.mcp.refusals import Refused
from mcp_gateway.transports.protocol.merging.merged_server import PageStart
from mcp_gateway.transports.protocol.merging.naming import Naming
from mcp_gateway.transports.protocol.sealed.question_ids import QuestionId
from mcp_gateway.transports.protocol.sealed.session import SessionState, UpstreamSession
from mcp_gateway.transports.protocol.sealed.task_ids import TaskId

LEGACY, MODERN = "2025-06-18", "2026-07-28"
FILES, MAIL = Naming("files", "files__"), Naming("mail", "mail__")
ALONE = Naming("files", "")
INITIALIZE = b'{"protocolVersion":"2025-06-18","capabilities":{"roots":{}},"clientInfo":{"name":"c","version":"1"}}'


def session_at(*backends: str, replica: str = "#0", revision: str = LEGACY) -> SessionState:
    upstreams = tuple(UpstreamSession(backend, backend + replica, f"{backend}-session", revision) for backend in backends)
    return SessionState("key", "", revision, "", INITIALIZE, upstreams)


def request(method: str, request_id: Any = 7, **params: Any) -> Request:
    return Request(encoded(request_id), method, encoded(params) if params else b"")


def encoded(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


class SentCall(CallWish, frozen=True, kw_only=True):
    """One call as the desk got it."""

    call_id: int

    @property
    def params(self) -> Any:
        assert isinstance(self.message, Request | Notification)
        return json.loads(self.message.params or b"{}")

    @property
    def method(self) -> str:
        assert isinstance(self.message, Request | Notification)
        return self.message.method


class RecordingDesk:
    """Implements `Desk`. open_calls: {call_id: call} of those with no outcome yet."""

    def __init__(self, *namings: Naming) -> None:
        self.server_info = {"name": "mcp-gateway", "version": "1"}
        self._namings = namings
        self.sent: list[SentCall] = []
        self.open_calls: dict[int, SentCall] = {}
        self.cancelled: list[int] = []
        self.grants: list[tuple[Any, int, int]] = []
        self.finished = 0
        self.view_number = 1
        self.has_retries = True
        self.hedges_after_s: dict[str, float] = {}
        self.paid_retries: list[str] = []
        self.retries: list[tuple[float, str]] = []
        self.issued: list[SessionState] = []
        self.issue_refusal: Refused | None = None
        self.ended: list[str] = []
        self.has_other_cells = False
        self.told_of: list[SessionState] = []
        self.dismissed: list[str | None] = []
        self.renewed: list[UpstreamSession] = []
        self.punctuality: list[tuple[str, str]] = []
        self.flaws: list[tuple[str, str, str]] = []
        self.held_pages: dict[tuple[str | None, PageStart], bytes] = {}  # of (key of a session, where it begins)
        self.last_known: dict[tuple[str, str, str], tuple[bytes, ...]] = {}
        self.searched_list: SearchedList | None = None
        self.hidden: list[str] = []  # names of items that no client may use
        self.unheard: list[str] = []  # backends whose words no client of a stream may hear
        self._newest: dict[str, SessionState] = {}

    def configure(self, *namings: Naming) -> None:
        """These are the backends from now on."""
        self._namings = namings

    def namings(self, exchange: Exchange) -> tuple[Naming, ...]:
        if exchange.endpoint:
            return tuple(Naming(each.backend, "") for each in self._namings if each.backend == exchange.endpoint)
        return self._namings

    def tool_index(self, tools: Sequence[Mapping[str, Raw]]) -> ToolIndex:
        return ToolIndex(tools)

    def instructions(self, exchange: Exchange) -> str:
        return "Look." if exchange.server else ""

    def merged_naming(self, backend: str) -> Naming | None:
        return next((each for each in self._namings if each.backend == backend), None)

    def may_hear(self, exchange: Exchange, backend: str, message: Message | None) -> bool:
        return backend not in self.unheard

    def shown_list(self, exchange: Exchange, backend: str, method: str, result: bytes) -> bytes:
        for hidden in self.hidden:
            values = json.loads(result)
            for member in ("tools", "prompts", "resources"):
                if member in values:
                    values[member] = [each for each in values[member] if each.get("name") != hidden]
            result = json.dumps(values).encode()
        return result

    def call(self, exchange: Exchange, wish: CallWish) -> int:
        assert not self.finished, "a call after the exchange was over"
        call_id = len(self.sent) + 1
        call = SentCall(call_id=call_id, **msgspec.structs.asdict(wish))
        self.sent.append(call)
        self.open_calls[call_id] = call
        return call_id

    def cancel(self, call_id: int) -> None:
        del self.open_calls[call_id]
        self.cancelled.append(call_id)

    def hedge_after_s(self, backend: str) -> float:
        return self.hedges_after_s.get(backend, 0.0)

    def may_retry(self, backend: str) -> bool:
        self.paid_retries.append(backend)
        return self.has_retries

    def dismiss(self, exchange: Exchange, session: SessionState, backend: str) -> None:
        assert not self.finished, "a farewell after the exchange was over"
        upstream = session.upstream(backend)
        assert upstream is not None
        self.dismissed.append(upstream.session_id)

    def grant(self, upstream: Any, call_id: int, event_count: int) -> None:
        self.grants.append((upstream, call_id, event_count))

    def conclude(self, exchange: Exchange) -> None:
        assert not self.finished, "the exchange was over already"
        self.finished += 1

    def retry_later(self, exchange: Exchange, delay_s: float, cause: str) -> None:
        self.retries.append((delay_s, cause))

    def note_punctuality(self, backend: str, *, was_late: bool) -> None:
        self.punctuality.append((backend, "late" if was_late else "prompt"))

    def note_flaw(self, backend: str, method: str, why: str) -> None:
        self.flaws.append((backend, method, why))

    def fan_out_deadline_s(self, exchange: Exchange, backend: str) -> float:
        return min(exchange.deadline_s, 5.0)

    def use_session(self, state: SessionState) -> SessionState:
        return self._newest.get(state.key, state)

    def refresh_session(self, state: SessionState) -> SessionState:
        return self.use_session(state)

    def is_session_ended(self, state: SessionState) -> bool:
        return state.key in self.ended

    def renew_session(self, state: SessionState, upstream: UpstreamSession) -> SessionState:
        self.renewed.append(upstream)
        others = tuple(each for each in state.upstreams if each.backend != upstream.backend)
        self._newest[state.key] = msgspec.structs.replace(self.use_session(state), upstreams=(*others, upstream))
        return self._newest[state.key]

    def note_facts(self, state: SessionState, backend: str, method: str, params: bytes) -> SessionState:
        newest = self.use_session(state)
        self._newest[state.key] = msgspec.structs.replace(newest, facts=newest.facts.after(backend, method, params))
        return self._newest[state.key]

    def tell_of_session(self, exchange: Exchange, state: SessionState, told: str) -> bool:
        self.told_of.append(state)
        if self.has_other_cells:
            self.retries.append((0.0, told))
        return not self.has_other_cells

    def end_session(self, exchange: Exchange, state: SessionState, told: str) -> bool:
        self.ended.append(state.key)
        if self.has_other_cells:
            self.retries.append((0.0, told))
        return not self.has_other_cells

    def issue_session(self, state: SessionState) -> str:
        if self.issue_refusal is not None:
            raise self.issue_refusal
        self.issued.append(state)
        return "sealed"

    def read_task(self, shown: str) -> TaskId | None:
        """Ids of the form `backend/task`, of a client without a name."""
        backend, _, task = shown.partition("/")
        return TaskId(backend, f"{backend}#0", "", task) if task else None

    def name_question(self, question: QuestionId) -> bytes:
        """Of the form `session/backend/id`."""
        return encoded(f"{question.session}/{question.backend}/{question.id.decode()}")

    def read_question(self, shown: bytes) -> QuestionId | None:
        """One that was asked in a session of `session_at`."""
        session, _, rest = str(json.loads(shown)).partition("/")
        backend, slash, request_id = rest.partition("/")
        asked_in = QuestionId.of(session_at(backend), backend, b"").asked_in
        return QuestionId(session, backend, asked_in, request_id.encode()) if slash else None

    def remember_list(self, backend: str, method: str, revision: str, pages: Sequence[bytes]) -> None:
        self.last_known[backend, method, revision] = tuple(pages)

    def hold_pages(self, exchange: Exchange, pages: Mapping[PageStart, bytes]) -> None:
        key = None if exchange.session is None else exchange.session.key
        self.held_pages.update({(key, start): page for start, page in pages.items()})

    def held_page(self, exchange: Exchange, start: PageStart) -> bytes | None:
        return self.held_pages.get((None if exchange.session is None else exchange.session.key, start))

    def last_known_list(self, backend: str, method: str, revision: str) -> tuple[tuple[bytes, ...], float] | None:
        known = self.last_known.get((backend, method, revision))
        return None if known is None else (known, 7.0)


class RecordingSink:
    """Implements `AnswerSink`; fails on a second answer, an event outside of a stream, or anything after the end."""

    def __init__(self) -> None:
        self.status = 0
        self.body: Any = b""
        self.headers: dict[str, str] = {}
        self.refused: Refused | None = None
        self.events: list[tuple[Any, str | None]] = []
        self.begun = 0
        self.is_over = False

    def answer(self, status: int, body: Pieces, headers: Mapping[str, str], backend: str, upstream_s: float) -> None:
        assert not self.begun, "a whole answer within a stream"
        self._end()
        self.status, self.body, self.headers = status, body, dict(headers)

    def refuse(self, refused: Refused, backend: str) -> None:
        self._end()
        self.refused = refused

    def begin(self, headers: Mapping[str, str]) -> None:
        assert not self.begun, "a stream that began twice"
        assert not self.is_over
        self.begun += 1

    def event(self, data: bytes, event_id: str | None) -> None:
        assert self.begun, "an event before the stream began"
        assert not self.is_over
        # Digits without end are legal JSON, and Python's own limit on them is not what is tested here.
        self.events.append((json.loads(data, parse_int=float) if data else None, event_id))

    def end(self, backend: str, upstream_s: float) -> None:
        assert self.begun, "the end of a stream that never began"
        self._end()

    def _end(self) -> None:
        assert not self.is_over, "a second answer"
        self.is_over = True

    @property
    def result(self) -> Any:
        assert self.refused is None, self.refused
        return json.loads(self.body)["result"]


class Scene:
    """One conversation between a recording desk and a recording sink; plays the outcomes of its calls."""

    def __init__(
        self,
        make: Callable[..., Conversation],
        *namings: Naming,
        message: Message | None = None,
        session: SessionState | None = None,
        revision: str = LEGACY,
        endpoint: str = "",
        kind: RequestKind | None = None,
        takes_events: bool = True,
        deadline_s: float = 60.0,
        last_event_id: str | None = None,
        user: str = "ada",
        principal: str = "",
        arguments: tuple[Any, ...] = (),
        has_other_cells: bool = False,
        held_pages: Mapping[tuple[str | None, PageStart], bytes] | None = None,
        question: Question | None = None,
        searched_list: SearchedList | None = None,
        hedge_after_s: float = 0.0,
    ) -> None:
        self.desk = RecordingDesk(*namings)
        self.desk.hedges_after_s = dict.fromkeys((naming.backend for naming in namings), hedge_after_s)
        self.desk.held_pages.update(held_pages or {})
        self.desk.has_other_cells = has_other_cells
        self.desk.searched_list = searched_list
        self.sink = RecordingSink()
        self.exchange = Exchange(
            exchange_id=1,
            transport="streamable_http",
            revision=revision,
            endpoint=endpoint,
            kind=kind or RequestKind.of(message),
            message=message,
            session=session,
            question=question,
            hash_keys={"session": "key", "user": user, "ip": "::1", **({PRINCIPAL: principal} if principal else {})},
            deadline_s=deadline_s,
            takes_events=takes_events,
            last_event_id=last_event_id,
        )
        self.conversation = make(self.exchange, self.sink, self.desk, *arguments)
        self.conversation.start()

    @property
    def open(self) -> list[SentCall]:
        return list(self.desk.open_calls.values())

    @property
    def last(self) -> SentCall:
        return self.desk.sent[-1]

    def call_to(self, backend: str) -> SentCall:
        """The open call to this backend."""
        (call,) = [call for call in self.open if call.backend == backend]
        return call

    def answer(
        self,
        call: SentCall,
        result: Any = None,
        *,
        raw: bytes = b"",
        error: Any = None,
        status: int = 200,
        backend: str = "",
        replica: str = "",
        session_id: str | None = None,
        has_response: bool = True,
        response: Response | None = None,
    ) -> None:
        """The server answers. raw: a result as JSON; has_response: False for an acknowledgment, or a stream that ended.
        response: instead of all this.
        """
        self.desk.open_calls.pop(call.call_id)
        if has_response and response is None:
            request_id = call.message.id if isinstance(call.message, Request) else b"null"
            body = raw or (b"" if error is not None else encoded(result if result is not None else {}))
            response = Response(request_id, body, encoded(error) if error is not None else b"")
        name = backend or call.backend or "files"
        self.conversation.answered(
            CallAnswered(
                call_id=call.call_id,
                backend=name,
                replica=replica or f"{name}#0",
                status=status,
                response=response,
                upstream_session_id=session_id,
                upstream_s=0.5,
            )
        )

    def fail(
        self,
        call: SentCall,
        reason: str = "upstream_failed",
        *,
        backend: str = "",
        replica: str = "",
        fate: Fate = Fate.UNREACHABLE,
        text: str = "why",
        **rest: Any,
    ) -> None:
        self.desk.open_calls.pop(call.call_id)
        name, why = backend or call.backend or "files", Failure(fate, text, reason=reason, **rest)
        self.conversation.failed(CallFailed(call_id=call.call_id, why=why, backend=name, replica=replica))

    def event(self, call: SentCall, message: Message | None, event_id: str | None = None, *, backend: str = "") -> None:
        name = backend or call.backend or "files"
        self.conversation.event(CallEvent(call.call_id, name, message, event_id, f"upstream of {name}"))

    def assert_over(self, *, client_is_there: bool = True) -> None:
        """The exchange has ended once, with one answer, and nothing is left of it; whatever still comes changes nothing."""
        assert self.desk.finished == 1
        assert not self.desk.open_calls
        assert self.sink.is_over == client_is_there
        before = (len(self.desk.sent), len(self.desk.retries), len(self.sink.events))
        for call in self.desk.sent[-3:]:
            self.desk.open_calls[call.call_id] = call
            self.answer(call, {"late": True})
            self.desk.open_calls[call.call_id] = call
            self.fail(call, replica="files#9")
            self.event(call, Notification("notifications/late", b""))
        self.conversation.delay_passed("files")
        if client_is_there:
            self.conversation.end()
            self.conversation.expired()
        self.conversation.client_gone()
        self.conversation.flushed(100)
        assert before == (len(self.desk.sent), len(self.desk.retries), len(self.sink.events))
        assert self.desk.finished == 1
