"""A client's session, whole in its sealed id: any cell can serve it, before and after a restart.

Source: MCP 2025-11-25, basic/transports, "Session Management"; that the id carries the state is ours.
"""

from __future__ import annotations

from collections import OrderedDict

import msgspec

from .sealing import Seal, SealBroken

_KIND = "session"


class UpstreamSession(msgspec.Struct, frozen=True, array_like=True):
    """One backend's side of a session. session_id is None where the server assigns none."""

    backend: str
    replica: str
    session_id: str | None
    revision: str


class SessionState(msgspec.Struct, frozen=True, array_like=True):
    """What the sealed id holds.

    key:        random, names the session in logs, tables and hash rings.
    endpoint:   backend name, or "" for the merged server.
    revision:   negotiated with the client.
    initialize: the client's own `initialize` params as JSON; repair opens an upstream session again with them.
    upstreams:  one entry per backend that answered `initialize`.
    """

    key: str
    endpoint: str
    revision: str
    hash_key: str
    initialize: bytes
    upstreams: tuple[UpstreamSession, ...]

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
