"""Who is believed about whose request it is."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcp_gateway.transports.downstream.server.forwarded import Origin, TrustedProxies

PROXIES = TrustedProxies(["127.0.0.1", "10.0.0.0/8", "2001:db8::/32"])
FOR = "X-Forwarded-For"


@pytest.mark.parametrize(
    ("peer", "headers", "client"),
    [
        ("127.0.0.1", {}, "127.0.0.1"),
        ("127.0.0.1", {FOR: "1.2.3.4"}, "1.2.3.4"),
        ("192.168.0.1", {FOR: "1.2.3.4"}, "192.168.0.1"),
        ("127.0.0.1", {FOR: "9.9.9.9, 1.2.3.4"}, "1.2.3.4"),
        ("127.0.0.1", {FOR: "9.9.9.9,1.2.3.4,10.0.0.7"}, "1.2.3.4"),
        ("127.0.0.1", {FOR: "10.0.0.9, 10.0.0.7"}, "10.0.0.9"),
        ("127.0.0.1", {FOR: "1.2.3.4, unknown, 10.0.0.7"}, "10.0.0.7"),
        ("127.0.0.1", {FOR: "nonsense"}, "127.0.0.1"),
        ("127.0.0.1", {FOR: "1.2.3.4:5678"}, "1.2.3.4"),
        ("::ffff:127.0.0.1", {FOR: "[2a00::1]:99"}, "2a00::1"),
        ("2001:db8::5", {FOR: "::ffff:1.2.3.4"}, "1.2.3.4"),
        ("127.0.0.1", {"Forwarded": "for=1.2.3.4;proto=https"}, "1.2.3.4"),
        ("127.0.0.1", {"Forwarded": 'for=9.9.9.9, For="[2a00::1]:4711" ; by=10.0.0.1'}, "2a00::1"),
        ("127.0.0.1", {"Forwarded": "for=_hidden, for=10.0.0.3"}, "10.0.0.3"),
        ("127.0.0.1", {"Forwarded": "for=1.2.3.4", FOR: "1.2.3.4"}, "1.2.3.4"),
        ("127.0.0.1", {"Forwarded": "for=1.2.3.4", FOR: "5.6.7.8"}, "127.0.0.1"),
    ],
)
def test_the_client_is_the_first_from_the_right_that_is_no_trusted_proxy(peer: str, headers: dict[str, str], client: str) -> None:
    assert PROXIES.origin(peer, headers).address == client


def test_what_the_client_asked_for_is_told_by_trusted_proxies_alone() -> None:
    headers = {
        FOR: "1.2.3.4",
        "X-Forwarded-Proto": "HTTPS",
        "X-Forwarded-Host": "evil.example, tools.example:8443",
        "X-Forwarded-Prefix": "/tools/",
    }
    assert PROXIES.origin("127.0.0.1", headers) == Origin("1.2.3.4", "https", "tools.example:8443", "/tools")
    assert PROXIES.origin("8.8.8.8", headers) == Origin("8.8.8.8")
    assert TrustedProxies([]).origin("127.0.0.1", headers) == Origin("127.0.0.1")
    told = {"Forwarded": 'for=1.2.3.4;host="tools.example";proto=https, for=10.0.0.1;host=inner;proto=http'}
    assert PROXIES.origin("127.0.0.1", told) == Origin("1.2.3.4", "https", "tools.example")


@pytest.mark.parametrize("value", ["/a b", "//evil.example", "a", "/<b>", '/"', "/\\x"])
def test_a_prefix_that_is_no_path_is_passed_over(value: str) -> None:
    assert PROXIES.origin("127.0.0.1", {"X-Forwarded-Prefix": value}).prefix == ""


@given(st.text(max_size=60), st.sampled_from([FOR, "Forwarded", "X-Forwarded-Host", "X-Forwarded-Proto"]))
def test_any_header_is_read(value: str, name: str) -> None:
    assert PROXIES.origin("127.0.0.1", {name: value}).scheme in ("", "http", "https")
