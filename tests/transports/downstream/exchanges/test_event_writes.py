"""Events on their way to a client: together where they come together, never later than they must, each told of once."""

from __future__ import annotations

import asyncio

from hypothesis import given
from hypothesis import strategies as st

from mcp_gateway.transports.downstream.exchanges.event_writes import EventWrites


class Socket:
    """Takes what is written at once, unless it is full: then once it `drains`."""

    def __init__(self) -> None:
        self.is_full = False
        self.is_gone = False
        self.writes: list[bytes] = []
        self._waiting: list[asyncio.Future[None]] = []

    def write(self, data: bytes) -> asyncio.Future[None]:
        self.writes.append(data)
        written = asyncio.get_running_loop().create_future()
        if self.is_gone:
            written.set_exception(ConnectionResetError())
        elif self.is_full:
            self._waiting.append(written)
        else:
            written.set_result(None)
        return written

    def drain(self) -> None:
        self.is_full = False
        for written in self._waiting:
            written.set_result(None)
        self._waiting.clear()


async def turn() -> None:
    for _ in range(3):
        await asyncio.sleep(0)


def test_an_event_is_written_at_once_and_what_comes_in_the_same_turn_of_the_loop_together_in_the_next() -> None:
    async def body() -> None:
        socket, taken = Socket(), list[int]()
        events = EventWrites(socket.write, taken.append)
        events.add(b"1")
        assert socket.writes == [b"1"]
        events.add(b"2")
        events.add(b"3")
        await turn()
        assert socket.writes == [b"1", b"23"]
        assert taken == [1, 2]
        events.add(b"4")
        assert socket.writes == [b"1", b"23", b"4"]

    asyncio.run(body())


def test_nothing_is_held_back_from_a_full_socket_whose_buffer_is_bounded_elsewhere() -> None:
    async def body() -> None:
        socket, taken = Socket(), list[int]()
        events = EventWrites(socket.write, taken.append)
        socket.is_full = True
        for event in (b"1", b"2", b"3"):
            events.add(event)
        await turn()
        assert (socket.writes, taken) == ([b"1", b"2", b"3"], [])
        socket.drain()
        await turn()
        assert sum(taken) == 3

    asyncio.run(body())


def test_a_stream_that_ends_writes_what_is_held_first() -> None:
    async def body() -> None:
        socket = Socket()
        events = EventWrites(socket.write, lambda _: None)
        events.add(b"1")
        events.add(b"2")
        events.finish()
        assert socket.writes == [b"1", b"2"]
        await turn()
        assert socket.writes == [b"1", b"2"]

    asyncio.run(body())


def test_events_for_a_client_that_has_gone_are_told_of_to_nobody() -> None:
    async def body() -> None:
        socket, taken = Socket(), list[int]()
        events = EventWrites(socket.write, taken.append)
        socket.is_gone = True
        events.add(b"1")
        events.add(b"2")
        events.finish()
        await turn()
        assert taken == []

    asyncio.run(body())


@given(steps=st.lists(st.sampled_from(["event", "turn", "fill", "drain"]), max_size=60))
def test_whatever_the_socket_does_each_event_is_written_once_in_order_and_told_of_once(steps: list[str]) -> None:
    async def body() -> None:
        socket, taken, added = Socket(), list[int](), 0
        events = EventWrites(socket.write, taken.append)
        for step in steps:
            if step == "event":
                events.add(b"%d," % added)
                added += 1
            elif step == "turn":
                await turn()
            elif step == "fill":
                socket.is_full = True
            else:
                socket.drain()
        socket.drain()
        await turn()
        await turn()
        assert b"".join(socket.writes) == b"".join(b"%d," % number for number in range(added))
        assert sum(taken) == added

    asyncio.run(body())
