"""One client on a connection that goes both ways: what its messages become, and what it reads."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from mcp_gateway.transports.downstream.exchanges.client_channel import (
    MOST_OPEN_REQUESTS,
    MOST_UNREAD_BYTES,
    ClientChannel,
    ConnectedClient,
)
from mcp_gateway.transports.downstream.server.buffered_bytes import IN, BufferedBytes
from mcp_gateway.transports.downstream.server.request_limiter import RequestLimiter
from mcp_gateway.transports.ports.request_kind import RequestKind
from mcp_gateway.transports.protocol.mcp.jsonrpc import Notification, Request, Response
from mcp_gateway.transports.protocol.mcp.refusals import Refused
from mcp_gateway.transports.telemetry import metrics
from mcp_gateway.transports.telemetry.tallies import write_tallies
from tests.doubles.patience import patience
from tests.doubles.running_cell import cell_settings
from tests.doubles.scripted_port import Opened, ScriptedPort

PREFIX = "io.modelcontextprotocol/"
META = {f"{PREFIX}protocolVersion": "2026-07-28", f"{PREFIX}clientCapabilities": {}}
UNKNOWN = {**META, f"{PREFIX}protocolVersion": "2099-01-01"}
LACKING = {f"{PREFIX}protocolVersion": "2026-07-28"}


class Client:
    """A channel, the edge behind it, and what the client has been sent: (message, id of the request it is about)."""

    def __init__(self, gateway: dict[str, Any], **limits: Any) -> None:
        settings = cell_settings(limits=limits, gateway=gateway)
        self.port = ScriptedPort(settings)
        self.read: list[tuple[Any, bytes | None]] = []
        self.unread: list[asyncio.Future[None]] = []
        self.is_stalled = False
        limiter = RequestLimiter(settings, self.port.publish)
        client = ConnectedClient(transport="websocket", keys={"ip": "1", "user": "ada"})
        self.buffered = BufferedBytes(settings.gateway)
        self.channel = ClientChannel(self.port, limiter, self.buffered, self, client)

    def send(self, data: bytes, about: bytes | None) -> asyncio.Future[None] | None:
        self.read.append((json.loads(data), about))
        if not self.is_stalled:
            return None
        self.unread.append(asyncio.get_running_loop().create_future())
        return self.unread[-1]

    def says(self, **message: Any) -> Opened:
        """Send a message; gives the exchange that it has opened last."""
        self.channel.receive(json.dumps({"jsonrpc": "2.0", **message}).encode())
        return self.port.opened[-1]

    def refused(self, **message: Any) -> tuple[str, Any]:
        """(reason, id) of the refusal that the message meets."""
        with pytest.raises(Refused) as caught:
            self.says(**message)
        request_id = caught.value.request_id
        return caught.value.reason, None if request_id is None else json.loads(request_id)

    def opens_session(self) -> Opened:
        """Go through the handshake; gives the exchange of the session's own stream."""
        params = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "n", "version": "1"}}
        opening = self.says(id=0, method="initialize", params=params)
        opening.sink.answer(200, b'{"jsonrpc":"2.0","id":0,"result":{}}', {"Mcp-Session-Id": "sealed"}, "files", 0.0)
        self.says(method="notifications/initialized")
        self.port.opened[1].sink.answer(202, b"", {}, "files", 0.0)
        (stream,) = self.port.of_kind(RequestKind.STREAM)
        return stream


def on_loop(body: Callable[[Client], Awaitable[None]], gateway: dict[str, Any] | None = None, **limits: Any) -> None:
    async def run() -> None:
        async with patience():
            await body(Client(gateway or {}, **limits))

    asyncio.run(run())


