"""The built-in demo MCP server as a rule book: a request in; an answer, or a plan of timed notifications, out. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any, Final
from urllib.parse import unquote

import attrs

from mcp_gateway.transports.protocol.mcp.error_codes import (
    INVALID_PARAMS,
    METHOD_NOT_FOUND,
    RESOURCE_NOT_FOUND,
    UNSUPPORTED_VERSION,
)
from mcp_gateway.transports.protocol.mcp.revisions import (
    CACHEABLE_METHODS,
    LEGACY_REVISIONS,
    LOG_LEVELS,
    META_CLIENT_CAPABILITIES,
    META_LOG_LEVEL,
    META_SERVER_INFO,
    META_SUBSCRIPTION_ID,
    META_VERSION,
    NEWEST,
    NEWEST_LEGACY,
    REVISIONS,
)

MAX_SLOW_SECONDS: Final = 600
MAX_SLOW_STEPS: Final = 1000

# The revision that brought a member of a tool, resource, template, prompt, prompt argument or implementation.
# Source: schema.ts of each revision.
_MEMBER_SINCE: Final = {"annotations": "2025-03-26", "title": "2025-06-18", "outputSchema": "2025-06-18"}
_STRUCTURED_CONTENT_SINCE: Final = "2025-06-18"
_PROGRESS_MESSAGE_SINCE: Final = "2025-03-26"
_ARGUMENT_ERRORS_ARE_TOOL_ERRORS_SINCE: Final = "2025-11-25"  # Source: changelog of 2025-11-25, SEP-1303

_TTL_MS: Final = 300_000  # ours: the catalogue never changes, five minutes is the specification's own example

_README_URI: Final = "demo://readme"
_ECHO_URI_PREFIX: Final = "demo://echo/"
_INSTRUCTIONS: Final = "A demonstration server inside the gateway. Call `echo` to see a message come back."
_README: Final = """\
# Demo server

This server is built into the gateway, so that there is something to talk to before the first backend is configured.

