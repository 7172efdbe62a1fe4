"""What is read of descriptions: public ones, odd ones, and those that mean harm."""

from __future__ import annotations

import contextlib
from typing import Any

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcp_gateway.transports.upstream.adapted.adapted_conversation import LARGEST_SCHEMA_BYTES, size_of
from mcp_gateway.transports.upstream.openapi import api_description
from mcp_gateway.transports.upstream.openapi.api_description import DescriptionRefused, read_description, read_document
from tests.transports.upstream.openapi.described import described, small


def read(document: Any, base_url: str = "", found_at: str = "") -> Any:
    return read_description(document, base_url, found_at)


def the_tool(operation: dict[str, Any], path: str = "/a", **members: Any) -> Any:
    (only,) = read(small(operation, path, **members)).operations.values()
    return only.tool


# ---- public descriptions


@pytest.mark.parametrize(
    ("name", "tools", "left_out"),
    [
        ("petstore.json", ["listPets", "createPets", "showPetById"], 0),
        ("petstore_auth.yaml", ["addPet", "findPetsByTags", "getPetById", "deletePet", "uploadFile"], 0),
        (
            "github.json",
            [
                "meta_root",
                "security-advisories_list-global-advisories",
                "issues_get",
                "issues_check-user-can-be-assigned-to-issue",
                "issues_list-labels-on-issue",
            ],
            0,
        ),
    ],
)
def test_public_descriptions_are_tools_with_schemas_that_hold(name: str, tools: list[str], left_out: int) -> None:
    found = described(name)
    assert list(found.operations) == tools
    assert len(found.left_out) == left_out
    for operation in found.operations.values():
        jsonschema.Draft202012Validator.check_schema(operation.tool["inputSchema"])
        assert operation.tool["description"]


