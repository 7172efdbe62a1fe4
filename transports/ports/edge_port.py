"""The small port between Tornado handlers and the actors: what a handler asks of the edge, and what it is given."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Protocol

import msgspec

from mcp_gateway.transports.protocol.curation.search_tools import Question
from mcp_gateway.transports.protocol.framing.pieces import Pieces
from mcp_gateway.transports.protocol.mcp.jsonrpc import Message, Notification, Request
from mcp_gateway.transports.protocol.mcp.refusals import Refused
from mcp_gateway.transports.protocol.sealed.session import SessionState
from mcp_gateway.transports.protocol.topics.topic_log import Page, TopicPattern

from .authenticator import Authenticator
from .lean_message import LeanMessage
from .principal import Principal
from .request_kind import RequestKind
from .request_terms import RequestTerms


class Exchange(LeanMessage, frozen=True, kw_only=True):
    """One request of a client, checked, with all that is needed to serve it and nothing of its socket.

    exchange_id:   unique in this cell; names the exchange in every message and log line.
    transport:     registry name of the client's transport ("streamable_http").
    revision:      the revision the client speaks in this exchange.
    endpoint:      backend name, or "" for the merged server; the name of a virtual server until the edge has opened it.
    server:        the virtual server that is asked, which is a part of the merged one; "" for none.
    tools:         names and patterns of the tools that the client wants to see, divided by commas; "" for all that there are.
    question:      for `search_tools`: what of the list of tools is asked for; None for the list.
    is_rewritten:  the message is another one than its client's headers tell of.
    kind:          what the client did: posted its message, opened a session's event stream, or ended a session.
    message:       the JSON-RPC message; None for a session's own stream and for its end.
    target:        what routes match ("tools/call/files__read").
    hash_keys:     {source: value} for the hash ring ("user", "session", "ip", "header:NAME", "argument:NAME").
    headers:       headers that travel on to the server (lower-case names).
    deadline_s:    on the monotonic clock; infinite for streams.
    principal:     who its client has proved to be; None where nobody knows.
    last_event_id: where a broken stream shall resume.
    takes_events:  whether the client reads an event stream; else it waits for one JSON answer.
    """

    HIDDEN: ClassVar[frozenset[str]] = frozenset({"message", "session", "hash_keys", "headers", "principal"})

    exchange_id: int
    transport: str
    revision: str
    endpoint: str
    server: str = ""
    tools: str = ""
    question: Question | None = None
    is_rewritten: bool = False
    kind: RequestKind
    message: Message | None = None
    target: str = ""
    session: SessionState | None = None
    hash_keys: Mapping[str, str] = msgspec.field(default_factory=dict)
    headers: Mapping[str, str] = msgspec.field(default_factory=dict)
    deadline_s: float
    principal: Principal | None = None
    last_event_id: str | None = None
    takes_events: bool = True

    @property
    def method(self) -> str:
        """What the client did, in a word, for who counts and logs: the method of its message, or else the kind."""
        message = self.message
        return message.method if isinstance(message, (Request, Notification)) else self.kind.value

    @property
    def address(self) -> str:
        """What its client has spoken to: a backend, a virtual server, or "" for the merged one."""
        return self.endpoint or self.server

    @property
    def request_id(self) -> bytes | None:
        """As JSON; None where nobody waits for a response."""
        return self.message.id if isinstance(self.message, Request) else None


class AnswerSink(Protocol):
    """Where the edge writes the answer of one exchange; implemented by a handler. Every call may come after the client has gone.

    One of `answer`, `refuse` or `begin` comes first; after `begin`, any number of `event` and then one `end`.
    """

    def answer(self, status: int, body: Pieces, headers: Mapping[str, str], backend: str, upstream_s: float) -> None:
        """The whole answer; an empty body with status 202 acknowledges a notification."""

    def refuse(self, refused: Refused, backend: str) -> None:
        """The whole answer is an error; within a stream it becomes the last event."""

    def begin(self, headers: Mapping[str, str]) -> None:
        """An event stream starts; told again, after the edge was restarted, nothing happens."""

    def event(self, data: bytes, event_id: str | None) -> None:
        """One message of the stream."""

    def end(self, backend: str, upstream_s: float) -> None:
        """The stream is complete."""


class CellsPort(Protocol):
    """The other cells of the node, for what only the cell can serve that holds a client's connection. cell_name: this one."""

    cell_name: str

    @property
    def other_cells(self) -> frozenset[str]:
        """Names of those that run ("cell/1")."""

    def answer_cells(self, kind: type, answer: Callable[[Any], Any]) -> None:
        """Answer questions of this class that other cells ask; the answer may be a coroutine."""

    async def ask_cell(self, cell_name: str, question: object, timeout_s: float) -> Any:
        """The other cell's answer. Questions and answers must be frozen and picklable, their payloads not shown by `str()`.

        Raises: LookupError where the cell does not run, ends first, or cannot answer; TimeoutError.
        """


