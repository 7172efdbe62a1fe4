"""A wire whose tools are served as the configuration says, to clients of every era and transport, and behind every endpoint."""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from typing import Any, Final

import msgspec
from msgspec import Raw

from mcp_gateway.transports.ports.failure import Fate
from mcp_gateway.transports.ports.hash_keys import PRINCIPAL
from mcp_gateway.transports.ports.upstream_port import (
    EventHandler,
    UpstreamAnswer,
    UpstreamConversation,
    UpstreamError,
    UpstreamRequest,
    ignore_events,
)
from mcp_gateway.transports.protocol.curation.curation import Curation, UnknownTool
from mcp_gateway.transports.protocol.eras.own_requests import TOOLS_ID
from mcp_gateway.transports.protocol.mcp.jsonrpc import NULL, Request, Response, members
from mcp_gateway.transports.protocol.mcp.member_spelling import misspelt
from mcp_gateway.transports.protocol.mcp.refusals import REFUSALS

from .pinned_tools import PinnedTools
from .tool_rules import ToolRules, gives_later

_logger = logging.getLogger(__name__)

_PAGES: Final = 100
_LOOKED_UP_S: Final = 30.0
"""Names that the list did not explain are not looked for again so soon: each costs the server its whole list."""


class CuratedConversation:
    """Implements `UpstreamConversation` over another one. What is not served does not exist: it is not listed, and a call of it
    is answered as one of a tool that the server does not have.

    Source: MCP 2025-11-25, server/tools, "Error Handling": an unknown tool is a protocol error, -32602.
    """

    def __init__(
        self,
        wire: UpstreamConversation,
        curation: Curation,
        backend: str,
        pinned: PinnedTools | None = None,
        rules: ToolRules | None = None,
    ) -> None:
        self._wire = wire
        self._pinned = pinned
        self._rules = rules
        self._curation = curation
        self._backend = backend
        self._passes_all = pinned is None and rules is None
        self._decides = curation.is_chosen or not self._passes_all
        self._look_up_from_s = 0.0

    def exchange(self, request: UpstreamRequest, on_event: EventHandler) -> Coroutine[Any, Any, UpstreamAnswer]:
        """The wire's own exchange where there is nothing to curate, or where another cell has done so."""
        message = request.message
        if not isinstance(message, Request) or request.is_curated:
            return self._wire.exchange(request, on_event)
        if message.method == "tools/list":
            return self._list(request, on_event)
        if self._rules is not None and gives_later(message.method):
            return self._take_later(self._rules, request, message, on_event)
        if message.method != "tools/call":
            return self._wire.exchange(request, on_event)
        if self._decides and (problem := _unclear(message.params)) is not None:
            return _refused(message.id, problem)
        name = self._curation.name_called(message.params)
        if name is None or (self._passes_all and self._curation.passes(name)):
            return self._wire.exchange(request, on_event)
        if self._has_to_look_up(name):
            return self._call_after_look_up(request, message, name, on_event)
        return self._call(request, message, name, on_event)

    def _has_to_look_up(self, name: str) -> bool:
        if self._curation.names.has_to_look_up(name):
            return True
        return self._rules is not None and self._rules.has_to_look_up(self._curation.names.called(name) or name)

    async def _list(self, request: UpstreamRequest, on_event: EventHandler) -> UpstreamAnswer:
        answer = await self._wire.exchange(msgspec.structs.replace(request, is_curated=True), on_event)
        if answer.response is None or not answer.response.result:
            return answer
        result = self._served_list(answer.response.result)
        return msgspec.structs.replace(answer, response=Response(answer.response.id, result, b""))

    def _served_list(self, result: bytes) -> bytes:
        try:
            if self._rules is not None:
                self._rules.learn(result)
            withheld = self._pinned.withheld_of(result) if self._pinned is not None else frozenset()
            result = self._curation.served_list(result, withheld)
        except (msgspec.DecodeError, RecursionError) as error:
            raise UpstreamError(Fate.BROKEN, f"the server sent a malformed list: {error}") from None
        if renamed := self._curation.names.take_untold():
            shown = ", ".join(f"{own[:100]!r} as {here!r}" for own, here in list(renamed.items())[:5])
            _logger.warning(
                "backend %s: %d names of tools are served so that every client takes them: %s", self._backend, len(renamed), shown
            )
        return result

    def _call(
        self, request: UpstreamRequest, message: Request, name: str, on_event: EventHandler
    ) -> Coroutine[Any, Any, UpstreamAnswer]:
        try:
            if self._pinned is not None and self._pinned.withholds(self._curation.names.called(name) or ""):
                raise UnknownTool(name)
            params = self._curation.own_call(name, message.params)
        except UnknownTool:
            return _refused(message.id, f"Unknown tool: {name}")
        except (msgspec.DecodeError, RecursionError) as error:
            return _refused(message.id, f"arguments must be an object: {error}")
        if self._rules is not None:
            tool = self._curation.names.called(name) or name
            return self._call_by_rules(self._rules, tool, request, Request(message.id, message.method, params), on_event)
        return self._wire.exchange(request if params is message.params else _with_params(request, message, params), on_event)

    async def _call_by_rules(
        self, rules: ToolRules, tool: str, request: UpstreamRequest, message: Request, on_event: EventHandler
    ) -> UpstreamAnswer:
        user = request.hash_keys.get(PRINCIPAL, "")
        try:
            params = await rules.before(tool, message.params, user)
        except (msgspec.DecodeError, RecursionError) as error:
            return await _refused(message.id, f"arguments must be an object: {error}")
        answer = await self._wire.exchange(_with_params(request, message, params), on_event)
        return await _changed(answer, lambda result: rules.after(tool, result, user))

    async def _take_later(
        self, rules: ToolRules, request: UpstreamRequest, message: Request, on_event: EventHandler
    ) -> UpstreamAnswer:
        user = request.hash_keys.get(PRINCIPAL, "")
        answer = await self._wire.exchange(msgspec.structs.replace(request, is_curated=True), on_event)
        return await _changed(answer, lambda result: rules.later(message.method, result, user))

    async def _call_after_look_up(
        self, request: UpstreamRequest, message: Request, name: str, on_event: EventHandler
    ) -> UpstreamAnswer:
        await self._look_up(request, message)
        return await self._call(request, message, name, on_event)

    async def _look_up(self, request: UpstreamRequest, message: Request) -> None:
        """Read the list for the client that calls, as another cell, or this process in its earlier life, has done.

        Raises: UpstreamError.
        """
        if time.monotonic() < self._look_up_from_s:
            return
        meta = members(message.params).get("_meta", Raw(b"{}"))
        headers = _without_parameters(request.headers)
        cursor: Raw | None = None
        for _ in range(_PAGES):
            params = msgspec.json.encode({"_meta": meta} | ({} if cursor is None else {"cursor": cursor}))
            listing = Request(TOOLS_ID, "tools/list", params)
            answer = await self._wire.exchange(
                msgspec.structs.replace(request, message=listing, headers=headers, is_curated=True), ignore_events
            )
            if answer.response is None or not answer.response.result:
                return
            self._served_list(answer.response.result)
            try:
                cursor = members(answer.response.result).get("nextCursor")
            except msgspec.DecodeError:
                return
            if cursor is None or bytes(cursor) == NULL:
                break
        self._look_up_from_s = time.monotonic() + _LOOKED_UP_S

    async def probe(self, timeout_s: float) -> None:
        await self._wire.probe(timeout_s)

    async def close(self) -> None:
        await self._wire.close()


