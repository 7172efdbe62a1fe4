"""A client of MCP's own gRPC proto, by its stubs, used as the official SDK's is: there is none that speaks it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Mapping
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

import grpc
import msgspec
from google.protobuf.json_format import MessageToDict
from mcp.shared.exceptions import MCPError
from mcp_grpc_transport_proto import mcp_messages_pb2 as proto
from mcp_grpc_transport_proto.mcp_pb2_grpc import McpStub
from mcp_types import PromptReference

from mcp_gateway.transports.protocol.mcp.revisions import META_CLIENT_CAPABILITIES
from tests.end_to_end.python_client import Record

_ANSWERS: dict[str, Any] = {"elicitation": {}, "sampling": {}, "roots": {}}
_MOST_QUESTIONS = 5


class GrpcClient:
    """What it is given has the members of the SDK's results that tests look at.

    server: the backend that it asks. name: its answer to an elicitation, with which it signs samples.
    """

    def __init__(self, channel: grpc.aio.Channel, server: str, name: str) -> None:
        self._stub = McpStub(channel)
        self._metadata = [("mcp-server", server)]
        self._name = name

    async def list_tools(self, *, cursor: str | None = None) -> Any:
        assert cursor is None, "all pages are one list"
        answer = await self._asked(self._stub.ListTools, proto.ListToolsRequest())
        return SimpleNamespace(tools=answer.tools, next_cursor=None)

    async def list_resources(self) -> Any:
        return await self._asked(self._stub.ListResources, proto.ListResourcesRequest())

    async def list_resource_templates(self) -> Any:
        return await self._asked(self._stub.ListResourceTemplates, proto.ListResourceTemplatesRequest())

    async def list_prompts(self) -> Any:
        return await self._asked(self._stub.ListPrompts, proto.ListPromptsRequest())

    async def read_resource(self, uri: str) -> Any:
        answer = await self._asked(self._stub.ReadResource, proto.ReadResourceRequest(uri=uri))
        return SimpleNamespace(contents=answer.resource)

    async def get_prompt(self, name: str, arguments: Mapping[str, str]) -> Any:
        answer = await self._asked(self._stub.GetPrompt, proto.GetPromptRequest(name=name, arguments=arguments))
        return SimpleNamespace(messages=[SimpleNamespace(content=message.text) for message in answer.messages])

    async def complete(self, reference: PromptReference, argument: Mapping[str, str]) -> Any:
        asked = proto.CompletionRequest(argument=proto.CompletionRequest.Argument(**argument))
        asked.prompt_reference.name = reference.name
        return SimpleNamespace(completion=await self._asked(self._stub.Complete, asked))

    async def call_tool(self, name: str, arguments: Mapping[str, Any]) -> Any:
        """What the call gives in the end, its questions answered by retries."""
        asked = proto.CallToolRequest(request=proto.CallToolRequest.Request(name=name))
        asked.request.arguments.update(arguments)
        asked.common.metadata.update({META_CLIENT_CAPABILITIES: _ANSWERS})
        for _ in range(_MOST_QUESTIONS):
            result = await self._asked(self._stub.CallTool, asked)
            if result.common.result_type != proto.RESULT_TYPE_INPUT_REQUIRED:
                content = [each.text for each in result.content]
                structured = MessageToDict(result.structured_content) if result.HasField("structured_content") else None
                return SimpleNamespace(content=content, structured_content=structured, is_error=result.is_error)
            asked.common.request_state = result.common.request_state
            asked.common.input_responses.clear()
            for key, question in result.common.input_requests.items():
                self._answer(question, asked.common.input_responses[key])
        raise AssertionError("it asks without end")

    def _answer(self, question: Any, response: Any) -> None:
        if question.HasField("elicit_request"):
            response.elicit_result.type = proto.ElicitResult.TYPE_ACCEPT
            response.elicit_result.content.update({"name": self._name})
        elif question.HasField("list_roots_request"):
            response.root_list_result.roots.add(uri=f"file:///{self._name}")
        else:
            result = response.sampling_create_message_result
            result.model = f"model of {self._name}"
            result.message.role = proto.ROLE_ASSISTANT
            result.message.text.text = f"about {question.sampling_create_message.messages[0].text.text}"

    async def _asked(self, method: Any, request: Any) -> Any:
        """Raises: MCPError"""
        answer: Awaitable[Any] = method(request, metadata=self._metadata, timeout=60.0, wait_for_ready=True)
        try:
            return await answer
        except grpc.aio.AioRpcError as error:
            told = dict(error.trailing_metadata() or ())
            data = msgspec.json.decode(told.get("mcp-error-data-bin", b"null"))
            raise MCPError(int(told["mcp-error-code"]), error.details() or "", data) from error


@asynccontextmanager
async def connected_by_grpc(address: str, server: str, *, name: str = "Ada") -> AsyncIterator[tuple[GrpcClient, Record]]:
    """As `connected`. address: where the gateway listens for gRPC. Such a client is told nothing: its record stays empty."""
    options = [("grpc.use_local_subchannel_pool", 1)]
    async with grpc.aio.insecure_channel(address, options) as channel:
        yield GrpcClient(channel, server, name), Record()
