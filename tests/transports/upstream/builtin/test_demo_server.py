"""The demo server answers each revision with what that revision's schema knows, and nothing else."""

from __future__ import annotations

from typing import Any

import jsonschema
import mcp_types.methods as official
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcp_gateway.transports.protocol.mcp.revisions import LEGACY_REVISIONS, NEWEST, REVISIONS
from mcp_gateway.transports.upstream.builtin.demo_server import DemoAnswer, DemoRequest, DemoServer, DemoStream

MODERN_META = {"io.modelcontextprotocol/protocolVersion": NEWEST, "io.modelcontextprotocol/clientCapabilities": {}}
OPENING = {"capabilities": {}, "clientInfo": {"name": "test", "version": "1"}}
LISTS = {
    "tools/list": "tools",
    "resources/list": "resources",
    "resources/templates/list": "resourceTemplates",
    "prompts/list": "prompts",
}
# Every request that succeeds in every revision.
SUCCESSES: tuple[tuple[str, dict[str, Any]], ...] = (
    *((method, {}) for method in LISTS),
    ("tools/call", {"name": "echo", "arguments": {"message": "hi"}}),
    ("tools/call", {"name": "time"}),
    ("tools/call", {"name": "fail", "arguments": {"message": "no"}}),
    ("tools/call", {"name": "slow", "arguments": {"seconds": 0, "steps": 1}}),
    ("resources/read", {"uri": "demo://readme"}),
    ("resources/read", {"uri": "demo://echo/a%20b"}),
    ("prompts/get", {"name": "greet", "arguments": {"name": "Ada"}}),
)


def ask(revision: str, method: str, params: dict[str, Any] | None = None, **rest: Any) -> DemoAnswer | DemoStream:
    """What the demo server says to one request, with the `_meta` that its revision demands."""
    params = dict(params or {})
    if revision == NEWEST:
        params["_meta"] = MODERN_META | params.get("_meta", {})
    return DemoServer().handle(DemoRequest(revision=revision, method=method, params=params, **rest))


def final(answer: DemoAnswer | DemoStream) -> DemoAnswer:
    return answer.answer if isinstance(answer, DemoStream) else answer


def result(revision: str, method: str, params: dict[str, Any] | None = None, **rest: Any) -> dict[str, Any]:
    answer = final(ask(revision, method, params, **rest))
    assert answer.error is None, answer.error
    assert answer.result is not None
    return answer.result


def error(revision: str, method: str, params: dict[str, Any] | None = None) -> dict[str, Any]:
    answer = final(ask(revision, method, params))
    assert answer.result is None
    assert answer.error is not None
    return answer.error


def tool(revision: str, name: str) -> dict[str, Any]:
    return next(tool for tool in result(revision, "tools/list")["tools"] if tool["name"] == name)


@pytest.mark.parametrize("revision", REVISIONS)
@pytest.mark.parametrize(("method", "params"), SUCCESSES)
def test_every_result_passes_the_official_model_of_its_revision(revision: str, method: str, params: dict[str, Any]) -> None:
    official.validate_server_result(method, revision, result(revision, method, params))


@pytest.mark.parametrize("revision", LEGACY_REVISIONS)
def test_the_legacy_opening_passes_the_official_model_and_agrees_on_the_clients_revision(revision: str) -> None:
    opened = result(revision, "initialize", OPENING | {"protocolVersion": revision})
    official.validate_server_result("initialize", revision, opened)
    assert opened["protocolVersion"] == revision
    assert ("title" in opened["serverInfo"]) == (revision >= "2025-06-18")
    for method in ("ping", "logging/setLevel"):
        official.validate_server_result(method, revision, result(revision, method, {"level": "info"}))


@pytest.mark.parametrize("wanted", ["1999-01-01", "2031-01-01", NEWEST, ""])
def test_an_unknown_revision_is_answered_with_the_newest_that_has_an_opening(wanted: str) -> None:
    """Source: MCP 2025-11-25, basic/lifecycle, "Version Negotiation"."""
    assert result("2025-11-25", "initialize", OPENING | {"protocolVersion": wanted})["protocolVersion"] == "2025-11-25"


def test_discovery_names_every_revision_newest_first() -> None:
    found = result(NEWEST, "server/discover")
    official.validate_server_result("server/discover", NEWEST, found)
    assert found["supportedVersions"] == sorted(REVISIONS, reverse=True)


