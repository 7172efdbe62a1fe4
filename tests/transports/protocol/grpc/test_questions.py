from __future__ import annotations

from typing import Any

import pytest
from mcp_grpc_transport_proto import mcp_messages_pb2 as proto

from mcp_gateway.transports.protocol.grpc.messages import json_of
from mcp_gateway.transports.protocol.grpc.methods import METHODS
from mcp_gateway.transports.protocol.grpc.values import Budget, CannotCross

_CALL = METHODS["tools/call"]
_TEXT = {"type": "text", "text": "said"}

QUESTIONS: list[dict[str, Any]] = [
    {"method": "roots/list"},
    {"method": "elicitation/create", "params": {"mode": "url", "message": "m", "url": "https://x"}},
    {
        "method": "sampling/createMessage",
        "params": {
            "messages": [{"role": "user", "content": _TEXT}],
            "maxTokens": 5,
            "systemPrompt": "s",
            "temperature": 0.25,
            "modelPreferences": {"hints": [{"name": "a"}], "speedPriority": 0.3},
            "includeContext": "thisServer",
            "stopSequences": ["a"],
        },
    },
]
FIELDS: dict[str, dict[str, Any]] = {
    "text": {"type": "string"},
    "mail": {"type": "string", "title": "T", "description": "d", "format": "email", "minLength": 0, "default": "a@b"},
    "when": {"type": "string", "format": "date-time"},
    "yes": {"type": "boolean", "default": True},
    "whole": {"type": "integer", "minimum": -1, "maximum": 9, "default": 3},
    "real": {"type": "number", "minimum": 0.5, "default": 1.5},
    "one": {"type": "string", "enum": ["a", "b"], "default": "a"},
    "named": {"type": "string", "oneOf": [{"const": "a", "title": "A"}]},
    "some": {"type": "array", "items": {"type": "string", "enum": ["q"]}, "minItems": 0, "maxItems": 1, "default": ["q"]},
    "some named": {"type": "array", "items": {"anyOf": [{"const": "q", "title": "Q"}]}},
}
ANSWERS: list[dict[str, Any]] = [
    {"action": "accept", "content": {"a": 1, "b": ["x"]}},
    {"action": "decline"},
    {"action": "cancel"},
    {"roots": [{"uri": "file:///a", "name": "a"}]},
    {"roots": []},
    {"role": "assistant", "content": _TEXT, "model": "m", "stopReason": "endTurn"},
]


def asked(question: dict[str, Any]) -> dict[str, Any]:
    return {"resultType": "input_required", "inputRequests": {"q": question}, "requestState": "s"}


@pytest.mark.parametrize("question", QUESTIONS)
def test_questions_come_back_as_they_were(question: dict[str, Any]) -> None:
    assert _CALL.decode_response(_CALL.encode_response(asked(question))) == asked(question)


@pytest.mark.parametrize("name", FIELDS)
def test_fields_of_forms_come_back_as_they_were(name: str) -> None:
    schema = {"type": "object", "properties": {name: FIELDS[name]}, "required": [name]}
    question = {"method": "elicitation/create", "params": {"mode": "form", "message": "m", "requestedSchema": schema}}
    assert _CALL.decode_response(_CALL.encode_response(asked(question))) == asked(question)


@pytest.mark.parametrize("answer", ANSWERS)
def test_answers_come_back_as_they_were(answer: dict[str, Any]) -> None:
    params = {"name": "x", "inputResponses": {"q": answer}, "requestState": "s"}
    assert _CALL.decode_request(_CALL.encode_request(params)) == params


@pytest.mark.parametrize(
    ("question", "says"),
    [
        ({"method": "made/up"}, "no question 'made/up'"),
        ({"method": "sampling/createMessage", "params": {"messages": [], "maxTokens": 1, "tools": [{}]}}, "with tools"),
        (
            {
                "method": "elicitation/create",
                "params": {"message": "m", "requestedSchema": {"properties": {"a": {"type": "object"}}}},
            },
            "no field of type 'object'",
        ),
        ({"method": "elicitation/create"}, "form"),
        ({}, "form"),
    ],
)
def test_questions_that_grpc_does_not_have_are_refused_in_words(question: dict[str, Any], says: str) -> None:
    with pytest.raises(CannotCross, match=says):
        _CALL.encode_response(asked(question))


def test_an_answer_of_no_known_kind_is_refused() -> None:
    with pytest.raises(CannotCross, match="no answer of this kind"):
        _CALL.encode_request({"name": "x", "inputResponses": {"q": {"new": 1}}})


def test_an_answer_that_does_not_say_what_it_is_was_cancelled() -> None:
    assert json_of(proto.ElicitResult(), Budget()) == {"action": "cancel"}
