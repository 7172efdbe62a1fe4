"""What a server says of its services, where it means harm: it ends within bounds."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import attrs
import pytest

pytest.importorskip("grpc_reflection")

from google.protobuf.descriptor_pb2 import FileDescriptorProto
from grpc_reflection.v1alpha.reflection_pb2 import ServerReflectionRequest, ServerReflectionResponse

from mcp_gateway.transports.upstream.grpc import reflected_methods as module
from mcp_gateway.transports.upstream.grpc.reflected_methods import ReflectionFailed, reflected_methods


@attrs.define
class HarmfulServer:
    """Lists a service, and answers every other question with a file that nobody has asked for and that needs yet another one."""

    text: bytes = b""
    rounds: int = 0

    def unary_stream(self, path: str, serialize: Any, parse: Any) -> Any:
        return self._answers

    async def _answers(self, question: ServerReflectionRequest, **how: Any) -> AsyncIterator[ServerReflectionResponse]:
        self.rounds += 1
        answer = ServerReflectionResponse()
        if question.HasField("list_services"):
            answer.list_services_response.service.add(name="a.Shop")
        else:
            needed = ["a"] if self.rounds % 2 else ["b"]
            file = FileDescriptorProto(name="other", dependency=needed, package=self.text.decode())
            answer.file_descriptor_response.file_descriptor_proto.append(file.SerializeToString())
        yield answer


def told(server: Any) -> Any:
    return asyncio.run(asyncio.wait_for(reflected_methods(server, 1.0, ()), 10))


def test_a_file_that_does_not_come_is_asked_for_once() -> None:
    server = HarmfulServer()
    with pytest.raises(ReflectionFailed, match="files need others"):
        told(server)
    assert server.rounds == 4, "services, the service, each file"


def test_more_than_a_server_may_say_of_itself_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_BYTES", 50_000)
    with pytest.raises(ReflectionFailed, match="files need others"):
        told(HarmfulServer(b"x" * 10_000))
    monkeypatch.setattr(module, "MOST_BYTES", 5_000)
    with pytest.raises(ReflectionFailed, match="more than 5000 bytes"):
        told(HarmfulServer(b"x" * 10_000))
