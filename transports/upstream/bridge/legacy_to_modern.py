"""Legacy clients of a modern server: `_meta` on every request, questions by round trips, one subscription per stream.

Source: MCP 2026-07-28, basic/index "Per-request protocol fields", basic/patterns/mrtr, basic/patterns/subscriptions;
MCP 2025-11-25, basic/lifecycle and server/utilities/logging.
"""

from __future__ import annotations

import asyncio
import functools
import itertools
import logging
import secrets
from collections.abc import Mapping
from typing import Any, Final

import msgspec
from msgspec import Raw

from mcp_gateway.transports.ports.failure import Fate
from mcp_gateway.transports.ports.replica_id import ReplicaId
from mcp_gateway.transports.ports.request_kind import RequestKind
from mcp_gateway.transports.ports.upstream_port import (
    EventHandler,
    UpstreamAnswer,
    UpstreamConversation,
    UpstreamError,
    UpstreamRequest,
    ignore_events,
)
from mcp_gateway.transports.protocol.eras.own_requests import discover, listen
from mcp_gateway.transports.protocol.eras.questions import (
    MOST_OPEN_QUESTIONS,
    capability_problem,
    input_response,
    read_input_required,
    retried_params,
)
from mcp_gateway.transports.protocol.eras.revision_differences import fitted_notification, fitted_question, question_problem
from mcp_gateway.transports.protocol.eras.tasks import legacy_outcome, unknown_task, with_declared_tasks, with_optional_tasks
from mcp_gateway.transports.protocol.eras.tool_catalogue import without_forbidden_tools
from mcp_gateway.transports.protocol.eras.translation import (
    checked_log_level,
    initialize_result,
    legacy_error,
    legacy_result,
    modern_client_capabilities,
    modern_params,
    progress_token_of,
    result_type,
)
from mcp_gateway.transports.protocol.mcp import jsonrpc
from mcp_gateway.transports.protocol.mcp.error_codes import HEADER_MISMATCH, INTERNAL_ERROR, error_code, json_error
from mcp_gateway.transports.protocol.mcp.jsonrpc import Message, Notification, Request, Response
from mcp_gateway.transports.protocol.mcp.revisions import NEWEST, TASK_METHODS, negotiated_legacy
from mcp_gateway.transports.protocol.mcp.tasks import RELATED_TASK, TASKS_REVISION, task_id_of, wants_task
from mcp_gateway.transports.protocol.sealed.session import BRIDGED_SESSION
from mcp_gateway.transports.telemetry import metrics

from .bridge_site import BridgeSite
from .client_sessions import ClientSession, ClientSessions
from .parameter_headers import ParameterHeaders
from .server_task import followed
from .task_host import TaskHost, task_wish
from .task_work import Ask, RoundsWork

_logger = logging.getLogger(__name__)

MAX_ROUNDS: Final = 50
"""Times that one request may be answered with `input_required`."""
WAIT_S: Final = 0.5
"""Pause before a retry that brings nothing but the server's own state back."""
_CLIENT_GONE: Final = "the client has cancelled the request"


