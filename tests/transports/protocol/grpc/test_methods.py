from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mcp_grpc_transport_proto import mcp_messages_pb2 as proto
from mcp_grpc_transport_proto import mcp_pb2

from mcp_gateway.transports.protocol.grpc.methods import METHODS, RPCS, SERVICE, GrpcMethod
from mcp_gateway.transports.protocol.grpc.values import MOST_VALUES, CannotCross

_WORDS = ("name", "uri", "arguments", "content", "type", "text", "tools", "prompts", "contents", "_meta", "ref", "argument")
_MEMBERS = st.sampled_from((*_WORDS, "completion", "inputRequests", "method", "ttlMs"))
_ANY = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5) | _MEMBERS, inner, max_size=4),
    max_leaves=10,
)
_METHODS = st.sampled_from(sorted(METHODS.values(), key=lambda method: method.name))


def test_every_method_of_the_service_is_there() -> None:
    service = mcp_pb2.DESCRIPTOR.services_by_name["Mcp"]
    assert {f"/{SERVICE}/{method.name}" for method in service.methods} == set(RPCS)
    assert service.full_name == SERVICE
    for method in service.methods:
        known = RPCS[f"/{SERVICE}/{method.name}"]
        assert (method.input_type, method.output_type) == (known.request.DESCRIPTOR, known.response.DESCRIPTOR)
        assert (method.client_streaming, method.server_streaming) == (False, False), "README says that progress cannot cross"


@given(_METHODS, st.binary(max_size=200))
def test_any_bytes_are_a_message_or_an_error_of_ours(method: GrpcMethod, data: bytes) -> None:
    for decode in (method.decode_request, method.decode_response):
        try:
            msgspec.json.encode(decode(data))
        except CannotCross as error:
            assert str(error)


@given(_METHODS, st.dictionaries(_MEMBERS, _ANY, max_size=5))
def test_any_json_is_a_message_or_an_error_of_ours(method: GrpcMethod, value: dict[str, Any]) -> None:
    for encode in (method.encode_request, method.encode_response):
        try:
            encode(value)
        except CannotCross as error:
            assert str(error)


def test_bytes_that_are_no_message_are_named() -> None:
    with pytest.raises(CannotCross, match="no CallToolRequest"):
        METHODS["tools/call"].decode_request(b"\xff\xff")


def test_as_many_values_as_one_message_may_have_are_read_and_more_are_not() -> None:
    """A tool of two bytes is an object of a hundred."""
    within = proto.ListToolsResponse(tools=[proto.Tool()] * (MOST_VALUES // 2 - 2))
    assert len(METHODS["tools/list"].decode_response(within.SerializeToString())["tools"]) == MOST_VALUES // 2 - 2
    with pytest.raises(CannotCross, match="values"):
        METHODS["tools/list"].decode_response(proto.ListToolsResponse(tools=[proto.Tool()] * MOST_VALUES).SerializeToString())


def test_a_result_that_asks_has_nothing_of_one_that_answers() -> None:
    """Source: MCP 2026-07-28, basic/patterns/mrtr: an `InputRequiredResult` is another one than that of a call."""
    common = proto.ResponseFields(result_type=proto.RESULT_TYPE_INPUT_REQUIRED, request_state="s")
    data = proto.CallToolResponse(common=common).SerializeToString()
    assert METHODS["tools/call"].decode_response(data) == {"resultType": "input_required", "requestState": "s"}