@pytest.mark.parametrize(("method", "params"), [*SUCCESSES, ("server/discover", {})])
def test_modern_results_carry_type_server_and_cache_hints_where_asked(method: str, params: dict[str, Any]) -> None:
    """Source: MCP 2026-07-28, basic/index, "ResultType" and "_meta"; server/utilities/caching, "Cacheable Results"."""
    answered = result(NEWEST, method, params)
    assert answered["resultType"] == "complete"
    assert answered["_meta"]["io.modelcontextprotocol/serverInfo"]["name"] == "mcp-gateway-demo"
    cacheable = method not in ("tools/call", "prompts/get")
    assert ("ttlMs" in answered, "cacheScope" in answered) == (cacheable, cacheable)


@pytest.mark.parametrize("revision", LEGACY_REVISIONS)
@pytest.mark.parametrize(("method", "params"), SUCCESSES)
def test_legacy_results_carry_nothing_modern(revision: str, method: str, params: dict[str, Any]) -> None:
    assert not {"resultType", "ttlMs", "cacheScope", "_meta"} & result(revision, method, params).keys()


@pytest.mark.parametrize("revision", REVISIONS)
def test_members_appear_with_the_revision_that_brought_them(revision: str) -> None:
    """Source: schema.ts of each revision."""
    echo = tool(revision, "echo")
    echoed = result(revision, "tools/call", {"name": "echo", "arguments": {"message": "hi"}})
    assert ("annotations" in echo) == (revision >= "2025-03-26")
    assert ("title" in echo) == ("outputSchema" in echo) == (revision >= "2025-06-18")
    assert ("structuredContent" in echoed) == (revision >= "2025-06-18")
    for method, key in LISTS.items():
        assert all(("title" in item) == (revision >= "2025-06-18") for item in result(revision, method)[key])
    assert ("title" in result(revision, "prompts/list")["prompts"][0]["arguments"][0]) == (revision >= "2025-06-18")


@pytest.mark.parametrize("name", ["echo", "time"])
def test_structured_content_conforms_to_the_tools_own_output_schema(name: str) -> None:
    called = result(NEWEST, "tools/call", {"name": name, "arguments": {"message": "hi"}}, now_s=1_800_000_000.25)
    jsonschema.validate(called["structuredContent"], tool(NEWEST, name)["outputSchema"])


def test_echo_returns_its_message_and_time_tells_the_given_clock() -> None:
    echoed = result("2025-11-25", "tools/call", {"name": "echo", "arguments": {"message": "grüß dich"}})
    assert (echoed["content"], echoed["isError"]) == ([{"type": "text", "text": "grüß dich"}], False)
    told = result("2025-11-25", "tools/call", {"name": "time"}, now_s=1_800_000_000.25)
    assert told["content"][0]["text"] == "2027-01-15T08:00:00.250Z"
    assert told["structuredContent"]["unix_seconds"] == 1_800_000_000.25


def test_fail_reports_its_message_as_a_tool_error() -> None:
    failed = result("2025-11-25", "tools/call", {"name": "fail", "arguments": {"message": "no luck"}})
    assert (failed["isError"], failed["content"][0]["text"]) == (True, "no luck")


@pytest.mark.parametrize("revision", REVISIONS)
@pytest.mark.parametrize(
    ("method", "params", "message"),
    [
        ("tools/call", {"name": "nope"}, "Unknown tool: nope"),
        ("tools/call", {}, 'Invalid params: "name" must be a string'),
        ("tools/call", {"name": "echo", "arguments": []}, 'Invalid params: "arguments" must be an object'),
        ("tools/list", {"cursor": "x"}, "Invalid cursor"),
        ("tools/list", {"cursor": ""}, "Invalid cursor"),
        ("tools/list", {"_meta": {"progressToken": 1.5}}, "Invalid params: progressToken must be a string or an integer"),
        ("resources/read", {"uri": 7}, 'Invalid params: "uri" must be a string'),
        ("prompts/get", {"name": "nope"}, "Unknown prompt: nope"),
        ("prompts/get", {"name": "greet"}, "Missing required argument: name"),
        ("prompts/get", {"name": "greet", "arguments": {"name": 7}}, 'Invalid params: "arguments" must be an object of strings'),
    ],
)
def test_invalid_params_are_refused_with_their_reason(revision: str, method: str, params: dict[str, Any], message: str) -> None:
    assert error(revision, method, params) == {"code": -32602, "message": message}