class TopicFeed(Protocol):
    """The events of the node as this cell holds them: the newest of the shared log, in its order.

    A subscriber keeps nothing but its place in it, see `topic_cursor.TopicCursor`.
    """

    @property
    def last_id(self) -> int:
        """The id of the newest event here; 0 before the first."""

    @property
    def is_caught_up(self) -> bool:
        """Whether everything is here that the log had when this cell joined it; until then nothing can be called new."""

    @property
    def ids_never_fall(self) -> bool:
        """Whether the log goes on with higher ids where it was lost, as that of a cluster does."""

    def read(self, after_id: int, pattern: TopicPattern, limit: int) -> Page:
        """As `topic_log.TopicLog.read`."""

    def follow(self, on_news: Callable[[], None]) -> Callable[[], None]:
        """Have `on_news` called, from the loop, each time after events have come; returns what stops that."""

    def publish(self, topic: str, payload: Mapping[str, Any]) -> None:
        """Give an event to the event bus; what comes from a client has passed `client_events.check_client_event`."""


class EdgePort(Protocol):
    """What the edge offers to handlers; every method returns at once."""

    is_draining: bool
    enabled_transports: frozenset[str]

    @property
    def terms(self) -> RequestTerms: ...

    @property
    def cells(self) -> CellsPort: ...

    @property
    def authenticator(self) -> Authenticator | None:
        """Who knows the clients; None where everyone is anonymous."""

    @property
    def topics(self) -> TopicFeed: ...

    def next_exchange_id(self) -> int: ...

    def open(self, exchange: Exchange, sink: AnswerSink) -> None:
        """Serve the exchange; the sink gets its answer."""

    def close(self, exchange_id: int) -> None:
        """The client has gone: end the work that only it waited for."""

    def flushed(self, exchange_id: int, event_count: int) -> None:
        """The client's socket has taken so many events: the server may send more."""

    def read_session(self, session_id: str, principal: Principal | None) -> SessionState | None:
        """The session behind an id of ours, unless it has been ended, or is another principal's: an id is no password.

        Source: MCP 2025-11-25, basic/security_best_practices, "Session Hijacking".
        """

    def permitted_topics(self, principal: Principal | None, pattern: TopicPattern) -> TopicPattern:
        """What of a pattern the client may follow, now and when the policies have changed.

        Raises: Refused where that is nothing; who asks for everything, of all or of clients, follows whatever it may.
        """

    def check_published(self, principal: Principal | None, topic: str) -> None:
        """Raises: Refused where the client may not publish events of this topic."""

    def publish(self, topic: str, payload: Mapping[str, Any]) -> None:
        """Put an event on the bus; while the bus starts again it is dropped."""

    def ask(self, child: str, question: Any) -> asyncio.Future[Any]:
        """Put a question with a `request_id` to an actor of this cell ("router"); the future gets its answer."""
