"""Rules of a stateless request: what is required, what must agree, and which failure is told first.

Source: MCP 2026-07-28, basic/index "Per-request protocol fields"; basic/transports/streamable-http "Server Validation",
"Standard Request Headers", "Value Encoding"; basic/versioning "Protocol Version Negotiation".
"""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mcp_gateway.transports.protocol.mcp.jsonrpc import Request
from mcp_gateway.transports.protocol.mcp.modern_rules import (
    check_modern_body,
    check_modern_request,
    decoded_header,
    encoded_header,
    is_modern_post,
    meta_of,
    unsupported_version,
)
from mcp_gateway.transports.protocol.mcp.refusals import Refused
from mcp_gateway.transports.protocol.mcp.revisions import REVISIONS

VERSION = "io.modelcontextprotocol/protocolVersion"
CAPABILITIES = "io.modelcontextprotocol/clientCapabilities"
NEWEST = "2026-07-28"
META = {VERSION: NEWEST, CAPABILITIES: {}}
_ABSENT = object()


def request(method: str = "tools/call", meta: Any = META, **members: Any) -> Request:
    params = {**({} if meta is _ABSENT else {"_meta": meta}), **members}
    return Request(b"7", method, json.dumps(params).encode())


def refusal(some: Request, version: str | None = NEWEST, method: str | None = "", name: str | None = "echo") -> Refused:
    with pytest.raises(Refused) as caught:
        check_modern_request(some, version, some.method if method == "" else method, name)
    assert caught.value.request_id == b"7"
    assert caught.value.status == 400
    return caught.value


CALL = request(name="echo")


@pytest.mark.parametrize(
    ("method", "members", "name", "item"),
    [
        ("tools/call", {"name": "echo"}, "echo", "echo"),
        ("tools/call", {"name": ""}, "", ""),
        ("prompts/get", {"name": "greet"}, "greet", "greet"),
        ("resources/read", {"uri": "file:///a b"}, "file:///a b", "file:///a b"),
        ("tools/call", {"name": "Hello, 世界"}, "=?base64?SGVsbG8sIOS4lueVjA==?=", "Hello, 世界"),
        ("tools/call", {"name": " padded "}, "=?base64?IHBhZGRlZCA=?=", " padded "),
        ("tools/call", {"name": "echo"}, "=?base64?ZWNobw==?=", "echo"),
        ("tools/call", {"name": "=?base64?literal?="}, "=?base64?PT9iYXNlNjQ/bGl0ZXJhbD89?=", "=?base64?literal?="),
        ("tasks/get", {"taskId": "T1"}, "T1", "T1"),
        ("tasks/update", {"taskId": "T 1", "inputResponses": {}}, "T 1", "T 1"),
        ("tasks/cancel", {"taskId": "T1"}, "T1", "T1"),
        ("tools/list", {}, None, None),
        ("tools/list", {"name": "not an item here"}, "anything", None),
        ("no/such/method", {}, None, None),
    ],
)
def test_a_request_that_obeys_gives_the_item_it_addresses(method, members, name, item):
    assert check_modern_request(request(method, **members), NEWEST, method, name) == item


@pytest.mark.parametrize(
    "some",
    [
        Request(b"7", "tools/call", b""),
        request(meta=_ABSENT, name="echo"),
        request(meta={}, name="echo"),
        request(meta={VERSION: NEWEST}, name="echo"),
        request(meta={CAPABILITIES: {}}, name="echo"),
        request(meta=None, name="echo"),
        request(meta=[], name="echo"),
        request(meta="x", name="echo"),
        request(meta={VERSION: 20260728, CAPABILITIES: {}}, name="echo"),
        request(meta={VERSION: None, CAPABILITIES: {}}, name="echo"),
        request(meta={VERSION: NEWEST, CAPABILITIES: []}, name="echo"),
        request(meta={VERSION: NEWEST, CAPABILITIES: True}, name="echo"),
        Request(b"7", "tools/call", b'{"_meta":{"a":%b},"name":"echo"}' % (b"9" * 5_000)),
        Request(b"7", "tools/call", b'{"_meta":{"a":1e999},"name":"echo"}'),
        request(),
        request(name=7),
        request(name=None),
        request(name=["echo"]),
        request("resources/read", name="echo"),
        request("resources/read", uri={}),
    ],
    ids=lambda some: some.params[:60].decode(),
)
def test_a_required_field_that_is_missing_or_of_another_type_is_invalid_params(some):
    """ "A request missing any required field is malformed; the server MUST reject it with -32602", status 400."""
    assert refusal(some).reason == "invalid_params"


