"""Calls that become tasks of the gateway where client and server are of one era: the server has none, or makes none of them."""

from __future__ import annotations

import asyncio
import functools
import itertools
import secrets
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, Final

import msgspec
from msgspec.structs import replace

from mcp_gateway.transports.ports.failure import Fate
from mcp_gateway.transports.ports.upstream_port import (
    EventHandler,
    UpstreamAnswer,
    UpstreamError,
    UpstreamRequest,
    ignore_events,
)
from mcp_gateway.transports.protocol.eras.questions import MOST_OPEN_QUESTIONS, read_input_required, retried_params
from mcp_gateway.transports.protocol.eras.tasks import legacy_outcome, unknown_task, with_legacy_tasks, with_optional_tasks
from mcp_gateway.transports.protocol.eras.translation import progress_token_of, result_type
from mcp_gateway.transports.protocol.mcp import jsonrpc
from mcp_gateway.transports.protocol.mcp.error_codes import METHOD_NOT_FOUND, error_code
from mcp_gateway.transports.protocol.mcp.jsonrpc import Message, Request, Response
from mcp_gateway.transports.protocol.mcp.revisions import TASK_METHODS
from mcp_gateway.transports.protocol.mcp.tasks import (
    TASKS_REVISION,
    declares_extension,
    missing_extension,
    offers_task_calls,
    task_id_of,
    wants_task,
)
from mcp_gateway.transports.protocol.sealed.task_ids import TaskId, answered_question
from mcp_gateway.transports.telemetry import metrics

from .bridge_site import BridgeSite
from .legacy_to_modern import MAX_ROUNDS, WAIT_S
from .server_task import AskAbout, followed
from .session_call import SessionCall
from .task_host import TaskHost, task_wish
from .task_work import Ask, RoundsWork
from .tool_support import FORBIDDEN, READING_S, ToolSupport, tool_name

_FIRST_WORDS_S: Final = 0.25
"""A server that has lost the session, or is not there, has shown it by then: that call is tried again, as any other."""

Exchange = Coroutine[Any, Any, UpstreamAnswer]
Send = Callable[[UpstreamRequest, EventHandler], Exchange]


