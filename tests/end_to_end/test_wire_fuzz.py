"""Whatever bytes and headers arrive, the gateway answers with a documented error or a valid result, and no actor dies of them."""

from __future__ import annotations

import http.client
import json
import string
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.conftest import StartGateway
from tests.end_to_end.raw_http import BOTH_ANSWERS, LEGACY, MODERN, messages_in, modern, open_session, request, tool_call
from tests.end_to_end.running_gateway import RunningGateway
from tests.end_to_end.test_refusals import TABLE

LIMIT_BYTES = 20_000
# Errors of a server that pass through the gateway as they are: they carry no reason of ours.
SERVER_CODES = {-32700, -32600, -32601, -32602, -32603, -32002}
METHODS = [
    "initialize", "ping", "server/discover", "tools/list", "tools/call", "resources/list", "resources/templates/list",
    "resources/read", "resources/subscribe", "resources/unsubscribe", "prompts/list", "prompts/get", "completion/complete",
    "logging/setLevel", "tools/dance", "notifications/initialized", "notifications/cancelled", "",
]  # fmt: skip

fuzzed = settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=12), inner, max_size=4),
    max_leaves=12,
)
header_values = st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), max_size=60).map(str.strip)
header_names = st.sampled_from(
    ["MCP-Protocol-Version", "Mcp-Session-Id", "Mcp-Method", "Mcp-Name", "Accept", "Content-Type", "Origin", "Last-Event-ID",
     "traceparent", "Mcp-Param-x", "Authorization", "Cookie", "Accept-Encoding", "X-Forwarded-For"]
) | st.text(string.ascii_letters + "-", min_size=1, max_size=20).map(lambda name: f"X-{name}")  # fmt: skip
telling_values = header_values | st.sampled_from(
    [MODERN, LEGACY, "2024-11-05", "tools/call", "echo", "application/json", "text/event-stream", "*/*"]
)
random_headers = st.dictionaries(header_names, telling_values, max_size=5)


class Wire:
    """A kept-alive connection: a request that breaks it fails the test."""

    def __init__(self, gateway: RunningGateway, path: str) -> None:
        self.gateway = gateway
        self._path = path
        self._connection = http.client.HTTPConnection(gateway.host, gateway.port, timeout=10)
        self.session = open_session(gateway.endpoint())

    def ask(self, body: bytes | Iterator[bytes], headers: Mapping[str, str], verb: str = "POST") -> tuple[int, Any]:
        """(status, last message or None). Checks what holds for every answer."""
        shown = {"Content-Type": "application/json", "Accept": BOTH_ANSWERS}
        self._connection.request(verb, self._path, body, {**shown, **headers})
        answer = self._connection.getresponse()
        content = answer.read()
        if answer.headers.get("Content-Type") == "text/event-stream":
            message = list(messages_in(content))[-1]
        else:
            message = json.loads(content) if content else None
        assert_documented(answer.status, message)
        return answer.status, message

    def close(self) -> None:
        self._connection.close()


def assert_documented(status: int, message: Any) -> None:
    if message is None:
        assert status == 202
        return
    if "error" not in message:
        assert status == 200
        assert isinstance(message["result"], dict)
        return
    error = message["error"]
    assert message["jsonrpc"] == "2.0"
    assert error["message"]
    assert "Traceback" not in error["message"]
    reason = (error.get("data") or {}).get("reason") if isinstance(error.get("data"), dict) else None
    if reason is None:
        assert error["code"] in SERVER_CODES
        assert status < 500
    else:
        code, usual_status, _ = TABLE[reason]
        assert error["code"] == code
        allowed = {usual_status} | {"unknown_method": {404}, "invalid_request": {405}}.get(reason, set())
        assert status in allowed, (status, reason)


@pytest.fixture(scope="module", params=["alone", "merged"])
def wire(request: pytest.FixtureRequest, start_gateway: StartGateway) -> Iterator[Wire]:
    names = ["demo"] if request.param == "alone" else ["demo", "other"]
    prefixes = {"prefix": ""} if request.param == "alone" else {}
    backends = [{"name": name, "builtin": "demo", **prefixes} for name in names]
    with start_gateway("embedded", backends, gateway={"max_message_bytes": LIMIT_BYTES}) as gateway:
        wire = Wire(gateway, "/mcp")
        yield wire
        wire.close()
        health = gateway.health()
        assert health["status"] == "healthy", health
        assert gateway.restart_count() == 0
        warnings = [line for line in gateway.log.splitlines() if '"level": "warning"' in line]
        assert [line for line in warnings if '"source": "event-loop"' not in line] == []  # which a busy machine may hold up


@fuzzed
@given(body=st.binary(max_size=400))
def test_random_bytes(wire: Wire, body: bytes) -> None:
    status, message = wire.ask(body, {})
    assert status == 400
    assert message["error"]["data"]["reason"] in ("parse_error", "invalid_request")


@fuzzed
@given(value=json_values, headers=st.sampled_from([{}, {"MCP-Protocol-Version": MODERN}, {"MCP-Protocol-Version": LEGACY}]))
def test_random_json(wire: Wire, value: Any, headers: dict[str, str]) -> None:
    status, message = wire.ask(json.dumps(value).encode(), headers)
    assert status == 400
    assert message["error"]["data"]["reason"] == "invalid_request"


