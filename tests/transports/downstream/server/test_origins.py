"""Which pages may connect, read and send: tables of Origin and Host."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcp_gateway.transports.downstream.server.origins import OriginRules, preflight_headers
from mcp_gateway.transports.protocol.mcp.refusals import Refused


@pytest.mark.parametrize(
    ("host", "shown_host", "origin", "may_connect"),
    [
        # Loopback: the name in Host must be this machine's, so that no other site's name can be bound to it.
        ("127.0.0.1", "127.0.0.1:4000", None, True),
        ("127.0.0.1", "localhost:4000", None, True),
        ("127.0.0.1", "LOCALHOST", None, True),
        ("127.0.0.1", "[::1]:4000", None, True),
        ("::1", "[::1]:4000", None, True),
        ("localhost", "localhost:4000", None, True),
        ("127.0.0.1", "", None, True),
        ("127.0.0.1", "evil.example:4000", None, False),
        ("127.0.0.1", "localhost.evil.example", None, False),
        ("127.0.0.1", "127.0.0.1.evil.example:4000", None, False),
        ("127.0.0.1", "evil.example:4000", "http://evil.example:4000", False),
        # Not on loopback, it has names that it does not know.
        ("192.0.2.1", "gateway.example:4000", None, True),
        # Origin: pages of this machine, of the gateway's own name, and of those allowed.
        ("127.0.0.1", "127.0.0.1:4000", "http://localhost:3000", True),
        ("127.0.0.1", "127.0.0.1:4000", "https://127.0.0.1", True),
        ("127.0.0.1", "127.0.0.1:4000", "http://[::1]:9", True),
        ("127.0.0.1", "127.0.0.1:4000", "https://app.example", True),
        ("127.0.0.1", "127.0.0.1:4000", "http://app.example", False),
        ("127.0.0.1", "127.0.0.1:4000", "https://app.example:8443", False),
        ("127.0.0.1", "127.0.0.1:4000", "https://evil.example", False),
        ("127.0.0.1", "127.0.0.1:4000", "http://localhost.evil.example", False),
        ("127.0.0.1", "127.0.0.1:4000", "ftp://localhost", False),
        ("127.0.0.1", "127.0.0.1:4000", "null", False),
        ("127.0.0.1", "127.0.0.1:4000", "", False),
        ("127.0.0.1", "127.0.0.1:4000", "http://[oops", False),
        ("127.0.0.1", "", "http://", False),
        ("127.0.0.1", "app.example", "https://app.example", True),
        ("192.0.2.1", "gateway.example:4000", "http://gateway.example:4000", True),
        ("192.0.2.1", "gateway.example:4000", "http://other.example:4000", False),
    ],
)
def test_host_and_origin(host: str, shown_host: str, origin: str | None, may_connect: bool) -> None:
    """Source: MCP 2026-07-28, basic/transports/streamable-http, "Security & Endpoint"; the rule for Host is ours."""
    rules = OriginRules(host, ("https://app.example",))
    if may_connect:
        rules.check(origin, shown_host)
    else:
        with pytest.raises(Refused) as refused:
            rules.check(origin, shown_host)
        assert (refused.value.reason, refused.value.status) == ("origin_forbidden", 403)


@pytest.mark.parametrize(
    ("origin", "host", "may_read"),
    [
        ("http://localhost:3000", "127.0.0.1:4000", True),
        ("https://app.example", "127.0.0.1:4000", True),
        ("http://gateway.example:4000", "gateway.example:4000", True),
        ("https://evil.example", "127.0.0.1:4000", False),
        ("null", "", False),
        ("http://[oops", "", False),
    ],
)
def test_a_page_that_is_allowed_may_read_the_answer(origin: str, host: str, may_read: bool) -> None:
    """Source: WHATWG Fetch, "CORS protocol"."""
    readable = {
        "Access-Control-Allow-Origin": origin,
        "Vary": "Origin",
        "Access-Control-Expose-Headers": "Mcp-Session-Id, Retry-After",
    }
    assert OriginRules("127.0.0.1", ("https://app.example",)).answer_headers(origin, host) == (readable if may_read else {})


@given(origin=st.none() | st.text(), host=st.text(), own_host=st.sampled_from(["127.0.0.1", "::1", "192.0.2.1", "gateway"]))
def test_whatever_the_headers_are_they_are_allowed_or_refused(origin: str | None, host: str, own_host: str) -> None:
    """A page that may connect is one that may read, and the other way round."""
    rules = OriginRules(own_host, ())
    try:
        rules.check(origin, host)
    except Refused as refused:
        assert refused.reason == "origin_forbidden"
    else:
        assert origin is None or rules.answer_headers(origin, host)


@pytest.mark.parametrize(
    ("asked", "more"),
    [
        ("", ""),
        ("mcp-param-region,X-Tenant", ", mcp-param-region, X-Tenant"),
        (" content-type ,, mcp-param-", ", content-type, mcp-param-"),
        ("mcp-param-a(b), x y, x\r\ny: z, é", ""),
    ],
)
def test_a_page_may_send_the_usual_headers_and_every_name_that_it_asks_for(asked: str, more: str) -> None:
    allowed = preflight_headers("")["Access-Control-Allow-Headers"]
    assert preflight_headers(asked)["Access-Control-Allow-Headers"] == allowed + more
