"""Modern clients of a scripted legacy server: every call runs once, whatever its client, its server or its state does."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

import attrs
import pytest

from mcp_gateway.transports.protocol.call_state import CallState, sealed_state
from mcp_gateway.transports.protocol.jsonrpc import Message, Notification, Request, Response
from mcp_gateway.transports.protocol.parked_calls import ParkedCalls, ParkingLimits
from mcp_gateway.transports.protocol.revisions import (
    META_CLIENT_CAPABILITIES,
    META_CLIENT_INFO,
    META_LOG_LEVEL,
    META_SERVER_INFO,
    META_VERSION,
    NEWEST,
)
from mcp_gateway.transports.protocol.sealing import Seal
from mcp_gateway.transports.transport import UpstreamAnswer, UpstreamError, UpstreamRequest
from mcp_gateway.transports.upstream.bridge_site import BridgeSite
from mcp_gateway.transports.upstream.legacy_sessions import LegacySessions
from mcp_gateway.transports.upstream.to_legacy_server import ToLegacyServer
from tests.doubles.handshake_wire import HandshakeWire
from tests.doubles.scripted_wire import Exchange

SEAL = Seal(b"0123456789abcdef")
ASKING = {"elicitation": {}, "sampling": {}, "roots": {}}
ELICIT = Request(b'"e1"', "elicitation/create", b'{"message":"Who?","requestedSchema":{"type":"object","properties":{}}}')
ACCEPT = {"action": "accept", "content": {"name": "Ada"}}


@attrs.define(slots=False)
class Bridge:
    """The bridge, its wire, and what clients have been told. limits: of parked calls."""

    limits: ParkingLimits = attrs.field(factory=ParkingLimits)
    has_streams: bool = True
    wire: HandshakeWire = attrs.field(factory=HandshakeWire)
    events: list[Message | None] = attrs.field(factory=list)

    def __attrs_post_init__(self) -> None:
        self.site = BridgeSite(cell_name="cell/0", seal=SEAL, parked=ParkedCalls(self.limits))
        self.bridge = self.started()

    def started(self) -> ToLegacyServer:
        return ToLegacyServer(
            self.wire, self.site, backend="files", replica="http://a", revision="2025-11-25", has_streams=self.has_streams
        )

    def send(
        self,
        method: str = "tools/call",
        *,
        params: dict[str, Any] | None = None,
        capabilities: dict[str, Any] | None = None,
        user: str = "",
        ip: str = "1.1.1.1",
        info: str = "c",
        kind: str = "request",
        timeout_s: float | None = None,
        headers: dict[str, str] | None = None,
        **meta: Any,
    ) -> asyncio.Future[UpstreamAnswer]:
        """A client's request; extra keywords go into `_meta`. headers: of a client that came over HTTP."""
        fields = {
            META_VERSION: NEWEST,
            META_CLIENT_INFO: {"name": info, "version": "1"},
            META_CLIENT_CAPABILITIES: ASKING if capabilities is None else capabilities,
            **meta,
        }
        body = json.dumps({"name": "x", **(params or {}), "_meta": fields}).encode()
        keys = {"ip": ip, **({"user": user} if user else {})}
        request = UpstreamRequest(
            kind=kind,
            message=Request(b'"mine"', method, body),
            revision=NEWEST,
            headers=headers or {},
            has_headers=headers is not None,
            hash_keys=keys,
            timeout_s=timeout_s,
        )

        async def on_event(event: Message | None, event_id: str | None) -> None:
            self.events.append(event)

        return asyncio.ensure_future(self.bridge.exchange(request, on_event))

    def retry(self, asked: dict[str, Any], answers: dict[str, Any] | None = None, **how: Any) -> asyncio.Future[UpstreamAnswer]:
        params = {"requestState": asked["requestState"], **how.pop("params", {})}
        if answers is not None:
            params["inputResponses"] = answers
        return self.send(params=params, **how)

    @property
    def running(self) -> Exchange:
        """The newest request that the server has not answered."""
        return self.wire.open[-1]

    async def parked(self, **how: Any) -> dict[str, Any]:
        """A call whose server has asked for a name; gives what its client was told."""
        call = self.send(**how)
        await turn()
        await self.running.event(ELICIT)
        return shown(await call)


async def turn() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


