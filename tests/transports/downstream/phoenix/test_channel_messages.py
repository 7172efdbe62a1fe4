"""MCP inside a Phoenix channel: what pushes mean, and what servers' messages become."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcp_gateway.transports.downstream.phoenix.channel_messages import (
    ChannelRequest,
    JoinParams,
    event_payload,
    gap_payload,
    in_session,
    message_payload,
    read_event,
    read_request,
    read_response,
    refusal_payload,
    response_payload,
    stateless,
)
from mcp_gateway.transports.protocol.mcp.jsonrpc import Notification, Request, Response
from mcp_gateway.transports.protocol.mcp.refusals import Refused
from mcp_gateway.transports.protocol.topics.topic_log import TopicLog

NOBODY = JoinParams.read(b"{}")


@pytest.mark.parametrize(
    ("payload", "expected"),
    [
        (b'{"method":"echo","params":{"message":"Hello"},"id":"req-123"}', (b'"req-123"', "echo", b'{"message":"Hello"}')),
        (b'{"method":"tools/list","id":7}', (b"7", "tools/list", b"{}")),
        (b'{"method":"tools/list"}', (b"null", "tools/list", b"{}")),
        (b'{"method":"tools/list","id":null,"params":{ }}', (b"null", "tools/list", b"{ }")),
        (b'{ "method" : "a" , "id" : "\\u00e9" , "more" : 1 }', ('"é"'.encode(), "a", b"{}")),
    ],
)
def test_a_request_is_read(payload: bytes, expected: tuple[bytes, str, bytes]) -> None:
    assert read_request(payload) == ChannelRequest(*expected)


@pytest.mark.parametrize(
    ("payload", "request_id"),
    [
        (b"", b"null"),
        (b"[]", None),
        (b"null", None),
        (b"\xff", None),
        (b"{}", b"null"),
        (b'{"id":7}', b"7"),
        (b'{"id":"x","method":7}', b'"x"'),
        (b'{"id":"x","method":"m","params":[]}', b'"x"'),
        (b'{"id":"x","method":"m","params":null}', b'"x"'),
        (b'{"id":true,"method":"m"}', None),
        (b'{"id":1.5,"method":"m"}', None),
        (b'{"id":{},"method":"m"}', None),
    ],
)
def test_what_is_no_request_is_refused_with_the_id_where_there_is_one(payload: bytes, request_id: bytes | None) -> None:
    with pytest.raises(Refused) as refused:
        read_request(payload)
    assert (refused.value.reason, refused.value.request_id) == ("invalid_request", request_id)


@pytest.mark.parametrize(
    ("payload", "expected"),
    [
        (b'{"event":"hello","data":{"a":1}}', ("client.hello", {"a": 1})),
        (b'{"event":"client.hello","data":{}}', ("client.hello", {})),
        (b'{"event":"vsm.algedonic.pain"}', ("client.vsm.algedonic.pain", {})),
        (b'{"event":"x","data":[1]}', ("client.x", [1])),
    ],
)
def test_what_a_client_publishes_is_named_as_a_clients(payload: bytes, expected: tuple[str, Any]) -> None:
    assert read_event(payload) == expected


@pytest.mark.parametrize("payload", [b"", b"[]", b"{}", b'{"event":7}', b'{"event":null}'])
def test_an_event_without_a_name_is_refused(payload: bytes) -> None:
    with pytest.raises(Refused) as refused:
        read_event(payload)
    assert refused.value.reason == "invalid_params"


def test_a_client_answers_what_a_server_asked() -> None:
    assert read_response(b'{"id":"srv-1","result":{"action":"accept"}}') == Response(b'"srv-1"', b'{"action":"accept"}', b"")
    assert read_response(b'{"type":"response","id":3,"error":{"code":1,"message":"no"}}').error == b'{"code":1,"message":"no"}'


@pytest.mark.parametrize("payload", [b"", b"[]", b"{}", b'{"id":1}', b'{"result":{}}', b'{"id":1,"result":{},"error":{}}'])
def test_what_is_no_response_is_refused(payload: bytes) -> None:
    with pytest.raises(Refused) as refused:
        read_response(payload)
    assert refused.value.reason in ("invalid_request", "parse_error")


# ---- what a join says


def test_a_join_says_who_the_client_is_and_a_request_tells_the_server() -> None:
    """Source: MCP 2026-07-28, basic/index, "Per-request protocol fields"."""
    info = {"name": "n", "version": "1"}
    said = {"clientInfo": info, "capabilities": {"sampling": {}}, "logLevel": "error", "last_event_id": 7}
    join = JoinParams.read(json.dumps(said).encode())
    assert join.last_event_id == 7
    asked = stateless(ChannelRequest(b'"x"', "tools/call", b'{"name":"t"}'), b"41", join)
    assert (asked.id, asked.method) == (b"41", "tools/call")
    assert json.loads(asked.params) == {
        "name": "t",
        "_meta": {
            "io.modelcontextprotocol/protocolVersion": "2026-07-28",
            "io.modelcontextprotocol/clientInfo": {"name": "n", "version": "1"},
            "io.modelcontextprotocol/clientCapabilities": {"sampling": {}},
            "io.modelcontextprotocol/logLevel": "error",
            "progressToken": 41,
        },
    }


def test_a_client_that_says_nothing_has_no_capabilities_and_reads_what_servers_log() -> None:
    meta = json.loads(stateless(ChannelRequest(b"1", "m", b"{}"), b"41", NOBODY).params)["_meta"]
    assert meta["io.modelcontextprotocol/clientCapabilities"] == {}
    assert meta["io.modelcontextprotocol/logLevel"] == "info"
    assert meta["io.modelcontextprotocol/clientInfo"]["name"] == "mcp-gateway-phoenix"
    silent = JoinParams.read(b'{"logLevel":null}')
    assert "logLevel" not in str(stateless(ChannelRequest(b"1", "m", b"{}"), b"41", silent).params)


def test_a_call_of_a_client_that_knows_tasks_waits_for_no_progress_but_where_it_asks() -> None:
    knows = {"extensions": {"io.modelcontextprotocol/tasks": {}}}
    says_so = json.dumps({"_meta": {"io.modelcontextprotocol/clientCapabilities": knows}}).encode()
    joined = JoinParams.read(json.dumps({"capabilities": knows}).encode())
    for method, params, join in (("tools/call", b"{}", joined), ("tools/call", says_so, NOBODY)):
        assert "progressToken" not in json.loads(stateless(ChannelRequest(b"1", method, params), b"41", join).params)["_meta"]
    for method, params, join in (("tools/call", b"{}", NOBODY), ("prompts/get", b"{}", joined)):
        assert json.loads(stateless(ChannelRequest(b"1", method, params), b"41", join).params)["_meta"]["progressToken"] == 41
    asks = b'{"_meta":{"progressToken":"mine"}}'
    assert (
        json.loads(stateless(ChannelRequest(b"1", "tools/call", asks), b"41", joined).params)["_meta"]["progressToken"] == "mine"
    )


def test_what_the_client_has_put_into_meta_itself_stays() -> None:
    own = b'{"_meta":{"progressToken":"mine","io.modelcontextprotocol/clientCapabilities":{"roots":{}},"x":1}}'
    meta = json.loads(stateless(ChannelRequest(b"1", "m", own), b"41", NOBODY).params)["_meta"]
    assert (meta["progressToken"], meta["x"]) == ("mine", 1)
    assert meta["io.modelcontextprotocol/clientCapabilities"] == {"roots": {}}
    assert json.loads(in_session(ChannelRequest(b"1", "m", own), b"41").params) == json.loads(own)


def test_in_a_session_only_a_progress_token_is_added_and_nothing_to_the_handshake() -> None:
    assert json.loads(in_session(ChannelRequest(b"1", "m", b"{}"), b"41").params) == {"_meta": {"progressToken": 41}}
    assert in_session(ChannelRequest(b"1", "initialize", b'{ "a": 1 }'), b"41") == Request(b"41", "initialize", b'{ "a": 1 }')


@pytest.mark.parametrize(
    "payload",
    [
        b"[]",
        b"x",
        b'{"last_event_id":"7"}',
        b'{"last_event_id":-1}',
        b'{"last_event_id":true}',
        b'{"logLevel":7}',
        b'{"clientInfo":"n"}',
        b'{"capabilities":[]}',
    ],
)
def test_a_join_that_says_nonsense_is_refused(payload: bytes) -> None:
    with pytest.raises(Refused) as refused:
        JoinParams.read(payload)
    assert refused.value.reason == "invalid_params"


def test_a_join_that_says_too_much_is_refused() -> None:
    at_the_limit = json.dumps({"capabilities": {"x": "y" * (16_384 - 27)}}).encode()
    assert (len(at_the_limit), JoinParams.read(at_the_limit).capabilities["x"][:2]) == (16_384, "yy")
    with pytest.raises(Refused) as refused:
        JoinParams.read(at_the_limit + b" ")
    assert refused.value.reason == "too_large"


def test_a_meta_that_is_no_object_is_refused_with_the_clients_id() -> None:
    for add in (lambda request: stateless(request, b"41", NOBODY), lambda request: in_session(request, b"41")):
        with pytest.raises(Refused) as refused:
            add(ChannelRequest(b'"x"', "m", b'{"_meta":7}'))
        assert (refused.value.reason, refused.value.request_id) == ("invalid_params", b'"x"')


# ---- what goes to the client


def test_answers_carry_the_clients_own_id() -> None:
    shown = json.loads(response_payload(b'"x"', Response(b"41", b'{"a":1}', b"")))
    assert shown == {"type": "response", "id": "x", "result": {"a": 1}}
    shown = json.loads(response_payload(b"null", Response(b"41", b"", b'{"code":1,"message":"no"}')))
    assert shown == {"type": "response", "id": None, "error": {"code": 1, "message": "no"}}


def test_events_of_the_bus_carry_the_number_to_come_back_with() -> None:
    event = TopicLog(10).append("client.hello", {"a": "ü"}, 1234)
    assert json.loads(event_payload(event)) == {"event": "client.hello", "data": {"a": "ü"}, "timestamp": 1234, "event_id": 1}
    assert json.loads(gap_payload(3, 5)) == {"first_id": 3, "last_id": 5, "count": 3}


def test_a_servers_messages_name_the_request_that_they_belong_to() -> None:
    progress = Notification("notifications/progress", b'{"progressToken":41,"progress":1}')
    shown = json.loads(message_payload(progress, 1234, b"41", b'"x"'))
    data = {"progressToken": "x", "progress": 1}
    assert shown == {"event": "notifications/progress", "data": data, "timestamp": 1234, "id": "x"}
    own = Notification("notifications/progress", b'{"progressToken":"mine"}')
    assert json.loads(message_payload(own, 1234, b"41", b'"x"'))["data"] == {"progressToken": "mine"}
    changed = json.loads(message_payload(Notification("notifications/tools/list_changed", b""), 1234, None, None))
    assert changed == {"event": "notifications/tools/list_changed", "data": {}, "timestamp": 1234}
    asked = json.loads(message_payload(Request(b'"srv-1"', "elicitation/create", b'{"message":"?"}'), 1234, b"41", b'"x"'))
    assert (asked["id"], asked["request_id"], asked["data"]) == ("x", "srv-1", {"message": "?"})


@pytest.mark.parametrize(
    ("params", "token", "request_id", "expected"),
    [
        (b'{"_meta":{"%b":41,"a/b":1.0},"uri":"u"}', b"41", b'"x"', b'{"_meta":{"%b":"x","a/b":1.0},"uri":"u"}'),
        (b'{"_meta":{"%b":40},"uri":"u"}', b"41", b'"x"', b'{"_meta":{"%b":40},"uri":"u"}'),
        (b'{"_meta":{"%b":41}}', b"41", b"null", b'{"_meta":{"%b":41}}'),
        (b'{"_meta":{"%b":41}}', None, None, b'{"_meta":{"%b":41}}'),
        (b'{"_meta":7,"%b":1}', b"41", b'"x"', b'{"_meta":7,"%b":1}'),
    ],
)
def test_a_subscription_has_the_id_of_the_clients_own_request(
    params: bytes, token: bytes | None, request_id: bytes | None, expected: bytes
) -> None:
    """Source: MCP 2026-07-28, basic/patterns/subscriptions: the id of the `subscriptions/listen` request."""
    name = b"io.modelcontextprotocol/subscriptionId"
    told = Notification("notifications/resources/updated", params % name)
    assert json.loads(message_payload(told, 1234, token, request_id))["data"] == json.loads(expected % name)


def test_a_refusal_says_when_to_come_back() -> None:
    shown = json.loads(refusal_payload(Refused("rate_limited", "too many", retry_after_s=0.5)))
    assert shown == {"reason": "rate_limited", "message": "too many", "retry_after": 0.5}


names = st.sampled_from(["id", "method", "params", "event", "data", "result", "error", "_meta", "last_event_id"])
json_values = st.recursive(
    st.none() | st.integers() | st.text(max_size=5), lambda inner: st.lists(inner) | st.dictionaries(names, inner)
)


@given(st.binary(max_size=60) | json_values.map(lambda value: json.dumps(value).encode()))
def test_any_payload_is_read_or_refused(payload: bytes) -> None:
    for read in (read_request, read_response, read_event, JoinParams.read):
        try:
            found = read(payload)
            if isinstance(found, ChannelRequest):
                stateless(found, b"1", NOBODY)
                in_session(found, b"1")
        except Refused:
            pass
