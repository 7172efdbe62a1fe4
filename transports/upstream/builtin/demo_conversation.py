"""The built-in demo server behind the same strategy as a real one: plays its plans with the loop's timers."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import time
from collections import OrderedDict

import msgspec

from mcp_gateway.transports.ports.failure import Fate
from mcp_gateway.transports.ports.request_kind import RequestKind
from mcp_gateway.transports.ports.strategies import ReplicaTarget
from mcp_gateway.transports.ports.upstream_port import (
    EventHandler,
    UpstreamAnswer,
    UpstreamConversation,
    UpstreamError,
    UpstreamRequest,
)
from mcp_gateway.transports.protocol.eras.server_era import ServerEra
from mcp_gateway.transports.protocol.mcp import jsonrpc
from mcp_gateway.transports.protocol.mcp.error_codes import INVALID_PARAMS, METHOD_NOT_FOUND
from mcp_gateway.transports.protocol.mcp.jsonrpc import Request, Response
from mcp_gateway.transports.protocol.mcp.revisions import is_modern

from .demo_server import DemoAnswer, DemoRequest, DemoServer

_SESSIONS_REMEMBERED = 10_000


class BuiltinUpstream:
    """Registry strategy for `builtin = "demo"`."""

    name = "builtin_upstream"
    schemes = frozenset({"builtin"})

    def connect(self, target: ReplicaTarget, era: ServerEra | None = None) -> UpstreamConversation:
        return BuiltinConversation()


class BuiltinConversation:
    """Speaks to a `DemoServer` in this process. Keeps the log level of each session, and which request can be cancelled."""

    def __init__(self) -> None:
        self._server = DemoServer()
        self._log_levels: OrderedDict[str, str] = OrderedDict()
        self._playing: dict[tuple[str | None, bytes], asyncio.Task[object]] = {}
        self._cancelled: set[tuple[str | None, bytes]] = set()

    async def exchange(self, request: UpstreamRequest, on_event: EventHandler) -> UpstreamAnswer:
        message = request.message
        if message is None:
            if request.kind is RequestKind.STREAM:
                raise UpstreamError(Fate.REFUSED, "the demo server says nothing on its own", reason="unknown_method")
            self._log_levels.pop(request.session_id or "", None)
            return UpstreamAnswer(200, None)
        if not isinstance(message, Request):
            if isinstance(message, jsonrpc.Notification) and message.method == "notifications/cancelled":
                self._cancel(request.session_id, message.params)
            return UpstreamAnswer(202, None)
        try:
            params = msgspec.json.decode(message.params) if message.params else {}
        except (msgspec.DecodeError, RecursionError) as error:  # the grammar was checked; numbers beyond any range were not
            unreadable = {"code": INVALID_PARAMS, "message": f"Invalid params: {error}"}
            return self._answer(request, message, DemoAnswer(error=unreadable))
        outcome = self._server.handle(
            DemoRequest(
                revision=request.revision,
                method=message.method,
                params=params,
                request_id=jsonrpc.id_value(message.id),
                now_s=time.time(),
                log_level=self._log_levels.get(request.session_id or ""),
            )
        )
        if isinstance(outcome, DemoAnswer):
            return self._answer(request, message, outcome)
        key = (request.session_id, message.id)
        task = asyncio.current_task()
        assert task is not None
        self._playing[key] = task
        try:
            async with asyncio.timeout(None if outcome.stays_open else request.timeout_s):
                for step in outcome.steps():
                    if step.delay_s > 0:
                        await asyncio.sleep(step.delay_s)
                    if step.notification is not None:
                        await on_event(jsonrpc.decode(msgspec.json.encode(step.notification)), None)
                if outcome.stays_open:
                    await asyncio.Event().wait()
        except TimeoutError:
            raise UpstreamError(Fate.REFUSED, "the tool did not end in time", reason="upstream_timeout") from None
        except asyncio.CancelledError:
            if key not in self._cancelled:
                raise
            task.uncancel()
            text = "the client has cancelled the request"
            raise UpstreamError(Fate.ENDED, text) from None
        finally:
            self._cancelled.discard(key)
            if self._playing.get(key) is task:
                del self._playing[key]
        return self._answer(request, message, outcome.answer)

    def _answer(self, request: UpstreamRequest, message: Request, answer: DemoAnswer) -> UpstreamAnswer:
        if answer.log_level is not None and request.session_id is not None:
            self._log_levels[request.session_id] = answer.log_level
            if len(self._log_levels) > _SESSIONS_REMEMBERED:
                self._log_levels.popitem(last=False)
        if answer.error is not None:
            status = 400 if is_modern(request.revision) else 200
            if answer.error["code"] == METHOD_NOT_FOUND and status == 400:
                status = 404
            return UpstreamAnswer(status, Response(message.id, b"", msgspec.json.encode(answer.error)))
        session_id = secrets.token_urlsafe(9) if message.method == "initialize" else None
        return UpstreamAnswer(200, Response(message.id, msgspec.json.encode(answer.result), b""), session_id)

    def _cancel(self, session_id: str | None, params: bytes) -> None:
        with contextlib.suppress(msgspec.DecodeError):
            request_id = jsonrpc.members(params).get("requestId")
            key = (session_id, bytes(request_id or b""))
            if key in self._playing:
                self._cancelled.add(key)
                self._playing[key].cancel()

    async def probe(self, timeout_s: float) -> None:
        return None

    async def close(self) -> None:
        for task in list(self._playing.values()):
            task.cancel()
