"""Who is here: the sessions of a cell and what clients without one have open, as rows for people and programs. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final

import attrs

from mcp_gateway.transports.ports.edge_port import Exchange
from mcp_gateway.transports.ports.hash_keys import is_principal, principal_of
from mcp_gateway.transports.ports.request_kind import RequestKind
from mcp_gateway.transports.protocol.mcp.client_info import client_of_request, client_of_session
from mcp_gateway.transports.protocol.mcp.jsonrpc import Request
from mcp_gateway.transports.protocol.sealed.session import SessionState

MOST_ROWS: Final = 1_000
"""Of a cell, those used last; the answer travels in one message between processes."""


@attrs.frozen
class UsedSession:
    """A session that a cell has seen. idle_s: since it was used last."""

    state: SessionState
    idle_s: float


@attrs.define
class _Open:
    """What one session, or one client without a session, has open."""

    transports: set[str] = attrs.field(factory=set)
    streams: int = 0
    calls: int = 0

    def add(self, exchange: Exchange) -> None:
        self.transports.add(exchange.transport)
        if exchange.deadline_s == float("inf"):
            self.streams += 1
        else:
            self.calls += 1

    def shown(self) -> dict[str, Any]:
        return {"transports": sorted(self.transports), "streams": self.streams, "calls": self.calls}


def present_clients(sessions: Sequence[UsedSession], waiting: Iterable[Exchange], now_ms: int) -> list[dict[str, Any]]:
    """A row for each session, in their order, then one for each client without a session that has something open.

    Each has {"session", "client", "version", "principal", "address", "revision", "endpoint", "transports", "streams", "calls"},
    a session {"servers", "age_seconds", "idle_seconds"} besides. What is not known is "": the address of a client that has logged
    in, say, while its session has nothing open.
    """
    of_session: dict[str, _Open] = {}
    address_of: dict[str, str] = {}
    stateless: dict[tuple[str, ...], _Open] = {}
    for exchange in waiting:
        if exchange.kind is RequestKind.TERMINATE:
            continue
        address = exchange.hash_keys.get("ip", "")
        if exchange.session is not None:
            of_session.setdefault(exchange.session.key, _Open()).add(exchange)
            address_of[exchange.session.key] = address
        else:
            who = (*_client_of(exchange), principal_of(exchange.hash_keys), address, exchange.revision, exchange.endpoint)
            stateless.setdefault(who, _Open()).add(exchange)
    rows = [
        _session_row(used, of_session.get(used.state.key, _Open()), address_of.get(used.state.key, ""), now_ms)
        for used in sessions
    ]
    names = ("client", "version", "principal", "address", "revision", "endpoint")
    return rows + [{"session": "", **dict(zip(names, who, strict=True)), **held.shown()} for who, held in stateless.items()]


def _session_row(used: UsedSession, held: _Open, address: str, now_ms: int) -> dict[str, Any]:
    state = used.state
    client, version = client_of_session(state.initialize)
    return {
        "session": state.key,
        "client": client,
        "version": version,
        "principal": state.principal,
        "address": address or ("" if is_principal(state.holder) else state.holder),
        "revision": state.revision,
        "endpoint": state.endpoint,
        **held.shown(),
        "servers": len(state.upstreams),
        "age_seconds": round(max(0, now_ms - state.issued_ms) / 1000, 3),
        "idle_seconds": round(max(0.0, used.idle_s), 3),
    }


def _client_of(exchange: Exchange) -> tuple[str, str]:
    """(name, version) that a client without a session says with its request."""
    return client_of_request(exchange.message.params) if isinstance(exchange.message, Request) else ("", "")
