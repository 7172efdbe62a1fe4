"""Schemas of messages: what they take, ProtoJSON takes."""

from __future__ import annotations

from typing import Any

import jsonschema
import pytest
from google.protobuf.descriptor_pb2 import FieldDescriptorProto, FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.json_format import ParseDict
from google.protobuf.message_factory import GetMessageClass

from mcp_gateway.transports.upstream.grpc.message_schemas import schema_of
from tests.doubles.grpc_shop import shop_pool

QUERY = shop_pool().FindMessageTypeByName("shop.v1.Query")


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"namePart": "a", "limit": 3, "color": "RED"},
        {"limit": "9007199254740993"},
        {"labels": {"a": "b"}, "tags": ["x", "y"]},
        {"since": "2026-07-28T09:00:00Z", "seal": "AAE="},
        {"either": {"either": {"namePart": "deep"}}},
    ],
)
def test_what_a_schema_takes_the_message_takes(arguments: dict[str, Any]) -> None:
    jsonschema.validate(arguments, schema_of(QUERY))
    ParseDict(arguments, GetMessageClass(QUERY)())


@pytest.mark.parametrize("arguments", [{"other": 1}, {"limit": "x"}, {"color": "GREEN"}, {"tags": "x"}, {"labels": {"a": 1}}])
def test_what_the_message_does_not_take_the_schema_does_not_take(arguments: dict[str, Any]) -> None:
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(arguments, schema_of(QUERY))


def test_a_message_that_holds_itself_is_one_definition() -> None:
    schema = schema_of(QUERY)
    jsonschema.Draft202012Validator.check_schema(schema)
    assert list(schema["$defs"]) == ["shop.v1.Query"]


def test_beyond_two_hundred_messages_any_object_will_do() -> None:
    file = FileDescriptorProto(name="chain.proto", syntax="proto3")
    for number in range(300):
        message = file.message_type.add(name=f"M{number}")
        if number < 299:
            kind, label = FieldDescriptorProto.TYPE_MESSAGE, FieldDescriptorProto.LABEL_OPTIONAL
            message.field.add(name="next", number=1, type=kind, label=label, type_name=f".M{number + 1}")
    pool = DescriptorPool()
    pool.Add(file)
    schema = schema_of(pool.FindMessageTypeByName("M0"))
    assert len(schema["$defs"]) == 200
    assert schema["$defs"]["M200"]["properties"]["next"] == {"type": "object"}