class LegacyToModern:
    """One modern server as legacy clients see it. is_http: whether arguments of tools are repeated in headers."""

    def __init__(
        self, wire: UpstreamConversation, site: BridgeSite, tasks: TaskHost, *, replica: ReplicaId, is_http: bool
    ) -> None:
        self._wire = wire
        self._tasks = tasks
        self._site = site
        self._replica = replica
        self._is_http = is_http
        self._sessions = ClientSessions()
        self._ids = itertools.count(1)
        self._id_prefix = secrets.token_urlsafe(4)
        self.parameters = ParameterHeaders(wire, replica.backend)

    async def open(self, request: UpstreamRequest, message: Request) -> UpstreamAnswer:
        """`initialize`. The session is the gateway's own; its id tells every cell who keeps it.

        Raises: UpstreamError.
        """
        try:
            params = jsonrpc.members(message.params)
            revision = negotiated_legacy(msgspec.json.decode(params["protocolVersion"], type=str))
            capabilities = msgspec.json.decode(params.get("capabilities", Raw(b"{}")), type=dict[str, Any])
            info = msgspec.json.decode(params.get("clientInfo", Raw(b"{}")), type=dict[str, Any])
        except (KeyError, msgspec.DecodeError) as error:
            raise UpstreamError(Fate.ENDED, f"initialize cannot be read: {error!r}", reason="invalid_params") from None
        asked = discover(self._next_id(), info, modern_client_capabilities(capabilities))
        answer = await self._wire.exchange(self._modern(request, asked), ignore_events)
        if answer.response is None or not answer.response.result:
            error_bytes = answer.response.error if answer.response is not None else b""
            return UpstreamAnswer(200, Response(message.id, b"", error_bytes or json_error(INTERNAL_ERROR, "no answer")))
        try:
            discovered = msgspec.json.decode(answer.response.result, type=dict[str, Any])
        except (msgspec.DecodeError, RecursionError) as error:
            raise UpstreamError(Fate.BROKEN, f"the server's discovery cannot be read: {error}") from None
        result = msgspec.json.encode(initialize_result(discovered, revision, self._replica.backend))
        session_id = f"{BRIDGED_SESSION}{self._site.cell_name}"
        return UpstreamAnswer(200, Response(message.id, result, b""), session_id, NEWEST)

    async def exchange(self, request: UpstreamRequest, on_event: EventHandler) -> UpstreamAnswer:
        """Anything in a session. Raises: UpstreamError."""
        state = request.session
        assert state is not None
        owner = (request.session_id or "").removeprefix(BRIDGED_SESSION)
        elsewhere = self._site.elsewhere
        if owner != self._site.cell_name and elsewhere is not None and not elsewhere.is_gone(owner):
            return await elsewhere.exchange_at(owner, replica=self._replica, request=request, on_event=on_event)
        if request.kind is RequestKind.TERMINATE:
            self._sessions.end(state.key)
            return UpstreamAnswer(200, None)
        session = self._sessions.use(state, self._replica.backend)
        message = request.message
        if message is None:
            return await session.stream(self._listening(request, session), on_event)
        if isinstance(message, Request):
            return await self._answer(request, message, session, on_event)
        if isinstance(message, Response):
            session.hear_answer(message)
        elif message.method == "notifications/cancelled":
            session.cancel(message.params)
        return UpstreamAnswer(202, None)

    def close(self) -> None:
        self._sessions.close()
        self.parameters.close()

    # ---- requests

    async def _answer(
        self, request: UpstreamRequest, message: Request, session: ClientSession, on_event: EventHandler
    ) -> UpstreamAnswer:
        if message.method in ("ping", "logging/setLevel", "resources/subscribe", "resources/unsubscribe"):
            return await self._answer_here(message, session)
        if message.method in TASK_METHODS:  # and it is none of those that the gateway keeps
            return UpstreamAnswer(200, Response(message.id, b"", unknown_task(task_id_of(message.params) or "")))
        request_id = jsonrpc.id_value(message.id)
        if message.method == "tools/call":
            session.note_call()
            if session.revision == TASKS_REVISION and wants_task(message.params):
                return self._begin_task(request, message, session)
        task = asyncio.current_task()
        assert task is not None
        session.calls[request_id] = task
        try:
            async with asyncio.timeout(request.timeout_s):
                ask = functools.partial(_ask, session, on_event)
                response = await self._in_rounds(request, message, session, ask, on_event)
            return UpstreamAnswer(200, response)
        except TimeoutError:
            raise UpstreamError(Fate.TIMED_OUT, "the server, or the client it asked, did not answer in time") from None
        except asyncio.CancelledError:
            if request_id not in session.cancelled:
                raise
            task.uncancel()
            raise UpstreamError(Fate.ENDED, _CLIENT_GONE) from None
        finally:
            session.cancelled.discard(request_id)
            if session.calls.get(request_id) is task:
                del session.calls[request_id]

    async def _answer_here(self, message: Request, session: ClientSession) -> UpstreamAnswer:
        """What a modern server has no method for. Source: MCP 2026-07-28, changelog, major changes 4 and 5."""
        try:
            params = jsonrpc.members(message.params)
            if message.method == "logging/setLevel":
                session.log_level = checked_log_level(params["level"])
            elif message.method != "ping":
                uri = msgspec.json.decode(params["uri"], type=str)
                await session.change_subscription(uri, is_wanted=message.method == "resources/subscribe")
        except (KeyError, msgspec.DecodeError) as error:
            raise UpstreamError(Fate.ENDED, f"the params cannot be read: {error}", reason="invalid_params") from None
        return UpstreamAnswer(200, Response(message.id, b"{}", b""))

    async def _in_rounds(
        self,
        request: UpstreamRequest,
        message: Request,
        session: ClientSession,
        ask: Ask,
        on_event: EventHandler,
        *,
        is_task: bool = False,
    ) -> Response:
        """Ask the server, and the client for it, until the result is complete. is_task: nobody waits for it here."""
        capabilities = with_declared_tasks(session.capabilities) if is_task else session.capabilities
        token = progress_token_of(message.params)
        own_token = b'"%b"' % self._next_id()[1:-1] if token is not None else None
        try:
            params = modern_params(message.params, session.client_info, capabilities, session.log_level, own_token)
        except msgspec.DecodeError as error:
            raise UpstreamError(Fate.ENDED, f"the params cannot be read: {error}", reason="invalid_params") from None
        hear = _hearing(session, own_token, token, on_event)
        attempt, has_refreshed = msgspec.json.encode(params), False
        for _ in range(MAX_ROUNDS):
            headers: dict[str, str] = {}
            if self._is_http:
                headers = await self.parameters.of(request, message, session.client_info, session.capabilities)
            asked = Request(self._next_id(), message.method, attempt)
            answer = await self._wire.exchange(self._modern(request, asked, headers), hear)
            if answer.response is None:
                raise UpstreamError(Fate.BROKEN, "the server ended its stream without a response")
            if answer.response.error:
                if error_code(answer.response.error) == HEADER_MISMATCH and self._is_http and not has_refreshed:
                    has_refreshed = True  # "Client Behavior": read the tools again, then retry
                    self.parameters.forget()
                    continue
                return Response(message.id, b"", legacy_error(message.method, answer.response.error))
            try:
                kind = result_type(answer.response.result)
                if kind == "complete":
                    return Response(message.id, self._complete(message, answer.response.result, session), b"")
                if kind == "task" and is_task:
                    return await self._followed(request, message, session, answer.response.result, ask)
                if kind != "input_required":  # of an extension that no legacy client has declared
                    raise UpstreamError(Fate.BROKEN, f"the server's result is of the unknown type {kind[:50]!r}")
                needed = read_input_required(answer.response.result)
                if len(needed.requests) > MOST_OPEN_QUESTIONS:
                    metrics.bounds_reached_total.labels("questions").inc()
                    text = f"the server asks for {len(needed.requests)} things at once; it may for {MOST_OPEN_QUESTIONS}"
                    raise UpstreamError(Fate.BROKEN, text)
            except (msgspec.DecodeError, RecursionError) as error:
                raise UpstreamError(Fate.BROKEN, f"the server's result cannot be read: {error}") from None
            answers: dict[str, bytes] = {}
            if not needed.requests:
                await asyncio.sleep(WAIT_S)
            # One after the other where the client is here; somebody who comes for a task reads all that is asked.
            asking = ((key, method, ask(method, question)) for key, (method, question) in needed.requests.items())
            for key, method, asked_client in list(asking) if is_task else asking:
                response = await asked_client
                told = input_response(method, response)
                if told is None:
                    return Response(message.id, b"", response.error)
                answers[key] = told
            attempt = retried_params(params, answers, needed.request_state)
        raise UpstreamError(Fate.BROKEN, f"the server asked for input {MAX_ROUNDS} times")

    # ---- tasks

    def _begin_task(self, request: UpstreamRequest, message: Request, session: ClientSession) -> UpstreamAnswer:
        """Run a call as a task. Source: MCP 2025-11-25, basic/utilities/tasks, "Creating Tasks".

        Raises: UpstreamError.
        """
        ttl_ms, params = task_wish(message.params)
        detached = msgspec.structs.replace(request, timeout_s=self._site.tasks.limits.ttl_s)
        call = Request(message.id, message.method, params)

        async def run(ask: Ask) -> Response:
            return await self._in_rounds(detached, call, session, ask, ignore_events, is_task=True)

        work = RoundsWork(run)
        attend = functools.partial(_put_questions, session, work)
        task = self._tasks.host(request, work, wanted_ttl_ms=ttl_ms, attend=attend)
        return UpstreamAnswer(200, Response(message.id, task.view().legacy_created(), b""))

    async def _followed(
        self, request: UpstreamRequest, message: Request, session: ClientSession, created: bytes, ask: Ask
    ) -> Response:
        """The server has made a task of its own."""
        ask_about = functools.partial(self._ask_about, request, session)
        task = await followed(msgspec.json.decode(created, type=dict[str, Any]), ask, ask_about)
        outcome = legacy_outcome(task, message.id)
        if not outcome.result:
            return Response(message.id, b"", legacy_error(message.method, outcome.error))
        return Response(message.id, self._complete(message, outcome.result, session), b"")

    async def _ask_about(
        self, request: UpstreamRequest, session: ClientSession, method: str, params: Mapping[str, Any]
    ) -> dict[str, Any]:
        """Raises: UpstreamError."""
        capabilities = with_declared_tasks(session.capabilities)
        sent = {**params, **modern_params(b"", session.client_info, capabilities, None, None)}
        asked = Request(self._next_id(), method, msgspec.json.encode(sent))
        answer = await self._wire.exchange(self._modern(request, asked), ignore_events)
        response = answer.response
        if response is None or not response.result:
            text = f"the server has refused {method}"
            raise UpstreamError(Fate.REFUSED, text, error=b"" if response is None else response.error)
        try:
            return msgspec.json.decode(response.result, type=dict[str, Any])
        except (msgspec.DecodeError, RecursionError) as error:
            raise UpstreamError(Fate.BROKEN, f"the server's task cannot be read: {error}") from None

    def _complete(self, message: Request, result: bytes, session: ClientSession) -> bytes:
        if message.method == "tools/list" and self._is_http:
            result, problems = without_forbidden_tools(result)
            for name, problem in problems.items():
                _logger.warning("backend %s: tool %r is left out: %s", self._replica.backend, name[:100], problem)
        shown = legacy_result(message.method, result, session.revision)
        if message.method == "tools/list" and session.revision == TASKS_REVISION:
            return with_optional_tasks(shown)
        return shown

    def _modern(
        self,
        request: UpstreamRequest,
        message: Request,
        headers: Mapping[str, str] | None = None,
        kind: RequestKind = RequestKind.REQUEST,
    ) -> UpstreamRequest:
        return UpstreamRequest(
            kind=kind,
            message=message,
            revision=NEWEST,
            headers={**request.headers, **(headers or {})},
            timeout_s=request.timeout_s if kind is RequestKind.REQUEST else None,
            hash_keys=request.hash_keys,
        )

    def _next_id(self) -> bytes:
        """Unlike the ids that the gateway gives to modern clients' requests at the same server."""
        return b'"%b.%d"' % (self._id_prefix.encode(), next(self._ids))

    # ---- subscriptions

    def _listening(self, request: UpstreamRequest, session: ClientSession) -> Any:
        async def listen_for(wanted: Mapping[str, Any], hear: EventHandler) -> UpstreamAnswer:
            asked = listen(self._next_id(), wanted, session.client_info, session.capabilities)
            answer = await self._wire.exchange(self._modern(request, asked, kind=RequestKind.STREAM), hear)
            if answer.response is not None and answer.response.error:
                text = "the server offers no subscriptions"
                raise UpstreamError(Fate.REFUSED, text, reason="unknown_method", error=answer.response.error)
            return UpstreamAnswer(200, None)

        return listen_for


