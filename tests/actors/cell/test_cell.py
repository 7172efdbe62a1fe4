"""A whole cell: what it serves from start to stop, while it drains, and when parts of it are taken away."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
import time
from collections.abc import Awaitable, Callable
from typing import Any

import aiohttp
import pytest

from mcp_gateway.actors.cell.cell import Cell
from mcp_gateway.actors.messages.lifecycle import CrashRequested
from mcp_gateway.actors.messages.status import StatusRequested
from mcp_gateway.actors.messages.transports import RegisterTransport, RemoveTransport
from mcp_gateway.transports.downstream.http.streamable_http import StreamableHttpTransport
from mcp_gateway.transports.ports.edge_port import AnswerSink, Exchange
from mcp_gateway.transports.protocol.topics.topic_log import TopicPattern
from tests.doubles.calling_client import CallingClient, SessionStreamReader
from tests.doubles.patience import patience
from tests.doubles.running_cell import RecordingLink, RunningCell, cell_settings, running_cell
from tests.doubles.scripted_upstreams import EchoUpstream, FlappingUpstream, SilentUpstream
from tests.end_to_end.raw_http import modern, tool_call


def on_cell(body: Callable[[RunningCell], Awaitable[None]], *backends: dict[str, Any], **tables: dict[str, Any]) -> None:
    settings = cell_settings(backends, **tables) if backends else cell_settings(**tables)

    async def run() -> None:
        async with running_cell(settings) as cell, patience():
            await body(cell)

    asyncio.run(run())


async def get(cell: RunningCell, path: str) -> tuple[int, dict[str, Any]]:
    async with aiohttp.ClientSession() as http, http.get(cell.url + path) as response:
        return response.status, json.loads(await response.text())


async def eventually(check: Callable[[], Awaitable[bool]], timeout_s: float = 10.0) -> None:
    async with asyncio.timeout(timeout_s):
        while not await check():
            await asyncio.sleep(0.02)


# ---- start and stop


def test_a_started_cell_serves_and_has_told_so() -> None:
    async def body(cell: RunningCell) -> None:
        client = await CallingClient(cell.url, "legacy").open()
        assert await client.call("echo", {"message": "hello"}) == "ok"
        assert "mcp.transport.started" in cell.link.topics()
        status = await cell.cell.status()
        assert status["sessions"] == 1
        assert status["connections"] == {"streamable_http": 0}
        (backend,) = status["backends"]
        (replica,) = backend["replicas"]
        assert (backend["name"], backend["protocol"], replica["address"]) == ("demo", "auto", "builtin:demo")
        assert (replica["health"], replica["circuit"], replica["ring_share"]) == ("healthy", "closed", 1.0)
        assert replica["pool"] == {"idle": 50, "leased": 0, "waiting": 0, "overflow": 0}
        await client.close()

    on_cell(body)


def test_a_stopped_cell_leaves_no_port_and_no_task() -> None:
    async def body() -> None:
        settings = cell_settings()
        async with running_cell(settings) as cell:
            client = await CallingClient(cell.url, "modern").open()
            assert await client.call("echo", {"message": "hello"}) == "ok"
            await client.close()
        await eventually(lambda: _true(asyncio.all_tasks() == {asyncio.current_task()}))  # connections close in the background
        with socket.create_server(("127.0.0.1", settings.gateway.port)):
            pass

    asyncio.run(body())


def test_a_cell_whose_port_is_taken_says_so_and_leaves_nothing() -> None:
    async def body() -> None:
        settings = cell_settings()
        link = RecordingLink()
        with socket.create_server(("127.0.0.1", settings.gateway.port)):
            cell = Cell(settings, 0, "cell/0", link)
            with pytest.raises(OSError, match="in use"):
                await cell.start()
        await eventually(lambda: _true(asyncio.all_tasks() == {asyncio.current_task()}))
        assert link.stops == []

    asyncio.run(body())


# ---- health


def test_health_and_readiness_of_a_cell_that_is_well() -> None:
    async def body(cell: RunningCell) -> None:
        expected = {"event-bus", "transport-registry", "connection-pool", "router", "backends"}

        async def is_told() -> bool:
            return expected <= set((await get(cell, "/health"))[1]["components"])

        await eventually(is_told)
        status, health = await get(cell, "/health")
        assert (status, health["status"]) == (200, "healthy")
        assert health["uptime_seconds"] >= 0
        assert health["version"]
        assert await get(cell, "/health/ready") == (200, {"status": "ready"})
        assert await get(cell, "/health/live") == (200, {"status": "live"})

    on_cell(body)


def test_a_dead_replica_degrades_two_make_it_unhealthy_and_service_heals() -> None:
    with FlappingUpstream() as one, FlappingUpstream() as two:

        async def body(cell: RunningCell) -> None:
            async def is_status(expected: str) -> bool:
                _, health = await get(cell, "/health")
                return bool(health["status"] == expected)

            await eventually(lambda: is_status("healthy"))
            one.is_down = True
            await eventually(lambda: is_status("degraded"))
            assert (await get(cell, "/health"))[0] == 200
            two.is_down = True
            await eventually(lambda: is_status("unhealthy"))
            assert (await get(cell, "/health"))[0] == 503
            status, ready = await get(cell, "/health/ready")
            assert (status, ready["status"]) == (503, "not ready")
            assert "no replica of any backend answers" in ready["reason"]
            assert (await get(cell, "/health/live"))[0] == 200
            one.is_down = two.is_down = False
            await eventually(lambda: is_status("healthy"))
            topics = cell.link.topics()
            assert topics.count("mcp.replica.ejected") == topics.count("mcp.replica.restored") == 2

        on_cell(body, {"name": "two", "prefix": "", "replicas": [one.url, two.url]}, gateway={"health_check_interval": 0.1})


# ---- drain


def test_a_drain_ends_streams_at_once_and_waits_for_requests() -> None:
    async def body(cell: RunningCell) -> None:
        # 1. A request that takes its time, and a stream, which has no end of its own.
        listener = await CallingClient(cell.url, "legacy").open()
        stream = await SessionStreamReader(listener).open()
        caller = CallingClient(cell.url, "modern")
        call = asyncio.create_task(caller.call("slow", {"seconds": 2.0}))
        probe = CallingClient(cell.url, "modern")  # a connection from before the drain
        assert await probe.call("echo", {"message": "before"}) == "ok"
        await asyncio.sleep(0.1)
        # 2. The drain begins: the stream ends, new requests are refused, the port is closed.
        drain = asyncio.create_task(cell.cell.drain(20.0))
        await asyncio.sleep(0.05)
        await eventually(lambda: _true(not stream.is_open))
        assert not call.done()
        assert await probe.call("echo", {"message": "during"}) == "draining"
        with pytest.raises(aiohttp.ClientConnectorError):
            await CallingClient(cell.url, "modern").call("echo", {"message": "new"})
        # 3. It is over when the request is.
        assert not drain.done()
        assert await call == "ok"
        async with asyncio.timeout(5):
            await drain
        for client in (listener, caller, probe):
            await client.close()
        await stream.close()

    on_cell(body)


@pytest.mark.parametrize("parser", ["llhttp", "tornado"])
def test_a_cell_that_leaves_while_others_serve_has_each_of_its_clients_served_once_more_and_refuses_none(parser: str) -> None:
    async def body(cell: RunningCell) -> None:
        address = cell.url.removeprefix("http://").split(":")
        message, headers = modern(tool_call("echo", {"message": "hi"}))
        content = json.dumps(message).encode()
        lines = [f"{name}: {value}" for name, value in {**headers, "Host": "localhost", "Content-Length": len(content)}.items()]
        whole = "\r\n".join(["POST /mcp HTTP/1.1", *lines, "", ""]).encode() + content
        caller = await CallingClient(cell.url, "legacy").open()
        await caller.close()
        assert cell.cell._port.read_session(caller.session_id, None) is not None
        leave = f"DELETE /mcp HTTP/1.1\r\nHost: localhost\r\nMcp-Session-Id: {caller.session_id}\r\n\r\n".encode()
        clients = [await asyncio.open_connection(*address) for _ in range(4)]
        drain = asyncio.create_task(cell.cell.drain(20.0, others_serve=True))
        await asyncio.sleep(0)
        for (_, writer), request in zip(clients, [whole, whole, whole, leave], strict=True):
            writer.write(request)
        for reader, writer in clients:  # each is answered, and reads that this was the last answer here
            answer = await reader.read()
            assert answer.startswith(b"HTTP/1.1 200 ")
            assert b"\r\nConnection: close\r\n" in answer
            writer.close()
        assert cell.cell._port.read_session(caller.session_id, None) is None
        async with asyncio.timeout(5):
            await drain

    on_cell(body, gateway={"http_parser": parser})


async def _true(value: bool) -> bool:
    return value


def test_a_drain_does_not_wait_longer_than_it_may() -> None:
    with SilentUpstream() as server:

        async def body(cell: RunningCell) -> None:
            caller = CallingClient(cell.url, "modern")
            call = asyncio.create_task(caller.call("echo", {}))
            await asyncio.to_thread(server.wait_for, lambda: any(each["method"] == "tools/call" for each in server.requests))
            started_s = time.monotonic()
            await cell.cell.drain(0.3)
            assert 0.25 < time.monotonic() - started_s < 2
            assert not call.done()
            call.cancel()
            await asyncio.gather(call, return_exceptions=True)
            await caller.close()

        on_cell(body, {"name": "silent", "prefix": "", "replicas": [server.url], "protocol": "2026-07-28"})


def test_a_draining_cell_is_neither_healthy_nor_ready_on_connections_it_still_has() -> None:
    async def body(cell: RunningCell) -> None:
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=1)) as http:

            async def ask(path: str) -> tuple[int, dict[str, Any]]:
                async with http.get(cell.url + path) as response:
                    return response.status, json.loads(await response.text())

            await ask("/health")
            await cell.cell.drain(1.0)
            status, health = await ask("/health")
            assert (status, health["status"]) == (503, "unhealthy")
            assert health["components"]["gateway"] == {"status": "unhealthy", "reason": "draining"}
            assert await ask("/health/ready") == (503, {"status": "not ready", "reason": "draining"})
            assert (await ask("/health/live"))[0] == 200

    on_cell(body)


# ---- transports at run time


def test_a_removed_client_transport_refuses_requests_until_it_is_registered_again() -> None:
    async def body(cell: RunningCell) -> None:
        client = CallingClient(cell.url, "modern")
        port = cell.cell._port
        assert await client.call("echo", {"message": "before"}) == "ok"
        await port.ask("transport-registry", RemoveTransport("remove", "streamable_http"))
        assert "streamable_http" not in (await port.ask("transport-registry", StatusRequested("s"))).status["transports"]
        assert await client.call("echo", {"message": "removed"}) == "draining"
        for strategy in port.downstream_transports[1:]:
            await port.ask("transport-registry", RemoveTransport(strategy.name, strategy.name))

        async def is_told() -> bool:
            registry = (await get(cell, "/health"))[1]["components"].get("transport-registry")
            return bool(registry and registry.get("reason") == "no transport serves clients")

        await eventually(is_told)
        registration = RegisterTransport(request_id="again", strategy=StreamableHttpTransport())
        await port.ask("transport-registry", registration)
        assert await client.call("echo", {"message": "again"}) == "ok"
        assert client.connections == 1
        await client.close()

    on_cell(body)


# ---- deadlines and limits, through all actors


def test_a_silent_server_is_given_up_at_the_backends_timeout() -> None:
    with SilentUpstream() as server:

        async def body(cell: RunningCell) -> None:
            client = CallingClient(cell.url, "modern")
            started_s = time.monotonic()
            assert await client.call("echo", {}) == "upstream_timeout"
            assert 0.3 < time.monotonic() - started_s < 10
            await client.close()

        backend = {"name": "b", "prefix": "", "replicas": [server.url], "request_timeout": 0.4, "protocol": "2026-07-28"}
        on_cell(body, backend)


def test_a_full_pool_refuses_after_the_checkout_timeout_and_serves_again() -> None:
    with SilentUpstream() as silent:

        async def body(cell: RunningCell) -> None:
            holder, waiter = (CallingClient(cell.url, "modern") for _ in range(2))
            held = asyncio.create_task(holder.call("echo", {}))
            await asyncio.to_thread(silent.wait_for, lambda: any(each["method"] == "tools/call" for each in silent.requests))
            started_s = time.monotonic()
            assert await waiter.call("echo", {}) == "pool_exhausted"
            assert 0.25 < time.monotonic() - started_s < 10
            assert "mcp.pool.exhausted" in cell.link.topics()
            await holder.close()  # its client leaves: the lease is free at once
            await asyncio.gather(held, return_exceptions=True)
            await eventually(lambda: _has_no_lease(cell))
            await waiter.close()

        on_cell(
            body,
            {"name": "b", "prefix": "", "replicas": [silent.url], "pool_size": 1, "protocol": "2026-07-28"},
            gateway={"max_overflow": 0, "checkout_timeout": 0.3},
        )


async def _has_no_lease(cell: RunningCell) -> bool:
    (replica,) = (await cell.cell.status())["backends"][0]["replicas"]
    return bool(replica["pool"]["leased"] == 0)


def test_a_circuit_opens_on_a_failing_server_and_closes_when_it_is_well_again() -> None:
    with FlappingUpstream() as server:

        async def body(cell: RunningCell) -> None:
            client = await CallingClient(cell.url, "legacy").open()
            server.is_down = True
            for _ in range(2):  # each fails twice: when it is sent, and when its tool's annotations are looked up
                assert await client.call("echo", {}) == "upstream_failed"
            assert await client.call("echo", {}) == "circuit_open"
            server.is_down = False
            await asyncio.sleep(2.1)
            assert await client.call("echo", {}) == "ok"
            found = [topic for topic in cell.link.topics() if topic.startswith("mcp.circuit")]
            assert found == ["mcp.circuit.opened", "mcp.circuit.closed"], "by a probe, which does not wait for the reset time"
            await client.close()

        route = {"pattern": "tools/call/*", "backend": "b", "failure_threshold": 3, "reset_timeout": 30.0}
        backends = [{"name": "b", "prefix": "b__", "replicas": [server.url]}]
        settings = cell_settings(backends, [route], gateway={"health_check_interval": 60})

        async def run() -> None:
            async with running_cell(settings) as cell, patience():
                await body(cell)

        asyncio.run(run())


def test_metrics_of_what_was_served_are_exposed() -> None:
    with EchoUpstream() as server:

        async def body(cell: RunningCell) -> None:
            client = await CallingClient(cell.url, "legacy").open()
            assert await client.call("echo", {}) == "ok"
            async with aiohttp.ClientSession() as http, http.get(f"{cell.url}/metrics") as response:
                text = await response.text()
            labels = 'backend="measured",method="tools/call",outcome="ok",transport="streamable_http"'
            assert f"mcp_gateway_requests_total{{{labels}}} 1.0" in text
            assert 'mcp_gateway_ring_members{route="measured"} 1.0' in text
            await client.close()

        on_cell(body, {"name": "measured", "prefix": "", "replicas": [server.url]})


@pytest.mark.parametrize(("hanging", "serves"), [(20, True), (40, False)])
def test_names_that_are_looked_up_in_vain_hold_up_neither_other_servers_nor_the_metrics(
    hanging: int, serves: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where a name server does not answer: each lookup holds a thread. Beyond 32 other names wait, never the metrics."""
    is_over = threading.Event()
    look_up = socket.getaddrinfo
    looked_up: list[str] = []

    def hang(host: Any, *arguments: Any, **options: Any) -> Any:
        if str(host).endswith(".hangs.invalid"):
            looked_up.append(host)
            is_over.wait(60)
            raise socket.gaierror("no answer")
        return look_up(host, *arguments, **options)

    with EchoUpstream() as server:

        async def body(cell: RunningCell) -> None:
            try:
                await eventually(lambda: _true(len(looked_up) >= min(hanging, 32)))
                if serves:
                    client = await CallingClient(cell.url, "modern").open()
                    assert await client.call("well__echo", {}) == "ok"
                    await client.close()
                async with aiohttp.ClientSession() as http, http.get(f"{cell.url}/metrics") as response:
                    assert response.status == 200
                assert not is_over.is_set()
            finally:
                is_over.set()

        monkeypatch.setattr(socket, "getaddrinfo", hang)
        lost = [{"name": f"lost{number}", "replicas": [f"http://host{number}.hangs.invalid/mcp"]} for number in range(hanging)]
        on_cell(body, {"name": "well", "replicas": [server.url.replace("127.0.0.1", "localhost")]}, *lost)


