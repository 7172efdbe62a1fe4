"""Who is believed about whose request it is."""

from __future__ import annotations

from ipaddress import IPv6Address

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from mcp_gateway.transports.downstream.server.forwarded import Origin, TrustedProxies, network_of

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


@pytest.mark.parametrize(
    ("address", "network"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::1", "2001:db8:1:2::/64"),
        ("2001:db8:1:3::1", "2001:db8:1:3::/64"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("::1", "::1"),
        ("fe80::1", "fe80::1"),
        ("fe80::1%eth0", "fe80::1%eth0"),
        ("", ""),
        ("no:address", "no:address"),
    ],
)
def test_addresses_of_one_subscriber_count_as_one(address: str, network: str) -> None:
    """Of IPv6 it has 2^64 of them; neighbours on the link, and this machine, have one each."""
    assert network_of(address) == network
    assert Origin(address).network == network


@given(st.ip_addresses(v=6), st.integers(0, 2**64 - 1))
def test_no_address_of_a_network_counts_apart(address: IPv6Address, host: int) -> None:
    neighbour = IPv6Address(int(address) >> 64 << 64 | host)
    assume(not any(each.is_loopback or each.is_link_local or each.ipv4_mapped for each in (address, neighbour)))
    assert network_of(str(address)) == network_of(str(neighbour))


@given(st.text())
def test_whatever_is_no_address_counts_for_something(text: str) -> None:
    assert isinstance(network_of(text), str)


@pytest.mark.parametrize(
    ("trusted", "peer", "headers", "is_here"),
    [
        ([], "127.0.0.1", {}, True),
        ([], "::1", {}, True),
        ([], "::ffff:127.0.0.1", {}, True),
        ([], "192.0.2.1", {}, False),
        ([], "", {}, False),
        ([], "127.0.0.1", {FOR: "127.0.0.1"}, False),
        ([], "127.0.0.1", {"Via": "1.1 proxy"}, False),
        (["127.0.0.1"], "127.0.0.1", {FOR: "192.0.2.1"}, False),
        (["10.0.0.1"], "10.0.0.1", {FOR: "127.0.0.1"}, True),
    ],
)
def test_only_what_no_unknown_proxy_hands_on_is_of_this_machine(
    trusted: list[str], peer: str, headers: dict[str, str], is_here: bool
) -> None:
    assert TrustedProxies(trusted).is_of_this_machine(peer, headers) is is_here