@pytest.mark.parametrize("revision", REVISIONS)
@pytest.mark.parametrize(
    ("name", "arguments"),
    [("echo", {}), ("echo", {"message": 1}), ("slow", {"seconds": -1}), ("slow", {"steps": 1.5}), ("slow", {"steps": True})],
)
def test_bad_arguments_are_a_tool_error_since_2025_11_25_and_a_protocol_error_before(
    revision: str, name: str, arguments: dict[str, Any]
) -> None:
    """Source: MCP 2025-11-25, changelog (SEP-1303); 2025-06-18, server/tools, "Error Handling"."""
    params = {"name": name, "arguments": arguments}
    if revision >= "2025-11-25":
        assert result(revision, "tools/call", params)["isError"] is True
    else:
        assert error(revision, "tools/call", params)["code"] == -32602


@pytest.mark.parametrize("revision", REVISIONS)
@pytest.mark.parametrize("uri", ["demo://nope", "demo://echo/a/b", "demo://echo/%ff", "", "DEMO://README"])
def test_an_unknown_resource_has_the_code_of_its_era(revision: str, uri: str) -> None:
    """Source: MCP 2026-07-28, server/resources, "Error Handling"; the same section of 2025-11-25."""
    code = -32602 if revision == NEWEST else -32002
    refused = error(revision, "resources/read", {"uri": uri})
    assert refused == {"code": code, "message": "Resource not found", "data": {"uri": uri}}


def test_the_template_expands_percent_encoding() -> None:
    contents = result("2025-11-25", "resources/read", {"uri": "demo://echo/gr%C3%BC%C3%9Fe%20dich"})["contents"]
    assert contents == [{"uri": "demo://echo/gr%C3%BC%C3%9Fe%20dich", "mimeType": "text/plain", "text": "grüße dich"}]


@pytest.mark.parametrize(
    ("revision", "method"),
    [
        *((revision, "nope/nope") for revision in REVISIONS),
        *((revision, "server/discover") for revision in LEGACY_REVISIONS),
        *((NEWEST, method) for method in ("initialize", "ping", "logging/setLevel", "resources/subscribe")),
        ("2025-11-25", "resources/subscribe"),
        ("2025-11-25", "completion/complete"),
    ],
)
def test_methods_that_a_revision_or_this_server_lacks_are_not_found(revision: str, method: str) -> None:
    assert error(revision, method)["code"] == -32601


def test_a_modern_request_without_its_meta_is_malformed() -> None:
    """Source: MCP 2026-07-28, basic/index, "Per-request protocol fields"."""
    for missing in MODERN_META:
        meta = {key: value for key, value in MODERN_META.items() if key != missing}
        answer = DemoServer().handle(DemoRequest(revision=NEWEST, method="tools/list", params={"_meta": meta}))
        assert final(answer).error == {"code": -32602, "message": f"Invalid params: _meta needs {missing}"}


def test_a_modern_request_of_another_version_learns_which_are_supported() -> None:
    """Source: MCP 2026-07-28, basic/versioning, "Protocol Version Negotiation"."""
    refused = error(NEWEST, "tools/list", {"_meta": {"io.modelcontextprotocol/protocolVersion": "1900-01-01"}})
    assert refused["code"] == -32022
    assert refused["data"] == {"supported": sorted(REVISIONS, reverse=True), "requested": "1900-01-01"}


def test_an_unknown_log_level_is_refused_in_either_era() -> None:
    """Source: MCP 2026-07-28 and 2025-11-25, server/utilities/logging, "Error Handling"."""
    assert error("2025-11-25", "logging/setLevel", {"level": "loud"})["code"] == -32602
    assert error(NEWEST, "tools/list", {"_meta": {"io.modelcontextprotocol/logLevel": "loud"}})["code"] == -32602


def slow(revision: str, *, token: Any = None, level: str | None = None, steps: int = 4, seconds: float = 2) -> DemoStream:
    meta = {"progressToken": token} if token is not None else {}
    if revision == NEWEST and level is not None:
        meta["io.modelcontextprotocol/logLevel"] = level
    params = {"name": "slow", "arguments": {"seconds": seconds, "steps": steps}, "_meta": meta}
    stream = ask(revision, "tools/call", params, log_level=None if revision == NEWEST else level)
    assert isinstance(stream, DemoStream)
    return stream


@pytest.mark.parametrize("revision", REVISIONS)
@pytest.mark.parametrize("token", ["t", 0, ""])
def test_slow_reports_rising_progress_under_the_clients_token(revision: str, token: str | int) -> None:
    """Source: MCP 2026-07-28, basic/patterns/progress; `message` came with 2025-03-26."""
    stream = slow(revision, token=token, level="error")
    reports = [step.notification for step in stream.steps() if step.notification]
    assert stream.sends_notifications
    assert [report["method"] for report in reports] == ["notifications/progress"] * 4
    assert [report["params"]["progress"] for report in reports] == [1, 2, 3, 4]
    assert {(report["params"]["progressToken"], report["params"]["total"]) for report in reports} == {(token, 4)}
    assert all(("message" in report["params"]) == (revision >= "2025-03-26") for report in reports)
    for report in reports:
        official.parse_server_notification(report["method"], revision, report["params"])


