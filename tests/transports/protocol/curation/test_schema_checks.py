"""Values against schemas, some of which are made to harm."""

from __future__ import annotations

import json
import resource
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcp_gateway.transports.protocol.curation.schema_checks import MOST_SCHEMA_BYTES, MOST_WORK, SchemaCheck, Uncheckable


def check(schema: Any) -> SchemaCheck:
    return SchemaCheck(json.dumps(schema).encode())


def problem(schema: Any, value: Any) -> str | None:
    return check(schema).problem(json.dumps(value).encode())


PERSON = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "$id": "https://server.example/person",
    "type": "object",
    "properties": {"name": {"type": "string", "pattern": "^[a-z]+$"}, "age": {"$ref": "#/$defs/age"}, "$id": {"type": "string"}},
    "required": ["name"],
    "additionalProperties": False,
    "$defs": {"age": {"type": "integer", "minimum": 0}},
}


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ({"name": "ann"}, None),
        ({"name": "ann", "age": 3, "$id": "x"}, None),
        ({}, '"name" is a required property'),
        ({"name": "Ann"}, 'name: "Ann" does not match "^[a-z]+$"'),
        ({"name": "ann", "age": -1}, "age: -1 is less than the minimum of 0"),
        ([], '[] is not of type "object"'),
    ],
)
def test_a_value_is_held_against_its_schema(value: Any, said: str | None) -> None:
    assert problem(PERSON, value) == said


def test_a_dialect_before_2020_is_read_as_far_as_it_is_the_same() -> None:
    draft = {"$schema": "http://json-schema.org/draft-07/schema#", "definitions": {"a": {"type": "integer"}}}
    assert problem({**draft, "properties": {"x": {"$ref": "#/definitions/a"}}}, {"x": "1"}) is not None


def nested(levels: int) -> Any:
    schema: Any = {"type": "string"}
    for _ in range(levels):
        schema = {"properties": {"x": schema}}
    return schema


def doubling(levels: int) -> Any:
    """Attack: each level is applied twice, so the last one 2 ** levels times."""
    defs: dict[str, Any] = {f"a{level}": {"anyOf": [{"$ref": f"#/$defs/a{level + 1}"}] * 2} for level in range(levels)}
    return {"$defs": {**defs, f"a{levels}": {"type": "string"}}, "$ref": "#/$defs/a0"}


@pytest.mark.parametrize(
    ("schema", "why"),
    [
        ({"$ref": "#"}, "itself"),
        ({"properties": {"x": {"$ref": "#"}}}, "itself"),
        ({"$defs": {"a": {"items": {"$ref": "#/$defs/a"}}}, "$ref": "#/$defs/a"}, "itself"),
        ({"$ref": "http://127.0.0.1:1/x"}, "nothing is fetched"),
        ({"$ref": "file:///etc/passwd"}, "nothing is fetched"),
        ({"$defs": {"unused": {"$ref": "http://127.0.0.1:1/x"}}}, "nothing is fetched"),
        ({"$ref": "#/$defs/none"}, "not there"),
        ({"items": {"$id": "https://x.example/"}}, "$id"),
        ({"$dynamicRef": "#x"}, "$dynamicRef"),
        (nested(65), "nested"),
        (doubling(20), "subschemas"),
        ({"pattern": "("}, "regex"),
        ({"pattern": "(?=a)b"}, "regex"),
        ({"pattern": "(a{1000}){1000}"}, "regex"),
        ({"type": "objekt"}, "objekt"),
        ({"description": "x" * MOST_SCHEMA_BYTES}, "bytes"),
        ([], "no object"),
        (True, "no object"),
    ],
)
def test_a_schema_that_could_harm_or_means_nothing_is_not_used(schema: Any, why: str) -> None:
    started_s = time.process_time()
    with pytest.raises(Uncheckable, match=why.replace("$", r"\$")):
        check(schema)
    assert time.process_time() - started_s < 2.0


def test_what_is_not_json_is_no_schema() -> None:
    with pytest.raises(Uncheckable):
        SchemaCheck(b"{")
    with pytest.raises(Uncheckable):
        SchemaCheck(b"[" * 60_000)


def test_a_pattern_that_backtracks_elsewhere_takes_no_time() -> None:
    started_s = time.process_time()
    assert problem({"pattern": "^(a+)+$"}, "a" * 100_000 + "!") is not None
    assert time.process_time() - started_s < 1.0


def test_what_is_too_much_is_not_looked_at_and_what_is_just_not_is() -> None:
    most = MOST_WORK // 2
    assert problem({"items": {"type": "string"}}, "x" * 10) is None
    assert check({"type": "integer", "not": {"type": "null"}}).problem(b'"%b"' % (b"x" * (most - 2))) is not None
    assert check({"type": "integer", "not": {"type": "null"}}).problem(b'"%b"' % (b"x" * (most - 1))) is None


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["type", "properties", "items", "$ref", "allOf", "not", "a", "$defs", "pattern", "required"]),
            inner | st.sampled_from(["#", "#/a", "#/$defs/a", "object", "integer"]),
            max_size=3,
        )
    ),
    max_leaves=12,
)


@given(JSON, JSON)
def test_any_schema_is_used_or_not_and_any_value_has_a_problem_or_none(schema: Any, value: Any) -> None:
    try:
        found = problem(schema, value)
    except Uncheckable:
        return
    assert found is None or "\n" not in found


CANDIDATES = {"enum": [f"x{number}" for number in range(5_000)]}


@pytest.mark.parametrize(
    "schema",
    [
        {"items": CANDIDATES},
        {"anyOf": [{"items": CANDIDATES}, {"type": "string"}]},
        {"oneOf": [{"items": CANDIDATES}, {"type": "string"}]},
        {"$defs": {"each": {"items": CANDIDATES}}, "anyOf": [{"$ref": "#/$defs/each"}] * 300},
    ],
)
def test_a_value_that_is_wrong_in_thousands_of_places_takes_no_memory_for_each(schema: Any) -> None:
    read = check(schema)
    before_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert read.problem(json.dumps([1] * 5_000).encode()) is not None
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before_kb < 150_000


def test_alternatives_are_explained_where_they_are_few() -> None:
    schema = {"anyOf": [{"type": "string"}, {"type": "integer"}]}
    assert problem(schema, None) == "null is not valid under any of the schemas listed in the 'anyOf' keyword"
    assert problem(schema, ["x" * 1_000_000]) == "it is not what the schema says"
