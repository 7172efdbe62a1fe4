"""What an operation answers, as its tool's output schema: one that every described answer conforms to, or none."""

from __future__ import annotations

from typing import Any

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcp_gateway.transports.upstream.openapi.api_answers import output_schema

PET = {
    "type": "object",
    "required": ["id", "password"],
    "properties": {"id": {"type": "integer"}, "password": {"writeOnly": True}},
}
DOCUMENT: dict[str, Any] = {
    "components": {
        "schemas": {
            "Pet": PET,
            "Dog": {"allOf": [{"$ref": "#/components/schemas/Pet"}, {"properties": {"barks": {"type": "boolean"}}}]},
            "Tree": {"type": "object", "properties": {"left": {"$ref": "#/components/schemas/Tree"}}},
            "Loop": {"allOf": [{"$ref": "#/components/schemas/Loop"}]},
        }
    }
}


def answers(**schemas: Any) -> dict[str, Any]:
    """An operation. schemas: {"_200": of its JSON}; None for an answer without content."""
    responses = {
        status.strip("_"): {"content": {"application/json": {"schema": schema}}}
        if schema is not None
        else {"description": "no body"}
        for status, schema in schemas.items()
    }
    return {"responses": responses}


def reference(name: str) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{name}"}


@pytest.mark.parametrize(
    ("operation", "good", "wrong"),
    [
        (answers(_200=reference("Pet")), {"id": 1}, {"id": "one"}),
        (answers(_200=reference("Dog")), {"id": 1, "barks": True}, {"id": 1, "barks": "no"}),
        (answers(_200={"type": "array", "items": reference("Pet")}), {"result": [{"id": 1}]}, {"result": [{}]}),
        (answers(_200={"type": "string", "nullable": True}), {"result": None}, {"result": 1}),
        (answers(_200=reference("Pet"), _201={"type": "boolean"}), {"result": True}, {"result": 1}),
        (answers(_2XX=reference("Pet"), default={"type": "string"}), {"id": 1}, {}),
    ],
)
def test_what_is_described_conforms_and_other_answers_do_not(operation: Any, good: Any, wrong: Any) -> None:
    schema = output_schema(DOCUMENT, operation)
    assert schema is not None
    assert schema["type"] == "object", "as MCP wants it"
    jsonschema.validate(good, schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(wrong, schema)


@pytest.mark.parametrize(
    "operation",
    [
        {},
        {"responses": []},
        answers(_404=reference("Pet")),
        answers(_200=reference("Pet"), _204=None),
        answers(_200={}),
        answers(_200={"oneOf": [PET, {"type": "string"}]}),
        answers(_200={"type": "object", "nullable": True}),
        answers(_200=reference("Tree")),
        answers(_200=reference("Loop")),
        answers(_200=reference("Nobody")),
        answers(_200={"type": "object", "description": "x" * 70_000}),
        {"responses": {"200": {"content": {"application/json": {"schema": PET}, "text/csv": {}}}}},
    ],
)
def test_where_that_cannot_be_told_or_held_against_an_answer_nothing_is_said(operation: Any) -> None:
    assert output_schema(DOCUMENT, operation) is None


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.sampled_from(["object", "string", "#/components/schemas/Loop", "200"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["type", "allOf", "$ref", "properties", "required", "200", "content", "schema"]), inner, max_size=4
        )
    ),
    max_leaves=20,
)


@given(_JSON)
def test_whatever_is_said_of_answers_there_is_a_schema_that_is_one_or_none(schema: Any) -> None:
    for operation in (answers(_200=schema), {"responses": schema}, {"responses": {"200": schema}}):
        found = output_schema(DOCUMENT, operation)
        if found is not None:
            jsonschema.Draft202012Validator.check_schema(found)
