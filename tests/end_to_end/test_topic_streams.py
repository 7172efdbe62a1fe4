"""Topic streams of a whole gateway: a thousand clients at once, and clients that do not read."""

from __future__ import annotations

import json
import socket
import urllib.request
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from mcp_gateway.scripts.benchmark.bench_clients import Follow, Publisher, follow_over_phoenix, follow_over_sse
from mcp_gateway.scripts.benchmark.bench_fan_out import deliver
from mcp_gateway.scripts.benchmark.bench_sockets import NotServed
from mcp_gateway.scripts.serving.start_checks import allow_many_files
from mcp_gateway.transports.protocol.framing.sse import EventStreamParser, ServerSentEvent
from tests.doubles.gateway_process import GatewayProcess, wait_until
from tests.doubles.topic_follower import TopicFollower
from tests.end_to_end.test_slow_client import unchunked

BACKEND = '[[backends]]\nname = "demo"\nprefix = ""\nbuiltin = "demo"\n'
GROWTH_LIMIT_BYTES = 25_000_000
"""Of the 240 MB that they do not read. What is on its way to all twenty is 4 MB, its copies and the allocator's slack as much."""


def port_of(gateway: GatewayProcess) -> int:
    return int(gateway.url.rpartition(":")[2])


def publish(gateway: GatewayProcess, first: int, count: int, size: int = 0) -> None:
    path = f"/publish?topic=client.numbers&n={first}&count={count}&size={size}"
    with urllib.request.urlopen(gateway.url + path, timeout=20) as answer:
        assert json.load(answer)["id"] > 0


@pytest.mark.parametrize("form", ["embedded", "node"])
def test_a_thousand_streams_and_as_many_sockets_get_each_event_and_one_more_is_refused(form: str, tmp_path: Path) -> None:
    arguments = ["--embedded"] if form == "embedded" else []
    allow_many_files()
    settings = '[gateway]\nmax_share_per_address = 1.0\n[[backends]]\nname = "demo"\nbuiltin = "demo"\n'
    with GatewayProcess(tmp_path / "state", *arguments, cell_factory=None, settings=settings) as gateway, ExitStack() as stack:
        port = port_of(gateway)
        publisher = stack.enter_context(closing(Publisher(port)))  # one of the thousand
        sockets = [stack.enter_context(follow_over_phoenix(port)) for _ in range(999)]
        streams = [stack.enter_context(follow_over_sse(port)) for _ in range(1_000)]
        for follow in (follow_over_sse, follow_over_phoenix):
            with pytest.raises(NotServed, match="too_many_connections"):
                follow(port)
        for _ in range(3):
            assert len(deliver(publisher, [*streams, *sockets])) == 1_999
        streams.pop().close()
        sockets.pop().close()

        def is_admitted(follow: Follow) -> bool:
            try:
                stack.enter_context(follow(port))
            except NotServed:
                return False
            return True

        for follow in (follow_over_sse, follow_over_phoenix):
            wait_until(lambda follow=follow: is_admitted(follow), 5, "there is room for another")


def test_what_one_cell_publishes_reaches_the_clients_of_every_cell_in_one_order(tmp_path: Path) -> None:
    settings = f"[gateway]\ncells = 2\n{BACKEND}"
    with (
        GatewayProcess(tmp_path / "state", cell_factory="publishing_cell:make_cell", settings=settings) as gateway,
        ExitStack() as stack,
    ):
        # The kernel spreads connections over the cells: a dozen clients are in both.
        followers = [stack.enter_context(TopicFollower(gateway.url, "client.*")) for _ in range(12)]
        wait_until(lambda: all(follower.connects for follower in followers), 10, "all follow")
        publishers: set[int] = set()
        number = 0
        while len(publishers) < 2 or number < 20:
            with urllib.request.urlopen(f"{gateway.url}/publish?topic=client.numbers&n={number}", timeout=10) as answer:
                publishers.add(json.load(answer)["pid"])
            number += 1
            assert number < 200
        for follower in followers:
            wait_until(follower.has_seen("client.numbers", number - 1), 10, "everything is read")
            assert follower.seen("client.numbers") == list(range(number))
            assert follower.events == followers[0].events


def stalled_client(gateway: GatewayProcess) -> socket.socket:
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8_192)
    client.settimeout(20)
    client.connect(("127.0.0.1", port_of(gateway)))
    client.sendall(b"GET /mcp/sse/events/client.* HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
    return client


def read_until(client: socket.socket, number: int) -> list[ServerSentEvent]:
    """All events up to this number."""
    seen = b""
    wanted = f'"n":{number},'.encode()
    while wanted not in seen[-50_000:]:
        chunk = client.recv(1 << 18)
        assert chunk, "the stream has ended"
        seen += chunk
    while not seen.endswith(b"\n\n\r\n"):
        seen += client.recv(1 << 18)
    return EventStreamParser(1 << 20).feed(unchunked(seen.partition(b"\r\n\r\n")[2]))


def numbers_of(events: list[ServerSentEvent]) -> list[int]:
    return [json.loads(event.data)["payload"]["n"] for event in events if event.event == "vsm_event"]


@pytest.mark.parametrize("form", ["embedded", "node"])
def test_clients_that_do_not_read_cost_little_delay_nobody_and_learn_what_they_missed(form: str, tmp_path: Path) -> None:
    settings = f"[transports.http_sse]\nretention_events = 500\nbuffer_size = 50\n{BACKEND}"
    arguments = ["--embedded"] if form == "embedded" else []
    factory = "publishing_cell:make_cell"
    with (
        GatewayProcess(tmp_path / "state", *arguments, cell_factory=factory, settings=settings) as gateway,
        TopicFollower(gateway.url, "client.*") as other,
        TopicFollower(gateway.url, "mcp.sse.*") as alarms,
        ExitStack() as stack,
    ):
        wait_until(lambda: other.connects and alarms.connects, 5, "the others follow")
        for first in range(0, 520, 40):
            publish(gateway, first, 40, size=4_000)  # the log is full
            wait_until(other.has_seen("client.numbers", first + 39), 5, "the other reads")
        before = sum(process.memory_info().rss for process in gateway.note_processes())

        # 1. Twenty stop reading; three thousand more events reach everybody else.
        stalled = [stack.enter_context(stalled_client(gateway)) for _ in range(20)]
        for first in range(520, 3_520, 40):  # fewer at once than buffer_size: who reads never lags
            publish(gateway, first, 40, size=4_000)
            wait_until(other.has_seen("client.numbers", first + 39), 5, "the other reads on")
        after = sum(process.memory_info().rss for process in gateway.note_processes())
        assert after - before < GROWTH_LIMIT_BYTES
        assert other.seen("client.numbers") == list(range(3_520))
        wait_until(lambda: len(alarms.events) >= 20, 5, "each is reported")
        assert len(alarms.events) == 20

        # 2. They read on: what was on its way, the range that is lost, then everything in order.
        for client in stalled[:3]:
            events = read_until(client, 3_519)
            (gap_at,) = [index for index, event in enumerate(events) if event.event == "gap"]
            assert numbers_of(events[:gap_at]) == list(range(520, 520 + len(numbers_of(events[:gap_at]))))
            assert numbers_of(events[gap_at:]) == list(range(3_520 - len(numbers_of(events[gap_at:])), 3_520))
            gap = json.loads(events[gap_at].data)
            before_gap, after_gap = (events[index] for index in (gap_at - 1, gap_at + 1))
            assert gap["first_id"] == int(before_gap.event_id or 0) + 1
            assert gap["last_id"] == int(after_gap.event_id or 0) - 1