* tools: `echo` returns its message, `time` tells the time in UTC, `slow` takes its time and reports progress, `fail` fails
* resources: this text, and `demo://echo/{message}`, which contains its own message
* prompt: `greet`
"""

_SERVER_INFO: Final = {
    "name": "mcp-gateway-demo",
    "title": "Demo server of the gateway",
    "version": "1.0.0",
}
_HARMLESS: Final = {"readOnlyHint": True, "idempotentHint": True, "openWorldHint": False}

_TOOLS: Final[tuple[dict[str, Any], ...]] = (
    {
        "name": "echo",
        "title": "Echo",
        "description": "Returns the message it is given.",
        "inputSchema": {
            "type": "object",
            "properties": {"message": {"type": "string", "description": "What to send back"}},
            "required": ["message"],
        },
        "outputSchema": {"type": "object", "properties": {"message": {"type": "string"}}, "required": ["message"]},
        "annotations": _HARMLESS,
    },
    {
        "name": "time",
        "title": "Time",
        "description": "Tells the current time in UTC.",
        "inputSchema": {"type": "object", "properties": {}},
        "outputSchema": {
            "type": "object",
            "properties": {"utc": {"type": "string", "description": "ISO 8601"}, "unix_seconds": {"type": "number"}},
            "required": ["utc", "unix_seconds"],
        },
        "annotations": {"readOnlyHint": True, "openWorldHint": False},
    },
    {
        "name": "slow",
        "title": "Slow",
        "description": "Takes its time, in steps; reports progress where the caller asks for it, and can be cancelled.",
        "inputSchema": {
            "type": "object",
            "properties": {
                "seconds": {"type": "number", "minimum": 0, "maximum": MAX_SLOW_SECONDS, "default": 1},
                "steps": {"type": "integer", "minimum": 1, "maximum": MAX_SLOW_STEPS, "default": 5},
            },
        },
        "annotations": _HARMLESS,
    },
    {
        "name": "fail",
        "title": "Fail",
        "description": "Always reports a tool error.",
        "inputSchema": {"type": "object", "properties": {"message": {"type": "string", "default": "This tool always fails."}}},
        "annotations": _HARMLESS,
    },
)
_RESOURCES: Final[tuple[dict[str, Any], ...]] = (
    {
        "uri": _README_URI,
        "name": "readme",
        "title": "Read me",
        "description": "What this server offers.",
        "mimeType": "text/markdown",
    },
)
_TEMPLATES: Final[tuple[dict[str, Any], ...]] = (
    {
        "uriTemplate": "demo://echo/{message}",
        "name": "echo",
        "title": "Echo",
        "description": "A resource whose text is the message in its URI.",
        "mimeType": "text/plain",
    },
)
_PROMPTS: Final[tuple[dict[str, Any], ...]] = (
    {
        "name": "greet",
        "title": "Greet",
        "description": "Asks the model to greet somebody.",
        "arguments": [{"name": "name", "title": "Name", "description": "Whom to greet", "required": True}],
    },
)


@attrs.frozen(kw_only=True)
class DemoRequest:
    """One request of one client.

    revision:   what this exchange speaks; for `initialize`, any legacy revision.
    params:     decoded, `_meta` included.
    request_id: names the stream of `subscriptions/listen` in its notifications.
    now_s:      seconds since the epoch: what the tool `time` tells.
    log_level:  what this session last chose with `logging/setLevel` (`DemoAnswer.log_level`); None before that.
                Not read in 2026-07-28, where each request carries its own.
    """

    revision: str
    method: str
    params: dict[str, Any] = attrs.field(factory=dict, repr=False)
    request_id: str | int = 0
    now_s: float = 0.0
    log_level: str | None = None


@attrs.frozen(kw_only=True)
class DemoAnswer:
    """How a request ends: `result` or `error` is the JSON-RPC member of that name, the other one is None.

    log_level: set by `logging/setLevel`; the shell keeps it with the session and repeats it in `DemoRequest.log_level`.
    """

    result: dict[str, Any] | None = attrs.field(default=None, repr=False)
    error: dict[str, Any] | None = attrs.field(default=None, repr=False)
    log_level: str | None = None


@attrs.frozen
class DemoStep:
    """Wait `delay_s`, then send `notification` (a whole JSON-RPC message); None only waits."""

    delay_s: float
    notification: dict[str, Any] | None = attrs.field(default=None, repr=False)


@attrs.frozen(kw_only=True)
class DemoStream:
    """A request that takes time. The shell plays `steps()` with its own timers and then sends `answer`.

    A cancelled request is simply no longer played: nothing is held here.

    sends_notifications: False where the whole plan is waiting, so that a plain JSON answer will do.
    stays_open:          the plan has no end of its own (`subscriptions/listen`): `answer` is sent only when the server closes.
    """

    steps: Callable[[], Iterator[DemoStep]] = attrs.field(repr=False)
    answer: DemoAnswer
    sends_notifications: bool
    stays_open: bool = False


class _Fault(Exception):
    """A request that ends in a JSON-RPC error."""

    def __init__(self, code: int, message: str, data: dict[str, Any] | None = None) -> None:
        super().__init__(message)
        self.error: dict[str, Any] = {"code": code, "message": message} | ({"data": data} if data is not None else {})


class _BadArgument(Exception):
    """An argument that the tool's inputSchema does not allow."""


Handler = Callable[[DemoRequest], DemoAnswer | DemoStream]