def shown(answer: UpstreamAnswer) -> dict[str, Any]:
    assert answer.response is not None
    result: dict[str, Any] = json.loads(answer.response.result or answer.response.error)
    return result


def on_loop(body: Callable[[], Awaitable[None]]) -> None:
    async def run() -> None:
        async with asyncio.timeout(10):
            await body()

    asyncio.run(run())


async def refusal(call: Awaitable[UpstreamAnswer]) -> UpstreamError:
    with pytest.raises(UpstreamError) as raised:
        await call
    return raised.value


# ---- one call


def test_a_call_runs_on_a_session_opened_for_its_client() -> None:
    async def body() -> None:
        bridge = Bridge()
        call = bridge.send(traceparent="t")
        await turn()
        assert bridge.wire.initialized == [
            {"protocolVersion": "2025-11-25", "capabilities": ASKING, "clientInfo": {"name": "c", "version": "1"}}
        ]
        request = bridge.running.request
        assert (request.session_id, request.revision) == ("s1", "2025-11-25")
        assert isinstance(request.message, Request)
        assert json.loads(request.message.params) == {"name": "x", "_meta": {"traceparent": "t"}}
        bridge.running.answer(b'{"content":[]}')
        assert shown(await call) == {
            "content": [],
            "resultType": "complete",
            "_meta": {META_SERVER_INFO: {"name": "scripted", "version": "1"}},
        }
        assert bridge.wire.told_methods() == ["notifications/initialized"]

    on_loop(body)


def test_clients_that_a_server_can_tell_apart_never_share_a_session() -> None:
    async def body() -> None:
        bridge = Bridge()
        for how in ({}, {"user": "ada"}, {"info": "d"}, {"capabilities": {}}, {META_LOG_LEVEL: "error"}, {}):
            bridge.send(**how)
            await turn()
        ids = [exchange.request.session_id for exchange in bridge.wire.exchanges]
        assert ids == ["s1", "s2", "s3", "s4", "s5", "s1"]
        assert bridge.wire.told_methods().count("logging/setLevel") == 1

    on_loop(body)


def test_where_calls_share_a_channel_a_call_that_can_be_asked_has_it_for_itself() -> None:
    async def body() -> None:
        bridge = Bridge(has_streams=False)
        first, _ = bridge.send(), bridge.send()
        await turn()
        assert [each.request.session_id for each in bridge.wire.open] == ["s1", "s2"]
        bridge.wire.open[0].answer()
        await first
        bridge.send()
        await turn()
        assert bridge.running.request.session_id == "s1"
        for _ in range(2):
            bridge.send(capabilities={})
            await turn()
        assert [each.request.session_id for each in bridge.wire.open[-2:]] == ["s3", "s3"]

    on_loop(body)


def test_where_calls_share_a_channel_a_session_changes_its_log_level_with_the_call_that_it_is_lent_to() -> None:
    async def body() -> None:
        bridge = Bridge(has_streams=False)
        for level, told_count in ((None, 0), ("error", 1), ("error", 1), ("debug", 2), (None, 2)):
            call = bridge.send(**({META_LOG_LEVEL: level} if level else {}))
            await turn()
            assert bridge.running.request.session_id == "s1"
            assert bridge.wire.told_methods().count("logging/setLevel") == told_count
            bridge.running.answer()
            await call

    on_loop(body)


def test_where_calls_share_a_channel_a_call_runs_on_the_session_that_its_client_listens_with() -> None:
    async def body() -> None:
        bridge = Bridge(has_streams=False)
        bridge.send("subscriptions/listen", params={"notifications": {"toolsListChanged": True}}, kind="stream")
        await turn()
        stream = bridge.running
        assert stream.request.kind == "stream"
        bridge.send(**{META_LOG_LEVEL: "error"})
        await turn()
        assert bridge.running.request.session_id == stream.request.session_id

    on_loop(body)


def test_where_calls_share_a_channel_a_call_with_log_messages_has_none_that_shares_its_session() -> None:
    async def body() -> None:
        bridge = Bridge(has_streams=False)
        first = bridge.send(capabilities={})
        await turn()
        bridge.running.answer()
        await first  # its session idles, and is the one that calls of this kind share
        bridge.send(capabilities={}, **{META_LOG_LEVEL: "error"})
        await turn()
        bridge.send(capabilities={})
        await turn()
        assert [each.request.session_id for each in bridge.wire.open] == ["s2", "s1"]

    on_loop(body)


