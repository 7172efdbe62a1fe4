"""Whatever the gateway refuses, it refuses as its contract says: reason, code, HTTP status, the request's own id, Retry-After."""

from __future__ import annotations

import http.client
import json
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import attrs
import pytest

from tests.conftest import StartGateway
from tests.doubles.scripted_upstreams import Garbage, GarbageUpstream
from tests.end_to_end.raw_http import LEGACY, MODERN, Answer, ask, ask_modern, modern, open_session, request, tool_call
from tests.end_to_end.running_gateway import Form, RunningGateway, closed_port, wait_until

LIMIT_BYTES = 100_000
DEMO = {"builtin": "demo"}

# The table of the contract: {reason: (JSON-RPC code, HTTP status, whether Retry-After is sent)}.
TABLE = {
    "parse_error": (-32700, 400, False),
    "invalid_request": (-32600, 400, False),
    "unknown_method": (-32601, 400, False),
    "invalid_params": (-32602, 400, False),
    "header_mismatch": (-32020, 400, False),
    "unsupported_version": (-32022, 400, False),
    "origin_forbidden": (4030, 403, False),
    "session_not_found": (4040, 404, False),
    "too_large": (4130, 413, False),
    "too_many_connections": (4291, 503, True),
    "no_backend": (5030, 503, True),
    "circuit_open": (5031, 503, True),
    "pool_exhausted": (5032, 503, True),
    "draining": (5033, 503, True),
    "upstream_failed": (5020, 502, False),
    "upstream_timeout": (5040, 504, False),
}


@pytest.fixture(scope="module", params=["embedded", "two cells"])
def gateway(request: pytest.FixtureRequest, start_gateway: StartGateway) -> Iterator[RunningGateway]:
    with GarbageUpstream(Garbage.HTML_500, sound=("initialize", "server/discover", "ping")) as failing, closed_port() as port:
        backends = [
            {"name": "demo", **DEMO},
            {"name": "tiny", "pool_size": 1, **DEMO},
            {"name": "impatient", "request_timeout": 0.3, **DEMO},
            {"name": "failing", "replicas": [failing.url]},
            {"name": "dead", "replicas": [f"http://127.0.0.1:{port}/mcp"]},
        ]
        table = {
            "max_overflow": 0,
            "checkout_timeout": 0.3,
            "health_check_interval": 1.0,
            "max_message_bytes": LIMIT_BYTES,
        }
        with start_gateway(request.param, backends, gateway=table) as gateway:
            yield gateway
            assert gateway.restart_count() == 0


def assert_refused(answer: Answer, reason: str, request_id: object, status: int | None = None) -> None:
    code, usual_status, has_retry = TABLE[reason]
    message = answer.message
    error = message["error"]
    assert (error["data"]["reason"], error["code"], answer.status) == (reason, code, status or usual_status), answer
    assert (message["jsonrpc"], message["id"]) == ("2.0", request_id)
    assert error["message"]
    assert "Traceback" not in answer.body.decode()
    assert ("retry-after" in answer.headers) == has_retry
    if has_retry:
        assert int(answer.headers["retry-after"]) >= 1
        assert error["data"]["retry_after"] > 0


# ---- what is wrong with the request alone


@attrs.frozen
class Case:
    """name: of the test. status: where it is not the usual one of the reason."""

    name: str
    reason: str
    body: Any
    headers: dict[str, str] = attrs.field(factory=dict)
    request_id: object = None
    status: int | None = None


def broken(name: str, reason: str, *, headers: Any = None, meta: Any = None, body: Any = None, status: int | None = None) -> Case:
    """A stateless tool call with some headers, members of `_meta` or of the message replaced; None takes one away."""
    message, shown = modern(tool_call("demo__echo", {"message": "hi"}, request_id=name))
    for part, changes in ((shown, headers), (message["params"]["_meta"], meta), (message, body)):
        for key, value in (changes or {}).items():
            if value is None:
                del part[key]
            else:
                part[key] = value
    return Case(name, reason, message, shown, name, status)


def call_params(**changes: Any) -> dict[str, Any]:
    params = modern(tool_call("demo__echo", {"message": "hi"}))[0]["params"] | changes
    return {"params": {key: value for key, value in params.items() if value is not None}}


