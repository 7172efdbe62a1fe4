"""The edge as a handler sees it, played by the test: exchanges wait here until the test writes to their sinks."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import attrs

from mcp_gateway.config.settings import Settings
from mcp_gateway.transports.ports.authenticator import Authenticator
from mcp_gateway.transports.ports.edge_port import AnswerSink, Exchange
from mcp_gateway.transports.ports.principal import Principal
from mcp_gateway.transports.ports.request_kind import RequestKind
from mcp_gateway.transports.ports.request_terms import RequestTerms
from mcp_gateway.transports.protocol.sealed.session import SessionState, UpstreamSession
from mcp_gateway.transports.protocol.topics.topic_log import TopicPattern

SESSION = SessionState("key", "", "2025-11-25", "", b"{}", (UpstreamSession("files", "r", "u", "2025-11-25"),))


@attrs.define(eq=False)
class Opened:
    """One exchange. is_closed: its handler has said that the client is gone. flushed: events the client has taken."""

    exchange: Exchange
    sink: AnswerSink
    is_closed: bool = False
    flushed: int = 0


class ScriptedPort:
    """Implements `edge_port.EdgePort`. sessions: {sealed id: session} that `read_session` finds."""

    def __init__(self, settings: Settings) -> None:
        self.terms = RequestTerms(settings)
        self.is_draining = False
        self.authenticator: Authenticator | None = None
        self.enabled_transports = frozenset({"streamable_http", "http_sse", "websocket"})
        self.opened: list[Opened] = []
        self.sessions: dict[str, SessionState] = {"sealed": SESSION}
        self.published: list[tuple[str, Mapping[str, Any]]] = []
        self._last_id = 0

    @property
    def cells(self) -> Any:
        raise AssertionError("the test has one cell")

    def next_exchange_id(self) -> int:
        self._last_id += 1
        return self._last_id

    def open(self, exchange: Exchange, sink: AnswerSink) -> None:
        self.opened.append(Opened(exchange, sink))

    def close(self, exchange_id: int) -> None:
        self._find(exchange_id).is_closed = True

    def flushed(self, exchange_id: int, event_count: int) -> None:
        self._find(exchange_id).flushed += event_count

    def read_session(self, session_id: str, principal: Principal | None) -> SessionState | None:
        return self.sessions.get(session_id)

    def permitted_topics(self, principal: Principal | None, pattern: TopicPattern) -> TopicPattern:
        return pattern

    def check_published(self, principal: Principal | None, topic: str) -> None:
        """Everybody may."""

    def publish(self, topic: str, payload: Mapping[str, Any]) -> None:
        self.published.append((topic, payload))

    def ask(self, child: str, question: Any) -> asyncio.Future[Any]:
        raise AssertionError("no question is expected")

    # ---- for the test

    def of_kind(self, kind: RequestKind) -> list[Opened]:
        return [each for each in self.opened if each.exchange.kind is kind]

    def _find(self, exchange_id: int) -> Opened:
        return next(each for each in self.opened if each.exchange.exchange_id == exchange_id)