class SameEraTasks:
    """Makes tasks of one server's calls. All else is none of its business, and passes it by.

    send_modern, send_legacy: speak to the server in the client's own era.
    """

    def __init__(self, site: BridgeSite, tasks: TaskHost, *, send_modern: Send, send_legacy: Send) -> None:
        self._site = site
        self._tasks = tasks
        self._send_modern = send_modern
        self._send_legacy = send_legacy
        self._support = ToolSupport()
        self._may_have_tasks = True  # the legacy server, as far as its handshakes have shown
        self._ids = itertools.count(1)
        self._id_prefix = secrets.token_urlsafe(4)

    # ---- modern clients

    def serve_modern(self, request: UpstreamRequest, on_event: EventHandler) -> Exchange | None:
        """What of a modern client's requests needs more than to be passed on; None for all others."""
        message = request.message
        if not isinstance(message, Request):
            return None
        if message.method == "tools/call" and declares_extension(message.params):
            return self._call_modern(request, message, on_event)
        if message.method in TASK_METHODS:
            return _known_tasks(self._send_modern(request, on_event), message, is_modern=True)
        return None

    async def _call_modern(self, request: UpstreamRequest, message: Request, on_event: EventHandler) -> UpstreamAnswer:
        """The server's own answer, whatever it is, where that comes soon; then a task.

        Source: SEP-2663, "Capability Negotiation": whether there will be a task is for the server to say, whose place the gateway
        takes. A client that has asked for progress hears it only while it waits, so it waits for as long as it may.
        """
        limits = self._site.tasks.limits
        patience_s: float | None = limits.prompt_s
        if progress_token_of(message.params) is not None:
            patience_s = None if request.timeout_s is None else request.timeout_s * 0.8
        audience = _Audience(on_event)
        detached = replace(request, timeout_s=limits.ttl_s)
        call = asyncio.ensure_future(self._send_modern(detached, audience.hear))
        try:
            await asyncio.wait({call}, timeout=patience_s)
        except asyncio.CancelledError:
            call.cancel()
            raise
        if call.done():
            return call.result()
        audience.leave()
        work = RoundsWork(functools.partial(self._go_on, detached, message, call))
        try:
            task = self._tasks.host(request, work)
        except UpstreamError:
            call.cancel()  # the work has not begun to wait for it
            raise
        return UpstreamAnswer(200, Response(message.id, task.view().modern_created(), b""))

    async def _go_on(
        self, request: UpstreamRequest, message: Request, call: asyncio.Future[UpstreamAnswer], ask: Ask
    ) -> Response:
        """The rest of a call that nobody waits for: what it asks waits for whoever comes.

        Raises: UpstreamError.
        """
        params = jsonrpc.members(message.params)
        answer = await call
        for _ in range(MAX_ROUNDS):
            response = answer.response
            if response is None:
                raise UpstreamError(Fate.BROKEN, "the server ended its stream without a response")
            if response.error:
                return response
            try:
                kind = result_type(response.result)
                if kind == "complete":
                    return response
                if kind == "task":  # it has taken its time to make one
                    created = msgspec.json.decode(response.result, type=dict[str, Any])
                    return legacy_outcome(await followed(created, ask, self._about(request, params)), message.id)
                if kind != "input_required":
                    raise UpstreamError(Fate.BROKEN, f"the server's result is of the unknown type {kind[:50]!r}")
                needed = read_input_required(response.result)
            except (msgspec.DecodeError, RecursionError) as error:
                raise UpstreamError(Fate.BROKEN, f"the server's result cannot be read: {error}") from None
            if len(needed.requests) > MOST_OPEN_QUESTIONS:
                metrics.bounds_reached_total.labels("questions").inc()
                text = f"the server asks for {len(needed.requests)} things at once; it may for {MOST_OPEN_QUESTIONS}"
                raise UpstreamError(Fate.BROKEN, text)
            if not needed.requests:
                await asyncio.sleep(WAIT_S)
            asked = {key: ask(method, question) for key, (method, question) in needed.requests.items()}
            answers = {key: (await answered).result for key, answered in asked.items()}
            again = Request(self._next_id(), message.method, retried_params(params, answers, needed.request_state))
            answer = await self._send_modern(replace(request, message=again), ignore_events)
        raise UpstreamError(Fate.BROKEN, f"the server asked for input {MAX_ROUNDS} times")

    def _about(self, request: UpstreamRequest, params: Mapping[str, msgspec.Raw]) -> AskAbout:
        """Asks about a task of the server's own, as the client whose call it was. params: of that call."""

        async def ask_about(method: str, about: Mapping[str, Any]) -> dict[str, Any]:
            asked = Request(self._next_id(), method, msgspec.json.encode({**about, "_meta": params.get("_meta", {})}))
            answer = await self._send_modern(replace(request, message=asked), ignore_events)
            if answer.response is None or not answer.response.result:
                error = b"" if answer.response is None else answer.response.error
                raise UpstreamError(Fate.REFUSED, f"the server has refused {method}", error=error)
            try:
                return msgspec.json.decode(answer.response.result, type=dict[str, Any])
            except (msgspec.DecodeError, RecursionError) as error:
                raise UpstreamError(Fate.BROKEN, f"the server's task cannot be read: {error}") from None

        return ask_about

    # ---- legacy clients

    def opened(self, answer: UpstreamAnswer) -> UpstreamAnswer:
        """A legacy server's answer to `initialize` with what the gateway adds to it."""
        response = answer.response
        assert response is not None
        try:
            result = msgspec.json.decode(response.result, type=dict[str, Any])
            capabilities, revision = result["capabilities"], result["protocolVersion"]
            announced = with_legacy_tasks(capabilities, revision)
        except (KeyError, AttributeError, TypeError, msgspec.DecodeError, RecursionError):
            return answer  # whoever opens the session says what is wrong with it
        self._may_have_tasks = offers_task_calls(capabilities)
        if announced == capabilities:
            return answer
        shown = msgspec.json.encode({**result, "capabilities": announced})
        return replace(answer, response=Response(response.id, shown, b""))

    def serve_legacy(self, request: UpstreamRequest, on_event: EventHandler) -> Exchange | None:
        """What of a legacy client's session needs more than to be passed on; None for all else."""
        message, session = request.message, request.session
        if session is None or session.revision != TASKS_REVISION:
            return None
        if isinstance(message, Response):
            answered = _answered(self._site, message)
            return None if answered is None else self._tasks.take_answer(request, *answered)
        if not isinstance(message, Request):
            return None
        if message.method == "tools/call" and wants_task(message.params):
            return self._call_legacy(request, message, on_event)
        if message.method == "tools/list":
            return self._list(request, on_event)
        if message.method in TASK_METHODS:
            return _known_tasks(self._send_legacy(request, on_event), message, is_modern=False)
        return None

    async def _list(self, request: UpstreamRequest, on_event: EventHandler) -> UpstreamAnswer:
        answer = await self._send_legacy(request, on_event)
        response = answer.response
        if response is None or not response.result:
            return answer
        try:
            shown = with_optional_tasks(response.result)
        except (msgspec.DecodeError, RecursionError):
            return answer
        return replace(answer, response=Response(response.id, shown, b""))

    async def _call_legacy(self, request: UpstreamRequest, message: Request, on_event: EventHandler) -> UpstreamAnswer:
        """Source: MCP 2025-11-25, basic/utilities/tasks, "Creating Tasks" and "Tool-Level Negotiation".

        Raises: UpstreamError.
        """
        list_tools = functools.partial(self._list_tools, request)
        name = tool_name(jsonrpc.members(message.params))
        if await self._support.of(name, list_tools, has_tasks=self._may_have_tasks) != FORBIDDEN:
            return await self._send_legacy(request, on_event)
        ttl_ms, params = task_wish(message.params)
        # Under an id of our own: the client is done with its request when it has the task.
        call = Request(self._next_id(), message.method, params)
        work = SessionCall(self._send_legacy, replace(request, message=call, timeout_s=self._site.tasks.limits.ttl_s))
        try:
            refused = await work.refused(_FIRST_WORDS_S)
        except asyncio.CancelledError:
            work.cancel()
            raise
        if refused is not None:
            raise refused
        task = self._tasks.host(request, work, wanted_ttl_ms=ttl_ms, attend=work.attend, respond=work.respond)
        return UpstreamAnswer(200, Response(message.id, task.view().legacy_created(), b""))

    async def _list_tools(self, request: UpstreamRequest, params: bytes) -> UpstreamAnswer:
        asked = Request(self._next_id(), "tools/list", params)
        return await self._send_legacy(replace(request, message=asked, timeout_s=READING_S), ignore_events)

    def _next_id(self) -> bytes:
        """Unlike any other id at the same server."""
        return b'"%b.s%d"' % (self._id_prefix.encode(), next(self._ids))