@pytest.mark.parametrize("token", ["t", None])
@pytest.mark.parametrize("level", ["debug", "error"])
@pytest.mark.parametrize("steps", [1, 3, 1000])
def test_slow_takes_exactly_the_seconds_it_was_asked_for(token: str | None, level: str, steps: int) -> None:
    stream = slow("2025-11-25", token=token, level=level, steps=steps, seconds=7)
    assert sum(step.delay_s for step in stream.steps()) == pytest.approx(7)
    assert final(stream).result is not None


@pytest.mark.parametrize(
    ("revision", "level", "expected"),
    [
        (NEWEST, None, 0),
        (NEWEST, "info", 4),
        (NEWEST, "notice", 0),
        ("2025-11-25", None, 4),
        ("2025-11-25", "debug", 4),
        ("2025-11-25", "emergency", 0),
    ],
)
def test_log_messages_need_a_level_that_lets_them_through(revision: str, level: str | None, expected: int) -> None:
    """Source: MCP 2026-07-28, server/utilities/logging: none without the request's level; 2025-11-25: the server may decide."""
    stream = slow(revision, level=level)
    messages = [step.notification for step in stream.steps() if step.notification]
    assert [message["method"] for message in messages] == ["notifications/message"] * expected
    assert stream.sends_notifications == bool(expected)


def test_the_session_remembers_the_level_that_was_set() -> None:
    answer = ask("2025-11-25", "logging/setLevel", {"level": "warning"})
    assert isinstance(answer, DemoAnswer)
    assert (answer.log_level, answer.result) == ("warning", {})


def test_a_plan_can_be_played_twice_and_dropped_in_the_middle() -> None:
    stream = slow("2025-11-25", token="t")
    next(stream.steps())
    assert len(list(stream.steps())) == len(list(stream.steps())) == 8


def test_a_subscription_is_acknowledged_first_stays_open_and_ends_gracefully() -> None:
    """Source: MCP 2026-07-28, basic/patterns/subscriptions, "Acknowledgment" and "Graceful Closure"."""
    stream = ask(NEWEST, "subscriptions/listen", {"notifications": {"toolsListChanged": True}}, request_id="sub-1")
    assert isinstance(stream, DemoStream)
    assert stream.stays_open
    (step,) = stream.steps()
    assert step.notification is not None
    official.parse_server_notification(step.notification["method"], NEWEST, step.notification["params"])
    assert step.notification["method"] == "notifications/subscriptions/acknowledged"
    assert step.notification["params"] == {"_meta": {"io.modelcontextprotocol/subscriptionId": "sub-1"}, "notifications": {}}
    closing = final(stream).result
    assert closing is not None
    official.validate_server_result("subscriptions/listen", NEWEST, closing)
    assert closing["_meta"]["io.modelcontextprotocol/subscriptionId"] == "sub-1"


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
keys = st.sampled_from(["name", "arguments", "uri", "cursor", "level", "_meta", "protocolVersion", "notifications"])
methods = st.sampled_from(
    [
        *LISTS,
        "tools/call",
        "resources/read",
        "prompts/get",
        "initialize",
        "ping",
        "logging/setLevel",
        "server/discover",
        "subscriptions/listen",
    ]
) | st.text(max_size=8)
tool_calls = st.fixed_dictionaries(
    {
        "name": st.sampled_from(["echo", "time", "slow", "fail", "greet"]),
        "arguments": st.dictionaries(st.sampled_from(["message", "seconds", "steps", "name"]), anything, max_size=3),
    }
)


@given(
    revision=st.sampled_from(REVISIONS) | st.text(max_size=10),
    method=methods,
    params=st.dictionaries(keys, anything, max_size=4) | tool_calls,
    with_meta=st.booleans(),
)
def test_whatever_is_asked_exactly_one_of_result_and_error_is_answered(
    revision: str, method: str, params: dict[str, Any], with_meta: bool
) -> None:
    if with_meta:
        params = params | {"_meta": MODERN_META}
    answer = DemoServer().handle(DemoRequest(revision=revision, method=method, params=params))
    ending = final(answer)
    assert (ending.result is None) != (ending.error is None)
    if isinstance(answer, DemoStream):
        assert all(step.delay_s >= 0 for step in answer.steps())
