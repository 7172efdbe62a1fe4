"""Asks a client for its user's consent in the client's own era, and keeps its session alive until there is one.

Source: MCP 2025-11-25, client/elicitation, "URL Mode Elicitation Requests" and "URL Elicitation Required Error";
MCP 2026-07-28, basic/patterns/mrtr.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Final

import msgspec

from mcp_gateway.config.backend_settings import BackendSettings
from mcp_gateway.transports.ports.failure import Fate
from mcp_gateway.transports.ports.hash_keys import principal_of
from mcp_gateway.transports.ports.request_kind import RequestKind
from mcp_gateway.transports.ports.strategies import ReplicaTarget, UpstreamTransport
from mcp_gateway.transports.ports.upstream_port import (
    EventHandler,
    UpstreamAnswer,
    UpstreamConversation,
    UpstreamError,
    UpstreamRequest,
    ignore_events,
)
from mcp_gateway.transports.protocol.eras.own_requests import CONSENT_ID, initialize
from mcp_gateway.transports.protocol.mcp.jsonrpc import Request, Response
from mcp_gateway.transports.protocol.mcp.revisions import is_modern

from .consent_questions import (
    Replied,
    asks_modern_client,
    initialized_without,
    may_be_asked,
    reply_in,
    told_without,
    url_required,
    without_reply,
)

PENDING_SESSION: Final = "mcp-gateway-awaits-consent"
"""The server's session of a client that has none there yet: its first call after the consent opens one."""

_LONGEST_WAIT_S: Final = 50.0
_POLL_S: Final = 0.25
_PROBE_S: Final = 10.0
HasConsent = Callable[[str], bool]
"""Whether a principal has consented by now. Raises: UpstreamError."""


class ConsentConversation:
    """Around the bridge to a server whose users consent."""

    def __init__(self, inner: UpstreamConversation, backend: BackendSettings, has_consent: HasConsent) -> None:
        self._inner = inner
        self._name = backend.title or backend.name
        self._has_consent = has_consent

    async def exchange(self, request: UpstreamRequest, on_event: EventHandler) -> UpstreamAnswer:
        message = request.message
        if request.session_id == PENDING_SESSION:
            return await self._without_session(request)
        if is_modern(request.revision) and isinstance(message, Request):
            replied = reply_in(message.params)
            if replied is Replied.DECLINED:
                raise UpstreamError(Fate.UNAUTHORIZED, "the user has not consented", reason="forbidden")
            if replied is Replied.ACCEPTED:
                request = await self._after_consent(request, message)
        try:
            return await self._inner.exchange(request, on_event)
        except UpstreamError as error:
            return self._asked(request, error)

    async def probe(self, timeout_s: float) -> None:
        await self._inner.probe(timeout_s)

    async def close(self) -> None:
        await self._inner.close()

    # ---- parts

    def _asked(self, request: UpstreamRequest, error: UpstreamError) -> UpstreamAnswer:
        """The answer that asks for the consent, in the best form that this client can read.

        Raises: the error itself, where it is another one, or where no form of a question can carry it.
        """
        message, url = request.message, error.failure.consent_url
        if not url or not isinstance(message, Request):
            raise error
        is_of_modern = is_modern(request.revision)
        if message.method == "initialize":
            initialized = initialized_without(message.params, self._name)
            return UpstreamAnswer(200, Response(message.id, initialized, b""), PENDING_SESSION)
        if (made_up := told_without(message.method, self._name, is_modern=is_of_modern)) is not None:
            return UpstreamAnswer(200, Response(message.id, made_up, b""))
        if not may_be_asked(message, None if request.session is None else request.session.initialize, is_modern=is_of_modern):
            raise error
        if is_of_modern:
            return UpstreamAnswer(200, Response(message.id, asks_modern_client(self._name, url), b""))
        return UpstreamAnswer(200, Response(message.id, b"", url_required(self._name, url)))

    async def _after_consent(self, request: UpstreamRequest, message: Request) -> UpstreamRequest:
        """The request without the client's reply, once its user has consented, or when it has waited long enough.

        That the user accepts to open the address comes long before anything is done there.
        """
        give_up_s = time.monotonic() + min(_LONGEST_WAIT_S, (request.timeout_s or _LONGEST_WAIT_S) * 0.8)
        started_s = time.monotonic()
        while not self._has_consent(principal_of(request.hash_keys)) and time.monotonic() < give_up_s:
            await asyncio.sleep(_POLL_S)
        left_s = None if request.timeout_s is None else max(0.1, request.timeout_s - (time.monotonic() - started_s))
        retried = Request(message.id, message.method, without_reply(message.params))
        return msgspec.structs.replace(request, message=retried, timeout_s=left_s)

    async def _without_session(self, request: UpstreamRequest) -> UpstreamAnswer:
        """What a client says whose session the server does not know yet.

        Raises: UpstreamError, with SESSION_LOST as soon as one can be opened.
        """
        message = request.message
        if request.kind is RequestKind.STREAM:
            raise UpstreamError(Fate.REFUSED, "the server offers no such stream", reason="unknown_method")
        if not isinstance(message, Request):
            return UpstreamAnswer(202, None)
        if not self._has_consent(principal_of(request.hash_keys)):
            if message.method == "ping":
                return UpstreamAnswer(200, Response(message.id, b"{}", b""))
            try:  # what it asks for may be another thing by now than when the session began
                await self._open_and_end(request)
            except UpstreamError as error:
                return self._asked(request, error)
        raise UpstreamError(Fate.SESSION_LOST, "the server does not know the session")

    async def _open_and_end(self, request: UpstreamRequest) -> None:
        opening = UpstreamRequest(
            kind=RequestKind.REQUEST,
            message=initialize(CONSENT_ID, request.revision),
            revision=request.revision,
            timeout_s=_PROBE_S,
            hash_keys=request.hash_keys,
        )
        opened = await self._inner.exchange(opening, ignore_events)
        if opened.session_id is not None:
            end = msgspec.structs.replace(opening, kind=RequestKind.TERMINATE, message=None, session_id=opened.session_id)
            await self._inner.exchange(end, ignore_events)


class ConsentingTransport:
    """A strategy whose conversations ask for consent where a server's users give it."""

    def __init__(self, transport: UpstreamTransport, has_consent: Callable[[BackendSettings], HasConsent]) -> None:
        self._transport = transport
        self._has_consent = has_consent
        self.name = transport.name
        self.schemes = transport.schemes

    def connect(self, target: ReplicaTarget) -> UpstreamConversation:
        inner, backend = self._transport.connect(target), target.backend
        return ConsentConversation(inner, backend, self._has_consent(backend)) if backend.auth == "user" else inner
