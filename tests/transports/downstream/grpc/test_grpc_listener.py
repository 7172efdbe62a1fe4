"""The gRPC listener of a whole cell, and clients by the stubs of the proto's package."""

from __future__ import annotations

import asyncio
import hashlib
import struct
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import grpc
import msgspec
import pytest
from mcp_grpc_transport_proto import mcp_messages_pb2 as proto
from mcp_grpc_transport_proto.mcp_pb2_grpc import McpStub

from mcp_gateway.config.settings import GatewaySettings
from mcp_gateway.transports.downstream.grpc import grpc_listener
from mcp_gateway.transports.downstream.grpc.grpc_call import Outcome, params_of
from mcp_gateway.transports.downstream.grpc.grpc_listener import MOST_PAGES, Caller, GrpcListener
from mcp_gateway.transports.downstream.server.buffered_bytes import OUT, BufferedBytes
from mcp_gateway.transports.downstream.server.client_connection import Peer
from mcp_gateway.transports.ports.large_work import LargeWork
from mcp_gateway.transports.protocol.grpc.methods import METHODS, RPCS
from mcp_gateway.transports.protocol.mcp.refusals import Refused
from tests.doubles.certificates import Authority
from tests.doubles.ports import free_port
from tests.doubles.raw_grpc_client import DATA, SETTINGS, begun_call_bytes, call_bytes, frame, head_bytes, prefix
from tests.doubles.running_cell import DEMO, RunningCell, cell_settings, running_cell

KEY = "ci-0123456789abcdef"
_LONG_S = 30.0


@asynccontextmanager
async def serving(**tables: Any) -> AsyncIterator[tuple[RunningCell, str]]:
    """(the cell, where it listens for gRPC)"""
    tables["grpc"] = {"port": free_port(), **tables.get("grpc", {})}
    settings = cell_settings(tables.pop("backends", (DEMO,)), **tables)
    async with running_cell(settings) as cell:
        yield cell, f"localhost:{settings.grpc.port}"


@asynccontextmanager
async def client(address: str, credentials: grpc.ChannelCredentials | None = None) -> AsyncIterator[Any]:
    options = [("grpc.max_receive_message_length", -1), ("grpc.use_local_subchannel_pool", 1)]
    opened = grpc.aio.insecure_channel(address, options)
    if credentials is not None:
        opened = grpc.aio.secure_channel(address, credentials, options)
    async with opened as channel:
        yield McpStub(channel)


