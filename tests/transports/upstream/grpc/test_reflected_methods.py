"""What a server says of its services, where it means harm: it ends within bounds."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

pytest.importorskip("grpc_reflection")

from google.protobuf.descriptor_pb2 import FileDescriptorProto
from grpc_reflection.v1alpha.reflection_pb2 import ServerReflectionRequest, ServerReflectionResponse

from mcp_gateway.transports.upstream.grpc import reflected_methods as module
from mcp_gateway.transports.upstream.grpc.reflected_methods import ReflectionFailed, reflected_methods


class HarmfulStub:
    """Lists a service, and answers every other question with a file that nobody has asked for and that needs yet another one."""

    rounds = 0
    text = b""

    def __init__(self, channel: object) -> None:
        """There is no channel."""

    async def ServerReflectionInfo(
        self, questions: Iterator[ServerReflectionRequest], **how: Any
    ) -> AsyncIterator[ServerReflectionResponse]:
        HarmfulStub.rounds += 1
        for question in questions:
            answer = ServerReflectionResponse()
            if question.HasField("list_services"):
                answer.list_services_response.service.add(name="a.Shop")
            else:
                needed = ["a"] if HarmfulStub.rounds % 2 else ["b"]
                file = FileDescriptorProto(name="other", dependency=needed, package=self.text.decode())
                answer.file_descriptor_response.file_descriptor_proto.append(file.SerializeToString())
            yield answer


@pytest.fixture(autouse=True)
def harmful(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ServerReflectionStub", HarmfulStub)
    monkeypatch.setattr(HarmfulStub, "rounds", 0)


def told() -> Any:
    return asyncio.run(asyncio.wait_for(reflected_methods(object(), 1.0, ()), 10))  # type: ignore[arg-type]


def test_a_file_that_does_not_come_is_asked_for_once() -> None:
    with pytest.raises(ReflectionFailed, match="files need others"):
        told()
    assert HarmfulStub.rounds == 4, "services, the service, each file"


def test_more_than_a_server_may_say_of_itself_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(HarmfulStub, "text", b"x" * 10_000)
    monkeypatch.setattr(module, "MOST_BYTES", 50_000)
    with pytest.raises(ReflectionFailed, match="files need others"):
        told()
    monkeypatch.setattr(module, "MOST_BYTES", 5_000)
    with pytest.raises(ReflectionFailed, match="more than 5000 bytes"):
        told()
