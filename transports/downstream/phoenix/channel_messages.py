"""MCP inside a Phoenix channel: requests out of pushes, and pushes out of what a server says. Pure.

A channel's `request` has an id of the client's choice; towards servers it has one of ours, because two channels, or a client
that counts from 1 after each rejoin, may well use the same.
"""

from __future__ import annotations

from typing import Any, Final

import attrs
import msgspec
from msgspec import Raw

from mcp_gateway.config.version import VERSION
from mcp_gateway.transports.protocol.mcp import jsonrpc
from mcp_gateway.transports.protocol.mcp.jsonrpc import NULL, Notification, Request, Response
from mcp_gateway.transports.protocol.mcp.refusals import Refused
from mcp_gateway.transports.protocol.mcp.revisions import (
    META_CLIENT_CAPABILITIES,
    META_CLIENT_INFO,
    META_LOG_LEVEL,
    META_SUBSCRIPTION_ID,
    META_VERSION,
    NEWEST,
)
from mcp_gateway.transports.protocol.mcp.tasks import declares_extension, offers_extension
from mcp_gateway.transports.protocol.topics.topic_log import Event

CANCELLED: Final = b'{"code":-32800,"message":"cancelled by the client","data":{"reason":"cancelled"}}'
"""What a request reads that its client has cancelled: MCP has no answer for it, Phoenix would wait for one. Code of LSP 3.17."""

_encode = msgspec.json.encode
_decode_object = msgspec.json.Decoder(dict[str, Any]).decode
_decode_string = msgspec.json.Decoder(str).decode
_SEEN_AS: Final = {"name": "mcp-gateway-phoenix", "version": VERSION}
_LOG_LEVEL: Final = "info"
_MOST_JOIN_BYTES: Final = 16_384
"""What a join says is kept as long as the channel."""


@attrs.frozen(kw_only=True)
class JoinParams:
    """What a client may say of itself when it joins a channel; servers of stateless revisions read it with each request.

    clientInfo:    {"name", "version"} of the client.
    capabilities:  as in `initialize`, {} if not given.
    logLevel:      of what servers log while they serve a request; null: nothing.
    last_event_id: the last event that the client has seen: what came since is pushed first.
    """

    client_info: dict[str, Any]
    capabilities: dict[str, Any]
    log_level: str | None
    last_event_id: int | None

    @classmethod
    def read(cls, payload: bytes) -> JoinParams:
        """Raises: Refused with invalid_params or too_large."""
        if len(payload) > _MOST_JOIN_BYTES:
            raise Refused("too_large", f"the payload of a join is at most {_MOST_JOIN_BYTES} bytes, not {len(payload)}")
        given = _object(payload, "the payload of a join")
        last_event_id = given.get("last_event_id")
        if last_event_id is not None and (type(last_event_id) is not int or last_event_id < 0):
            raise Refused("invalid_params", "last_event_id is the number of an event")
        log_level = given.get("logLevel", _LOG_LEVEL)
        if log_level is not None and not isinstance(log_level, str):
            raise Refused("invalid_params", "logLevel is a string or null")
        info, capabilities = given.get("clientInfo", _SEEN_AS), given.get("capabilities", {})
        if not isinstance(info, dict) or not isinstance(capabilities, dict):
            raise Refused("invalid_params", "clientInfo and capabilities are objects")
        return cls(client_info=info, capabilities=capabilities, log_level=log_level, last_event_id=last_event_id)


@attrs.frozen
class ChannelRequest:
    """A `request` of a client. id: JSON, `null` where there is none; params: the JSON of an object."""

    id: bytes
    method: str
    params: bytes = attrs.field(repr=False)


def read_request(payload: bytes) -> ChannelRequest:
    """Read the payload of a `request`.

    Raises: Refused with invalid_request, and the id where there is one.
    """
    try:
        given = jsonrpc.members(payload)
        shown = bytes(given.get("id", Raw(NULL)))
        request_id = shown if shown == NULL else _encode(jsonrpc.id_value(shown))
        if "method" not in given:
            raise Refused("invalid_request", '"method" is required', request_id=request_id)
        method = _decode_string(given["method"])
        params = bytes(given.get("params", Raw(b"{}")))
    except (msgspec.DecodeError, RecursionError, ValueError) as error:
        text = f"a request is {{method, params, id}}, its id a string or an integer: {error}"
        raise Refused("invalid_request", text, request_id=jsonrpc.request_id_in(payload)) from None
    if not params.startswith(b"{"):
        raise Refused("invalid_request", '"params" must be an object', request_id=request_id)
    jsonrpc.check_names(payload, request_id)
    return ChannelRequest(request_id, method, params)


def read_response(payload: bytes) -> Response:
    """Read the payload of a client's `response`: its answer to what a server asked.

    Raises: Refused with invalid_request.
    """
    try:
        given = jsonrpc.members(payload)
        body = _encode({"jsonrpc": "2.0", **{name: given[name] for name in ("id", "result", "error") if name in given}})
    except (msgspec.DecodeError, RecursionError) as error:
        raise Refused("invalid_request", f"a response is {{id, result}} or {{id, error}}: {error}") from None
    message = jsonrpc.decode_from_client(body)
    if not isinstance(message, Response):
        raise Refused("invalid_request", "a response is {id, result} or {id, error}")
    return message