def run(scene: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(asyncio.wait_for(scene(), 60))


def call(name: str, **arguments: Any) -> Any:
    asked = proto.CallToolRequest.Request(name=name)
    asked.arguments.update(arguments)
    return proto.CallToolRequest(request=asked)


async def refused(answer: Awaitable[Any]) -> tuple[str, str]:
    """(status, reason of the contract or "")"""
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await answer
    trailers = dict(raised.value.trailing_metadata() or ())
    data = msgspec.json.decode(trailers.get("mcp-error-data-bin", b"{}"))
    return raised.value.code().name, data.get("reason", "")


async def until(is_so: Callable[[], bool]) -> None:
    async with asyncio.timeout(_LONG_S):
        while not is_so():
            await asyncio.sleep(0.01)


def test_lists_calls_reads_and_prompts_are_served() -> None:
    async def scene() -> None:
        async with serving() as (_, address), client(address) as stub:
            assert [tool.name for tool in (await stub.ListTools(proto.ListToolsRequest())).tools] == [
                "echo",
                "time",
                "slow",
                "fail",
            ]
            said = await stub.CallTool(call("echo", message="é"))
            assert (said.content[0].text.text, said.structured_content["message"]) == ("é", "é")
            assert (await stub.CallTool(call("fail"))).is_error
            resource = (await stub.ListResources(proto.ListResourcesRequest())).resources[0]
            read = await stub.ReadResource(proto.ReadResourceRequest(uri=resource.uri))
            assert read.resource[0].text
            prompt = (await stub.ListPrompts(proto.ListPromptsRequest())).prompts[0]
            assert (await stub.GetPrompt(proto.GetPromptRequest(name=prompt.name, arguments={"name": "Ada"}))).messages
            templates = await stub.ListResourceTemplates(proto.ListResourceTemplatesRequest())
            assert [template.name for template in templates.resource_templates] == ["echo"]

    run(scene)


def test_what_is_wrong_with_a_call_is_told_by_status_code_and_reason() -> None:
    async def scene() -> None:
        async with serving() as (_, address), client(address) as stub:
            assert await refused(stub.CallTool(call("nothing"))) == ("INVALID_ARGUMENT", "")
            assert await refused(stub.CallTool(call("echo"), metadata=(("mcp_tool", "time"),))) == (
                "INVALID_ARGUMENT",
                "header_mismatch",
            )
            assert await refused(stub.CallTool(call("echo"), metadata=(("mcp-server", "nobody"),))) == (
                "UNAVAILABLE",
                "no_backend",
            )
            assert await refused(stub.CallTool(call("echo"), metadata=(("origin", "https://evil.example"),))) == (
                "PERMISSION_DENIED",
                "origin_forbidden",
            )

    run(scene)


def test_metadata_names_one_server_whose_tools_have_no_prefix() -> None:
    async def scene() -> None:
        backends = [{"name": name, "builtin": "demo"} for name in ("one", "two")]
        async with serving(backends=backends) as (_, address), client(address) as stub:
            named = await stub.ListTools(proto.ListToolsRequest(), metadata=(("mcp-server", "one"),))
            assert [tool.name for tool in named.tools] == ["echo", "time", "slow", "fail"]
            assert "one__echo" in [tool.name for tool in (await stub.ListTools(proto.ListToolsRequest())).tools]

    run(scene)


@pytest.mark.parametrize("timeout_s", [None, 1.0])
def test_a_client_that_goes_or_waits_no_longer_ends_its_call(timeout_s: float | None) -> None:
    async def scene() -> None:
        async with serving() as (cell, address), client(address) as stub:
            waiting = cell.cell._port.waiting
            answer = stub.CallTool(call("slow", seconds=50), timeout=timeout_s)
            asking = asyncio.ensure_future(answer.code())
            await until(lambda: bool(waiting))
            if timeout_s is None:
                answer.cancel()
            await until(lambda: not waiting)
            assert await asking in (grpc.StatusCode.CANCELLED, grpc.StatusCode.DEADLINE_EXCEEDED)
            assert cell.cell.server.connection_counts()["grpc"] == 0
            assert cell.cell.server.buffered.budget.held == 0

    run(scene)


def test_a_message_as_large_as_allowed_is_served_and_a_larger_one_is_not() -> None:
    async def scene() -> None:
        async with serving(gateway={"max_message_bytes": 20_000}) as (_, address), client(address) as stub:
            assert (await stub.CallTool(call("echo", message="x" * 19_000))).content
            assert (await refused(stub.CallTool(call("echo", message="x" * 20_000))))[0] == "RESOURCE_EXHAUSTED"

    run(scene)


def test_a_message_that_is_larger_as_json_is_refused_like_one_over_http() -> None:
    async def scene() -> None:
        async with serving(gateway={"max_message_bytes": 20_000}) as (_, address), client(address) as stub:
            assert await refused(stub.CallTool(call("echo", message="\x01" * 19_000))) == ("RESOURCE_EXHAUSTED", "too_large")

    run(scene)


def auth_table() -> dict[str, Any]:
    return {"api_keys": [{"name": "ci", "hash": f"sha256:{hashlib.sha256(KEY.encode()).hexdigest()}"}]}


def test_clients_show_who_they_are_in_metadata() -> None:
    async def scene() -> None:
        policies = [{"effect": "allow", "subjects": ["ci"], "tools": ["echo"]}]
        async with serving(auth=auth_table(), policies=policies) as (_, address), client(address) as stub:
            assert await refused(stub.ListTools(proto.ListToolsRequest())) == ("UNAUTHENTICATED", "unauthorized")
            wrong = (("authorization", "Bearer wrong"),)
            assert await refused(stub.CallTool(call("echo"), metadata=wrong)) == ("UNAUTHENTICATED", "unauthorized")
            own = (("authorization", f"Bearer {KEY}"),)
            assert [tool.name for tool in (await stub.ListTools(proto.ListToolsRequest(), metadata=own)).tools] == ["echo"]
            assert (await stub.CallTool(call("echo", message="m"), metadata=own)).content
            assert (await refused(stub.CallTool(call("time"), metadata=own)))[0] in ("PERMISSION_DENIED", "INVALID_ARGUMENT")

    run(scene)


def test_as_many_calls_run_at_once_as_one_address_may_have_and_no_more() -> None:
    async def scene() -> None:
        limits: dict[str, Any] = {"gateway": {"max_share_per_address": 0.5}, "grpc": {"max_connections": 8}}
        async with serving(**limits) as (cell, address), client(address) as stub:
            running = [stub.CallTool(call("slow", seconds=50)) for _ in range(4)]
            await until(lambda: cell.cell.server.connection_counts().get("grpc") == 4)
            assert await refused(stub.CallTool(call("echo"))) == ("UNAVAILABLE", "too_many_connections")
            for each in running:
                each.cancel()
            await until(lambda: cell.cell.server.connection_counts()["grpc"] == 0)
            assert (await stub.CallTool(call("echo", message="m"))).content

    run(scene)


def test_more_requests_than_the_rate_are_refused() -> None:
    async def scene() -> None:
        async with serving(limits={"requests_per_second": 0.001, "burst": 1}) as (_, address), client(address) as stub:
            await stub.CallTool(call("echo", message="m"))
            assert await refused(stub.CallTool(call("echo"))) == ("RESOURCE_EXHAUSTED", "rate_limited")

    run(scene)


def test_as_many_connections_are_open_as_allowed_and_one_more_is_closed() -> None:
    async def scene() -> None:
        async with serving(grpc={"max_connections": 3}) as (cell, _):
            port = cell.settings.grpc.port
            held = [await asyncio.open_connection("127.0.0.1", port) for _ in range(3)]
            for reader, _ in held:
                assert await asyncio.wait_for(reader.read(9), _LONG_S), "its settings: the server talks to it"
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            with suppress(ConnectionError):
                assert await asyncio.wait_for(reader.read(9), _LONG_S) == b""
            for _, each in (*held, (reader, writer)):
                each.close()

    run(scene)


@pytest.mark.parametrize(
    "data", [b"GET /mcp HTTP/1.1\r\n\r\n", b"\xff" * 5_000, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\xff" * 200]
)
def test_bytes_that_are_no_grpc_end_their_connection_and_nothing_else(data: bytes) -> None:
    async def scene() -> None:
        async with serving() as (cell, address), client(address) as stub:
            reader, writer = await asyncio.open_connection("127.0.0.1", cell.settings.grpc.port)
            writer.write(data)
            with suppress(ConnectionError):
                while await asyncio.wait_for(reader.read(1_000), _LONG_S):
                    pass
            writer.close()
            assert (await stub.CallTool(call("echo", message="m"))).content

    run(scene)


def test_messages_that_are_no_messages_are_refused_each() -> None:
    async def scene() -> None:
        async with serving() as (_, address), grpc.aio.insecure_channel(address) as channel:
            for path in RPCS:
                with pytest.raises(grpc.aio.AioRpcError) as raised:
                    await channel.unary_unary(path)(b"\xff\xff\xff")
                assert raised.value.code() is grpc.StatusCode.INVALID_ARGUMENT
            with pytest.raises(grpc.aio.AioRpcError) as raised:
                await channel.unary_unary("/model_context_protocol.Mcp/Made")(b"")
            assert raised.value.code() is grpc.StatusCode.UNIMPLEMENTED

    run(scene)


def test_a_client_that_does_not_read_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grpc_listener, "due_s", lambda began_s, byte_count: 0.5)

    async def scene() -> None:
        async with serving() as (cell, _):
            _, writer = await asyncio.open_connection("127.0.0.1", cell.settings.grpc.port)
            # Within the window of a request; the answer has the message twice, and is beyond that of an answer.
            writer.write(call_bytes(METHODS["tools/call"].path, call("echo", message="x" * 50_000).SerializeToString()))
            await until(lambda: cell.cell.server.buffered.held["out"] > 0)
            await until(lambda: cell.cell.server.buffered.held["out"] == 0)
            writer.close()

    run(scene)


def half_sent(call_count: int) -> bytes:
    """A connection on which so many messages are begun and left."""
    path = METHODS["tools/call"].path
    later = b"".join(head_bytes(path, 1 + 2 * number) for number in range(1, call_count))
    begun = b"".join(frame(DATA, 0, 1 + 2 * number, prefix(10_000) + b"x" * 100) for number in range(call_count))
    return begun_call_bytes(path) + later + begun


def test_a_message_that_does_not_come_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grpc_listener, "MESSAGE_TIMEOUT_S", 0.5)

    async def scene() -> None:
        async with serving() as (cell, address), client(address) as stub:
            counts = cell.cell.server.connection_counts
            _, writer = await asyncio.open_connection("127.0.0.1", cell.settings.grpc.port)
            writer.write(half_sent(3))
            await until(lambda: counts().get("grpc") == 3)
            await until(lambda: counts()["grpc"] == 0)
            assert (await stub.CallTool(call("echo", message="m"))).content
            writer.close()

    run(scene)


