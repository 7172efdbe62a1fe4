"""The newest requests of a cell that have ended, for people who look for one: what, by whom, how long, with which outcome."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from mcp_gateway.transports.ports.edge_port import Exchange
from mcp_gateway.transports.ports.hash_keys import principal_of
from mcp_gateway.transports.protocol.mcp.client_info import client_of_request, client_of_session
from mcp_gateway.transports.protocol.mcp.jsonrpc import Request
from mcp_gateway.transports.protocol.sealed.session import SessionState

MOST_KEPT: Final = 200
MOST_FAILURES: Final = 1_000
"""Backends of which the last failure is kept."""
_SERVERS_OWN: Final = ("upstream_failed", "upstream_timeout")
_LARGEST_PARAMS: Final = 2_048
"""Those of a larger request are not kept, and with them not what its program calls itself: 400 kB a cell at most."""

_LONGEST_TARGET: Final = 300


class Ended(msgspec.Struct, frozen=True):
    """How a request ended. outcome: as `count_request` has it. status: of HTTP, 0 where there was none. text: of a refusal."""

    backend: str
    outcome: str
    status: int
    duration_s: float
    upstream_s: float
    text: str = ""


_Kept = tuple[float, int, str, str, str, SessionState | None, Mapping[str, str], bytes, Ended, str | None]
"""(seconds since the epoch, exchange id, target, transport, revision, session, keys, params, how it ended, trace id), and not its
message, which may be large. A tuple, since every call makes one."""


class RecentRequests:
    """Keeps what costs nothing to keep; words are found when somebody asks."""

    def __init__(self, cell_name: str) -> None:
        self._cell_name = cell_name
        self._newest: deque[_Kept] = deque(maxlen=MOST_KEPT)
        self._failures: dict[str, _Kept] = {}  # {backend: the last one that its server is to blame for}

    def note(self, exchange: Exchange, ended: Ended, trace_id: str | None) -> None:
        """One is over."""
        message = exchange.message
        params = message.params if isinstance(message, Request) and len(message.params) <= _LARGEST_PARAMS else b""
        kept = (
            time.time(),
            exchange.exchange_id,
            exchange.target,
            exchange.transport,
            exchange.revision,
            exchange.session,
            exchange.hash_keys,
            params,
            ended,
            trace_id,
        )
        self._newest.append(kept)
        if ended.outcome in _SERVERS_OWN and (ended.backend in self._failures or len(self._failures) < MOST_FAILURES):
            self._failures[ended.backend] = kept

    def failures(self) -> dict[str, dict[str, Any]]:
        """{backend: the last request that its server did not answer, as in `shown`}."""
        return {backend: self._row(*kept) for backend, kept in self._failures.items()}

    def shown(self) -> list[dict[str, Any]]:
        """JSON-able, the latest first.

        Each has {"at" (ms since the epoch, of its end), "id", "target", "transport", "revision", "client", "principal",
        "address", "backend", "outcome", "status", "text", "duration_s", "upstream_s", "trace_id"}; what is not known is "".
        """
        return [self._row(*each) for each in reversed(self._newest)]

    def _row(
        self,
        at_s: float,
        exchange_id: int,
        target: str,
        transport: str,
        revision: str,
        session: SessionState | None,
        keys: Mapping[str, str],
        params: bytes,
        ended: Ended,
        trace_id: str | None,
    ) -> dict[str, Any]:
        return {
            "at": int(at_s * 1000),
            "id": request_name(self._cell_name, exchange_id),
            "target": target[:_LONGEST_TARGET],
            "transport": transport,
            "revision": revision,
            "client": (client_of_request(params) if session is None else client_of_session(session.initialize))[0],
            "principal": principal_of(keys),
            "address": keys.get("ip", ""),
            "backend": ended.backend,
            "outcome": ended.outcome,
            "status": ended.status,
            "text": ended.text,
            "duration_s": round(ended.duration_s, 6),
            "upstream_s": round(ended.upstream_s, 6),
            "trace_id": trace_id or "",
        }


def request_name(cell_name: str, exchange_id: int) -> str:
    """What a request is called in the log, in refusals and on the dashboard."""
    return f"{cell_name}#{exchange_id}"