NESTED = b'{"jsonrpc":"2.0","id":1,"method":"ping","params":{"a":' + b"[" * 40_000 + b"]" * 40_000 + b"}}"
VERSION, CAPABILITIES = "io.modelcontextprotocol/protocolVersion", "io.modelcontextprotocol/clientCapabilities"
LIST = request("tools/list", request_id="x")
FUTURE = "2099-01-01"
CASES = [
    Case("half a message", "parse_error", b'{"jsonrpc": "2.0", "id": 1, '),
    Case("no UTF-8", "parse_error", b'{"jsonrpc": "2.0", "id": 1, "method": "\xff\xfe"}'),
    Case("nothing", "parse_error", b""),
    Case("deep nesting", "parse_error", NESTED),
    Case("a number", "invalid_request", 7),
    Case("a batch", "invalid_request", [LIST]),
    Case("another JSON-RPC", "invalid_request", LIST | {"jsonrpc": "1.0"}, request_id="x"),
    Case("no method", "invalid_request", {"jsonrpc": "2.0", "id": "x"}, request_id="x"),
    Case("method of a wrong type", "invalid_request", LIST | {"method": 5}, request_id="x"),
    Case("params of a wrong type", "invalid_request", LIST | {"params": []}, request_id="x"),
    Case("an id of null", "invalid_request", LIST | {"id": None}),
    Case("an id that is no integer", "invalid_request", LIST | {"id": 1.5}),
    Case("another content type", "invalid_request", LIST, {"Content-Type": "text/plain"}),
    Case("no session", "invalid_request", LIST, {"MCP-Protocol-Version": LEGACY}, "x"),
    Case("an unknown session", "session_not_found", LIST, {"Mcp-Session-Id": "nobody"}, "x"),
    Case("a strange session", "session_not_found", LIST, {"Mcp-Session-Id": "%00\"'<>"}, "x"),
    Case("a future revision", "unsupported_version", LIST, {"MCP-Protocol-Version": FUTURE}, "x"),
    Case("a foreign origin", "origin_forbidden", LIST, {"Origin": "https://evil.example"}),
    Case("a null origin", "origin_forbidden", LIST, {"Origin": "null"}),
    Case("a rebound host", "origin_forbidden", LIST, {"Host": "evil.example"}),
    Case("no version to initialize", "invalid_params", LIST | {"method": "initialize"}, request_id="x"),
    broken("no method header", "header_mismatch", headers={"Mcp-Method": None}),
    broken("another method header", "header_mismatch", headers={"Mcp-Method": "tools/list"}),
    broken("no name header", "header_mismatch", headers={"Mcp-Name": None}),
    broken("another name header", "header_mismatch", headers={"Mcp-Name": "echo"}),
    broken("a broken name header", "header_mismatch", headers={"Mcp-Name": "=?base64?!?="}),
    broken("another version in the body", "header_mismatch", meta={VERSION: LEGACY}),
    broken("no capabilities", "invalid_params", meta={CAPABILITIES: None}),
    broken("no meta", "invalid_params", body=call_params(_meta=None)),
    broken("meta of a wrong type", "invalid_params", body=call_params(_meta="nothing")),
    broken("no tool name", "invalid_params", body=call_params(name=None)),
    broken("a tool of nobody", "invalid_params", body=call_params(name="nobody__x"), headers={"Mcp-Name": "nobody__x"}),
    broken("an unknown method", "unknown_method", body={"method": "a/b"}, headers={"Mcp-Method": "a/b"}, status=404),
    broken("a future version", "unsupported_version", meta={VERSION: FUTURE}, headers={"MCP-Protocol-Version": FUTURE}),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_it_refuses(case: Case, gateway: RunningGateway) -> None:
    answer = ask(gateway.endpoint(), case.body, case.headers)
    assert_refused(answer, case.reason, case.request_id, case.status)


def test_unsupported_versions_are_answered_with_the_supported_ones(gateway: RunningGateway) -> None:
    """Source: MCP 2026-07-28, basic/versioning, "Protocol Version Negotiation"."""
    answer = ask(gateway.endpoint(), request("tools/list", request_id=1), {"MCP-Protocol-Version": "2099-01-01"})
    data = answer.message["error"]["data"]
    assert data["requested"] == "2099-01-01"
    assert {LEGACY, MODERN} <= set(data["supported"])


def test_within_a_session_unknown_methods_and_items_are_refused_with_400(gateway: RunningGateway) -> None:
    session = open_session(gateway.endpoint())
    assert_refused(ask(gateway.endpoint(), request("tools/dance", request_id="d"), session), "unknown_method", "d")
    assert_refused(ask(gateway.endpoint(), tool_call("nobody__x", request_id="n"), session), "invalid_params", "n")
    assert_refused(ask(gateway.endpoint(), request("tools/call", {}, request_id="m"), session), "invalid_params", "m")


def test_a_session_is_unknown_once_altered_or_at_another_endpoint(gateway: RunningGateway) -> None:
    session = open_session(gateway.endpoint())
    session_id = session["Mcp-Session-Id"]
    middle = len(session_id) // 2
    altered = session_id[:middle] + ("A" if session_id[middle] != "A" else "B") + session_id[middle + 1 :]
    call = tool_call("demo__echo", {"message": "hi"}, request_id="x")
    assert ask(gateway.endpoint(), call, session).text == "hi"
    assert_refused(ask(gateway.endpoint(), call, session | {"Mcp-Session-Id": altered}), "session_not_found", "x")
    assert_refused(ask(gateway.endpoint("demo"), call, session), "session_not_found", "x")
    for verb in ("GET", "DELETE"):
        refused = ask(gateway.endpoint(), b"", session | {"Mcp-Session-Id": altered}, verb=verb)
        assert_refused(refused, "session_not_found", None)


def test_another_http_method_is_refused_with_those_allowed(gateway: RunningGateway) -> None:
    answer = ask(gateway.endpoint(), b"{}", verb="PUT")
    assert (answer.status, answer.headers["allow"]) == (405, "GET, POST, DELETE")


# ---- size


def sized_call(size_bytes: int) -> tuple[bytes, dict[str, str]]:
    """A call of exactly this many bytes."""
    body, headers = modern(tool_call("demo__echo", {"message": ""}, request_id="big"))
    padding = size_bytes - len(json.dumps(body).encode())
    body["params"]["arguments"]["message"] = "x" * padding
    encoded = json.dumps(body).encode()
    assert len(encoded) == size_bytes
    return encoded, headers


@pytest.mark.parametrize("is_chunked", [False, True], ids=["with its length", "chunked"])
def test_a_message_at_the_limit_passes_and_one_byte_more_is_too_large(is_chunked: bool, gateway: RunningGateway) -> None:
    def framed(body: bytes) -> Any:
        return (body[start : start + 7000] for start in range(0, len(body), 7000)) if is_chunked else body

    body, headers = sized_call(LIMIT_BYTES)
    assert set(ask(gateway.endpoint(), framed(body), headers).text) == {"x"}
    body, headers = sized_call(LIMIT_BYTES + 1)
    assert_refused(ask(gateway.endpoint(), framed(body), headers), "too_large", None)


def test_a_message_far_beyond_the_limit_is_refused_before_it_is_read(gateway: RunningGateway) -> None:
    connection = http.client.HTTPConnection(gateway.host, gateway.port, timeout=5)
    connection.putrequest("POST", "/mcp")
    connection.putheader("Content-Type", "application/json")
    connection.putheader("Content-Length", str(10**12))
    connection.endheaders()
    answer = connection.getresponse()
    assert (answer.status, json.loads(answer.read())["error"]["data"]["reason"]) == (413, "too_large")
    connection.close()


# ---- what is wrong behind the gateway


def test_a_backend_that_answers_500_is_upstream_failed_until_its_circuit_opens(gateway: RunningGateway) -> None:
    reasons: list[str] = []

    def call() -> Answer:
        client = f"127.0.0.{2 + len(reasons) % 2}"  # one alone opens no circuit of a server that answers its probes
        answer = ask_modern(gateway.endpoint("failing"), tool_call("echo", request_id="f"), source=client)
        reasons.append(answer.reason)
        return answer

    first = call()
    assert_refused(first, "upstream_failed", "f")
    while (answer := call()).reason == "upstream_failed":  # each cell counts for itself
        assert len(reasons) < 30
    assert_refused(answer, "circuit_open", "f")
    assert 1 <= int(answer.headers["retry-after"]) <= 30
    assert len(reasons) > 5
    assert ask_modern(gateway.endpoint("demo"), tool_call("echo", {"message": "hi"})).text == "hi"


def test_a_backend_whose_only_replica_is_ejected_is_no_backend(gateway: RunningGateway) -> None:
    def call() -> Answer:
        return ask_modern(gateway.endpoint("dead"), tool_call("echo", request_id="d"))

    wait_until(lambda: all(call().reason == "no_backend" for _ in range(6)), 15, "ejected in every cell")
    assert_refused(call(), "no_backend", "d")


def test_a_backend_that_is_not_configured_is_no_backend(gateway: RunningGateway) -> None:
    answer = ask_modern(gateway.endpoint("nobody"), tool_call("echo", request_id="n"))
    assert (answer.reason, answer.message["error"]["code"], answer.message["id"]) == ("no_backend", 5030, "n")


def test_a_tool_that_takes_too_long_is_upstream_timeout_in_time(gateway: RunningGateway) -> None:
    started_s = time.monotonic()
    answer = ask_modern(gateway.endpoint("impatient"), tool_call("slow", {"seconds": 20}, request_id="t"))
    assert_refused(answer, "upstream_timeout", "t")
    assert 0.3 <= time.monotonic() - started_s < 10


def test_calls_that_find_no_free_connection_in_time_are_pool_exhausted(gateway: RunningGateway) -> None:
    def call(number: int) -> Answer:
        return ask_modern(gateway.endpoint("tiny"), tool_call("slow", {"seconds": 3}, request_id=number))

    with ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(call, range(8)))
    refused = [(number, answer) for number, answer in enumerate(answers) if answer.status != 200]
    for number, answer in refused:
        assert_refused(answer, "pool_exhausted", number)
    cells = 2 if gateway.form == "two cells" else 1
    assert 8 - cells <= len(refused) < 8
    assert ask_modern(gateway.endpoint("tiny"), tool_call("echo", {"message": "hi"})).text == "hi"