def test_where_calls_share_a_channel_every_session_tells_what_its_own_calls_change() -> None:
    async def body() -> None:
        bridge = Bridge(has_streams=False)
        wanted = {"notifications": {"resourceSubscriptions": ["a:1"]}}
        listening = bridge.send("subscriptions/listen", params=wanted, kind="stream")
        await turn()
        assert bridge.running.request.on_open is not None
        bridge.running.request.on_open()
        await turn()
        bridge.send()  # on the session that listens
        await turn()
        assert bridge.wire.told_methods() == ["notifications/initialized", "resources/subscribe"]
        other = bridge.send()
        await turn()
        assert bridge.running.request.session_id == "s2"
        assert bridge.wire.told_methods()[2:] == ["notifications/initialized", "resources/subscribe"]
        await bridge.running.event(Notification("notifications/resources/updated", b'{"uri":"a:1"}'))
        await turn()
        assert isinstance(bridge.events[-1], Notification)
        assert bridge.events[-1].method == "notifications/resources/updated"
        bridge.running.answer()
        await other
        bridge.send()
        await turn()
        assert bridge.running.request.session_id == "s2"
        assert len(bridge.wire.told_methods()) == 4, "once is enough"
        listening.cancel()
        await turn()

    on_loop(body)


def test_a_session_that_was_listened_with_watches_again_when_somebody_else_listens() -> None:
    async def body() -> None:
        bridge = Bridge(has_streams=False)
        watch = {"params": {"notifications": {"resourceSubscriptions": ["a:1"]}}, "kind": "stream"}

        async def listen() -> asyncio.Future[UpstreamAnswer]:
            listening = bridge.send("subscriptions/listen", **watch)
            await turn()
            assert bridge.running.request.on_open is not None
            bridge.running.request.on_open()
            await turn()
            return listening

        async def two_calls() -> None:
            calls = [bridge.send(), bridge.send()]
            await turn()
            for each in [each for each in bridge.wire.open if each.request.kind == "request"]:
                each.answer()
            await asyncio.gather(*calls)

        listened_with = []
        for _ in range(4):
            listening = await listen()
            listened_with.append(bridge.running.request.session_id)
            await two_calls()
            assert bridge.wire.watching("a:1") == {"s1", "s2"}
            listening.cancel()
            await turn()
            await two_calls()  # the session used last is the one that is listened with next
        assert set(listened_with) == {"s1", "s2"}

    on_loop(body)


def test_progress_comes_under_the_clients_own_token_and_only_where_it_was_asked_for() -> None:
    async def body() -> None:
        bridge = Bridge()
        bridge.send(progressToken="mine")
        await turn()
        message = bridge.running.request.message
        assert isinstance(message, Request)
        token = json.loads(message.params)["_meta"]["progressToken"]
        await bridge.running.event(Notification("notifications/progress", b'{"progressToken":%d,"progress":1}' % token))
        await bridge.running.event(Notification("notifications/progress", b'{"progressToken":99,"progress":1}'))
        bridge.send()
        await turn()
        await bridge.running.event(Notification("notifications/progress", b'{"progressToken":%d,"progress":1}' % (token + 1)))
        assert bridge.events == [Notification("notifications/progress", b'{"progressToken":"mine","progress":1}')]

    on_loop(body)


@pytest.mark.parametrize(("wanted", "heard"), [(None, []), ("error", ["error", "alert"]), ("debug", ["debug", "error", "alert"])])
def test_log_messages_come_only_from_the_level_that_the_request_asks_for(wanted: str | None, heard: list[str]) -> None:
    """Source: MCP 2026-07-28, server/utilities/logging, "Per-request log level"."""

    async def body() -> None:
        bridge = Bridge()
        bridge.send(**({} if wanted is None else {META_LOG_LEVEL: wanted}))
        await turn()
        for level in ("debug", "error", "alert", "loud"):
            await bridge.running.event(Notification("notifications/message", json.dumps({"level": level}).encode()))
        levels = [json.loads(event.params)["level"] for event in bridge.events if isinstance(event, Notification)]
        assert levels == heard

    on_loop(body)


