"""Phoenix sockets on a whole cell: joins, requests, events both ways, and what ends a socket or a channel."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from prometheus_client import REGISTRY
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed
from websockets.typing import Subprotocol

from mcp_gateway.transports.downstream.exchanges.client_channel import MOST_OPEN_REQUESTS
from mcp_gateway.transports.downstream.phoenix.phoenix_channel import PhoenixChannel
from mcp_gateway.transports.downstream.server import request_limiter
from tests.doubles.patience import patience, until
from tests.doubles.phoenix_client import PhoenixClient, phoenix_client
from tests.doubles.raw_websocket import BINARY, TEXT, RawWebSocket
from tests.doubles.running_cell import MOODS, RunningCell, cell_settings, running_cell

TOPIC = "mcp:events"
SLOW = {"name": "slow", "arguments": {"seconds": 0.05, "steps": 2}}
FOREVER = {"name": "slow", "arguments": {"seconds": 60}}


def on_cell(body: Callable[[RunningCell], Awaitable[None]], **tables: Any) -> None:
    async def run() -> None:
        async with running_cell(cell_settings(**tables), MOODS) as cell, patience():
            await body(cell)

    asyncio.run(run())


def with_client(body: Callable[[PhoenixClient, RunningCell], Awaitable[None]], **tables: Any) -> None:
    async def on(cell: RunningCell) -> None:
        async with phoenix_client(cell.url) as client:
            await body(client, cell)

    on_cell(on, **tables)


# ---- channels


def test_a_client_joins_leaves_and_joins_again() -> None:
    async def body(client: PhoenixClient, cell: RunningCell) -> None:
        assert (await client.ask(None, "phoenix", "heartbeat", {})).payload == {"status": "ok", "response": {}}
        early = await client.ask("j1", TOPIC, "ping", {})
        assert (early.status, early.response, early.join_ref) == ("error", {"reason": "unmatched topic"}, None)
        assert (await client.join()).response == {"topic": "all"}
        pong = await client.ask("j1", TOPIC, "ping", {})
        assert (pong.status, pong.join_ref, pong.response["type"]) == ("ok", "j1", "pong")
        assert isinstance(pong.response["timestamp"], int)
        assert (await client.ask("j1", TOPIC, "phx_leave", {})).status == "ok"
        closed = await client.find(event="phx_close")
        assert (closed.join_ref, closed.ref, closed.payload) == ("j1", "j1", {})
        assert (await client.ask("j1", TOPIC, "phx_leave", {})).status == "ok"
        await client.join(join_ref="j2")
        assert (await client.ask("j2", TOPIC, "ping", {})).status == "ok"

    with_client(body)


def test_a_second_join_closes_the_first_channel_and_makes_its_join_ref_stale() -> None:
    async def body(client: PhoenixClient, cell: RunningCell) -> None:
        await client.join(join_ref="j1")
        await client.join(join_ref="j2")
        assert (await client.find(event="phx_close")).join_ref == "j1"
        stale = await client.push("j1", TOPIC, "ping", {})
        assert (await client.ask("j2", TOPIC, "ping", {})).status == "ok"
        assert [told for told in client.told if told.ref == stale] == []
        assert (await client.ask(None, TOPIC, "ping", {})).join_ref == "j2"

    with_client(body)


@pytest.mark.parametrize(
    ("topic", "payload", "reason"),
    [
        ("rooms:1", {}, "unmatched topic"),
        ("phoenix", {}, "unmatched topic"),
        ("mcp:", {}, "invalid_params"),
        ("mcp:No Topic", {}, "invalid_params"),
        ("mcp:a.*.b", {}, "invalid_params"),
        (TOPIC, [], "invalid_params"),
        (TOPIC, None, "invalid_params"),
        (TOPIC, {"last_event_id": "x"}, "invalid_params"),
    ],
)
def test_a_join_that_makes_no_sense_is_refused(topic: str, payload: Any, reason: str) -> None:
    async def body(client: PhoenixClient, cell: RunningCell) -> None:
        reply = await client.ask("j1", topic, "phx_join", payload)
        assert (reply.status, reply.response["reason"]) == ("error", reason)
        assert (await client.ask("j1", topic, "ping", {})).response == {"reason": "unmatched topic"}

    with_client(body)


@pytest.mark.parametrize("query", ["", "vsn=1.0.0"])
def test_a_client_of_serializer_1_is_served_as_well(query: str) -> None:
    topic = "mcp:client.*"

    async def body(cell: RunningCell) -> None:
        async with connect(f"ws{cell.url[4:]}/mcp/websocket?{query}") as connection:
            sent: list[dict[str, Any]] = [
                {"topic": topic, "event": "phx_join", "payload": {}, "ref": "1"},
                {"topic": topic, "event": "request", "payload": {"method": "echo", "params": {"a": 1}, "id": 7}, "ref": "2"},
            ]
            told = []
            for message, answers in zip(sent, (1, 2), strict=True):
                await connection.send(json.dumps(message))
                told += [json.loads(await connection.recv()) for _ in range(answers)]
            response = {"type": "response", "id": 7, "result": {"a": 1}}
            assert told == [
                {
                    "topic": topic,
                    "event": "phx_reply",
                    "ref": "1",
                    "payload": {"status": "ok", "response": {"topic": "client.*"}},
                },
                {"topic": topic, "event": "phx_reply", "ref": "2", "payload": {"status": "ok", "response": response}},
                {"topic": topic, "event": "response", "ref": None, "payload": response},
            ]

    on_cell(body)


def test_the_upgrade_is_refused_for_a_version_that_nobody_knows_and_selects_the_subprotocol_of_phoenix() -> None:
    async def body(cell: RunningCell) -> None:
        port = cell.settings.gateway.port
        async with RawWebSocket(port, "/mcp/websocket?vsn=9.0.0") as refused:
            assert (refused.status, json.loads(refused.body)["error"]["data"]["reason"]) == (400, "invalid_request")
        offered = [Subprotocol("phoenix"), Subprotocol("base64url.bearer.phx.c2VjcmV0")]
        async with connect(f"ws{cell.url[4:]}/mcp/websocket?vsn=2.0.0", subprotocols=offered) as connection:
            assert connection.subprotocol == "phoenix"

    on_cell(body)


# ---- requests


def test_the_gateway_itself_answers_echo_and_time() -> None:
    async def body(client: PhoenixClient, cell: RunningCell) -> None:
        await client.join()
        assert (await client.request("echo", {"message": "Hello"}, id="req-123"))["result"] == {"message": "Hello"}
        assert (await client.request("echo", id=7))["result"] == {}
        told = (await client.request("time"))["result"]
        assert told["time"].endswith("+00:00")
        assert isinstance(told["timestamp"], int)

    with_client(body)


def test_a_client_without_a_session_calls_any_method() -> None:
    async def body(client: PhoenixClient, cell: RunningCell) -> None:
        await client.join()
        tools = (await client.request("tools/list"))["result"]["tools"]
        assert [tool["name"] for tool in tools] == ["echo", "time", "slow", "fail"]
        echoed = await client.request("tools/call", {"name": "echo", "arguments": {"message": "hi"}}, id=12)
        assert echoed["result"]["content"][0]["text"] == "hi"
        assert "2026-07-28" in (await client.request("server/discover"))["result"]["supportedVersions"]
        assert (await client.request("ping"))["result"] == {}
        assert (await client.request("no/such"))["error"]["code"] == -32601
        assert (await client.request("tools/call", {"name": 7}))["error"]["code"] == -32602

    with_client(body)


def test_progress_and_logs_reach_the_channel_with_the_requests_id() -> None:
    async def body(client: PhoenixClient, cell: RunningCell) -> None:
        await client.join()
        await client.request("tools/call", SLOW, id="q7")
        for step in (1, 2):
            progress = (await client.event("notifications/progress")).payload
            assert (progress["id"], progress["data"]["progressToken"], progress["data"]["progress"]) == ("q7", "q7", step)
            log = (await client.event("notifications/message")).payload
            assert (log["id"], log["data"]["data"]) == ("q7", f"step {step} of 2")
            assert isinstance(log["timestamp"], int)

    with_client(body)


def test_a_client_that_initializes_has_a_session_as_long_as_its_channel() -> None:
    async def body(client: PhoenixClient, cell: RunningCell) -> None:
        await client.join()
        params = {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "n", "version": "1"}}
        opened = (await client.request("initialize", params))["result"]
        assert opened["protocolVersion"] == "2025-06-18"
        told = await client.ask("j1", TOPIC, "request", {"method": "notifications/initialized"})
        assert (told.status, told.response) == ("ok", {})
        listed = (await client.request("tools/list"))["result"]
        assert "resultType" not in listed  # a member of the stateless revision
        assert (await client.request("logging/setLevel", {"level": "error"}))["result"] == {}
        assert (await client.request("initialize", params))["error"]["data"]["reason"] == "invalid_request"
        await client.ask("j1", TOPIC, "phx_leave", {})
        await client.join()
        assert "resultType" in (await client.request("tools/list"))["result"]

    with_client(body)


def test_requests_run_at_once_on_several_channels_and_may_use_the_same_id() -> None:
    async def body(client: PhoenixClient, cell: RunningCell) -> None:
        topics = [TOPIC, "mcp:client.*", "mcp:vsm.algedonic.pain"]
        for topic in topics:
            await client.join(topic)
        refs = []
        for number in range(60):
            payload = {"method": "tools/call", "params": {"name": "echo", "arguments": {"message": str(number)}}, "id": "same"}
            refs.append(await client.push("j1", topics[number % 3], "request", payload))
        for number, ref in enumerate(refs):
            reply = await client.find(event="phx_reply", ref=ref)
            assert (reply.topic, reply.response["id"]) == (topics[number % 3], "same")
            assert reply.response["result"]["content"][0]["text"] == str(number)

    with_client(body)


def test_a_cancelled_request_is_answered_as_cancelled_and_ends_upstream() -> None:
    async def body(client: PhoenixClient, cell: RunningCell) -> None:
        await client.join()
        ref = await client.push("j1", TOPIC, "request", {"method": "tools/call", "params": FOREVER, "id": "q7"})
        await until(lambda: bool(cell.cell._port.waiting))
        cancelled = {"method": "notifications/cancelled", "params": {"requestId": "q7"}}
        assert (await client.ask("j1", TOPIC, "request", cancelled)).status == "ok"
        reply = await client.find(event="phx_reply", ref=ref)
        assert (reply.status, reply.response["error"]["data"]["reason"]) == ("error", "cancelled")
        await until(lambda: not cell.cell._port.waiting)
        for nonsense in ({}, {"requestId": None}, {"requestId": "q9"}):
            cancelled = {"method": "notifications/cancelled", "params": nonsense}
            assert (await client.ask("j1", TOPIC, "request", cancelled)).status == "ok"

    with_client(body)


@pytest.mark.parametrize("how", ["leave", "rejoin", "close", "vanish"])
def test_what_ends_a_channel_ends_what_runs_for_it(how: str) -> None:
    async def body(cell: RunningCell) -> None:
        async with phoenix_client(cell.url) as client:
            await client.join()
            await client.push("j1", TOPIC, "request", {"method": "tools/call", "params": FOREVER, "id": 1})
            await until(lambda: bool(cell.cell._port.waiting))
            if how == "leave":
                await client.push("j1", TOPIC, "phx_leave", {})
            elif how == "rejoin":
                await client.push("j2", TOPIC, "phx_join", {})
            elif how == "close":
                await client.connection.close()
            else:
                client.connection.transport.abort()
            await until(lambda: not cell.cell._port.waiting)

    on_cell(body)


@pytest.mark.parametrize(
    ("payload", "id"),
    [({}, None), ([], None), (None, None), ("text", None), ({"id": 7}, 7), ({"method": 7, "id": "x"}, "x"),
     ({"method": "m", "params": [], "id": "x"}, "x"), ({"method": "m", "id": {}}, None)],
)  # fmt: skip
def test_a_request_that_is_none_is_answered_by_an_error_with_its_id(payload: Any, id: Any) -> None:
    async def body(client: PhoenixClient, cell: RunningCell) -> None:
        await client.join()
        reply = await client.ask("j1", TOPIC, "request", payload)
        assert (reply.status, reply.response["id"]) == ("error", id)
        assert reply.response["error"]["data"]["reason"] == "invalid_request"
        assert (await client.find(event="response")).payload == reply.response

    with_client(body)


@pytest.mark.parametrize(("event", "payload"), [("unknown", {}), ("phx_error", {}), ("response", {"id": 1, "result": {}})])
def test_another_push_that_means_nothing_is_refused_in_its_reply(event: str, payload: Any) -> None:
    async def body(client: PhoenixClient, cell: RunningCell) -> None:
        await client.join()
        reply = await client.ask("j1", TOPIC, event, payload)
        assert (reply.status, reply.response["reason"]) == ("error", "invalid_request")

    with_client(body)


def test_a_binary_push_carries_the_same_json() -> None:
    """Source: Phoenix 1.8, `Phoenix.Socket.V2.JSONSerializer`; that it must be JSON is ours."""

    def binary(ref: str, event: str, payload: bytes) -> bytes:
        parts = [each.encode() for each in ("j1", ref, TOPIC, event)]
        return bytes([0, *map(len, parts)]) + b"".join(parts) + payload

    async def body(client: PhoenixClient, cell: RunningCell) -> None:
        await client.join()
        await client.connection.send(binary("b1", "request", b'{"method":"echo","params":{"a":1},"id":"x"}'))
        assert (await client.find(event="phx_reply", ref="b1")).response["result"] == {"a": 1}
        await client.connection.send(binary("b2", "request", b"\x00\xff"))
        assert (await client.find(event="phx_reply", ref="b2")).status == "error"
        await client.connection.send(binary("b3", "event", b"\x00\xff"))
        assert (await client.find(event="phx_reply", ref="b3")).response["reason"] == "invalid_params"

    with_client(body)


def test_a_flood_of_events_of_one_client_ends_at_the_rate_and_nothing_else_does(monkeypatch: pytest.MonkeyPatch) -> None:
    most = 50
    monkeypatch.setattr(request_limiter, "EVENT_BURST", float(most))
    monkeypatch.setattr(request_limiter, "EVENTS_PER_S", 1.0)

    async def body(client: PhoenixClient, cell: RunningCell) -> None:
        await client.join()
        refs = [await client.push("j1", TOPIC, "event", {"event": "flood", "data": {}}) for _ in range(2 * most)]
        refused = [each for ref in refs if (each := await client.find(event="phx_reply", ref=ref)).status == "error"]
        assert {each.response["reason"] for each in refused} == {"rate_limited"}
        published = cell.link.topics().count("client.flood")
        assert most <= published < 2 * most
        assert len(refused) == 2 * most - published
        assert "result" in await client.request("echo")

    with_client(body)


def test_who_asks_too_often_is_told_when_to_come_back_whatever_it_asks() -> None:
    async def body(client: PhoenixClient, cell: RunningCell) -> None:
        await client.join()
        for _ in range(2):
            await client.request("echo")
        for method in ("echo", "tools/list"):
            error = (await client.request(method))["error"]
            assert (error["code"], error["data"]["reason"]) == (4290, "rate_limited")
            assert error["data"]["retry_after"] > 0
        refused = await client.ask("j1", TOPIC, "event", {"event": "x", "data": {}})
        assert (refused.status, refused.response["reason"], refused.response["retry_after"] > 0) == (
            "error",
            "rate_limited",
            True,
        )

    with_client(body, limits={"requests_per_second": 0.01, "burst": 2})


def test_the_user_of_the_socket_is_what_its_requests_are_hashed_by() -> None:
    async def body(cell: RunningCell) -> None:
        async with phoenix_client(cell.url, "vsn=2.0.0&user_id=ada") as client:
            await client.join()
            await client.push("j1", TOPIC, "request", {"method": "tools/call", "params": FOREVER, "id": 1})
            await until(lambda: bool(cell.cell._port.waiting))
            ((exchange, _),) = cell.cell._port.waiting.values()
            assert (exchange.hash_keys["user"], exchange.transport, exchange.revision) == ("ada", "websocket", "2026-07-28")

    on_cell(body)


def test_one_request_too_many_at_once_is_refused_over_all_channels_of_a_socket() -> None:
    async def body(client: PhoenixClient, cell: RunningCell) -> None:
        topics = [TOPIC, "mcp:client.*"]
        for topic in topics:
            await client.join(topic)
        for number in range(MOST_OPEN_REQUESTS):
            await client.push("j1", topics[number % 2], "request", {"method": "tools/call", "params": FOREVER, "id": number})
        await until(lambda: len(cell.cell._port.waiting) == MOST_OPEN_REQUESTS)
        for topic in topics:
            reply = await client.ask("j1", topic, "request", {"method": "tools/call", "params": FOREVER, "id": "x"})
            assert (reply.status, reply.response["error"]["data"]["reason"]) == ("error", "too_many_connections")
            await client.find(event="response", topic=topic)
        assert (await client.request("echo", id="here"))["result"] == {}
        cancelled = {"method": "notifications/cancelled", "params": {"requestId": 0}}
        await client.ask("j1", TOPIC, "request", cancelled)
        await client.find(event="response", topic=TOPIC)
        assert "result" in await client.request("tools/list", id="one more")

    with_client(body, backends=[{"name": "demo", "prefix": "", "builtin": "demo", "pool_size": 1_000}])


# ---- events


def test_what_a_client_publishes_reaches_every_channel_that_follows_it() -> None:
    async def body(client: PhoenixClient, cell: RunningCell) -> None:
        async with phoenix_client(cell.url) as other:
            await client.join()
            await other.join("mcp:client.news.*")
            assert (await client.ask("j1", TOPIC, "event", {"event": "other", "data": {}})).response == {}
            assert (await client.ask("j1", TOPIC, "event", {"event": "news.today", "data": {"n": 1}})).status == "ok"
            told = await other.event("client.news.today", "mcp:client.news.*")
            assert (told.payload["data"], told.join_ref, told.ref) == ({"n": 1}, "j1", None)
            assert {"event", "data", "timestamp", "event_id"} == set(told.payload)
            assert other.told == []
            own = await client.event("client.news.today")
            assert own.payload == told.payload

    with_client(body)


@pytest.mark.parametrize(
    ("payload", "reason"),
    [({}, "invalid_params"), ({"event": "No Topic"}, "invalid_params"), ({"event": "x", "data": [1]}, "invalid_params"),
     ({"event": "x", "data": {"a": "b" * 20_000}}, "too_large"), ("text", "invalid_params")],
)  # fmt: skip
def test_an_event_that_a_client_may_not_publish_is_refused(payload: Any, reason: str) -> None:
    async def body(client: PhoenixClient, cell: RunningCell) -> None:
        await client.join()
        reply = await client.ask("j1", TOPIC, "event", payload)
        assert (reply.status, reply.response["reason"]) == ("error", reason)

    with_client(body)


def test_a_client_that_comes_back_with_the_last_event_it_saw_misses_none() -> None:
    async def body(cell: RunningCell) -> None:
        topics = cell.cell._port.topics
        async with phoenix_client(cell.url) as client:
            await client.join()
            topics.publish("client.a", {"n": 0})
            seen = (await client.event("client.a")).payload["event_id"]
        for number in range(1, 4):
            topics.publish("client.a", {"n": number})
        await until(lambda: topics.last_id >= seen + 3)
        async with phoenix_client(cell.url) as client:
            await client.join(payload={"last_event_id": seen})
            missed = [(await client.event("client.a")).payload for _ in range(3)]
            assert [each["data"]["n"] for each in missed] == [1, 2, 3]
            assert [each["event_id"] for each in missed] == [seen + 1, seen + 2, seen + 3]

    on_cell(body)


def test_a_client_that_comes_back_too_late_reads_which_events_are_lost() -> None:
    async def body(cell: RunningCell) -> None:
        topics = cell.cell._port.topics
        before = counted("events_lost_total")
        first = topics.last_id
        for number in range(12):
            topics.publish("client.a", {"n": number})
        await until(lambda: topics.last_id >= first + 12)
        async with phoenix_client(cell.url) as client:
            await client.join(payload={"last_event_id": 0})
            gap = await client.find(event="gap")
            lost = topics.last_id - 5
            assert (gap.payload, gap.topic) == ({"first_id": 1, "last_id": lost, "count": lost}, TOPIC)
            assert [(await client.event("client.a")).payload["data"]["n"] for _ in range(5)] == [7, 8, 9, 10, 11]
            assert counted("events_lost_total") == before + lost

    on_cell(body, transports={"http_sse": {"retention_events": 5}})


def test_a_client_that_does_not_read_holds_back_nobody_and_reads_everything_in_order_later() -> None:
    count = 400

    async def body(cell: RunningCell) -> None:
        topics = cell.cell._port.topics
        async with RawWebSocket(cell.settings.gateway.port, "/mcp/websocket?vsn=2.0.0") as stalled:
            stalled.send(TEXT, b'["j1","r1","mcp:client.*","phx_join",{}]')
            await stalled.receive()
            stalled.reader._transport.pause_reading()  # type: ignore[attr-defined]
            async with phoenix_client(cell.url) as other:
                await other.join("mcp:client.*")
                for number in range(count):
                    topics.publish("client.a", {"n": number, "text": "x" * 15_000})
                    if number % 20 == 19:
                        assert [(await other.event("client.a", "mcp:client.*")).payload["data"]["n"] for _ in range(20)] == [
                            *range(number - 19, number + 1)
                        ]
                assert max(each.unsent_bytes for each in cell.cell._sockets._open) < 600_000
            stalled.reader._transport.resume_reading()  # type: ignore[attr-defined]
            for number in range(count):
                told = json.loads((await stalled.receive()).payload)
                assert (told[3], told[4]["data"]["n"]) == ("event", number)
        assert "mcp.sse.backpressure" in cell.link.topics()

    on_cell(body)


# ---- faults


def test_a_defect_of_a_channel_ends_this_channel_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: PhoenixChannel, message: Any) -> None:
        raise RuntimeError("made to fail")

    async def body(client: PhoenixClient, cell: RunningCell) -> None:
        await client.join()
        await client.join("mcp:vsm.*")
        with monkeypatch.context() as patch:
            patch.setattr(PhoenixChannel, "take", fail)
            await client.push("j1", TOPIC, "ping", {})
            over = await client.find(event="phx_error")
        assert (over.join_ref, over.topic, over.payload) == ("j1", TOPIC, {"reason": "channel_crash"})
        assert (await client.ask("j1", "mcp:vsm.*", "ping", {})).status == "ok"
        await client.join(join_ref="j2")
        assert (await client.ask("j2", TOPIC, "ping", {})).status == "ok"

    with_client(body)


def test_a_frame_that_is_no_phoenix_message_ends_the_socket_and_says_so() -> None:
    async def body(cell: RunningCell) -> None:
        port = cell.settings.gateway.port
        for version, opcode, data, code in (
            ("2.0.0", TEXT, b"hello", 1007),
            ("2.0.0", TEXT, b'{"topic":"phoenix"}', 1007),
            ("2.0.0", BINARY, b"\x01", 1007),
            ("1.0.0", TEXT, b"[]", 1007),
            ("1.0.0", BINARY, b"\x00\x00\x00\x00\x00", 1003),
        ):
            async with RawWebSocket(port, f"/mcp/websocket?vsn={version}") as client:
                client.send(opcode, data)
                received = await client.receive()
                assert (received.code, b"Phoenix" in received.payload) == (code, True)

    on_cell(body)


def test_a_last_event_of_the_future_is_waited_for_and_then_the_log_starts_from_its_beginning(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As of a gateway that has lost its log: no news is needed for it."""
    monkeypatch.setattr("mcp_gateway.transports.protocol.topics.topic_cursor.AHEAD_GRACE_S", 0.3)

    async def body(client: PhoenixClient, cell: RunningCell) -> None:
        await client.join()
        await client.ask("j1", TOPIC, "event", {"event": "early", "data": {"n": 1}})
        await client.event("client.early")
        last_id = cell.cell._port.topics.last_id
        await client.join("mcp:client.*", payload={"last_event_id": last_id + 500})
        assert (await client.event("client.early", "mcp:client.*")).payload["data"] == {"n": 1}

    with_client(body)


