"""Legacy clients of a scripted modern server: who asks, what is asked back, and how it ends."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from mcp_gateway.transports.ports.failure import Fate
from mcp_gateway.transports.ports.request_kind import RequestKind
from mcp_gateway.transports.ports.upstream_port import UpstreamAnswer, UpstreamError, UpstreamRequest
from mcp_gateway.transports.protocol.eras.questions import MOST_OPEN_QUESTIONS
from mcp_gateway.transports.protocol.mcp.jsonrpc import Notification, Request, Response
from mcp_gateway.transports.protocol.mcp.revisions import (
    META_CLIENT_CAPABILITIES,
    META_CLIENT_INFO,
    META_LOG_LEVEL,
    META_SERVER_INFO,
    META_VERSION,
    NEWEST,
)
from mcp_gateway.transports.protocol.sealed.session import BRIDGED_SESSION, SessionFacts
from mcp_gateway.transports.upstream.bridge.legacy_to_modern import MAX_ROUNDS
from tests.doubles.legacy_bridge import REPLICA, refusal, shown
from tests.doubles.modern_bridge import CAPABILITIES, INFO, Bridge
from tests.doubles.other_cells import OtherCells
from tests.doubles.patience import on_loop
from tests.doubles.scripted_wire import settle

ASKS = {
    "resultType": "input_required",
    "inputRequests": {"q": {"method": "elicitation/create", "params": {"message": "Who?"}}},
    "requestState": "theirs",
}
TOOLS = {"tools": [{"name": "x", "inputSchema": {"properties": {"a": {"type": "string", "x-mcp-header": "A"}}}}]}


def test_the_handshake_is_answered_from_discovery_and_the_session_is_this_cells() -> None:
    async def body() -> None:
        bridge = Bridge()
        params = {"protocolVersion": "2024-11-05", "capabilities": CAPABILITIES, "clientInfo": INFO}
        message = Request(b"7", "initialize", json.dumps(params).encode())
        request = UpstreamRequest(kind=RequestKind.REQUEST, message=message, revision="2024-11-05")
        opening = asyncio.ensure_future(bridge.bridge.open(request, message))
        await settle()
        sent = bridge.running.request
        assert isinstance(sent.message, Request)
        assert (sent.message.method, sent.revision, sent.session_id) == ("server/discover", NEWEST, None)
        assert bridge.asked()["_meta"][META_CLIENT_INFO] == INFO
        bridge.answer({"capabilities": {"tools": {}}, "_meta": {META_SERVER_INFO: {"name": "s", "version": "2", "title": "S"}}})
        answer = await opening
        assert shown(answer) == {
            "protocolVersion": "2024-11-05",
            "capabilities": {"tools": {}},
            "serverInfo": {"name": "s", "version": "2"},
        }
        assert (answer.session_id, answer.revision) == (BRIDGED_SESSION + "cell/0", NEWEST)

    on_loop(body)


def test_every_request_says_who_asks_and_comes_back_as_the_client_can_read_it() -> None:
    async def body() -> None:
        bridge = Bridge(revision="2025-03-26")
        call = bridge.send(arguments={"a": 1})
        await settle()
        assert bridge.asked() == {
            "name": "x",
            "arguments": {"a": 1},
            "_meta": {
                META_VERSION: NEWEST,
                META_CLIENT_INFO: INFO,
                META_CLIENT_CAPABILITIES: {"elicitation": {}, "sampling": {}, "roots": {}},
                META_LOG_LEVEL: "info",
            },
        }
        bridge.answer({"resultType": "complete", "content": [], "structuredContent": {"a": 1}, "_meta": {META_SERVER_INFO: {}}})
        assert shown(await call) == {"content": [{"type": "text", "text": '{"a":1}'}]}

    on_loop(body)


def test_progress_comes_under_the_clients_own_token() -> None:
    async def body() -> None:
        bridge = Bridge(revision="2024-11-05")
        bridge.send(_meta={"progressToken": "mine"})
        await settle()
        token = bridge.asked()["_meta"]["progressToken"]
        assert token != "mine"
        for shown_token in (token, "other"):
            params = {"progressToken": shown_token, "progress": 1, "message": "m"}
            await bridge.running.event(Notification("notifications/progress", json.dumps(params).encode()))
        await bridge.running.event(Notification("notifications/progress", b"[]"))
        await bridge.running.event(Notification("notifications/message", b'{"level":"info"}'))
        assert bridge.events == [
            Notification("notifications/progress", b'{"progressToken":"mine","progress":1}'),
            Notification("notifications/message", b'{"level":"info"}'),
        ]

    on_loop(body)


def test_what_has_no_method_in_the_modern_era_is_answered_here() -> None:
    async def body() -> None:
        bridge = Bridge()
        assert shown(await bridge.send("ping")) == {}
        assert shown(await bridge.send("logging/setLevel", level="error")) == {}
        assert shown(await bridge.send("resources/subscribe", uri="a:1")) == {}
        for told in ("notifications/initialized", "notifications/roots/list_changed"):
            assert (await bridge.say(Notification(told, b""), kind=RequestKind.MESSAGE)).status == 202
        assert bridge.wire.exchanges == []
        bridge.send()
        await settle()
        assert bridge.asked()["_meta"][META_LOG_LEVEL] == "error"
        for method, params in (("logging/setLevel", {"level": "loud"}), ("logging/setLevel", {}), ("resources/subscribe", {})):
            assert (await refusal(bridge.send(method, **params))).failure.reason == "invalid_params"

    on_loop(body)


def test_a_cell_that_has_never_seen_the_session_knows_its_facts() -> None:
    """After a restart of the cell: the facts are those of the sealed and journaled session."""

    async def body() -> None:
        bridge = Bridge(facts=SessionFacts("error", (("files", "a:1"), ("mail", "m:1"))))
        bridge.send()
        await settle()
        assert bridge.asked()["_meta"][META_LOG_LEVEL] == "error"
        bridge.say(None, kind=RequestKind.STREAM)
        await settle()
        assert bridge.asked()["notifications"]["resourceSubscriptions"] == ["a:1"]

    on_loop(body)


# ---- questions


def test_a_question_of_the_server_is_put_to_the_client_and_its_answer_goes_back_on_a_retry() -> None:
    """Source: MCP 2026-07-28, basic/patterns/mrtr, "Client Requirements": the same params, the state, another id."""

    async def body() -> None:
        bridge = Bridge()
        call = bridge.send(arguments={"a": 1})
        await settle()
        first = bridge.running
        bridge.answer(ASKS)
        await settle()
        assert (bridge.question.method, bridge.question.params) == ("elicitation/create", b'{"message":"Who?"}')
        response = Response(bridge.question.id, b'{"action":"accept"}', b"")
        assert (await bridge.say(response, kind=RequestKind.MESSAGE)).status == 202
        await settle()
        second = bridge.asked()
        assert second.pop("inputResponses") == {"q": {"action": "accept"}}
        assert second.pop("requestState") == "theirs"
        assert second == bridge.asked(first)
        assert isinstance(first.request.message, Request)
        assert isinstance(bridge.running.request.message, Request)
        assert first.request.message.id != bridge.running.request.message.id
        bridge.answer({"content": []})
        assert shown(await call) == {"content": []}

    on_loop(body)


def test_an_answer_of_another_client_or_to_nothing_is_taken_and_has_no_effect() -> None:
    async def body() -> None:
        bridge = Bridge()
        bridge.send()
        await settle()
        bridge.answer(ASKS)
        await settle()
        for response, key in ((Response(bridge.question.id, b"{}", b""), "other"), (Response(b'"unknown"', b"{}", b""), "key")):
            assert (await bridge.say(response, kind=RequestKind.MESSAGE, key=key)).status == 202
        await settle()
        assert bridge.wire.open == []

    on_loop(body)


@pytest.mark.parametrize(
    ("method", "capabilities"), [("elicitation/create", CAPABILITIES), ("elicitation/create", {}), ("sampling/createMessage", {})]
)
def test_what_a_client_cannot_or_will_not_answer_is_a_dismissal_or_the_error_of_the_call(
    method: str, capabilities: dict[str, Any]
) -> None:
    async def body() -> None:
        bridge = Bridge()
        bridge.capabilities = capabilities
        call = bridge.send()
        await settle()
        bridge.answer({"resultType": "input_required", "inputRequests": {"q": {"method": method, "params": {}}}})
        await settle()
        if capabilities:
            await bridge.say(Response(bridge.question.id, b"", b'{"code":-1,"message":"no"}'), kind=RequestKind.MESSAGE)
            await settle()
        else:
            assert bridge.events == []
        if method == "elicitation/create":
            assert bridge.asked()["inputResponses"] == {"q": {"action": "cancel"}}
        else:
            assert "has not declared" in shown(await call)["message"]

    on_loop(body)


def test_a_client_older_than_elicitation_is_not_asked() -> None:
    async def body() -> None:
        bridge = Bridge(revision="2025-03-26")
        bridge.send()
        await settle()
        bridge.answer(ASKS)
        await settle()
        assert bridge.events == []
        assert bridge.asked()["inputResponses"] == {"q": {"action": "cancel"}}

    on_loop(body)


def test_a_state_without_questions_is_brought_back_after_a_pause() -> None:
    async def body() -> None:
        bridge = Bridge()
        bridge.send()
        await settle()
        bridge.answer({"resultType": "input_required", "requestState": "busy"})
        while not bridge.wire.open:
            await asyncio.sleep(0.01)
        assert bridge.asked()["requestState"] == "busy"
        assert "inputResponses" not in bridge.asked()

    on_loop(body)


def test_a_server_may_ask_as_often_as_the_bound_says_and_no_more() -> None:
    async def body() -> None:
        bridge = Bridge()
        call = bridge.send()
        for _ in range(MAX_ROUNDS):
            await settle()
            bridge.answer(ASKS)
            await settle()
            await bridge.say(Response(bridge.question.id, b'{"action":"accept"}', b""), kind=RequestKind.MESSAGE)
        refused = await refusal(call)
        assert (refused.failure.reason, len(bridge.wire.exchanges)) == ("upstream_failed", MAX_ROUNDS)

    on_loop(body)


def test_a_question_whose_call_ends_is_taken_back() -> None:
    async def body() -> None:
        bridge = Bridge()
        call = bridge.say(Request(b"1", "tools/call", b'{"name":"x"}'), timeout_s=0.5)
        await settle()
        bridge.answer(ASKS)
        assert (await refusal(call)).failure.reason == "upstream_timeout"
        withdrawn = bridge.events[-1]
        assert isinstance(withdrawn, Notification)
        assert withdrawn.method == "notifications/cancelled"
        assert isinstance(bridge.events[-2], Request)
        assert json.loads(withdrawn.params)["requestId"] == json.loads(bridge.events[-2].id)

    on_loop(body)


# ---- cancellation, errors


def test_a_cancelled_request_ends_its_exchange_and_no_other() -> None:
    async def body() -> None:
        bridge = Bridge()
        first, second = bridge.send(request_id=b"1"), bridge.send(request_id=b'"2"')
        await settle()
        one, two = bridge.wire.open
        for params in (b'{"requestId":9}', b"{}", b'{"requestId":1}'):
            await bridge.say(Notification("notifications/cancelled", params), kind=RequestKind.MESSAGE)
        refused = await refusal(first)
        assert (refused.failure.reason, refused.fate.is_fault, "cancelled" in refused.failure.text) == (
            "upstream_failed",
            False,
            True,
        )
        assert not refused.fate.is_verdict
        assert (one.is_cancelled, two.is_cancelled) == (True, False)
        bridge.answer({})
        await second

    on_loop(body)


def test_another_client_cannot_cancel_it() -> None:
    async def body() -> None:
        bridge = Bridge()
        bridge.send()
        await settle()
        await bridge.say(Notification("notifications/cancelled", b'{"requestId":1}'), kind=RequestKind.MESSAGE, key="other")
        await settle()
        assert not bridge.running.is_cancelled

    on_loop(body)


def test_an_error_has_the_code_of_the_legacy_era() -> None:
    async def body() -> None:
        bridge = Bridge()
        call = bridge.send("resources/read")
        await settle()
        bridge.fail(-32602)
        answer = await call
        assert (answer.status, shown(answer)["code"]) == (200, -32002)

    on_loop(body)


@pytest.mark.parametrize("extra", [0, 1])
def test_a_server_may_ask_for_so_many_things_at_once_and_no_more(extra: int) -> None:
    async def body() -> None:
        bridge = Bridge()
        call = bridge.send()
        await settle()
        question = {"method": "elicitation/create", "params": {"message": "?"}}
        asked = {str(number): question for number in range(MOST_OPEN_QUESTIONS + extra)}
        bridge.answer({"resultType": "input_required", "inputRequests": asked})
        await settle()
        assert call.done() is bool(extra)
        if not extra:
            assert bridge.question.method == "elicitation/create"
            call.cancel()
            return
        with pytest.raises(UpstreamError, match=f"asks for {MOST_OPEN_QUESTIONS + 1} things at once"):
            await call

    on_loop(body)


@pytest.mark.parametrize("result", [b'{"resultType":"input_required"}', b"[" * 3000 + b"]" * 3000, b'{"resultType":1}'])
def test_a_result_that_cannot_be_read_is_a_failure_of_the_server(result: bytes) -> None:
    async def body() -> None:
        bridge = Bridge()
        call = bridge.send()
        await settle()
        bridge.running.result.set_result(UpstreamAnswer(200, Response(b"1", result, b"")))
        assert (await refusal(call)).failure.reason == "upstream_failed"

    on_loop(body)


def test_what_belongs_to_a_session_of_another_cell_is_done_there() -> None:
    async def body() -> None:
        bridge = Bridge()
        cells = OtherCells(UpstreamAnswer(200, None))
        bridge.site.cell_name, bridge.site.elsewhere = "cell/1", cells
        await bridge.say(Request(b"1", "ping", b""))
        for kind in (RequestKind.STREAM, RequestKind.TERMINATE):
            await bridge.say(None, kind=kind)
        assert cells.asked == [("cell/0", REPLICA)] * 3

    on_loop(body)


# ---- headers from arguments


def test_arguments_that_the_tool_marks_are_repeated_in_headers() -> None:
    """Source: MCP 2026-07-28, basic/transports/streamable-http, "Client Behavior"."""

    async def body() -> None:
        bridge = Bridge(is_http=True)
        first = bridge.send(arguments={"a": "grüße"})
        second = bridge.send(arguments={"a": "b"}, request_id=b"2")
        await settle()
        (reading,) = bridge.wire.open
        assert isinstance(reading.request.message, Request)
        assert reading.request.message.method == "tools/list"
        bridge.answer({**TOOLS, "ttlMs": 1000})
        await settle()
        headers = [dict(each.request.headers) for each in bridge.wire.open]
        assert headers == [{"mcp-param-a": "=?base64?Z3LDvMOfZQ==?="}, {"mcp-param-a": "b"}]
        for exchange in bridge.wire.open:
            exchange.answer(b"{}")
        await asyncio.gather(first, second)

    on_loop(body)


def test_a_server_that_misses_a_header_is_asked_for_its_tools_again_once() -> None:
    async def body() -> None:
        bridge = Bridge(is_http=True)
        call = bridge.send(arguments={"a": "b"})
        await settle()
        bridge.answer({"tools": []})
        await settle()
        assert dict(bridge.running.request.headers) == {}
        bridge.fail(-32020)
        await settle()
        bridge.answer(TOOLS)
        await settle()
        assert dict(bridge.running.request.headers) == {"mcp-param-a": "b"}
        bridge.fail(-32020)
        assert shown(await call)["code"] == -32603

    on_loop(body)


def test_a_server_that_cannot_list_its_tools_gets_the_call_without_headers() -> None:
    async def body() -> None:
        bridge = Bridge(is_http=True)
        call = bridge.send(arguments={"a": "b"})
        await settle()
        bridge.running.fail(UpstreamError(Fate.BROKEN, "m"))
        await settle()
        bridge.answer({"content": []})
        await call

    on_loop(body)


def test_a_tool_with_a_forbidden_annotation_is_left_out_of_the_list() -> None:
    async def body() -> None:
        bridge = Bridge(is_http=True)
        call = bridge.send("tools/list")
        await settle()
        bad = {"name": "bad", "inputSchema": {"properties": {"a": {"type": "number", "x-mcp-header": "A"}}}}
        bridge.answer({"tools": [bad, *TOOLS["tools"]]})
        assert [tool["name"] for tool in shown(await call)["tools"]] == ["x"]

    on_loop(body)
