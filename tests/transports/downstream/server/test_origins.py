"""Which pages may connect, read and send: tables of Origin and Host."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcp_gateway.transports.downstream.server.origins import Authority, OriginRules, check_site, preflight_headers
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
        # Not on loopback neither: addresses cannot be bound to another site, names can.
        ("192.0.2.1", "192.0.2.1:4000", None, True),
        ("0.0.0.0", "192.0.2.7", None, True),
        ("::", "[2001:db8::1]:4000", None, True),
        ("0.0.0.0", "app.localhost:4000", None, True),
        ("192.0.2.1", "gateway.example:4000", None, False),
        ("0.0.0.0", "evil.example", "http://evil.example", False),
        ("gateway.example", "Gateway.Example.:4000", None, True),
        ("gateway.example", "evil.example:4000", None, False),
        # What only looks like an address is a name that somebody may own, or nothing.
        ("0.0.0.0", "127.1", None, False),
        ("0.0.0.0", "0x7f000001", None, False),
        ("0.0.0.0", "1.2.3.4.", None, False),
        ("0.0.0.0", "1.2.3.4.5", None, False),
        ("0.0.0.0", "::1", None, False),
        ("0.0.0.0", "[::1", None, False),
        ("0.0.0.0", "[gateway.example]", None, False),
        ("0.0.0.0", "localhost:1@evil.example", None, False),
        ("0.0.0.0", "notlocalhost", None, False),
        ("0.0.0.0", "localhost..", None, False),
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
        ("gateway.example", "gateway.example:4000", "http://gateway.example:4000", True),
        ("gateway.example", "GATEWAY.example:80", "http://gateway.example", True),
        ("gateway.example", "gateway.example:4000", "http://gateway.example", False),
        ("gateway.example", "gateway.example:4000", "http://other.example:4000", False),
        ("192.0.2.1", "192.0.2.1:4000", "http://192.0.2.1:4000", True),
        ("192.0.2.1", "gateway.example:4000", "http://gateway.example:4000", False),
        # What is localhost to the browser of a gateway elsewhere may be any machine.
        ("0.0.0.0", "localhost:4000", "http://localhost:3000", True),
        ("0.0.0.0", "192.0.2.7:4000", "http://localhost:3000", False),
        ("gateway.example", "gateway.example:4000", "http://localhost:3000", False),
        ("0.0.0.0", "", "http://localhost:3000", False),
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


ALLOWED_HOSTS = ("mcp.example", "one.example:8443", "std.example:443", "xn--mnchen-3ya.example", "[2001:db8::1]")


@pytest.mark.parametrize(
    ("asked", "is_known"),
    [
        ("mcp.example", True),
        ("MCP.Example.:4000", True),
        ("mcp.example:", True),
        ("mcp.example.evil.example", False),
        ("evil-mcp.example", False),
        ("one.example:8443", True),
        ("one.example", False),
        ("one.example:4000", False),
        ("std.example", True),
        ("std.example:443", True),
        ("std.example:80", False),
        ("public.example", True),
        ("public.example:4000", True),
        ("XN--MNCHEN-3YA.example", True),
        ("m\xfcnchen.example", False),
        ("[2001:DB8:0::1]:4000", True),
        ("_dmarc.mcp.example", False),
        ("mcp.example/", False),
        ("mcp.example:99999999", False),
    ],
)
def test_configured_names_are_taken_of_host_and_of_what_a_trusted_proxy_was_asked_for(asked: str, is_known: bool) -> None:
    rules = OriginRules("0.0.0.0", (), allowed_hosts=ALLOWED_HOSTS, public_url="https://public.example/tools")
    for host, public_host in ((asked, ""), ("10.0.0.1:4000", asked)):
        if is_known:
            rules.check(None, host, public_host)
        else:
            with pytest.raises(Refused, match=r"allowed_hosts or public_url") as refused:
                rules.check(None, host, public_host)
            assert refused.value.reason == "origin_forbidden"


def test_the_page_at_the_public_address_is_the_gateways_own_whatever_name_its_proxy_uses() -> None:
    rules = OriginRules("127.0.0.1", (), public_url="https://public.example")
    rules.check("https://public.example", "127.0.0.1:4000")
    for other in ("http://public.example", "https://public.example:8443", "https://www.public.example"):
        with pytest.raises(Refused):
            rules.check(other, "127.0.0.1:4000")


@pytest.mark.parametrize(
    ("origin", "is_own"),
    [
        ("http://127.0.0.1:4000", True),
        ("https://public.example", True),
        ("https://app.example", False),
        ("http://localhost:4000", False),
        ("http://localhost:3000", False),
        ("http://127.0.0.1:4001", False),
        ("http://public.example", False),
        ("null", False),
        ("", False),
    ],
)
def test_a_page_that_may_send_requests_is_not_yet_one_of_the_gateways_own(origin: str, is_own: bool) -> None:
    rules = OriginRules("127.0.0.1", ("https://app.example",), public_url="https://public.example")
    assert rules.is_own_page(origin, "127.0.0.1:4000") is is_own


def test_pages_of_localhost_are_allowed_by_name_only_where_the_settings_say_so() -> None:
    rules = OriginRules("127.0.0.1", ("http://localhost:3000",), localhost_origins=False)
    rules.check("http://localhost:3000", "127.0.0.1:4000")
    rules.check("http://127.0.0.1:4000", "127.0.0.1:4000")  # its own
    for other in ("http://localhost:3001", "http://127.0.0.1:3000", "http://localhost:4000"):
        with pytest.raises(Refused, match="allowed_origins"):
            rules.check(other, "127.0.0.1:4000")


@given(
    host=st.one_of(
        st.text(),
        st.from_regex(r"[a-zA-Z0-9.-]{1,20}(\.example)?(:[0-9]{1,5})?", fullmatch=True),
        st.ip_addresses().map(lambda address: f"[{address}]:80" if address.version == 6 else f"{address}:80"),
    )
)
def test_without_settings_a_host_is_an_address_or_of_this_machine(host: str) -> None:
    """Whatever is accepted, no other site can have bound it to this gateway's address."""
    try:
        OriginRules("0.0.0.0", ()).check(f"http://{host}", host)
    except Refused:
        return
    name = host.lower()
    bare = name[1:].partition("]")[0] if name.startswith("[") else name.partition(":")[0].removesuffix(".")
    if bare != "localhost" and not bare.endswith(".localhost"):
        ipaddress.ip_address(bare)