# ---- backends that change


def test_handlers_follow_backends_and_routes_that_change() -> None:
    """How long a request may take, what it is hashed on, and what is shown of the backends."""
    with EchoUpstream() as server:

        async def body(cell: RunningCell) -> None:
            backend = {"name": "late", "prefix": "late__", "replicas": [server.url], "request_timeout": 1000.0}
            route = {"pattern": "tools/call/*", "backend": "late", "hash_on": "argument:kind"}
            seen: list[Exchange] = []
            open_exchange = cell.cell._port.open

            def watch(exchange: Exchange, sink: AnswerSink) -> None:
                seen.append(exchange)
                open_exchange(exchange, sink)

            cell.cell._port.open = watch  # type: ignore[method-assign]
            client = await CallingClient(cell.url, "modern").open()
            await client.request("tools/call", {"name": "late__echo", "arguments": {"kind": "k"}})
            cell.cell.apply_settings(cell_settings([backend], [route]))
            assert await client.call("late__echo", {"kind": "k"}) == "ok"
            before, after = seen[0], seen[-1]
            assert after.deadline_s - before.deadline_s > 900
            assert ("argument:kind" in before.hash_keys, after.hash_keys["argument:kind"]) == (False, '"k"')
            assert [backend["name"] for backend in (await cell.cell.status())["backends"]] == ["late"]
            async with aiohttp.ClientSession() as http, http.get(f"{cell.url}/metrics") as response:
                text = await response.text()
            assert 'mcp_gateway_pool_exhausted_total{backend="late"} 0.0' in text
            assert f'mcp_gateway_circuit_state{{replica="{server.url}",route="tools/call/*"}} 0.0' in text
            await client.close()

        on_cell(body)


# ---- topics


@pytest.mark.parametrize("child", ["event-bus", "edge", "router"])
def test_the_topic_feed_has_no_hole_whichever_part_is_restarted(child: str) -> None:
    async def body(cell: RunningCell) -> None:
        topics = cell.cell._port.topics
        for number in range(1, 31):
            topics.publish(f"client.n{number}", {"n": number})
            if number % 5 == 0:
                cell.cell._port.tell(child, CrashRequested())
            if number % 7 == 0:
                await cell.command("restart", child)
            await asyncio.sleep(0)

        async def has_come() -> bool:
            return topics.last_id == cell.link.events[-1].id and "client.n30" in cell.link.topics()

        await eventually(has_come)
        page = topics.read(0, TopicPattern("all"), 1_000)
        assert [(event.id, event.topic) for event in page.events] == [(event.id, event.topic) for event in cell.link.events]
        assert sorted(event.topic for event in page.events if event.topic.startswith("client.")) == sorted(
            f"client.n{number}" for number in range(1, 31)
        )

    on_cell(body)
