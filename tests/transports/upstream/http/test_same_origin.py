"""Tests of where a server may lead us."""

import pytest

from mcp_gateway.transports.upstream.http.same_origin import LedAstray, address_within_origin, is_redirect


@pytest.mark.parametrize(
    ("reference", "target"),
    [
        ("/messages?session_id=1", "http://host:81/messages?session_id=1"),
        ("messages", "http://host:81/a/messages"),
        ("?x", "http://host:81/a/sse?x"),
        ("http://host:81/other", "http://host:81/other"),
        ("HTTP://HOST:81/other", "http://HOST:81/other"),
        ("//host:81/other", "http://host:81/other"),
        ("  /trimmed\n", "http://host:81/trimmed"),
    ],
)
def test_within_the_origin_any_address_will_do(reference: str, target: str) -> None:
    assert address_within_origin("http://host:81/a/sse", reference) == target


@pytest.mark.parametrize(
    "reference",
    [
        "http://other:81/", "http://host:82/", "https://host:81/", "//other/x", "http://host/", "http://host:81@other/",
        "ftp://host:81/", "http://host:port/", "http://[host/", "file:///etc/passwd", "http://host:99999/",
    ],
)  # fmt: skip
def test_another_origin_is_never_followed(reference: str) -> None:
    with pytest.raises(LedAstray):
        address_within_origin("http://host:81/a/sse", reference)


def test_a_default_port_is_the_same_as_none() -> None:
    assert address_within_origin("https://host/a", "https://host:443/b") == "https://host:443/b"
    assert address_within_origin("http://host:80/a", "http://host/b") == "http://host/b"


@pytest.mark.parametrize(
    ("verb", "followed"),
    [("GET", {301, 302, 303, 307, 308}), ("POST", {307, 308}), ("DELETE", {307, 308})],
)
def test_only_what_keeps_the_request_is_followed(verb: str, followed: set[int]) -> None:
    assert {status for status in range(100, 600) if is_redirect(verb, status)} == followed