class DemoServer:
    """Answers every request of both eras from constants; it keeps nothing between requests."""

    def __init__(self) -> None:
        both: dict[str, Handler] = {
            "tools/list": lambda request: _page(request, "tools", _TOOLS),
            "tools/call": self._call_tool,
            "resources/list": lambda request: _page(request, "resources", _RESOURCES),
            "resources/templates/list": lambda request: _page(request, "resourceTemplates", _TEMPLATES),
            "resources/read": _read_resource,
            "prompts/list": lambda request: _page(request, "prompts", _PROMPTS),
            "prompts/get": _get_prompt,
        }
        self._legacy = both | {"initialize": _initialize, "ping": _pong, "logging/setLevel": _set_level}
        self._modern = both | {"server/discover": _discover, "subscriptions/listen": _listen}
        self._tools: dict[str, Handler] = {"echo": _echo, "time": _time, "slow": _slow, "fail": _fail}

    def handle(self, request: DemoRequest) -> DemoAnswer | DemoStream:
        """Answer one request; never raises for what a client can send.

        Source: MCP, server/tools, server/resources, server/prompts, utilities/logging of each revision;
        for 2026-07-28 also basic/index (`_meta`, "Error Codes"), server/discover, server/utilities/caching.
        """
        try:
            if request.revision not in REVISIONS:
                raise _unsupported(request.revision)
            modern = request.revision == NEWEST
            handler = (self._modern if modern else self._legacy).get(request.method)
            if handler is None:
                raise _Fault(METHOD_NOT_FOUND, f"Method not found: {request.method}")
            _check_meta(request, modern=modern)
            return handler(request)
        except _Fault as fault:
            return DemoAnswer(error=fault.error)

    def _call_tool(self, request: DemoRequest) -> DemoAnswer | DemoStream:
        name = _required_text(request.params, "name")
        tool = self._tools.get(name)
        if tool is None:
            raise _Fault(INVALID_PARAMS, f"Unknown tool: {name}")
        if not isinstance(request.params.get("arguments", {}), dict):
            raise _Fault(INVALID_PARAMS, 'Invalid params: "arguments" must be an object')
        try:
            return tool(request)
        except _BadArgument as problem:
            if _since(request, _ARGUMENT_ERRORS_ARE_TOOL_ERRORS_SINCE):
                return _tool_result(request, str(problem), is_error=True)
            raise _Fault(INVALID_PARAMS, f"Invalid arguments for tool {name}: {problem}") from None


# Opening and session


def _initialize(request: DemoRequest) -> DemoAnswer:
    wanted = _required_text(request.params, "protocolVersion")
    client_info = request.params.get("clientInfo")
    if not isinstance(request.params.get("capabilities"), dict):
        raise _Fault(INVALID_PARAMS, 'Invalid params: "capabilities" must be an object')
    if not isinstance(client_info, dict) or not all(isinstance(client_info.get(key), str) for key in ("name", "version")):
        raise _Fault(INVALID_PARAMS, 'Invalid params: "clientInfo" must be an object with "name" and "version"')
    # Source: MCP 2025-11-25, basic/lifecycle, "Version Negotiation": an unknown version is answered with the newest we support.
    agreed = wanted if wanted in LEGACY_REVISIONS else NEWEST_LEGACY
    return DemoAnswer(
        result={
            "protocolVersion": agreed,
            "capabilities": _capabilities(),
            "serverInfo": _as_of(_SERVER_INFO, agreed),
            "instructions": _INSTRUCTIONS,
        }
    )


def _discover(request: DemoRequest) -> DemoAnswer:
    return _complete(
        request,
        {"supportedVersions": list(reversed(REVISIONS)), "capabilities": _capabilities(), "instructions": _INSTRUCTIONS},
    )


def _pong(request: DemoRequest) -> DemoAnswer:
    return DemoAnswer(result={})


def _set_level(request: DemoRequest) -> DemoAnswer:
    level = request.params.get("level")
    if level not in LOG_LEVELS:
        raise _Fault(INVALID_PARAMS, f'Invalid params: "level" must be one of {", ".join(LOG_LEVELS)}')
    return DemoAnswer(result={}, log_level=level)


def _listen(request: DemoRequest) -> DemoStream:
    """Acknowledge that nothing here ever changes, and keep the stream open until either side closes it.

    Source: MCP 2026-07-28, basic/patterns/subscriptions: types the server does not support are left out of the acknowledgment.
    """
    if not isinstance(request.params.get("notifications"), dict):
        raise _Fault(INVALID_PARAMS, 'Invalid params: "notifications" must be an object')
    subscription = {META_SUBSCRIPTION_ID: request.request_id}
    acknowledged = _notification("notifications/subscriptions/acknowledged", {"_meta": subscription, "notifications": {}})
    return DemoStream(
        steps=lambda: iter((DemoStep(0.0, acknowledged),)),
        answer=_complete(request, {"_meta": subscription}),
        sends_notifications=True,
        stays_open=True,
    )


def _capabilities() -> dict[str, Any]:
    return {"logging": {}, "tools": {}, "resources": {}, "prompts": {}}


# Tools


def _echo(request: DemoRequest) -> DemoAnswer:
    message = _text_argument(request, "message")
    return _tool_result(request, message, structured={"message": message})