@pytest.mark.parametrize(
    ("headers", "said"),
    [
        ({"version": None}, "MCP-Protocol-Version is required"),
        ({"version": "2025-11-25"}, "MCP-Protocol-Version header value '2025-11-25' does not match body value '2026-07-28'"),
        ({"version": ""}, "MCP-Protocol-Version"),
        ({"method": None}, "Mcp-Method is required"),
        ({"method": "tools/list"}, "Mcp-Method header value 'tools/list' does not match body value 'tools/call'"),
        ({"method": "Tools/Call"}, "Mcp-Method"),
        ({"name": None}, "Mcp-Name is required"),
        ({"name": "foo"}, "Mcp-Name header value 'foo' does not match body value 'echo'"),
        ({"name": "Echo"}, "Mcp-Name"),
        ({"name": "=?base64?Zm9v?="}, "Mcp-Name header value 'foo'"),
        ({"name": "=?BASE64?ZWNobw==?="}, "Mcp-Name"),
        ({"name": "=?base64?ZWNobw==?"}, "Mcp-Name"),
        ({"name": "=?base64?ZWNobw=?="}, "broken Base64"),
        ({"name": "=?base64?ZWNo bw==?="}, "broken Base64"),
        ({"name": "=?base64?/w==?="}, "broken Base64"),
        ({"name": "=?base64??="}, "Mcp-Name"),
        ({"name": "=?base64?="}, "Mcp-Name"),
    ],
)
def test_headers_that_are_missing_or_disagree_are_a_header_mismatch(headers, said):
    refused = refusal(CALL, **headers)
    assert (refused.reason, refused.code) == ("header_mismatch", -32020)
    assert refused.text.startswith("Header mismatch: ")
    assert said in refused.text


@pytest.mark.parametrize("version", ["2099-01-01", "2025-11-25", "", "x" * 5_000])
def test_a_version_that_headers_and_body_agree_on_but_nobody_speaks_here_is_unsupported(version):
    refused = refusal(request(meta={VERSION: version, CAPABILITIES: {}}, name="echo"), version=version)
    assert (refused.reason, refused.code) == ("unsupported_version", -32022)
    assert refused.data == {"supported": list(REVISIONS), "requested": version[:100]}


@pytest.mark.parametrize(
    "method",
    [
        *("initialize", "ping", "logging/setLevel", "resources/subscribe", "resources/unsubscribe"),
        *("tasks/result", "tasks/list"),
    ],
)
def test_a_method_that_the_revision_no_longer_has_is_unknown_whoever_would_serve_it(method):
    """ "404 Not Found and a JSON-RPC error with code -32601"; the server behind may still know it."""
    with pytest.raises(Refused) as over_http:
        check_modern_request(request(method), NEWEST, method, None)
    with pytest.raises(Refused) as on_a_socket:
        check_modern_body(request(method))
    assert (over_http.value.reason, over_http.value.code, over_http.value.status) == ("unknown_method", -32601, 404)
    assert on_a_socket.value.reason == "unknown_method"


def test_an_unknown_version_in_the_header_alone_is_unsupported():
    """The body of a revision that we do not know may lack what ours require."""
    assert refusal(request(meta=_ABSENT), version="2099-01-01").reason == "unsupported_version"


def test_failures_are_told_in_the_order_of_the_rules():
    """Each case also has every fault of the later ones."""
    wrong = {"version": "2025-03-26", "method": "x", "name": "x"}
    future = {VERSION: "2099-01-01", CAPABILITIES: {}}
    cases = [
        (request(meta=7), wrong, "must be an object"),
        (request(meta={VERSION: 1}), wrong, "_meta lacks"),
        (request(meta={VERSION: 1, CAPABILITIES: {}}), wrong, "must be a string"),
        (request(meta=future), wrong, "MCP-Protocol-Version"),
        (request(meta=future), {**wrong, "version": "2099-01-01"}, "Mcp-Method"),
        (request(meta=future), {"version": "2099-01-01", "name": "x"}, '"name" must be a string'),
        (request(meta=future, name="echo"), {"version": "2099-01-01", "name": "x"}, "Mcp-Name"),
        (request(meta=future, name="echo"), {"version": "2099-01-01"}, "Unsupported protocol version"),
    ]
    for some, headers, said in cases:
        assert said in refusal(some, **headers).text


