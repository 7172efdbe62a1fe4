"""The request of a call: where each argument goes, and that none goes where it must not."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcp_gateway.transports.upstream.adapted.adapted_conversation import WrongArguments
from mcp_gateway.transports.upstream.openapi.api_description import read_description
from mcp_gateway.transports.upstream.openapi.api_requests import LONGEST_TARGET, ApiRequest, request_of
from tests.transports.upstream.openapi.described import described, small


def asked(description: str, tool: str, **arguments: Any) -> ApiRequest:
    return request_of(described(description).operations[tool], arguments)


def asked_with(parameter: dict[str, Any], value: Any, path: str = "/a") -> ApiRequest:
    document = small({"operationId": "t", "parameters": [{"name": "p", "schema": {}, **parameter}]}, path)
    return request_of(read_description(document, "", "").operations["t"], {"p": value})


def test_arguments_go_into_path_query_header_and_body() -> None:
    labels = asked("github.json", "issues_list-labels-on-issue", owner="a b", repo="r/s", issue_number=7, page=2)
    assert (labels.method, labels.target) == ("GET", "/repos/a%20b/r%2Fs/issues/7/labels?page=2")
    gone = asked("petstore_auth.yaml", "deletePet", petId=3, api_key="k")
    assert (gone.method, gone.target, gone.headers) == ("DELETE", "/pet/3", {"api_key": "k"})
    made = asked("petstore.json", "createPets", body={"id": 1, "name": "Rex"})
    assert (made.headers, json.loads(made.body)) == ({"Content-Type": "application/json"}, {"id": 1, "name": "Rex"})
    assert asked("petstore_auth.yaml", "findPetsByTags", tags=["a", "b&c"]).target == "/pet/findByTags?tags=a&tags=b%26c"


@pytest.mark.parametrize(
    ("parameter", "value", "target"),
    [
        ({"in": "query"}, True, "/a?p=true"),
        ({"in": "query"}, 1.5, "/a?p=1.5"),
        ({"in": "query"}, ["a", "b"], "/a?p=a&p=b"),
        ({"in": "query", "explode": False}, ["a", "b"], "/a?p=a%2Cb"),
        ({"in": "query", "style": "pipeDelimited"}, ["a", "b"], "/a?p=a%7Cb"),
        ({"in": "query", "style": "spaceDelimited"}, ["a", "b"], "/a?p=a%20b"),
        ({"in": "query", "style": "deepObject"}, {"k": 1}, "/a?p%5Bk%5D=1"),
        ({"in": "query"}, {"k": 1, "l": None}, "/a?k=1&l="),
        ({"in": "query", "content": {"application/json": {"schema": {}}}}, {"k": [1]}, "/a?p=%7B%22k%22%3A%20%5B1%5D%7D"),
    ],
)
def test_values_are_written_in_the_style_of_their_parameter(parameter: dict[str, Any], value: Any, target: str) -> None:
    assert asked_with(parameter, value).target == target


def test_a_form_and_a_text_are_sent_as_such() -> None:
    for media_type, value, body in (
        ("application/x-www-form-urlencoded", {"a": [1, 2], "b": "x y"}, b"a=1&a=2&b=x+y"),
        ("text/plain", "as it is", b"as it is"),
        ("application/merge-patch+json", None, b""),
    ):
        document = small({"operationId": "t", "requestBody": {"content": {media_type: {"schema": {}}}}})
        request = request_of(read_description(document, "", "").operations["t"], {} if value is None else {"body": value})
        assert request.body == body


@pytest.mark.parametrize(
    ("tool", "arguments", "says"),
    [
        ("showPetById", {}, "petId is missing"),
        ("showPetById", {"petId": ""}, "petId cannot be ''"),
        ("showPetById", {"petId": ".."}, "petId cannot be '..'"),
        ("showPetById", {"petId": "1", "limit": 2}, "unknown arguments: limit; there are petId"),
        ("createPets", {}, "body is missing"),
        ("listPets", {"limit": "x" * LONGEST_TARGET}, "longer than"),
    ],
)
def test_arguments_that_do_not_fit_are_told_in_words(tool: str, arguments: dict[str, Any], says: str) -> None:
    with pytest.raises(WrongArguments, match=says):
        asked("petstore.json", tool, **arguments)


@pytest.mark.parametrize("value", ["a\r\nX-Evil: 1", "a\x00", "snow\u2603"])
def test_no_argument_writes_a_header_of_its_own(value: str) -> None:
    with pytest.raises(WrongArguments, match="no header carries"):
        asked_with({"in": "header"}, value)


def test_two_arguments_do_not_make_a_way_up() -> None:
    document = small(
        {"operationId": "t", "parameters": [{"name": name, "in": "path", "schema": {}} for name in "pq"]}, "/a/{p}{q}/secret"
    )
    operation = read_description(document, "", "").operations["t"]
    with pytest.raises(WrongArguments):
        request_of(operation, {"p": ".", "q": "."})


@given(st.text(max_size=30))
def test_whatever_an_argument_is_it_stays_in_its_place(value: str) -> None:
    try:
        in_path = asked_with({"in": "path"}, value, "/a/{p}/b").target
        in_query = asked_with({"in": "query"}, value).target
    except (WrongArguments, UnicodeEncodeError):
        return
    parts = urlsplit(in_path)
    assert (parts.path.count("/"), parts.query, parts.fragment) == (3, "", "")
    assert unquote(parts.path.split("/")[2]) == value
    assert parse_qsl(urlsplit(in_query).query, keep_blank_values=True) == [("p", value)]


@pytest.mark.parametrize(
    ("style", "inner", "is_refused"),
    [("form", "tenant", True), ("form", "other", False), ("deepObject", "tenant", False), ("deepObject", "x", True)],
)
def test_what_is_spread_over_the_query_says_nothing_in_place_of_another_argument(
    style: str, inner: str, is_refused: bool
) -> None:
    parameters = [{"name": name, "in": "query", "schema": {}} for name in ("tenant", "f[x]")]
    parameters.append({"name": "f", "in": "query", "schema": {}, "style": style, "explode": True})
    operation = read_description(small({"operationId": "t", "parameters": parameters}), "", "").operations["t"]
    if is_refused:
        with pytest.raises(WrongArguments, match="which is another argument"):
            request_of(operation, {"f": {inner: "theirs"}, "tenant": "ours"})
    else:
        assert "theirs" in request_of(operation, {"f": {inner: "theirs"}, "tenant": "ours"}).target
