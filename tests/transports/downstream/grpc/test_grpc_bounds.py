"""How much of a cell clients may take over gRPC: memory, time, connections, the event loop."""

from __future__ import annotations

import asyncio
import struct
import threading
import time
from contextlib import suppress
from typing import Any

import pytest
from mcp_grpc_transport_proto import mcp_messages_pb2 as proto

from mcp_gateway.config.settings import GatewaySettings
from mcp_gateway.transports.downstream.grpc import grpc_listener
from mcp_gateway.transports.downstream.grpc.grpc_call import Outcome, params_of
from mcp_gateway.transports.downstream.grpc.grpc_listener import MOST_PAGES, Caller, GrpcListener
from mcp_gateway.transports.downstream.server.buffered_bytes import OUT, BufferedBytes
from mcp_gateway.transports.downstream.server.client_connection import Peer
from mcp_gateway.transports.ports.large_work import LargeWork
from mcp_gateway.transports.protocol.grpc.methods import METHODS
from mcp_gateway.transports.protocol.mcp.refusals import Refused
from tests.doubles.grpc_cell import LONG_S, call, client, refused, run, serving
from tests.doubles.patience import until
from tests.doubles.raw_grpc_client import DATA, SETTINGS, begun_call_bytes, call_bytes, frame, head_bytes, prefix


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


def test_as_many_connections_are_open_as_allowed_and_one_more_is_closed() -> None:
    async def scene() -> None:
        async with serving(grpc={"max_connections": 3}) as (cell, _):
            port = cell.settings.grpc.port
            held = [await asyncio.open_connection("127.0.0.1", port) for _ in range(3)]
            for reader, _ in held:
                assert await asyncio.wait_for(reader.read(9), LONG_S), "its settings: the server talks to it"
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            with suppress(ConnectionError):
                assert await asyncio.wait_for(reader.read(9), LONG_S) == b""
            for _, each in (*held, (reader, writer)):
                each.close()

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
            async with asyncio.timeout(LONG_S):
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
            async with asyncio.timeout(LONG_S):
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
        caller = Caller(Peer("127.0.0.1", "127.0.0.1", lambda: None), "127.0.0.1", held, time.monotonic() + LONG_S)
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