def test_a_client_that_goes_cancels_its_call_on_the_server() -> None:
    """Source: MCP 2025-11-25, basic/utilities/cancellation: a closed connection alone cancels nothing."""

    async def body() -> None:
        bridge = Bridge()
        call = bridge.send()
        await turn()
        exchange = bridge.running
        call.cancel()
        await turn()
        assert exchange.is_cancelled
        _, told = bridge.wire.told[-1]
        assert isinstance(told, Notification)
        assert told.method == "notifications/cancelled"
        assert isinstance(exchange.request.message, Request)
        assert json.loads(told.params)["requestId"] == json.loads(exchange.request.message.id)

    on_loop(body)


def test_a_call_past_its_deadline_is_cancelled_and_said_to_be_late() -> None:
    async def body() -> None:
        bridge = Bridge()
        late = await refusal(bridge.send(timeout_s=0.05))
        assert late.reason == "upstream_timeout"
        await turn()
        assert bridge.wire.told_methods()[-1] == "notifications/cancelled"

    on_loop(body)


def test_a_server_that_has_lost_the_session_gets_the_call_once_more_in_a_new_one() -> None:
    async def body() -> None:
        bridge = Bridge()
        call = bridge.send()
        lost = UpstreamError("session_not_found", "gone", is_session_lost=True)
        await turn()
        bridge.running.fail(lost)
        await turn()
        assert bridge.running.request.session_id == "s2"
        bridge.running.fail(lost)
        assert (await refusal(call)).reason == "upstream_failed"
        assert len(bridge.wire.exchanges) == 2

    on_loop(body)


def test_an_error_has_the_code_of_the_modern_era() -> None:
    async def body() -> None:
        bridge = Bridge()
        call = bridge.send("resources/read")
        await turn()
        error = Response(b"1", b"", b'{"code":-32002,"message":"Resource not found"}')
        bridge.running.result.set_result(UpstreamAnswer(200, error))
        answer = await call
        assert (shown(answer)["code"], answer.status) == (-32602, 400)

    on_loop(body)


def test_discovery_is_answered_from_the_handshake() -> None:
    async def body() -> None:
        bridge = Bridge()
        told = shown(await bridge.send("server/discover"))
        assert (told["_meta"], told["capabilities"]) == (
            {META_SERVER_INFO: {"name": "scripted", "version": "1"}},
            bridge.wire.capabilities,
        )
        assert bridge.wire.exchanges == []

    on_loop(body)


# ---- questions


def test_a_call_that_is_asked_something_waits_and_goes_on_with_the_answer() -> None:
    """Source: MCP 2026-07-28, basic/patterns/mrtr, "Basic Workflow"."""

    async def body() -> None:
        bridge = Bridge()
        asked = await bridge.parked()
        assert asked["resultType"] == "input_required"
        assert asked["inputRequests"] == {"elicitation-1": {"method": "elicitation/create", "params": json.loads(ELICIT.params)}}
        retry = bridge.retry(asked, {"elicitation-1": ACCEPT, "unknown": {}})
        await turn()
        session_id, told = bridge.wire.told[-1]
        assert (session_id, told) == ("s1", Response(b'"e1"', json.dumps(ACCEPT).encode(), b""))
        bridge.running.answer(b'{"content":[]}')
        assert shown(await retry)["resultType"] == "complete"
        assert len(bridge.wire.exchanges) == 1
        assert len(bridge.site.parked) == 0

    on_loop(body)


def test_several_questions_are_asked_until_all_are_answered() -> None:
    async def body() -> None:
        bridge = Bridge()
        asked = await bridge.parked()
        await bridge.running.event(Request(b'"r1"', "roots/list", b""))
        both = shown(await bridge.retry(asked))
        assert list(both["inputRequests"]) == ["elicitation-1", "roots-2"]
        one = shown(await bridge.retry(both, {"roots-2": {"roots": []}}))
        assert list(one["inputRequests"]) == ["elicitation-1"]
        retry = bridge.retry(one, {"elicitation-1": ACCEPT})
        await turn()
        bridge.running.answer()
        await retry
        assert [message.id for _, message in bridge.wire.told if isinstance(message, Response)] == [b'"r1"', b'"e1"']
        assert len(bridge.wire.exchanges) == 1

    on_loop(body)