def _unclear(params: bytes) -> str | None:
    """Why a server may run another tool for this call than the one that was looked at; None where it cannot.

    A list of one name is that name to a server in JavaScript which looks tools up without a closer look.
    """
    try:
        if bytes(members(params).get("name", Raw(b""))).startswith((b"[", b"{")):
            return "the name of a tool is a string"
        return misspelt(params)
    except (msgspec.DecodeError, RecursionError) as error:
        return f"params cannot be read: {error}"


def _with_params(request: UpstreamRequest, message: Request, params: bytes) -> UpstreamRequest:
    """Headers that repeat arguments are those of what the client has sent: the bridge makes them anew."""
    return msgspec.structs.replace(
        request,
        message=Request(message.id, message.method, params),
        headers=_without_parameters(request.headers),
        has_headers=False,
        is_curated=True,
    )


async def _changed(answer: UpstreamAnswer, change: Callable[[bytes], Awaitable[bytes]]) -> UpstreamAnswer:
    """The answer with another result, where it has one. Raises: UpstreamError."""
    if answer.response is None or not answer.response.result:
        return answer
    try:
        result = await change(answer.response.result)
    except (msgspec.DecodeError, RecursionError) as error:
        raise UpstreamError(Fate.ENDED, f"the server sent a malformed result: {error}") from None
    if result is answer.response.result:
        return answer
    return msgspec.structs.replace(answer, response=Response(answer.response.id, result, b""))


def _without_parameters(headers: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in headers.items() if not name.startswith("mcp-param-")}


async def _refused(request_id: bytes, text: str) -> UpstreamAnswer:
    kind = REFUSALS["invalid_params"]
    error = {"code": kind.code, "message": text, "data": {"reason": "invalid_params"}}
    return UpstreamAnswer(kind.status, Response(request_id, b"", msgspec.json.encode(error)))