# ---- the gateway's own limits


def open_connections(gateway: RunningGateway) -> float:
    return gateway.metric_sum("mcp_gateway_downstream_connections", transport="streamable_http")


@pytest.mark.parametrize("form", ["embedded", "two cells"])
def test_one_connection_too_many_is_told_so_and_admitted_when_another_ends(form: Form, start_gateway: StartGateway) -> None:
    def call(number: int) -> Answer:
        return ask_modern(gateway.endpoint(), tool_call("slow", {"seconds": 3}, request_id=number))

    limits = {"streamable_http": {"max_connections": 4}}
    with start_gateway(form, [{"name": "demo", "prefix": "", **DEMO}], transports=limits) as gateway:
        with ThreadPoolExecutor(12) as threads:
            answers = list(threads.map(call, range(12)))
        refused = [(number, answer) for number, answer in enumerate(answers) if answer.status != 200]
        for number, answer in refused:
            assert_refused(answer, "too_many_connections", number)
        assert 8 <= len(refused) < 12
        assert ask_modern(gateway.endpoint(), tool_call("echo", {"message": "hi"})).text == "hi"
        wait_until(lambda: open_connections(gateway) == 0, 3, "every connection is counted off again")


@pytest.mark.parametrize("form", ["embedded", "node"])
def test_a_gateway_that_drains_ends_what_runs_and_refuses_what_is_new(form: Form, start_gateway: StartGateway) -> None:
    running: list[Answer] = []
    body, headers = modern(tool_call("echo", {"message": "hi"}, request_id="late"))
    headers["Content-Type"] = "application/json"
    with start_gateway(form, [{"name": "demo", "prefix": "", **DEMO}], gateway={"drain_timeout": 5.0}) as gateway:
        kept = http.client.HTTPConnection(gateway.host, gateway.port, timeout=5)
        kept.request("POST", "/mcp", json.dumps(body), headers)
        assert json.loads(kept.getresponse().read())["result"]["content"][0]["text"] == "hi"
        caller = threading.Thread(
            target=lambda: running.append(ask_modern(gateway.endpoint(), tool_call("slow", {"seconds": 4}, request_id="early")))
        )
        caller.start()
        wait_until(
            lambda: gateway.metric_sum("mcp_gateway_downstream_connections", transport="streamable_http") == 1, 3, "it runs"
        )
        gateway.terminate()
        refusal = None
        deadline_s = time.monotonic() + 3.5
        while refusal is None:  # the signal may arrive after the first request
            assert time.monotonic() < deadline_s
            kept.request("POST", "/mcp", json.dumps(body), headers)
            response = kept.getresponse()
            answer = Answer(response.status, {name.lower(): value for name, value in response.getheaders()}, response.read())
            refusal = None if answer.status == 200 else answer
        kept.close()
        caller.join(15)
    assert_refused(refusal, "draining", "late")
    assert running[0].status == 200
    assert running[0].message["id"] == "early"
    assert "result" in running[0].message
