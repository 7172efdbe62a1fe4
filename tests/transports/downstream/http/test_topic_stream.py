"""Topic streams: what a client reads, where it starts, what it is told of, and what it costs when it does not read."""

from __future__ import annotations

import asyncio
import socket
import struct
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from prometheus_client import REGISTRY

from mcp_gateway.transports.ports.edge_port import TopicFeed
from tests.doubles.patience import patience, until
from tests.doubles.running_cell import MOODS, RunningCell, cell_settings, running_cell
from tests.doubles.topic_reader import TopicReader, read_topic


class Bench:
    """A cell, and clients of its topic streams."""

    def __init__(self, cell: RunningCell) -> None:
        self.cell = cell
        self.port = cell.settings.gateway.port
        self.topics: TopicFeed = cell.cell._port.topics

    async def publish(self, *topics: str, **payload: Any) -> list[int]:
        """Publish, and wait until the cell has them all back in order; their ids."""
        before = self.topics.last_id
        for number, topic in enumerate(topics):
            self.topics.publish(topic, {"n": number, **payload})
        await until(lambda: len(self._since(before, set(topics))) == len(topics))
        return self._since(before, set(topics))

    def _since(self, event_id: int, topics: set[str]) -> list[int]:
        newer = (event for event in self.cell.link.events if event_id < event.id <= self.topics.last_id)
        return [event.id for event in newer if event.topic in topics]

    def connections(self) -> int:
        return self.cell.cell._server.connection_counts().get("http_sse", 0)


def on_cell(body: Callable[[Bench], Awaitable[None]], **http_sse: Any) -> None:
    async def run() -> None:
        async with running_cell(cell_settings(transports={"http_sse": http_sse}), MOODS) as cell, patience():
            await body(Bench(cell))

    asyncio.run(run())


def counted(name: str) -> float:
    return REGISTRY.get_sample_value(f"mcp_gateway_{name}_total", {"transport": "http_sse"}) or 0.0


# ---- what a client reads


def test_an_event_is_told_with_its_topic_payload_time_and_id() -> None:
    async def body(bench: Bench) -> None:
        async with read_topic(bench.port, "client.*") as reader:
            assert (reader.status, reader.headers["content-type"]) == (200, "text/event-stream")
            assert reader.headers["cache-control"] == "no-store"
            assert (await reader.next()).name == "connected"
            (event_id,) = await bench.publish("client.greeting", text="a\nb ü")
            told = await reader.next()
            assert (told.name, told.event_id) == ("vsm_event", str(event_id))
            assert {**told.data, "timestamp": 0} == {
                "event_type": "client.greeting",
                "payload": {"n": 0, "text": "a\nb ü"},
                "timestamp": 0,
            }
            assert abs(told.data["timestamp"] / 1000 - time.time()) < 60

    on_cell(body)


@pytest.mark.parametrize(
    ("topic", "wanted"),
    [
        ("all", ["client.a.x", "client.b", "client.a.y"]),
        ("*", ["client.a.x", "client.b", "client.a.y"]),
        ("client.*", ["client.a.x", "client.b", "client.a.y"]),
        ("client.a.%2a", ["client.a.x", "client.a.y"]),
        ("client.b", ["client.b"]),
    ],
)
def test_a_pattern_chooses_what_is_told(topic: str, wanted: list[str]) -> None:
    async def body(bench: Bench) -> None:
        async with read_topic(bench.port, topic) as reader:
            await bench.publish("client.a.x", "client.b", "client.a.y")
            assert [told.topic for told in await reader.events(len(wanted))] == wanted

    on_cell(body)


def test_a_stream_says_where_it_starts_and_how_soon_to_come_back() -> None:
    """So that an EventSource that is cut off before its first event comes back with a place all the same."""

    async def body(bench: Bench) -> None:
        (last_id,) = await bench.publish("client.a")
        async with read_topic(bench.port, "client.*") as reader:
            told = await reader.next()
            assert (told.name, told.event_id, told.data) == ("connected", str(last_id), {"topic": "client.*"})
        async with read_topic(bench.port, "all", last_event_id=last_id) as reader:
            assert (await reader.next()).event_id is None  # it has its place

    on_cell(body)


