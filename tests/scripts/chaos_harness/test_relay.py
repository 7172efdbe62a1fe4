"""A link that carries bytes, keeps them while it is cut, takes its time where it is slow, and finds a target that is there."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from mcp_gateway.scripts.chaos_harness.relay import Relay
from tests.doubles.patience import on_loop
from tests.doubles.ports import free_port


@asynccontextmanager
async def echo_server(greeting: bytes = b"") -> AsyncIterator[int]:
    """Its port."""

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(greeting)
        while data := await reader.read(1000):
            writer.write(data)
        writer.close()

    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    yield server.sockets[0].getsockname()[1]
    server.close()


@asynccontextmanager
async def relay_to(*targets: int) -> AsyncIterator[Relay]:
    relay = Relay([("127.0.0.1", port) for port in targets])
    await relay.start()
    yield relay
    relay.close()


async def open_at(relay: Relay) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    return await asyncio.open_connection("127.0.0.1", relay.port)


def test_what_is_sent_while_the_link_is_cut_comes_when_it_is_whole_and_nobody_is_told_between() -> None:
    async def test() -> None:
        async with echo_server() as port, relay_to(port) as relay:
            reader, writer = await open_at(relay)
            writer.write(b"one")
            assert await reader.readexactly(3) == b"one"
            relay.is_cut = True
            writer.write(b"two")
            late_reader, late_writer = await open_at(relay)
            late_writer.write(b"new")
            answers = [asyncio.ensure_future(each.readexactly(3)) for each in (reader, late_reader)]
            done, _ = await asyncio.wait(answers, timeout=0.2)
            assert not done
            relay.is_cut = False
            assert await asyncio.gather(*answers) == [b"two", b"new"]

    on_loop(test)


def test_a_slow_link_takes_its_time_each_way() -> None:
    async def test() -> None:
        async with echo_server() as port, relay_to(port) as relay:
            reader, writer = await open_at(relay)
            relay.delay_s = 0.1
            began_s = time.monotonic()
            writer.write(b"one")
            assert await reader.readexactly(3) == b"one"
            assert time.monotonic() - began_s >= 0.2

    on_loop(test)


def test_connections_go_to_the_targets_in_turn_and_past_one_that_is_not_there() -> None:
    async def test() -> None:
        async with echo_server(b"a") as one, echo_server(b"b") as other, relay_to(one, free_port(), other) as relay:
            connections = [await open_at(relay) for _ in range(6)]
            greetings = [await reader.readexactly(1) for reader, _ in connections]
            assert sorted(greetings)[0] == b"a"
            assert sorted(greetings)[-1] == b"b"

    on_loop(test)


def test_where_no_target_is_there_and_when_one_ends_the_connection_ends() -> None:
    async def test() -> None:
        async with relay_to(free_port()) as relay:
            reader, _writer = await open_at(relay)
            assert await reader.read() == b""

        async def close_at_once(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.close()

        server = await asyncio.start_server(close_at_once, "127.0.0.1", 0)
        async with relay_to(server.sockets[0].getsockname()[1]) as relay:
            reader, _writer = await open_at(relay)
            assert await reader.read() == b""
        server.close()

    on_loop(test)