class _Audience:
    """The client of a call, for as long as it waits."""

    def __init__(self, on_event: EventHandler) -> None:
        self._on_event: EventHandler | None = on_event
        self._telling: asyncio.Future[None] | None = None

    async def hear(self, message: Message | None, event_id: str | None) -> None:
        if self._on_event is None:
            return
        telling = self._telling = asyncio.ensure_future(self._on_event(message, event_id))
        try:
            await asyncio.wait({telling})
        finally:
            telling.cancel()
        if not telling.cancelled():
            telling.result()

    def leave(self) -> None:
        """Nobody hears what is told from now on, nor holds up whoever tells it."""
        self._on_event = None
        if self._telling is not None:
            self._telling.cancel()


async def _known_tasks(exchange: Exchange, message: Request, *, is_modern: bool) -> UpstreamAnswer:
    """The server's answer about a task. One that has none knows no such method; towards clients it is a task that nobody has.

    Source: both specifications, "Protocol Errors".
    """
    answer = await exchange
    if answer.response is None or error_code(answer.response.error) != METHOD_NOT_FOUND:
        return answer
    is_undeclared = is_modern and not declares_extension(message.params)
    error = missing_extension() if is_undeclared else unknown_task(task_id_of(message.params) or "")
    return UpstreamAnswer(400 if is_modern else 200, Response(message.id, b"", error))


def _answered(site: BridgeSite, response: Response) -> tuple[TaskId, str] | None:
    try:
        return answered_question(site.seal, jsonrpc.id_value(response.id))
    except (msgspec.DecodeError, ValueError):
        return None