@pytest.mark.parametrize(
    ("how", "params", "reason"),
    [
        ({"user": "eve"}, {}, "forbidden"),
        ({}, {"name": "y"}, "invalid_params"),
        ({}, {"requestState": "altered"}, "invalid_params"),
        ({}, {"inputResponses": {"elicitation-1": 1}}, "invalid_params"),
        ({}, {"inputResponses": 1}, "invalid_params"),
    ],
)
def test_a_retry_that_is_not_this_clients_own_is_refused_and_the_call_still_waits(
    how: dict[str, Any], params: dict[str, Any], reason: str
) -> None:
    async def body() -> None:
        bridge = Bridge()
        asked = await bridge.parked(user="ada")
        refused = await refusal(bridge.retry(asked, **{"user": "ada", **how}, params=params))
        assert (refused.reason, refused.is_fault) == (reason, False)
        retry = bridge.retry(asked, {"elicitation-1": ACCEPT}, user="ada")
        await turn()
        bridge.running.answer()
        await retry
        assert len(bridge.wire.exchanges) == 1

    on_loop(body)


def test_a_state_is_used_once_even_by_two_at_the_same_time() -> None:
    async def body() -> None:
        bridge = Bridge()
        asked = await bridge.parked()
        first, second = (bridge.retry(asked, {"elicitation-1": ACCEPT}) for _ in range(2))
        assert (await refusal(second)).text.startswith("requestState was used already")
        bridge.running.answer()
        await first
        assert (await refusal(bridge.retry(asked, {"elicitation-1": ACCEPT}))).reason == "invalid_params"
        assert len(bridge.wire.exchanges) == 1

    on_loop(body)


@pytest.mark.parametrize("way", ["bridge restarted", "other cell"])
def test_a_call_that_died_with_its_owner_is_said_to_be_lost_and_not_run_again(way: str) -> None:
    async def body() -> None:
        bridge = Bridge()
        asked = await bridge.parked()
        if way == "bridge restarted":
            bridge.bridge = bridge.started()
        else:
            bridge.site.cell_name = "cell/1"
        lost = await refusal(bridge.retry(asked, {"elicitation-1": ACCEPT}))
        assert lost.reason == "upstream_failed"
        assert "NOT run again" in lost.text
        assert len(bridge.wire.exchanges) == 1

    on_loop(body)


def test_a_call_of_another_cell_is_resumed_there() -> None:
    async def body() -> None:
        bridge = Bridge()
        asked = await bridge.parked()
        passed: list[tuple[str, str, str]] = []

        async def elsewhere(cell: str, backend: str, replica: str, request: Any, on_event: Any) -> UpstreamAnswer:
            passed.append((cell, backend, replica))
            return UpstreamAnswer(200, Response(b"1", b"{}", b""))

        bridge.site.cell_name, bridge.site.elsewhere = "cell/1", elsewhere
        await bridge.retry(asked, {"elicitation-1": ACCEPT})
        assert passed == [("cell/0", "files", "http://a")]

    on_loop(body)


def test_a_call_whose_client_stays_away_is_cancelled_and_its_state_expires() -> None:
    async def body() -> None:
        bridge = Bridge(ParkingLimits(park_s=0.05))
        asked = await bridge.parked()
        exchange = bridge.running
        while not exchange.is_cancelled:
            await asyncio.sleep(0.01)
        assert len(bridge.site.parked) == 0
        expired = await refusal(bridge.retry(asked, {"elicitation-1": ACCEPT}))
        assert (expired.reason, "expired" in expired.text) == ("invalid_params", True)

    on_loop(body)


def test_a_result_that_comes_while_the_client_is_away_waits_for_it() -> None:
    async def body() -> None:
        bridge = Bridge()
        asked = await bridge.parked()
        bridge.running.answer(b'{"content":[1]}')
        await turn()
        assert shown(await bridge.retry(asked, {"elicitation-1": ACCEPT}))["content"] == [1]

    on_loop(body)