def test_a_request_is_counted_before_its_client_has_the_answer() -> None:
    """The client may ask another cell for the metrics at once."""
    metrics.known_backend.learn(("counted",))

    def count() -> float:
        write_tallies()
        samples = (each for metric in metrics.requests_total.collect() for each in metric.samples)
        return sum(each.value for each in samples if each.name.endswith("_total") and each.labels["backend"] == "counted")

    async def body(client: Client) -> None:
        counts: list[float] = []
        send = client.send

        def counting(data: bytes, about: bytes | None) -> asyncio.Future[None] | None:
            counts.append(count())
            return send(data, about)

        client.send = counting  # type: ignore[method-assign]
        client.says(id=1, method="tools/list", params={"_meta": META}).sink.answer(200, b"{}", {}, "counted", 0.0)
        client.says(id=2, method="tools/list", params={"_meta": META}).sink.refuse(Refused("no_backend", "none"), "counted")
        assert counts == [1, 2]

    on_loop(body)


# ---- sessions


def test_the_handshake_opens_a_session_and_its_stream_and_requests_are_served_in_it() -> None:
    async def body(client: Client) -> None:
        stream = client.opens_session()
        assert client.read == [({"jsonrpc": "2.0", "id": 0, "result": {}}, b"0")]
        told = client.port.opened[1].exchange
        assert told.message == Notification("notifications/initialized", b"")
        assert stream.exchange.deadline_s == float("inf")
        call = client.says(id="a", method="tools/call", params={"name": "x"})
        exchange = call.exchange
        assert (exchange.transport, exchange.revision, exchange.target) == ("websocket", "2025-11-25", "tools/call/x")
        assert exchange.session is not None
        assert dict(exchange.hash_keys) == {"ip": "1", "user": "ada", "session": "key"}
        call.sink.answer(200, b'{"jsonrpc":"2.0","id":"a","result":{"ok":1}}', {}, "files", 0.0)
        assert client.read[-1] == ({"jsonrpc": "2.0", "id": "a", "result": {"ok": 1}}, b'"a"')

    on_loop(body)


def test_a_session_that_could_not_be_opened_may_be_asked_for_again() -> None:
    async def body(client: Client) -> None:
        params = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {}}
        opening = client.says(id=0, method="initialize", params=params)
        assert client.refused(id=1, method="initialize", params=params) == ("invalid_request", 1)
        opening.sink.refuse(Refused("upstream_failed", "down"), "files")
        assert client.read[-1][0]["error"]["data"]["reason"] == "upstream_failed"
        assert client.read[-1][0]["id"] == 0
        client.opens_session()
        assert client.refused(id=3, method="initialize", params=params) == ("invalid_request", 3)

    on_loop(body)


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ({"id": 1, "method": "tools/list"}, ("invalid_request", 1)),
        ({"id": 1, "method": "initialize"}, ("invalid_params", 1)),
        ({"id": 1, "method": "tools/call", "params": {"_meta": LACKING}}, ("invalid_params", 1)),
        ({"id": 1, "method": "x", "params": {"_meta": UNKNOWN}}, ("unsupported_version", 1)),
        ({"id": 1, "method": "tools/call", "params": {"_meta": META}}, ("invalid_params", 1)),
        ({"id": 1, "result": {}}, ("invalid_request", None)),
        ({"id": {}, "method": "ping"}, ("invalid_request", None)),
        ({"id": 1, "method": 7}, ("invalid_request", 1)),
    ],
)
def test_what_is_refused_before_it_is_an_exchange(message: dict[str, Any], expected: tuple[str, Any]) -> None:
    async def body(client: Client) -> None:
        assert client.refused(**message) == expected
        assert client.port.opened == []

    on_loop(body)


def test_a_ping_is_answered_here_and_a_stray_notification_ignored() -> None:
    async def body(client: Client) -> None:
        client.channel.receive(b'{"jsonrpc":"2.0","id":5,"method":"ping"}')
        assert client.read == [({"jsonrpc": "2.0", "id": 5, "result": {}}, b"5")]
        client.channel.receive(b'{"jsonrpc":"2.0","method":"notifications/initialized"}')
        assert client.port.opened == []

    on_loop(body)


