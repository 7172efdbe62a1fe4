"""A server of MCP's own gRPC proto, by its stubs, with as many of the tools of `everything_server` as the proto has words for."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import attrs
import grpc
from mcp_grpc_transport_proto import mcp_messages_pb2 as proto
from mcp_grpc_transport_proto import mcp_pb2_grpc

_TOOLS = ("echo", "add", "fail", "slow", "elicit", "sample", "roots")
_ASKED = "who"


@attrs.define
class GrpcEverythingServer(mcp_pb2_grpc.McpServicer):
    """address: host:port. started, cancelled: tags of calls of `slow`."""

    address: str = ""
    started: list[str] = attrs.field(factory=list)
    cancelled: list[str] = attrs.field(factory=list)
    has_ended: threading.Event = attrs.field(factory=threading.Event)

    def ListTools(self, request: Any, context: grpc.ServicerContext) -> Any:
        tools = [proto.Tool(name=name, description=f"the tool {name}") for name in _TOOLS]
        for tool in tools:
            tool.input_schema.update({"type": "object"})
        return proto.ListToolsResponse(tools=tools)

    def CallTool(self, request: Any, context: grpc.ServicerContext) -> Any:
        arguments, answers = request.request.arguments, request.common.input_responses
        match request.request.name:
            case "echo":
                return _said(arguments["message"])
            case "add":
                result = _said(str(arguments["a"] + arguments["b"]))
                result.structured_content.update({"result": arguments["a"] + arguments["b"]})
                return result
            case "fail":
                return proto.CallToolResponse(content=_said(arguments["message"]).content, is_error=True)
            case "slow":
                return self._slow(arguments, context)
            case _ if _ASKED not in answers:
                return _question(request)
            case "elicit":
                return _said(f"accept: Hello, {answers[_ASKED].elicit_result.content['name']}!")
            case "sample":
                sampled = answers[_ASKED].sampling_create_message_result
                return _said(f"{sampled.model}: {sampled.message.text.text}")
            case "roots":
                return _said(", ".join(root.uri for root in answers[_ASKED].root_list_result.roots))
        return context.abort(grpc.StatusCode.NOT_FOUND, "no such tool")

    def _slow(self, arguments: Any, context: grpc.ServicerContext) -> Any:
        tag, is_over = arguments.fields["tag"].string_value or "slow", threading.Event()
        context.add_callback(is_over.set)
        self.started.append(tag)
        if is_over.wait(arguments["seconds"]) and not self.has_ended.is_set():
            self.cancelled.append(tag)
        return _said(f"slept {arguments['seconds']:g} s")

    def ListResources(self, request: Any, context: grpc.ServicerContext) -> Any:
        return proto.ListResourcesResponse(
            resources=[proto.Resource(uri=f"test://{name}", name=name) for name in ("static", "blob")]
        )

    def ListResourceTemplates(self, request: Any, context: grpc.ServicerContext) -> Any:
        template = proto.ResourceTemplate(uri_template="test://item/{item_id}", name="item")
        return proto.ListResourceTemplatesResponse(resource_templates=[template])

    def ReadResource(self, request: Any, context: grpc.ServicerContext) -> Any:
        kind, _, item = request.uri.removeprefix("test://").partition("/")
        if kind != "item":
            context.abort(grpc.StatusCode.NOT_FOUND, "Resource not found")
        contents = proto.ResourceContents(uri=request.uri, mime_type="application/json", text=json.dumps({"item": item}))
        return proto.ReadResourceResponse(resource=[contents])

    def ListPrompts(self, request: Any, context: grpc.ServicerContext) -> Any:
        return proto.ListPromptsResponse(prompts=[proto.Prompt(name="greet", arguments=[proto.Prompt.Argument(name="name")])])

    def GetPrompt(self, request: Any, context: grpc.ServicerContext) -> Any:
        text = proto.TextContent(text=f"Say hello to {request.arguments['name']}.")
        return proto.GetPromptResponse(messages=[proto.PromptMessage(role=proto.ROLE_USER, text=text)])

    def Complete(self, request: Any, context: grpc.ServicerContext) -> Any:
        values = [name for name in ("Ada", "Alan", "Barbara", "Edsger") if name.startswith(request.argument.value)]
        return proto.CompletionResponse(values=values, total_matches=len(values))


def _said(text: str) -> Any:
    return proto.CallToolResponse(content=[proto.CallToolResponse.Content(text=proto.TextContent(text=text))])


def _question(request: Any) -> Any:
    """What the tool wants to know of its client first."""
    common = proto.ResponseFields(result_type=proto.RESULT_TYPE_INPUT_REQUIRED, request_state="kept")
    asked = common.input_requests[_ASKED]
    match request.request.name:
        case "elicit":
            asked.elicit_request.message = "What is your name?"
            asked.elicit_request.required_fields.append("name")
            asked.elicit_request.requested_schema["name"].string_schema.title = "Name"
        case "sample":
            text = proto.TextContent(text=request.request.arguments["prompt"])
            asked.sampling_create_message.messages.append(proto.SamplingMessage(role=proto.ROLE_USER, text=text))
            asked.sampling_create_message.max_tokens = 50
        case "roots":
            asked.list_roots_request.SetInParent()
    return proto.CallToolResponse(common=common)


@contextmanager
def grpc_everything_server() -> Iterator[GrpcEverythingServer]:
    double = GrpcEverythingServer()
    server = grpc.server(ThreadPoolExecutor(32))
    mcp_pb2_grpc.add_McpServicer_to_server(double, server)
    double.address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    server.start()
    try:
        yield double
    finally:
        double.has_ended.set()
        server.stop(0.1).wait(5)