def test_messages_that_do_not_come_keep_no_other_address_from_being_served() -> None:
    async def scene() -> None:
        async with serving() as (cell, address), client(address) as stub:
            counts = cell.cell.server.connection_counts
            _, writer = await asyncio.open_connection("127.0.0.1", cell.settings.grpc.port)
            writer.write(half_sent(16))  # a quarter of 64, the messages of 4 MiB that 256 MiB hold
            await until(lambda: counts().get("grpc") == 16)
            waiting = stub.CallTool(call("echo", message="m"))
            await until(lambda: counts()["grpc"] == 17)
            other, its_writer = await asyncio.open_connection("127.0.0.1", cell.settings.grpc.port, local_addr=("127.0.0.2", 0))
            its_writer.write(call_bytes(METHODS["tools/call"].path, call("echo", message="of another").SerializeToString()))
            async with asyncio.timeout(_LONG_S):
                await other.readuntil(b"of another")
            assert not waiting.done(), "its address has no more turns"
            writer.close()
            assert (await waiting).content
            its_writer.close()

    run(scene)


def test_no_more_than_64_kilobytes_are_taken_before_somebody_reads_them() -> None:
    async def scene() -> None:
        async with serving() as (cell, _):
            reader, writer = await asyncio.open_connection("127.0.0.1", cell.settings.grpc.port)
            writer.write(begun_call_bytes(METHODS["tools/call"].path))
            async with asyncio.timeout(_LONG_S):
                head = await reader.readexactly(9)
                told = await reader.readexactly(int.from_bytes(head[:3]))
            assert head[3] == SETTINGS
            settings = dict(struct.iter_unpack(">HI", told))
            assert settings.get(4, 65_535) == 65_535, "the window of a call, RFC 9113, section 6.5.2"
            writer.close()

    run(scene)