def test_the_clients_answer_to_a_server_is_passed_on_in_its_session() -> None:
    async def body(client: Client) -> None:
        stream = client.opens_session()
        stream.sink.begin({})
        stream.sink.event(b'{"jsonrpc":"2.0","id":"q","method":"roots/list"}', None)
        assert client.read[-1] == ({"jsonrpc": "2.0", "id": "q", "method": "roots/list"}, None)
        answer = client.says(id="q", result={"roots": []})
        assert answer.exchange.message == Response(b'"q"', b'{"roots": []}', b"")
        assert answer.exchange.session is not None

    on_loop(body)


# ---- the stateless revision


def test_a_stateless_request_needs_no_session() -> None:
    async def body(client: Client) -> None:
        call = client.says(id=1, method="tools/call", params={"name": "x", "_meta": META})
        assert (call.exchange.revision, call.exchange.session) == ("2026-07-28", None)
        listening = client.says(id=2, method="subscriptions/listen", params={"_meta": META})
        assert listening.exchange.deadline_s == float("inf")
        assert call.exchange.deadline_s != float("inf")

    on_loop(body)


# ---- events and credit


def test_an_answer_in_pieces_is_one_message() -> None:
    async def body(client: Client) -> None:
        client.opens_session()
        client.says(id=1, method="tools/list").sink.answer(200, (b'{"id":1,"result":', b"{}", b"}"), {}, "files", 0.0)
        assert client.read[-1] == ({"id": 1, "result": {}}, b"1")

    on_loop(body)


def test_events_come_in_order_under_their_request_and_are_credited_when_they_are_read() -> None:
    async def body(client: Client) -> None:
        call = client.says(id=1, method="tools/call", params={"name": "x", "_meta": META})
        client.is_stalled = True
        call.sink.begin({})
        call.sink.event(b'{"jsonrpc":"2.0","method":"notifications/progress"}', None)
        call.sink.event(b"", "an id alone")  # says nothing on a socket: taken at once
        assert (call.flushed, client.read[-1][1]) == (1, b"1")
        client.unread[0].set_result(None)
        await asyncio.sleep(0)
        assert call.flushed == 2
        call.sink.event(b'{"jsonrpc":"2.0","id":1,"result":{}}', None)
        call.sink.end("files", 0.1)
        assert client.read[-1] == ({"jsonrpc": "2.0", "id": 1, "result": {}}, b"1")

    on_loop(body)


def test_a_client_that_does_not_read_is_congested_until_it_has() -> None:
    async def body(client: Client) -> None:
        client.is_stalled = True
        body = b'{"jsonrpc":"2.0","id":1,"result":{"x":"' + b"x" * MOST_UNREAD_BYTES + b'"}}'
        call = client.says(id=1, method="tools/call", params={"name": "x", "_meta": META})
        assert not client.channel.is_congested
        call.sink.answer(200, body, {}, "files", 0.0)
        assert client.channel.is_congested
        client.unread[0].set_result(None)
        await asyncio.sleep(0)
        assert not client.channel.is_congested

    on_loop(body)


def test_a_connection_that_has_ended_is_not_congested_and_credits_nothing() -> None:
    async def body(client: Client) -> None:
        client.is_stalled = True
        call = client.says(id=1, method="tools/call", params={"name": "x", "_meta": META})
        call.sink.answer(200, b'"' + b"x" * (MOST_UNREAD_BYTES + 1) + b'"', {}, "files", 0.0)
        client.channel.close()
        assert not client.channel.is_congested
        client.unread[0].set_exception(ConnectionError())
        await asyncio.sleep(0)
        assert call.flushed == 0

    on_loop(body)


# ---- cancellation and the end


def test_a_cancelled_stateless_request_is_given_up_and_answers_no_more() -> None:
    async def body(client: Client) -> None:
        call = client.says(id="a", method="tools/call", params={"name": "x", "_meta": META})
        client.says(method="notifications/cancelled", params={"requestId": "a"})
        assert call.is_closed
        call.sink.answer(200, b'{"jsonrpc":"2.0","id":"a","result":{}}', {}, "files", 0.0)
        assert client.read == []
        assert client.says(id="a", method="tools/call", params={"name": "x", "_meta": META}) is not call

    on_loop(body)


