"""Params, results, errors and openings of one era in the words of the other."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw

from mcp_gateway.transports.protocol.eras import translation
from mcp_gateway.transports.protocol.eras.translation import (
    discover_result,
    initialize_params,
    initialize_result,
    legacy_error,
    legacy_notification_params,
    legacy_result,
    modern_client_capabilities,
    modern_error,
    modern_params,
    modern_request,
    modern_result,
    result_type,
)
from mcp_gateway.transports.protocol.mcp.refusals import Refused
from mcp_gateway.transports.protocol.mcp.revisions import (
    CACHEABLE_METHODS,
    LEGACY_REVISIONS,
    LOG_LEVELS,
    META_CLIENT_CAPABILITIES,
    META_CLIENT_INFO,
    META_LOG_LEVEL,
    META_SERVER_INFO,
    META_SUBSCRIPTION_ID,
    META_VERSION,
    NEWEST,
    REVISIONS,
)

INFO = {"name": "client", "version": "1"}
META = {META_VERSION: NEWEST, META_CLIENT_INFO: INFO, META_CLIENT_CAPABILITIES: {"elicitation": {}}, META_LOG_LEVEL: "error"}

texts = st.text(max_size=8)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=8,
)
objects = st.dictionaries(texts, json_values, max_size=4)


def dumped(value: Any) -> bytes:
    return json.dumps(value).encode()


# ---- requests


def test_a_modern_request_is_taken_apart_into_what_a_legacy_server_may_know_and_what_not() -> None:
    params = {
        "name": "x",
        "arguments": {"a": 1},
        "inputResponses": {"q": {"action": "accept"}},
        "requestState": "sealed",
        "_meta": {**META, "progressToken": "mine", "traceparent": "00-1-2-01"},
    }
    modern = modern_request(dumped(params), b"1")
    assert json.loads(modern.client_info) == INFO
    assert modern.capabilities == {"elicitation": {}}
    assert (modern.log_level, modern.progress_token, modern.request_state) == ("error", b'"mine"', "sealed")
    assert modern.input_responses is not None
    assert json.loads(bytes(modern.input_responses["q"])) == {"action": "accept"}
    assert json.loads(modern.legacy_params(b"7")) == {
        "name": "x",
        "arguments": {"a": 1},
        "_meta": {"traceparent": "00-1-2-01", "progressToken": 7},
    }


def test_params_of_which_nothing_is_left_are_left_out() -> None:
    assert modern_request(dumped({"_meta": META}), b"1").legacy_params(None) == b""


@pytest.mark.parametrize(
    "params",
    [
        {"_meta": []},
        {"_meta": {META_CLIENT_CAPABILITIES: []}},
        {"_meta": {META_CLIENT_INFO: "me"}},
        {"_meta": {META_LOG_LEVEL: "loud"}},
        {"_meta": {"progressToken": 1.5}},
        {"inputResponses": []},
        {"requestState": 1},
    ],
)
def test_a_field_of_the_protocol_that_is_not_of_its_type_is_refused(params: Any) -> None:
    """Source: MCP 2026-07-28, basic/index, "Per-request protocol fields": malformed is -32602."""
    with pytest.raises(Refused) as refused:
        modern_request(dumped(params), b"1")
    assert refused.value.reason == "invalid_params"


@given(objects)
def test_any_params_are_read_or_refused(params: dict[str, Any]) -> None:
    try:
        modern_request(dumped(params), b"1").legacy_params(None)
    except Refused as refused:
        assert refused.reason == "invalid_params"


def test_a_legacy_request_says_who_asks() -> None:
    values = modern_params(dumped({"name": "x", "_meta": {"progressToken": 3, "own": 1}}), INFO, {"roots": {}}, "info", b'"t"')
    assert json.loads(msgspec.json.encode(values)) == {
        "name": "x",
        "_meta": {
            "progressToken": "t",
            "own": 1,
            META_VERSION: NEWEST,
            META_CLIENT_INFO: INFO,
            META_CLIENT_CAPABILITIES: {"roots": {}},
            META_LOG_LEVEL: "info",
        },
    }


def test_a_legacy_client_cannot_speak_for_another_through_meta() -> None:
    forged = {"_meta": {META_CLIENT_INFO: {"name": "admin"}, META_LOG_LEVEL: "debug"}, "requestState": "x", "inputResponses": {}}
    values = json.loads(msgspec.json.encode(modern_params(dumped(forged), INFO, {}, None, None)))
    assert values == {"_meta": {META_VERSION: NEWEST, META_CLIENT_INFO: INFO, META_CLIENT_CAPABILITIES: {}}}


@given(objects, st.sampled_from(LOG_LEVELS))
def test_a_request_comes_back_from_the_other_era_as_it_was(params: dict[str, Any], level: str) -> None:
    for name in ("_meta", "inputResponses", "requestState"):
        params.pop(name, None)
    modern = modern_request(msgspec.json.encode(modern_params(dumped(params), INFO, {"roots": {}}, level, None)), b"1")
    assert json.loads(modern.legacy_params(None) or b"{}") == params
    assert (modern.log_level, json.loads(modern.client_info), modern.capabilities) == (level, INFO, {"roots": {}})


# ---- openings


def test_discovery_tells_what_the_handshake_told() -> None:
    """Source: MCP 2026-07-28, server/discover; tasks left the core, changelog, major change 6: they are an extension."""
    initialized = {
        "protocolVersion": "2025-11-25",
        "capabilities": {"tools": {"listChanged": True}, "tasks": {}},
        "serverInfo": {"name": "s", "version": "2"},
        "instructions": "be kind",
    }
    assert discover_result(initialized) == {
        "resultType": "complete",
        "supportedVersions": list(REVISIONS),
        "capabilities": {"tools": {"listChanged": True}, "extensions": {"io.modelcontextprotocol/tasks": {}}},
        "instructions": "be kind",
        "ttlMs": 0,
        "cacheScope": "private",
        "_meta": {META_SERVER_INFO: {"name": "s", "version": "2"}},
    }


@pytest.mark.parametrize("revision", LEGACY_REVISIONS)
def test_the_handshake_tells_what_discovery_told(revision: str) -> None:
    discovered = {
        "capabilities": {"tools": {}, "extensions": {"a/b": {}}, "completions": {}},
        "_meta": {META_SERVER_INFO: {"name": "s", "version": "2", "title": "S", "icons": []}},
    }
    told = initialize_result(discovered, revision, "files")
    assert told["protocolVersion"] == revision
    assert "extensions" not in told["capabilities"]
    assert ("completions" in told["capabilities"]) == (revision != "2024-11-05")
    assert ("title" in told["serverInfo"]) == (revision >= "2025-06-18")
    assert ("icons" in told["serverInfo"]) == (revision >= "2025-11-25")


def test_a_server_that_does_not_name_itself_is_named_after_its_backend() -> None:
    assert initialize_result({}, "2025-11-25", "files")["serverInfo"] == {"name": "files", "version": "unknown"}


def test_capabilities_keep_their_meaning_in_both_directions() -> None:
    params = json.loads(initialize_params(b'{"name":"c"}', {"elicitation": {"url": {}}, "extensions": {"a/b": {}}}, "2025-11-25"))
    assert params == {
        "protocolVersion": "2025-11-25",
        "capabilities": {"elicitation": {"url": {}}},
        "clientInfo": {"name": "c"},
    }
    legacy = {"roots": {"listChanged": True}, "tasks": {}, "sampling": {}}
    assert translation.modern_client_capabilities(legacy) == {"roots": {}, "sampling": {}}


# ---- results and errors


@pytest.mark.parametrize("method", [*sorted(CACHEABLE_METHODS), "tools/call", "prompts/get", "completion/complete"])
def test_a_result_gets_what_every_modern_one_has_and_loses_it_again(method: str) -> None:
    """Source: MCP 2026-07-28, basic/index "ResultType"; server/utilities/caching, "Cacheable Results"."""
    shown = modern_result(method, b'{"tools":[]}', b'{"name":"s"}')
    values = json.loads(shown)
    assert values["resultType"] == result_type(shown) == "complete"
    assert values["_meta"] == {META_SERVER_INFO: {"name": "s"}}
    assert ("ttlMs" in values, "cacheScope" in values) == ((method in CACHEABLE_METHODS,) * 2)
    assert json.loads(legacy_result(method, shown, "2025-11-25")) == {"tools": []}


def test_what_a_server_says_itself_is_not_overwritten() -> None:
    own = {"resultType": "complete", "ttlMs": 9, "cacheScope": "public", "_meta": {META_SERVER_INFO: {"name": "own"}, "x": 1}}
    assert json.loads(modern_result("tools/list", dumped(own), b'{"name":"other"}')) == own


def test_a_result_without_type_is_complete() -> None:
    assert result_type(b"{}") == "complete"


@given(objects, st.sampled_from(["tools/list", "tools/call", "prompts/get", "resources/read"]), st.sampled_from(LEGACY_REVISIONS))
def test_any_result_can_be_shown_in_the_other_era(result: dict[str, Any], method: str, revision: str) -> None:
    assert isinstance(json.loads(legacy_result(method, dumped(result), revision)), dict)
    if not isinstance(result.get("_meta", {}), dict):
        return
    assert json.loads(modern_result(method, dumped(result), b""))["resultType"]


@pytest.mark.parametrize(
    ("code", "shown", "status"),
    [(-32002, -32602, 400), (-32601, -32601, 404), (-32602, -32602, 400), (-32603, -32603, 200), (-1, -1, 200)],
)
def test_a_legacy_error_gets_its_modern_code_and_status(code: int, shown: int, status: int) -> None:
    """Source: MCP 2026-07-28, basic/index, "Error Codes"."""
    error, told = modern_error(dumped({"code": code, "message": "m", "data": [1]}))
    assert (json.loads(error), told) == ({"code": shown, "message": "m", "data": [1]}, status)


@pytest.mark.parametrize(
    ("method", "code", "shown"),
    [
        ("resources/read", -32602, -32002),
        ("tools/call", -32602, -32602),
        ("tools/call", -32021, -32603),
        ("tools/call", -32020, -32603),
        ("tools/call", -32601, -32601),
        ("resources/read", 7, 7),
    ],
)
def test_a_modern_error_gets_its_legacy_code(method: str, code: int, shown: int) -> None:
    """Source: MCP 2025-11-25, server/resources, "Error Handling"."""
    assert json.loads(legacy_error(method, dumped({"code": code, "message": "m"}))) == {"code": shown, "message": "m"}


@given(json_values)
def test_any_error_is_passed_on(value: Any) -> None:
    error = dumped(value if isinstance(value, dict) else {"code": value})
    assert json.loads(modern_error(error)[0]).keys() == json.loads(error).keys()
    assert json.loads(legacy_error("tools/call", error)).keys() == json.loads(error).keys()


def test_a_notification_of_a_subscription_loses_the_subscriptions_id() -> None:
    params = dumped({"uri": "a:b", "_meta": {META_SUBSCRIPTION_ID: 1, "x": 2}})
    assert json.loads(legacy_notification_params(params)) == {"uri": "a:b", "_meta": {"x": 2}}
    assert legacy_notification_params(dumped({"_meta": {META_SUBSCRIPTION_ID: 1}})) == b""
    assert legacy_notification_params(b"") == b""


@pytest.mark.parametrize(("params", "token"), [(b"", None), (b'{"_meta":{"progressToken":1}}', b"1"), (b'{"_meta":[]}', None)])
def test_a_clients_progress_token_is_found_where_it_is_one(params: bytes, token: bytes | None) -> None:
    assert translation.progress_token_of(params) == token


def test_a_log_level_is_one_of_eight() -> None:
    assert translation.checked_log_level(Raw(b'"warning"')) == "warning"
    with pytest.raises(msgspec.ValidationError):
        translation.checked_log_level(Raw(b'"loud"'))


# What the gateway adds on its own: it has tasks for servers of the other era that have none.
TASKS = {"cancel": {}, "requests": {"tools": {"call": {}}}}
TASKS_EXTENSION: dict[str, Any] = {"io.modelcontextprotocol/tasks": {}}
UI = {"io.modelcontextprotocol/ui": {"mimeTypes": ["text/html;profile=mcp-app"]}}


@pytest.mark.parametrize(
    ("extensions", "shown"),
    [({**UI, "a/b": {}}, {"extensions": UI}), (UI, {"extensions": UI}), ({"a/b": {}}, {}), ({}, {}), (None, {}), ("x", {})],
)
def test_interfaces_are_negotiated_between_the_eras_and_other_extensions_are_not(extensions: Any, shown: dict[str, Any]) -> None:
    """Source: MCP Apps (ext-apps) 2026-01-26, "Capability Negotiation": under `extensions` of `initialize`."""
    params = json.loads(initialize_params(b'{"name":"c"}', {"extensions": extensions}, "2025-11-25"))
    assert params["capabilities"] == shown
    told = initialize_result({"capabilities": {"tools": {}, "extensions": extensions}}, "2025-11-25", "b")
    assert told["capabilities"] == {"tools": {}, **shown, "tasks": TASKS}


def test_the_interfaces_of_a_legacy_side_are_told_to_a_modern_one() -> None:
    capabilities = {"tools": {}, "extensions": UI}
    told = discover_result({"capabilities": capabilities})["capabilities"]
    assert told == {"tools": {}, "extensions": {**UI, **TASKS_EXTENSION}}
    assert modern_client_capabilities({"extensions": UI}) == {"extensions": UI}