def test_what_the_server_says_while_the_client_is_away_comes_first_when_it_is_back() -> None:
    async def body() -> None:
        bridge = Bridge()
        asked = await bridge.parked(progressToken=1)
        message = bridge.running.request.message
        assert isinstance(message, Request)
        token = json.loads(message.params)["_meta"]["progressToken"]
        await bridge.running.event(Notification("notifications/progress", b'{"progressToken":%d,"progress":1}' % token))
        retry = bridge.retry(asked, {"elicitation-1": ACCEPT}, progressToken=2)
        await turn()
        assert bridge.events == [Notification("notifications/progress", b'{"progressToken":2,"progress":1}')]
        bridge.running.answer()
        await retry

    on_loop(body)


def test_a_question_that_the_server_takes_back_is_not_asked() -> None:
    async def body() -> None:
        bridge = Bridge()
        asked = await bridge.parked()
        await bridge.running.event(Notification("notifications/cancelled", b'{"requestId":"e1"}'))
        retry = bridge.retry(asked, {"elicitation-1": ACCEPT})
        await turn()
        bridge.running.answer()
        await retry
        assert not any(isinstance(message, Response) for _, message in bridge.wire.told)

    on_loop(body)


@pytest.mark.parametrize(
    ("method", "capabilities", "question"),
    [
        ("tools/call", {}, ELICIT),
        ("tools/call", {"sampling": {}}, ELICIT),
        ("completion/complete", ASKING, ELICIT),
        ("tools/call", ASKING, Request(b'"e1"', "something/else", b"")),
        ("tools/call", ASKING, Request(b'"e1"', "elicitation/create", b'{"mode":"url"}')),
    ],
)
def test_a_question_that_the_client_cannot_answer_is_refused_at_once(
    method: str, capabilities: dict[str, Any], question: Request
) -> None:
    async def body() -> None:
        bridge = Bridge()
        call = bridge.send(method, capabilities=capabilities)
        await turn()
        await bridge.running.event(question)
        await turn()
        _, told = bridge.wire.told[-1]
        assert isinstance(told, Response)
        assert (told.id, json.loads(told.error)["code"]) == (b'"e1"', -32601)
        bridge.running.answer()
        assert shown(await call)["resultType"] == "complete"

    on_loop(body)


def test_a_ping_of_the_server_is_answered_here() -> None:
    async def body() -> None:
        bridge = Bridge()
        bridge.send()
        await turn()
        await bridge.running.event(Request(b"9", "ping", b""))
        await turn()
        assert bridge.wire.told[-1] == ("s1", Response(b"9", b"{}", b""))

    on_loop(body)


def test_a_required_url_is_a_question_after_which_the_request_is_sent_again() -> None:
    """It did not run. Source: MCP 2025-11-25, client/elicitation, "URL Elicitation Required Error"."""

    async def body() -> None:
        bridge = Bridge()
        error = {"code": -32042, "message": "m", "data": {"elicitations": [{"mode": "url", "url": "https://a", "message": "m"}]}}
        refused = UpstreamAnswer(200, Response(b"1", b"", json.dumps(error).encode()))
        call = bridge.send(capabilities={"elicitation": {"url": {}}})
        await turn()
        bridge.running.result.set_result(refused)
        asked = shown(await call)
        assert list(asked["inputRequests"]) == ["url1"]
        retry = bridge.retry(asked, {"url1": {"action": "accept"}}, capabilities={"elicitation": {"url": {}}})
        await turn()
        assert len(bridge.wire.exchanges) == 2
        bridge.running.answer()
        await retry
        unable = bridge.send(capabilities={})
        await turn()
        bridge.running.result.set_result(refused)
        answer = await unable
        assert (answer.status, shown(answer)["code"]) == (400, -32021)

    on_loop(body)


# ---- bounds


@pytest.mark.parametrize(
    ("limits", "clients"),
    [
        (ParkingLimits(in_all=2), ["a", "b", "c"]),
        (ParkingLimits(per_client=2), ["a", "a", "a"]),
        (ParkingLimits(per_backend=2), ["a", "b", "c"]),
    ],
)
def test_as_many_calls_are_parked_as_each_limit_says_and_the_next_one_is_ended(limits: ParkingLimits, clients: list[str]) -> None:
    async def body() -> None:
        bridge = Bridge(limits)
        for client in clients[:2]:
            assert (await bridge.parked(ip=client))["resultType"] == "input_required"
        call = bridge.send(ip=clients[2])
        await turn()
        exchange = bridge.running
        await exchange.event(ELICIT)
        refused = await refusal(call)
        assert (refused.reason, refused.is_fault) == ("pool_exhausted", False)
        await turn()
        assert exchange.is_cancelled
        assert len(bridge.site.parked) == 2

    on_loop(body)