def test_a_cancelled_request_of_a_session_is_told_to_its_server() -> None:
    async def body(client: Client) -> None:
        client.opens_session()
        call = client.says(id=1, method="tools/call", params={"name": "x"})
        told = client.says(method="notifications/cancelled", params={"requestId": 1, "reason": "enough"})
        assert told.exchange.message == Notification("notifications/cancelled", b'{"requestId": 1, "reason": "enough"}')
        assert call.is_closed

    on_loop(body)


@pytest.mark.parametrize("params", [{}, {"requestId": 99}, {"requestId": None}, {"requestId": 0}])
def test_a_cancellation_of_nothing_is_ignored(params: dict[str, Any]) -> None:
    """Source: MCP 2026-07-28, basic/patterns/cancellation, "Error Handling"; `initialize` must not be cancelled."""

    async def body(client: Client) -> None:
        opening = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {}}
        initializing = client.says(id=0, method="initialize", params=opening)
        client.says(method="notifications/cancelled", params=params)
        assert client.port.opened == [initializing]
        assert not initializing.is_closed

    on_loop(body)


def test_the_end_of_the_connection_cancels_what_runs_and_ends_the_session() -> None:
    async def body(client: Client) -> None:
        stream = client.opens_session()
        calls = [client.says(id=number, method="tools/call", params={"name": "x"}) for number in (1, 2)]
        stateless = client.says(id=3, method="tools/call", params={"name": "x", "_meta": META})
        before = len(client.port.opened)
        client.channel.close()
        client.channel.close()
        # 1. Nobody waits for anything any more.
        assert all(each.is_closed for each in (*calls, stateless, stream))
        # 2. The session's servers are told what to stop, and only when they know, that the session is over.
        told = client.port.opened[before:]
        ids = [json.loads(each.exchange.message.params)["requestId"] for each in told]  # type: ignore[union-attr]
        assert ids == [1, 2]
        told[0].sink.answer(202, b"", {}, "files", 0.0)
        assert client.port.of_kind(RequestKind.TERMINATE) == []
        told[1].sink.refuse(Refused("upstream_failed", "gone"), "files")
        (ended,) = client.port.of_kind(RequestKind.TERMINATE)
        assert ended.exchange.session is not None
        assert client.read[1:] == []

    on_loop(body)


def test_a_session_ends_after_its_servers_have_taken_what_was_told_before() -> None:
    """A server that reads of progress in a session that it has just ended may fail at it."""

    async def body(client: Client) -> None:
        client.opens_session()
        told = client.says(method="notifications/progress", params={"progressToken": 1, "progress": 1})
        client.channel.close()
        assert client.port.of_kind(RequestKind.TERMINATE) == []
        told.sink.answer(202, b"", {}, "files", 0.0)
        (_,) = client.port.of_kind(RequestKind.TERMINATE)

    on_loop(body)


def test_a_channel_is_idle_when_its_last_request_has_been_answered() -> None:
    async def body(client: Client) -> None:
        idle: list[str] = []
        client.channel.when_idle(lambda: idle.append("at once"))
        call = client.says(id=1, method="tools/call", params={"name": "x", "_meta": META})
        client.channel.when_idle(lambda: idle.append("later"))
        assert idle == ["at once"]
        call.sink.answer(200, b'{"jsonrpc":"2.0","id":1,"result":{}}', {}, "files", 0.0)
        assert idle == ["at once", "later"]

    on_loop(body)


# ---- limits


def test_an_id_may_be_used_again_only_when_its_request_has_ended() -> None:
    async def body(client: Client) -> None:
        call = client.says(id=1, method="tools/call", params={"name": "x", "_meta": META})
        assert client.refused(id=1, method="tools/call", params={"name": "x", "_meta": META}) == ("invalid_request", 1)
        call.sink.answer(200, b'{"jsonrpc":"2.0","id":1,"result":{}}', {}, "files", 0.0)
        client.says(id=1, method="tools/call", params={"name": "x", "_meta": META})

    on_loop(body)