def test_a_list_that_is_not_whole_in_time_is_given_up() -> None:
    async def scene() -> None:
        held = BufferedBytes(GatewaySettings()).of("127.0.0.1", OUT)
        caller = Caller(Peer("127.0.0.1", "127.0.0.1", lambda: None), "127.0.0.1", held, time.monotonic() - 1.0)
        ended = await _Pages(2)._outcome(METHODS["tools/list"], b"", {}, caller)
        assert isinstance(ended, Outcome)
        assert (ended.status, ended.details) == ("DEADLINE_EXCEEDED", "only 1 pages of the list came in time")

    run(scene)


def test_an_answer_that_is_more_than_may_wait_for_a_client_is_refused() -> None:
    async def scene() -> None:
        async with serving(gateway={"max_buffered_bytes": 1_048_576}) as (cell, address):
            almost_all = cell.cell.server.buffered.budget.largest_share - 200
            assert cell.cell.server.buffered.budget.take("127.0.0.1", almost_all)
            async with client(address) as stub:
                assert await refused(stub.ListTools(proto.ListToolsRequest())) == ("UNAVAILABLE", "too_many_connections")
                cell.cell.server.buffered.budget.give_back("127.0.0.1", almost_all)
                assert (await stub.ListTools(proto.ListToolsRequest())).tools

    run(scene)


def test_its_health_is_told_and_a_gateway_that_drains_takes_no_more() -> None:
    async def scene() -> None:
        async with serving() as (cell, address), grpc.aio.insecure_channel(address) as channel:
            check = channel.unary_unary("/grpc.health.v1.Health/Check")
            assert await check(b"") == b"\x08\x01"
            running = asyncio.ensure_future(McpStub(channel).CallTool(call("slow", seconds=1)))
            await until(lambda: bool(cell.cell._port.waiting))
            await cell.cell.drain(_LONG_S)
            assert (await running).content, "what runs ends well"
            assert (await refused(check(b"")))[0] == "UNAVAILABLE"

    run(scene)