def test_a_server_may_ask_as_often_as_the_limit_says_and_no_more() -> None:
    async def body() -> None:
        bridge = Bridge(ParkingLimits(rounds=2))
        asked = await bridge.parked()
        asked = shown(await bridge.retry(asked))
        refused = await refusal(bridge.retry(asked))
        assert (refused.reason, "2 times" in refused.text) == ("upstream_failed", True)
        await turn()
        assert bridge.wire.exchanges[0].is_cancelled

    on_loop(body)


def test_sessions_are_bounded_and_idle_ones_make_room() -> None:
    async def body() -> None:
        bridge = Bridge()
        sessions = bridge.bridge.sessions = LegacySessions(bridge.wire, "2025-11-25", limit=2)
        for user in ("a", "b"):
            call = bridge.send(user=user)
            await turn()
            if user == "a":
                bridge.running.answer()
                await call
        third = bridge.send(user="c")
        await turn()
        assert bridge.wire.ended == ["s1"]
        refused = await refusal(bridge.send(user="d"))
        assert (refused.reason, refused.was_sent) == ("pool_exhausted", False)
        assert len(sessions) == 2
        third.cancel()

    on_loop(body)


def test_a_session_that_nobody_uses_is_ended() -> None:
    async def body() -> None:
        bridge = Bridge()
        bridge.bridge.sessions = LegacySessions(bridge.wire, "2025-11-25", idle_s=0.02)
        call = bridge.send()
        await turn()
        bridge.running.answer()
        await call
        while bridge.wire.ended != ["s1"]:
            await asyncio.sleep(0.01)
        assert len(bridge.bridge.sessions) == 0

    on_loop(body)


def test_closing_ends_every_session_and_cancels_what_is_parked() -> None:
    async def body() -> None:
        bridge = Bridge()
        await bridge.parked()
        await bridge.bridge.close()
        assert bridge.wire.exchanges[0].is_cancelled
        assert bridge.wire.ended == ["s1"]
        assert len(bridge.site.parked) == 0

    on_loop(body)


def test_a_server_that_refuses_the_handshake_is_a_clear_failure() -> None:
    async def body() -> None:
        bridge = Bridge()
        bridge.wire.capabilities = {}

        async def exchange(request: UpstreamRequest, on_event: Any) -> UpstreamAnswer:
            assert isinstance(request.message, Request)
            return UpstreamAnswer(400, Response(request.message.id, b"", b'{"code":-1,"message":"no"}'))

        bridge.wire.exchange = exchange  # type: ignore[method-assign]
        refused = await refusal(bridge.send())
        assert (refused.reason, refused.error) == ("upstream_failed", b'{"code":-1,"message":"no"}')
        assert len(bridge.bridge.sessions) == 0

    on_loop(body)


# ---- subscriptions


def test_a_subscription_is_acknowledged_with_what_the_server_can_tell() -> None:
    """Source: MCP 2026-07-28, basic/patterns/subscriptions, "Acknowledgment"."""

    async def body() -> None:
        bridge = Bridge()
        wanted = {"toolsListChanged": True, "promptsListChanged": True, "resourceSubscriptions": ["a:1"]}
        listening = bridge.send("subscriptions/listen", params={"notifications": wanted}, kind="stream")
        await turn()
        stream = bridge.running
        assert stream.request.message is None
        assert stream.request.on_open is not None
        stream.request.on_open()
        await turn()
        await stream.event(Notification("notifications/tools/list_changed", b""))
        await stream.event(Notification("notifications/prompts/list_changed", b""))
        await stream.event(Notification("notifications/resources/updated", b'{"uri":"a:1/part"}'))
        await stream.event(Notification("notifications/resources/updated", b'{"uri":"b:1"}'))
        await turn()
        told = [(event.method, json.loads(event.params)) for event in bridge.events if isinstance(event, Notification)]
        meta = {"_meta": {"io.modelcontextprotocol/subscriptionId": "mine"}}
        honoured = {"toolsListChanged": True, "resourceSubscriptions": ["a:1"]}
        assert told == [
            ("notifications/subscriptions/acknowledged", {**meta, "notifications": honoured}),
            ("notifications/tools/list_changed", meta),
            ("notifications/resources/updated", {**meta, "uri": "a:1/part"}),
        ]
        listening.cancel()
        await turn()
        assert stream.is_cancelled
        assert bridge.wire.told_methods()[-1] == "resources/unsubscribe"

    on_loop(body)


