"""Speaks MCP's own gRPC proto with one server. Needs the extra `grpc`."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import urlsplit

import grpc
import msgspec

from mcp_gateway.transports.ports.failure import Fate
from mcp_gateway.transports.ports.hash_keys import holder_of
from mcp_gateway.transports.ports.large_work import LargeWork
from mcp_gateway.transports.ports.request_kind import RequestKind
from mcp_gateway.transports.ports.strategies import ReplicaTarget
from mcp_gateway.transports.ports.upstream_port import (
    EventHandler,
    ShowToken,
    UpstreamAnswer,
    UpstreamError,
    UpstreamRequest,
    ask_showing,
)
from mcp_gateway.transports.protocol.grpc.methods import METHODS, GrpcMethod
from mcp_gateway.transports.protocol.grpc.statuses import ERROR_CODE, code_of
from mcp_gateway.transports.protocol.grpc.values import CannotCross
from mcp_gateway.transports.protocol.mcp.error_codes import INVALID_PARAMS, METHOD_NOT_FOUND, json_error
from mcp_gateway.transports.protocol.mcp.jsonrpc import Request, Response
from mcp_gateway.transports.protocol.mcp.revisions import META_SERVER_INFO, NEWEST
from mcp_gateway.transports.upstream.http.server_words import ServerWords

from .grpc_channel import ServerChannel, credential_refused, metadata_of, not_cancelled_by_close

_HEALTH: Final = "/grpc.health.v1.Health/Check"
_SERVING: Final = b"\x08\x01"
_TTL_MS: Final = 300_000
_LISTS: Final = {"tools": "tools/list", "resources": "resources/list", "prompts": "prompts/list"}
"""{capability: what a server that has it can do}. The proto has no discovery."""
_NAMED_IN: Final = {"tools/call": "mcp_tool", "resources/read": "mcp_resource", "prompts/get": "mcp_prompt"}
"""Metadata that says what is asked for. Source: mcp.proto."""


class McpOverGrpc:
    """Implements `UpstreamConversation`: a server of the modern era whose methods are those of the proto.

    show: gives the gateway's own token, where the server wants one.
    """

    def __init__(self, target: ReplicaTarget, show: ShowToken | None = None) -> None:
        backend, address = target.backend, urlsplit(target.address)
        self._show = show
        self._name = backend.title or backend.name
        self._metadata = metadata_of(backend.headers)
        self._words = ServerWords(backend)
        self._max_bytes = target.max_message_bytes
        self._work = LargeWork()
        self._channel = ServerChannel(backend, address.netloc, self._max_bytes, is_secure=address.scheme == "grpcs")

    async def exchange(self, request: UpstreamRequest, on_event: EventHandler) -> UpstreamAnswer:
        message = request.message
        if message is None:
            if request.kind is RequestKind.STREAM:
                raise UpstreamError(Fate.REFUSED, "this server says nothing on its own", reason="unknown_method")
            return UpstreamAnswer(200, None)
        if not isinstance(message, Request):
            return UpstreamAnswer(202, None)
        try:
            async with asyncio.timeout(request.timeout_s):
                if message.method == "server/discover":
                    return await self._discover(message)
                if (method := METHODS.get(message.method)) is None:
                    return _error(message, METHOD_NOT_FOUND, f"Method not found: gRPC has no {message.method}")
                return await self._ask(message, method, request)
        except TimeoutError:
            raise UpstreamError(Fate.TIMED_OUT, "the server did not answer in time") from None

    async def _ask(self, message: Request, method: GrpcMethod, request: UpstreamRequest) -> UpstreamAnswer:
        try:
            params = msgspec.json.decode(message.params) if message.params else {}
            if params.get("cursor") is not None:
                return _error(message, INVALID_PARAMS, "Invalid cursor: gRPC has no pages")
            encode = functools.partial(method.encode_request, params)
            data = await self._work.done(holder_of(request.hash_keys), len(message.params), encode)
        except (CannotCross, msgspec.DecodeError, RecursionError) as error:
            return _error(message, INVALID_PARAMS, f"Invalid params: {error}")
        named = params.get(method.item)
        headers = metadata_of(request.headers)
        if isinstance(named, str) and named.isascii() and named.isprintable() and method.name in _NAMED_IN:
            headers.append((_NAMED_IN[method.name], named))
        try:
            answer = await self._call(method.path, data, headers)
            decode = functools.partial(method.decode_response, answer)
            result = await self._work.done(holder_of(request.hash_keys), len(answer), decode)
        except grpc.aio.AioRpcError as error:
            return self._refused(message, error)
        except CannotCross as error:
            raise UpstreamError(Fate.BROKEN, f"what the server sent cannot be read: {error}") from None
        result.pop("instructions", None)
        return _answer(message, result)

    async def _call(self, path: str, data: bytes, headers: list[tuple[str, str]]) -> bytes:
        """Bytes in, bytes out. Raises: UpstreamError where nothing was sent; AioRpcError"""

        async def ask(shown: Mapping[str, str]) -> bytes:
            try:
                return await self._send(path, data, [*headers, *metadata_of(shown)])
            except grpc.aio.AioRpcError as error:
                if self._show is not None and (refused := credential_refused(error)) is not None:
                    raise refused from error
                raise

        return await ask_showing(self._show, ask)

    async def _send(self, path: str, data: bytes, headers: list[tuple[str, str]]) -> bytes:
        channel = await self._channel.connected()
        with not_cancelled_by_close():
            return bytes(await channel.unary_unary(path)(data, metadata=[*headers, *self._metadata]))

    async def _discover(self, message: Request) -> UpstreamAnswer:
        """What the server can do, by its lists, which are all that the proto has to tell of it."""
        found = await asyncio.gather(*(self._tells(method) for method in _LISTS.values()))
        capabilities: dict[str, Any] = {name: {} for name, told in zip(_LISTS, found, strict=True) if told is not None}
        if "resources" in capabilities or "prompts" in capabilities:
            capabilities["completions"] = {}
        result: dict[str, Any] = {
            "resultType": "complete",
            "supportedVersions": [NEWEST],
            "capabilities": capabilities,
            "_meta": {META_SERVER_INFO: {"name": self._name, "version": ""}},
            "ttlMs": _TTL_MS,
            "cacheScope": "public",
        }
        if instructions := next((told for told in found if told), ""):
            result["instructions"] = instructions
        return _answer(message, result)

    async def _tells(self, name: str) -> str | None:
        """The server's instructions, or ""; None where it has no such list."""
        method = METHODS[name]
        try:
            result = method.decode_response(await self._call(method.path, method.encode_request({}), []))
        except CannotCross:
            return ""
        except grpc.aio.AioRpcError as error:
            if error.code() is grpc.StatusCode.UNIMPLEMENTED:
                return None
            if code_of(error.code().name, None) is not None:
                return ""
            raise self._failed(error) from error
        return str(result.get("instructions", ""))

    def _refused(self, message: Request, error: grpc.aio.AioRpcError) -> UpstreamAnswer:
        """Raises: UpstreamError where it is no answer of the server."""
        told = dict(error.trailing_metadata() or ()).get(ERROR_CODE)
        code = code_of(error.code().name, told if isinstance(told, str) else None)
        if code is None:
            raise self._failed(error) from error
        text = self._words.text(error.details() or "") or f"gRPC {error.code().name}"
        return _error(message, code, text)

    def _failed(self, error: grpc.aio.AioRpcError) -> UpstreamError:
        status = error.code()
        text = self._words.text(error.details() or "")
        said = msgspec.json.encode(text) if text else b""
        match status:
            case grpc.StatusCode.UNAVAILABLE:
                return UpstreamError(Fate.CUT, "the connection to the gRPC server was lost", error=said)
            case grpc.StatusCode.CANCELLED:
                return UpstreamError(Fate.CUT, "the gRPC server ended the call", error=said)
            case grpc.StatusCode.DEADLINE_EXCEEDED:
                return UpstreamError(Fate.TIMED_OUT, "the server did not answer in time", error=said)
            case grpc.StatusCode.UNAUTHENTICATED | grpc.StatusCode.PERMISSION_DENIED:
                return UpstreamError(Fate.UNAUTHORIZED, f"the server does not accept what it was shown: gRPC {status.name}")
            case grpc.StatusCode.RESOURCE_EXHAUSTED if "larger than max" in text:
                return UpstreamError(Fate.BROKEN, f"the answer is larger than {self._max_bytes} bytes")
            case grpc.StatusCode.RESOURCE_EXHAUSTED:
                return UpstreamError(Fate.REFUSED, "the server has too much to do: gRPC RESOURCE_EXHAUSTED", error=said)
            case _:
                return UpstreamError(Fate.BROKEN, f"the gRPC server failed: {status.name}", error=said)

    async def probe(self, timeout_s: float) -> None:
        """Ask for its health. A server without that service is there, which is all that can be known of it.

        Nobody in particular asks: one that gets tokens, and wants to know who it is, has answered.

        Source: gRPC, "GRPC Health Checking Protocol".
        """
        try:
            async with asyncio.timeout(timeout_s):
                answer = await self._send(_HEALTH, b"", [])
        except TimeoutError:
            raise UpstreamError(Fate.TIMED_OUT, "the server did not answer in time") from None
        except grpc.aio.AioRpcError as error:
            wants_token = self._show is not None and credential_refused(error) is not None
            if not wants_token and error.code() not in (grpc.StatusCode.UNIMPLEMENTED, grpc.StatusCode.NOT_FOUND):
                raise self._failed(error) from error
        else:
            if answer != _SERVING:
                raise UpstreamError(Fate.BROKEN, "the server says that it is not serving")

    async def close(self) -> None:
        await self._channel.close()


def _answer(message: Request, result: Mapping[str, Any]) -> UpstreamAnswer:
    return UpstreamAnswer(200, Response(message.id, msgspec.json.encode(result), b""))


def _error(message: Request, code: int, text: str) -> UpstreamAnswer:
    return UpstreamAnswer(404 if code == METHOD_NOT_FOUND else 400, Response(message.id, b"", json_error(code, text)))
