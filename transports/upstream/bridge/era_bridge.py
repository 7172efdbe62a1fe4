"""Any client to any server: speaks to one replica in its own era, whatever era its client speaks.

Where both speak the same revision the wire gets the very request and gives the very answer, but for calls that are to be tasks.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
from collections.abc import Coroutine, Mapping
from typing import Any, Final

import attrs
import msgspec

from mcp_gateway.config.backend_settings import BackendSettings
from mcp_gateway.transports.ports.failure import Fate
from mcp_gateway.transports.ports.hash_keys import CREDENTIAL, PRINCIPAL, Asker
from mcp_gateway.transports.ports.loop_tasks import SharedTasks
from mcp_gateway.transports.ports.replica_id import ReplicaId
from mcp_gateway.transports.ports.request_kind import RequestKind
from mcp_gateway.transports.ports.strategies import ReplicaTarget, WireTransport
from mcp_gateway.transports.ports.upstream_port import (
    EventHandler,
    UpstreamAnswer,
    UpstreamConversation,
    UpstreamError,
    UpstreamRequest,
    ignore_events,
)
from mcp_gateway.transports.protocol.curation.curation import Curation
from mcp_gateway.transports.protocol.eras.own_requests import ERA_ID, discover, initialize
from mcp_gateway.transports.protocol.eras.server_era import ServerEra
from mcp_gateway.transports.protocol.eras.translation import with_own_offers
from mcp_gateway.transports.protocol.mcp.jsonrpc import Request, Response
from mcp_gateway.transports.protocol.mcp.revisions import (
    LEGACY_REVISIONS,
    NEWEST,
    NEWEST_LEGACY,
    is_known_method,
    is_modern,
)
from mcp_gateway.transports.protocol.sealed.session import BRIDGED_SESSION
from mcp_gateway.transports.telemetry import metrics
from mcp_gateway.transports.upstream.cache.cached_conversation import CachedConversation

from .bridge_site import BridgeSite
from .curated_conversation import CuratedConversation
from .legacy_to_legacy import exchange_fitted, opened_as_asked
from .legacy_to_modern import LegacyToModern
from .modern_to_legacy import ModernToLegacy
from .pinned_tools import PinnedTools
from .same_era_tasks import SameEraTasks
from .task_host import TaskHost
from .tool_rules import ToolRules

_PROBE_S: Final = 10.0
_HTTP: Final = frozenset({"http", "https"})
_Exchange = Coroutine[Any, Any, UpstreamAnswer]


class BridgeTransport:
    """A strategy towards servers whose conversations speak to clients of both eras."""

    def __init__(self, transport: WireTransport, site: BridgeSite) -> None:
        self._transport = transport
        self._site = site
        self.name = transport.name
        self.schemes = transport.schemes
        self._is_http = transport.schemes <= _HTTP

    def connect(self, target: ReplicaTarget) -> UpstreamConversation:
        backend = target.backend
        era = ServerEra(backend.protocol)
        wire = self._transport.connect(target, era)
        replica = ReplicaId(backend.name, target.replica_id)
        # What one user may see is kept for nobody, whatever the server says of it: all here are the same client to it.
        cached = wire if backend.is_per_user else CachedConversation(wire)
        bridge = EraBridge(
            cached,
            self._site,
            replica=replica,
            protocol=backend.protocol,
            is_http=self._is_http,
            era=era,
            uncached=wire,
        )
        curation = self._site.curations[backend.name] = Curation(backend.tools, backend.prefix)
        return CuratedConversation(
            bridge,
            curation,
            backend.name,
            pinned=self._pinned(backend),
            rules=ToolRules.of(backend.name, backend.tools, self._site.guard_of(backend.tools)),
        )

    def _pinned(self, backend: BackendSettings) -> PinnedTools | None:
        mode, pins = backend.tools.get("pin", "off"), self._site.pins
        if mode == "off" or pins is None:
            return None
        return PinnedTools(self._site, pins, backend.name, is_enforced=mode == "enforce")


class EraBridge:
    """The wire to one replica, and the two bridges to it. Which eras the server speaks is found out once.

    era:      what is known of that; the wire learns and forgets it as well.
    uncached: the same wire, without what an earlier server at its end has let it remember.
    """

    def __init__(
        self,
        wire: UpstreamConversation,
        site: BridgeSite,
        *,
        replica: ReplicaId,
        protocol: str,
        is_http: bool,
        era: ServerEra,
        uncached: UpstreamConversation,
    ) -> None:
        self._wire, self._uncached = wire, uncached
        self._era = era
        self._is_http = is_http
        legacy = protocol if protocol in LEGACY_REVISIONS else NEWEST_LEGACY
        self._tasks = TaskHost(site, replica)
        self._to_legacy = ModernToLegacy(wire, site, self._tasks, replica=replica, revision=legacy, has_streams=self._is_http)
        self._to_modern = LegacyToModern(wire, site, self._tasks, replica=replica, is_http=self._is_http)
        self._same_era = SameEraTasks(site, self._tasks, send_modern=self._send_modern, send_legacy=self._send_legacy)
        self._probing: SharedTasks[Asker, None] = SharedTasks()

    def exchange(self, request: UpstreamRequest, on_event: EventHandler) -> _Exchange:
        """The wire's own exchange where there is nothing to translate: not even a coroutine lies between."""
        if (task := self._tasks.addressed(request)) is not None:
            return self._tasks.exchange(request, task, on_event)
        if is_modern(request.revision):
            if request.session_id is not None and request.session_id.startswith(BRIDGED_SESSION):
                return self._counted(request, "legacy", "modern", self._to_modern.exchange(request, on_event))
            if self._era.speaks_modern and not _is_discovery(request):
                return self._pass_modern(request, on_event)
            return self._exchange_modern(request, on_event)
        if isinstance(request.message, Request) and request.message.method == "initialize":
            return self._open(request, request.message, on_event)
        return self._same_era.serve_legacy(request, on_event) or self._send_legacy(request, on_event)

    def _send_legacy(self, request: UpstreamRequest, on_event: EventHandler) -> _Exchange:
        session = request.session
        if session is None or session.revision == request.revision:
            return self._wire.exchange(request, on_event)
        return self._counted(request, "legacy", "legacy", exchange_fitted(self._wire, request, session.revision, on_event))

    def _pass_modern(self, request: UpstreamRequest, on_event: EventHandler) -> _Exchange:
        return self._same_era.serve_modern(request, on_event) or self._send_modern(request, on_event)

    def _send_modern(self, request: UpstreamRequest, on_event: EventHandler) -> _Exchange:
        """A modern client's request to a modern server, as it is; only headers are added that the client's transport lacks."""
        message = request.message
        if self._is_http and not request.has_headers and isinstance(message, Request) and message.method == "tools/call":
            return self._to_modern.parameters.call(request, message, on_event)
        return self._wire.exchange(request, on_event)

    async def _exchange_modern(self, request: UpstreamRequest, on_event: EventHandler) -> UpstreamAnswer:
        """A modern client's request to a server that is no modern one, or of which that is not known yet, and its discovery."""
        if self._era.speaks_modern is None:
            await self._probe_era(request)
        if self._era.speaks_modern:
            answer = await self._pass_modern(request, on_event)
            return _discovered(answer) if _is_discovery(request) else answer
        try:
            return await self._counted(request, "modern", "legacy", self._to_legacy.exchange(request, on_event))
        except UpstreamError as error:
            if error.fate is not Fate.UNSUPPORTED:
                raise
            text = _only_speaks(self._era) or error.failure.text
            self._era.forget()
            raise UpstreamError.of(attrs.evolve(error.failure, fate=Fate.REFUSED, text=text)) from None

    async def _open(self, request: UpstreamRequest, message: Request, on_event: EventHandler) -> UpstreamAnswer:
        """`initialize`: the server's own answer, or one made from what a server that knows no handshake tells of itself."""
        if self._era.takes_handshake:
            refusal: UpstreamError | None = None
            answer: UpstreamAnswer | None = None
            try:
                answer = await self._wire.exchange(request, on_event)
            except UpstreamError as error:
                if error.fate.is_fault or not error.fate.was_sent:
                    raise
                refusal = error
            if answer is not None and answer.response is not None and answer.response.result:
                return self._same_era.opened(opened_as_asked(message, answer))
            self._era.refuse_handshake()
            if self._era.speaks_modern is None:
                await self._probe_era(request)
            if not self._era.speaks_modern:
                if text := _only_speaks(self._era):
                    raise UpstreamError(Fate.REFUSED, text)
                if answer is None:
                    assert refusal is not None
                    raise refusal
                return answer
            self._era.refuse_handshake()
        answer = await self._counted(request, "legacy", "modern", self._to_modern.open(request, message))
        if answer.response is None or not answer.response.result:
            self._era.forget()
        return answer

    # ---- the server's era

    async def _probe_era(self, request: UpstreamRequest) -> None:
        """Ask `server/discover`, once for all who wait and whom the server would be shown alike.

        Raises: UpstreamError where the server cannot be reached; its era stays unknown.
        """
        keys = {name: request.hash_keys[name] for name in (PRINCIPAL, CREDENTIAL) if name in request.hash_keys}
        try:
            async with asyncio.timeout(request.timeout_s):
                await self._probing.join(Asker.of(keys), functools.partial(self._ask_era, keys))
        except TimeoutError:
            if self._era.is_starting:
                raise UpstreamError(Fate.STARTING, "starting, and has not said a word yet") from None
            raise UpstreamError(Fate.TIMED_OUT, "the server did not answer in time") from None

    async def _ask_era(self, keys: Mapping[str, str]) -> None:
        """Source: basic/transports/stdio and streamable-http, "Backward Compatibility"."""
        request = UpstreamRequest(
            kind=RequestKind.REQUEST, message=discover(ERA_ID), revision=NEWEST, timeout_s=_PROBE_S, hash_keys=keys
        )
        try:
            answer = await self._uncached.exchange(request, ignore_events)
        except UpstreamError as error:
            # On a pipe a server may stay silent to what it does not know; over HTTP every request has an answer.
            is_silent = error.failure.reason == "upstream_timeout" and not self._is_http
            if error.fate is Fate.STARTING:
                await self._ask_era(keys)  # on the same pipe, which is kept; within the bound that a start has
                return
            is_legacy = error.fate is Fate.UNSUPPORTED or is_silent
            may_be_legacy = self._is_http and error.fate in (Fate.BROKEN, Fate.REFUSED)
            if not is_legacy and not (may_be_legacy and await self._takes_handshake(keys)):
                raise
            self._era.decide(speaks_modern=False)
            return
        self._era.observe(answer.response, answer.status if self._is_http else 200)
        if self._era.speaks_modern is None:
            self._era.decide(speaks_modern=not await self._takes_handshake(keys))

    async def _takes_handshake(self, keys: Mapping[str, str]) -> bool:
        """Whether the server opens a session, which is ended again."""
        request = UpstreamRequest(
            kind=RequestKind.REQUEST,
            message=initialize(ERA_ID),
            revision=NEWEST_LEGACY,
            timeout_s=_PROBE_S,
            hash_keys=keys,
        )
        try:
            answer = await self._wire.exchange(request, ignore_events)
        except UpstreamError:
            return False
        if answer.session_id is not None:
            end = UpstreamRequest(
                kind=RequestKind.TERMINATE,
                revision=NEWEST_LEGACY,
                session_id=answer.session_id,
                timeout_s=_PROBE_S,
                hash_keys=keys,
            )
            with contextlib.suppress(UpstreamError):
                await self._wire.exchange(end, ignore_events)
        return answer.response is not None and bool(answer.response.result)

    def _counted(self, request: UpstreamRequest, client: str, server: str, exchange: _Exchange) -> _Exchange:
        method = request.message.method if isinstance(request.message, Request) else request.kind.value
        if not is_known_method(method, NEWEST) and not is_known_method(method, NEWEST_LEGACY):
            method = request.kind.value
        metrics.bridge_total.labels(client, server, method).inc()
        return exchange

    # ---- the rest

    async def probe(self, timeout_s: float) -> None:
        await self._wire.probe(timeout_s)

    async def close(self) -> None:
        self._tasks.close()
        self._to_modern.close()
        await self._to_legacy.close()
        await self._wire.close()


def _is_discovery(request: UpstreamRequest) -> bool:
    return isinstance(request.message, Request) and request.message.method == "server/discover"


def _only_speaks(era: ServerEra) -> str:
    """Why a server cannot be spoken to that takes no handshake either; "" where it lists a revision that is known here."""
    if not era.only_speaks:
        return ""
    return f"the server only speaks revisions that are unsupported here: {', '.join(era.only_speaks)[:200]}"


def _discovered(answer: UpstreamAnswer) -> UpstreamAnswer:
    """What a modern server tells of itself, with the versions that can be spoken here, the same that every refusal lists, and
    with tasks, which the gateway makes of calls that take long.
    """
    response = answer.response
    if response is None or not response.result:
        return answer
    try:
        result = with_own_offers(response.result)
    except (msgspec.DecodeError, RecursionError):
        return answer
    return msgspec.structs.replace(answer, response=Response(response.id, result, b""))