def test_tls_is_that_of_the_gateway_and_a_certificate_that_changes_is_taken(tmp_path: Path) -> None:
    async def scene() -> None:
        for name in "ab":
            (tmp_path / name).mkdir()
        first, second = Authority(tmp_path / "a"), Authority(tmp_path / "b")
        certificate, key = first.certify("server")
        tls = {"certificate": str(certificate), "key": str(key)}
        async with serving(tls=tls) as (_, address):
            async with client(address, grpc.ssl_channel_credentials(first.path.read_bytes())) as stub:
                assert (await stub.CallTool(call("echo", message="m"))).content
            for new, old in zip(second.certify("server"), (certificate, key), strict=True):
                old.write_bytes(new.read_bytes())
            await _until_trusted(address, second)

    async def _until_trusted(address: str, authority: Authority) -> None:
        async with asyncio.timeout(_LONG_S):
            while True:
                async with client(address, grpc.ssl_channel_credentials(authority.path.read_bytes())) as stub:
                    try:
                        assert (await stub.CallTool(call("echo", message="m"))).content
                        return
                    except grpc.aio.AioRpcError:
                        await asyncio.sleep(0.1)

    run(scene)


def test_a_client_without_the_certificate_that_it_must_have_is_not_heard(tmp_path: Path) -> None:
    async def scene() -> None:
        authority = Authority(tmp_path)
        certificate, key = authority.certify("server")
        tls = {"certificate": str(certificate), "key": str(key), "client_ca": str(authority.path), "client_required": True}
        auth = {"client_certificates": True}
        async with serving(tls=tls, auth=auth) as (_, address):
            trusted = authority.path.read_bytes()
            async with client(address, grpc.ssl_channel_credentials(trusted)) as stub:
                assert (await refused(stub.CallTool(call("echo"))))[0] == "UNAVAILABLE"
            own, own_key = (path.read_bytes() for path in authority.certify("ann"))
            async with client(address, grpc.ssl_channel_credentials(trusted, own_key, own)) as stub:
                assert (await stub.CallTool(call("echo", message="m"))).content

    run(scene)


class _Pages(GrpcListener):
    """Whose answers are pages. most: how many."""

    def __init__(self, most: int) -> None:
        self._work = LargeWork()
        self.most = most
        self.cursors: list[Any] = []

    async def _ask(self, method: Any, params: Any, metadata: Any, caller: Any) -> dict[str, Any] | Outcome:
        self.cursors.append(params.get("cursor"))
        number = len(self.cursors)
        page: dict[str, Any] = {"tools": [{"name": f"{number}", "inputSchema": {"type": "object"}}]}
        return {**page, "nextCursor": f"{number}"} if number < self.most else page


def test_all_pages_of_a_list_are_one_answer() -> None:
    async def scene() -> None:
        held = BufferedBytes(GatewaySettings()).of("127.0.0.1", OUT)
        caller = Caller(Peer("127.0.0.1", "127.0.0.1", lambda: None), "127.0.0.1", held, time.monotonic() + _LONG_S)
        listener = _Pages(MOST_PAGES)
        answer = await listener._outcome(METHODS["tools/list"], b"", {}, caller)
        assert isinstance(answer, bytes)
        assert len(proto.ListToolsResponse.FromString(answer).tools) == MOST_PAGES
        assert listener.cursors[:3] == [None, "1", "2"]
        too_many = await _Pages(MOST_PAGES + 1)._outcome(METHODS["tools/list"], b"", {}, caller)
        assert isinstance(too_many, Outcome)
        assert too_many.details == str(Refused("too_large", f"the list has more than {MOST_PAGES} pages"))

    run(scene)


def test_a_refusal_with_a_long_name_in_another_script_comes_whole() -> None:
    async def scene() -> None:
        async with serving() as (_, address), client(address) as stub:
            for _ in range(20):  # above 8 kB a client takes some and not others
                status, _ = await refused(stub.CallTool(call("ж" * 1_900)))
                assert status == "INVALID_ARGUMENT"

    run(scene)


def test_a_large_message_is_translated_beside_the_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    threads: list[int] = []

    def noted(*given: Any) -> dict[str, Any]:
        threads.append(threading.get_ident())
        return params_of(*given)

    monkeypatch.setattr(grpc_listener, "params_of", noted)

    async def scene() -> None:
        async with serving() as (_, address), client(address) as stub:
            for size in (10, 20_000):
                assert (await stub.CallTool(call("echo", message="x" * size))).content

    run(scene)
    small, large = threads
    assert (small == threading.get_ident(), large == threading.get_ident()) == (True, False)
