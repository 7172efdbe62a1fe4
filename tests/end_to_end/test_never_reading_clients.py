"""Clients that ask for much and never read: they count until they are cut off, cost little, and nobody else notices."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Callable, Iterator

import pytest

from tests.conftest import StartGateway
from tests.doubles.raw_websocket import TEXT, frame
from tests.doubles.sdk_server import SdkServer, start_sdk_server
from tests.end_to_end.raw_http import ask_modern, modern, tool_call
from tests.end_to_end.running_gateway import RunningGateway, wait_until

CLIENTS = 48
MESSAGE_BYTES = 1_000_000
"""Of an argument that comes back as the answer; over a Phoenix channel twice, as the reply and as an event."""
SHARE_BYTES = 8_388_608
GROWTH_LIMIT_BYTES = 36_000_000
"""Of the 48 MB and more that would wait otherwise: the share, what is being served, and the allocator's slack."""
TABLE = {"write_timeout": 2.0, "max_buffered_bytes": 2 * SHARE_BYTES, "max_share_per_address": 0.5}
OTHERS_LIMIT_S = 3.0

Ask = Callable[[RunningGateway], socket.socket]


def connected(gateway: RunningGateway) -> socket.socket:
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
    client.settimeout(10)
    client.connect((gateway.host, gateway.port))
    return client


def http(gateway: RunningGateway, start: str, content: bytes = b"", **headers: str) -> bytes:
    shown = {"Host": f"{gateway.host}:{gateway.port}", **{name.replace("_", "-"): value for name, value in headers.items()}}
    shown |= {"Content-Length": str(len(content))} if content else {}
    return "\r\n".join([f"{start} HTTP/1.1", *(f"{name}: {value}" for name, value in shown.items()), "", ""]).encode() + content


def large_call() -> tuple[bytes, dict[str, str]]:
    body, headers = modern(tool_call("echo", {"message": "x" * MESSAGE_BYTES}))
    return json.dumps(body).encode(), headers


def ask_over_http(gateway: RunningGateway, accept: str = "application/json") -> socket.socket:
    client = connected(gateway)
    content, headers = large_call()
    client.sendall(http(gateway, "POST /mcp", content, Content_Type="application/json", Accept=accept, **headers))
    return client


def ask_for_events(gateway: RunningGateway) -> socket.socket:
    return ask_over_http(gateway, "text/event-stream")


def ask_over_sse(gateway: RunningGateway) -> socket.socket:
    client = connected(gateway)
    client.sendall(http(gateway, "GET /mcp/sse/connect", Accept="text/event-stream"))
    seen = b""
    while b"session_id=" not in seen or b"\n\n" not in seen.partition(b"session_id=")[2].replace(b"\r", b""):
        seen += client.recv(1_000)
    session = seen.partition(b"session_id=")[2].split()[0].decode()
    content, _ = large_call()
    with connected(gateway) as poster:
        poster.sendall(http(gateway, f"POST /mcp/sse/messages?session_id={session}", content, Content_Type="application/json"))
        answer = poster.recv(1_000)
    if b"503" in answer:  # what the others of its address have not read leaves its request no room
        client.shutdown(socket.SHUT_RDWR)
    else:
        assert b"202" in answer
    return client


def upgraded(gateway: RunningGateway, path: str) -> socket.socket:
    client = connected(gateway)
    asked = {"Upgrade": "websocket", "Connection": "Upgrade", "Sec_WebSocket_Version": "13"}
    client.sendall(http(gateway, f"GET {path}", Sec_WebSocket_Key="AAECAwQFBgcICQoLDA0ODw==", **asked))
    assert b" 101 " in client.recv(1_000)
    return client


def ask_over_websocket(gateway: RunningGateway) -> socket.socket:
    client = upgraded(gateway, "/mcp/ws")
    client.sendall(frame(TEXT, large_call()[0]))
    return client