def test_a_drain_lets_requests_end_and_then_says_goodbye() -> None:
    async def body(client: PhoenixClient, cell: RunningCell) -> None:
        await client.join()
        await client.join("mcp:vsm.*")
        slow = {"name": "slow", "arguments": {"seconds": 2, "steps": 2}}
        ref = await client.push("j1", TOPIC, "request", {"method": "tools/call", "params": slow, "id": 1})
        await until(lambda: bool(cell.cell._port.waiting))
        draining = asyncio.create_task(cell.cell.drain(10))
        await asyncio.sleep(0)
        late = await client.ask("j1", TOPIC, "request", {"method": "tools/list", "id": 2})
        assert late.response["error"]["data"]["reason"] == "draining"
        assert (await client.ask("j3", "mcp:client.*", "phx_join", {})).response["reason"] == "draining"
        assert (await client.find(event="phx_reply", ref=ref)).status == "ok"
        with pytest.raises(ConnectionClosed):
            while True:
                await client.receive()
        assert client.connection.close_code == 1001
        await draining

    with_client(body)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=10,
)
arrays = st.tuples(
    st.sampled_from(["j1", None]) | json_values,
    st.sampled_from(["r1", None]) | json_values,
    st.sampled_from([TOPIC, "mcp:vsm.*", "phoenix"]) | json_values,
    st.sampled_from(["phx_join", "phx_leave", "request", "event", "response", "ping", "heartbeat"]) | json_values,
    st.fixed_dictionaries({}, optional={"method": st.sampled_from(["echo", "tools/list", "tools/call"]), "id": json_values,
                                        "params": json_values, "event": st.text(max_size=8), "data": json_values}) | json_values,
)  # fmt: skip


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.lists(arrays | json_values, max_size=12), min_size=5, max_size=20))
def test_any_json_is_replied_to_or_ends_its_own_socket_alone(sockets: list[list[Any]]) -> None:
    async def body(cell: RunningCell) -> None:
        async with phoenix_client(cell.url) as other:
            await other.join()
            for messages in sockets:
                async with phoenix_client(cell.url) as client:
                    try:
                        for message in messages:
                            await client.connection.send(json.dumps(message))
                        await client.ask(None, "phoenix", "heartbeat", {})
                    except ConnectionClosed:
                        assert client.connection.close_code == 1007
            assert (await other.ask("j1", TOPIC, "ping", {})).status == "ok"
            assert "phx_error" not in [told.event for told in other.told]

    on_cell(body)


def counted(name: str) -> float:
    return REGISTRY.get_sample_value(f"mcp_gateway_{name}", {"transport": "websocket"}) or 0.0