@pytest.mark.parametrize(
    ("site", "mode", "dest", "origin", "is_page", "may_pass"),
    [
        ("", "", "", None, False, True),  # no browser, or one that has been asked over plain HTTP from afar
        ("none", "navigate", "document", None, False, True),
        ("same-origin", "cors", "empty", None, False, True),
        ("cross-site", "no-cors", "image", None, False, False),
        ("same-site", "no-cors", "image", None, False, False),
        ("cross-site", "no-cors", "image", None, True, False),
        ("cross-site", "navigate", "iframe", None, True, False),
        ("cross-site", "navigate", "document", None, False, False),
        ("cross-site", "navigate", "document", None, True, True),
        ("same-site", "navigate", "document", None, True, True),
        ("cross-site", "cors", "empty", "http://localhost:3000", False, True),  # judged by its Origin, see `check`
        ("same-site", "websocket", "websocket", "http://localhost:3000", False, True),
    ],
)
def test_what_a_page_of_another_site_embeds_is_refused(
    site: str, mode: str, dest: str, origin: str | None, is_page: bool, may_pass: bool
) -> None:
    """Source: W3C Fetch Metadata Request Headers."""
    shown = {"Sec-Fetch-Site": site, "Sec-Fetch-Mode": mode, "Sec-Fetch-Dest": dest, "Origin": origin}
    headers = {name: value for name, value in shown.items() if value}
    if may_pass:
        check_site(headers, is_page=is_page)
    else:
        with pytest.raises(Refused) as refused:
            check_site(headers, is_page=is_page)
        assert (refused.value.reason, refused.value.status) == ("origin_forbidden", 403)


@pytest.mark.parametrize(
    ("origin", "host", "may_read"),
    [
        ("http://localhost:3000", "127.0.0.1:4000", True),
        ("https://app.example", "127.0.0.1:4000", True),
        ("http://gateway.example:4000", "gateway.example:4000", True),
        ("http://localhost:3000", "192.0.2.7:4000", False),
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
        "Access-Control-Expose-Headers": "Mcp-Session-Id, Retry-After, WWW-Authenticate",
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


@pytest.mark.parametrize("length", [255, 256])
def test_a_host_of_any_length_is_read_each_time_alike(length: int) -> None:
    text = "a" * (length - 3) + ":80"
    assert Authority.read(text) == Authority.read(text) == Authority("a" * (length - 3), "80")