async def _put_questions(session: ClientSession, work: RoundsWork, on_event: EventHandler, task_id: str) -> None:
    """Ask the client what its task needs, until that is over.

    Source: MCP 2025-11-25, basic/utilities/tasks, "Input Required Status" and "Associating Task-Related Messages".
    """
    asking: dict[str, asyncio.Task[None]] = {}

    async def put(key: str, method: str, question: bytes) -> None:
        params = jsonrpc.members(question)
        params["_meta"] = Raw(msgspec.json.encode({RELATED_TASK: {"taskId": task_id}}))
        work.respond(key, await _ask(session, on_event, method, msgspec.json.encode(params)))

    try:
        while work.outcome is None:
            changed = work.changed
            for key in work.asked().keys() - asking.keys():
                asking[key] = asyncio.get_running_loop().create_task(put(key, *work.question(key)))
            await changed.wait()
    finally:
        for each in asking.values():
            each.cancel()


async def _ask(session: ClientSession, on_event: EventHandler, method: str, question: bytes) -> Response:
    """Put one question to the client, unless it cannot be asked this: the server then reads that nobody has answered."""
    params = msgspec.json.decode(question or b"{}", type=dict[str, Any])
    problem = question_problem(method, params, session.revision)
    if not problem and capability_problem(method, params, session.capabilities):
        problem = f"this client has not declared that it can answer {method}"
    if problem:
        return Response(b"0", b"", json_error(INTERNAL_ERROR, problem))
    fitted = fitted_question(method, params, session.revision)
    return await session.ask(method, msgspec.json.encode(fitted) if question else b"", on_event)


def _hearing(session: ClientSession, own_token: bytes | None, token: bytes | None, on_event: EventHandler) -> EventHandler:
    """What a server says during a request, as the client knows it: progress under its own token."""

    async def hear(message: Message | None, event_id: str | None) -> None:
        if not isinstance(message, Notification):
            return
        if message.method == "notifications/progress":
            try:
                values = msgspec.json.decode(message.params or b"{}", type=dict[str, Any])
            except (msgspec.DecodeError, RecursionError):
                return
            if token is None or msgspec.json.encode(values.get("progressToken")) != own_token:
                return
            values["progressToken"] = Raw(token)
            fitted = fitted_notification(message.method, values, session.revision)
            message = Notification(message.method, msgspec.json.encode(fitted))
        await on_event(message, None)

    return hear
