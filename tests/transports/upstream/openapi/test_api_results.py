"""What an API's answer becomes for who has called the tool."""

from __future__ import annotations

import base64
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcp_gateway.transports.upstream.adapted.adapted_conversation import ToolOutcome
from mcp_gateway.transports.upstream.openapi.api_results import outcome_of


def outcome(status: int, content_type: str = "application/json", body: bytes = b"", **headers: str) -> ToolOutcome:
    return outcome_of(status, {"content-type": content_type, **headers}, body, "https://a.example/x")


@pytest.mark.parametrize(
    ("body", "structured"),
    [(b'{"a": 1}', {"a": 1}), (b"[1]", {"result": [1]}), (b"null", {"result": None}), (b'"x"', {"result": "x"})],
)
def test_json_is_structured_content_and_text(body: bytes, structured: Any) -> None:
    found = outcome(200, "application/vnd.api+json; charset=utf-8", body)
    assert (found.structured, found.is_error) == (structured, False)
    assert found.content[0]["type"] == "text"


@pytest.mark.parametrize(
    ("status", "body", "text"),
    [
        (404, b'{"message": "no such pet"}', 'HTTP 404 Not Found: {"message": "no such pet"}'),
        (503, b"", "HTTP 503 Service Unavailable"),
        (799, b"", "HTTP 799"),
    ],
)
def test_what_the_api_refuses_is_an_error_with_its_status(status: int, body: bytes, text: str) -> None:
    found = outcome(status, body=body)
    assert (found.content[0]["text"], found.is_error) == (text, True)
    assert found.structured is not None
    assert found.structured["status"] == status


def test_a_redirect_is_told_and_not_followed() -> None:
    found = outcome(302, "", b"", location="http://169.254.169.254/")
    assert (found.is_error, found.content[0]["text"]) == (True, "HTTP 302 Found, which leads to http://169.254.169.254/")


def test_nothing_text_and_pictures_are_content_of_their_kind() -> None:
    assert outcome(204, "").content == [{"type": "text", "text": "HTTP 204 No Content"}]
    assert outcome(200, "text/plain; charset=latin-1", b"caf\xe9").content == [{"type": "text", "text": "café"}]
    assert outcome(200, "text/plain; charset=made-up", b"x").content == [{"type": "text", "text": "x"}]
    assert outcome(200, "application/json", b"{broken").content == [{"type": "text", "text": "{broken"}]
    data = base64.b64encode(b"\x89PNG").decode()
    assert outcome(200, "image/png", b"\x89PNG").content == [{"type": "image", "data": data, "mimeType": "image/png"}]
    (blob,) = outcome(200, "application/pdf", b"\x89PNG").content
    assert blob["resource"] == {"uri": "https://a.example/x", "mimeType": "application/pdf", "blob": data}


@given(st.integers(100, 599), st.text(max_size=20), st.binary(max_size=50))
def test_whatever_is_answered_there_is_an_outcome(status: int, content_type: str, body: bytes) -> None:
    found = outcome(status, content_type, body)
    assert found.content
    assert found.is_error == (not 200 <= status < 300)