def test_a_change_that_a_server_tells_during_a_call_reaches_who_listens_with_that_session() -> None:
    async def body() -> None:
        bridge = Bridge()
        listening = bridge.send("subscriptions/listen", params={"notifications": {"toolsListChanged": True}}, kind="stream")
        await turn()
        assert bridge.running.request.on_open is not None
        bridge.running.request.on_open()
        await turn()
        call = bridge.send()
        await turn()
        assert bridge.running.request.session_id == "s1"
        await bridge.running.event(Notification("notifications/tools/list_changed", b""))
        bridge.running.answer()
        await call
        methods = [event.method for event in bridge.events if isinstance(event, Notification)]
        assert methods == ["notifications/subscriptions/acknowledged", "notifications/tools/list_changed"]
        listening.cancel()

    on_loop(body)


def test_a_subscription_outlives_the_loss_of_its_session() -> None:
    async def body() -> None:
        bridge = Bridge()
        wanted = {"toolsListChanged": True, "resourceSubscriptions": ["a:1"]}
        listening = bridge.send("subscriptions/listen", params={"notifications": wanted}, kind="stream")
        await turn()
        assert bridge.running.request.on_open is not None
        bridge.running.request.on_open()
        await turn()
        bridge.running.fail(UpstreamError("session_not_found", "gone", is_session_lost=True))
        await turn()
        assert bridge.running.request.session_id == "s2"
        assert bridge.wire.told_methods() == [
            "notifications/initialized", "resources/subscribe", "notifications/initialized", "resources/subscribe",
        ]  # fmt: skip
        methods = [event.method for event in bridge.events if isinstance(event, Notification)]
        assert methods[1:] == ["notifications/tools/list_changed", "notifications/resources/updated"]
        listening.cancel()
        await turn()

    on_loop(body)


def test_too_many_resources_in_one_subscription_are_refused() -> None:
    async def body() -> None:
        bridge = Bridge()
        wanted = {"resourceSubscriptions": [f"a:{number}" for number in range(1001)]}
        refused = await refusal(bridge.send("subscriptions/listen", params={"notifications": wanted}, kind="stream"))
        assert refused.reason == "invalid_params"
        assert bridge.wire.initialized == []

    on_loop(body)


def test_a_state_of_another_backend_is_refused() -> None:
    async def body() -> None:
        bridge = Bridge()
        state = CallState("cell/0", "i", "mail", "http://a", "", "call", 1, 4e9, b"d")
        refused = await refusal(bridge.retry({"requestState": sealed_state(SEAL, state)}))
        assert refused.reason == "invalid_params"

    on_loop(body)


# ---- headers that repeat arguments


def test_headers_that_disagree_with_what_the_servers_list_has_announced_are_refused_before_the_server_is_asked() -> None:
    """Source: MCP 2026-07-28, basic/transports/streamable-http, "Server Behavior for Custom Headers": the server here is us."""

    async def body() -> None:
        bridge = Bridge()
        listed = bridge.send("tools/list")
        await turn()
        region = {"type": "string", "x-mcp-header": "Region"}
        tools = [{"name": "t", "inputSchema": {"type": "object", "properties": {"region": region}}}]
        bridge.running.answer(json.dumps({"tools": tools}).encode())
        await listed
        call = {"name": "t", "arguments": {"region": "eu"}}
        sent_before = len(bridge.wire.exchanges)
        for headers in ({}, {"mcp-param-region": "us"}, {"mcp-param-region": "=?base64?!?="}):
            refused = await refusal(bridge.send(params=call, headers=headers))
            assert (refused.reason, refused.is_fault) == ("header_mismatch", False)
        assert len(bridge.wire.exchanges) == sent_before
        for agreed in ({"mcp-param-region": "eu"}, None):  # on a socket there are no headers to compare
            bridge.send(params=call, headers=agreed)
        await turn()
        assert len(bridge.wire.exchanges) > sent_before

    on_loop(body)
