"""What clients are shown of what a server said: bounded, legible, without secrets."""

from __future__ import annotations

import json
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcp_gateway.transports.upstream.http.server_words import MAX_CHARACTERS, ServerWords, retry_after_s
from tests.doubles.running_cell import cell_settings


def words() -> ServerWords:
    replicas = ["http://127.0.0.1:1/mcp?key=q-u-e-r-y&v=1"]
    headers = {"Authorization": "Bearer hush-hush", "X-Key": "k3y!"}
    (backend,) = cell_settings([{"name": "b", "replicas": replicas, "headers": headers}]).backends
    return ServerWords(backend)


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        (b"Host: 127.0.0.1:1, GET /mcp", "Host: ***, GET /mcp"),
        (b"licence expired", "licence expired"),
        (b" two\r\n\tlines\x00\x1b[31m ", "two lines [31m"),
        ("\u202eevil\u200b\u2066".encode(), "evil"),
        ("of \ue000private\U0010ffff use".encode(), "of private use"),
        (b"no \xff text", "no \ufffd text"),
        (b"token hush-hush is old", "token *** is old"),
        (b"Bearer hush-hush and k3y! and k3y%21", "*** and *** and ***"),
        ("hush\u200b-hush".encode(), "***"),
        (b"at http://u:p@h/p?key=q-u-e-r-y#x: no", "at http://h/p?*** no"),
        (b"q-u-e-r-y", "***"),
        (
            b"<html><head><title>x</title></head><style>a{}</style><h1>502 Bad&nbsp;Gateway</h1><p>nginx",
            "502 Bad Gateway nginx",
        ),
        (b"", ""),
    ],
)
def test_what_was_said_is_made_fit_to_be_shown(said: bytes, shown: str) -> None:
    assert words().text(said) == shown


@given(st.text() | st.text("<script>/ \u202e\x00?#:@hu-", max_size=2000))
def test_any_text_becomes_short_and_legible(said: str) -> None:
    shown = words().text(said)
    assert len(shown) <= MAX_CHARACTERS
    assert not {unicodedata.category(character) for character in shown} & {"Cc", "Cf", "Cs"}
    assert shown.isprintable()
    assert "hush-hush" not in shown


def test_an_error_keeps_its_shape_where_it_is_small_and_its_message_where_it_is_not() -> None:
    error = {"code": -1, "message": "hush-hush", "data": {"why": ["k3y!\u202e", 5]}}
    assert json.loads(words().error(json.dumps(error).encode())) == {"code": -1, "message": "***", "data": {"why": ["***", 5]}}
    large = {"code": -1, "message": "m" * 9_000, "data": ["x"] * 5_000}
    shown = json.loads(words().error(json.dumps(large).encode()))
    assert (shown.keys(), len(shown["message"])) == ({"code", "message"}, MAX_CHARACTERS)
    assert json.loads(words().error(b"", b"no licence")) == "no licence"
    assert words().error(b"", b" ") == b""


@pytest.mark.parametrize(
    ("value", "wait_s"),
    [
        ("7", 7.0),
        (" 120 ", 120.0),
        ("Thu, 01 Jan 1970 00:01:40 GMT", 90.0),
        ("Thu, 01 Jan 1970 00:00:01 GMT", 0.0),
        ("9" * 40, 86_400.0),
        ("soon", None),
        ("-3", None),
        ("", None),
        (None, None),
    ],
)
def test_when_to_come_back_is_read_in_both_forms(value: str | None, wait_s: float | None) -> None:
    """Source: RFC 9110, section 10.2.3."""
    assert retry_after_s(value, 10.0) == wait_s
