"""A client's session, whole in its sealed id: any cell can serve it, before and after a restart. Pure.

Source: MCP 2025-11-25, basic/transports, "Session Management"; that the id carries the state is ours.
"""

from __future__ import annotations

import zlib
from collections import OrderedDict
from typing import Final

import msgspec

from mcp_gateway.transports.protocol.mcp.jsonrpc import members
from mcp_gateway.transports.protocol.mcp.refusals import Refused

from .sealing import Seal, SealBroken

MAX_ID_CHARACTERS: Final = 4_096
"""Of a session id, which travels in a header with every request: many servers and proxies take no line of 8 kB."""
MAX_SUBSCRIPTIONS: Final = 1_000
FACT_METHODS: Final = frozenset({"logging/setLevel", "resources/subscribe", "resources/unsubscribe"})
"""Requests that change the facts of a session."""
_LONGEST_LEVEL: Final = 32
_KIND: Final = "session"
MOST_REMEMBERED: Final = 1_000
"""Ids of which a cell keeps the state, those of sessions that are over among them. A state takes some 3 kB with four servers; to
open its id anew takes some 10 µs."""
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
            level = msgspec.json.decode(values["level"], type=str)
            return SessionFacts(level, self.subscriptions) if len(level) <= _LONGEST_LEVEL else self
        subscription = (backend, msgspec.json.decode(values["uri"], type=str))
        others = tuple(each for each in self.subscriptions if each != subscription)
        if method == "resources/subscribe":
            return SessionFacts(self.log_level, (*others, subscription)[-MAX_SUBSCRIPTIONS:])
        return SessionFacts(self.log_level, others)


class SessionState(msgspec.Struct, frozen=True, array_like=True):
    """What the sealed id holds.

    key:        random, names the session in logs, tables and hash rings.
    endpoint:   backend name, or "" for the merged server.
    revision:   negotiated with the client.
    initialize: the client's own `initialize` params as JSON, see `kept_handshake`; repair opens an upstream session with them.
    upstreams:  one entry per backend that answered `initialize`.
    facts:      none when the id is sealed; the cells keep them.
    issued_ms:  when the session was opened, since the epoch.
    holder:     whose share of all sessions it takes.
    principal:  whose it is, see `Principal.key`; "" where nobody knows.
    node:       of the cluster, that opened the session and holds what it has of processes and pipes; "" without a cluster.
    """

    key: str
    endpoint: str
    revision: str
    hash_key: str
    initialize: bytes
    upstreams: tuple[UpstreamSession, ...]
    facts: SessionFacts = SessionFacts()
    issued_ms: int = 0
    holder: str = ""
    principal: str = ""
    node: str = ""

    def upstream(self, backend: str) -> UpstreamSession | None:
        for each in self.upstreams:  # a loop, because a call asks four times, and there may be hundreds
            if each.backend == backend:
                return each
        return None

    @property
    def size_bytes(self) -> int:
        """What it takes in the journal, and about what it takes in memory."""
        return len(_encode(self))

    def within(self, most_bytes: int) -> SessionState:
        """The same with as many of its subscriptions as there is room for, the newest first."""
        if self.size_bytes <= most_bytes:
            return self
        without = msgspec.structs.replace(self, facts=SessionFacts(self.facts.log_level))
        room = most_bytes - without.size_bytes - _LONGER_HEADER_BYTES
        fitting = []
        for subscription in reversed(self.facts.subscriptions):
            size = len(_encode(subscription))
            if size <= room:
                room -= size
                fitting.append(subscription)
        return msgspec.structs.replace(self, facts=SessionFacts(self.facts.log_level, tuple(reversed(fitting))))


class _Sealed(msgspec.Struct, frozen=True, array_like=True):
    """What an id holds: the state without its upstreams, and those by themselves.

    They are many, alike and compress well. Nothing of the client's is compressed with them: it could try what shortens its id,
    and read the addresses of servers, which may hold keys, from that.
    """

    state: SessionState
    upstreams: bytes


_LONGER_HEADER_BYTES: Final = 2
"""Of a list with more than fifteen members. Source: the MessagePack specification, "array format family"."""
_encode = msgspec.msgpack.encode
_decode = msgspec.msgpack.Decoder(_Sealed).decode
_decode_upstreams = msgspec.msgpack.Decoder(tuple[UpstreamSession, ...]).decode


class SessionIds:
    """Turns sessions into ids and back; remembers a bounded number of decoded ids. most_bytes: of a session's state."""

    def __init__(self, seal: Seal, most_bytes: int = 8_192, remembered: int = MOST_REMEMBERED) -> None:
        self._seal = seal
        self._remembered = remembered
        self._most_bytes = most_bytes
        self._by_id: OrderedDict[str, SessionState] = OrderedDict()

    def issue(self, state: SessionState) -> str:
        """The id of a new session.

        Raises: Refused with too_large.
        """
        if state.size_bytes > self._most_bytes:
            text = f"the session takes {state.size_bytes} bytes, more than max_session_bytes, which is {self._most_bytes}"
            raise Refused("too_large", text)
        upstreams = zlib.compress(_encode(state.upstreams))
        session_id = self._seal.seal(_KIND, _encode(_Sealed(msgspec.structs.replace(state, upstreams=()), upstreams)))
        if len(session_id) > MAX_ID_CHARACTERS:
            text = f"the id of the session would have {len(session_id)} characters, more than the {MAX_ID_CHARACTERS} of a header"
            raise Refused("too_large", text)
        return session_id

    def read(self, session_id: str) -> SessionState | None:
        """The session behind an id, or None where this gateway never issued it."""
        state = self._by_id.get(session_id)
        if state is not None:
            self._by_id.move_to_end(session_id)
            return state
        if len(session_id) > MAX_ID_CHARACTERS:
            return None
        try:
            sealed = _decode(self._seal.open(_KIND, session_id))
            upstreams = _decode_upstreams(zlib.decompress(sealed.upstreams))
        except (SealBroken, msgspec.DecodeError, zlib.error):
            return None
        state = self._by_id[session_id] = msgspec.structs.replace(sealed.state, upstreams=upstreams)
        if len(self._by_id) > self._remembered:
            self._by_id.popitem(last=False)
        return state
