"""Asks a gRPC server for its methods, within bounds.

Source: gRPC, "GRPC Server Reflection Protocol", v1alpha, which all servers with reflection speak.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping
from typing import Any, Final

import attrs
import grpc
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message import DecodeError
from grpc_reflection.v1alpha.reflection_pb2 import ServerReflectionRequest, ServerReflectionResponse

from mcp_gateway.transports.upstream.adapted.adapted_conversation import LARGEST_SCHEMA_BYTES, size_of

from .message_schemas import schema_of

MOST_FILES: Final = 1_000
MOST_METHODS: Final = 2_000
MOST_BYTES: Final = 33_554_432
"""Of all that a server says of its services: ten times what the largest public ones do."""
_METHOD: Final = "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"
_OWN_SERVICES: Final = ("grpc.reflection.", "grpc.health.", "grpc.channelz.")
"""Services of gRPC itself are no tools."""


class ReflectionFailed(Exception):
    """The server does not tell its services in a way that can be used; the text says why."""


@attrs.frozen
class Method:
    """path: as gRPC calls it. tool: as `tools/list` has it."""

    path: str
    descriptor: MethodDescriptor
    tool: Mapping[str, Any]

    @property
    def streams(self) -> bool:
        """Whether it answers with any number of messages."""
        return bool(self.descriptor.server_streaming)


async def reflected_methods(
    channel: grpc.aio.Channel, timeout_s: float, metadata: Iterable[tuple[str, str]]
) -> dict[str, Method]:
    """{name of the tool: method}.

    Raises: ReflectionFailed, grpc.aio.AioRpcError
    """
    # As one question and a stream of answers, which the wire cannot tell from a stream of questions. In that, gRPC says INTERNAL
    # in place of the server's own status where the server has ended the call before a question was written.
    call = channel.unary_stream(_METHOD, ServerReflectionRequest.SerializeToString, ServerReflectionResponse.FromString)
    shown = tuple(metadata)

    size = 0

    async def ask(question: ServerReflectionRequest) -> AsyncIterator[ServerReflectionResponse]:
        nonlocal size
        async for answer in call(question, timeout=timeout_s, metadata=shown):
            size += answer.ByteSize()
            if size > MOST_BYTES:
                raise ReflectionFailed(f"it says more than {MOST_BYTES} bytes of its services")
            yield answer

    services: list[str] = []
    async for answer in ask(ServerReflectionRequest(list_services="")):
        services += [each.name for each in answer.list_services_response.service]
    services = [name for name in services if not name.startswith(_OWN_SERVICES)]
    files: dict[str, FileDescriptorProto] = {}
    asked_for: set[str] = set()
    questions = [ServerReflectionRequest(file_containing_symbol=name) for name in services]
    while questions:
        for question in questions:
            async for answer in ask(question):
                for content in answer.file_descriptor_response.file_descriptor_proto:
                    file = _file(content)
                    files[file.name] = file
            if len(files) > MOST_FILES:
                raise ReflectionFailed(f"it has more than {MOST_FILES} files")
        wanted = {name for file in files.values() for name in file.dependency} - files.keys() - asked_for
        asked_for |= wanted  # once: a server may answer with something else, again and again
        questions = [ServerReflectionRequest(file_by_filename=name) for name in sorted(wanted)]
    return _methods(_pool(files), services)


def _file(content: bytes) -> FileDescriptorProto:
    try:
        return FileDescriptorProto.FromString(content)
    except DecodeError:
        raise ReflectionFailed("what it says of a file is no descriptor") from None


def _pool(files: Mapping[str, FileDescriptorProto]) -> DescriptorPool:
    """Files in the order of what they need. Raises: ReflectionFailed"""
    pool = DescriptorPool()
    added: set[str] = set()
    left = dict(files)
    while left:
        ready = [name for name, file in left.items() if set(file.dependency) <= added]
        if not ready:
            raise ReflectionFailed(f"files need others that it does not give: {', '.join(sorted(left))[:300]}")
        for name in ready:
            try:
                pool.Add(left.pop(name))
            except TypeError as error:
                raise ReflectionFailed(f"{name}: {str(error)[:300]}") from None
            added.add(name)
    return pool


def _methods(pool: DescriptorPool, services: Iterable[str]) -> dict[str, Method]:
    """Those that take one message; nobody can stream arguments into a tool."""
    found: dict[str, Method] = {}
    for service_name in services:
        try:
            service = pool.FindServiceByName(service_name)
        except KeyError:
            raise ReflectionFailed(f"it lists {service_name[:200]!r} and does not say what it is") from None
        for descriptor in service.methods:
            if descriptor.client_streaming or len(found) >= MOST_METHODS:
                continue
            short = f"{service.name}_{descriptor.name}"
            name = short if short not in found else descriptor.full_name.replace(".", "_")
            found[name] = Method(f"/{service_name}/{descriptor.name}", descriptor, _tool(name, descriptor))
    return found


def _tool(name: str, method: MethodDescriptor) -> dict[str, Any]:
    gives = f"any number of {method.output_type.full_name}" if method.server_streaming else method.output_type.full_name
    schema = schema_of(method.input_type)
    if size_of(schema) > LARGEST_SCHEMA_BYTES:
        schema = {"type": "object"}
    return {
        "name": name,
        "title": method.name,
        "description": f"{method.full_name}: takes {method.input_type.full_name}, gives {gives}.",
        "inputSchema": schema,
    }
