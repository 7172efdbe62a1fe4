"""Which of the messages before an answer belong to the exchange that carries them; the others reach no client.

Over HTTP a server speaks for the request that was posted, or on the stream of the session that listens. Progress under a token
that it was not given there would be taken for that of another server's call, whose client may be the same.

Source: MCP 2025-11-25, basic/utilities/progress, "Behavior Requirements": progress only for tokens of active requests; MCP
2026-07-28, basic/patterns/mrtr: a stateless server sends no requests.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable

import msgspec

from mcp_gateway.transports.ports.upstream_port import EventHandler, Stray, UpstreamRequest
from mcp_gateway.transports.protocol.eras.translation import progress_token_of
from mcp_gateway.transports.protocol.mcp import jsonrpc
from mcp_gateway.transports.protocol.mcp.jsonrpc import Message, Notification, Request
from mcp_gateway.transports.protocol.mcp.revisions import is_modern

from .dropped_messages import DroppedMessages

_PROGRESS = "notifications/progress"


class _Progress(msgspec.Struct):
    progressToken: msgspec.Raw = msgspec.Raw(b"")


_decode_progress = msgspec.json.Decoder(_Progress).decode


class OwnMessages:
    """The exchanges that run at one replica, by their progress tokens.

    Known gap: a session of several servers hears no progress on its stream of a call that another cell holds. Servers should send
    it on the call's own answer; one table for all cells would close it.
    Source: MCP 2025-11-25, basic/transports, "Listening for Messages from the Server".
    """

    def __init__(self, dropped: DroppedMessages) -> None:
        self.dropped = dropped
        self.tokens: Counter[tuple[str | None, bytes]] = Counter()  # of (the server's session id, token as JSON)

    def of(self, request: UpstreamRequest, on_event: EventHandler) -> OwnHearing:
        return OwnHearing(self, request, on_event)


class OwnHearing:
    """An `EventHandler` that passes on what belongs to its exchange, for as long as that runs."""

    __slots__ = ("_on_event", "_own", "_request", "_token")

    def __init__(self, own: OwnMessages, request: UpstreamRequest, on_event: EventHandler) -> None:
        self._own = own
        self._request = request
        self._on_event = on_event
        self._token = _token_of(request.message)

    def __enter__(self) -> OwnHearing:
        if self._token is not None:
            self._own.tokens[self._request.session_id, self._token] += 1
        return self

    def __exit__(self, *_: object) -> None:
        if self._token is not None:
            key = self._request.session_id, self._token
            self._own.tokens[key] -= 1
            if not self._own.tokens[key]:
                del self._own.tokens[key]

    def __call__(self, message: Message | None, event_id: str | None) -> Awaitable[None]:
        stray = self._stray(message)
        return self._on_event(message, event_id) if stray is None else self._drop(stray, event_id)

    async def _drop(self, stray: Stray, event_id: str | None) -> None:
        self._own.dropped.note(stray, f"a {stray.value} that belongs to no exchange of this server's")
        if event_id is not None:  # where the stream can be resumed
            await self._on_event(None, event_id)

    def _stray(self, message: Message | None) -> Stray | None:
        if isinstance(message, Notification):  # as most are
            return Stray.PROGRESS if message.method == _PROGRESS and not self._is_own(message.params) else None
        return Stray.REQUEST if isinstance(message, Request) and is_modern(self._request.revision) else None

    def _is_own(self, params: bytes) -> bool:
        try:
            shown = bytes(_decode_progress(params or b"{}").progressToken)
            if shown == self._token:  # as most servers repeat it
                return True
            token = msgspec.json.encode(jsonrpc.id_value(shown)) if shown else None
        except (msgspec.DecodeError, RecursionError, ValueError):
            return False
        request = self._request
        if token is None or token == self._token:
            return True
        if request.message is not None:
            return False
        # On a session's own stream: any call's of that session, and where it has no other server, nobody else's can be meant.
        is_only_server = request.session is not None and len(request.session.upstreams) <= 1
        return is_only_server or (request.session_id, token) in self._own.tokens


def _token_of(message: Message | None) -> bytes | None:
    """The token that a request asks for progress with, as JSON."""
    if not isinstance(message, Request):
        return None
    if b"progressToken" not in message.params and b"\\u" not in message.params:  # an escape may spell it differently
        return None
    return progress_token_of(message.params)
