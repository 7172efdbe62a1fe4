"""A server that speaks MCP's own gRPC proto, by the stubs of its package; some of its tools misbehave."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import attrs
import grpc
from mcp_grpc_transport_proto import mcp_messages_pb2 as proto
from mcp_grpc_transport_proto import mcp_pb2_grpc

TOOLS = ("echo", "fail", "ask", "stuck", "huge", "crowd", "secret")


@attrs.define
class GrpcMcpServer(mcp_pb2_grpc.McpServicer):
    """address: host:port. metadata: of each call, certificates: of who made it, where they were asked for.

    cancelled: set once a call of `stuck` has been cancelled.

    health: what the health service answers, None where there is no such service.
    """

    address: str = ""
    metadata: list[dict[str, str]] = attrs.field(factory=list)
    certificates: list[bytes] = attrs.field(factory=list)
    cancelled: threading.Event = attrs.field(factory=threading.Event)
    health: bytes | None = None
    has_prompts: bool = True
    server: Any = None

    def _note(self, context: grpc.ServicerContext) -> None:
        self.certificates += context.auth_context().get("x509_pem_cert", ())
        self.metadata.append({key: str(value) for key, value in context.invocation_metadata()})

    def ListTools(self, request: Any, context: grpc.ServicerContext) -> Any:
        self._note(context)
        tools = []
        for name in TOOLS:
            tool = proto.Tool(name=name, description=f"the tool {name}")
            tool.input_schema.update({"type": "object", "properties": {"text": {"type": "string"}}})
            tools.append(tool)
        return proto.ListToolsResponse(common=proto.ResponseFields(instructions="Be kind."), tools=tools)

    def CallTool(self, request: Any, context: grpc.ServicerContext) -> Any:
        self._note(context)
        match request.request.name:
            case "fail":
                context.set_trailing_metadata((("mcp-error-code", "-32602"),))
                context.abort(grpc.StatusCode.INTERNAL, "no such thing")
            case "secret":
                shown = dict(context.invocation_metadata()).get("authorization", "")
                context.abort(grpc.StatusCode.INTERNAL, f"cannot use {shown}")
            case "cancel":
                context.abort(grpc.StatusCode.CANCELLED, "enough")
            case "stuck":
                context.add_callback(self.cancelled.set)
                self.cancelled.wait(20)
            case "huge":
                return _said("x" * 3_000_000)
            case "crowd":
                return proto.CallToolResponse(content=[proto.CallToolResponse.Content() for _ in range(150_000)])
            case "ask":
                return self._ask(request)
        return _said(str(request.request.arguments.fields["text"].string_value))

    @staticmethod
    def _ask(request: Any) -> Any:
        """Who greets wants to know a name first."""
        if "who" in request.common.input_responses:
            answer = request.common.input_responses["who"].elicit_result
            return _said(f"{request.common.request_state}: {answer.content.fields['name'].string_value}")
        asked = proto.ElicitRequest(message="Your name?", required_fields=["name"])
        asked.requested_schema["name"].string_schema.title = "Name"
        common = proto.ResponseFields(result_type=proto.RESULT_TYPE_INPUT_REQUIRED, request_state="kept")
        common.input_requests["who"].elicit_request.CopyFrom(asked)
        return proto.CallToolResponse(common=common)

    def ListResources(self, request: Any, context: grpc.ServicerContext) -> Any:
        return proto.ListResourcesResponse(resources=[proto.Resource(uri="note://one", name="one")])

    def ReadResource(self, request: Any, context: grpc.ServicerContext) -> Any:
        self._note(context)
        if request.uri != "note://one":
            context.abort(grpc.StatusCode.NOT_FOUND, "Resource not found")
        return proto.ReadResourceResponse(
            resource=[proto.ResourceContents(uri=request.uri, mime_type="image/png", blob=b"\x00\xff")]
        )

    def ListPrompts(self, request: Any, context: grpc.ServicerContext) -> Any:
        if not self.has_prompts:
            context.abort(grpc.StatusCode.UNIMPLEMENTED, "no prompts")
        return proto.ListPromptsResponse(prompts=[proto.Prompt(name="greet", arguments=[proto.Prompt.Argument(name="who")])])

    def GetPrompt(self, request: Any, context: grpc.ServicerContext) -> Any:
        said = proto.PromptMessage(role=proto.ROLE_USER, text=proto.TextContent(text=f"Greet {request.arguments['who']}."))
        return proto.GetPromptResponse(messages=[said])

    def Complete(self, request: Any, context: grpc.ServicerContext) -> Any:
        return proto.CompletionResponse(values=[f"{request.argument.value}{end}" for end in "ab"], total_matches=2)


def _said(text: str) -> Any:
    return proto.CallToolResponse(content=[proto.CallToolResponse.Content(text=proto.TextContent(text=text))])


@contextmanager
def grpc_mcp_server(
    double: GrpcMcpServer | None = None,
    credentials: grpc.ServerCredentials | None = None,
    interceptors: Sequence[grpc.ServerInterceptor] = (),
) -> Iterator[GrpcMcpServer]:
    """credentials: for TLS."""
    double = double or GrpcMcpServer()
    server = grpc.server(ThreadPoolExecutor(8), options=[("grpc.so_reuseport", 0)], interceptors=interceptors)
    mcp_pb2_grpc.add_McpServicer_to_server(double, server)
    if double.health is not None:
        check = grpc.unary_unary_rpc_method_handler(lambda request, context: double.health)
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("grpc.health.v1.Health", {"Check": check}),))
    at = "127.0.0.1:0"
    port = server.add_insecure_port(at) if credentials is None else server.add_secure_port(at, credentials)
    double.address, double.server = f"127.0.0.1:{port}", server
    server.start()
    try:
        yield double
    finally:
        double.cancelled.set()
        server.stop(0.1).wait(5)
