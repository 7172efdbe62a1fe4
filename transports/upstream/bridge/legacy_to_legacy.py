"""Legacy clients of a legacy server of another revision: what the client's revision has no place for is left out.

The client is told the revision that it asked for: the gateway fits what a newer server says into it, and an older server says
nothing that it would not understand. A server of a revision that nobody knows is read as one of the nearest.
Source: MCP 2025-11-25, basic/lifecycle, "Version Negotiation".
"""

from __future__ import annotations

from typing import Any

import msgspec

from mcp_gateway.transports.ports.failure import Fate
from mcp_gateway.transports.ports.request_kind import RequestKind
from mcp_gateway.transports.ports.upstream_port import (
    EventHandler,
    UpstreamAnswer,
    UpstreamConversation,
    UpstreamError,
    UpstreamRequest,
)
from mcp_gateway.transports.protocol.eras.revision_differences import (
    fitted_notification,
    fitted_question,
    fitted_result,
    is_older,
    question_problem,
)
from mcp_gateway.transports.protocol.mcp import jsonrpc
from mcp_gateway.transports.protocol.mcp.error_codes import METHOD_NOT_FOUND, json_error
from mcp_gateway.transports.protocol.mcp.jsonrpc import Message, Notification, Request, Response
from mcp_gateway.transports.protocol.mcp.revisions import negotiated_legacy, negotiated_with_server


def opened_as_asked(message: Request, answer: UpstreamAnswer) -> UpstreamAnswer:
    """The answer to `initialize` with the client's own revision in it; the same object where the server has agreed to it.

    Raises: UpstreamError where the server speaks what cannot be spoken with it.
    """
    response = answer.response
    if response is None or not response.result:
        return answer
    try:
        asked = negotiated_legacy(msgspec.json.decode(jsonrpc.members(message.params)["protocolVersion"], type=str))
        announced = msgspec.json.decode(jsonrpc.members(response.result)["protocolVersion"])
        if announced == asked:
            return answer
        result: dict[str, Any] = msgspec.json.decode(response.result, type=dict[str, Any])
    except (KeyError, msgspec.DecodeError, RecursionError):
        return answer  # whoever opens the session says that it cannot be read
    try:
        offered = negotiated_with_server(announced)
    except ValueError as error:
        raise UpstreamError(Fate.REFUSED, str(error)) from None
    fitted = fitted_result("initialize", {**result, "protocolVersion": asked}, asked)
    return UpstreamAnswer(answer.status, Response(response.id, msgspec.json.encode(fitted), b""), answer.session_id, offered)


async def exchange_fitted(
    wire: UpstreamConversation, request: UpstreamRequest, client_revision: str, on_event: EventHandler
) -> UpstreamAnswer:
    """An exchange of a session whose server is newer than its client; with an older one nothing needs to be changed.

    Raises: UpstreamError.
    """
    if not is_older(client_revision, request.revision):
        return await wire.exchange(request, on_event)

    async def hear(message: Message | None, event_id: str | None) -> None:
        if isinstance(message, Request):
            shown = _question(message, client_revision)
            if shown is None:
                refused = Response(message.id, b"", json_error(METHOD_NOT_FOUND, f"the client has no {message.method}"))
                await wire.exchange(_reply(request, refused), on_event)
                return
            message = shown
        elif isinstance(message, Notification) and message.params:
            params = _object(message.params)
            if params is not None:
                fitted = fitted_notification(message.method, params, client_revision)
                if fitted is not params:
                    message = Notification(message.method, msgspec.json.encode(fitted))
        await on_event(message, event_id)

    answer = await wire.exchange(request, hear)
    response = answer.response
    if response is None or not response.result or not isinstance(request.message, Request):
        return answer
    result = _object(response.result)
    if result is None:
        return answer
    fitted = fitted_result(request.message.method, result, client_revision)
    if fitted is result:
        return answer
    return UpstreamAnswer(answer.status, Response(response.id, msgspec.json.encode(fitted), b""), answer.session_id)


def _question(question: Request, revision: str) -> Request | None:
    """The server's request as this client can read it; None where it cannot be asked that."""
    params = _object(question.params or b"{}") or {}
    if question_problem(question.method, params, revision):
        return None
    fitted = fitted_question(question.method, params, revision)
    return question if fitted is params else Request(question.id, question.method, msgspec.json.encode(fitted))


def _reply(request: UpstreamRequest, response: Response) -> UpstreamRequest:
    return UpstreamRequest(
        kind=RequestKind.MESSAGE,
        message=response,
        revision=request.revision,
        session_id=request.session_id,
        timeout_s=10.0,
        hash_keys=request.hash_keys,
    )


def _object(value: bytes) -> dict[str, Any] | None:
    try:
        return msgspec.json.decode(value, type=dict[str, Any])
    except (msgspec.DecodeError, RecursionError):
        return None
