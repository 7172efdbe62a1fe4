"""A real server of MCP's gRPC proto, by the stubs of its package."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import msgspec
import pytest

from mcp_gateway.config.backend_settings import BackendSettings
from mcp_gateway.transports.ports.failure import Fate
from mcp_gateway.transports.ports.request_kind import RequestKind
from mcp_gateway.transports.ports.strategies import ReplicaTarget
from mcp_gateway.transports.ports.upstream_port import (
    CredentialRefused,
    ShowToken,
    UpstreamAnswer,
    UpstreamError,
    UpstreamRequest,
    ignore_events,
)
from mcp_gateway.transports.protocol.grpc.methods import SERVICE
from mcp_gateway.transports.protocol.mcp.jsonrpc import Notification, Request
from mcp_gateway.transports.protocol.mcp.revisions import NEWEST
from mcp_gateway.transports.upstream.grpc.mcp_conversation import McpOverGrpc
from tests.doubles.grpc_guard import WantsToken
from tests.doubles.grpc_mcp_server import TOOLS, GrpcMcpServer, grpc_mcp_server
from tests.doubles.ports import free_port


@pytest.fixture(scope="module")
def server() -> Iterator[GrpcMcpServer]:
    with grpc_mcp_server() as running:
        yield running


Use = Callable[[McpOverGrpc], Awaitable[Any]]


def with_wire(address: str, use: Use, most_bytes: int = 1_000_000, show: ShowToken | None = None, **fields: Any) -> Any:
    async def scene() -> Any:
        backend = BackendSettings(name="it", replicas=[f"grpc://{address}"], **fields)
        wire = McpOverGrpc(ReplicaTarget(backend, 0, most_bytes), show)
        try:
            return await asyncio.wait_for(use(wire), 30)
        finally:
            await wire.close()

    return asyncio.run(scene())


def request(method: str, params: dict[str, Any] | None = None, timeout_s: float | None = 20.0, **fields: Any) -> UpstreamRequest:
    message = Request(b"1", method, msgspec.json.encode(params or {}))
    return UpstreamRequest(kind=RequestKind.of(message), message=message, revision=NEWEST, timeout_s=timeout_s, **fields)


def asked(server: GrpcMcpServer, method: str, params: dict[str, Any] | None = None, **how: Any) -> Any:
    """The result, or the error."""
    fields = {name: how.pop(name) for name in ("headers", "most_bytes") if name in how}

    async def use(wire: McpOverGrpc) -> UpstreamAnswer:
        return await wire.exchange(request(method, params, **how), ignore_events)

    answer = with_wire(server.address, use, **fields)
    return msgspec.json.decode(answer.response.result or answer.response.error)


def test_what_it_can_do_is_told_by_its_lists(server: GrpcMcpServer) -> None:
    discovered = asked(server, "server/discover")
    assert discovered["capabilities"] == {"tools": {}, "resources": {}, "prompts": {}, "completions": {}}
    assert (discovered["supportedVersions"], discovered["instructions"]) == ([NEWEST], "Be kind.")


def test_a_list_that_is_not_there_is_no_capability() -> None:
    with grpc_mcp_server(GrpcMcpServer(has_prompts=False)) as server:
        assert "prompts" not in asked(server, "server/discover")["capabilities"]
        assert asked(server, "prompts/list")["code"] == -32601
        assert asked(server, "resources/templates/list")["code"] == -32601


def test_lists_calls_reads_prompts_and_completions_cross(server: GrpcMcpServer) -> None:
    assert [tool["name"] for tool in asked(server, "tools/list")["tools"]] == list(TOOLS)
    said = asked(server, "tools/call", {"name": "echo", "arguments": {"text": "é"}})
    assert said == {"content": [{"type": "text", "text": "é"}], "resultType": "complete"}
    read = asked(server, "resources/read", {"uri": "note://one"})
    assert read["contents"] == [{"uri": "note://one", "mimeType": "image/png", "blob": "AP8="}]
    got = asked(server, "prompts/get", {"name": "greet", "arguments": {"who": "Ada"}})
    assert got["messages"] == [{"role": "user", "content": {"type": "text", "text": "Greet Ada."}}]
    completing = {"ref": {"type": "ref/prompt", "name": "greet"}, "argument": {"name": "who", "value": "x"}}
    assert asked(server, "completion/complete", completing)["completion"] == {"values": ["xa", "xb"], "total": 2}


def test_a_call_that_asks_is_answered_by_its_retry(server: GrpcMcpServer) -> None:
    first = asked(server, "tools/call", {"name": "ask", "arguments": {}})
    assert first["inputRequests"]["who"]["method"] == "elicitation/create"
    answers = {"who": {"action": "accept", "content": {"name": "Ada"}}}
    retry = {"name": "ask", "requestState": first["requestState"], "inputResponses": answers}
    assert asked(server, "tools/call", retry)["content"] == [{"type": "text", "text": "kept: Ada"}]


def test_headers_and_what_is_asked_for_travel_as_metadata(server: GrpcMcpServer) -> None:
    asked(server, "tools/call", {"name": "echo"}, headers={"Authorization": "Bearer k"})
    assert (server.metadata[-1]["authorization"], server.metadata[-1]["mcp_tool"]) == ("Bearer k", "echo")
    asked(server, "tools/call", {"name": "naïve"})
    assert "mcp_tool" not in server.metadata[-1], "metadata is ASCII"


@pytest.mark.parametrize(
    ("method", "params", "code"),
    [
        ("tools/call", {"name": "fail"}, -32602),
        ("resources/read", {"uri": "note://two"}, -32602),
        ("tools/list", {"cursor": "2"}, -32602),
        ("tools/call", {"name": "echo", "arguments": {"n": 2**60}}, -32602),
        ("tasks/get", {}, -32601),
    ],
)
def test_errors_of_the_server_and_what_cannot_cross_are_errors_of_the_request(
    server: GrpcMcpServer, method: str, params: dict[str, Any], code: int
) -> None:
    error = asked(server, method, params)
    assert error["code"] == code
    assert error["message"]


def failure(server: GrpcMcpServer, name: str, **how: Any) -> UpstreamError:
    with pytest.raises(UpstreamError) as raised:
        asked(server, "tools/call", {"name": name}, **how)
    return raised.value


def test_an_answer_as_large_as_allowed_is_read_and_a_larger_one_is_not(server: GrpcMcpServer) -> None:
    assert asked(server, "tools/call", {"name": "huge"}, most_bytes=3_100_000)["content"]
    refused = failure(server, "huge")
    assert (refused.fate, str(refused)) == (Fate.BROKEN, "the answer is larger than 1000000 bytes")


def test_an_answer_of_very_many_values_is_not_unfolded(server: GrpcMcpServer) -> None:
    assert failure(server, "crowd").fate is Fate.BROKEN


def test_secrets_that_a_server_repeats_are_not_shown(server: GrpcMcpServer) -> None:
    refused = failure(server, "secret", headers={"Authorization": "Bearer s3cr3t-t0ken"})
    assert refused.fate is Fate.BROKEN
    assert b"s3cr3t" not in refused.failure.error
    assert "s3cr3t" not in str(refused)


def test_a_call_that_takes_too_long_is_cancelled_at_the_server() -> None:
    with grpc_mcp_server() as server:
        assert failure(server, "stuck", timeout_s=0.5).fate is Fate.TIMED_OUT
        assert server.cancelled.wait(20)


def test_a_call_whose_client_has_gone_is_cancelled_at_the_server() -> None:
    with grpc_mcp_server() as server:

        async def use(wire: McpOverGrpc) -> bool:
            task = asyncio.create_task(wire.exchange(request("tools/call", {"name": "stuck"}), ignore_events))
            while not any("mcp_tool" in each for each in server.metadata):
                await asyncio.sleep(0.01)
            task.cancel()
            return await asyncio.to_thread(server.cancelled.wait, 20)

        assert with_wire(server.address, use)


def test_a_server_that_goes_in_the_middle_of_a_call_leaves_it_cut() -> None:
    with grpc_mcp_server() as server:

        async def use(wire: McpOverGrpc) -> UpstreamError:
            task = asyncio.create_task(wire.exchange(request("tools/call", {"name": "stuck"}), ignore_events))
            while not any("mcp_tool" in each for each in server.metadata):
                await asyncio.sleep(0.01)
            server.server.stop(0)
            with pytest.raises(UpstreamError) as raised:
                await task
            return raised.value

        assert with_wire(server.address, use).fate is Fate.CUT


def test_a_call_that_its_server_ends_is_cut(server: GrpcMcpServer) -> None:
    assert failure(server, "cancel").fate is Fate.CUT


def test_a_wire_that_is_closed_cancels_nobody_who_waits_for_it() -> None:
    """gRPC raises in its calls what asyncio raises in a task that is cancelled."""
    with grpc_mcp_server() as server:

        async def use(wire: McpOverGrpc) -> UpstreamError:
            task = asyncio.create_task(wire.exchange(request("tools/call", {"name": "stuck"}), ignore_events))
            while not any("mcp_tool" in each for each in server.metadata):
                await asyncio.sleep(0.01)
            await wire.close()
            with pytest.raises(UpstreamError) as raised:
                await task
            return raised.value

        assert with_wire(server.address, use).fate is Fate.CUT


def test_nobody_there_was_not_sent_anything() -> None:
    nobody = GrpcMcpServer(address=f"127.0.0.1:{free_port()}")
    assert failure(nobody, "echo").fate is Fate.UNREACHABLE


@pytest.mark.parametrize(("health", "is_well"), [(None, True), (b"\x08\x01", True), (b"\x08\x02", False), (b"", False)])
def test_a_probe_asks_for_its_health_where_there_is_such_a_service(health: bytes | None, is_well: bool) -> None:
    """Source: gRPC, "GRPC Health Checking Protocol"."""
    with grpc_mcp_server(GrpcMcpServer(health=health)) as server:

        async def use(wire: McpOverGrpc) -> bool:
            try:
                await wire.probe(10.0)
            except UpstreamError as error:
                assert error.fate is Fate.BROKEN
                return False
            return True

        assert with_wire(server.address, use) is is_well


def test_a_server_without_a_word_of_its_own_has_no_stream_and_takes_notifications() -> None:
    nobody = GrpcMcpServer(address=f"127.0.0.1:{free_port()}")

    async def use(wire: McpOverGrpc) -> list[Any]:
        told = UpstreamRequest(kind=RequestKind.MESSAGE, message=Notification("notifications/x", b""), revision=NEWEST)
        stream = UpstreamRequest(kind=RequestKind.STREAM, revision=NEWEST)
        end = UpstreamRequest(kind=RequestKind.TERMINATE, revision=NEWEST)
        with pytest.raises(UpstreamError, match="nothing on its own"):
            await wire.exchange(stream, ignore_events)
        return [(await wire.exchange(each, ignore_events)).status for each in (told, end)]

    assert with_wire(nobody.address, use) == [202, 200]


def test_a_server_that_answers_without_end_is_given_up_in_time() -> None:
    """The proto has one answer to a call; what comes behind it waits in the window of HTTP/2, and is not read."""
    sent: list[int] = []

    def endless(data: bytes, context: grpc.ServicerContext) -> Iterator[bytes]:
        while context.is_active() and len(sent) < 10_000:
            sent.append(len(data))
            yield b"\x20\x01" * 50_000

    handler = grpc.unary_stream_rpc_method_handler(endless)
    service = grpc.method_handlers_generic_handler(SERVICE, {"CallTool": handler})
    server = grpc.server(ThreadPoolExecutor(2), handlers=[service])
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        refused = failure(GrpcMcpServer(address=f"127.0.0.1:{port}"), "echo", timeout_s=1.0)
    finally:
        server.stop(0.1).wait(10)
    assert refused.fate in (Fate.TIMED_OUT, Fate.BROKEN)
    assert len(sent) < 1_000, "100 MB would have been read"


async def shows_growing(ask: Callable[[Mapping[str, str]], Awaitable[Any]]) -> Any:
    """In place of a source of tokens: t1, and t2 where that is refused."""
    try:
        return await ask({"authorization": "Bearer t1"})
    except CredentialRefused as refused:
        assert (refused.status, refused.headers["www-authenticate"]) == (401, 'Bearer error="invalid_token"')
        return await ask({"authorization": "Bearer t2"})


def test_a_token_that_the_server_refuses_is_shown_no_more_and_a_fresh_one_is() -> None:
    wants = WantsToken(lambda token: token == "t2")
    with grpc_mcp_server(interceptors=[wants]) as server:

        async def use(wire: McpOverGrpc) -> UpstreamAnswer:
            await wire.probe(10.0)
            assert wants.seen == [""], "nobody in particular asks for its health"
            return await wire.exchange(request("tools/list"), ignore_events)

        answer = with_wire(server.address, use, show=shows_growing)
    assert len(msgspec.json.decode(answer.response.result)["tools"]) == len(TOOLS)
    assert wants.seen[1:] == ["Bearer t1", "Bearer t2"]


def test_a_server_that_wants_to_know_a_gateway_which_shows_nothing_is_not_well() -> None:
    with grpc_mcp_server(interceptors=[WantsToken(lambda token: False)]) as server:

        async def use(wire: McpOverGrpc) -> UpstreamError:
            with pytest.raises(UpstreamError) as raised:
                await wire.probe(10.0)
            return raised.value

        assert with_wire(server.address, use).fate is Fate.UNAUTHORIZED