@st.composite
def mutated_messages(draw: st.DrawFn) -> dict[str, Any]:
    """A valid request with some of its members replaced, taken away, or added, at any depth."""
    valid = [
        tool_call("echo", {"message": "hi"}),
        tool_call("demo__echo", {"message": "hi"}),
        request("tools/list", {"cursor": "x"}),
        request("resources/read", {"uri": "demo://echo/hi"}),
        request("prompts/get", {"name": "greet", "arguments": {"name": "Bo"}}),
        request(
            "completion/complete", {"ref": {"type": "ref/prompt", "name": "greet"}, "argument": {"name": "name", "value": "A"}}
        ),
        request("initialize", {"protocolVersion": LEGACY, "capabilities": {}, "clientInfo": {"name": "x", "version": "1"}}),
        request("logging/setLevel", {"level": "info"}),
        request("resources/subscribe", {"uri": "demo://echo/hi"}),
    ]
    message: dict[str, Any] = json.loads(json.dumps(draw(st.sampled_from(valid))))
    if draw(st.booleans()):
        message = modern(message)[0]
    for _ in range(draw(st.integers(0, 3))):
        place: Any = message
        while True:
            keys = list(place)
            key = draw(st.sampled_from([*keys, "extra"]) if keys else st.just("extra"))
            if isinstance(place.get(key), dict) and place[key] and draw(st.booleans()):
                place = place[key]
                continue
            break
        if key in place and draw(st.booleans()):
            del place[key]
        elif place is message and key == "method":
            message["method"] = draw(st.sampled_from(METHODS) | st.text(max_size=20))
        else:
            place[key] = draw(json_values)
    return message


@fuzzed
@given(message=mutated_messages(), headers=random_headers, is_modern=st.booleans(), is_in_session=st.booleans())
def test_mutated_requests(
    wire: Wire, message: dict[str, Any], headers: dict[str, str], is_modern: bool, is_in_session: bool
) -> None:
    if is_in_session:
        headers = headers | wire.session
    if is_modern and isinstance(message.get("method"), str) and isinstance(message.get("params"), dict):
        _, right = modern(message) if isinstance(message["params"].get("_meta", {}), dict) else (None, {})
        printable = {name: value for name, value in right.items() if value.isascii() and value.isprintable()}
        headers = printable | headers
    if message.get("method") == "subscriptions/listen":
        return  # a stream has no end
    status, answer = wire.ask(json.dumps(message).encode(), headers)
    request_id = message.get("id")
    is_valid_id = isinstance(request_id, str | int) and not isinstance(request_id, bool)
    if answer is not None and answer.get("id") is not None:
        assert answer["id"] == request_id
    elif is_valid_id and status == 200:
        pytest.fail("an answer without the request's id")


ODD_JSON = [
    b"1e400", b"-1e400", b"1" + b"0" * 5000, b"-1" + b"0" * 400 + b".5", b"1E-400", b"-0", b"0.1e1",
    rb'"\ud800"', rb'"a\udfffb"', rb'{"\ud800":1}', rb'"\u0000\u202e"',
    b"[" * 300 + b"]" * 300, b'{"a":' * 300 + b"1" + b"}" * 300, b"[" * 5000 + b"]" * 5000,
]  # fmt: skip


@fuzzed
@given(
    message=mutated_messages(),
    odd=st.sampled_from(ODD_JSON),
    data=st.data(),
    is_modern=st.booleans(),
    is_in_session=st.booleans(),
)
def test_numbers_beyond_any_range_halves_of_characters_and_deep_nesting(
    wire: Wire, message: dict[str, Any], odd: bytes, data: st.DataObject, is_modern: bool, is_in_session: bool
) -> None:
    """Wherever they stand, whatever reads them: never an internal error, and nothing that looks like a fault of ours."""
    place, key = data.draw(st.sampled_from(list(_places(message))))
    place[key] = "@odd@"
    if message.get("method") in ("subscriptions/listen", "@odd@"):
        return
    headers = dict(wire.session) if is_in_session else {}
    if is_modern and isinstance(message.get("method"), str):
        name = message["params"].get("name") if isinstance(message.get("params"), dict) else None
        headers |= {"MCP-Protocol-Version": MODERN, "Mcp-Method": "".join(filter(str.isprintable, message["method"]))}
        if isinstance(name, str) and name.isascii() and name.isprintable():
            headers["Mcp-Name"] = name
        if not headers["Mcp-Method"].isascii():
            return
    status, answer = wire.ask(json.dumps(message).encode().replace(b'"@odd@"', odd), headers)
    assert status < 500, answer
    if answer is not None and "error" in answer:
        assert answer["error"]["code"] != -32603, answer


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Every (object or list, key) of a message."""
    members = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in members:
        yield value, key
        yield from _places(inner)


@fuzzed
@given(headers=random_headers, verb=st.sampled_from(["POST", "GET", "DELETE"]))
def test_random_headers(wire: Wire, headers: dict[str, str], verb: str) -> None:
    """No random header opens a session's stream, which would have no end."""
    body, right = modern(tool_call("no_such_tool"))
    encoded, shown = (json.dumps(body).encode(), {**right, **headers}) if verb == "POST" else (b"", headers)
    status, message = wire.ask(encoded, shown, verb)
    assert status in (200, 400, 403, 404, 405)
    assert message is not None


@fuzzed
@given(size=st.integers(LIMIT_BYTES - 50, LIMIT_BYTES + 2000), chunk=st.integers(200, 8000), is_chunked=st.booleans())
def test_sizes_around_the_limit(wire: Wire, size: int, chunk: int, is_chunked: bool) -> None:
    """The connection stays usable after every refusal, as `Wire` keeps it."""
    body, headers = modern(tool_call("no_such_tool", {"message": ""}))
    body["params"]["arguments"]["message"] = "x" * (size - len(json.dumps(body).encode()))
    encoded = json.dumps(body).encode()
    status, _ = wire.ask(framed(encoded, chunk) if is_chunked else encoded, headers)
    assert (status == 413) == (size > LIMIT_BYTES)


def framed(body: bytes, chunk: int) -> Iterator[bytes]:
    return (body[start : start + chunk] for start in range(0, len(body), chunk))
