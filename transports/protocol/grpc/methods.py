"""The methods of MCP that the gRPC proto has, each with what carries its parameters and its result."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import attrs
from google.protobuf.message import DecodeError, EncodeError, Message
from mcp_grpc_transport_proto import mcp_messages_pb2 as proto

from . import questions  # noqa: F401  # its forms are needed for results that ask
from .messages import fill, json_of
from .values import Budget, CannotCross

SERVICE: Final = "model_context_protocol.Mcp"
_ASKS: Final = "input_required"
_OF_A_QUESTION: Final = ("resultType", "inputRequests", "requestState", "_meta")


@attrs.frozen
class GrpcMethod:
    """name: of MCP. rpc: of the service. item: the member of params that names what is asked for, "" for none.

    items: the member of a result that lists something, "" for none: the proto has no pages.
    """

    name: str
    rpc: str
    request: type[Message]
    response: type[Message]
    item: str = ""
    items: str = ""

    @property
    def path(self) -> str:
        return f"/{SERVICE}/{self.rpc}"

    def encode_request(self, params: Mapping[str, Any]) -> bytes:
        """Raises: CannotCross"""
        return _encoded(self.request(), params)

    def decode_request(self, data: bytes) -> dict[str, Any]:
        """The params. Raises: CannotCross"""
        return _decoded(self.request, data)

    def encode_response(self, result: Mapping[str, Any]) -> bytes:
        """Raises: CannotCross"""
        return _encoded(self.response(), result)

    def decode_response(self, data: bytes) -> dict[str, Any]:
        """The result. Raises: CannotCross"""
        result = _decoded(self.response, data)
        if result["resultType"] == _ASKS:
            return {member: value for member, value in result.items() if member in _OF_A_QUESTION}
        if "ttl" in self.response.DESCRIPTOR.fields_by_name:  # nothing is kept that its server does not say may be
            return {**result, "ttlMs": result.get("ttlMs", 0), "cacheScope": result.get("cacheScope") or "private"}
        return result


def _encoded(message: Message, value: Mapping[str, Any]) -> bytes:
    try:
        fill(message, value, Budget())
        return bytes(message.SerializeToString())
    except (TypeError, ValueError, KeyError, AttributeError, IndexError, EncodeError, RecursionError) as error:
        # What a server sends need not have the form that its schema asks for.
        raise CannotCross(f"it has not the form that gRPC needs: {str(error)[:300]}") from None


def _decoded(kind: type[Message], data: bytes) -> dict[str, Any]:
    try:
        message = kind.FromString(data)
    except (DecodeError, RecursionError):
        raise CannotCross(f"the bytes are no {kind.DESCRIPTOR.name}") from None
    try:
        result: dict[str, Any] = json_of(message, Budget())
    except (UnicodeError, OverflowError, ValueError) as error:
        raise CannotCross(f"{kind.DESCRIPTOR.name}: {str(error)[:300]}") from None
    return result


_ALL: Final = (
    GrpcMethod("tools/list", "ListTools", proto.ListToolsRequest, proto.ListToolsResponse, items="tools"),
    GrpcMethod("tools/call", "CallTool", proto.CallToolRequest, proto.CallToolResponse, item="name"),
    GrpcMethod("resources/list", "ListResources", proto.ListResourcesRequest, proto.ListResourcesResponse, items="resources"),
    GrpcMethod("resources/read", "ReadResource", proto.ReadResourceRequest, proto.ReadResourceResponse, item="uri"),
    GrpcMethod(
        "resources/templates/list",
        "ListResourceTemplates",
        proto.ListResourceTemplatesRequest,
        proto.ListResourceTemplatesResponse,
        items="resourceTemplates",
    ),
    GrpcMethod("prompts/list", "ListPrompts", proto.ListPromptsRequest, proto.ListPromptsResponse, items="prompts"),
    GrpcMethod("prompts/get", "GetPrompt", proto.GetPromptRequest, proto.GetPromptResponse, item="name"),
    GrpcMethod("completion/complete", "Complete", proto.CompletionRequest, proto.CompletionResponse),
)
METHODS: Final = {method.name: method for method in _ALL}
RPCS: Final = {method.path: method for method in _ALL}