@pytest.mark.parametrize(
    ("header", "params", "is_modern"),
    [
        (NEWEST, b"", True),
        (NEWEST, b'{"_meta":{}}', True),
        (None, json.dumps({"_meta": META}).encode(), True),
        ("2099-01-01", json.dumps({"_meta": META}).encode(), True),
        ("2025-11-25", json.dumps({"_meta": META}).encode(), True),
        (None, b"", False),
        (None, b'{"_meta":{}}', False),
        (None, json.dumps({"arguments": {"text": VERSION}}).encode(), False),
        (None, json.dumps({"_meta": [VERSION]}).encode(), False),
        ("2099-01-01", b"", False),
        ("", b"", False),
    ],
)
def test_a_request_is_stateless_by_its_header_or_by_its_meta(header, params, is_modern):
    """Source: MCP 2026-07-28, basic/transports/streamable-http "Protocol Version Header": both are read, and must then agree."""
    assert is_modern_post(header, params) is is_modern


@pytest.mark.parametrize(
    ("params", "meta"),
    [
        (b"", {}),
        (b"{}", {}),
        (b'{"_meta":{"a":1}}', {"a": 1}),
        (b'{"_meta":null}', {}),
        (b'{"_meta":[]}', {}),
        (b'{"_meta":{"a":1e999}}', {}),
        (b"[]", {}),
        (b'{"_meta":{"a":' + b"[" * 5_000 + b"]" * 5_000 + b"}}", {}),
    ],
)
def test_meta_is_an_object_or_nothing(params, meta):
    assert meta_of(params) == meta


# Source: MCP 2026-07-28, basic/transports/streamable-http, "Value Encoding", encoding examples.
ENCODED = {
    "us-west1": "us-west1",
    "Hello, 世界": "=?base64?SGVsbG8sIOS4lueVjA==?=",
    " padded ": "=?base64?IHBhZGRlZCA=?=",
    "line1\nline2": "=?base64?bGluZTEKbGluZTI=?=",
    "=?base64?literal?=": "=?base64?PT9iYXNlNjQ/bGl0ZXJhbD89?=",
}


@pytest.mark.parametrize("value", ENCODED)
def test_header_values_are_encoded_as_in_the_specification(value):
    assert encoded_header(value) == ENCODED[value]
    assert decoded_header(ENCODED[value], b"7") == value


@settings(deadline=None)
@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_any_text_survives_a_header(value):
    header = encoded_header(value)
    assert header.isascii()
    assert header.isprintable()
    assert header == header.strip()
    assert decoded_header(header, b"7") == value


@settings(deadline=None)
@given(st.text(), st.none() | st.text())
def test_any_header_is_read_or_is_a_mismatch(middle, whole):
    for header in (whole, f"=?base64?{middle}?="):
        try:
            assert isinstance(decoded_header(header, b"7"), str | None)
        except Refused as refused:
            assert refused.reason == "header_mismatch"


json_values = st.recursive(st.none() | st.booleans() | st.integers() | st.text(), lambda inner: st.lists(inner, max_size=2))


@settings(deadline=None)
@given(
    st.sampled_from(["tools/call", "tools/list", "resources/read"]),
    st.dictionaries(st.sampled_from([VERSION, CAPABILITIES, "x"]), json_values | st.just(NEWEST) | st.just({})) | json_values,
    st.dictionaries(st.sampled_from(["name", "uri", "x"]), json_values),
    st.none() | st.just(NEWEST) | st.text(),
    st.none() | st.just("tools/call") | st.text(),
    st.none() | st.text(),
)
def test_any_request_is_accepted_or_refused(method, meta, members, version, method_header, name):
    some = request(method, meta, **members)
    try:
        check_modern_request(some, version, method_header, name)
    except Refused as refused:
        assert refused.reason in ("invalid_params", "header_mismatch", "unsupported_version")
        assert json.loads(refused.body())["id"] == 7
    else:
        assert version == meta[VERSION] == NEWEST
        assert method_header == method


def test_a_long_version_is_not_repeated_in_full():
    assert len(unsupported_version("9" * 100_000, None).body()) < 1_000


def test_a_legacy_header_beside_a_modern_meta_is_a_mismatch():
    """Source: MCP 2026-07-28, basic/transports/streamable-http "Protocol Version Header": it MUST match the value in _meta."""
    request = Request(b"1", "tools/list", json.dumps({"_meta": META}).encode())
    with pytest.raises(Refused) as caught:
        check_modern_request(request, "2025-11-25", "tools/list", None)
    assert caught.value.reason == "header_mismatch"