def test_requests_at_the_limit_run_and_the_one_past_it_is_refused() -> None:
    async def body(client: Client) -> None:
        for number in range(MOST_OPEN_REQUESTS):
            client.says(id=number, method="tools/call", params={"name": "x", "_meta": META})
        past = {"id": "past", "method": "tools/call", "params": {"name": "x", "_meta": META}}
        assert client.refused(**past) == ("too_many_connections", "past")
        client.port.opened[0].sink.answer(200, b'{"jsonrpc":"2.0","id":0,"result":{}}', {}, "files", 0.0)
        client.says(**past)

    on_loop(body)


CALL = {"method": "tools/call", "params": {"name": "x", "arguments": {"text": "x" * 600_000}, "_meta": META}}


def test_the_bytes_of_a_request_are_held_until_it_is_over_and_the_one_past_the_bound_is_refused() -> None:
    async def body(client: Client) -> None:
        share = client.buffered.budget.largest_share
        fitting = share // 603_000
        calls = [client.says(id=number, **CALL) for number in range(fitting)]
        assert fitting * 600_000 < client.buffered.held[IN] <= share
        assert client.refused(id="past", **CALL) == ("too_many_connections", "past")
        # 1. An answer, a cancellation and the end of the connection each give them back.
        calls[0].sink.answer(200, b"{}", {}, "files", 0.0)
        client.says(id="next", **CALL)
        client.says(method="notifications/cancelled", params={"requestId": 1})
        client.says(id="again", **CALL)
        client.channel.close()
        assert client.buffered.held[IN] == 0

    on_loop(body)


def test_notifications_that_no_server_takes_are_bounded_too() -> None:
    async def body(client: Client) -> None:
        client.opens_session()
        with pytest.raises(Refused) as caught:
            for _ in range(client.buffered.budget.largest_share // 2_048 + 1):
                client.says(method="notifications/progress", params={"progressToken": 1, "progress": 1})
        assert caught.value.reason == "too_many_connections"
        assert caught.value.request_id is None
        told = client.port.opened[-1]
        told.sink.answer(202, b"", {}, "files", 0.0)
        client.says(method="notifications/progress", params={"progressToken": 1, "progress": 1})

    on_loop(body, gateway={"max_buffered_bytes": 4_194_304})


def test_a_client_past_its_rate_is_refused_and_told_when_to_come_back() -> None:
    async def body(client: Client) -> None:
        client.says(id=1, method="tools/call", params={"name": "x", "_meta": META})
        assert client.refused(id=2, method="ping") == ("rate_limited", 2)

    on_loop(body, requests_per_second=0.001, burst=1)


def test_a_client_past_its_day_is_refused_and_its_pings_are_not() -> None:
    async def body(client: Client) -> None:
        client.says(id=1, method="tools/call", params={"name": "x", "_meta": META})
        client.says(id=2, method="ping")
        assert client.refused(id=3, method="tools/call", params={"name": "x", "_meta": META}) == ("rate_limited", 3)

    on_loop(body, requests_per_day=1)


@pytest.mark.parametrize("state", ["draining", "removed"])
def test_a_gateway_that_drains_or_serves_the_transport_no_more_refuses_requests(state: str) -> None:
    async def body(client: Client) -> None:
        if state == "draining":
            client.port.is_draining = True
        else:
            client.port.enabled_transports = frozenset()
        assert client.refused(id=1, method="ping") == ("draining", 1)

    on_loop(body)


def test_a_message_that_was_read_already_is_served_as_well() -> None:
    async def body(client: Client) -> None:
        params = json.dumps({"name": "x", "_meta": META}).encode()
        client.channel.receive_message(Request(b"1", "tools/call", params))
        assert client.port.opened[0].exchange.target == "tools/call/x"

    on_loop(body)