def test_what_a_body_refers_to_comes_along_once_and_without_what_is_for_xml() -> None:
    schema = described("petstore_auth.yaml").operations["addPet"].tool["inputSchema"]
    assert sorted(schema["$defs"]) == ["Category", "Pet", "Tag"]
    assert schema["properties"]["body"] == {"$ref": "#/$defs/Pet", "description": "Create a new pet in the store"}
    assert schema["required"] == ["body"]
    assert "xml" not in str(schema)
    jsonschema.validate({"body": {"name": "Rex", "photoUrls": [], "tags": [{"id": 1}]}}, schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({"body": {"name": "Rex", "photoUrls": [], "status": "eaten"}}, schema)


def test_parameters_and_what_a_call_does_are_told() -> None:
    github = described("github.json").operations
    labels = github["issues_list-labels-on-issue"].tool
    assert labels["inputSchema"]["required"] == ["owner", "repo", "issue_number"]
    assert labels["inputSchema"]["properties"]["issue_number"] == {
        "type": "integer",
        "description": "The number that identifies the issue.",
    }
    assert labels["annotations"] == {"readOnlyHint": True, "openWorldHint": True}
    assert (labels["title"], labels["description"]) == (
        "List labels for an issue",
        "List labels for an issue\n\nLists all labels for an issue.",
    )
    assert described("petstore_auth.yaml").operations["deletePet"].tool["annotations"]["destructiveHint"] is True


# ---- the server


@pytest.mark.parametrize(
    ("servers", "base_url", "found_at", "expected"),
    [
        ([{"url": "https://a.example/v1/"}], "", "", "https://a.example/v1"),
        ([{"url": "https://a.example"}], "http://127.0.0.1:1/x/", "", "http://127.0.0.1:1/x"),
        ([{"url": "/v3"}], "", "https://a.example/docs/api.json", "https://a.example/v3"),
        ([{"url": "v3"}], "", "https://a.example/docs/api.json", "https://a.example/docs/v3"),
        (None, "", "https://a.example/docs/api.json", "https://a.example"),
        (
            [{"url": "https://{region}.a.example", "variables": {"region": {"default": "eu"}}}],
            "",
            "",
            "https://eu.a.example",
        ),
    ],
)
def test_the_server_is_that_of_the_settings_or_of_the_description(
    servers: Any, base_url: str, found_at: str, expected: str
) -> None:
    document = {"openapi": "3.0.0", "paths": {}, **({} if servers is None else {"servers": servers})}
    assert read(document, base_url, found_at).base_url == expected


@pytest.mark.parametrize(
    ("url", "found_at"),
    [
        ("https://evil.example", "https://a.example/api.json"),
        ("http://a.example", "https://a.example/api.json"),
        ("https://a.example:8443", "https://a.example/api.json"),
        ("//169.254.169.254/latest", "https://a.example/api.json"),
        ("/v3", ""),
        ("file:///etc", ""),
        ("https://user@a.example", ""),
        ("https://{host}", ""),
        ("https://a.example?key=1", ""),
        ("https://[::1", ""),
    ],
)
def test_a_server_that_nobody_has_named_is_not_spoken_to(url: str, found_at: str) -> None:
    """A description from elsewhere must not choose where arguments and credentials go."""
    with pytest.raises(DescriptionRefused, match="set base_url"):
        read({"openapi": "3.0.0", "paths": {}, "servers": [{"url": url}]}, "", found_at)


# ---- what is left out, and what is no description


@pytest.mark.parametrize(
    ("document", "says"),
    [
        ([], "no object"),
        ({"swagger": "2.0"}, "swagger"),
        ({"openapi": "4.0.0"}, "3.0 or 3.1"),
        ({"openapi": 3}, "3.0 or 3.1"),
        ({"openapi": "3.0.0"}, "no paths"),
    ],
)
def test_what_cannot_be_used_as_a_whole_is_refused(document: Any, says: str) -> None:
    with pytest.raises(DescriptionRefused, match=says):
        read(document, "https://a.example")


@pytest.mark.parametrize(
    ("operation", "path", "says"),
    [
        ({"parameters": [{"$ref": "https://evil.example/x.json"}]}, "/a", "is not in the description itself"),
        ({"parameters": [{"$ref": "#/components/nothing"}]}, "/a", "leads nowhere"),
        ({}, "/a/{id}", "nothing is said of id in its path"),
        ({"requestBody": {"required": True, "content": {"image/png": {}}}}, "/a", "a body as image/png is not sent"),
        ({"parameters": [{"name": "a", "in": "query", "style": "odd"}]}, "/a", "the style 'odd' of 'a' is not spoken"),
        ({"requestBody": {"content": {"application/json": {"schema": {"$ref": "file:///etc/passwd"}}}}}, "/a", "not in the"),
    ],
)
def test_an_operation_that_cannot_be_followed_is_left_out_alone(operation: dict[str, Any], path: str, says: str) -> None:
    document = small(operation, path)
    document["paths"]["/fine"] = {"get": {"operationId": "fine"}}
    found = read(document)
    assert list(found.operations) == ["fine"]
    (text,) = found.left_out
    assert text.startswith(f"GET {path}: ")
    assert says in text


def test_a_circle_of_schemas_is_one_schema_that_refers_to_itself() -> None:
    node = {"type": "object", "properties": {"next": {"$ref": "#/components/schemas/Node"}}}
    operation = {"requestBody": {"content": {"application/json": {"schema": {"$ref": "#/components/schemas/Node"}}}}}
    tool = the_tool(operation, components={"schemas": {"Node": node}})
    assert tool["inputSchema"]["$defs"] == {"Node": {"type": "object", "properties": {"next": {"$ref": "#/$defs/Node"}}}}


def test_references_that_lead_in_a_circle_end() -> None:
    document = small({"parameters": [{"$ref": "#/components/a"}]}, components={"a": {"$ref": "#/components/a"}})
    assert "without end" in read(document).left_out[0]


def test_at_the_bounds_of_schemas_words_are_left() -> None:
    def of_size(count: int) -> Any:
        return {"requestBody": {"content": {"application/json": {"schema": {"enum": ["x" * 10] * count}}}}}

    most = (LARGEST_SCHEMA_BYTES - 100) // 13
    assert the_tool(of_size(most))["inputSchema"]["properties"]["body"]["enum"]
    assert the_tool(of_size(most + 100))["inputSchema"]["properties"] == {"body": {}}
    deep: Any = {"type": "string"}
    for _ in range(200):
        deep = {"type": "array", "items": deep}
    too_deep = small({"requestBody": {"content": {"application/json": {"schema": deep}}}})
    assert "more than 64 levels" in read(too_deep).left_out[0]
    names = {f"S{n}": {"$ref": f"#/components/schemas/S{n + 1}"} for n in range(300)}
    many = {"allOf": [{"$ref": f"#/components/schemas/S{n}"} for n in range(300)]}
    crowded = small({"requestBody": {"content": {"application/json": {"schema": many}}}}, components={"schemas": names})
    assert read(crowded).left_out


def test_no_more_operations_are_read_than_the_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api_description, "MOST_OPERATIONS", 3)
    document = small({})
    document["paths"] = {f"/{n}": {"get": {}} for n in range(3)}
    assert (len(read(document).operations), read(document).left_out) == (3, ())
    document["paths"]["/3"] = {"get": {}}
    assert (len(read(document).operations), read(document).left_out) == (3, ("all beyond 3 operations",))


