"""Calls of modern clients whose legacy server asks something: parked, gone on with, and bounded."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from mcp_gateway.transports.ports.upstream_port import UpstreamAnswer, UpstreamRequest
from mcp_gateway.transports.protocol.eras.questions import MOST_OPEN_QUESTIONS
from mcp_gateway.transports.protocol.mcp.jsonrpc import Notification, Request, Response
from mcp_gateway.transports.upstream.bridge.parked_calls import ParkingLimits
from mcp_gateway.transports.upstream.bridge.server_sessions import ServerSessions
from tests.doubles.legacy_bridge import ACCEPT, ASKING, ELICIT, REPLICA, Bridge, refusal, shown
from tests.doubles.other_cells import OtherCells
from tests.doubles.patience import on_loop
from tests.doubles.scripted_wire import settle

# ---- questions


def test_a_call_that_is_asked_something_waits_and_goes_on_with_the_answer() -> None:
    """Source: MCP 2026-07-28, basic/patterns/mrtr, "Basic Workflow"."""

    async def body() -> None:
        bridge = Bridge()
        asked = await bridge.parked()
        assert asked["resultType"] == "input_required"
        assert asked["inputRequests"] == {"elicitation-1": {"method": "elicitation/create", "params": json.loads(ELICIT.params)}}
        retry = bridge.retry(asked, {"elicitation-1": ACCEPT, "unknown": {}})
        await settle()
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
        await settle()
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
        assert (refused.failure.reason, refused.fate.is_fault, refused.fate.is_verdict) == (reason, False, False)
        retry = bridge.retry(asked, {"elicitation-1": ACCEPT}, user="ada")
        await settle()
        bridge.running.answer()
        await retry
        assert len(bridge.wire.exchanges) == 1

    on_loop(body)


def test_a_state_is_used_once_even_by_two_at_the_same_time() -> None:
    async def body() -> None:
        bridge = Bridge()
        asked = await bridge.parked()
        first, second = (bridge.retry(asked, {"elicitation-1": ACCEPT}) for _ in range(2))
        assert (await refusal(second)).failure.text.startswith("requestState was used already")
        bridge.running.answer()
        await first
        assert (await refusal(bridge.retry(asked, {"elicitation-1": ACCEPT}))).failure.reason == "invalid_params"
        assert len(bridge.wire.exchanges) == 1

    on_loop(body)


def test_a_client_that_leaves_while_its_answer_is_handed_over_ends_the_call() -> None:
    async def body() -> None:
        bridge = Bridge()
        asked = await bridge.parked()
        call = bridge.running
        bridge.wire.takes_messages.clear()
        retry = bridge.retry(asked, {"elicitation-1": ACCEPT})
        await settle()
        retry.cancel()
        await settle()
        bridge.wire.takes_messages.set()
        await settle()
        assert (call.is_cancelled, len(bridge.site.parked)) == (True, 0)
        assert bridge.wire.told_methods()[-1] == "notifications/cancelled"
        assert (await refusal(bridge.retry(asked, {"elicitation-1": ACCEPT}))).failure.reason == "invalid_params"

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
        assert lost.failure.reason == "upstream_failed"
        assert "NOT run again" in lost.failure.text
        assert len(bridge.wire.exchanges) == 1

    on_loop(body)


def test_a_call_of_another_cell_is_resumed_there() -> None:
    async def body() -> None:
        bridge = Bridge()
        asked = await bridge.parked()
        cells = OtherCells(UpstreamAnswer(200, Response(b"1", b"{}", b"")))
        bridge.site.cell_name, bridge.site.elsewhere = "cell/1", cells
        await bridge.retry(asked, {"elicitation-1": ACCEPT})
        assert cells.asked == [("cell/0", REPLICA)]

    on_loop(body)


def test_a_call_whose_client_stays_away_is_cancelled_and_its_state_expires() -> None:
    async def body() -> None:
        bridge = Bridge(ParkingLimits(park_s=0.5))
        asked = await bridge.parked()
        exchange = bridge.running
        while not exchange.is_cancelled:
            await asyncio.sleep(0.01)
        assert len(bridge.site.parked) == 0
        expired = await refusal(bridge.retry(asked, {"elicitation-1": ACCEPT}))
        assert (expired.failure.reason, "expired" in expired.failure.text) == ("invalid_params", True)

    on_loop(body)


def test_a_result_that_comes_while_the_client_is_away_waits_for_it() -> None:
    async def body() -> None:
        bridge = Bridge()
        asked = await bridge.parked()
        bridge.running.answer(b'{"content":[1]}')
        await settle()
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
        await settle()
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
        await settle()
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
        await settle()
        await bridge.running.event(question)
        await settle()
        _, told = bridge.wire.told[-1]
        assert isinstance(told, Response)
        assert (told.id, json.loads(told.error)["code"]) == (b'"e1"', -32601)
        bridge.running.answer()
        assert shown(await call)["resultType"] == "complete"

    on_loop(body)


def test_one_question_too_many_is_refused_to_the_server_and_the_call_goes_on() -> None:
    async def body() -> None:
        bridge = Bridge()
        asked = await bridge.parked()
        for number in range(MOST_OPEN_QUESTIONS + 1):  # one is open already
            await bridge.running.event(Request(b"%d" % number, "roots/list", b""))
        refused = [told for _, told in bridge.wire.told if isinstance(told, Response)]
        assert [each.id for each in refused] == [b"%d" % (MOST_OPEN_QUESTIONS - 1), b"%d" % MOST_OPEN_QUESTIONS]
        assert all(b"too many questions" in each.error for each in refused)
        both = shown(await bridge.retry(asked))
        assert len(both["inputRequests"]) == MOST_OPEN_QUESTIONS
        answers = {key: ACCEPT if key.startswith("elicitation") else {"roots": []} for key in both["inputRequests"]}
        retry = bridge.retry(both, answers)
        await settle()
        bridge.running.answer()
        assert shown(await retry)["resultType"] == "complete"

    on_loop(body)


def test_a_ping_of_the_server_is_answered_here() -> None:
    async def body() -> None:
        bridge = Bridge()
        bridge.send()
        await settle()
        await bridge.running.event(Request(b"9", "ping", b""))
        await settle()
        assert bridge.wire.told[-1] == ("s1", Response(b"9", b"{}", b""))

    on_loop(body)


def test_a_required_url_is_a_question_after_which_the_request_is_sent_again() -> None:
    """It did not run. Source: MCP 2025-11-25, client/elicitation, "URL Elicitation Required Error"."""

    async def body() -> None:
        bridge = Bridge()
        error = {"code": -32042, "message": "m", "data": {"elicitations": [{"mode": "url", "url": "https://a", "message": "m"}]}}
        refused = UpstreamAnswer(200, Response(b"1", b"", json.dumps(error).encode()))
        call = bridge.send(capabilities={"elicitation": {"url": {}}})
        await settle()
        bridge.running.result.set_result(refused)
        asked = shown(await call)
        assert list(asked["inputRequests"]) == ["url1"]
        retry = bridge.retry(asked, {"url1": {"action": "accept"}}, capabilities={"elicitation": {"url": {}}})
        await settle()
        assert len(bridge.wire.exchanges) == 2
        bridge.running.answer()
        await retry
        unable = bridge.send(capabilities={})
        await settle()
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
        await settle()
        exchange = bridge.running
        await exchange.event(ELICIT)
        refused = await refusal(call)
        assert (refused.failure.reason, refused.fate.is_fault) == ("pool_exhausted", False)
        await settle()
        assert exchange.is_cancelled
        assert len(bridge.site.parked) == 2

    on_loop(body)


def test_a_server_may_ask_as_often_as_the_limit_says_and_no_more() -> None:
    async def body() -> None:
        bridge = Bridge(ParkingLimits(rounds=2))
        asked = await bridge.parked()
        asked = shown(await bridge.retry(asked))
        refused = await refusal(bridge.retry(asked))
        assert (refused.failure.reason, "2 times" in refused.failure.text) == ("upstream_failed", True)
        await settle()
        assert bridge.wire.exchanges[0].is_cancelled

    on_loop(body)


def test_sessions_are_bounded_and_idle_ones_make_room() -> None:
    async def body() -> None:
        bridge = Bridge()
        sessions = bridge.bridge.sessions = ServerSessions(bridge.wire, "2025-11-25", limit=2)
        for user in ("a", "b"):
            call = bridge.send(user=user)
            await settle()
            if user == "a":
                bridge.running.answer()
                await call
        third = bridge.send(user="c")
        await settle()
        assert bridge.wire.ended == ["s1"]
        refused = await refusal(bridge.send(user="d"))
        assert (refused.failure.reason, refused.fate.was_sent) == ("pool_exhausted", False)
        assert len(sessions) == 2
        third.cancel()

    on_loop(body)


def test_a_session_that_nobody_uses_is_ended() -> None:
    async def body() -> None:
        bridge = Bridge()
        bridge.bridge.sessions = ServerSessions(bridge.wire, "2025-11-25", idle_s=0.02)
        call = bridge.send()
        await settle()
        bridge.running.answer()
        await call
        while bridge.wire.ended != ["s1"]:
            await asyncio.sleep(0.01)
        assert len(bridge.bridge.sessions) == 0

    on_loop(body)


def test_a_session_whose_client_left_while_it_was_opened_is_ended_as_well() -> None:
    async def body() -> None:
        bridge = Bridge()
        bridge.bridge.sessions = ServerSessions(bridge.wire, "2025-11-25", idle_s=0.02)
        bridge.wire.takes_messages.clear()
        call = bridge.send()
        await settle()
        call.cancel()
        await settle()
        bridge.wire.takes_messages.set()
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
        assert (refused.failure.reason, refused.failure.error) == ("upstream_failed", b'{"code":-1,"message":"no"}')
        assert len(bridge.bridge.sessions) == 0

    on_loop(body)