def read_event(payload: bytes) -> tuple[str, Any]:
    """(topic, payload) of a client's `event`, which is `client.` and what it calls itself.

    Raises: Refused with invalid_params.
    """
    given = _object(payload, "the payload of an event")
    event = given.get("event")
    if not isinstance(event, str):
        raise Refused("invalid_params", '"event" must be a string')
    return event if event.startswith("client.") else f"client.{event}", given.get("data", {})


def stateless(request: ChannelRequest, request_id: bytes, joined: JoinParams) -> Request:
    """The request in the stateless revision: with the `_meta` that it asks for, where the client has not sent it itself.

    A call that may become a task gets no progress token: who listens to progress waits for the result instead.

    Raises: Refused with invalid_params.
    """
    meta: dict[str, Any] = {
        META_VERSION: NEWEST,
        META_CLIENT_INFO: joined.client_info,
        META_CLIENT_CAPABILITIES: joined.capabilities,
        **({META_LOG_LEVEL: joined.log_level} if joined.log_level is not None else {}),
    }
    knows_tasks = offers_extension(joined.capabilities) or declares_extension(request.params)
    if not knows_tasks or request.method != "tools/call":
        meta["progressToken"] = Raw(request_id)
    return Request(request_id, request.method, _with_meta(request, meta))


def in_session(request: ChannelRequest, request_id: bytes) -> Request:
    """The request in a session, with a progress token: what a server reports reaches the channel.

    Raises: Refused with invalid_params.
    """
    if request.method in ("initialize", "ping"):
        return Request(request_id, request.method, request.params)
    return Request(request_id, request.method, _with_meta(request, {"progressToken": Raw(request_id)}))


def _with_meta(request: ChannelRequest, defaults: dict[str, Any]) -> bytes:
    try:
        params = jsonrpc.members(request.params)
        given = jsonrpc.members(bytes(params.get("_meta", Raw(b"{}"))))
    except (msgspec.DecodeError, RecursionError):
        raise Refused("invalid_params", '"_meta" must be an object', request_id=request.id) from None
    return _encode({**params, "_meta": {**defaults, **given}})


# ---- what goes to the client


def response_payload(request_id: bytes, answer: Response) -> bytes:
    """The payload of a `response`, and of the reply to its request."""
    if answer.error:
        return b"".join((b'{"type":"response","id":', request_id, b',"error":', answer.error, b"}"))
    return b"".join((b'{"type":"response","id":', request_id, b',"result":', answer.result, b"}"))


def event_payload(event: Event) -> bytes:
    """The payload of an `event` of the bus."""
    members = event.topic.encode(), event.payload_json, event.timestamp_ms, event.id
    return b'{"event":"%b","data":%b,"timestamp":%d,"event_id":%d}' % members


def gap_payload(first_id: int, last_id: int) -> bytes:
    """The payload of a `gap`: which events are lost."""
    return _encode({"first_id": first_id, "last_id": last_id, "count": last_id - first_id + 1})


def message_payload(message: Notification | Request, timestamp_ms: int, token: bytes | None, request_id: bytes | None) -> bytes:
    """The payload of an `event` that a server's own message becomes.

    token:      our id and progress token of the request, which the client has not seen: it reads the id of its request instead.
    request_id: of the client's request that it belongs to, None outside of any.
    """
    data = Raw(_own_names(message, token, request_id))
    shown: dict[str, Any] = {"event": message.method, "data": data, "timestamp": timestamp_ms}
    if request_id is not None:
        shown["id"] = Raw(request_id)
    if isinstance(message, Request):
        shown["request_id"] = Raw(message.id)
    return _encode(shown)


def _own_names(message: Notification | Request, token: bytes | None, request_id: bytes | None) -> bytes:
    """The params with the id of the client's own request, in progress and in what its subscription tells."""
    if not isinstance(message, Notification) or not message.params or token is None or request_id in (None, NULL):
        return message.params or b"{}"
    try:
        params = jsonrpc.members(message.params)
        if message.method == "notifications/progress":
            if bytes(params.get("progressToken", Raw(b""))) == token:
                params["progressToken"] = Raw(request_id)
        elif "_meta" in params:
            meta = jsonrpc.members(bytes(params["_meta"]))
            if bytes(meta.get(META_SUBSCRIPTION_ID, Raw(b""))) == token:
                params["_meta"] = Raw(_encode({**meta, META_SUBSCRIPTION_ID: Raw(request_id)}))
    except (msgspec.DecodeError, RecursionError):
        return message.params
    return _encode(params)


def refusal_payload(refused: Refused) -> bytes:
    """The response of an error reply to anything but a request."""
    shown: dict[str, Any] = {"reason": refused.reason, "message": refused.text, **refused.data}
    if refused.retry_after_s is not None:
        shown["retry_after"] = refused.retry_after_s
    return _encode(shown)


def _object(payload: bytes, what: str) -> dict[str, Any]:
    try:
        return _decode_object(payload)
    except (msgspec.DecodeError, RecursionError, ValueError) as error:
        raise Refused("invalid_params", f"{what} must be an object: {error}") from None