def test_names_are_made_of_what_there_is_and_none_comes_twice() -> None:
    document = small({"operationId": "a b/c"})
    document["paths"]["/x/{y}"] = {
        "parameters": [{"name": "y", "in": "path"}],
        "get": {"operationId": "a_b_c"},
        "post": {},
    }
    found = read(document)
    assert list(found.operations) == ["a_b_c", "a_b_c_2", "post_x_y"]
    assert found.operations["post_x_y"].tool["description"] == "POST /x/{y}"


def test_of_3_0_what_2020_12_spells_otherwise_is_translated() -> None:
    schema = {"type": "string", "nullable": True, "enum": ["a"], "x-more": 1, "example": "a"}
    number = {"type": "number", "minimum": 1, "exclusiveMinimum": True, "maximum": 2, "exclusiveMaximum": False}
    tool = the_tool(
        {"parameters": [{"name": "a", "in": "query", "schema": schema}, {"name": "b", "in": "query", "schema": number}]}
    )
    assert tool["inputSchema"]["properties"] == {
        "a": {"type": ["string", "null"], "enum": ["a", None]},
        "b": {"type": "number", "exclusiveMinimum": 1, "maximum": 2},
    }


_GIVES = {"200": {"content": {"application/json": {"schema": {"type": "object"}}}}}


def test_what_only_answers_have_need_not_be_given() -> None:
    body = {"type": "object", "required": ["id", "name"], "properties": {"id": {"readOnly": True}, "name": {}}}
    content = {"application/json": {"schema": body}}
    document = {"openapi": "3.0.0", "paths": {"/pets": {"post": {"requestBody": {"content": content}}}}}
    (operation,) = read_description(document, "https://api.example", "").operations.values()
    assert operation.tool["inputSchema"]["properties"]["body"]["required"] == ["name"]


def test_tools_say_what_they_give_where_that_is_wanted() -> None:
    document = {"openapi": "3.0.0", "paths": {"/pets": {"get": {"operationId": "list", "responses": _GIVES}, "put": {}}}}
    for wanted in (False, True):
        operations = read_description(document, "https://api.example", "", with_outputs=wanted).operations
        told = {name for name, operation in operations.items() if "outputSchema" in operation.tool}
        assert told == ({"list"} if wanted else set())


def test_headers_of_the_connection_and_of_credentials_are_no_arguments() -> None:
    names = ("Authorization", "Host", "Content-Length", "Cookie", "X-Mine")
    tool = the_tool({"parameters": [{"name": name, "in": "header", "schema": {}} for name in names]})
    assert list(tool["inputSchema"]["properties"]) == ["X-Mine"]


@pytest.mark.parametrize(
    ("content", "says"), [(b"{", "no JSON"), (b"a: [", "neither JSON nor YAML"), (b"[" * 9_999, "no JSON|deep")]
)
def test_what_is_no_document_is_refused_in_words(content: bytes, says: str) -> None:
    with pytest.raises(DescriptionRefused, match=says):
        read_document(content)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8) | st.just("#/paths") | st.just("#/components/x"),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                (
                    *("$ref", "get", "/a", "/{a}", "parameters", "requestBody", "content", "schema", "name", "in", "x"),
                    *("application/json", "properties", "items", "allOf", "required", "enum", "type", "nullable", "url"),
                )
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=25,
)


@given(paths=JSON, components=JSON, servers=JSON)
def test_whatever_a_description_says_there_is_a_result_or_our_error(paths: Any, components: Any, servers: Any) -> None:
    try:
        found = read({"openapi": "3.0.0", "paths": paths, "components": components, "servers": servers}, "https://a.example")
    except DescriptionRefused:
        return
    for operation in found.operations.values():
        assert size_of(operation.tool) < 2 * LARGEST_SCHEMA_BYTES


@given(st.binary(max_size=200))
def test_whatever_the_bytes_are_there_is_a_document_or_our_error(content: bytes) -> None:
    try:
        document = read_document(content)
    except DescriptionRefused:
        return
    with contextlib.suppress(DescriptionRefused):
        read(document, "https://a.example")
