"""A client's session, whole in its sealed id: any cell can serve it, before and after a restart.

Source: MCP 2025-11-25, basic/transports, "Session Management"; that the id carries the state is ours.
"""

from __future__ import annotations

from collections import OrderedDict

import msgspec

from mcp_gateway.transports.protocol.mcp.jsonrpc import members

from .sealing import Seal, SealBroken

_KIND = "session"
BRIDGED_SESSION = "bridged/"
"""What the session id of a legacy client at a modern server begins with; then comes the cell that keeps it."""


class UpstreamSession(msgspec.Struct, frozen=True, array_like=True):
    """One backend's side of a session.

    session_id: None where the server assigns none; begins with BRIDGED_SESSION where the server has no sessions at all.
    revision:   what this server speaks; it may differ from the client's.
    """

    backend: str
    replica: str
    session_id: str | None
    revision: str


class SessionFacts(msgspec.Struct, frozen=True, array_like=True):
    """What a client has asked for since its session began: a server that has lost the session is told again.

    subscriptions: (backend, uri as the backend knows it).
    """

    log_level: str | None = None
    subscriptions: tuple[tuple[str, str], ...] = ()

    def of_backend(self, backend: str) -> tuple[str, ...]:
        return tuple(uri for name, uri in self.subscriptions if name == backend)

    def after(self, backend: str, method: str, params: bytes) -> SessionFacts:
        """The facts once the backend has accepted this request; the oldest subscription makes room at MAX_SUBSCRIPTIONS."""
        values = members(params)
        if method == "logging/setLevel":
            return SessionFacts(msgspec.json.decode(values["level"], type=str), self.subscriptions)
        subscription = (backend, msgspec.json.decode(values["uri"], type=str))
        others = tuple(each for each in self.subscriptions if each != subscription)
        if method == "resources/subscribe":
            return SessionFacts(self.log_level, (*others, subscription)[-MAX_SUBSCRIPTIONS:])
        return SessionFacts(self.log_level, others)


MAX_SUBSCRIPTIONS = 1000
FACT_METHODS = frozenset({"logging/setLevel", "resources/subscribe", "resources/unsubscribe"})
"""Requests that change the facts of a session."""


class SessionState(msgspec.Struct, frozen=True, array_like=True):
    """What the sealed id holds.

    key:        random, names the session in logs, tables and hash rings.
    endpoint:   backend name, or "" for the merged server.
    revision:   negotiated with the client.
    initialize: the client's own `initialize` params as JSON; repair opens an upstream session again with them.
    upstreams:  one entry per backend that answered `initialize`.
    facts:      none when the id is sealed; the cells keep them.
    issued_ms:  when the session was opened, since the epoch.
    """

    key: str
    endpoint: str
    revision: str
    hash_key: str
    initialize: bytes
    upstreams: tuple[UpstreamSession, ...]
    facts: SessionFacts = SessionFacts()
    issued_ms: int = 0

    def upstream(self, backend: str) -> UpstreamSession | None:
        return next((each for each in self.upstreams if each.backend == backend), None)


_decode = msgspec.msgpack.Decoder(SessionState).decode


class SessionIds:
    """Turns sessions into ids and back; remembers a bounded number of decoded ids."""

    def __init__(self, seal: Seal, remembered: int = 10_000) -> None:
        self._seal = seal
        self._remembered = remembered
        self._by_id: OrderedDict[str, SessionState] = OrderedDict()

    def issue(self, state: SessionState) -> str:
        return self._seal.seal(_KIND, msgspec.msgpack.encode(state))

    def read(self, session_id: str) -> SessionState | None:
        """The session behind an id, or None where this gateway never issued it."""
        state = self._by_id.get(session_id)
        if state is not None:
            self._by_id.move_to_end(session_id)
            return state
        try:
            state = _decode(self._seal.open(_KIND, session_id))
        except (SealBroken, msgspec.DecodeError):
            return None
        self._by_id[session_id] = state
        if len(self._by_id) > self._remembered:
            self._by_id.popitem(last=False)
        return state
