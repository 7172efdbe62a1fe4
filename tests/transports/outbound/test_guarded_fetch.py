"""What the guard lets out and takes in, against servers that write their answers byte by byte."""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcp_gateway.transports.outbound import guarded_fetch
from mcp_gateway.transports.outbound.guarded_fetch import FetchFailed, FetchRules, fetch

PRIVATE = FetchRules(allow_private=True, max_bytes=1_000, timeout_s=5.0)
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nX-Two: a\r\nX-Two: b\r\n\r\n{}"


@attrs.define
class Site:
    """Answers each request with the same bytes, and keeps what was asked."""

    answer: bytes
    requests: list[bytes] = attrs.field(factory=list)
    port: int = 0

    async def converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = await reader.readuntil(b"\r\n\r\n")
        length = next((int(line[15:]) for line in request.split(b"\r\n") if line.lower().startswith(b"content-length:")), 0)
        self.requests.append(request + await reader.readexactly(length))
        writer.write(self.answer)
        if self.answer:
            writer.close()


@asynccontextmanager
async def serving(answer: bytes) -> AsyncIterator[Site]:
    site = Site(answer)
    server = await asyncio.start_server(site.converse, "127.0.0.1", 0)
    site.port = server.sockets[0].getsockname()[1]
    try:
        yield site
    finally:
        server.close()


def fetching(answer: bytes, rules: FetchRules = PRIVATE, host: str = "127.0.0.1", **how: Any) -> tuple[Any, Site]:
    """(what came or FetchFailed, the server)"""

    async def run() -> tuple[Any, Site]:
        async with serving(answer) as site:
            try:
                return await fetch(f"http://{host}:{site.port}/keys?secret=x", rules=rules, **how), site
            except FetchFailed as error:
                return error, site

    return asyncio.run(run())


def test_an_answer_has_status_headers_and_body() -> None:
    fetched, site = fetching(OK, headers={"Authorization": "Basic eDp5"})
    assert (fetched.status, fetched.body, fetched.headers["x-two"]) == (200, b"{}", "a")
    assert site.requests[0].startswith(b"GET /keys?secret=x HTTP/1.1\r\n")
    assert b"Authorization: Basic eDp5\r\n" in site.requests[0]


def test_a_refusal_of_the_server_is_an_answer_too() -> None:
    fetched, _ = fetching(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")
    assert (fetched.status, fetched.body) == (404, b"")


def test_forms_and_json_are_sent_as_what_they_are() -> None:
    _, site = fetching(OK, method="POST", form={"token": "a b&c"})
    assert site.requests[0].endswith(b"\r\n\r\ntoken=a+b%26c")
    assert b"Content-Type: application/x-www-form-urlencoded" in site.requests[0]
    _, site = fetching(OK, method="POST", json={"a": [1]})
    assert site.requests[0].endswith(b'\r\n\r\n{"a": [1]}')
    assert b"Content-Type: application/json" in site.requests[0]


def test_a_redirect_is_not_followed() -> None:
    failed, site = fetching(b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n")
    assert str(failed) == "127.0.0.1: it answers with a redirect"
    assert len(site.requests) == 1


@pytest.mark.parametrize("extra", [0, 1])
@pytest.mark.parametrize("head", ["Content-Length: {}\r\n\r\n", "Connection: close\r\n\r\n"])
def test_a_body_may_be_as_large_as_the_limit_and_no_larger(head: str, extra: int) -> None:
    size = PRIVATE.max_bytes + extra
    outcome, _ = fetching(b"HTTP/1.1 200 OK\r\n" + head.format(size).encode() + b"x" * size)
    if extra:
        assert str(outcome) == "127.0.0.1: the answer is larger than 1000 bytes"
    else:
        assert len(outcome.body) == size


def test_a_compressed_answer_is_not_unpacked() -> None:
    body = gzip.compress(b"0" * 10_000_000)[:900]
    head = f"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    failed, _ = fetching(head + body)
    assert "compressed" in str(failed)


def test_a_server_that_says_nothing_is_given_up_in_time() -> None:
    failed, _ = fetching(b"", rules=attrs.evolve(PRIVATE, timeout_s=0.2))
    assert str(failed) == "127.0.0.1: no answer in time"


@pytest.mark.parametrize("answer", [b"hello\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nx", b"\x00" * 100])
def test_what_is_no_whole_http_answer_is_a_failure_that_names_the_host_only(answer: bytes) -> None:
    failed, _ = fetching(answer)
    assert isinstance(failed, FetchFailed)
    assert "secret" not in str(failed)
    assert str(failed).startswith("127.0.0.1: ")


def test_plain_http_needs_leave() -> None:
    failed, site = fetching(OK, rules=FetchRules())
    assert failed.is_refused
    assert site.requests == []


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::ffff:127.0.0.1]", "2130706433", "0x7f000001", "127.1", "0"])
def test_no_form_of_a_private_address_is_connected_to(host: str) -> None:
    """Judged by the address of the socket, so a name that resolves anew to something else does not pass either."""

    async def run() -> tuple[FetchFailed, int]:
        async with serving(OK) as site:
            with pytest.raises(FetchFailed) as caught:
                await fetch(f"https://{host}:{site.port}/", rules=FetchRules(timeout_s=5.0))
            return caught.value, len(site.requests)

    failed, requests = asyncio.run(run())
    assert requests == 0
    assert failed.is_refused or "resolved" in str(failed) or "valid" in str(failed)


def test_every_address_of_a_name_is_judged_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    """A name with two addresses, one of them allowed: the other is never tried. Source: ours, against DNS rebinding."""
    tried: list[str] = []

    def is_public(address: str) -> bool:
        tried.append(address)
        return False

    monkeypatch.setattr(guarded_fetch, "is_public", is_public)
    with pytest.raises(FetchFailed, match="not public") as caught:
        asyncio.run(fetch("https://localhost:1/", rules=FetchRules(timeout_s=5.0)))
    assert caught.value.is_refused
    assert set(tried) <= {"127.0.0.1", "::1"}
    assert tried


WRONG_URLS = [
    *("", "https://", "ftp://example.com/", "file:///etc/passwd", "gopher://example.com", "//example.com/", "https:///x"),
    *("https://user:pw@example.com/", "https://example.com/#x", "https://example.com:0/", "https://example.com:99999/"),
    *(
        "https://exa mple.com/",
        "https://example.com/\r\nX: y",
        "https://[::1",
        "https://example.com\\@127.0.0.1/",
        "https://é.com/",
    ),
    f"https://example.com/{'x' * 4_096}",
]


@pytest.mark.parametrize("url", WRONG_URLS)
def test_what_is_no_plain_https_url_is_never_asked(url: str) -> None:
    with pytest.raises(FetchFailed) as caught:
        asyncio.run(fetch(url, rules=FetchRules(timeout_s=5.0)))
    assert caught.value.is_refused


@given(st.text(max_size=80))
def test_any_text_as_a_url_is_an_answer_or_our_failure(text: str) -> None:
    with pytest.raises(FetchFailed):
        guarded_fetch._checked(text, FetchRules(max_bytes=1))
        raise FetchFailed("valid")
