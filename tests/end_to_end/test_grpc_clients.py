"""Clients of MCP's own gRPC proto, by its stubs, to servers of both eras and of the proto itself, through a whole gateway.

Of the features of `matrix` these are the ones that the proto has words for; README has the others by name.
"""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Iterator
from typing import Any

import attrs
import grpc
import pytest
from mcp_grpc_transport_proto import mcp_messages_pb2 as proto
from mcp_grpc_transport_proto.mcp_pb2_grpc import McpStub

from mcp_gateway.transports.protocol.mcp.revisions import META_CLIENT_CAPABILITIES
from tests.conftest import StartGateway
from tests.doubles.grpc_mcp_server import TOOLS, grpc_mcp_server
from tests.doubles.ports import free_port
from tests.doubles.sdk_server import start_sdk_server
from tests.end_to_end.running_gateway import wait_until

SERVERS = ("legacy", "modern")
_TIMEOUT_S = 60.0


@attrs.frozen
class Site:
    """stub: of the gateway. counters: {server: where it tells what happened to its calls}."""

    stub: Any
    counters: dict[str, str]

    def tags(self, server: str, event: str) -> list[str]:
        with urllib.request.urlopen(self.counters[server], timeout=10) as answer:
            return list(json.load(answer)[event])


@pytest.fixture(scope="module", params=["embedded", "two cells"])
def site(request: pytest.FixtureRequest, start_gateway: StartGateway) -> Iterator[Site]:
    port = free_port()
    with (
        start_sdk_server(era="legacy", page_size=5) as legacy,
        start_sdk_server(era="modern", page_size=5) as modern,
        grpc_mcp_server() as own,
    ):
        backends = [
            {"name": "legacy", "replicas": [legacy.url]},
            {"name": "modern", "replicas": [modern.url]},
            {"name": "own", "replicas": [f"grpc://{own.address}"]},
        ]
        counters = {name: f"http://127.0.0.1:{each.port}/counters" for name, each in (("legacy", legacy), ("modern", modern))}
        with start_gateway(request.param, backends, grpc={"port": port}):
            with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
                yield Site(McpStub(channel), counters)


def at(server: str) -> dict[str, Any]:
    return {"metadata": [("mcp-server", server)], "timeout": _TIMEOUT_S, "wait_for_ready": True}


def call(tool: str, arguments: dict[str, Any]) -> Any:
    asked = proto.CallToolRequest(request=proto.CallToolRequest.Request(name=tool))
    asked.request.arguments.update(arguments)
    asked.common.metadata.update({META_CLIENT_CAPABILITIES: {"elicitation": {}, "sampling": {}, "roots": {}}})
    return asked


def answered(site: Site, server: str, tool: str, **arguments: Any) -> str:
    """What the call says in the end, its questions answered as they come."""
    asked = call(tool, arguments)
    for _ in range(5):
        result = site.stub.CallTool(asked, **at(server))
        if result.common.result_type != proto.RESULT_TYPE_INPUT_REQUIRED:
            return str(result.content[0].text.text)
        asked.common.request_state = result.common.request_state
        asked.common.input_responses.clear()
        for name, question in result.common.input_requests.items():
            _answer(question, asked.common.input_responses[name])
    raise AssertionError("it asks without end")


def _answer(question: Any, response: Any) -> None:
    if question.HasField("elicit_request"):
        response.elicit_result.type = proto.ElicitResult.TYPE_ACCEPT
        response.elicit_result.content.update({"name": "Ada"})
    elif question.HasField("list_roots_request"):
        response.root_list_result.roots.add(uri="file:///Ada")
    else:
        said = question.sampling_create_message.messages[0].text.text
        result = response.sampling_create_message_result
        result.model = "of Ada"
        result.message.role = proto.ROLE_ASSISTANT
        result.message.text.text = f"about {said}"


@pytest.mark.parametrize("server", SERVERS)
def test_lists_calls_reads_prompts_and_completions_cross(server: str, site: Site) -> None:
    tools = [tool.name for tool in site.stub.ListTools(proto.ListToolsRequest(), **at(server)).tools]
    assert {"echo", "elicit", "roots"} <= set(tools)
    assert len(tools) > 10, "all pages are one list"
    assert answered(site, server, "echo", message="é") == "é"
    added = site.stub.CallTool(call("add", {"a": 40, "b": 2}), **at(server))
    assert added.structured_content["result"] == 42
    assert site.stub.CallTool(call("fail", {"message": "as asked"}), **at(server)).is_error
    read = site.stub.ReadResource(proto.ReadResourceRequest(uri="test://item/7"), **at(server))
    assert read.resource[0].text.startswith('{"item": "7"')
    prompt = site.stub.GetPrompt(proto.GetPromptRequest(name="greet", arguments={"name": "Ada"}), **at(server))
    assert prompt.messages[0].text.text == "Say hello to Ada."
    asked = proto.CompletionRequest(argument=proto.CompletionRequest.Argument(name="name", value="A"))
    asked.prompt_reference.name = "greet"
    assert list(site.stub.Complete(asked, **at(server)).values) == ["Ada", "Alan"]


@pytest.mark.parametrize("server", SERVERS)
def test_what_a_call_asks_its_client_is_answered_by_a_retry(server: str, site: Site) -> None:
    assert answered(site, server, "elicit") == "accept: Hello, Ada!"
    assert answered(site, server, "sample", prompt="life").endswith("about life")
    assert answered(site, server, "roots") == "file:///Ada"


@pytest.mark.parametrize("server", SERVERS)
def test_a_call_that_is_cancelled_is_cancelled_at_its_server(server: str, site: Site) -> None:
    tag = f"grpc-{server}-{id(site)}"
    running = site.stub.CallTool.future(call("slow", {"seconds": 60, "tag": tag}), **at(server))
    wait_until(lambda: tag in site.tags(server, "started"), 30, "the call has begun")
    running.cancel()
    wait_until(lambda: tag in site.tags(server, "cancelled"), 30, "the call is cancelled")


def test_a_server_of_the_proto_is_reached_by_a_client_of_it(site: Site) -> None:
    assert [tool.name for tool in site.stub.ListTools(proto.ListToolsRequest(), **at("own")).tools] == list(TOOLS)
    assert answered(site, "own", "echo", text="é") == "é"
    assert answered(site, "own", "ask") == "kept: Ada"
    read = site.stub.ReadResource(proto.ReadResourceRequest(uri="note://one"), **at("own"))
    assert read.resource[0].blob == b"\x00\xff"
    with pytest.raises(grpc.RpcError) as raised:
        site.stub.CallTool(call("fail", {}), **at("own"))
    assert (raised.value.code(), raised.value.details()) == (grpc.StatusCode.INVALID_ARGUMENT, "no such thing")