def test_heartbeats_come_and_carry_no_id() -> None:
    async def body(bench: Bench) -> None:
        async with read_topic(bench.port, "vsm.nothing") as reader:
            beats = [await reader.next("heartbeat") for _ in range(3)]
            assert {beat.event_id for beat in beats} == {None}

    on_cell(body, heartbeat_interval=0.05)


def test_heartbeats_can_be_switched_off() -> None:
    async def body(bench: Bench) -> None:
        async with read_topic(bench.port, "client.*") as reader:
            await bench.publish("client.a")
            assert [told.name for told in (await reader.next(), await reader.next())] == ["connected", "vsm_event"]

    on_cell(body, heartbeat_interval=0)


def test_a_client_of_http_1_0_reads_the_same_without_chunks() -> None:
    async def body(bench: Bench) -> None:
        async with read_topic(bench.port, "client.*", version="1.0") as reader:
            assert "transfer-encoding" not in reader.headers
            await bench.publish("client.a")
            assert (await reader.events(1))[0].topic == "client.a"

    on_cell(body)


# ---- where it starts


def test_without_a_last_event_it_starts_now() -> None:
    async def body(bench: Bench) -> None:
        await bench.publish("client.before")
        async with read_topic(bench.port, "client.*") as reader:
            await bench.publish("client.after")
            assert (await reader.events(1))[0].topic == "client.after"

    on_cell(body)


@pytest.mark.parametrize("how", ["header", "last_event_id", "lastEventId"])
def test_with_a_last_event_it_goes_on_there(how: str) -> None:
    async def body(bench: Bench) -> None:
        ids = await bench.publish("client.a", "client.b", "client.c")
        query = "" if how == "header" else f"?{how}={ids[0]}"
        async with read_topic(bench.port, f"all{query}", last_event_id=ids[0] if how == "header" else None) as reader:
            assert [told.event_id for told in await reader.events(2)] == [str(ids[1]), str(ids[2])]

    on_cell(body)


def test_the_header_of_a_browser_that_comes_back_counts_more_than_the_query_it_came_with() -> None:
    async def body(bench: Bench) -> None:
        ids = await bench.publish("client.a", "client.b", "client.c")
        async with read_topic(bench.port, "all?last_event_id=0", last_event_id=ids[1]) as reader:
            assert (await reader.events(1))[0].event_id == str(ids[2])

    on_cell(body)


def test_an_empty_last_event_is_none() -> None:
    async def body(bench: Bench) -> None:
        await bench.publish("client.a")
        async with read_topic(bench.port, "all?last_event_id=", last_event_id="") as reader:
            await bench.publish("client.b")
            assert (await reader.events(1))[0].topic == "client.b"

    on_cell(body)


def test_what_the_log_has_dropped_is_a_gap_with_the_missing_range() -> None:
    async def body(bench: Bench) -> None:
        lost = counted("events_lost")
        ids = await bench.publish(*(f"client.n{number}" for number in range(30)))
        async with read_topic(bench.port, "all", last_event_id=ids[2]) as reader:
            await reader.next("connected")
            told = await reader.next()
            first_kept = bench.topics.last_id - 9
            assert (told.name, told.event_id) == ("gap", str(first_kept - 1))
            assert told.data == {"first_id": ids[3], "last_id": first_kept - 1, "count": first_kept - ids[3]}
            assert [event.event_id for event in await reader.events(10)] == [str(first_kept + n) for n in range(10)]
            assert counted("events_lost") - lost == first_kept - ids[3]

    on_cell(body, retention_events=10)


