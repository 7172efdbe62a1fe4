"""Who clients are and what they may, as a configuration file says it: what is read, and what each mistake is answered with."""

from __future__ import annotations

import re
from typing import Any

import pytest

from mcp_gateway.config.identity_settings import ALGORITHMS, AuthSettings, IssuerSettings
from mcp_gateway.config.loader import ConfigError, settings_from_mapping

KEY = "sha256:" + "0" * 64
PUBLIC = {"public_url": "https://mcp.example.com"}


def problems(mapping: dict[str, Any]) -> str:
    with pytest.raises(ConfigError) as raised:
        settings_from_mapping(mapping, "f")
    return str(raised.value)


def test_without_a_table_nobody_is_asked_who_it_is_and_nothing_is_ruled() -> None:
    settings = settings_from_mapping({}, "f")
    assert (settings.auth, settings.tls, settings.policies) == (None, None, ())


def test_issuers_keys_policies_and_certificates_are_read() -> None:
    auth = {"issuers": [{"issuer": "https://id.example"}], "api_keys": [{"name": "ci", "hash": KEY, "scopes": ["read"]}]}
    tls = {"certificate": "c.pem", "key": "k.pem", "hsts": 5}
    policies = [{"effect": "allow", "tools": ["files__*"], "when": "arguments.path == '/'"}]
    settings = settings_from_mapping({"gateway": PUBLIC, "auth": auth, "tls": tls, "policies": policies}, "f")
    assert settings.auth is not None
    assert settings.auth.mode == "required"
    assert settings.auth.issuers == (IssuerSettings(issuer="https://id.example"),)
    assert settings.auth.api_keys[0].scopes == ("read",)
    assert settings.tls is not None
    assert settings.tls.hsts == 5.0
    assert settings.policies[0].tools == ("files__*",)


@pytest.mark.parametrize(
    ("auth", "expected"),
    [
        ({}, r"auth: found nobody whom the gateway could know"),
        ({"mode": "off"}, r"auth\.mode: found 'off'"),
        ({"issuers": [{}]}, r"auth\.issuers\[0\]\.issuer: found nothing"),
        ({"issuers": [{"issuer": "https://id.example?x=1"}]}, r"auth\.issuers\[0\]\.issuer: "),
        (
            {"issuers": [{"issuer": "http://id.example"}]},
            r"issuer: found 'http://id\.example'; allowed: an https URL, or allow_pri",
        ),
        ({"issuers": [{"issuer": "https://id.example", "algorithms": ["HS256"]}]}, r"algorithms\[0\]: found 'HS256'"),
        ({"issuers": [{"issuer": "https://id.example", "algorithms": ["none"]}]}, r"algorithms\[0\]: found 'none'"),
        ({"issuers": [{"issuer": "https://a"}, {"issuer": "https://a"}]}, r"issuers\[1\]\.issuer: found 'https://a' again"),
        ({"api_keys": [{"name": "ci", "hash": "sha256:secret"}]}, r"api_keys\[0\]\.hash: found something else; allowed: sha256:"),
        ({"api_keys": [{"name": "ci", "hash": KEY}, {"name": "ci", "hash": KEY}]}, r"api_keys\[1\]\.name: found 'ci' again"),
        ({"user_header": "X-User"}, r"auth\.user_header: found 'X-User'; allowed: beside gateway\.trusted_proxies"),
        ({"client_certificates": True}, r"auth\.client_certificates: found true; allowed: true beside tls\.client_ca"),
        ({"api_keys": [{"name": "ci", "hash": KEY, "scopes": ["a b"]}]}, r"api_keys\[0\]\.scopes\[0\]: "),
    ],
)
def test_a_mistake_is_told_by_key_with_what_is_allowed(auth: dict[str, Any], expected: str) -> None:
    assert re.search(expected, problems({"gateway": PUBLIC, "auth": auth}))


def test_who_vouches_for_users_is_named_elsewhere() -> None:
    """Where the other table is wrong itself, only that is told."""
    by_proxy, by_certificate = {"user_header": "X-User"}, {"client_certificates": True}
    tls = {"certificate": "c.pem", "key": "k.pem"}
    settings_from_mapping({"gateway": {"trusted_proxies": ["10.0.0.1"]}, "auth": by_proxy}, "f")
    settings_from_mapping({"tls": {**tls, "client_ca": "ca.pem"}, "auth": by_certificate}, "f")
    assert "auth.client_certificates" in problems({"tls": tls, "auth": by_certificate})
    assert problems({"gateway": {"trusted_proxies": "x"}, "auth": by_proxy}).count("found") == 1
    assert problems({"tls": {**tls, "client_ca": 1}, "auth": by_certificate}).count("found") == 1


def test_an_audience_is_named_or_follows_from_the_public_address() -> None:
    assert "auth.issuers[0].audience: found nothing" in problems({"auth": {"issuers": [{"issuer": "https://id.example"}]}})
    issuer = {"issuer": "https://id.example", "audience": ["https://mcp.example.com"]}
    assert settings_from_mapping({"auth": {"issuers": [issuer]}}, "f").auth == AuthSettings(issuers=(IssuerSettings(**issuer),))


def test_an_issuer_on_the_own_network_is_allowed_by_name() -> None:
    issuer = {"issuer": "http://127.0.0.1:9000", "allow_private": True}
    settings = settings_from_mapping({"gateway": PUBLIC, "auth": {"issuers": [issuer]}}, "f")
    assert settings.auth is not None
    assert settings.auth.issuers[0].allow_private


def test_no_symmetric_algorithm_can_be_asked_for() -> None:
    assert not [name for name in ALGORITHMS if name.startswith("HS") or name.lower() == "none"]


def test_the_hash_of_a_key_is_not_shown() -> None:
    settings = settings_from_mapping({"auth": {"api_keys": [{"name": "ci", "hash": KEY}]}}, "f")
    assert KEY not in repr(settings)
