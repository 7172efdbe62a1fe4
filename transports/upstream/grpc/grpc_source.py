"""Calls the methods of one gRPC server. Needs the extra `grpc`."""

from __future__ import annotations

import functools
import json
from collections.abc import Awaitable, Mapping, Sequence
from typing import Any, Final

import grpc
import msgspec
from google.protobuf.json_format import MessageToDict, ParseDict, ParseError
from google.protobuf.message_factory import GetMessageClass

from mcp_gateway.config.backend_settings import BackendSettings
from mcp_gateway.transports.ports.failure import Fate
from mcp_gateway.transports.ports.large_work import LargeWork
from mcp_gateway.transports.ports.loop_tasks import SharedTasks
from mcp_gateway.transports.ports.upstream_port import ShowToken, UpstreamError, ask_showing
from mcp_gateway.transports.upstream.adapted.adapted_conversation import Report, ToolOutcome, WrongArguments

from .grpc_channel import ServerChannel, connect, credential_refused, metadata_of, not_cancelled_by_close
from .reflected_methods import Method, ReflectionFailed, reflected_methods

MOST_MESSAGES: Final = 10_000
"""Of a stream of answers, which are one result in the end."""
_REFLECTION_S: Final = 10.0
_SHOWN_CHARACTERS: Final = 200
_Metadata = list[tuple[str, str]]


class GrpcSource:
    """Implements `ToolSource`. Its methods are asked for once, and again where the server does not know one any more.

    show: gives the gateway's own token, where the server wants one.
    """

    def __init__(self, backend: BackendSettings, max_message_bytes: int, show: ShowToken | None = None) -> None:
        self._show = show
        self.name = backend.title or backend.name
        self._max_bytes = max_message_bytes
        self._work = LargeWork()
        self._metadata = metadata_of(backend.headers)
        scheme, _, address = backend.grpc.rpartition("://")
        self._channel = ServerChannel(backend, address, max_message_bytes, is_secure=scheme == "https")
        self._known: dict[str, Method] | None = None
        self._asking: SharedTasks[None, dict[str, Method]] = SharedTasks()

    async def instructions(self) -> str:
        return ""

    async def tools(self) -> Sequence[Mapping[str, Any]]:
        return [method.tool for method in (await self._methods()).values()]

    async def call(self, name: str, arguments: Mapping[str, Any], timeout_s: float | None, report: Report) -> ToolOutcome | None:
        method = (await self._methods()).get(name)
        if method is None:
            return None
        size = len(msgspec.json.encode(arguments))
        request = await self._work.done("", size, functools.partial(_request, method, arguments))

        def ask(shown: Mapping[str, str]) -> Awaitable[ToolOutcome]:
            metadata = [*self._metadata, *metadata_of(shown)]
            if method.streams:
                return self._stream(method, request, metadata, timeout_s, report)
            return self._unary(method, request, metadata, timeout_s)

        with not_cancelled_by_close():
            return await ask_showing(self._show, ask)

    async def _unary(self, method: Method, request: Any, metadata: _Metadata, timeout_s: float | None) -> ToolOutcome:
        channel = self._channel.current()
        call = channel.unary_unary(method.path, _bytes_of, GetMessageClass(method.descriptor.output_type).FromString)
        try:
            answer = await self._read(await call(request, timeout=timeout_s, metadata=metadata))
        except grpc.aio.AioRpcError as error:
            return self._refused(error)
        return ToolOutcome([{"type": "text", "text": json.dumps(answer, ensure_ascii=False)}], answer)

    async def _stream(
        self, method: Method, request: Any, metadata: _Metadata, timeout_s: float | None, report: Report
    ) -> ToolOutcome:
        channel = self._channel.current()
        call = channel.unary_stream(method.path, _bytes_of, GetMessageClass(method.descriptor.output_type).FromString)
        stream = call(request, timeout=timeout_s, metadata=metadata)
        answers: list[Any] = []
        size = 0
        try:
            async for message in stream:
                size += message.ByteSize()
                if size > self._max_bytes or len(answers) >= MOST_MESSAGES:
                    text = f"the stream is longer than {MOST_MESSAGES} messages or {self._max_bytes} bytes; so far: "
                    return ToolOutcome([{"type": "text", "text": text + json.dumps(answers)[:10_000]}], is_error=True)
                answers.append(await self._read(message))
                await report(len(answers), json.dumps(answers[-1], ensure_ascii=False)[:_SHOWN_CHARACTERS])
        except grpc.aio.AioRpcError as error:
            return self._refused(error, has_run=bool(answers))
        finally:
            stream.cancel()
        return ToolOutcome([{"type": "text", "text": json.dumps(answers, ensure_ascii=False)}], {"messages": answers})

    async def _read(self, message: Any) -> dict[str, Any]:
        """In its JSON form."""
        found: dict[str, Any] = await self._work.done("", message.ByteSize(), functools.partial(MessageToDict, message))
        return found

    async def probe(self, timeout_s: float) -> None:
        await self._methods()
        await connect(self._channel.current(), timeout_s)

    async def close(self) -> None:
        self._asking.cancel()
        await self._channel.close()

    def _refused(self, error: grpc.aio.AioRpcError, *, has_run: bool = False) -> ToolOutcome:
        """Raises: UpstreamError where it is no word of the method itself; CredentialRefused, where there was a token."""
        if self._show is not None and not has_run and (refused := credential_refused(error)) is not None:
            raise refused from error
        code = error.code()
        if code is grpc.StatusCode.UNAVAILABLE:
            raise UpstreamError(Fate.CUT, "the connection failed: the gRPC server is not available") from error
        if code is grpc.StatusCode.DEADLINE_EXCEEDED:
            raise UpstreamError(Fate.TIMED_OUT, "the server did not answer in time") from error
        if code is grpc.StatusCode.UNIMPLEMENTED:
            self._known = None
        details = (error.details() or "")[:10_000]
        text = f"gRPC {code.name}: {details}" if details else f"gRPC {code.name}"
        return ToolOutcome([{"type": "text", "text": text}], {"code": code.name, "message": details}, is_error=True)

    async def _methods(self) -> dict[str, Method]:
        if self._known is None:
            self._known = await self._asking.join(None, self._ask_methods)
        return self._known

    async def _ask_methods(self) -> dict[str, Method]:
        with not_cancelled_by_close():
            return await ask_showing(self._show, self._reflected)

    async def _reflected(self, shown: Mapping[str, str]) -> dict[str, Method]:
        metadata = [*self._metadata, *metadata_of(shown)]
        try:
            return await reflected_methods(self._channel.current(), _REFLECTION_S, metadata)
        except ReflectionFailed as failed:
            raise UpstreamError(Fate.BROKEN, f"its reflection cannot be used: {failed}") from None
        except grpc.aio.AioRpcError as error:
            if self._show is not None and (refused := credential_refused(error)) is not None:
                raise refused from error
            code = error.code()
            if code is grpc.StatusCode.UNIMPLEMENTED:
                raise UpstreamError(Fate.BROKEN, "it does not tell its services: server reflection is off") from error
            raise UpstreamError(Fate.UNREACHABLE, f"its services cannot be asked for: gRPC {code.name}") from error


def _request(method: Method, arguments: Mapping[str, Any]) -> Any:
    """Raises: WrongArguments"""
    try:
        return ParseDict(dict(arguments), GetMessageClass(method.descriptor.input_type)())
    except (ParseError, ValueError, TypeError, RecursionError) as error:
        raise WrongArguments(str(error)[:2_000] or "the arguments do not fit") from None


def _bytes_of(message: Any) -> bytes:
    return bytes(message.SerializeToString())