def ask_over_phoenix(gateway: RunningGateway) -> socket.socket:
    client = upgraded(gateway, "/mcp/websocket?vsn=2.0.0")
    request = {"method": "tools/call", "params": {"name": "echo", "arguments": {"message": "x" * MESSAGE_BYTES}}, "id": 1}
    for event, payload in (("phx_join", {}), ("request", request)):
        client.sendall(frame(TEXT, json.dumps(["1", "2", "mcp:events", event, payload]).encode()))
    return client


ATTACKS = {
    "an answer": (ask_over_http, "streamable_http"),
    "an answer as events": (ask_for_events, "streamable_http"),
    "HTTP+SSE": (ask_over_sse, "http_sse"),
    "a WebSocket": (ask_over_websocket, "websocket"),
    "a Phoenix channel": (ask_over_phoenix, "websocket"),
}


@pytest.fixture(scope="module")
def server() -> Iterator[SdkServer]:
    with start_sdk_server(era="modern") as server:
        yield server


@pytest.fixture(scope="module", params=["embedded", "node"])
def gateway(request: pytest.FixtureRequest, start_gateway: StartGateway, server: SdkServer) -> Iterator[RunningGateway]:
    backends = [{"name": "all", "prefix": "", "replicas": [server.url]}]
    with start_gateway(request.param, backends, gateway=TABLE) as gateway:
        for _ in range(20):
            ask_modern(gateway.endpoint(), tool_call("echo", {"message": "x" * 100_000}))
        yield gateway


@pytest.mark.parametrize("attack", ATTACKS)
def test_clients_that_never_read_are_counted_cut_off_and_noticed_by_nobody(attack: str, gateway: RunningGateway) -> None:
    ask, transport = ATTACKS[attack]

    def open_count() -> float:
        return gateway.metric_sum("mcp_gateway_downstream_connections", transport=transport)

    def ended_count() -> float:
        """Cut off, or refused because those of their address that do not read leave their requests no room."""
        refused = gateway.metric_sum("mcp_gateway_bounds_reached_total", bound="buffered")
        return gateway.metric_sum("mcp_gateway_clients_cut_total") + refused

    before, ended_before = gateway.memory_bytes(), ended_count()
    most_open, most_bytes, most_buffered, slowest_s = 0.0, 0, 0.0, 0.0
    clients = []
    try:
        for _ in range(CLIENTS):  # one after the other: what many requests at once take on their way in is not the question here
            clients.append(ask(gateway))
            clients[-1].recv(1, socket.MSG_PEEK)
        deadline_s = time.monotonic() + 30
        while ended_count() < ended_before + CLIENTS or open_count() > 0:
            assert time.monotonic() < deadline_s, (ended_count() - ended_before, open_count())
            started_s = time.monotonic()
            assert ask_modern(gateway.endpoint(), tool_call("echo", {"message": "other"})).text == "other"
            slowest_s = max(slowest_s, time.monotonic() - started_s)
            most_open = max(most_open, open_count())
            most_bytes = max(most_bytes, gateway.memory_bytes())
            most_buffered = max(most_buffered, gateway.metric_sum("mcp_gateway_buffered_bytes", direction="out"))
    finally:
        for client in clients:
            client.close()
    assert most_open >= 2  # as many as the share has room for, and each until it is cut off
    assert 0 < most_buffered <= SHARE_BYTES
    assert most_bytes - before < GROWTH_LIMIT_BYTES
    assert slowest_s < OTHERS_LIMIT_S
    wait_until(lambda: gateway.metric_sum("mcp_gateway_buffered_bytes") == 0, 5, "nothing is held any more")


def test_a_slow_but_steady_reader_gets_all_of_its_answer(gateway: RunningGateway) -> None:
    """It takes longer than `write_timeout`, which is the time without a single byte."""
    client = ask_over_http(gateway)
    started_s, read_bytes = time.monotonic(), 0
    while time.monotonic() - started_s < 1.5 * TABLE["write_timeout"]:
        read_bytes += len(client.recv(4_096))
        time.sleep(0.02)
    assert read_bytes < MESSAGE_BYTES
    while read_bytes < MESSAGE_BYTES and (part := client.recv(1 << 16)):
        read_bytes += len(part)
    assert read_bytes >= MESSAGE_BYTES
    client.close()