def test_a_last_event_of_the_future_is_waited_for_and_then_this_log_starts_from_its_beginning(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The log of a gateway without a state directory starts anew; its clients come back with ids of the old one."""
    monkeypatch.setattr("mcp_gateway.transports.protocol.topics.topic_cursor.AHEAD_GRACE_S", 0.3)

    async def body(bench: Bench) -> None:
        await bench.publish("client.a")
        async with read_topic(bench.port, "client.*", last_event_id=bench.topics.last_id + 500) as reader:
            assert (await reader.events(1))[0].topic == "client.a"

    on_cell(body)


# ---- what is refused


@pytest.mark.parametrize("topic", ["", "A", "a..b", "a/b", "vsm*", "%00", "%ff%fe", "a%20b", "x" * 300, "..", "%0d%0a"])
def test_what_is_no_topic_is_refused(topic: str) -> None:
    async def body(bench: Bench) -> None:
        async with read_topic(bench.port, topic) as reader:
            assert (reader.status, await reader.reason()) == (400, "invalid_params")
        assert bench.connections() == 0

    on_cell(body)


@pytest.mark.parametrize("last_event_id", ["x", "-1", "1.5", "0x10", "1 2", "9" * 19, "9" * 30, "²", "1,2"])
def test_what_is_no_id_is_refused(last_event_id: str) -> None:
    async def body(bench: Bench) -> None:
        async with read_topic(bench.port, "all", last_event_id=last_event_id) as reader:
            assert (reader.status, await reader.reason()) == (400, "invalid_params")

    on_cell(body)


@pytest.mark.parametrize("method", ["POST", "DELETE", "PUT", "HEAD"])
def test_topics_are_read_and_nothing_else(method: str) -> None:
    async def body(bench: Bench) -> None:
        async with read_topic(bench.port, "all", method=method, Content_Length="0") as reader:
            assert (reader.status, reader.headers["allow"]) == (405, "GET")

    on_cell(body)


def test_pages_of_other_sites_are_refused_and_those_allowed_may_read() -> None:
    async def body(bench: Bench) -> None:
        async with read_topic(bench.port, "all", Origin="https://evil.example") as reader:
            assert (reader.status, await reader.reason()) == (403, "origin_forbidden")
        async with read_topic(bench.port, "all", Origin="http://localhost:3000") as reader:
            assert (reader.status, reader.headers["access-control-allow-origin"]) == (200, "http://localhost:3000")

    on_cell(body)


def test_one_more_than_the_limit_is_refused_until_another_leaves() -> None:
    async def body(bench: Bench) -> None:
        async with AsyncExitStack() as stack:
            readers = [await stack.enter_async_context(read_topic(bench.port, "all")) for _ in range(3)]
            assert [reader.status for reader in readers] == [200, 200, 200]
            async with read_topic(bench.port, "all") as refused:
                assert (refused.status, await refused.reason()) == (503, "too_many_connections")
                assert int(refused.headers["retry-after"]) >= 1
            readers[0].close()
            await until(lambda: bench.connections() == 2)
            async with read_topic(bench.port, "all") as reader:
                assert reader.status == 200
        await until(lambda: bench.connections() == 0)

    on_cell(body, max_connections=3)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    requests=st.lists(
        st.tuples(
            st.text(st.characters(min_codepoint=0x21, max_codepoint=0xFF, exclude_characters="\x7f?#"), max_size=30),
            st.text(st.characters(min_codepoint=0x20, max_codepoint=0xFF, exclude_characters="\x7f"), max_size=30) | st.none(),
        ),
        min_size=1,
        max_size=8,
    )
)
def test_any_topic_and_any_last_event_gets_a_stream_or_a_documented_refusal(requests: list[tuple[str, str | None]]) -> None:
    async def body(bench: Bench) -> None:
        for topic, last_event_id in requests:
            async with read_topic(bench.port, topic, last_event_id=last_event_id) as reader:
                if reader.status != 200:
                    assert (reader.status, await reader.reason()) == (400, "invalid_params")
        async with read_topic(bench.port, "all") as reader:
            await bench.publish("client.a")
            assert (await reader.events(1))[0].topic == "client.a"

    on_cell(body)


# ---- the end


def test_a_drain_ends_streams_cleanly_and_sends_browsers_elsewhere() -> None:
    async def body(bench: Bench) -> None:
        async with read_topic(bench.port, "client.*") as reader, read_topic(bench.port, "client.*") as other:
            await bench.publish("client.a")
            await bench.cell.cell.drain(1.0)
            assert await reader.ends()
            assert [told.name for told in reader.told] == ["connected", "vsm_event"]
            assert await other.ends()
            assert bench.connections() == 0

    on_cell(body)


def test_on_a_connection_that_a_draining_cell_still_has_a_browser_gets_a_stream_that_ends() -> None:
    """Source: WHATWG HTML, section 9.2: any status but 200 ends an EventSource for good."""

    async def body(bench: Bench) -> None:
        async with read_topic(bench.port, "A") as browser, read_topic(bench.port, "A") as other:
            await browser.body()
            await other.body()
            await bench.cell.cell.drain(0.1)
            await browser.start("/mcp/sse/events/all", {"Accept": "text/event-stream"}, "GET", "1.1")
            assert (browser.status, await browser.ends()) == (200, True)
            await other.start("/mcp/sse/events/all", {"Accept": "*/*"}, "GET", "1.1")
            assert (other.status, await other.reason()) == (503, "draining")

    on_cell(body)


# ---- who does not read


def test_a_client_that_does_not_read_delays_nobody_is_reported_once_and_misses_nothing() -> None:
    count, size = 2_000, 2_000

    async def body(bench: Bench) -> None:
        delivered = counted("events_delivered")
        async with AsyncExitStack() as stack:
            stalled = await stack.enter_async_context(read_topic(bench.port, "client.*", receive_buffer=4_096))
            others = [await stack.enter_async_context(read_topic(bench.port, "client.*")) for _ in range(3)]
            alarms = await stack.enter_async_context(read_topic(bench.port, "mcp.sse.backpressure"))

            # 1. It stops reading while more is published than its connection holds; the others read everything at once.
            ids: list[int] = []
            for number in range(0, count, 50):
                ids += await bench.publish(*(f"client.n{number + n}" for n in range(50)), text="x" * size)
                for reader in others:
                    await reader.events(50)
            assert [[told.event_id for told in reader.told if told.name == "vsm_event"] for reader in others] == [
                [str(event_id) for event_id in ids]
            ] * 3

            # 2. One episode, one report; what is under way to it stays within the buffer.
            alarm = await alarms.next("vsm_event")
            assert alarm.data["payload"]["transport"] == "http_sse"
            assert alarm.data["payload"]["topic"] == "client.*"
            assert max(buffered(bench)) < 20 * (size + 200) + 100_000

            # 3. It reads on and has every event in order.
            assert [told.event_id for told in await stalled.events(count)] == [str(event_id) for event_id in ids]
            (event_id,) = await bench.publish("client.last")
            assert (await stalled.events(1))[0].event_id == str(event_id)
            assert [told.name for told in alarms.told].count("vsm_event") == 1
            assert len([event for event in bench.cell.link.events if event.topic == "mcp.sse.backpressure"]) == 1
            await until(lambda: counted("events_delivered") - delivered >= 4 * count)

    on_cell(body, buffer_size=20, heartbeat_interval=0.1)


def buffered(bench: Bench) -> list[int]:
    """Bytes that wait in the cell for each of its connections."""
    connections = bench.cell.cell._server._server._connections
    return [len(connection.stream._write_buffer) for connection in connections]


def test_a_client_that_leaves_without_reading_leaves_nothing_behind() -> None:
    async def body(bench: Bench) -> None:
        async with read_topic(bench.port, "all", receive_buffer=4_096):
            await bench.publish(*["client.a"] * 400, text="x" * 2_000)
            assert bench.connections() == 1
        await until(lambda: bench.connections() == 0)
        await bench.publish("client.b")

    on_cell(body, buffer_size=20)


def test_a_client_that_was_gone_before_its_stream_began_leaves_nothing_behind() -> None:
    async def body(bench: Bench) -> None:
        loop = asyncio.get_running_loop()
        for number in range(100):
            with socket.socket() as client:
                client.setblocking(False)
                await loop.sock_connect(client, ("127.0.0.1", bench.port))
                if number % 2:  # reset rather than end the connection
                    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                await loop.sock_sendall(client, b"GET /mcp/sse/events/all HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        await until(lambda: "http_sse" in bench.cell.cell._server.connection_counts())
        await until(lambda: bench.connections() == 0)
        async with read_topic(bench.port, "all") as reader:
            await bench.publish("client.a")
            assert (await reader.events(1))[0].topic == "client.a"

    on_cell(body)


def test_many_clients_get_each_event_once_and_in_order() -> None:
    async def body(bench: Bench) -> None:
        async with AsyncExitStack() as stack:
            readers: list[TopicReader] = [
                await stack.enter_async_context(read_topic(bench.port, "client.*" if number % 2 else "all"))
                for number in range(120)
            ]
            ids: list[int] = []
            for number in range(20):
                ids += await bench.publish(f"client.n{number}")
            for reader in readers:
                assert [told.event_id for told in await reader.events(20)] == [str(event_id) for event_id in ids]

    on_cell(body)