def _time(request: DemoRequest) -> DemoAnswer:
    utc = datetime.fromtimestamp(request.now_s, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return _tool_result(request, utc, structured={"utc": utc, "unix_seconds": round(request.now_s, 3)})


def _fail(request: DemoRequest) -> DemoAnswer:
    return _tool_result(request, _text_argument(request, "message", "This tool always fails."), is_error=True)


def _slow(request: DemoRequest) -> DemoStream:
    seconds = _number_argument(request, "seconds", default=1, lowest=0, highest=MAX_SLOW_SECONDS)
    steps = _number_argument(request, "steps", default=5, lowest=1, highest=MAX_SLOW_STEPS)
    if steps != int(steps):
        raise _BadArgument("steps must be an integer")
    step_count, token = int(steps), _meta(request).get("progressToken")
    logs = _wants_log(request, "info")

    def plan() -> Iterator[DemoStep]:
        for step in range(1, step_count + 1):
            delay_s, text = seconds / step_count, f"step {step} of {step_count}"
            if token is None and not logs:
                yield DemoStep(delay_s)
            if token is not None:
                progress = {"progressToken": token, "progress": step, "total": step_count}
                if _since(request, _PROGRESS_MESSAGE_SINCE):
                    progress["message"] = text
                yield DemoStep(delay_s, _notification("notifications/progress", progress))
                delay_s = 0.0
            if logs:
                yield DemoStep(delay_s, _notification("notifications/message", {"level": "info", "logger": "slow", "data": text}))

    return DemoStream(
        steps=plan,
        answer=_tool_result(request, f"Done: {step_count} steps in {seconds:g} seconds."),
        sends_notifications=token is not None or logs,
    )


def _tool_result(
    request: DemoRequest, text: str, *, structured: dict[str, Any] | None = None, is_error: bool = False
) -> DemoAnswer:
    result: dict[str, Any] = {"content": [{"type": "text", "text": text}], "isError": is_error}
    if structured is not None and _since(request, _STRUCTURED_CONTENT_SINCE):
        result["structuredContent"] = structured
    return _complete(request, result)


def _wants_log(request: DemoRequest, level: str) -> bool:
    """Source: MCP 2025-11-25, server/utilities/logging: before setLevel the server decides, and ours sends from "info" on;
    2026-07-28, same page: nothing without the request's own level."""
    lowest = _meta(request).get(META_LOG_LEVEL) if request.revision == NEWEST else request.log_level or "info"
    return lowest is not None and LOG_LEVELS.index(level) >= LOG_LEVELS.index(lowest)


# Resources and prompts


def _read_resource(request: DemoRequest) -> DemoAnswer:
    uri = _required_text(request.params, "uri")
    if uri == _README_URI:
        mime_type, text = "text/markdown", _README
    else:
        mime_type, text = "text/plain", _expanded_message(request, uri)
    return _complete(request, {"contents": [{"uri": uri, "mimeType": mime_type, "text": text}]})


def _expanded_message(request: DemoRequest, uri: str) -> str:
    """The `{message}` of a URI made from our template.

    Source: RFC 6570, section 3.2.2: simple expansion leaves only unreserved characters and percent-encoded octets.
    """
    encoded = uri.removeprefix(_ECHO_URI_PREFIX)
    if uri.startswith(_ECHO_URI_PREFIX) and not any(character in "/?#" for character in encoded):
        with suppress(UnicodeDecodeError):
            return unquote(encoded, errors="strict")
    code = INVALID_PARAMS if request.revision == NEWEST else RESOURCE_NOT_FOUND
    raise _Fault(code, "Resource not found", {"uri": uri})


def _get_prompt(request: DemoRequest) -> DemoAnswer:
    name = _required_text(request.params, "name")
    if name != "greet":
        raise _Fault(INVALID_PARAMS, f"Unknown prompt: {name}")
    arguments = request.params.get("arguments", {})
    if not isinstance(arguments, dict) or not all(isinstance(value, str) for value in arguments.values()):
        raise _Fault(INVALID_PARAMS, 'Invalid params: "arguments" must be an object of strings')
    if "name" not in arguments:
        raise _Fault(INVALID_PARAMS, "Missing required argument: name")
    text = f"Please greet {arguments['name']} warmly, in one sentence."
    return _complete(
        request,
        {
            "description": "Asks the model to greet somebody.",
            "messages": [{"role": "user", "content": {"type": "text", "text": text}}],
        },
    )


def _page(request: DemoRequest, key: str, items: tuple[dict[str, Any], ...]) -> DemoAnswer:
    """The only page of a list: we never hand out a cursor, so none can be valid."""
    if request.params.get("cursor") is not None:
        raise _Fault(INVALID_PARAMS, "Invalid cursor")
    return _complete(request, {key: [_as_of(item, request.revision) for item in items]})


# What every request and result shares


def _check_meta(request: DemoRequest, *, modern: bool) -> None:
    meta = request.params.get("_meta", {})
    if not isinstance(meta, dict):
        raise _Fault(INVALID_PARAMS, 'Invalid params: "_meta" must be an object')
    token = meta.get("progressToken")
    if token is not None and (isinstance(token, bool) or not isinstance(token, str | int)):
        raise _Fault(INVALID_PARAMS, "Invalid params: progressToken must be a string or an integer")
    if not modern:
        return
    version, level = meta.get(META_VERSION), meta.get(META_LOG_LEVEL)
    if not isinstance(version, str):
        raise _Fault(INVALID_PARAMS, f"Invalid params: _meta needs {META_VERSION}")
    if version != request.revision:
        raise _unsupported(version)
    if not isinstance(meta.get(META_CLIENT_CAPABILITIES), dict):
        raise _Fault(INVALID_PARAMS, f"Invalid params: _meta needs {META_CLIENT_CAPABILITIES}")
    if level is not None and level not in LOG_LEVELS:
        raise _Fault(INVALID_PARAMS, f"Invalid params: {META_LOG_LEVEL} must be one of {', '.join(LOG_LEVELS)}")


def _meta(request: DemoRequest) -> dict[str, Any]:
    meta: dict[str, Any] = request.params.get("_meta", {})
    return meta


def _complete(request: DemoRequest, result: dict[str, Any]) -> DemoAnswer:
    if request.revision != NEWEST:
        return DemoAnswer(result=result)
    meta = {META_SERVER_INFO: _as_of(_SERVER_INFO, request.revision), **result.get("_meta", {})}
    hints = {"ttlMs": _TTL_MS, "cacheScope": "public"} if request.method in CACHEABLE_METHODS else {}
    return DemoAnswer(result={"resultType": "complete", **result, **hints, "_meta": meta})


def _as_of(item: dict[str, Any], revision: str) -> dict[str, Any]:
    """The item with the members its revision knows, nested prompt arguments included."""
    known = {key: value for key, value in item.items() if _not_before(revision, _MEMBER_SINCE.get(key, REVISIONS[0]))}
    if "arguments" in known:
        known["arguments"] = [_as_of(argument, revision) for argument in known["arguments"]]
    return known


def _since(request: DemoRequest, revision: str) -> bool:
    return _not_before(request.revision, revision)


def _not_before(revision: str, first: str) -> bool:
    return REVISIONS.index(revision) >= REVISIONS.index(first)


def _unsupported(requested: str) -> _Fault:
    data = {"supported": list(reversed(REVISIONS)), "requested": requested}
    return _Fault(UNSUPPORTED_VERSION, "Unsupported protocol version", data)


def _notification(method: str, params: dict[str, Any]) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "method": method, "params": params}


def _required_text(params: dict[str, Any], key: str) -> str:
    value = params.get(key)
    if not isinstance(value, str):
        raise _Fault(INVALID_PARAMS, f'Invalid params: "{key}" must be a string')
    return value


def _text_argument(request: DemoRequest, key: str, default: str | None = None) -> str:
    value = request.params.get("arguments", {}).get(key, default)
    if not isinstance(value, str):
        raise _BadArgument(f"{key} must be a string")
    return value


def _number_argument(request: DemoRequest, key: str, *, default: float, lowest: float, highest: float) -> float:
    value = request.params.get("arguments", {}).get(key, default)
    if isinstance(value, bool) or not isinstance(value, int | float) or not lowest <= value <= highest:
        raise _BadArgument(f"{key} must be a number from {lowest:g} to {highest:g}")
    return value
