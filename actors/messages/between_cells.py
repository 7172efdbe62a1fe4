"""What cells, of one node or several, say to each other about clients whose connection, or whose server, another cell holds."""

from __future__ import annotations

from typing import Any

import attrs

from mcp_gateway.transports.ports.failure import Failure
from mcp_gateway.transports.ports.replica_id import ReplicaId
from mcp_gateway.transports.ports.upstream_port import UpstreamAnswer, UpstreamRequest
from mcp_gateway.transports.protocol.mcp import jsonrpc
from mcp_gateway.transports.protocol.mcp.jsonrpc import Message
from mcp_gateway.transports.protocol.sealed.session import SessionState

from .weight import LIGHT_BYTES, weight_bytes


def _weight_bytes(message: Message | None) -> int:
    return LIGHT_BYTES + (jsonrpc.size_bytes(message) if message is not None else 0)


@attrs.frozen(kw_only=True)
class Forwarded:
    """Cell -> another cell: for the content of that one, one of the messages below.

    incarnation: of the cell that sends it, as the other one is told of it: a number, or where it is of another node as in
                 `NodesChanged`.
    """

    from_cell: str
    incarnation: int | tuple[int, int, int]
    message: object = attrs.field(repr=False)

    @property
    def weight_bytes(self) -> int:
        return weight_bytes(self.message)


@attrs.frozen(kw_only=True)
class CellAsked:
    """A cell asks another one; question: an instance of a class that the other one answers (`Forwarding.answer_cells`)."""

    question_id: str
    question: Any = attrs.field(repr=False)

    @property
    def weight_bytes(self) -> int:
        return weight_bytes(self.question)


@attrs.frozen(kw_only=True)
class CellAnswered:
    """The answer. error_text: why there is none, or ""."""

    question_id: str
    answer: Any = attrs.field(default=None, repr=False)
    error_text: str = ""


@attrs.frozen
class EndSession:
    """A client has ended this session: refuse it before the client is told that it is over. The answer is None."""

    key: str


@attrs.frozen
class SessionChanged:
    """What a client has asked of this session has changed: know it before the client is told. The answer is None."""

    state: SessionState = attrs.field(repr=False)

    @property
    def weight_bytes(self) -> int:
        return self.state.size_bytes


@attrs.frozen
class SessionsUsed:
    """Cell -> a cell of another node: these sessions of yours are in use here, {key: when, in ms since the epoch}."""

    used_ms: dict[str, int] = attrs.field(repr=False)

    @property
    def weight_bytes(self) -> int:
        return LIGHT_BYTES + 64 * len(self.used_ms)


@attrs.frozen(kw_only=True)
class ExchangeForwarded:
    """Speak to this replica for me: you hold its connection, or the call that this request goes on with.

    token: under which your node owns what the cluster has once, as far as I know; 0 for what needs none.
    """

    exchange_id: str
    replica: ReplicaId
    token: int = 0
    request: UpstreamRequest = attrs.field(repr=False)

    @property
    def weight_bytes(self) -> int:
        session = self.request.session
        return _weight_bytes(self.request.message) + (len(session.initialize) if session is not None else 0)


@attrs.frozen(kw_only=True)
class ExchangeGivenUp:
    """Nobody waits for this exchange any more."""

    exchange_id: str


@attrs.frozen(kw_only=True)
class ForwardedEvent:
    """A message of the server before its answer."""

    exchange_id: str
    message: Message | None = attrs.field(repr=False)
    event_id: str | None

    @property
    def weight_bytes(self) -> int:
        return _weight_bytes(self.message)


@attrs.frozen(kw_only=True)
class ForwardedEventsTaken:
    """So many events of the exchange were passed on: send as many more."""

    exchange_id: str
    event_count: int


@attrs.frozen(kw_only=True)
class ForwardedAnswer:
    """The server's answer; the exchange is over."""

    exchange_id: str
    answer: UpstreamAnswer = attrs.field(repr=False)

    @property
    def weight_bytes(self) -> int:
        return _weight_bytes(self.answer.response)


@attrs.frozen(kw_only=True)
class ForwardedFailure:
    """There is no answer; the exchange is over."""

    exchange_id: str
    failure: Failure = attrs.field(repr=False)


@attrs.frozen
class CellLeaves:
    """The cell that says so is about to end in order: ask its successor from now on."""


@attrs.frozen(kw_only=True)
class ExchangePutOff:
    """The cell leaves and has not begun the exchange: its successor will."""

    exchange_id: str


@attrs.frozen
class WireProbed:
    """A question: is the server behind the connection that you hold well? Answered with its `Failure`, or None."""

    replica: ReplicaId
    timeout_s: float
